package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.uber.org/zap/zapcore"
	"golang.org/x/time/rate"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/sfmctoken/sfmctoken-operator/internal/controller"
	"github.com/sfmctoken/sfmctoken-operator/internal/issuer"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

// Operator is the operator running in this process, with a clock of the test's.
type Operator struct {
	cancel context.CancelFunc
	done   chan error
	auth   *sfmc.Client
	ended  bool
	left   float64 // in the queues of operators that ran before in this process, by the metrics
}

// StartOperator starts the controller as cmd/main.go does, but for leader election and the probes. The identity in
// config should be the operator's ServiceAccount. It logs to out, at the highest level there is.
func StartOperator(cfg *rest.Config, clock clock.WithTicker, standIn *sfmctest.Server, out io.Writer) (*Operator, error) {
	auth, err := sfmc.NewClient(standIn.CACert(), clock)
	if err != nil {
		return nil, err
	}
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1
	cfg.DisableCompression = true
	options := controller.ManagerOptions(nil)
	options.Logger = zap.New(zap.Level(zapcore.DebugLevel), zap.WriteTo(out))
	options.Metrics = metricsserver.Options{BindAddress: "0"}
	options.Controller = config.Controller{SkipNameValidation: ptr.To(true)} // one after another in one process
	mgr, err := ctrl.NewManager(cfg, options)
	if err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	if err := controller.Setup(ctx, mgr, controller.Options{
		Issuer: issuer.Options{
			Client: auth, RequestBurst: 1,
			RequestRate: rate.Inf, // a test's clock stands still; the rate has tests of its own
		},
		AllowedAuthHosts: []string{standIn.Host()},
		Concurrency:      32,
		Clock:            clock,
	}); err != nil {
		cancel()
		return nil, err
	}
	operator := &Operator{cancel: cancel, done: make(chan error, 1), auth: auth, left: sumOf("workqueue_depth")}
	go func() { operator.done <- mgr.Start(ctx) }()
	if !mgr.GetCache().WaitForCacheSync(ctx) {
		return nil, errors.Join(errors.New("the operator's caches did not fill"), operator.Stop())
	}
	return operator, nil
}

// Idle tells whether the operator has looked at everything that it has been told of, and so whether its clock may be
// moved on: a look that is under way would see another time in its middle. At most one operator may run in a process.
func (o *Operator) Idle() bool {
	return o.ended || sumOf("workqueue_depth") == o.left &&
		sumOf("controller_runtime_active_workers")+sumOf("sfmctoken_token_requests_in_flight") == 0
}

// Travel is a condition to wait for: done. Until then it moves the operator's clock in steps, at most as far as it may, and
// never while the operator is at work: how fast the machine is makes no difference.
func (o *Operator) Travel(clock *clocktesting.FakeClock, atMost, step time.Duration, done func() bool) func() bool {
	start := clock.Now()
	return func() bool {
		if done() {
			return true
		}
		if clock.Since(start) < atMost && o.Idle() {
			clock.Step(step)
		}
		return false
	}
}

// Looks is how often operators of this process have looked at an object.
func Looks() float64 { return sumOf("controller_runtime_reconcile_total") }

// sumOf is the sum of a metric, a gauge or a counter, of all controllers.
func sumOf(name string) (sum float64) {
	families, _ := metrics.Registry.Gather() // those of SFMCTokens fail until the caches are filled; the others come
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, metric := range family.GetMetric() {
			sum += metric.GetGauge().GetValue() + metric.GetCounter().GetValue() // it is one of them
		}
	}
	return sum
}

// Stop ends the operator as a termination signal does and waits until it is gone.
func (o *Operator) Stop() error {
	o.cancel()
	err := <-o.done
	o.done <- err // a second Stop finds it too
	o.ended = true
	o.auth.CloseIdleConnections()
	return err
}
