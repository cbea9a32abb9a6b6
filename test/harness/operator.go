package harness

import (
	"context"
	"errors"
	"fmt"
	"io"

	"go.uber.org/zap/zapcore"
	"golang.org/x/time/rate"
	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/sfmctoken/sfmctoken-operator/internal/controller"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc/sfmctest"
)

// Operator is the operator running in this process, with a clock of the test's.
type Operator struct {
	cancel context.CancelFunc
	done   chan error
	auth   *sfmc.Client
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
		AuthClient:       auth,
		AllowedAuthHosts: []string{standIn.Host()},
		RequestRate:      rate.Inf, // a test's clock stands still; the pace has tests of its own
		RequestBurst:     1,
		Concurrency:      32,
		Clock:            clock,
	}); err != nil {
		cancel()
		return nil, err
	}
	operator := &Operator{cancel: cancel, done: make(chan error, 1), auth: auth}
	go func() { operator.done <- mgr.Start(ctx) }()
	if !mgr.GetCache().WaitForCacheSync(ctx) {
		return nil, errors.Join(errors.New("the operator's caches did not fill"), operator.Stop())
	}
	return operator, nil
}

// Stop ends the operator as a termination signal does and waits until it is gone.
func (o *Operator) Stop() error {
	o.cancel()
	err := <-o.done
	o.done <- err // a second Stop finds it too
	o.auth.CloseIdleConnections()
	return err
}
