package faults

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// clockWorld has the operator in this process, and true lives of tokens on a clock that the test moves.
type clockWorld struct {
	*WithT
	t       *testing.T
	clock   *clocktesting.FakeClock // steady: what really passes
	wall    clock.WithTicker        // what the operator reads
	standIn *sfmctest.Server
	pkg     sfmctest.Package
	keys    []client.ObjectKey
	log     *harness.Log
	running *harness.Operator
}

// newClockWorld starts an operator that reads the wall clock which the function makes of the steady one.
func newClockWorld(
	t *testing.T, wall func(*clocktesting.FakeClock) clock.WithTicker, changes ...func(*sfmctest.Options),
) *clockWorld {
	w := &clockWorld{WithT: NewWithT(t), t: t, log: &harness.Log{}}
	w.SetDefaultEventuallyTimeout(patience)
	w.SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	w.clock = clocktesting.NewFakeClock(time.Now()) // with a monotonic reading, as real times have
	w.wall = wall(w.clock)
	w.pkg = harness.Package()
	w.pkg.AccountIDs = nil
	for i := range 10 {
		w.pkg.AccountIDs = append(w.pkg.AccountIDs, fmt.Sprintf("5100%05d", i+1))
	}
	options := sfmctest.Options{Clock: w.clock, Packages: []sfmctest.Package{w.pkg}}
	for _, change := range changes {
		change(&options)
	}
	w.standIn = sfmctest.Start(t, options)
	for range 2 {
		w.fill()
	}
	w.start()
	t.Cleanup(func() {
		w.Expect(w.running.Stop()).To(Succeed())
		if t.Failed() {
			t.Logf("the operator's log:\n%s", w.log)
		}
	})
	return w
}

func onlyOne(steady *clocktesting.FakeClock) clock.WithTicker { return steady }

// fill makes a namespace with two SFMCTokens of each identity.
func (w *clockWorld) fill() {
	w.t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "marketing-"}}
	w.Expect(admin.Create(w.t.Context(), namespace)).To(Succeed())
	w.t.Cleanup(func() { removeNamespace(w.WithT, namespace.Name) })
	w.Expect(admin.Create(w.t.Context(), harness.CredentialsSecret(namespace.Name, "package", w.standIn, w.pkg))).To(Succeed())
	for _, account := range w.pkg.AccountIDs {
		for i := range 2 {
			token := harness.Token(namespace.Name, fmt.Sprintf("token-%s-%d", account, i), "package", account)
			w.Expect(admin.Create(w.t.Context(), token)).To(Succeed())
			w.keys = append(w.keys, client.ObjectKeyFromObject(token))
		}
	}
}

func (w *clockWorld) start() {
	w.t.Helper()
	running, err := harness.StartOperator(operator, w.wall, w.standIn, w.log)
	w.Expect(err).NotTo(HaveOccurred())
	w.running = running
}

// worst is the shortest true life that is left of the tokens in the Secrets: negative if one has none.
func (w *clockWorld) worst() time.Duration {
	var secrets corev1.SecretList
	if err := admin.List(w.t.Context(), &secrets); err != nil {
		return -1
	}
	left := map[string]time.Duration{} // looked up after the Secrets, so that none is missed that is in one
	for _, token := range w.standIn.IssuedTokens() {
		left[token.Value+token.AccountID] = token.ExpiresAt.Sub(w.clock.Now())
	}
	held := map[client.ObjectKey]*corev1.Secret{}
	for i := range secrets.Items {
		held[client.ObjectKeyFromObject(&secrets.Items[i])] = &secrets.Items[i]
	}
	worst := 24 * time.Hour
	for _, key := range w.keys {
		remaining := time.Duration(-1)
		if secret := held[key]; secret != nil {
			if found, alive := left[string(secret.Data["access_token"])+string(secret.Data["account_id"])]; alive {
				remaining = found
			}
		}
		worst = min(worst, remaining)
	}
	return worst
}

