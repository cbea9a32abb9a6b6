package issuer

import (
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"net/http"
	"strconv"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

// requestsDuring asks each second and returns the seconds at which a request was sent.
func (d *desk) requestsDuring(period time.Duration, wants ...*Want) []int {
	d.t.Helper()
	var sent []int
	for second := range int(period / time.Second) {
		before := d.server.Count()
		d.look()
		d.settle()
		for _, want := range wants {
			_, _ = d.obtain(want)
		}
		for range d.server.Count() - before {
			sent = append(sent, second)
		}
		d.clock.Step(time.Second)
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
			sent := d.requestsDuring(time.Hour, d.want(emea, "a"))
			g.Expect(sent).To(Equal(minutes(0, 2, 6, 14, 24, 34, 44, 54)))
		})
	}
}

func TestHoursOfRefusalsAreAHandfulOfRequestsAnHourHoweverManyObjectsAsk(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	g.Expect(d.server.DisablePackage(hushID, true)).To(Succeed())
	wants := []*Want{d.want(emea, "a"), d.want(emea, "b"), d.want(emea, "c")}
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
	changed := func(object, causes string) *Want {
		want := d.want(emea, object)
		want.Causes = causes
		return want
	}
	_, _ = d.fails(changed("a", "1"))
	_, _ = d.fails(changed("a", "1"))
	g.Expect(d.server.Count()).To(Equal(1))

	_, _ = d.fails(changed("b", "of another"))
	g.Expect(d.server.Count()).To(Equal(1), "an object that wasn't seen before changes nothing")
	_, _ = d.fails(changed("a", "2"))
	g.Expect(d.server.Count()).To(Equal(2), "the refresh annotation was set")
	_, _ = d.fails(changed("a", "2"))
	g.Expect(d.server.Count()).To(Equal(2), "it was answered")
	_, wait := d.fails(changed("b", "of another, 2"))
	g.Expect(d.server.Count()).To(Equal(2), "not again within 30 s")
	g.Expect(wait).To(Equal(demandFloor))
	d.pass(wait - 1)
	_, wait = d.fails(changed("b", "of another, 2"))
	g.Expect(wait).To(BeEquivalentTo(1))
	d.pass(wait)
	_, _ = d.fails(changed("b", "of another, 2"))
	g.Expect(d.server.Count()).To(Equal(3), "the other one is known by now")
	d.pass(demandFloor)
	failed, _ := d.fails(changed("a", "3"))
	g.Expect(d.server.Count()).To(Equal(4))
	g.Expect(failed.Failures).To(Equal(4))
	d.pass(demandFloor)
	d.gets(changed("a", "4"))
	g.Expect(d.server.Count()).To(Equal(5), "whoever fixes the package has a token at once")
}

func TestAChangeIsNotTakenForAnsweredByARequestThatWasSentBefore(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.InvalidClient})
	release := d.held()
	want := d.want(emea, "a")
	_, err := d.Ask(t.Context(), want)
	g.Expect(err).To(MatchError(errUnderWay))
	want.Causes = "mended"
	_, err = d.Ask(t.Context(), want)
	g.Expect(err).To(MatchError(errUnderWay))
	release()
	d.gets(want)
	g.Expect(d.server.Count()).To(Equal(2), "the change was worth a request")
}

func TestAFailureStandsWhileTheNextRequestIsUnderWay(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.InvalidClient})
	want := d.want(emea, "a")
	failed, wait := d.fails(want)
	g.Expect(failed.Standing).To(BeNil())
	d.pass(wait)
	release := d.held()
	_, err := d.Ask(t.Context(), want)
	g.Expect(err).To(MatchError(errUnderWay))
	g.Expect(d.problemOf(err).Standing).To(MatchError(failed.Error()))
	release()
	d.gets(want)
}

