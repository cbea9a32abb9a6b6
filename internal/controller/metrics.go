package controller

import (
	"context"
	"math"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/issuer"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

var (
	tokenRequests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sfmctoken_token_requests_total",
		Help: "Token requests sent to Marketing Cloud, by result: " +
			"issued, refused, throttled, unavailable or unreadable.",
	}, []string{"result"})
	tokenRequestDuration = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "sfmctoken_token_request_duration_seconds",
		Help:    "How long token requests took, in seconds.",
		Buckets: []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30},
	})
)

func init() { metrics.Registry.MustRegister(tokenRequests, tokenRequestDuration) }

func observeRequest(failed *sfmc.Error, took time.Duration) {
	result := "issued"
	if failed != nil {
		result = string(failed.Kind)
	}
	tokenRequests.WithLabelValues(result).Inc()
	tokenRequestDuration.Observe(took.Seconds())
}

// tokenMetrics reports each SFMCToken as the cache has it at the scrape: nothing stale is left of a deleted one.
type tokenMetrics struct {
	reader client.Reader
	issuer *issuer.Issuer
}

// gauge is a metric of each SFMCToken, by its status; NaN for none.
type gauge struct {
	desc  *prometheus.Desc
	value func(*v1alpha1.SFMCTokenStatus) float64
}

func newGauge(name, help string, value func(*v1alpha1.SFMCTokenStatus) float64) gauge {
	return gauge{prometheus.NewDesc(name, help, []string{"namespace", "name"}, nil), value}
}

var gauges = []gauge{
	newGauge("sfmctoken_token_expiry_timestamp_seconds", "When the token in the target Secret expires, in Unix time.",
		func(s *v1alpha1.SFMCTokenStatus) float64 { return unixTime(s.ExpiresAt) }),
	newGauge("sfmctoken_token_refresh_timestamp_seconds",
		"When the token in the target Secret is to be replaced, in Unix time.",
		func(s *v1alpha1.SFMCTokenStatus) float64 { return unixTime(s.RefreshAt) }),
	newGauge("sfmctoken_ready", "1 while the target Secret holds a valid token for the spec, else 0.",
		func(s *v1alpha1.SFMCTokenStatus) float64 { return truth(s, v1alpha1.ConditionReady) }),
	newGauge("sfmctoken_stalled", "1 while a person must act before a new token can be had, else 0.",
		func(s *v1alpha1.SFMCTokenStatus) float64 { return truth(s, v1alpha1.ConditionStalled) }),
	newGauge("sfmctoken_consecutive_failures", "Failed attempts to get a new token since the last success.",
		func(s *v1alpha1.SFMCTokenStatus) float64 { return float64(s.ConsecutiveFailures) }),
	newGauge("sfmctoken_client_secret_expiry_timestamp_seconds",
		"When the client secret expires, in Unix time, as client_secret_expires_at says.",
		func(s *v1alpha1.SFMCTokenStatus) float64 { return unixTime(s.ClientSecretExpiresAt) }),
}

func unixTime(at *metav1.Time) float64 {
	if at == nil {
		return math.NaN()
	}
	return float64(at.Unix())
}

func truth(status *v1alpha1.SFMCTokenStatus, condition string) float64 {
	if meta.IsStatusConditionTrue(status.Conditions, condition) {
		return 1
	}
	return 0
}

var requestsInFlight = prometheus.NewDesc("sfmctoken_token_requests_in_flight",
	"Token requests that are under way, or whose answer is being told.", nil, nil)

func registerTokenMetrics(mgr ctrl.Manager, issuer *issuer.Issuer) error {
	collector := &tokenMetrics{reader: mgr.GetCache(), issuer: issuer}
	// A second manager in one process (as tests have it) takes over.
	metrics.Registry.Unregister(collector)
	return metrics.Registry.Register(collector)
}

// Describe implements prometheus.Collector.
func (c *tokenMetrics) Describe(descs chan<- *prometheus.Desc) {
	descs <- requestsInFlight
	for _, gauge := range gauges {
		descs <- gauge.desc
	}
}

// Collect implements prometheus.Collector.
func (c *tokenMetrics) Collect(collected chan<- prometheus.Metric) {
	inFlight := float64(c.issuer.InFlight())
	collected <- prometheus.MustNewConstMetric(requestsInFlight, prometheus.GaugeValue, inFlight)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var tokens v1alpha1.SFMCTokenList
	if err := c.reader.List(ctx, &tokens, client.UnsafeDisableDeepCopy); err != nil {
		collected <- prometheus.NewInvalidMetric(gauges[0].desc, err)
		return
	}
	for i := range tokens.Items {
		obj := &tokens.Items[i]
		for _, g := range gauges {
			if value := g.value(&obj.Status); !math.IsNaN(value) {
				names := []string{obj.Namespace, obj.Name}
				collected <- prometheus.MustNewConstMetric(g.desc, prometheus.GaugeValue, value, names...)
			}
		}
	}
}