// tokensWith counts the SFMCTokens that have this condition.
func (w *clockWorld) tokensWith(condition string) int {
	var tokens v1alpha1.SFMCTokenList
	if err := admin.List(w.t.Context(), &tokens); err != nil {
		return -1
	}
	count := 0
	for i := range tokens.Items {
		if meta.IsStatusConditionTrue(tokens.Items[i].Status.Conditions, condition) {
			count++
		}
	}
	return count
}

// travel moves the clock in steps until done, at most as far as it may.
func (w *clockWorld) travel(atMost, step time.Duration, done func() bool) {
	w.t.Helper()
	w.Eventually(w.running.Travel(w.clock, atMost, step, done)).Should(BeTrue(), "not within %s on the clock", atMost)
}

const reportedLife = 1079 * time.Second

func TestHoursOfRefusalsCostAHandfulOfRequestsAnHourAndTokensComeBack(t *testing.T) {
	const hours = 3
	w := newClockWorld(t, onlyOne)
	w.Eventually(w.worst).Should(BeNumerically(">", 0))
	w.Expect(w.standIn.Count()).To(Equal(len(w.pkg.AccountIDs)))
	w.Expect(w.standIn.DisablePackage(w.pkg.ClientID, true)).To(Succeed())
	start := w.clock.Now()
	w.travel(hours*time.Hour, 30*time.Second, func() bool { return w.clock.Since(start) >= hours*time.Hour })
	w.Eventually(func() int { return w.tokensWith(v1alpha1.ConditionStalled) }).Should(Equal(len(w.keys)))
	w.Eventually(func() int { return w.tokensWith(v1alpha1.ConditionReady) }).Should(BeZero())
	// After 2, 4 and 8 minutes, and then every ten.
	allowed := 1 + 5 + (hours*60-14)/10
	for _, account := range w.pkg.AccountIDs {
		w.Expect(w.standIn.CountFor(w.pkg.ClientID, account)).To(BeNumerically("<=", allowed))
	}
	w.Expect(w.standIn.DisablePackage(w.pkg.ClientID, false)).To(Succeed())
	asked, back := w.standIn.Count(), w.clock.Now()
	w.travel(10*time.Minute, 10*time.Second, func() bool { return w.worst() > 0 })
	w.Expect(w.standIn.Count() - asked).To(Equal(len(w.pkg.AccountIDs)))
	table.add(t, row{fault: "401 (fake clock)", times: fmt.Sprintf("%d h", hours), outage: "the whole time", gap: "0",
		asked: asked, allowed: allowed * len(w.pkg.AccountIDs), remark: fmt.Sprintf("all back %s after it ended", w.clock.Since(back))})
}

func TestABlockedClientAsksOnceAMinuteAndLessAndLess(t *testing.T) {
	w := newClockWorld(t, onlyOne)
	w.Eventually(w.worst).Should(BeNumerically(">", 0))
	issued := w.standIn.Count()
	w.standIn.AddFaults(sfmctest.Fault{Refusal: sfmctest.Blocked, Times: sfmctest.Forever})
	start := w.clock.Now()
	w.travel(2*time.Hour, 20*time.Second, func() bool { return w.clock.Since(start) >= 2*time.Hour })
	w.standIn.ClearFaults()
	// Pauses of 1, 2, 4 and 8 minutes and then of ten are those of the client. At the end of each, the requests of its
	// other tokens may be under way together with the first.
	pauses := 1 + 5 + (2*60-15)/10
	asked, allowed := w.standIn.Count()-issued, pauses*len(w.pkg.AccountIDs)
	w.Expect(asked).To(BeNumerically("<=", allowed))
	back := w.clock.Now()
	w.travel(10*time.Minute, 10*time.Second, func() bool { return w.worst() > 0 })
	table.add(t, row{fault: "429 with errorcode 50200 (fake clock)", times: "2 h", outage: "the whole time", gap: "0",
		asked: asked, allowed: allowed, remark: fmt.Sprintf("all back %s after it ended", w.clock.Since(back))})
}

