package issuer

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

func TestAThrottledClientIsPausedAsAWholeAndNoOther(t *testing.T) {
	for name, fault := range map[string]sfmctest.Fault{
		"429": {Refusal: sfmctest.RateLimited, RetryAfter: 90 * time.Second},
		"503": {Refusal: sfmctest.Unavailable, RetryAfter: 90 * time.Second},
		"as a date": {Status: 429, Body: `{"message":"Rate limit exceeded","errorcode":50100}`,
			Header: map[string]string{
				"Retry-After": noon.Add(90 * time.Second).Format("Mon, 02 Jan 2006 15:04:05 GMT"),
			}},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			d := openDesk(t)
			served := d.gets(d.want("", "a"))
			d.server.AddFaults(fault)
			throttled := d.isHeld(d.want(emea, "a"))
			g.Expect(throttled.Failures).To(Equal(1))
			g.Expect(kindOf(throttled)).To(Equal(sfmc.Throttled))
			failed := d.isHeld(d.want(apac, "b"))
			g.Expect(kindOf(failed)).To(Equal(sfmc.Throttled))
			g.Expect(d.server.Count()).To(Equal(2))
			g.Expect(d.gets(d.want("", "c"))).To(Equal(served), "a remembered token needs no request")

			d.gets(d.wantOf(otherID, emea, "a"))
			g.Expect(d.server.Count()).To(Equal(3), "another client")

			d.pass(90*time.Second - 1)
			_ = d.isHeld(d.want(emea, "a"))
			_ = d.isHeld(d.want(apac, "b"))
			g.Expect(d.server.Count()).To(Equal(3))
			d.pass(1)
			d.settle()
			g.Expect(d.server.Count()).To(Equal(5))
			d.gets(d.want(emea, "a"))
			d.gets(d.want(apac, "b"))
			g.Expect(d.server.Count()).To(Equal(5))
		})
	}
}

func TestAChangeOrARefreshThatIsAskedForEndsAPauseOnceIn30Seconds(t *testing.T) {
	for name, ask := range map[string]func(want *Want, n int){
		"a change": func(want *Want, n int) { want.Causes = fmt.Sprint("changed ", n) },
		"a refresh of a token that nobody else waits for": func(want *Want, n int) {
			want.Name, want.After = fmt.Sprint(n), noon
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			d := openDesk(t)
			d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.RateLimited, RetryAfter: 10 * time.Minute, Times: 3})
			want := d.want(emea, "a")
			_ = d.isHeld(want)
			ask(want, 1)
			_ = d.isHeld(want)
			g.Expect(d.server.Count()).To(Equal(2))
			ask(want, 2)
			_ = d.isHeld(want)
			g.Expect(d.server.Count()).To(Equal(2), "not again within 30 s")
			d.pass(demandFloor - 1)
			g.Expect(d.server.Count()).To(Equal(2))
			d.pass(1)
			d.settle()
			g.Expect(d.server.Count()).To(Equal(3))
			_ = d.isHeld(want)
			d.pass(demandFloor)
			ask(want, 3)
			d.gets(want)
			g.Expect(d.server.Count()).To(Equal(4))
		})
	}
}

func TestABlockedClientIsPausedForAMinuteDoublingToTen(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.Blocked, Times: sfmctest.Forever})
	sent := d.requestsDuring(time.Hour, d.want(emea, "a"), d.want(apac, "b"))
	g.Expect(sent).To(Equal(minutes(0, 1, 3, 7, 15, 25, 35, 45, 55)))
}

func TestAPauseThatIsOverIsForgottenWithTheFirstToken(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.Blocked, Times: 3})
	d.requestsDuring(10*time.Minute, d.want(emea, "a"))
	g.Expect(d.server.Issued()).To(Equal(1))
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.Blocked})
	_ = d.isHeld(d.want(apac, "a"))
	g.Expect(d.requestsDuring(2*time.Minute)).To(Equal([]int{60}), "it begins anew")
}

