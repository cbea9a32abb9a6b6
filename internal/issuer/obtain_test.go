package issuer

import (
	"errors"
	"net/http"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/time/rate"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// obtains asks for a token of one of the candidates, and expects one that is alive.
func (d *desk) obtains(refused string, candidates ...*Candidate) Obtained {
	d.t.Helper()
	obtained, err := d.Obtain(d.t.Context(), candidates, refused)
	NewWithT(d.t).Expect(err).NotTo(HaveOccurred())
	d.expectAlive(obtained.Token, candidates[0].AccountID)
	return obtained
}

func TestARecordedTokenWithARightProofIsServedWithoutARequest(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	recorded := d.gets(d.candidate(emea, "a"))
	d.restart(rate.Inf, 1)
	d.recorded = []*token.Token{recorded}
	g.Expect(d.obtains("before", d.candidate(emea, "b"))).To(Equal(Obtained{recorded, "before"}))
	g.Expect(d.recalled).To(Equal([]string{recorded.Identity}))

	d.recorded = nil
	g.Expect(d.obtains("", d.candidate(emea, "c"))).To(Equal(Obtained{Token: recorded}))
	g.Expect(d.recalled).To(HaveLen(1), "it is remembered now")
	g.Expect(d.server.Count()).To(Equal(1))
	g.Expect(d.announced.Load()).To(BeEquivalentTo(1), "it was issued once")
}

func TestOfSeveralRecordedTokensTheNewestIsServed(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	older := d.gets(d.candidate(emea, "a"))
	d.pass(time.Minute)
	d.restart(rate.Inf, 1)
	newest := d.gets(d.candidate(emea, "a"))
	for _, recorded := range [][]*token.Token{{older, newest}, {newest, older}} {
		d.restart(rate.Inf, 1)
		d.recorded = recorded
		g.Expect(d.obtains("", d.candidate(emea, "a")).Token).To(Equal(newest))
	}
	g.Expect(d.server.Count()).To(Equal(2))
}

func TestARecordedTokenThatIsPlantedOrForAnotherIdentityIsNotServed(t *testing.T) {
	for name, forge := range map[string]func(d *desk, recorded *token.Token){
		"another token":            func(_ *desk, r *token.Token) { r.AccessToken = "planted" },
		"without a proof":          func(_ *desk, r *token.Token) { r.Proof = "" },
		"proved by another secret": func(_ *desk, r *token.Token) { r.Proof = r.Prove("another secret") },
		"that lasts longer":        func(_ *desk, r *token.Token) { r.ExpiresAt = r.ExpiresAt.Add(time.Hour) },
		"for another identity":     func(d *desk, r *token.Token) { *r = *d.gets(d.candidate(apac, "a")) },
		"under another's identity": func(d *desk, r *token.Token) {
			identity := r.Identity
			*r = *d.gets(d.candidate(apac, "a"))
			r.Identity = identity
		},
		"of another client": func(d *desk, r *token.Token) { *r = *d.gets(d.candidateOf(otherID, emea, "a")) },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			d := openDesk(t)
			candidate := d.candidate(emea, "a")
			recorded := *d.gets(candidate)
			forge(d, &recorded)
			d.restart(rate.Inf, 1)
			d.recorded = []*token.Token{&recorded}
			before := d.server.Count()
			issued := d.obtains("", candidate).Token
			g.Expect(issued.AccessToken).NotTo(Equal(recorded.AccessToken))
			g.Expect(d.server.Count()).To(Equal(before + 1))
			only := map[string]*token.Token{candidate.Identity: issued}
			g.Expect(d.tokens).To(Equal(only), "nothing of it is remembered")
		})
	}
}

func TestARecordedTokenThatWontDoAnyMoreIsNotServed(t *testing.T) {
	for name, change := range map[string]func(d *desk, candidate *Candidate, recorded *token.Token){
		"due":      func(d *desk, c *Candidate, r *token.Token) { d.clock.SetTime(r.RefreshAt(c.RefreshBefore)) },
		"rejected": func(_ *desk, c *Candidate, r *token.Token) { c.Rejected = r.AccessToken },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			d := openDesk(t)
			candidate := d.candidate(emea, "a")
			recorded := d.gets(candidate)
			d.restart(rate.Inf, 1)
			d.recorded = []*token.Token{recorded}
			change(d, candidate, recorded)
			g.Expect(d.obtains("", candidate).Token.AccessToken).NotTo(Equal(recorded.AccessToken))
			g.Expect(d.server.Count()).To(Equal(2))
		})
	}
}

