// Command kubectl-sfmctoken is a plugin of kubectl that shows how SFMCTokens are, names the pods that miss refreshes,
// and asks for a new token. It never reads what is in a Secret.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	_ "k8s.io/client-go/plugin/pkg/client/auth" // whatever kubectl can log in with
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

const usage = `Shows how SFMCTokens are, names the pods that miss their refreshes, and asks for a new token.

Usage:
  kubectl sfmctoken [list] [-n NAMESPACE | -A]
  kubectl sfmctoken doctor [-n NAMESPACE | -A]
  kubectl sfmctoken refresh NAME [-n NAMESPACE] [--timeout 60s]

list shows a line for each SFMCToken. doctor names those that have a problem, and the pods that read a token once, when
they start; it exits with 1 if it finds any. refresh asks for a new token and waits for it; it exits with 1 if there is
none. All exit with 2 if they can't do their work.

Flags:
`

// Exit codes beside 0.
const (
	exitFound  = 1 // what was asked about isn't well
	exitFailed = 2 // it isn't known
)

// errFound means that the answer is no, and has been printed.
var errFound = errors.New("not all is well")

// usageError means that the command line is wrong.
type usageError struct{ error }

type settings struct {
	command, name                  string
	kubeconfig, context, namespace string
	allNamespaces                  bool
	timeout                        time.Duration
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	log.SetLogger(klog.Background())
	s, err := readSettings(args, stderr)
	if err == nil {
		err = runCommand(ctx, s, stdout, stderr)
	}
	var wrong usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.Is(err, errFound):
		return exitFound
	case errors.As(err, &wrong):
		fmt.Fprintf(stderr, "kubectl sfmctoken: %v; see kubectl sfmctoken --help\n", err)
	default:
		fmt.Fprintf(stderr, "kubectl sfmctoken: %v\n", err)
	}
	return exitFailed
}

func readSettings(args []string, stderr io.Writer) (settings, error) {
	s := settings{command: "list"}
	flags := flag.NewFlagSet("kubectl sfmctoken", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&s.kubeconfig, "kubeconfig", "", "`FILE` with the cluster to look at. Default: KUBECONFIG, else ~/.kube/config.")
	flags.StringVar(&s.context, "context", "", "`NAME` of a context in it. Default: the current one.")
	for _, name := range []string{"n", "namespace"} {
		flags.StringVar(&s.namespace, name, "", "`NAMESPACE` to look at. Default: the context's.")
	}
	for _, name := range []string{"A", "all-namespaces"} {
		flags.BoolVar(&s.allNamespaces, name, false, "Look at all namespaces.")
	}
	flags.DurationVar(&s.timeout, "timeout", time.Minute, "How long refresh waits.")
	words, err := parse(flags, args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stderr, usage)
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		return s, err
	}
	if err != nil {
		return s, usageError{err}
	}
	if len(words) > 0 {
		s.command, words = words[0], words[1:]
	}
	if s.command == "refresh" && len(words) == 1 {
		s.name, words = words[0], nil
	}
	timeoutGiven := false
	flags.Visit(func(f *flag.Flag) { timeoutGiven = timeoutGiven || f.Name == "timeout" })
	return s, s.check(words, timeoutGiven)
}

// parse reads flags before, between and after the words, as kubectl does.
func parse(flags *flag.FlagSet, args []string) ([]string, error) {
	var words []string
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		if flags.NArg() == 0 {
			return words, nil
		}
		words = append(words, flags.Arg(0))
		args = flags.Args()[1:]
	}
}

func (s *settings) check(rest []string, timeoutGiven bool) error {
	wrong := func(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }
	refresh := s.command == "refresh"
	switch {
	case !refresh && s.command != "list" && s.command != "doctor":
		return wrong("there is no command %q", s.command)
	case refresh && s.name == "":
		return wrong("refresh needs the name of one SFMCToken")
	case len(rest) > 0:
		return wrong("%s takes no name", s.command)
	case refresh && s.allNamespaces:
		return wrong("refresh is for one namespace")
	case s.allNamespaces && s.namespace != "":
		return wrong("-n and -A exclude each other")
	case timeoutGiven && !refresh:
		return wrong("--timeout is for refresh")
	case s.timeout <= 0:
		return wrong("--timeout must be more than 0")
	}
	return nil
}

// plugin is what the commands work with.
type plugin struct {
	client      client.WithWatch
	namespace   string // all if empty
	clock       clock.PassiveClock
	out, errOut io.Writer
}

func runCommand(ctx context.Context, s settings, stdout, stderr io.Writer) error {
	p, err := connect(s)
	if err != nil {
		return err
	}
	p.out, p.errOut = stdout, stderr
	switch s.command {
	case "refresh":
		return p.refresh(ctx, s.name, s.timeout)
	case "doctor":
		return p.doctor(ctx)
	default:
		return p.list(ctx)
	}
}

func connect(s settings) (*plugin, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = s.kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: s.context}
	overrides.Context.Namespace = s.namespace
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides)
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("find a cluster: %w", err)
	}
	config.UserAgent = "kubectl-sfmctoken"
	config.QPS = -1 // a handful of requests
	p := &plugin{clock: clock.RealClock{}}
	if !s.allNamespaces {
		if p.namespace, _, err = loader.Namespace(); err != nil {
			return nil, fmt.Errorf("find a namespace: %w", err)
		}
	}
	scheme := runtime.NewScheme()
	utilruntime.Must(corev1.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	if p.client, err = client.NewWithWatch(config, client.Options{Scheme: scheme}); err != nil {
		return nil, fmt.Errorf("connect to the cluster: %w", err)
	}
	return p, nil
}
