// Command sfmctoken-operator keeps Salesforce Marketing Cloud access tokens fresh in Secrets.
package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"go.uber.org/zap/zapcore"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/filters"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/sfmctoken/sfmctoken-operator/internal/controller"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/version"
)

// shutdownTimeout lets a token request (30 s) and the write of its token (10 s) come to their end.
const shutdownTimeout = 45 * time.Second

type settings struct {
	controller.Options
	caFile, logLevel, metricsAddress, metricsCertDir, probeAddress, pprofAddress string
	leaderElectionNamespace                                                      string
	leaderElect, metricsSecure                                                   bool
}

// addTo is a flag that can be given several times, or once with commas. Without a value it would mean the opposite.
func addTo(items *[]string) func(value string) error {
	return func(value string) error {
		before := len(*items)
		for item := range strings.SplitSeq(value, ",") {
			if item = strings.TrimSpace(item); item != "" {
				*items = append(*items, item)
			}
		}
		if len(*items) == before {
			return errors.New("it names nothing; leave the flag out if nothing is meant")
		}
		return nil
	}
}

func main() {
	s := settings{Options: controller.Options{Clock: clock.RealClock{}}}
	flag.Func("allow-auth-host", "HOST or HOST:PORT to accept as an authentication host beside mc….auth."+
		"marketingcloudapis.com, for gateways and tests; still https. Can be repeated.", addTo(&s.AllowedAuthHosts))
	flag.Func("watch-namespaces", "Namespaces to work in, separated by commas. Default: all.",
		addTo(&s.WatchNamespaces))
	flag.StringVar(&s.caFile, "ca-file", "",
		"PEM file of root certificates to trust for token requests beside the system's. Read once, at the start.")
	flag.StringVar(&s.logLevel, "log-level", "info", "What is logged: info or debug.")
	flag.IntVar(&s.Concurrency, "max-concurrent-reconciles", 32,
		"How many SFMCTokens are worked on at once; of one namespace at most half as many. "+
			"Twice as many token requests can be under way to one authentication host, as many for one client.")
	flag.Float64Var((*float64)(&s.Issuer.RequestRate), "token-requests-per-second", 50,
		"Token requests to one authentication host per second. "+
			"10,000 tokens that are due at once are replaced within 200 s, before any of them expires.")
	flag.IntVar(&s.Issuer.RequestBurst, "token-requests-burst", 10,
		"Token requests to one authentication host that may be sent at once.")
	flag.BoolVar(&s.leaderElect, "leader-elect", false,
		"Work only while holding the Lease, so that several replicas can run.")
	flag.StringVar(&s.leaderElectionNamespace, "leader-election-namespace", "",
		"Namespace of the Lease. Default: the one that the operator runs in.")
	flag.StringVar(&s.metricsAddress, "metrics-bind-address", "0",
		"Address of the metrics endpoint, for example :8443. Default: 0, none.")
	flag.BoolVar(&s.metricsSecure, "metrics-secure", true,
		"Serve metrics over TLS and only to whom Kubernetes allows it.")
	flag.StringVar(&s.metricsCertDir, "metrics-cert-dir", "",
		"Directory with tls.crt and tls.key to serve metrics with; new ones are noticed. "+
			"Default: a certificate that the operator signs itself.")
	flag.StringVar(&s.probeAddress, "health-probe-bind-address", ":8081",
		"Address of the probes /healthz and /readyz; 0 for none.")
	flag.StringVar(&s.pprofAddress, "pprof-bind-address", "0", "Address of Go's profiles at /debug/pprof, for example "+
		"127.0.0.1:6060; whoever can reach it can read them. Default: 0, none.")
	showsVersion := flag.Bool("version", false, "Print what this was built from, and end.")
	flag.Parse()
	if *showsVersion {
		fmt.Println("sfmctoken-operator", version.Get())
		return
	}
	if err := run(s); err != nil {
		fmt.Fprintln(os.Stderr, "sfmctoken-operator:", err)
		os.Exit(1)
	}
}

