package faults

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// victims is the table of what a victim suffers from its neighbours.
var victims victimRows

type victimRow struct {
	who                             string
	lasted                          time.Duration
	refreshes, repairs, revocations delays
	outage                          time.Duration
	asked, allowed                  int // the neighbours' token requests
	tokens                          int // the neighbours' SFMCTokens
	memory                          int // the operator's, in MiB
	calls                           int // the operator's to the API server
	seen                            []string
	broken                          []string
}

// add adds a neighbour to a row.
func (r *victimRow) add(by trouble, seen string, lasted time.Duration, starts int) {
	if r.who == "" {
		r.who = by.what
	}
	r.tokens += by.tokens
	r.seen = append(r.seen, seen)
	if by.asked == nil {
		return
	}
	asked, allowed := by.asked(), by.allowed(lasted, starts)
	if r.asked, r.allowed = r.asked+asked, r.allowed+allowed; asked > allowed {
		r.broken = append(r.broken, fmt.Sprintf("%s: %d token requests, allowed are %d", by.what, asked, allowed))
	}
}

// scrape reads what the operator says of itself.
func (r *victimRow) scrape(g *WithT, address string) {
	answer, err := http.Get("http://" + address + "/metrics")
	g.Expect(err).NotTo(HaveOccurred())
	defer answer.Body.Close()
	sums := map[string]float64{}
	for lines := bufio.NewScanner(answer.Body); lines.Scan(); {
		name, _, _ := strings.Cut(strings.ReplaceAll(lines.Text(), "{", " "), " ")
		value, _ := strconv.ParseFloat(lines.Text()[strings.LastIndexByte(lines.Text(), ' ')+1:], 64)
		sums[name] += value
	}
	r.memory, r.calls = int(sums["process_resident_memory_bytes"])>>20, int(sums["rest_client_requests_total"])
	g.Expect(r.memory).To(BeNumerically(">", 0))
	g.Expect(r.calls).To(BeNumerically(">", 0))
	if r.memory > r.memoryAllowed() {
		r.broken = append(r.broken, fmt.Sprintf("the operator has %d MiB, allowed are %d", r.memory, r.memoryAllowed()))
	}
}

// memoryAllowed is what the operator may have: a quarter of its limit in config/default, and so much for each SFMCToken
// that 20,000 more of them fit into the limit. Other people's Secrets have no part in it.
func (r *victimRow) memoryAllowed() int {
	const limit = 512 // MiB
	return limit/4 + r.tokens*(limit*3/4)/20_000
}

func (r *victimRow) String() string {
	verdict := "kept"
	if len(r.broken) > 0 {
		verdict = "**BROKEN**"
	}
	return fmt.Sprintf("| %s | %s | %s | %s | %.1f s | %d (%d) | %d (%d) | %d | %s | %s |", r.who, &r.refreshes, &r.repairs, &r.revocations,
		r.outage.Seconds(), r.asked, r.allowed, r.memory, r.memoryAllowed(), r.calls, strings.Join(append(r.seen, fmt.Sprintf("%.0f s", r.lasted.Seconds())), "; "), verdict)
}

type victimRows struct {
	mu   sync.Mutex
	rows []*victimRow
}

func (r *victimRows) add(t *testing.T, row *victimRow) {
	t.Helper()
	t.Log(row)
	for _, text := range row.broken {
		t.Error(text)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rows = append(r.rows, row)
}

func (r *victimRows) print(out *os.File) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.rows) == 0 {
		return
	}
	fmt.Fprintf(out, "Bad neighbours at %g of their full size\n\n", *scale)
	fmt.Fprintln(out, "| neighbour | refresh late (allowed) | repair late (allowed) | revocation late (allowed) | without a token | its token requests (allowed) | operator's MiB (allowed) | its API requests | remarks | promise |")
	fmt.Fprintln(out, "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
	for _, row := range r.rows {
		fmt.Fprintln(out, row)
	}
	fmt.Fprintln(out)
}
