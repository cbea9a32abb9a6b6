// Command demo shows the operator at work, from nothing and without a Salesforce tenant: beside a control plane, the
// operator and a stand-in for Marketing Cloud on loopback addresses it runs the commands of the README and some more,
// shows what they print, and cleans up. It reads no kubeconfig but its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// tokenLife is short, so that a refresh is seen soon.
const tokenLife = 30 * time.Second

// further are commands that come after the README's, each with what it shows. $CA and $REST_HOST are the stand-in's.
var further = [][2]string{
	{"The target Secret, and what people are told", `kubectl -n marketing describe secret journeys
kubectl -n marketing describe sfmctoken journeys`},
	{"Whom does the token act for? The plugin of kubectl asks Marketing Cloud", `go install ./cmd/kubectl-sfmctoken
kubectl sfmctoken whoami journeys -n marketing --ca-file "$CA" --allow-rest-host "$REST_HOST"`},
	{"Watch one refresh: the token is replaced after two thirds of its life", `timeout 25 kubectl -n marketing get sfmctokens --watch --output-watch-events || true
kubectl sfmctoken whoami journeys -n marketing --ca-file "$CA" --allow-rest-host "$REST_HOST"`},
	{"Delete it: the Secret goes with it", `kubectl -n marketing delete sfmctoken journeys
kubectl -n marketing wait --for=delete secret/journeys --timeout=60s
kubectl -n marketing get secrets`},
}

func main() {
	// They stay caught until the end, so that a second Ctrl-C can't cut the clean-up short. SIGPIPE is one of them:
	// otherwise `make demo | head` would leave everything behind.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	started := time.Now()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "\nThe demo failed:", errors.Join(context.Cause(ctx), err))
		os.Exit(1) //nolint:gocritic // nothing is left to be stopped
	}
	fmt.Printf("\nAll of it worked, in %s, and nothing is left running.\n", time.Since(started).Round(time.Second))
}

func run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "sfmctoken-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	fmt.Print(`A Kubernetes control plane on 127.0.0.1. The first time, etcd, kube-apiserver, kube-controller-manager and kubectl
are built from source, which takes minutes; they are kept in .cache/localcluster. The kubectl below is theirs, and your
own kubeconfig is neither read nor written.

`)
	// Once it runs, it ends after the operator, whoever interrupts: that gives its Lease back.
	clusterCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	detach := context.AfterFunc(ctx, cancel)
	shared, err := harness.Start(clusterCtx, localcluster.Options{Out: os.Stdout})
	detach()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, shared.Cluster.Stop()) }()

	pkg, _, err := harness.SamplePackage()
	if err != nil {
		return err
	}
	standIn, err := sfmctest.NewServer(sfmctest.Options{ExpiresIn: tokenLife, Life: tokenLife, Packages: []sfmctest.Package{pkg}})
	if err != nil {
		return err
	}
	defer standIn.Close()
	fmt.Printf("\nA stand-in for Marketing Cloud at %s: its tokens live %s, and not 18 minutes. The operator runs beside it\n"+
		"as a process, with the rights of its ServiceAccount, since there is no node for the Pods of config/default.\n", standIn.URL(), tokenLife)
	log := &harness.Log{}
	operator, err := harness.StartProcess(harness.ProcessOptions{
		Config: shared.Operator, Dir: dir, AuthHosts: []string{standIn.Host()}, CA: standIn.CACert(), Log: log,
		Flags: []string{"--leader-elect", "--leader-election-namespace=" + harness.SystemNamespace},
	})
	if err != nil {
		return err
	}
	defer harness.RemoveProgram()
	defer func() {
		grace, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if code := operator.Terminate(grace); err != nil || code != 0 {
			err = errors.Join(err, fmt.Errorf("the operator ended with exit code %d; the end of its log:\n%s", code, log))
		}
	}()
	if err := show(ctx, os.Stdout, dir, shared.Cluster, standIn); err != nil {
		return err
	}
	const account = "510004567" // of the sample
	requests := standIn.CountFor(pkg.ClientID, account)
	fmt.Printf("\nToken requests for that business unit: %d.\n", requests)
	if requests < 2 {
		return errors.New("no refresh was seen")
	}
	return nil
}

// show runs the commands of the README, which a person would type in a clone of this repository, and further ones.
func show(ctx context.Context, out io.Writer, dir string, cluster *localcluster.Cluster, standIn *sfmctest.Server) error {
	shell, err := harness.NewShell(filepath.Join(dir, "clone"), cluster.Kubeconfig(), cluster.AssetsDir())
	if err != nil {
		return err
	}
	if err := shell.UseStandIn(standIn); err != nil {
		return err
	}
	shell.Set("CA", filepath.Join(dir, "ca.pem")) // as the operator got it
	shell.Set("REST_HOST", standIn.Host())
	readme, err := harness.ReadDocument("README.md")
	if err != nil {
		return err
	}
	var commands []string
	for _, block := range readme.Blocks {
		if block.Lang == "sh" && strings.HasPrefix(block.Text, "kubectl ") {
			commands = append(commands, block.Text)
		}
	}
	first := "The commands of the README. The sample's credentials are invented; their address is the stand-in's here"
	for i, step := range append([][2]string{{first, strings.Join(commands, "")}}, further...) {
		fmt.Fprintf(out, "\n%d. %s\n", i+1, step[0])
		for command := range strings.Lines(step[1]) {
			fmt.Fprintf(out, "\n   $ %s\n", strings.TrimSpace(command))
			printed, err := shell.Run(ctx, command)
			for line := range strings.Lines(printed) {
				fmt.Fprintf(out, "   %s", line)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}
