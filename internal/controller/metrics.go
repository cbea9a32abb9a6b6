package controller

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

var (
	tokenRequests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sfmctoken_token_requests_total",
		Help: "Token requests sent to Marketing Cloud, by result: issued, refused, throttled, unavailable or unreadable.",
	}, []string{"result"})
	tokenRequestDuration = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "sfmctoken_token_request_duration_seconds",
		Help:    "How long token requests took, in seconds.",
		Buckets: []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30},
	})
)

func init() { metrics.Registry.MustRegister(tokenRequests, tokenRequestDuration) }

func observeRequest(err error, took time.Duration) {
	result := map[sfmc.Kind]string{
		0: "issued", sfmc.Refused: "refused", sfmc.Throttled: "throttled", sfmc.Unavailable: "unavailable", sfmc.Unreadable: "unreadable",
	}[sfmc.KindOf(err)]
	tokenRequests.WithLabelValues(result).Inc()
	tokenRequestDuration.Observe(took.Seconds())
}

// tokenMetrics reports each SFMCToken as the cache has it at the moment of the scrape, so that nothing stale is left
// of a deleted one.
type tokenMetrics struct {
	reader                                                 client.Reader
	expiry, refresh, ready, stalled, failing, secretExpiry *prometheus.Desc
}

func registerTokenMetrics(mgr ctrl.Manager) error {
	describe := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, []string{"namespace", "name"}, nil)
	}
	collector := &tokenMetrics{
		reader:       mgr.GetCache(),
		expiry:       describe("sfmctoken_token_expiry_timestamp_seconds", "When the token in the target Secret expires, in Unix time."),
		refresh:      describe("sfmctoken_token_refresh_timestamp_seconds", "When the token in the target Secret is to be replaced, in Unix time."),
		ready:        describe("sfmctoken_ready", "1 while the target Secret holds a valid token for the spec, else 0."),
		stalled:      describe("sfmctoken_stalled", "1 while a person must act before a new token can be had, else 0."),
		failing:      describe("sfmctoken_consecutive_failures", "Failed attempts to get a new token since the last success."),
		secretExpiry: describe("sfmctoken_client_secret_expiry_timestamp_seconds", "When the client secret expires, in Unix time, as client_secret_expires_at says."),
	}
	// A second manager in one process (as tests have it) takes over.
	metrics.Registry.Unregister(collector)
	return metrics.Registry.Register(collector)
}

// Describe implements prometheus.Collector.
func (c *tokenMetrics) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{c.expiry, c.refresh, c.ready, c.stalled, c.failing, c.secretExpiry} {
		descs <- desc
	}
}

// Collect implements prometheus.Collector.
func (c *tokenMetrics) Collect(collected chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var tokens v1alpha1.SFMCTokenList
	if err := c.reader.List(ctx, &tokens, client.UnsafeDisableDeepCopy); err != nil {
		collected <- prometheus.NewInvalidMetric(c.ready, err)
		return
	}
	for i := range tokens.Items {
		token := &tokens.Items[i]
		gauge := func(desc *prometheus.Desc, value float64) {
			collected <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, token.Namespace, token.Name)
		}
		truth := func(condition string) float64 {
			if meta.IsStatusConditionTrue(token.Status.Conditions, condition) {
				return 1
			}
			return 0
		}
		if token.Status.ExpiresAt != nil && token.Status.RefreshAt != nil {
			gauge(c.expiry, float64(token.Status.ExpiresAt.Unix()))
			gauge(c.refresh, float64(token.Status.RefreshAt.Unix()))
		}
		if token.Status.ClientSecretExpiresAt != nil {
			gauge(c.secretExpiry, float64(token.Status.ClientSecretExpiresAt.Unix()))
		}
		gauge(c.ready, truth(v1alpha1.ConditionReady))
		gauge(c.stalled, truth(v1alpha1.ConditionStalled))
		gauge(c.failing, float64(token.Status.ConsecutiveFailures))
	}
}