// restart starts the operator again, and waits until it has looked at every SFMCToken: before that it is idle too.
func (w *clockWorld) restart() {
	w.t.Helper()
	w.Expect(w.running.Stop()).To(Succeed())
	before := harness.Looks()
	w.start()
	w.Eventually(harness.Looks).Should(BeNumerically(">=", before+float64(len(w.keys))))
}

// renew asks for a new token of each identity, so that all are young, whatever their times were.
func (w *clockWorld) renew() {
	w.t.Helper()
	patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`,
		v1alpha1.RefreshRequestedAtAnnotation, w.clock.Now().Format(time.RFC3339)))
	for i := range w.pkg.AccountIDs {
		asking := &v1alpha1.SFMCToken{}
		asking.Namespace, asking.Name = w.keys[2*i].Namespace, w.keys[2*i].Name
		w.Expect(admin.Patch(w.t.Context(), asking, patch)).To(Succeed())
	}
	w.Eventually(w.worst).Should(BeNumerically(">", reportedLife))
}

// step lets time go on, and returns the shortest true life that was left of a token.
func (w *clockWorld) step(steps int, after string) time.Duration {
	w.t.Helper()
	// A token is replaced after at most 779 of its 1,199 true seconds, so 420 are left, and one step less.
	const step, least = 20 * time.Second, 399 * time.Second
	shortest := 24 * time.Hour
	for range steps {
		w.Eventually(w.running.Idle).MustPassRepeatedly(2).Should(BeTrue())
		w.clock.Step(step)
		w.Eventually(w.worst).Should(BeNumerically(">=", least), after)
		shortest = min(shortest, w.worst())
	}
	return shortest
}

// leapAndStep sets the wall clock, and shows that no token runs out while time goes on.
func (w *clockWorld) leapAndStep(wall *sfmctest.LeapingClock, by time.Duration, restart bool, steps int) time.Duration {
	w.t.Helper()
	if restart {
		// After it, only the wall clock is known. Nobody could see that it was set back since a token was issued, by less
		// than the token's age (docs/reliability.md): so all tokens are new.
		w.renew()
	}
	wall.Leap(by)
	if restart {
		w.restart()
	}
	return w.step(steps, fmt.Sprintf("after a leap of %s, restarted: %t", by, restart))
}

func TestAWallClockThatIsSetBackWhileTokensAreReplacedLetsNoneExpire(t *testing.T) {
	var wall *sfmctest.LeapingClock
	var asked atomic.Int32
	w := newClockWorld(t, func(steady *clocktesting.FakeClock) clock.WithTicker {
		wall = &sfmctest.LeapingClock{FakeClock: steady}
		return wall
	}, func(options *sfmctest.Options) {
		options.OnTokenRequest = func(sfmctest.TokenRequest) {
			if asked.Add(1) == 11 { // each of ten tokens was asked for once: this is for a second one
				wall.Leap(-10 * time.Minute)
			}
		}
	})
	w.Eventually(w.worst).Should(BeNumerically(">", 0))
	w.step(90, "all looks at the eleventh token came after the leap")
	w.Expect(w.standIn.Count()).To(Equal(3 * len(w.pkg.AccountIDs)))
}

func TestLeapsOfTheWallClockLetNoTokenExpire(t *testing.T) {
	var wall *sfmctest.LeapingClock
	w := newClockWorld(t, func(steady *clocktesting.FakeClock) clock.WithTicker {
		wall = &sfmctest.LeapingClock{FakeClock: steady}
		return wall
	})
	w.Eventually(w.worst).Should(BeNumerically(">", 0))
	source, start, shortest := random(t.Name()), w.clock.Now(), 24*time.Hour
	leaps := []time.Duration{10, -10, -10, 10, -10, 10, -10, 10}
	for i, minutes := range leaps {
		left := w.leapAndStep(wall, minutes*time.Minute, i%4 == 3, 10+source.IntN(40))
		shortest = min(shortest, left)
	}
	// Set back so far that all tokens seem to have been issued in the future, which a restarted operator sees.
	shortest = min(shortest, w.leapAndStep(wall, -10*time.Minute, true, 60))
	took, restarts := w.clock.Since(start), 3
	allowed := refreshesAllowed(took, reportedLife) + len(leaps) + 1 + restarts + restarts // the last are asked for by renew
	for _, account := range w.pkg.AccountIDs {
		w.Expect(w.standIn.CountFor(w.pkg.ClientID, account)).To(BeNumerically("<=", allowed))
	}
	table.add(t, row{fault: "wall clock leaps by ±10 min, three restarts (fake clock)", times: fmt.Sprint(len(leaps) + 1), outage: "0", gap: "0",
		asked: w.standIn.Count(), allowed: allowed * len(w.pkg.AccountIDs),
		remark: fmt.Sprintf("in %s, never less than %s of a token's true life left", took, shortest.Round(time.Second))})
}

func TestAStoppedOperatorLeavesNoGoroutineBehind(t *testing.T) {
	g := NewWithT(t)
	before := goleak.IgnoreCurrent()
	func() {
		standIn := sfmctest.Start(t, sfmctest.Options{Packages: []sfmctest.Package{harness.Package()}})
		defer standIn.Close()
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "marketing-"}}
		g.Expect(admin.Create(t.Context(), namespace)).To(Succeed())
		defer removeNamespace(g, namespace.Name)
		g.Expect(admin.Create(t.Context(), harness.CredentialsSecret(namespace.Name, "package", standIn, harness.Package()))).To(Succeed())
		running, err := harness.StartOperator(operator, clock.RealClock{}, standIn, &harness.Log{})
		g.Expect(err).NotTo(HaveOccurred())
		for i := range 20 {
			g.Expect(admin.Create(t.Context(), harness.Token(namespace.Name, fmt.Sprintf("token-%d", i), "package", "510004567"))).To(Succeed())
		}
		// One is waiting for an answer that doesn't come when the operator is stopped.
		standIn.AddFaults(sfmctest.Fault{AccountID: "510009999", Latency: time.Second})
		g.Expect(admin.Create(t.Context(), harness.Token(namespace.Name, "late", "package", "510009999"))).To(Succeed())
		g.Eventually(standIn.Count, patience).Should(Equal(2))
		g.Expect(running.Stop()).To(Succeed())
	}()
	ignored := []goleak.Option{before}
	for function := range keptByLibraries {
		ignored = append(ignored, goleak.IgnoreAnyFunction(function))
	}
	g.Eventually(func() error { return goleak.Find(ignored...) }, time.Minute, time.Second).Should(Succeed())
	table.add(t, row{fault: "operator stopped while a request is under way", times: "1", outage: "–", gap: "–", asked: 2, allowed: 2, remark: "no goroutine left"})
}

// keptByLibraries are functions whose goroutines outlive an operator in one process, by why that is right.
var keptByLibraries = map[string]string{
	"net/http.(*http2ClientConn).readLoop":          "client-go keeps the connections of a configuration for the next client of it (its TLS cache)",
	"golang.org/x/net/http2.(*ClientConn).readLoop": "the same, in the HTTP/2 of golang.org/x",
	"net/http.(*persistConn).readLoop":              "the same, in HTTP/1",
	"net/http.(*persistConn).writeLoop":             "the same, in HTTP/1",
	"k8s.io/apimachinery/pkg/watch.(*filteredWatch).loop": "controller-runtime puts one around each watch; an event that comes in the moment in which its reader is " +
		"stopped is never read (a flaw there; the process ends with its watches)",
}
