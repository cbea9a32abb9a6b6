package issuer

import (
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/time/rate"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

func TestARecordedTokenWithARightProofIsServedWithoutARequest(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	recorded := d.gets(d.want(emea, "a"))
	d.restart(rate.Inf, 1)
	d.recorded, d.recalled = []*token.Token{recorded}, nil
	before := d.want(emea, "b")
	before.Refused = "before"
	g.Expect(d.obtains(before)).To(Equal(Obtained{recorded, "before"}))
	g.Expect(d.recalled).To(Equal([]string{recorded.Identity}))

	d.recorded = nil
	g.Expect(d.obtains(d.want(emea, "c"))).To(Equal(Obtained{Token: recorded}))
	g.Expect(d.recalled).To(HaveLen(1), "it is remembered now")
	g.Expect(d.server.Count()).To(Equal(1))
	g.Expect(d.issued()).To(HaveLen(1), "it was issued once")
}

func TestOfSeveralRecordedTokensTheNewestIsServed(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	older := d.gets(d.want(emea, "a"))
	d.pass(time.Minute)
	d.restart(rate.Inf, 1)
	newest := d.gets(d.want(emea, "a"))
	for _, recorded := range [][]*token.Token{{older, newest}, {newest, older}} {
		d.restart(rate.Inf, 1)
		d.recorded = recorded
		g.Expect(d.obtains(d.want(emea, "a")).Token).To(Equal(newest))
	}
	g.Expect(d.server.Count()).To(Equal(2))
}

func TestARecordedTokenThatIsPlantedOrForAnotherIdentityIsNotServed(t *testing.T) {
	for name, forge := range map[string]func(d *desk, recorded *token.Token){
		"another token":            func(_ *desk, r *token.Token) { r.AccessToken = "planted" },
		"without a proof":          func(_ *desk, r *token.Token) { r.Proof = "" },
		"proved by another secret": func(_ *desk, r *token.Token) { r.Proof = r.Prove("another secret") },
		"that lasts longer":        func(_ *desk, r *token.Token) { r.ExpiresAt = r.ExpiresAt.Add(time.Hour) },
		"for another identity":     func(d *desk, r *token.Token) { *r = *d.gets(d.want(apac, "a")) },
		"under another's identity": func(d *desk, r *token.Token) {
			identity := r.Identity
			*r = *d.gets(d.want(apac, "a"))
			r.Identity = identity
		},
		"of another client": func(d *desk, r *token.Token) { *r = *d.gets(d.wantOf(otherID, emea, "a")) },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			d := openDesk(t)
			want := d.want(emea, "a")
			recorded := *d.gets(want)
			forge(d, &recorded)
			d.restart(rate.Inf, 1)
			d.recorded = []*token.Token{&recorded}
			before := d.server.Count()
			issued := d.obtains(want).Token
			g.Expect(issued.AccessToken).NotTo(Equal(recorded.AccessToken))
			g.Expect(d.server.Count()).To(Equal(before + 1))
			only := map[string]*token.Token{identity(want): issued}
			g.Expect(d.tokens).To(Equal(only), "nothing of it is remembered")
		})
	}
}

func TestARecordedTokenThatWontDoAnyMoreIsNotServed(t *testing.T) {
	for name, change := range map[string]func(d *desk, want *Want, recorded *token.Token){
		"due":      func(d *desk, w *Want, r *token.Token) { d.setTime(r.RefreshAt(w.RefreshBefore)) },
		"rejected": func(_ *desk, w *Want, r *token.Token) { w.After = r.IssuedAt },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			d := openDesk(t)
			want := d.want(emea, "a")
			recorded := d.gets(want)
			d.restart(rate.Inf, 1)
			d.recorded = []*token.Token{recorded}
			change(d, want, recorded)
			g.Expect(d.obtains(want).Token.AccessToken).NotTo(Equal(recorded.AccessToken))
			g.Expect(d.server.Count()).To(Equal(2))
		})
	}
}

func TestNoTokenIsAskedForWhileItIsNotKnownWhatIsRecorded(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.err = errors.New("the API server is away")
	want := d.want(emea, "a")
	want.Refused = "before"
	obtained, err := d.obtain(want)
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

// both wants a token for a business unit during a rotation: with the active or with the staged client secret.
func (d *desk) both(account, refused string) *Want {
	want := d.want(account, "a")
	want.Candidates = append(want.Candidates, d.wantWith(stagedSecret, hushID, account, "a").Candidates...)
	want.Refused = refused
	return want
}

func staged(want *Want) string { return want.Candidates[1].Identity }

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
	want := d.both(emea, "")
	obtained := d.obtains(want)
	g.Expect(obtained.Token.Identity).To(Equal(identity(want)))
	g.Expect(obtained.Refused).To(BeEmpty())
	g.Expect(d.asked()).To(Equal([]int{200}))
	g.Expect(d.recalled[:2]).To(Equal([]string{identity(want), staged(want)}), "either may be recorded")
}