func run(s settings) error {
	if err := setLogger(s.logLevel); err != nil {
		return err
	}
	built := version.Get()
	ctrl.Log.Info("sfmctoken-operator",
		"version", built.Version, "revision", built.Revision, "goVersion", built.GoVersion)
	for i, host := range s.AllowedAuthHosts {
		parsed, err := sfmc.ParseAllowedHost("--allow-auth-host", host)
		if err != nil {
			return err
		}
		s.AllowedAuthHosts[i] = parsed
	}
	if s.Concurrency < 2 {
		return errors.New("--max-concurrent-reconciles must be at least 2")
	}
	if s.Issuer.RequestRate <= 0 || s.Issuer.RequestBurst < 1 {
		return errors.New("--token-requests-per-second must be more than 0, and --token-requests-burst at least 1")
	}
	var err error
	if s.Issuer.Client, err = newAuthClient(s.caFile); err != nil {
		return err
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return fmt.Errorf("find a cluster to work in: %w", err)
	}
	config.QPS = -1 // the API server has its own priority and fairness
	// Compressing the watches costs the API server more than the rest of a refresh.
	config.DisableCompression = true
	config.UserAgent = built.UserAgent("sfmctoken-operator")
	if err := noticeSilence(config); err != nil {
		return err
	}
	mgr, err := ctrl.NewManager(config, s.managerOptions())
	if err != nil {
		return fmt.Errorf("connect to the cluster: %w", err)
	}
	ctx := ctrl.SetupSignalHandler()
	if err := controller.Setup(ctx, mgr, s.Options); err != nil {
		return err
	}
	if err := mgr.AddHealthzCheck("ping", healthz.Ping); err != nil {
		return err
	}
	return mgr.Start(ctx)
}

func (s settings) managerOptions() ctrl.Options {
	options := controller.ManagerOptions(s.WatchNamespaces)
	options.LeaderElection = s.leaderElect
	options.LeaderElectionID = "sfmctoken-operator"
	options.LeaderElectionNamespace = s.leaderElectionNamespace
	options.LeaderElectionReleaseOnCancel = true // run returns, and the process ends, as soon as the manager has
	options.GracefulShutdownTimeout = ptr.To(shutdownTimeout)
	options.HealthProbeBindAddress = s.probeAddress
	options.PprofBindAddress = s.pprofAddress
	options.Metrics = metricsserver.Options{
		BindAddress:   s.metricsAddress,
		SecureServing: s.metricsSecure,
		CertDir:       s.metricsCertDir,
		// HTTP/2 has had denial-of-service flaws that a scrape doesn't need.
		TLSOpts: []func(*tls.Config){func(c *tls.Config) { c.NextProtos = []string{"http/1.1"} }},
	}
	if s.metricsSecure {
		options.Metrics.FilterProvider = filters.WithAuthenticationAndAuthorization
	}
	return options
}

// setLogger makes JSON lines. There is no level above debug: further up, client-go prints request bodies, which are
// Secrets.
func setLogger(level string) error {
	levels := map[string]zapcore.Level{"info": zapcore.InfoLevel, "debug": zapcore.DebugLevel}
	chosen, ok := levels[level]
	if !ok {
		return fmt.Errorf("--log-level %q must be info or debug", level)
	}
	logger := zap.New(zap.Level(chosen))
	ctrl.SetLogger(logger)
	klog.SetLogger(logger)
	return nil
}

func newAuthClient(caFile string) (*sfmc.Client, error) {
	var roots []byte
	if caFile != "" {
		var err error
		if roots, err = os.ReadFile(caFile); err != nil { //nolint:gosec // the operator's own flag
			return nil, fmt.Errorf("read --ca-file: %w", err)
		}
	}
	return sfmc.NewClient(roots, clock.RealClock{})
}
