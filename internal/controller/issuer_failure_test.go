package controller

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

// requestsDuring asks each second and returns the seconds at which a request was sent.
func (d *desk) requestsDuring(period time.Duration, wants ...want) []int {
	d.t.Helper()
	var sent []int
	for second := range int(period / time.Second) {
		for _, w := range wants {
			before := d.server.Count()
			_, _ = d.token(d.t.Context(), w)
			if d.server.Count() != before {
				sent = append(sent, second)
			}
		}
		d.pass(time.Second)
	}
	return sent
}

func minutes(ms ...int) []int {
	for i := range ms {
		ms[i] *= 60
	}
	return ms
}

func TestARefusedRequestIsRepeatedAfter2Then4Then8AndThenEvery10Minutes(t *testing.T) {
	for _, refusal := range []sfmctest.Refusal{sfmctest.InvalidClient, sfmctest.AccountForbidden, sfmctest.InvalidRequest} {
		t.Run(string(refusal), func(t *testing.T) {
			g := NewWithT(t)
			d := openDesk(t)
			d.server.AddFaults(sfmctest.Fault{Refusal: refusal, Times: sfmctest.Forever})
			g.Expect(d.requestsDuring(time.Hour, d.want(emea, "a"))).To(Equal(minutes(0, 2, 6, 14, 24, 34, 44, 54)))
		})
	}
}

func TestHoursOfRefusalsAreAHandfulOfRequestsAnHourHoweverManyObjectsAsk(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	g.Expect(d.server.DisablePackage(hushID, true)).To(Succeed())
	wants := []want{d.want(emea, "a"), d.want(emea, "b"), d.want(emea, "c")}
	d.requestsDuring(time.Hour, wants...)
	d.server.ResetRecord()
	g.Expect(len(d.requestsDuring(3*time.Hour, wants...))).To(BeNumerically("<=", 3*6))

	g.Expect(d.server.DisablePackage(hushID, false)).To(Succeed())
	d.pass(10 * time.Minute)
	d.gets(wants[1])
	d.gets(wants[2])
	g.Expect(d.server.Issued()).To(Equal(1))
}

func TestAChangeThatWasSeenBeforeTheRefusalIsWorthARequestAtOnce(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.InvalidClient, Times: 4})
	w := d.want(emea, "a")
	changed := func(where, version string) want {
		next := w
		next.causes = maps.Clone(w.causes)
		next.causes[where] = version
		return next
	}
	_, _ = d.fails(w)
	_, _ = d.fails(w)
	g.Expect(d.server.Count()).To(Equal(1))

	_, _ = d.fails(changed("object b", "1"))
	g.Expect(d.server.Count()).To(Equal(1), "an object that wasn't seen before changes nothing")
	_, _ = d.fails(changed("object a", "2"))
	g.Expect(d.server.Count()).To(Equal(2), "the refresh annotation was set")
	_, _ = d.fails(changed("object a", "2"))
	g.Expect(d.server.Count()).To(Equal(2), "it was answered")
	_, _ = d.fails(changed("object b", "2"))
	g.Expect(d.server.Count()).To(Equal(3), "the other one is known by now")
	attempt, _ := d.fails(changed("credentials", "2"))
	g.Expect(d.server.Count()).To(Equal(4))
	g.Expect(attempt.failures).To(Equal(4))
	d.gets(changed("credentials", "3"))
	g.Expect(d.server.Count()).To(Equal(5), "whoever fixes the package has a token at once")
}

func TestAChangeIsNotTakenForAnsweredByAnAnswerFromMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		clock := &gatedClock{FakePassiveClock: clocktesting.NewFakePassiveClock(noon)}
		client, err := sfmc.NewClient(nil, clock)
		g.Expect(err).NotTo(HaveOccurred())
		i := newIssuer(client, clock, func(context.Context, *issued, types.NamespacedName) {})
		// A business unit that is no number is refused before anything is sent.
		request := sfmc.TokenRequest{AuthHost: tenantHost, ClientID: hushID, ClientSecret: hushSecret, AccountID: "no number"}
		wanted := func(a, b string) want {
			return want{issuedFor: identify(request), request: request, causes: map[string]string{"object a": a, "object b": b}}
		}
		ask := func(w want) { _, err := i.token(t.Context(), w); g.Expect(err).To(HaveOccurred()) }
		ask(wanted("1", "1"))
		g.Expect(i.failures.last[wanted("1", "1").Identity].count).To(Equal(1))

		// While one object is told from memory that it must wait, another one comes that was mended.
		gate := make(chan struct{})
		clock.close(gate)
		var both sync.WaitGroup
		both.Go(func() { ask(wanted("1", "1")) })
		synctest.Wait()
		both.Go(func() { ask(wanted("1", "2")) })
		synctest.Wait()
		clock.close(nil)
		close(gate)
		both.Wait()
		g.Expect(i.failures.last[wanted("1", "1").Identity].count).To(Equal(2), "the change was worth a request")
	})
}