func TestWhoeverWaitsNeedNotAskAgainUnlessSomethingChanged(t *testing.T) {
	g := NewWithT(t)
	d := openSlowDesk(t, 1)
	d.gets(d.want(apac, "a"))
	want := d.want(emea, "a")
	g.Expect(d.WhyWaiting(want, 1)).To(Succeed(), "it hasn't asked yet")
	_, err := d.Ask(t.Context(), want)
	g.Expect(err).To(MatchError(errNoSlot))
	g.Expect(d.WhyWaiting(want, 1)).To(MatchError(errNoSlot))

	changed := *want
	changed.Causes = "other credentials"
	g.Expect(d.WhyWaiting(&changed, 1)).To(Succeed(), "it may want another identity")

	d.pass(10 * time.Second)
	d.settle()
	g.Expect(d.WhyWaiting(want, 1)).To(Succeed(), "there is a token for it")
	d.gets(want)
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
			failed, _ := d.fails(d.want(emea, "a"))
			g.Expect(failed.Reason).To(Equal(row.reason))
			g.Expect(failed.Failures).To(Equal(1))
			again, _ := d.fails(d.want(emea, "a"))
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
			want := d.want(emea, "a")
			for n, middle := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60, 60} {
				failed, wait := d.fails(want)
				g.Expect(failed.Failures).To(Equal(n + 1))
				g.Expect(wait).To(And(
					BeNumerically(">=", middle*time.Second/2), BeNumerically("<=", middle*time.Second*3/2)))
				d.pass(wait - 1)
				_, left := d.fails(want)
				g.Expect(left).To(BeEquivalentTo(1))
				g.Expect(d.server.Count()).To(Equal(n + 1))
				d.pass(1)
			}
			d.gets(want)
			g.Expect(d.server.Count()).To(Equal(10))
			g.Expect(d.entries).To(BeEmpty(), "forgotten with the first success")
		})
	}
}

func TestSeveralAttemptsFitIntoWhatIsLeftOfATokensLife(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.InternalError, Times: sfmctest.Forever})
	expires := noon.Add(5 * time.Minute)
	for d.clock.Now().Before(expires) {
		want := d.want(emea, "a")
		want.LifeLeft = expires.Sub(d.clock.Now())
		_, wait := d.fails(want)
		g.Expect(wait).To(BeNumerically("<=", max(3*time.Second/2, want.LifeLeft*3/8)))
		d.pass(wait)
	}
	g.Expect(d.server.Count()).To(And(BeNumerically(">=", 8), BeNumerically("<=", 60)))
}

func TestAnEndpointThatWasDownForAnHourIsFoundAgainWithinTheCap(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	want := d.want(emea, "a")
	d.gets(want)
	d.server.TakeDown()
	d.pass(usualLife)
	for left := d.clock.Now().Add(time.Hour); d.clock.Now().Before(left); {
		_, wait := d.fails(want)
		d.pass(wait)
	}
	g.Expect(d.server.BringUp()).To(Succeed())
	obtained, err := d.obtain(want)
	issued := obtained.Token
	if err != nil {
		_, wait := d.fails(want)
		g.Expect(wait).To(BeNumerically("<=", 90*time.Second))
		d.pass(wait)
		issued = d.gets(want)
	}
	g.Expect(issued.ExpiresAt.Sub(d.clock.Now())).To(Equal(usualLife))
}

func TestATokenIsAlwaysAliveHoweverItsLifeShrinksAndGrows(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	want := d.want(emea, "a")
	for _, phase := range []struct {
		life time.Duration
		most int // tokens in half an hour
	}{
		{usualLife, 3}, {time.Minute, 1800/37 + 2}, {usualLife, 3}, {5 * time.Second, 1800/3 + 1}, {usualLife, 4},
	} {
		d.server.ChangeMode(func(m *sfmctest.Mode) { m.ExpiresIn, m.Life = phase.life, phase.life })
		before := d.server.Issued()
		for range 1800 {
			issued := d.gets(want)
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
			d.gets(d.want(emea, object))
		}
		d.pass(100 * time.Millisecond)
	}
	g.Expect(d.server.Count()).To(Equal(20))
}

func TestAChangeThatHelpedLeavesTheNextOneToBeTriedAtOnce(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.ChangeMode(func(m *sfmctest.Mode) { m.ExpiresIn = 10 * time.Second })
	a, b := d.want(emea, "a"), d.want(emea, "b")
	a.RefreshBefore, b.RefreshBefore = time.Second, time.Second
	d.gets(a)
	for n := range 3 {
		d.pass(9 * time.Second) // the token is due
		g.Expect(d.server.DisablePackage(hushID, true)).To(Succeed())
		_, _ = d.fails(a)
		_, _ = d.fails(b)
		asked := d.server.Count()
		g.Expect(d.server.DisablePackage(hushID, false)).To(Succeed())
		// Both change: the second one while the request is under way.
		a.Causes, b.Causes = fmt.Sprint(n), fmt.Sprint(n)
		release := d.held()
		_, err := d.Ask(t.Context(), a)
		g.Expect(err).To(MatchError(errUnderWay))
		_, err = d.Ask(t.Context(), b)
		g.Expect(err).To(MatchError(errUnderWay))
		release()
		g.Expect(d.gets(b)).To(Equal(d.gets(a)))
		g.Expect(d.server.Count()-asked).To(Equal(1), "less than 30 s after the change before, which had helped")
	}
}
