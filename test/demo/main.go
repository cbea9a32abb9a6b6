// Command demo shows the operator at work, from nothing and without a Salesforce tenant: it starts a control plane, the
// operator and a stand-in for Marketing Cloud on loopback addresses, applies the sample manifests, calls the API with
// the token that appears, watches one refresh, and cleans up. It reads no kubeconfig but its own.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

func main() {
	if err := run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "\nThe demo failed:", err)
		os.Exit(1)
	}
}

// demo is what the steps share.
type demo struct {
	out      io.Writer
	dir      string // of temporary files
	fail     context.CancelCauseFunc
	samples  samples
	cluster  *localcluster.Cluster
	client   kubernetes.Interface // a cluster admin's
	standIn  *sfmctest.Server
	operator *operator
	// seen are the tokens that the target Secret was found to hold, in order.
	seen []string
	// blank tells whether the last line shown is blank.
	blank bool
	// undo is what is left to be stopped and removed, in the order it was started.
	undo []func() error
}

// run goes through the steps and returns the first failure. Nothing is left behind in any case.
func run(out io.Writer) error {
	started := time.Now()
	// They stay caught until the end, so that a second Ctrl-C can't cut the clean-up short. SIGPIPE is one of them:
	// otherwise `make demo | head` would leave everything behind.
	interrupt, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	// The samples and the module of the control plane's programs are found from the repository's root, which is also
	// where a person types the commands shown.
	if err := os.Chdir(harness.Path()); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(interrupt)
	defer cancel(nil)
	d := &demo{out: out, fail: cancel}
	err := d.takeSteps(ctx)
	if err != nil {
		// What a step says of a command that was interrupted is not the reason.
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		if interrupt.Err() == nil {
			d.showOperatorLog()
		}
		d.say("\nCleaning up …")
	}
	if err := errors.Join(err, d.cleanUp()); err != nil {
		return err
	}
	d.say("All of it worked, in %s, and nothing is left running.", time.Since(started).Round(time.Second))
	return nil
}

func (d *demo) takeSteps(ctx context.Context) error {
	for i, step := range []struct {
		title string
		take  func(context.Context) error
	}{
		{"Start a Kubernetes control plane and install the operator's manifests", d.startControlPlane},
		{"Start the stand-in for Marketing Cloud and the operator", d.startPrograms},
		{"Apply the samples", d.applySamples},
		{"Wait for the tokens", d.awaitTokens},
		{"Call the REST API with the token", d.callWithToken},
		{"Watch one refresh", d.watchRefresh},
		{"Clean up", d.removeAll},
	} {
		d.printLine("")
		d.printLine(fmt.Sprintf("%d. %s", i+1, step.title))
		d.printLine("")
		if err := step.take(ctx); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

// onCleanUp registers what ends or removes something that was just started or made.
func (d *demo) onCleanUp(undo func() error) { d.undo = append(d.undo, undo) }

// cleanUp ends what was started, the latest first. Calling it again does nothing.
func (d *demo) cleanUp() error {
	var failures []error
	for _, undo := range slices.Backward(d.undo) {
		failures = append(failures, undo())
	}
	d.undo = nil
	return errors.Join(failures...)
}

// say tells the person something.
func (d *demo) say(format string, args ...any) { d.show(fmt.Sprintf(format, args...)) }

// show prints text as part of a step.
func (d *demo) show(text string) {
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		d.printLine("   " + line)
	}
}

// printLine prints a line, but never two blank ones in a row.
func (d *demo) printLine(line string) {
	line = strings.TrimRight(line, " ")
	if line != "" || !d.blank {
		_, _ = fmt.Fprintln(d.out, line)
	}
	d.blank = line == ""
}

// kubectl runs kubectl and shows the command and what it printed.
func (d *demo) kubectl(ctx context.Context, args ...string) error {
	d.say("$ kubectl %s", strings.Join(args, " "))
	return d.showResult(d.cluster.Kubectl(ctx, args...))
}

// showResult shows what a command printed, and a blank line after it.
func (d *demo) showResult(printed string, err error) error {
	d.show(printed)
	d.printLine("")
	return err
}

func (d *demo) showOperatorLog() {
	if d.operator == nil {
		return
	}
	d.say("\nThe end of the operator's log:\n\n%s", d.operator.lastLogLines(20))
}
