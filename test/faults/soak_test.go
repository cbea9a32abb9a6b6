package faults

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

// misfortune is a fault of the soak run, for a while.
type misfortune struct {
	name string
	do   func(w *world, random *rand.Rand, lasting time.Duration)
}

var misfortunes = []misfortune{
	{"endpoint away", func(w *world, _ *rand.Rand, lasting time.Duration) {
		w.fault(endpointAway, w.standIn.TakeDown, lasting, w.bringUp)
	}},
	{"5xx", func(w *world, _ *rand.Rand, lasting time.Duration) {
		w.fault("5xx", w.standing(sfmctest.Fault{Refusal: sfmctest.InternalError}), lasting, w.standIn.ClearFaults)
	}},
	{"bad answers", func(w *world, random *rand.Rand, lasting time.Duration) {
		bad := []sfmctest.Fault{{Body: `{`}, sfmctest.ProxyPage(200), {Wire: sfmctest.EndlessBody}, {Wire: sfmctest.CutBody}, {Wire: sfmctest.Reset}, {Fields: map[string]string{"expires_in": "0"}}}
		w.fault("bad answers", w.standing(bad[random.IntN(len(bad))]), lasting, w.standIn.ClearFaults)
	}},
	{"hanging", func(w *world, _ *rand.Rand, lasting time.Duration) {
		w.fault("hanging", w.standing(sfmctest.Fault{Wire: sfmctest.NeverAnswer}), lasting, func() { w.standIn.ClearFaults(); w.proxy.cut() })
	}},
	{"slow way", func(w *world, random *rand.Rand, lasting time.Duration) {
		late := map[string]any{"latency": 100 + random.IntN(900)}
		w.fault("slow way", func() { w.proxy.disturb("latency", "downstream", 1, late) }, lasting, w.proxy.heal)
	}},
	{"resets", func(w *world, _ *rand.Rand, lasting time.Duration) {
		w.fault("resets", func() { w.proxy.disturb("reset_peer", "downstream", 0.7, map[string]any{"timeout": 0}); w.proxy.cut() }, lasting, w.proxy.heal)
	}},
	{"throttled", func(w *world, random *rand.Rand, lasting time.Duration) { w.throttle(random, lasting) }},
	{"refused", func(w *world, random *rand.Rand, lasting time.Duration) {
		pkg := w.packages[random.IntN(len(w.packages))].ClientID
		disable := func(disabled bool) func() {
			return func() { w.Expect(w.standIn.DisablePackage(pkg, disabled)).To(Succeed()) }
		}
		w.fault("refused", disable(true), lasting, func() { disable(false)(); w.touchCredentials() })
	}},
	{"operator killed", func(w *world, random *rand.Rand, _ time.Duration) {
		for range 1 + random.IntN(3) {
			w.replicas[0].Kill()
			w.pass(time.Duration(random.Int64N(int64(2 * time.Second))))
		}
	}},
	{"API server away", func(w *world, _ *rand.Rand, lasting time.Duration) { stopAPIServer(lasting/2, w) }},
}

// throttle answers a client's requests with 429, and lets the pause that they ask for pass.
func (w *world) throttle(random *rand.Rand, lasting time.Duration) {
	after := time.Duration(1+random.IntN(4)) * time.Second
	fault := sfmctest.Fault{ClientID: w.packages[random.IntN(len(w.packages))].ClientID, Refusal: sfmctest.RateLimited, RetryAfter: after, Times: sfmctest.Forever}
	w.fault("throttled", func() { w.standIn.AddFaults(fault) }, lasting, func() {
		w.standIn.ClearFaults()
		w.pass(after)
	})
}

// touchCredentials changes all credentials Secrets, as a person does who has mended something.
func (w *world) touchCredentials() {
	w.t.Helper()
	for _, namespace := range w.namespaces {
		for i := range w.packages {
			secret := &corev1.Secret{}
			secret.Namespace, secret.Name = namespace, fmt.Sprintf("package-%d", i)
			patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"annotations":{"touched":"%d"}}}`, time.Now().UnixNano()))
			w.Expect(admin.Patch(w.ctx, secret, patch)).To(Succeed())
		}
	}
}

func TestASoakRunOfAllFaultsAtRandom(t *testing.T) {
	w := newWorld(t, tens)
	w.startOperator()
	w.served()
	source, until, times := random(t.Name()), time.Now().Add(*soak), 0
	for ; time.Now().Before(until); times++ {
		chosen := misfortunes[source.IntN(len(misfortunes))]
		lasting := time.Second + time.Duration(source.Int64N(int64(9*time.Second)))
		t.Logf("%s: %s for %s", time.Now().Format(time.TimeOnly), chosen.name, lasting.Round(time.Millisecond))
		chosen.do(w, source, lasting)
		w.served()
		w.pass(time.Duration(source.Int64N(int64(5 * time.Second))))
	}
	w.aboutALife()
	w.verdict(fmt.Sprintf("soak of %s, faults at random", *soak), fmt.Sprint(times), "")
}
