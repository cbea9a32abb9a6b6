// Package faults shows that the operator keeps its promises while things go wrong: with its real binary, its
// ServiceAccount and the real clock against a real control plane and a stand-in for Marketing Cloud, with a proxy in
// between that can delay, cut and reset. An observer runs through each fault. docs/reliability.md says what is promised.
package faults

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

var (
	seed = flag.Uint64("seed", fromEnv("SEED", 0, func(text string) (uint64, error) { return strconv.ParseUint(text, 10, 64) }),
		"Seed of all that is random: kills, faults and their moments. 0: a new one. Also as environment variable SEED.")
	soak = flag.Duration("soak", fromEnv("SOAK", 2*time.Minute, time.ParseDuration),
		"How long the soak run lasts. Also as environment variable SOAK.")
)

func fromEnv[T any](name string, otherwise T, parse func(string) (T, error)) T {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	value, err := parse(text)
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(2)
	}
	return value
}

// random is a source of its own for each test, so that one test alone repeats what it did among the others.
func random(test string) *rand.Rand {
	var stream uint64
	for _, c := range []byte(test) {
		stream = stream*31 + uint64(c)
	}
	return rand.New(rand.NewPCG(*seed, stream)) //nolint:gosec // picks faults, guards nothing
}

var (
	cluster  *localcluster.Cluster
	admin    client.WithWatch // reads and writes as a cluster's administrator, past any cache
	operator *rest.Config     // the operator's ServiceAccount
	table    rows
)

func TestMain(m *testing.M) {
	// Tests that may run together mostly wait, so more of them can than there are processors. A flag given wins.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err) // every test binary has it
	}
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if *seed == 0 {
		*seed = rand.Uint64() >> 32 //nolint:gosec // picks faults, guards nothing
	}
	fmt.Printf("seed %d (repeat with: go test ./faults -seed %d)\n", *seed, *seed)
	return harness.RunTests(&harness.Log{}, func(shared harness.Shared) int {
		cluster, admin, operator = shared.Cluster, shared.Admin, shared.Operator
		code := m.Run()
		table.print(os.Stdout)
		victims.print(os.Stdout)
		return code
	})
}

// row is what the table says of one fault.
type row struct {
	fault, times    string
	outage, gap     string
	asked, allowed  int
	remark, verdict string
	broken          bool
}

// rows are collected from tests that may run at the same time.
type rows struct {
	mu   sync.Mutex
	rows []row
}

func (r *rows) add(t *testing.T, row row) {
	row.verdict = "kept"
	if row.broken {
		row.verdict = "**BROKEN**"
	}
	t.Log(row)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, row)
}

func (r row) String() string {
	requests := fmt.Sprintf("%d (%d)", r.asked, r.allowed)
	return fmt.Sprintf("| %s | %s | %s | %s | %s | %s | %s |", r.fault, r.times, r.outage, r.gap, requests, r.remark, r.verdict)
}

func (r *rows) print(out *os.File) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fmt.Fprintf(out, "\nseed %d\n\n", *seed)
	fmt.Fprintln(out, "| fault | times | longest outage | worst gap | token requests (allowed) | remarks | promise |")
	fmt.Fprintln(out, "| --- | --- | --- | --- | --- | --- | --- |")
	for _, row := range r.rows {
		fmt.Fprintln(out, row)
	}
	fmt.Fprintln(out)
}
