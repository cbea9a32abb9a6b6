package issuer

import (
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"maps"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/time/rate"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// requestsDuring asks each second and returns the seconds at which a request was sent.
func (d *desk) requestsDuring(period time.Duration, candidates ...*Candidate) []int {
	d.t.Helper()
	var sent []int
	for second := range int(period / time.Second) {
		for _, candidate := range candidates {
			before := d.server.Count()
			_, _ = d.obtain(d.t.Context(), candidate)
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
	for _, refusal := range []sfmctest.Refusal{
		sfmctest.InvalidClient, sfmctest.AccountForbidden, sfmctest.InvalidRequest,
	} {
		t.Run(string(refusal), func(t *testing.T) {
			g := NewWithT(t)
			d := openDesk(t)
			d.server.AddFaults(sfmctest.Fault{Refusal: refusal, Times: sfmctest.Forever})
			sent := d.requestsDuring(time.Hour, d.candidate(emea, "a"))
			g.Expect(sent).To(Equal(minutes(0, 2, 6, 14, 24, 34, 44, 54)))
		})
	}
}

func TestHoursOfRefusalsAreAHandfulOfRequestsAnHourHoweverManyObjectsAsk(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	g.Expect(d.server.DisablePackage(hushID, true)).To(Succeed())
	candidates := []*Candidate{d.candidate(emea, "a"), d.candidate(emea, "b"), d.candidate(emea, "c")}
	d.requestsDuring(time.Hour, candidates...)
	d.server.ResetRecord()
	g.Expect(len(d.requestsDuring(3*time.Hour, candidates...))).To(BeNumerically("<=", 3*6))

	g.Expect(d.server.DisablePackage(hushID, false)).To(Succeed())
	d.pass(10 * time.Minute)
	d.gets(candidates[1])
	d.gets(candidates[2])
	g.Expect(d.server.Issued()).To(Equal(1))
}

func TestAChangeThatWasSeenBeforeTheRefusalIsWorthARequestAtOnce(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.InvalidClient, Times: 4})
	candidate := d.candidate(emea, "a")
	changed := func(where, version string) *Candidate {
		next := *candidate
		next.Causes = maps.Clone(candidate.Causes)
		next.Causes[where] = version
		return &next
	}
	_, _ = d.fails(candidate)
	_, _ = d.fails(candidate)
	g.Expect(d.server.Count()).To(Equal(1))

	_, _ = d.fails(changed("object b", "1"))
	g.Expect(d.server.Count()).To(Equal(1), "an object that wasn't seen before changes nothing")
	_, _ = d.fails(changed("object a", "2"))
	g.Expect(d.server.Count()).To(Equal(2), "the refresh annotation was set")
	_, _ = d.fails(changed("object a", "2"))
	g.Expect(d.server.Count()).To(Equal(2), "it was answered")
	_, _ = d.fails(changed("object b", "2"))
	g.Expect(d.server.Count()).To(Equal(3), "the other one is known by now")
	failed, _ := d.fails(changed("credentials", "2"))
	g.Expect(d.server.Count()).To(Equal(4))
	g.Expect(failed.Failures).To(Equal(4))
	d.gets(changed("credentials", "3"))
	g.Expect(d.server.Count()).To(Equal(5), "whoever fixes the package has a token at once")
}

func TestAChangeIsNotTakenForAnsweredByAnAnswerFromMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		clock := &gatedClock{FakePassiveClock: clocktesting.NewFakePassiveClock(noon)}
		client, err := sfmc.NewClient(nil, clock)
		g.Expect(err).NotTo(HaveOccurred())
		observe := func(*sfmc.Error, time.Duration) {}
		i := New(Options{Client: client, Clock: clock, RequestRate: rate.Inf, Observe: observe})
		// A business unit that is no number is refused before anything is sent.
		request := sfmc.TokenRequest{
			AuthHost: tenantHost, ClientID: hushID, ClientSecret: hushSecret, AccountID: "no number",
		}
		identity := token.Identify(request).Identity
		candidate := func(a, b string) *Candidate {
			return &Candidate{IssuedFor: token.Identify(request), Request: request,
				Causes: map[string]string{"object a": a, "object b": b}}
		}
		ask := func(c *Candidate) { _, err := i.obtain(t.Context(), c); g.Expect(err).To(HaveOccurred()) }
		ask(candidate("1", "1"))
		g.Expect(i.failures.last[identity].problem.Failures).To(Equal(1))

		// While one object is told from memory that it must wait, another one comes that was mended.
		gate := make(chan struct{})
		clock.close(gate)
		var both sync.WaitGroup
		both.Go(func() { ask(candidate("1", "1")) })
		synctest.Wait()
		both.Go(func() { ask(candidate("1", "2")) })
		synctest.Wait()
		clock.close(nil)
		close(gate)
		both.Wait()
		g.Expect(i.failures.last[identity].problem.Failures).To(Equal(2), "the change was worth a request")
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

// kinds are all kinds of failed requests that there are.
func kinds(t *testing.T) []sfmc.Kind {
	t.Helper()
	g := NewWithT(t)
	file, err := parser.ParseFile(gotoken.NewFileSet(), "../sfmc/error.go", nil, parser.SkipObjectResolution)
	g.Expect(err).NotTo(HaveOccurred())
	var found []sfmc.Kind
	ast.Inspect(file, func(node ast.Node) bool {
		spec, isValue := node.(*ast.ValueSpec)
		if !isValue {
			return true
		}
		if of, isNamed := spec.Type.(*ast.Ident); isNamed && of.Name == "Kind" {
			for _, value := range spec.Values {
				text, err := strconv.Unquote(value.(*ast.BasicLit).Value)
				g.Expect(err).NotTo(HaveOccurred())
				found = append(found, sfmc.Kind(text))
			}
		}
		return false
	})
	g.Expect(found).To(ContainElements(sfmc.Refused, sfmc.Throttled, sfmc.Unavailable, sfmc.Unreadable))
	return found
}

func TestEveryKindOfFailedRequestHasAReason(t *testing.T) {
	g := NewWithT(t)
	for _, kind := range kinds(t) {
		g.Expect(reasons).To(HaveKey(kind))
		g.Expect(problem.New(reasons[kind], &sfmc.Error{Kind: kind}).Actor).NotTo(Equal(problem.Nobody))
	}
	g.Expect(reasons).To(HaveLen(len(kinds(t))))
}

func TestAFailureHasTheReasonOfItsKindNowAndFromMemory(t *testing.T) {
	for _, row := range []struct {
		reason v1alpha1.ProblemReason
		fault  sfmctest.Fault
	}{
		{v1alpha1.ReasonRequestRefused, sfmctest.Fault{Refusal: sfmctest.InvalidClient}},
		{v1alpha1.ReasonThrottled, sfmctest.Fault{Refusal: sfmctest.RateLimited}},
		{v1alpha1.ReasonEndpointUnavailable, sfmctest.Fault{Refusal: sfmctest.InternalError}},
		{v1alpha1.ReasonUnreadableAnswer, sfmctest.ProxyPage(http.StatusOK)},
	} {
		t.Run(string(row.reason), func(t *testing.T) {
			g := NewWithT(t)
			d := openDesk(t)
			d.server.AddFaults(row.fault)
			failed, _ := d.fails(d.candidate(emea, "a"))
			g.Expect(failed.Reason).To(Equal(row.reason))
			g.Expect(failed.Failures).To(Equal(1))
			again, _ := d.fails(d.candidate(emea, "a"))
			g.Expect(again).To(Equal(failed))
			g.Expect(d.server.Count()).To(Equal(1))
		})
	}
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
			candidate := d.candidate(emea, "a")
			for n, middle := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
				failed, wait := d.fails(candidate)
				g.Expect(failed.Failures).To(Equal(n + 1))
				g.Expect(wait).To(And(
					BeNumerically(">=", middle*time.Second/2), BeNumerically("<=", middle*time.Second*3/2)))
				d.pass(wait - 1)
				_, left := d.fails(candidate)
				g.Expect(left).To(BeEquivalentTo(1))
				g.Expect(d.server.Count()).To(Equal(n + 1))
				d.pass(1)
			}
			d.gets(candidate)
			g.Expect(d.server.Count()).To(Equal(10))
			g.Expect(d.failures.last).To(BeEmpty(), "forgotten with the first success")
		})
	}
}