func TestNoTokenIsAskedForWhileItIsNotKnownWhatIsRecorded(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.err = errors.New("the API server is away")
	obtained, err := d.Obtain(t.Context(), []*Candidate{d.candidate(emea, "a")}, "before")
	g.Expect(err).To(MatchError(d.err))
	g.Expect(obtained).To(Equal(Obtained{Refused: "before"}))
	g.Expect(d.server.Count()).To(BeZero())
}

// Rotations.

const stagedSecret = "the-next-client-secret"

// stage stages a client secret, which the stand-in accepts at once.
func (d *desk) stage() {
	d.t.Helper()
	d.server.ChangeMode(func(m *sfmctest.Mode) { m.StagedAfter = 0 })
	NewWithT(d.t).Expect(d.server.StageSecret(hushID, stagedSecret)).To(Succeed())
}

// activate makes the staged client secret the active one, while the credentials have it as the staged one still.
func (d *desk) activate() {
	d.t.Helper()
	NewWithT(d.t).Expect(d.server.ActivateStagedSecret(hushID)).To(Succeed())
}

// both are the candidates for a business unit during a rotation: with the active and with the staged client secret.
func (d *desk) both(account string) (active, staged *Candidate) {
	return d.candidate(account, "a"), d.candidateWith(stagedSecret, hushID, account, "a")
}

// asked returns the statuses that were answered since, and forgets them.
func (d *desk) asked() []int {
	var statuses []int
	for _, request := range d.server.Requests() {
		statuses = append(statuses, request.Status)
	}
	d.server.ResetRecord()
	return statuses
}

func TestBothClientSecretsWorkAndTheActiveOneIsUsed(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.stage()
	active, staged := d.both(emea)
	obtained := d.obtains("", active, staged)
	g.Expect(obtained.Token.Identity).To(Equal(active.Identity))
	g.Expect(obtained.Refused).To(BeEmpty())
	g.Expect(d.asked()).To(Equal([]int{200}))
	g.Expect(d.recalled).To(Equal([]string{active.Identity, staged.Identity}), "either may be recorded")
}

func TestTheStagedClientSecretIsUsedWhenTheActiveOneIsDeadAndTriedFirstFromThenOn(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.stage()
	d.activate()
	active, staged := d.both(emea)
	first := d.obtains("", active, staged)
	g.Expect(first.Token.Identity).To(Equal(staged.Identity))
	g.Expect(first.Token.IsProved(stagedSecret)).To(BeTrue())
	g.Expect(first.Refused).To(Equal(active.Identity))
	g.Expect(d.asked()).To(Equal([]int{401, 200}))
	g.Expect(d.obtains(first.Refused, active, staged)).To(Equal(first), "it is remembered, whoever was refused")
	g.Expect(d.asked()).To(BeEmpty())

	// The next token, by this process alone: it remembers which one is dead.
	d.clock.SetTime(first.Token.RefreshAt(staged.RefreshBefore))
	next := d.obtains("", active, staged)
	g.Expect(next.Token.Identity).To(Equal(staged.Identity))
	g.Expect(d.asked()).To(Equal([]int{200}))

	// That is so for each business unit of the client.
	otherUnit, otherStaged := d.both(apac)
	g.Expect(d.obtains("", otherUnit, otherStaged).Token.Identity).To(Equal(otherStaged.Identity))
	g.Expect(d.asked()).To(Equal([]int{200}))

	// And after a restart, by what is recorded of the refusal.
	d.restart(rate.Inf, 1)
	d.clock.SetTime(next.Token.RefreshAt(staged.RefreshBefore))
	again := d.obtains(first.Refused, active, staged)
	g.Expect(again.Token.Identity).To(Equal(staged.Identity))
	g.Expect(again.Refused).To(Equal(active.Identity), "it stays recorded")
	g.Expect(d.asked()).To(Equal([]int{200}))
}