// underway sends a request whose answer is held back until the returned function is called, which waits for its end.
func (d *desk) underway(want *Want) (end func() error) {
	d.t.Helper()
	release := make(chan struct{})
	hold := func(r sfmctest.TokenRequest) {
		if r.AccountID == want.Candidates[0].AccountID {
			<-release
		}
	}
	d.decided.Store(&hold)
	before := d.server.Count()
	_, err := d.Ask(d.t.Context(), want)
	NewWithT(d.t).Expect(err).To(MatchError(errUnderWay))
	NewWithT(d.t).Eventually(d.server.Count).Should(Equal(before + 1))
	return func() error {
		close(release)
		d.settle()
		_, err := d.Ask(d.t.Context(), want)
		return err
	}
}

// heldBack sends a request while another one is under way, and expects its client to be held back since it failed.
func (d *desk) heldBack(want *Want) {
	d.t.Helper()
	before := d.woken(want.Asker)
	_, _ = d.Ask(d.t.Context(), want)
	NewWithT(d.t).Eventually(d.woken).WithArguments(want.Asker).Should(BeNumerically(">", before))
	_, err := d.Ask(d.t.Context(), want)
	NewWithT(d.t).Expect(kindOf(err)).To(Equal(sfmc.Throttled))
}

func TestATokenThatWasUnderwayDoesNotEndThePauseOfItsClient(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{AccountID: apac, Refusal: sfmctest.RateLimited, RetryAfter: 90 * time.Second})
	end := d.underway(d.want(emea, "a"))
	d.heldBack(d.want(apac, "b"))
	g.Expect(end()).To(Succeed())
	_ = d.isHeld(d.want("", "c"))
	g.Expect(d.requestsDuring(91*time.Second)).To(Equal([]int{90, 90}), "no request before Retry-After")
}

func TestAnAnswerThatWasUnderwayDoesNotShortenThePauseOfItsClient(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(
		sfmctest.Fault{AccountID: apac, Refusal: sfmctest.RateLimited, RetryAfter: 90 * time.Second},
		sfmctest.Fault{AccountID: emea, Refusal: sfmctest.RateLimited, RetryAfter: 5 * time.Second},
	)
	end := d.underway(d.want(emea, "a"))
	d.heldBack(d.want(apac, "b"))
	g.Expect(end()).NotTo(Succeed())
	for _, account := range []string{emea, apac, ""} {
		_ = d.isHeld(d.want(account, "c"))
	}
	sent := d.requestsDuring(91 * time.Second)
	g.Expect(sent).To(Equal([]int{90, 90, 90}), "no request before the later Retry-After")
}

func TestRequestsThatAreBlockedTogetherAreOneFailureOfTheirClient(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.Blocked, Times: 2})
	end := d.underway(d.want(emea, "a"))
	d.heldBack(d.want(apac, "b"))
	g.Expect(end()).NotTo(Succeed())
	_ = d.isHeld(d.want("", "c"))
	sent := d.requestsDuring(2 * time.Minute)
	g.Expect(sent).To(Equal([]int{60, 60, 60}), "one pause of a minute, not a second one twice as long")
}

func TestWhatNoDecisionDependsOnIsForgotten(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	sizes := func() []int {
		return []int{len(d.tokens), len(d.entries), len(d.gates), len(d.Issuer.asked), len(d.hosts)}
	}
	d.gets(d.want(emea, "a"))
	d.server.AddFaults(
		sfmctest.Fault{AccountID: apac, Refusal: sfmctest.InvalidClient},
		sfmctest.Fault{ClientID: otherID, Refusal: sfmctest.Blocked},
	)
	refused, blocked := d.want(apac, "a"), d.wantOf(otherID, emea, "b")
	_, _ = d.fails(refused)
	_ = d.isHeld(blocked)
	g.Expect(sizes()).To(Equal([]int{1, 2, 2, 2, 1}))

	d.pass(time.Minute)
	d.settle()
	d.gets(blocked)
	d.Forget(refused.Asker)
	own := d.gets(d.want("", "a"))
	g.Expect(sizes()).To(Equal([]int{3, 1, 2, 0, 1}), "all of it may be needed yet")

	d.pass(time.Hour + 2*time.Minute)
	next := d.gets(d.want("", "a"))
	g.Expect(next).NotTo(Equal(own))
	g.Expect(sizes()).To(Equal([]int{1, 0, 1, 0, 1}))
	d.Forget(d.want("", "a").Asker)
	d.pass(time.Hour + 2*time.Minute)
	g.Expect(sizes()).To(Equal([]int{0, 0, 0, 0, 0}))
}
