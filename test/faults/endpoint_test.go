package faults

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

// begin makes a world with a running operator and all Secrets served.
func begin(t *testing.T, shape shape) *world {
	w := newWorld(t, shape)
	w.startOperator()
	w.served()
	return w
}

// standing adds a fault that meets every token request until it is cleared.
func (w *world) standing(fault sfmctest.Fault) func() {
	fault.Times = sfmctest.Forever
	return func() { w.standIn.AddFaults(fault) }
}

func (w *world) bringUp() { w.Expect(w.standIn.BringUp()).To(Succeed()) }

// aboutALife is long enough for every token to be replaced once, which shows that all is well again.
func (w *world) aboutALife() {
	w.t.Helper()
	w.served()
	w.pass(w.shape.life)
}

func TestTokensComeBackAfterAnEndpointThatWasAwayForLongerThanALife(t *testing.T) {
	t.Parallel()
	w := begin(t, tens)
	w.fault(endpointAway, w.standIn.TakeDown, 14*time.Second, w.bringUp)
	w.aboutALife()
	w.verdict("endpoint away for longer than a life", "14 s", "")
}

func TestAStormOfServerErrorsCostsNoMoreThanTheBackoffAllows(t *testing.T) {
	t.Parallel()
	w := begin(t, tens)
	w.fault("5xx", w.standing(sfmctest.Fault{Refusal: sfmctest.InternalError}), 8*time.Second, w.standIn.ClearFaults)
	w.served()
	gateway := w.standing(sfmctest.ProxyPage(502))
	w.fault("5xx", gateway, 8*time.Second, w.standIn.ClearFaults)
	w.aboutALife()
	w.verdict("5xx storm (500 of Marketing Cloud, 502 of a gateway)", "2 × 8 s", "")
}

func TestAThrottledClientKeepsQuietUntilRetryAfter(t *testing.T) {
	t.Parallel()
	const retryAfter = 12 * time.Second
	w := begin(t, tens)
	client := w.packages[0].ClientID
	w.observer.impede("429")
	w.standIn.AddFaults(sfmctest.Fault{ClientID: client, Refusal: sfmctest.RateLimited, RetryAfter: retryAfter, Times: sfmctest.Forever})
	throttled := func() (last time.Time, count int) {
		for _, request := range w.standIn.Requests() {
			if request.ClientID == client && request.Status == 429 {
				last, count = request.Time, count+1
			}
		}
		return last, count
	}
	w.Eventually(func() int { _, count := throttled(); return count }).Should(BeNumerically(">", 0))
	first, _ := throttled()
	w.pass(time.Until(first.Add(retryAfter * 9 / 10)))
	// The fault is still there, so every request since would have been throttled too. Those of the client's other
	// tokens may have been under way together with the first one.
	last, count := throttled()
	w.standIn.ClearFaults()
	w.Expect(count).To(BeNumerically("<=", w.shape.accounts), "a request before Retry-After")
	w.pass(time.Until(last.Add(retryAfter)))
	w.observer.relieve("429")
	w.aboutALife()
	w.verdict("429 with Retry-After, of one of two clients", "12 s", fmt.Sprintf("%d requests throttled together, none before Retry-After", count))
}

func TestAnswersThatAreNoTokensAreSurvived(t *testing.T) {
	t.Parallel()
	w := begin(t, tens)
	answers := []sfmctest.Fault{
		{Body: `{"access_token":`},
		{Body: `[]`},
		sfmctest.ProxyPage(200),
		{Fields: map[string]string{"access_token": ""}},
		{Fields: map[string]string{"expires_in": `-1`}},
		{PadTo: 70_000},
		{Wire: sfmctest.EndlessBody},
		{Wire: sfmctest.CutBody},
		sfmctest.Redirect("https://" + w.standIn.Host() + "/elsewhere"),
	}
	for _, answer := range answers {
		answer.Times = 3
		w.standIn.AddFaults(answer)
	}
	w.fault("unreadable answers", func() {}, 12*time.Second, w.standIn.ClearFaults)
	w.aboutALife()
	w.verdict("malformed, oversized, endless and cut answers, redirects", fmt.Sprintf("%d kinds, 12 s", len(answers)), "")
}

func TestASlowWayToTheEndpointCostsNothing(t *testing.T) {
	t.Parallel()
	w := begin(t, tens)
	// No fault that excuses anything: the answers are late, but they come.
	w.proxy.disturb("latency", "downstream", 1, map[string]any{"latency": 300, "jitter": 100})
	w.standIn.ChangeMode(func(mode *sfmctest.Mode) { mode.Latency = 500 * time.Millisecond })
	w.pass(2 * w.shape.life)
	w.proxy.heal()
	w.served()
	w.verdict("slow way (0.3 s a packet) and slow answers (0.5 s)", "20 s", "")
}

func TestHangingAnswersAreSurvived(t *testing.T) {
	t.Parallel()
	w := begin(t, tens)
	hang := w.standing(sfmctest.Fault{Wire: sfmctest.NeverAnswer})
	w.fault("no answer", hang, 6*time.Second, func() { w.standIn.ClearFaults(); w.proxy.cut() })
	w.served()
	drip := w.standing(sfmctest.Fault{Wire: sfmctest.SlowBody, Every: 300 * time.Millisecond})
	w.fault("no answer", drip, 6*time.Second, func() { w.standIn.ClearFaults(); w.proxy.cut() })
	w.aboutALife()
	w.verdict("answers that never come, and that drip", "2 × 6 s", "")
}

func TestConnectionsThatAreCutAndResetAreSurvived(t *testing.T) {
	t.Parallel()
	w := begin(t, tens)
	for _, kind := range []string{"reset_peer", "limit_data"} {
		attributes := map[string]any{"timeout": 0, "bytes": 3000} // of a handshake
		w.fault(kind, func() { w.proxy.disturb(kind, "downstream", 1, attributes); w.proxy.cut() }, 6*time.Second, w.proxy.heal)
		w.served()
	}
	// Idle connections that die unnoticed cost at most one attempt.
	for range 5 {
		w.fault("cut", w.proxy.cut, time.Second, func() {})
	}
	w.aboutALife()
	w.verdict("connections reset, and cut in the handshake", "2 × 6 s, 5 cuts", "")
}