func TestTheStagedClientSecretIsUsedWhenTheActiveOneIsDeadAndTriedFirstFromThenOn(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.stage()
	d.activate()
	want := d.both(emea, "")
	first := d.obtains(want)
	g.Expect(first.Token.Identity).To(Equal(staged(want)))
	g.Expect(first.Token.IsProved(stagedSecret)).To(BeTrue())
	g.Expect(first.Refused).To(Equal(identity(want)))
	g.Expect(d.asked()).To(Equal([]int{401, 200}))
	want.Refused = first.Refused
	g.Expect(d.obtains(want)).To(Equal(first), "it is remembered, whoever was refused")
	g.Expect(d.asked()).To(BeEmpty())

	// The next token, by this process alone: it remembers which one is dead.
	d.setTime(first.Token.RefreshAt(want.RefreshBefore))
	next := d.obtains(d.both(emea, ""))
	g.Expect(next.Token.Identity).To(Equal(staged(want)))
	g.Expect(next.Refused).To(Equal(identity(want)))
	g.Expect(d.asked()).To(Equal([]int{200}))

	// That is so for each business unit of the client.
	other := d.both(apac, "")
	g.Expect(d.obtains(other).Token.Identity).To(Equal(staged(other)))
	g.Expect(d.asked()).To(Equal([]int{200}))

	// And after a restart, by what is recorded of the refusal.
	d.restart(rate.Inf, 1)
	d.setTime(next.Token.RefreshAt(want.RefreshBefore))
	again := d.obtains(want)
	g.Expect(again.Token.Identity).To(Equal(staged(want)))
	g.Expect(again.Refused).To(Equal(identity(want)), "it stays recorded")
	g.Expect(d.asked()).To(Equal([]int{200}))
}

func TestTheActiveClientSecretIsTriedFirstAgainWhenTheStagedOneWasRefusedLast(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	want := d.both(emea, "")
	g.Expect(d.server.DisablePackage(hushID, true)).To(Succeed())
	obtained, err := d.obtain(want)
	g.Expect(obtained).To(Equal(Obtained{Refused: staged(want)}), "that was tried last")
	failed := d.problemOf(err)
	g.Expect(failed.Reason).To(Equal(v1alpha1.ReasonRequestRefused))
	g.Expect(failed.RetryAt).To(Equal(noon.Add(2 * time.Minute)))
	g.Expect(d.asked()).To(Equal([]int{401, 401}))

	// From memory it is the same.
	want.Refused = obtained.Refused
	again, err := d.obtain(want)
	g.Expect(again).To(Equal(obtained))
	g.Expect(d.problemOf(err)).To(Equal(failed))
	g.Expect(d.WhyWaiting(want, 2)).To(Equal(err))
	g.Expect(d.asked()).To(BeEmpty())

	g.Expect(d.server.DisablePackage(hushID, false)).To(Succeed())
	d.pass(2 * time.Minute)
	g.Expect(d.obtains(want).Token.Identity).To(Equal(identity(want)))
	g.Expect(d.asked()).To(Equal([]int{200}))
}

func TestOneClientSecretThatIsRefusedHasNoOtherToBeTried(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.InvalidClient})
	alone := d.want(emea, "a")
	obtained, err := d.obtain(alone)
	_ = d.problemOf(err)
	g.Expect(obtained).To(Equal(Obtained{Refused: identity(alone)}))
	d.pass(2 * time.Minute)
	alone.Refused = obtained.Refused
	d.obtains(alone)
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
			obtained, err := d.obtain(d.both(emea, "before"))
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
	want := d.both(emea, "")
	g.Expect(d.server.DisablePackage(hushID, true)).To(Succeed())
	obtained, err := d.obtain(want)
	g.Expect(d.problemOf(err).Reason).To(Equal(v1alpha1.ReasonRequestRefused))
	g.Expect(d.asked()).To(Equal([]int{401, 401}))

	// Both are due again while others use up what may be sent.
	d.pass(2 * time.Minute)
	d.gets(d.wantOf(otherID, "", "a"))
	d.gets(d.wantOf(otherID, emea, "a"))
	want.Refused = obtained.Refused
	_, err = d.obtain(want)
	g.Expect(err).To(MatchError(errNoSlot))
	g.Expect(d.problemOf(err).Reason).To(Equal(v1alpha1.ReasonWaitingForTurn))
	_, isAsked := d.entries[staged(want)]
	g.Expect(isAsked && len(d.entries[staged(want)].lines) > 0).To(BeFalse(), "nothing was refused that it could mend")
}

// All wait in one line when the first of them show that the active client secret is dead.
func TestWhoeverWaitsForADeadClientSecretIsToldToTryTheOtherOne(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.stage()
	d.activate()
	release := d.held()
	var wants []*Want
	for n := range 8 {
		want := d.both(emea, fmt.Sprint(n))
		want.Name = fmt.Sprint(n)
		for c := range want.Candidates {
			request := &want.Candidates[c].Request
			request.Scopes = []string{"email_read", fmt.Sprint(n)}
			want.Candidates[c].IssuedFor = token.Identify(*request)
		}
		wants = append(wants, want)
		_, err := d.Ask(t.Context(), want)
		g.Expect(err).To(HaveOccurred())
	}
	g.Expect(d.inFlight).To(HaveKeyWithValue("marketing", failsAsAWhole))
	release()
	d.server.ResetRecord()
	for _, want := range wants {
		g.Expect(d.woken(want.Asker)).To(BeNumerically(">=", 1))
		_, err := d.obtain(want)
		g.Expect(kindOf(err)).To(Equal(sfmc.Kind("")))
	}
	g.Expect(d.asked()).NotTo(ContainElement(401))
}

func TestTheNewestTokenOfEitherClientSecretIsServed(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.stage()
	both := d.both(emea, "")
	first := d.gets(d.want(emea, "a"))
	g.Expect(d.gets(both)).To(Equal(first))
	d.pass(time.Minute)
	second := d.gets(d.wantWith(stagedSecret, hushID, emea, "a"))
	g.Expect(d.gets(both)).To(Equal(second), "it may have invalidated the other one")
	g.Expect(d.server.Count()).To(Equal(2))
	both.After = second.IssuedAt
	d.pass(time.Second)
	g.Expect(d.gets(both).IssuedAt).To(BeTemporally(">", second.IssuedAt), "none that was there will do")
	g.Expect(d.server.Count()).To(Equal(3))
}
