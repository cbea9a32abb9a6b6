package issuer

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/time/rate"
	"k8s.io/utils/clock"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// held has all answers wait until the returned function is called, which waits for their end.
func (d *desk) held() (release func()) {
	gate := make(chan struct{})
	hold := func(sfmctest.TokenRequest) { <-gate }
	d.decided.Store(&hold)
	return func() {
		d.decided.Store(nil)
		close(gate)
		d.settle()
	}
}

func TestAllWhoWantOneTokenShareOneRequest(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	release := d.held()
	var wants []*Want
	for i := range 50 {
		wants = append(wants, d.want(emea, fmt.Sprint(i)))
		_, err := d.Ask(t.Context(), wants[i])
		g.Expect(err).To(MatchError(errUnderWay))
		g.Expect(d.problemOf(err).IsWoken).To(BeTrue())
	}
	release()
	g.Expect(d.Untaken()).To(HaveLen(50))
	first := d.gets(wants[0])
	for _, want := range wants {
		g.Expect(d.woken(want.Asker)).To(Equal(1))
		g.Expect(d.gets(want)).To(BeIdenticalTo(first))
	}
	g.Expect(d.Untaken()).To(BeEmpty())
	g.Expect(d.server.Count()).To(Equal(1))
	g.Expect(d.wakes).To(HaveLen(1))
}

func TestAllWhoWantOneTokenShareOneRefusal(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.InvalidClient, Times: sfmctest.Forever})
	release := d.held()
	var wants []*Want
	for i := range 50 {
		wants = append(wants, d.want(emea, fmt.Sprint(i)))
		_, err := d.Ask(t.Context(), wants[i])
		g.Expect(err).To(MatchError(errUnderWay))
	}
	release()
	for _, want := range wants {
		g.Expect(d.woken(want.Asker)).To(Equal(1))
		why := d.WhyWaiting(want, 1)
		failed, wait := d.fails(want)
		g.Expect(failed).To(Equal(why))
		g.Expect(kindOf(failed)).To(Equal(sfmc.Refused))
		g.Expect(wait).To(Equal(2 * time.Minute))
	}
	g.Expect(d.server.Count()).To(Equal(1))
	g.Expect(d.issued()).To(BeEmpty())
}

func TestATokenHasAllThatMustBeRememberedOfIt(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	slow := func(sfmctest.TokenRequest) { d.pass(20 * time.Second) } // the answer takes its time
	d.decided.Store(&slow)
	want := d.want(emea, "a")
	issued := d.gets(want)
	g.Expect(issued.IssuedAt).To(Equal(noon), "counted from when the request was sent")
	g.Expect(issued.ExpiresAt).To(Equal(noon.Add(usualLife)))
	g.Expect(issued.IssuedFor).To(Equal(want.Candidates[0].IssuedFor))
	g.Expect(issued.Proof).To(Equal(issued.Prove(hushSecret)))
	g.Expect(d.Latest(identity(want))).To(Equal(issued))
	g.Expect(d.Latest("another")).To(BeNil())
}

func TestWhoeverAskedForATokenIsToldOfItOnceEveryoneFindsIt(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.InternalError})
	a, b := d.want(emea, "a"), d.want(emea, "b")
	_, wait := d.fails(a)
	_, _ = d.fails(b)
	g.Expect(d.issued()).To(BeEmpty(), "there was none")
	d.pass(wait)
	first := d.gets(a)
	g.Expect(d.gets(a)).To(Equal(first))
	g.Expect(d.issued()).To(Equal([]*token.Token{first}))
	g.Expect(d.wakes).To(HaveLen(2))
	g.Expect(d.wakes[1]).To(Equal(wake{[]Asker{a.Asker, b.Asker}, first, first}), "b, too, whose request failed")
}

func TestEachRequestIsObservedAndNothingElse(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	slow := func(sfmctest.TokenRequest) { d.pass(3 * time.Second) }
	d.decided.Store(&slow)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.InvalidClient})
	want := d.want(emea, "a")
	_, _ = d.fails(want)
	_, _ = d.fails(want)
	d.pass(2 * time.Minute)
	d.gets(want)
	d.gets(want)
	g.Expect(d.server.Count()).To(Equal(2))
	g.Expect(d.observed).To(HaveLen(2))
	g.Expect(d.observed[0].failed).To(HaveField("Kind", sfmc.Refused))
	g.Expect(d.observed[1].failed == nil).To(BeTrue())
	for _, request := range d.observed {
		g.Expect(request.took).To(Equal(3 * time.Second))
	}
}

