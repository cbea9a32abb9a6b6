package monitoring

import (
	"context"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// TestPrometheus is one story: each step begins where the one before ended.
func TestPrometheus(t *testing.T) {
	w := newWorld(t)
	for _, step := range []struct {
		name string
		run  func(*world)
	}{
		{"scrapes both replicas as the ServiceMonitor says", (*world).isScraped},
		{"tells of each failure, in its own namespace", (*world).tellsOfFailures},
		{"has series for each query of the dashboard", (*world).drawsTheDashboard},
		{"tells that the failures are over", (*world).tellsOfRecovery},
		{"draws a page of the dashboard's queries", (*world).drawsThePage},
		{"pays for each SFMCToken with eight series at most", (*world).costs},
		{"tells that no replica works", (*world).tellsOfNoLeader},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(w.in(t)) }) {
			return
		}
	}
}

// failures are the alerts that the failures below set off: no others are, and no other namespace has any.
func (w *world) failures() []alert {
	return []alert{
		{"SFMCTokenStalled", "marketing", "journeys", ""},
		{"SFMCTokenStalled", "sales", "journeys", ""},
		{"SFMCTokenRefreshOverdue", "loyalty", "journeys", ""},
		{"SFMCTokenExpiresSoon", "loyalty", "journeys", ""},
		{"SFMCAuthHostFailing", "", "", w.hasty.Host()},
		{"SFMCClientThrottled", "", "", w.steady.Host()},
		{"SFMCClientSecretEndsIn30Days", "service", "journeys", ""},
	}
}

func (w *world) isScraped() {
	w.Eventually(func() ([]series, error) { return w.prometheus.query(`up{job="sfmctoken-operator-metrics"} == 1`) }).
		Should(HaveLen(replicas))
	// The label namespace is the SFMCToken's, and each namespace has its own series, once for each replica.
	for namespace := range w.packages {
		w.Eventually(func() ([]series, error) {
			return w.prometheus.query(fmt.Sprintf(`sfmctoken_ready{namespace=%q, name="journeys"} == 1`, namespace))
		}).Should(HaveLen(replicas), namespace)
	}
	for _, wrong := range []string{`sfmctoken_ready{namespace="sfmctoken-system"}`, `{exported_namespace!=""}`} {
		w.Expect(w.prometheus.query(wrong)).To(BeEmpty(), wrong)
	}
	w.Eventually(w.prometheus.firing).Should(BeEmpty())
}

func (w *world) tellsOfFailures() {
	fails := func(namespace string, fault sfmctest.Fault) {
		fault.ClientID, fault.Times = w.packages[namespace].ClientID, sfmctest.Forever
		w.steady.AddFaults(fault)
	}
	fails("marketing", sfmctest.Fault{Refusal: sfmctest.InvalidClient}) // and so sales
	fails("partners", sfmctest.Fault{Refusal: sfmctest.RateLimited, RetryAfter: time.Hour})
	w.hasty.TakeDown() // it is loyalty's
	w.refresh("while it fails", "marketing", "sales", "partners")
	w.secretEnds("service", time.Now().Add(20*24*time.Hour))
	w.Eventually(w.prometheus.firing).Should(ContainElements(w.failures()))
}

func (w *world) tellsOfRecovery() {
	w.steady.ClearFaults()
	w.Expect(w.hasty.BringUp()).To(Succeed())
	w.refresh("after it failed", "marketing", "sales", "partners")
	w.secretEnds("service", time.Now().Add(365*24*time.Hour))
	w.Eventually(w.prometheus.firing).Should(BeEmpty())
	// Only those alerts fired that had to. Two depend on how fast the machine is: loyalty's token has expired, and if
	// that lasts 5 minutes, it isn't ready; and who starves loses the lease.
	const mayFire = "SFMCTokenNotReady|SFMCOperatorHasNoLeader"
	fired, err := w.prometheus.alerts(`max_over_time(ALERTS{alertstate="firing", alertname!~"` + mayFire + `"}[2h])`)
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(fired).To(ConsistOf(w.failures()))
}

// costs prints what a scrape costs, for docs/monitoring.md.
func (w *world) costs() {
	const many = 1000
	scraped := func(metric string) float64 {
		return w.prometheus.number(fmt.Sprintf(`max(%s{job="sfmctoken-operator-metrics"})`, metric))
	}
	ready := func() float64 { return w.prometheus.number(`sum(max by (namespace, name) (sfmctoken_ready))`) }
	before, samples, size := ready(), scraped("scrape_samples_scraped"), scraped("scrape_body_size_bytes")
	for i := range many {
		w.create(harness.Token("service", fmt.Sprintf("many-%d", i), "sfmc-package", account))
	}
	w.Eventually(ready).Should(Equal(before + many))
	each := func(metric string, before float64) float64 { return (scraped(metric) - before) / many }
	// The standby's series come a little later.
	w.Eventually(func() float64 { return each("scrape_samples_scraped", samples) }).
		Should(BeNumerically("~", seriesEach, 0.1))
	w.t.Logf("%d SFMCTokens: %.1f series and %.0f bytes each at a scrape, which takes %.2f s", many,
		each("scrape_samples_scraped", samples), each("scrape_body_size_bytes", size), scraped("scrape_duration_seconds"))
}

// seriesEach is how many time series an SFMCToken has if the end of its client secret is known, as service's is.
const seriesEach = 8.0

func (w *world) tellsOfNoLeader() {
	noLeader := []alert{{name: "SFMCOperatorHasNoLeader"}}
	for _, replica := range w.replicas {
		ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
		w.Expect(replica.Terminate(ctx)).To(Equal(0))
		cancel()
	}
	w.Eventually(w.prometheus.firing).Should(Equal(noLeader))
	w.startReplicas()
	w.Eventually(w.prometheus.firing).Should(BeEmpty())
}
