package issuer

import (
	"sync"
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
			served := d.gets(d.candidate("", "a"))
			d.server.AddFaults(fault)
			_, wait := d.fails(d.candidate(emea, "a"))
			g.Expect(wait).To(Equal(90 * time.Second))
			failed, wait := d.fails(d.candidate(apac, "b"))
			g.Expect(wait).To(Equal(90 * time.Second))
			g.Expect(kindOf(failed)).To(Equal(sfmc.Throttled))
			g.Expect(d.server.Count()).To(Equal(2))
			g.Expect(d.gets(d.candidate("", "c"))).To(Equal(served), "a remembered token needs no request")

			d.gets(d.candidateOf(otherID, emea, "a"))
			g.Expect(d.server.Count()).To(Equal(3), "another client")

			fixed := d.candidate(emea, "a")
			fixed.Causes = map[string]string{"credentials": "2", "object a": "2"}
			_, _ = d.fails(fixed)
			g.Expect(d.server.Count()).To(Equal(3), "a change doesn't end a pause")

			d.pass(90*time.Second - 1)
			_, _ = d.fails(d.candidate(emea, "a"))
			_, _ = d.fails(d.candidate(apac, "b"))
			g.Expect(d.server.Count()).To(Equal(3))
			d.pass(1)
			d.gets(d.candidate(emea, "a"))
			d.gets(d.candidate(apac, "b"))
			g.Expect(d.server.Count()).To(Equal(5))
		})
	}
}

func TestABlockedClientIsPausedForAMinuteDoublingToTen(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.Blocked, Times: sfmctest.Forever})
	sent := d.requestsDuring(time.Hour, d.candidate(emea, "a"), d.candidate(apac, "b"))
	g.Expect(sent).To(Equal(minutes(0, 1, 3, 7, 15, 25, 35, 45, 55)))
}

func TestAPauseThatIsOverIsForgottenWithTheFirstToken(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.Blocked, Times: 3})
	d.requestsDuring(10*time.Minute, d.candidate(emea, "a"))
	g.Expect(d.server.Issued()).To(Equal(1))
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.Blocked})
	_, wait := d.fails(d.candidate(apac, "a"))
	g.Expect(wait).To(Equal(time.Minute), "it begins anew")
}

// underway sends a request whose answer is held back until the returned function is called, which waits for its end.
func (d *desk) underway(candidate *Candidate) func() error {
	d.t.Helper()
	release, before := make(chan struct{}), d.server.Count()
	hold := func(r sfmctest.TokenRequest) {
		if r.AccountID == candidate.AccountID {
			<-release
		}
	}
	d.decided.Store(&hold)
	var done sync.WaitGroup
	var err error
	done.Go(func() { _, err = d.obtain(d.t.Context(), candidate) })
	NewWithT(d.t).Eventually(d.server.Count).Should(Equal(before + 1))
	return func() error {
		close(release)
		done.Wait()
		return err
	}
}

func TestATokenThatWasUnderwayDoesNotEndThePauseOfItsClient(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{AccountID: apac, Refusal: sfmctest.RateLimited, RetryAfter: 90 * time.Second})
	end := d.underway(d.candidate(emea, "a"))
	_, _ = d.fails(d.candidate(apac, "b"))
	g.Expect(end()).To(Succeed())
	d.pass(time.Minute)
	_, wait := d.fails(d.candidate("", "c"))
	g.Expect(wait).To(Equal(30 * time.Second))
	g.Expect(d.server.Count()).To(Equal(2), "no request before Retry-After")
}

func TestAnAnswerThatWasUnderwayDoesNotShortenThePauseOfItsClient(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(
		sfmctest.Fault{AccountID: apac, Refusal: sfmctest.RateLimited, RetryAfter: 90 * time.Second},
		sfmctest.Fault{AccountID: emea, Refusal: sfmctest.RateLimited, RetryAfter: 5 * time.Second},
	)
	end := d.underway(d.candidate(emea, "a"))
	_, _ = d.fails(d.candidate(apac, "b"))
	g.Expect(end()).NotTo(Succeed())
	d.pass(time.Minute)
	for _, account := range []string{emea, apac, ""} {
		_, wait := d.fails(d.candidate(account, "c"))
		g.Expect(wait).To(Equal(30 * time.Second))
	}
	g.Expect(d.server.Count()).To(Equal(2), "no request before the later Retry-After")
}

func TestRequestsThatAreBlockedTogetherAreOneFailureOfTheirClient(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.Blocked, Times: 2})
	end := d.underway(d.candidate(emea, "a"))
	_, _ = d.fails(d.candidate(apac, "b"))
	g.Expect(end()).NotTo(Succeed())
	_, wait := d.fails(d.candidate("", "c"))
	g.Expect(wait).To(Equal(time.Minute), "one pause of a minute, not a second one twice as long")
}

func TestWhatNoDecisionDependsOnIsForgotten(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	sizes := func() []int { return []int{len(d.tokens), len(d.failures.last), len(d.failures.pauses)} }
	d.gets(d.candidate(emea, "a"))
	d.server.AddFaults(
		sfmctest.Fault{AccountID: apac, Refusal: sfmctest.InvalidClient},
		sfmctest.Fault{ClientID: otherID, Refusal: sfmctest.Blocked},
	)
	_, _ = d.fails(d.candidate(apac, "a"))
	_, _ = d.fails(d.candidateOf(otherID, emea, "a"))
	g.Expect(sizes()).To(Equal([]int{1, 2, 1}))

	d.pass(2 * time.Minute)
	own := d.gets(d.candidate("", "a"))
	g.Expect(sizes()).To(Equal([]int{2, 2, 1}), "all of it may be needed yet")

	d.pass(time.Hour)
	next := d.gets(d.candidate("", "a"))
	g.Expect(d.tokens).To(HaveLen(1))
	g.Expect(d.Latest(own.Identity)).To(Equal(next))
	g.Expect(d.failures.last).To(BeEmpty())
	g.Expect(d.failures.pauses).To(BeEmpty())
}