func TestARememberedTokenIsServedUntilItIsToBeReplaced(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	want := d.want(emea, "a")
	first := d.gets(want)
	at := first.RefreshAt(want.RefreshBefore)
	d.setTime(at.Add(-1))
	g.Expect(d.gets(d.want(emea, "b"))).To(Equal(first))
	g.Expect(d.server.Count()).To(Equal(1))
	d.setTime(at)
	second := d.gets(want)
	g.Expect(second.AccessToken).NotTo(Equal(first.AccessToken))
	g.Expect(d.gets(d.want(emea, "b"))).To(Equal(second))
	g.Expect(d.server.Count()).To(Equal(2))
	g.Expect(d.issued()).To(HaveLen(2))
}

func TestEachIdentityHasATokenOfItsOwn(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	seen := map[string]bool{}
	for _, want := range []*Want{
		d.want(emea, "a"), d.want(apac, "a"), d.want("", "a"), d.wantOf(otherID, emea, "a"),
	} {
		seen[d.gets(want).AccessToken] = true
	}
	g.Expect(seen).To(HaveLen(4))
	g.Expect(d.server.Count()).To(Equal(4))
}

func TestATokenThatWontDoAnyMoreIsReplacedOnceForAll(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	first := d.gets(d.want(emea, "a"))
	again := d.want(emea, "a")
	again.After = first.IssuedAt
	second := d.gets(again)
	g.Expect(second.AccessToken).NotTo(Equal(first.AccessToken))
	another := d.want(emea, "b")
	another.After, another.Causes = first.IssuedAt, "2"
	g.Expect(d.gets(another)).To(Equal(second), "another who saw the first one fail")
	g.Expect(d.gets(d.want(emea, "c"))).To(Equal(second))
	g.Expect(d.server.Count()).To(Equal(2))
}

func TestATokenThatWontDoAnyMoreIsReplacedEvenIfItWasNotTaken(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	want := d.want(emea, "a")
	release := d.held()
	_, err := d.Ask(t.Context(), want)
	g.Expect(err).To(MatchError(errUnderWay))
	release()
	first := d.Latest(identity(want)) // it is in the Secret, for the sake of another who shares it
	want.After = first.IssuedAt
	g.Expect(d.gets(want).AccessToken).NotTo(Equal(first.AccessToken))
	g.Expect(d.server.Count()).To(Equal(2))
}

func TestAnEndpointThatAlwaysIssuesTheSameTokenIsNotAskedInALoop(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{
		Fields: map[string]string{"access_token": `"always-the-same"`}, Times: sfmctest.Forever,
	})
	want := d.want(emea, "a")
	first, err := d.obtain(want)
	g.Expect(err).NotTo(HaveOccurred())
	want.After = first.Token.IssuedAt
	_, err = d.obtain(want)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(d.server.Count()).To(Equal(2), "one request for the refresh that was asked for")
}

func TestAShutdownLosesNoTokenThatWasAskedFor(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	ctx, cancel := context.WithCancel(t.Context())
	stop := func(sfmctest.TokenRequest) { cancel() }
	d.decided.Store(&stop)
	var running sync.WaitGroup
	running.Go(func() { d.Run(ctx) })
	want := d.want(emea, "a")
	_, err := d.Ask(t.Context(), want)
	g.Expect(err).To(MatchError(errUnderWay))
	running.Wait()
	g.Expect(d.issued()).To(HaveLen(1))
	d.expectAlive(d.issued()[0], emea)
	g.Expect(d.gets(want)).To(Equal(d.issued()[0]))

	_, err = d.Ask(t.Context(), d.want(apac, "a"))
	g.Expect(err).To(MatchError(errNoSlot))
	g.Expect(d.server.Count()).To(Equal(1), "none is asked for after it")
}

func TestATokenThatIsLearntIsServedUnlessANewerOneIsKnown(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	want := d.want(emea, "a")
	issuedAt := func(at time.Time, text string) *token.Token {
		held := living(identity(want), at, usualLife)
		held.AccessToken = text
		return held
	}
	d.learn(issuedAt(noon.Add(-time.Minute), "older"), noon)
	d.learn(issuedAt(noon, "newest"), noon)
	d.learn(issuedAt(noon.Add(-2*time.Minute), "oldest"), noon)
	served, err := d.obtain(want)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(served.Token.AccessToken).To(Equal("newest"))
	g.Expect(d.server.Count()).To(BeZero())
}

