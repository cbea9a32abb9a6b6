// Command bench measures the operator against a floor: plain client-go workers that send the same token request and
// do the same two writes for each token, and nothing else. Both run as child processes against the same control plane
// and the same stand-in for Marketing Cloud, one after the other. It prints a Markdown table, and fails if a number of
// requests that is promised was not kept; it never fails for being slow. With -scale it shows how cost grows instead.
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

	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
)

// deadline ends a run in which something hangs. It is no measure of speed: the longest run takes half of it on two cores.
const deadline = 90 * time.Minute

type settings struct {
	tokens, restartTokens int
	concurrency           int
	rounds, repetitions   int
	// shortLife is the expires_in of the steady run: a token is replaced after two thirds of it, less up to a twentieth.
	// A thousand tokens of 20 s make about 80 refreshes a second. Each token is refreshed steadyCycles times at least.
	shortLife    time.Duration
	steadyCycles int
	// dueLife is the expires_in of the run in which all tokens are due at once: long enough that none has expired by then.
	dueLife time.Duration
	// scale is how many SFMCTokens the largest population has at most; 0 for the comparison with the floor.
	scale int
	// beside is another operator's program, to be measured in the same run; empty for none.
	beside string
	profiler
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == floorCommand {
		exitOn(runFloor(os.Args[2:]))
		return
	}
	s := settings{shortLife: 20 * time.Second, dueLife: 45 * time.Second, steadyCycles: 2}
	flag.IntVar(&s.tokens, "tokens", 1000, "How many SFMCTokens to serve.")
	flag.IntVar(&s.restartTokens, "restart-tokens", 5000, "How many valid tokens there are at the larger restart.")
	flag.IntVar(&s.concurrency, "concurrency", 32, "How many tokens are worked on at once, by the operator and by the floor.")
	flag.IntVar(&s.rounds, "rounds", 3, "How often the floor and the operator take turns at creating; the median counts.")
	flag.IntVar(&s.repetitions, "repetitions", 20, "How often each change of access is made.")
	flag.StringVar(&s.beside, "beside", "", "`PROGRAM` of another version of the operator, measured in the same rounds. Nothing is promised of it.")
	flag.IntVar(&s.scale, "scale", 0, "Instead of all this: 100, 1,000 and 10,000 SFMCTokens, those that are at most `N`, with two replicas, through three lives.")
	flag.StringVar(&s.dir, "profiles", "", "With -scale: a `DIRECTORY` for profiles of the operator and of kube-apiserver.")
	quick := flag.Bool("quick", false, "A smoke run: 100 tokens, 300 at the larger restart, one round, 5 repetitions, and shorter lives.")
	flag.Parse()
	ctrl.SetLogger(zap.New(zap.WriteTo(io.Discard))) // or controller-runtime complains
	if *quick {
		s.tokens, s.restartTokens, s.rounds, s.repetitions = 100, 300, 1, 5
		s.shortLife, s.dueLife, s.steadyCycles = 6*time.Second, 12*time.Second, 1
	}
	measure := (*bench).compare
	if s.scale > 0 {
		measure, s.restartTokens = (*bench).measureScale, max(s.restartTokens, s.scale) // so many business units there are
	}
	exitOn(run(s, measure))
}

func exitOn(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(s settings, measure func(*bench, context.Context) error) (err error) {
	if least := max(namespaces*identitiesShared, 2*tokensOfTeam*s.repetitions); s.tokens < least || s.restartTokens < s.tokens || s.concurrency < 1 || s.rounds < 1 || s.repetitions < 1 {
		return fmt.Errorf("-tokens must be at least %d, -restart-tokens at least -tokens, -concurrency, -rounds and -repetitions at least 1", least)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	b, err := prepare(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.close()) }()

	if err := measure(b, ctx); err != nil {
		return err
	}
	return b.brokenPromises()
}

// compare measures the operator beside the floor, and prints the tables.
func (b *bench) compare(ctx context.Context) error {
	for _, measure := range []func(context.Context) error{
		b.compareCreation,
		b.measureSharing,
		b.compareRefresh,
		b.measureRestarts,
		b.compareAccess,
	} {
		if err := measure(ctx); err != nil {
			return err
		}
	}
	return b.printReport(ctx, os.Stdout)
}

// say tells the progress, on stderr: the report alone is on stdout.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s "+format+"\n", append([]any{time.Now().Format(time.TimeOnly)}, args...)...)
}