// gatedClock lets nobody read it while a gate is closed.
type gatedClock struct {
	*clocktesting.FakePassiveClock
	mu   sync.Mutex
	gate chan struct{}
}

func (c *gatedClock) close(gate chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gate = gate
}

func (c *gatedClock) Now() time.Time {
	c.mu.Lock()
	gate := c.gate
	c.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return c.FakePassiveClock.Now()
}

func TestATransientFailureIsRepeatedAfter1SecondDoublingToAMinute(t *testing.T) {
	for name, fault := range map[string]sfmctest.Fault{
		"500":              {Refusal: sfmctest.InternalError},
		"no answer":        {Wire: sfmctest.Reset},
		"half an answer":   {Wire: sfmctest.CutBody},
		"a proxy's page":   sfmctest.ProxyPage(http.StatusOK),
		"503 without when": {Status: http.StatusServiceUnavailable, Body: `{"message":"no"}`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			d := openDesk(t)
			fault.Times = 9
			d.server.AddFaults(fault)
			w := d.want(emea, "a")
			for n, middle := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
				attempt, wait := d.fails(w)
				g.Expect(attempt.failures).To(Equal(n + 1))
				g.Expect(wait).To(And(BeNumerically(">=", middle*time.Second/2), BeNumerically("<=", middle*time.Second*3/2)))
				d.pass(wait - 1)
				_, left := d.fails(w)
				g.Expect(left).To(BeEquivalentTo(1))
				g.Expect(d.server.Count()).To(Equal(n + 1))
				d.pass(1)
			}
			d.gets(w)
			g.Expect(d.server.Count()).To(Equal(10))
			g.Expect(d.failures.last).To(BeEmpty(), "forgotten with the first success")
		})
	}
}

func TestSeveralTriesFitIntoWhatIsLeftOfATokensLife(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.InternalError, Times: sfmctest.Forever})
	expires := noon.Add(5 * time.Minute)
	for d.clock.Now().Before(expires) {
		w := d.want(emea, "a")
		w.lifeLeft = expires.Sub(d.clock.Now())
		_, wait := d.fails(w)
		g.Expect(wait).To(BeNumerically("<=", max(3*time.Second/2, w.lifeLeft*3/8)))
		d.pass(wait)
	}
	g.Expect(d.server.Count()).To(And(BeNumerically(">=", 8), BeNumerically("<=", 60)))
}

func TestAnEndpointThatWasDownForAnHourIsFoundAgainWithinTheCap(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	w := d.want(emea, "a")
	d.gets(w)
	d.server.TakeDown()
	for left := d.clock.Now().Add(time.Hour); d.clock.Now().Before(left); {
		d.clock.SetTime(d.latest(w.Identity).ExpiresAt.Add(d.clock.Now().Sub(noon)))
		_, wait := d.fails(w)
		d.pass(wait)
	}
	g.Expect(d.server.BringUp()).To(Succeed())
	token, err := d.token(t.Context(), w)
	if err != nil {
		_, wait := d.fails(w)
		g.Expect(wait).To(BeNumerically("<=", 90*time.Second))
		d.pass(wait)
		token = d.gets(w)
	}
	g.Expect(token.ExpiresAt.Sub(d.clock.Now())).To(Equal(1079 * time.Second))
}

func TestATokenIsAlwaysAliveHoweverItsLifeShrinksAndGrows(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	w := d.want(emea, "a")
	for _, phase := range []struct {
		life time.Duration
		most int // tokens in half an hour
	}{{1079 * time.Second, 3}, {time.Minute, 1800/37 + 2}, {1079 * time.Second, 3}, {5 * time.Second, 1800/3 + 1}, {1079 * time.Second, 4}} {
		d.server.ChangeMode(func(m *sfmctest.Mode) { m.ExpiresIn, m.Life = phase.life, phase.life })
		before := d.server.Issued()
		for range 1800 {
			token := d.gets(w)
			g.Expect(d.clock.Now()).To(BeTemporally("<", token.ExpiresAt))
			d.pass(time.Second)
		}
		g.Expect(d.server.Issued()-before).To(BeNumerically("<=", phase.most), fmt.Sprint(phase.life))
	}
	g.Expect(d.server.Count()).To(Equal(d.server.Issued()))
}

func TestAnEndpointThatIssuesTokensOfOneSecondIsAskedOnceASecondAtMost(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.ChangeMode(func(m *sfmctest.Mode) { m.ExpiresIn = time.Second })
	for range 200 {
		for _, object := range []string{"a", "b", "c"} {
			d.gets(d.want(emea, object))
		}
		d.pass(100 * time.Millisecond)
	}
	g.Expect(d.server.Count()).To(Equal(20))
}