func TestSeveralAttemptsFitIntoWhatIsLeftOfATokensLife(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.InternalError, Times: sfmctest.Forever})
	expires := noon.Add(5 * time.Minute)
	for d.clock.Now().Before(expires) {
		candidate := d.candidate(emea, "a")
		candidate.LifeLeft = expires.Sub(d.clock.Now())
		_, wait := d.fails(candidate)
		g.Expect(wait).To(BeNumerically("<=", max(3*time.Second/2, candidate.LifeLeft*3/8)))
		d.pass(wait)
	}
	g.Expect(d.server.Count()).To(And(BeNumerically(">=", 8), BeNumerically("<=", 60)))
}

func TestAnEndpointThatWasDownForAnHourIsFoundAgainWithinTheCap(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	candidate := d.candidate(emea, "a")
	d.gets(candidate)
	d.server.TakeDown()
	for left := d.clock.Now().Add(time.Hour); d.clock.Now().Before(left); {
		d.clock.SetTime(d.Latest(candidate.Identity).ExpiresAt.Add(d.clock.Now().Sub(noon)))
		_, wait := d.fails(candidate)
		d.pass(wait)
	}
	g.Expect(d.server.BringUp()).To(Succeed())
	issued, err := d.obtain(t.Context(), candidate)
	if err != nil {
		_, wait := d.fails(candidate)
		g.Expect(wait).To(BeNumerically("<=", 90*time.Second))
		d.pass(wait)
		issued = d.gets(candidate)
	}
	g.Expect(issued.ExpiresAt.Sub(d.clock.Now())).To(Equal(usualLife))
}

func TestATokenIsAlwaysAliveHoweverItsLifeShrinksAndGrows(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	candidate := d.candidate(emea, "a")
	for _, phase := range []struct {
		life time.Duration
		most int // tokens in half an hour
	}{
		{usualLife, 3}, {time.Minute, 1800/37 + 2}, {usualLife, 3}, {5 * time.Second, 1800/3 + 1}, {usualLife, 4},
	} {
		d.server.ChangeMode(func(m *sfmctest.Mode) { m.ExpiresIn, m.Life = phase.life, phase.life })
		before := d.server.Issued()
		for range 1800 {
			issued := d.gets(candidate)
			g.Expect(d.clock.Now()).To(BeTemporally("<", issued.ExpiresAt))
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
			d.gets(d.candidate(emea, object))
		}
		d.pass(100 * time.Millisecond)
	}
	g.Expect(d.server.Count()).To(Equal(20))
}
