package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

// addRow adds a run to the table, and compares its rate with the floor's in a run of the same name; sharing, which
// the floor can't do, with the floor's creation.
func (b *bench) addRow(name string, r row) {
	r.name = name
	b.rows = append(b.rows, r)
}

// floorRate is the floor's rate that a row is compared with.
func (b *bench) floorRate(of row) float64 {
	for _, r := range b.rows {
		if r.subject == "floor" && r.name != steadyName && strings.HasPrefix(of.name, r.name) {
			return r.rate()
		}
	}
	return 0
}

func (b *bench) printReport(ctx context.Context, out io.Writer) error {
	machine, err := b.describeMachine(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s\n\n", machine)
	b.printTable(out)
	fmt.Fprintln(out)
	b.printAccess(out)
	fmt.Fprintf(out, "\n%s.\n", strings.Join(b.sizes, "; "))
	return nil
}

func (b *bench) printTable(out io.Writer) {
	printHead(out, append(append([]string{"run", "", "tokens/s", "of the floor's rate"}, costColumns...), "change served after"))
	for _, r := range b.rows {
		cells := append([]string{r.name, r.subject, "", ""}, append(r.costs(), "")...)
		if r.served > 0 {
			cells[len(cells)-1] = fmt.Sprintf("%.2f s", r.served.Seconds())
		} else {
			cells[2] = fmt.Sprintf("%.0f", r.rate())
		}
		if r.fastest > 0 && b.rounds > 1 {
			cells[2] += fmt.Sprintf(" (%.0f–%.0f)", r.slowest, r.fastest)
		}
		if floor := b.floorRate(r); floor > 0 && r.subject != "floor" {
			cells[3] = fmt.Sprintf("%.0f %%", 100*r.rate()/floor)
		}
		fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | "))
	}
}

// printAccess prints how long changes of access took, from before the change was asked for until a watch showed the last
// of what it had to bring.
func (b *bench) printAccess(out io.Writer) {
	printHead(out, append(append([]string{"access", "", "times", "p50", "max"}, costColumns...), "patch the grant's status"))
	for _, r := range b.accessRows {
		cells := []string{r.name, r.subject, "", "", ""}
		if n := len(r.waits); n > 0 {
			cells = []string{r.name, r.subject, fmt.Sprint(n), r.waits[n/2].Round(time.Millisecond).String(), r.waits[n-1].Round(time.Millisecond).String()}
		}
		cells = append(append(cells, r.costs()...), perToken(r.calls.patchGrants, r.tokens))
		fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | "))
	}
}

func printHead(out io.Writer, columns []string) {
	fmt.Fprintf(out, "| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat(" --- |", len(columns)))
}

var costColumns = []string{"token requests", "create Secret", "update Secret", "patch status", "read", "event", "CPU ms", "API server's CPU ms", "peak MiB"}

// costs are the cells below costColumns.
func (r row) costs() []string {
	each := func(count int) string { return perToken(count, r.tokens) }
	return []string{fmt.Sprint(r.requests),
		each(r.calls.createSecrets), each(r.calls.updateSecrets), each(r.calls.patchStatuses), each(r.calls.reads), each(r.calls.events),
		milliseconds(r.usage.cpu, r.tokens), milliseconds(r.serverCPU, r.tokens), fmt.Sprint(r.usage.peak >> 10)}
}

// perToken is a count per token: a plain number if it is the same for all.
func perToken(count, tokens int) string {
	if count%tokens == 0 {
		return fmt.Sprint(count / tokens)
	}
	return fmt.Sprintf("%.4f", float64(count)/float64(tokens))
}

func milliseconds(all time.Duration, tokens int) string {
	return fmt.Sprintf("%.2f", float64(all.Microseconds())/1000/float64(tokens))
}

// recordSizes notes how large the first SFMCToken and its Secret are, since the floor must write as much.
func (b *bench) recordSizes(ctx context.Context, subject string) error {
	var token v1alpha1.SFMCToken
	var secret corev1.Secret
	key := client.ObjectKey{Namespace: namespaceName(0), Name: tokenName(0)}
	if err := b.admin.Get(ctx, key, &token); err != nil {
		return err
	}
	if err := b.admin.Get(ctx, key, &secret); err != nil {
		return err
	}
	token.ManagedFields, secret.ManagedFields = nil, nil
	tokenJSON, err := json.Marshal(token)
	if err != nil {
		return err
	}
	secretJSON, err := json.Marshal(secret)
	if err != nil {
		return err
	}
	if len(b.sizes) < 2 {
		b.sizes = append(b.sizes, fmt.Sprintf("%s: %d bytes in a Secret, %d in an SFMCToken", subject, len(secretJSON), len(tokenJSON)))
	}
	return nil
}

func (b *bench) describeMachine(ctx context.Context) (string, error) {
	clientset, err := kubernetes.NewForConfig(b.cluster.Config())
	if err != nil {
		return "", err
	}
	version, err := clientset.Discovery().ServerVersion()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %d cores, %s memory, %s/%s, %s, Kubernetes %s, %d workers, %s",
		field("/proc/cpuinfo", "model name"), runtime.NumCPU(), field("/proc/meminfo", "MemTotal"),
		runtime.GOOS, runtime.GOARCH, runtime.Version(), version.GitVersion, b.concurrency, time.Now().UTC().Format(time.DateOnly)), ctx.Err()
}

// field reads a value from a file of /proc.
func field(file, name string) string {
	content, err := os.ReadFile(file) //nolint:gosec // two files of /proc
	if err != nil {
		return "unknown"
	}
	for line := range bytes.Lines(content) {
		if key, value, found := strings.Cut(string(line), ":"); found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
