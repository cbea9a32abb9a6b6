package controller

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/issuer"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/version"
)

var (
	tokenRequests = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sfmctoken_token_requests_total",
		Help: "Token requests sent to Marketing Cloud, by authentication host and result: " +
			"issued, refused, throttled, unavailable or unreadable.",
	}, []string{"auth_host", "result"})
	tokenRequestDuration = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "sfmctoken_token_request_duration_seconds",
		Help:    "How long token requests took, in seconds.",
		Buckets: []float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30},
	})
)

func init() {
	built := version.Get()
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "sfmctoken_build_info",
		Help: "1, with what the operator was built from.",
		ConstLabels: prometheus.Labels{
			"version": built.Version, "revision": built.Revision, "goversion": built.GoVersion,
		},
	})
	info.Set(1)
	metrics.Registry.MustRegister(tokenRequests, tokenRequestDuration, info)
}

// maxCounted is how many authentication hosts have counters of their own: anybody who may write credentials can name
// new ones, and a counter stays as long as the process. otherHosts stands for the rest.
const (
	maxCounted = 500
	otherHosts = "other"
)

// requestCounter counts token requests by authentication host.
type requestCounter struct {
	mu      sync.Mutex
	counted map[string]bool
}

func (c *requestCounter) observe(host string, failed *sfmc.Error, took time.Duration) {
	result := "issued"
	if failed != nil {
		result = string(failed.Kind)
	}
	tokenRequests.WithLabelValues(c.label(host), result).Inc()
	tokenRequestDuration.Observe(took.Seconds())
}

func (c *requestCounter) label(host string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.counted[host] && len(c.counted) >= maxCounted {
		return otherHosts
	}
	c.counted[host] = true
	return host
}

// tokenMetrics reports each SFMCToken as the cache has it at the scrape: nothing stale is left of a deleted one.
type tokenMetrics struct {
	reader client.Reader
	issuer *issuer.Issuer
	clock  clock.PassiveClock
}

// gauge is a metric of each SFMCToken, by its status and the time; NaN for none.
type gauge struct {
	desc  *prometheus.Desc
	value func(*v1alpha1.SFMCTokenStatus, time.Time) float64
}

func newGauge(name, help string, value func(*v1alpha1.SFMCTokenStatus, time.Time) float64) gauge {
	return gauge{prometheus.NewDesc(name, help, []string{"namespace", "name"}, nil), value}
}

var gauges = []gauge{
	newGauge("sfmctoken_token_expiry_timestamp_seconds", "When the token in the target Secret expires, in Unix time.",
		func(s *v1alpha1.SFMCTokenStatus, _ time.Time) float64 { return unixTime(s.ExpiresAt) }),
	newGauge("sfmctoken_ready", "1 while the target Secret holds a valid token for the spec, else 0.",
		isReady),
	newGauge("sfmctoken_stalled", "1 while a person must act before a new token can be had, else 0.",
		func(s *v1alpha1.SFMCTokenStatus, _ time.Time) float64 { return truth(s, v1alpha1.ConditionStalled) }),
	newGauge("sfmctoken_consecutive_failures", "Failed attempts to get a new token since the last success.",
		func(s *v1alpha1.SFMCTokenStatus, _ time.Time) float64 { return float64(s.ConsecutiveFailures) }),
	newGauge("sfmctoken_suspended", "1 while spec.suspend is true and no token is asked for, else 0.",
		func(s *v1alpha1.SFMCTokenStatus, _ time.Time) float64 { return truth(s, v1alpha1.ConditionSuspended) }),
	newGauge("sfmctoken_target_contested", "1 while somebody else keeps changing the target Secret, else 0.",
		func(s *v1alpha1.SFMCTokenStatus, _ time.Time) float64 {
			return truth(s, v1alpha1.ConditionTargetContested)
		}),
	newGauge("sfmctoken_refresh_overdue_seconds",
		"How late the token's refresh is, in seconds; 0 while it isn't due.", overdue),
	newGauge("sfmctoken_client_secret_expiry_timestamp_seconds",
		"When the client secret expires, in Unix time, as client_secret_expires_at says.",
		func(s *v1alpha1.SFMCTokenStatus, _ time.Time) float64 { return unixTime(s.ClientSecretExpiresAt) }),
}

func unixTime(at *metav1.Time) float64 {
	if at == nil {
		return math.NaN()
	}
	return float64(at.Unix())
}

// isReady doesn't wait for a status that nobody can write, or nobody is there to write.
func isReady(status *v1alpha1.SFMCTokenStatus, now time.Time) float64 {
	if status.ExpiresAt != nil && !now.Before(status.ExpiresAt.Time) {
		return 0
	}
	return truth(status, v1alpha1.ConditionReady)
}

// overdue is unknown without a token, or while suspended: then nothing is due.
func overdue(status *v1alpha1.SFMCTokenStatus, now time.Time) float64 {
	if status.RefreshAt == nil {
		return math.NaN()
	}
	return max(now.Sub(status.RefreshAt.Time), 0).Seconds()
}

func truth(status *v1alpha1.SFMCTokenStatus, condition string) float64 {
	if meta.IsStatusConditionTrue(status.Conditions, condition) {
		return 1
	}
	return 0
}

var (
	requestsInFlight = prometheus.NewDesc("sfmctoken_token_requests_in_flight",
		"Token requests that are under way, or whose answer is being told.", nil, nil)
	requestsWaiting = prometheus.NewDesc("sfmctoken_token_requests_waiting",
		"Token requests that wait to be sent: for a slot, or until a throttled or refused client is tried again.",
		[]string{"auth_host"}, nil)
	clientsPaused = prometheus.NewDesc("sfmctoken_clients_paused",
		"Clients that are throttled, with requests that wait for the end of that.", []string{"auth_host"}, nil)
)

func registerTokenMetrics(mgr ctrl.Manager, issuer *issuer.Issuer, clock clock.PassiveClock) error {
	collector := &tokenMetrics{reader: mgr.GetCache(), issuer: issuer, clock: clock}
	// A second manager in one process (as tests have it) takes over.
	metrics.Registry.Unregister(collector)
	return metrics.Registry.Register(collector)
}

// Describe implements prometheus.Collector.
func (c *tokenMetrics) Describe(descs chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{requestsInFlight, requestsWaiting, clientsPaused} {
		descs <- desc
	}
	for _, gauge := range gauges {
		descs <- gauge.desc
	}
}

// Collect implements prometheus.Collector.
func (c *tokenMetrics) Collect(collected chan<- prometheus.Metric) {
	tell := func(desc *prometheus.Desc, value float64, labels ...string) {
		collected <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	tell(requestsInFlight, float64(c.issuer.InFlight()))
	for _, host := range c.issuer.Hosts() {
		tell(requestsWaiting, float64(host.Waiting), host.Host)
		tell(clientsPaused, float64(host.Paused), host.Host)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var tokens v1alpha1.SFMCTokenList
	if err := c.reader.List(ctx, &tokens, client.UnsafeDisableDeepCopy); err != nil {
		collected <- prometheus.NewInvalidMetric(gauges[0].desc, err)
		return
	}
	now := c.clock.Now()
	for i := range tokens.Items {
		obj := &tokens.Items[i]
		for _, g := range gauges {
			if value := g.value(&obj.Status, now); !math.IsNaN(value) {
				tell(g.desc, value, obj.Namespace, obj.Name)
			}
		}
	}
}