func TestTheActiveClientSecretIsTriedFirstAgainWhenTheStagedOneWasRefusedLast(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	active, staged := d.both(emea)
	g.Expect(d.server.DisablePackage(hushID, true)).To(Succeed())
	obtained, err := d.Obtain(t.Context(), []*Candidate{active, staged}, "")
	g.Expect(obtained).To(Equal(Obtained{Refused: staged.Identity}), "that was tried last")
	failed := d.problemOf(err)
	g.Expect(failed.Reason).To(Equal(v1alpha1.ReasonRequestRefused))
	g.Expect(failed.RetryAt).To(Equal(noon.Add(2 * time.Minute)))
	g.Expect(d.asked()).To(Equal([]int{401, 401}))

	// From memory it is the same.
	again, err := d.Obtain(t.Context(), []*Candidate{active, staged}, obtained.Refused)
	g.Expect(again).To(Equal(obtained))
	g.Expect(d.problemOf(err)).To(Equal(failed))
	g.Expect(d.asked()).To(BeEmpty())

	g.Expect(d.server.DisablePackage(hushID, false)).To(Succeed())
	d.pass(2 * time.Minute)
	g.Expect(d.obtains(obtained.Refused, active, staged).Token.Identity).To(Equal(active.Identity))
	g.Expect(d.asked()).To(Equal([]int{200}))
}

func TestOneClientSecretThatIsRefusedHasNoOtherToBeTried(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.InvalidClient})
	alone := d.candidate(emea, "a")
	obtained, err := d.Obtain(t.Context(), []*Candidate{alone}, "")
	_ = d.problemOf(err)
	g.Expect(obtained).To(Equal(Obtained{Refused: alone.Identity}))
	d.pass(2 * time.Minute)
	d.obtains(obtained.Refused, alone)
	g.Expect(d.asked()).To(Equal([]int{401, 200}))
}

func TestTheOtherClientSecretIsTriedAfterARefusalOfTheClientAlone(t *testing.T) {
	for name, fault := range map[string]sfmctest.Fault{
		"a business unit that is not enabled": {Refusal: sfmctest.AccountForbidden},
		"a bad request":                       {Refusal: sfmctest.InvalidRequest},
		"throttled":                           {Refusal: sfmctest.RateLimited},
		"unavailable":                         {Refusal: sfmctest.InternalError},
		"unreadable":                          sfmctest.ProxyPage(http.StatusOK),
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			d := openDesk(t)
			d.stage()
			d.server.AddFaults(fault)
			active, staged := d.both(emea)
			obtained, err := d.Obtain(t.Context(), []*Candidate{active, staged}, "before")
			g.Expect(err).To(HaveOccurred())
			_ = d.problemOf(err)
			g.Expect(obtained).To(Equal(Obtained{Refused: "before"}))
			g.Expect(d.server.Count()).To(Equal(1))
		})
	}
}

func TestAClientSecretThatWaitsForItsSlotIsWaitedForAlthoughItWasRefusedBefore(t *testing.T) {
	g := NewWithT(t)
	d := openSlowDesk(t, 2)
	active, staged := d.both(emea)
	g.Expect(d.server.DisablePackage(hushID, true)).To(Succeed())
	obtained, err := d.Obtain(t.Context(), []*Candidate{active, staged}, "")
	g.Expect(d.problemOf(err).Reason).To(Equal(v1alpha1.ReasonRequestRefused))
	g.Expect(d.asked()).To(Equal([]int{401, 401}))

	// Both are due again while others use up what may be sent.
	d.pass(2 * time.Minute)
	d.gets(d.candidateOf(otherID, "", "a"))
	d.gets(d.candidateOf(otherID, emea, "a"))
	_, err = d.Obtain(t.Context(), []*Candidate{active, staged}, obtained.Refused)
	waiting := d.problemOf(err)
	g.Expect(waiting.Reason).To(Equal(v1alpha1.ReasonWaitingForTurn))
	g.Expect(waiting.RetryAt.Sub(d.clock.Now())).To(Equal(10*time.Second), "the first slot is its own")
	g.Expect(d.slots.at).NotTo(HaveKey(staged.Identity), "nothing was refused that the other one could mend")
}

func TestTheNewestTokenOfEitherClientSecretIsServed(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.stage()
	active, staged := d.both(emea)
	first := d.gets(active)
	g.Expect(d.obtains("", active, staged).Token).To(Equal(first))
	d.pass(time.Minute)
	second := d.gets(staged)
	g.Expect(d.obtains("", active, staged).Token).To(Equal(second), "it may have invalidated the other one")
	staged.Rejected = second.AccessToken
	g.Expect(d.obtains("", active, staged).Token).To(Equal(first), "it is the newest that will do")
	g.Expect(d.server.Count()).To(Equal(2))
}