func TestAHeldTokenIsTheNewestUntilALaterOneIsKnownForItsIdentities(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	g.Expect(d.Newest(nil, []string{"alias"})).To(BeNil())
	called := func(text, identity string, at time.Time) *token.Token {
		named := living(identity, at, usualLife)
		named.AccessToken = text
		return named
	}
	held := called("held", "own", noon)
	newest := func() *token.Token { return d.Newest(held, []string{"alias"}) }
	g.Expect(newest()).To(BeIdenticalTo(held), "none is known at all")

	same := called("held", "own", noon)
	d.learn(same, noon)
	g.Expect(newest()).To(BeIdenticalTo(same), "the same one, with the monotonic clock if it was issued here")

	d.learn(called("earlier", "alias", noon.Add(-1)), noon)
	d.learn(called("foreign", "foreign", noon.Add(time.Minute)), noon)
	g.Expect(newest()).To(BeIdenticalTo(same))
	byAlias := called("by alias", "alias", noon.Add(1))
	d.learn(byAlias, noon)
	g.Expect(newest()).To(BeIdenticalTo(byAlias), "one was issued to the other client secret since")
	g.Expect(d.Newest(held, nil)).To(BeIdenticalTo(same), "which isn't one of the package any more")
	next := called("next", "own", noon.Add(2))
	d.learn(next, noon)
	g.Expect(newest()).To(BeIdenticalTo(next))
}

func TestAfterTheWallClockWasSetBackANewTokenIsTheNewestAllTheSame(t *testing.T) {
	for name, made := range map[string]func(*desk) func(time.Duration){
		"known by the wall clock alone": func(d *desk) func(time.Duration) { return d.pass },
		"known by both clocks": func(d *desk) func(time.Duration) {
			d.clock.SetTime(clock.RealClock{}.Now())
			wall := &sfmctest.LeapingClock{FakeClock: d.clock}
			d.wall = wall
			d.restart(rate.Inf, 1)
			return wall.Leap
		},
	} {
		for _, back := range []time.Duration{
			20 * time.Second, // less than another replica's clock may differ by
			10 * time.Minute,
		} {
			t.Run(fmt.Sprint(name, ", ", back), func(t *testing.T) {
				g := NewWithT(t)
				d := openDesk(t)
				leap := made(d)
				want := d.want(emea, "a")
				held := *d.gets(want)
				held.IssuedAt, held.ExpiresAt = held.IssuedAt.Round(0), held.ExpiresAt.Round(0) // as it is recorded
				d.pass(time.Second)
				leap(-back)
				want.After = held.IssuedAt
				next := d.gets(want)
				g.Expect(next.AccessToken).NotTo(Equal(held.AccessToken), "a person asked for another one")
				g.Expect(d.Newest(&held, nil)).To(BeIdenticalTo(next), "else who shares it keeps one that may be invalid")
				g.Expect(d.gets(want)).To(BeIdenticalTo(next), "the request was answered")
				g.Expect(d.server.Count()).To(Equal(2))
			})
		}
	}
}

func TestATokenInASecretIsDueByBothClocksIfItWasIssuedHere(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.clock.SetTime(clock.RealClock{}.Now()) // with a monotonic reading
	issued := d.gets(d.want(emea, "a"))
	held := *issued
	held.IssuedAt, held.ExpiresAt = held.IssuedAt.Round(0), held.ExpiresAt.Round(0) // as it is recorded
	setBack := sfmctest.Leapt(d.clock.Now().Add(900*time.Second), -10*time.Minute)
	g.Expect(held.IsFresh(setBack, 5*time.Minute)).To(BeTrue(), "by the wall clock alone it is 300 s old")
	g.Expect(d.Timed(&held).IsFresh(setBack, 5*time.Minute)).To(BeFalse())
	g.Expect(*d.Timed(&held)).To(Equal(*issued))
	g.Expect(d.Timed(nil)).To(BeNil())
	for _, edit := range []func(*token.Token){
		func(t *token.Token) { t.Identity = "other" },
		func(t *token.Token) { t.AccessToken = "other" },
		func(t *token.Token) { t.IssuedAt = t.IssuedAt.Add(1) },
		func(t *token.Token) { t.ExpiresAt = t.ExpiresAt.Add(1) },
	} {
		other := held
		edit(&other)
		g.Expect(d.Timed(&other)).To(BeIdenticalTo(&other), "it is another one")
	}
}

func TestATokenOfAnotherProcessIsToldFromOnesOwn(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	want := d.want(emea, "a")
	foreign := func() *token.Token { return living(identity(want), d.clock.Now(), usualLife) }
	g.Expect(d.IsForeign(foreign())).To(BeFalse(), "nobody has asked yet")
	own := d.gets(want)
	g.Expect(d.IsForeign(own)).To(BeFalse())
	d.pass(token.ClockSkew)
	g.Expect(d.IsForeign(foreign())).To(BeFalse(), "it may be one of before this process")
	d.pass(1)
	another := foreign()
	g.Expect(d.IsForeign(another)).To(BeTrue())
	d.pass(10 * time.Minute)
	mine := living(identity(want), d.clock.Now(), usualLife)
	d.learn(mine, d.clock.Now())
	d.pass(usualLife + sweepEvery)
	g.Expect(d.Latest(identity(want))).To(BeNil(), "it is over, and forgotten")
	g.Expect(d.IsForeign(mine)).To(BeFalse(), "though it is in the Secret still")
}
