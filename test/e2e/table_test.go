package e2e

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sfmctoken/sfmctoken-operator/test/e2e/totals"
)

// measured is what a run has to tell.
type measured struct {
	totals.Totals
	seen []totals.Sighting // but for the first of each consumer

	sampleCalls, sampleOthers    int
	delays, restartDelays        []time.Duration
	handover                     handover
	kubeletStopped, kubeletReady time.Time
	refused                      int
}

func (m *measured) add(t totals.Totals) {
	m.Calls += t.Calls
	m.Dead += t.Dead
	m.Wrong += t.Wrong
	m.Failed += t.Failed
	if t.LastError != "" {
		m.LastError = t.LastError
	}
	m.seen = append(m.seen, t.Seen[1:]...)
}

// safeRefreshBefore is the longest delay, rounded up to 10 s. A token that is replaced that long before the end that
// Salesforce reports has reached every pod by then, and the two minutes that Salesforce adds remain for failures.
func (m *measured) safeRefreshBefore() time.Duration {
	const step = 10 * time.Second
	return (slices.Max(m.delays) + step - 1).Truncate(step)
}

func (m *measured) table(consumers int) string {
	slices.Sort(m.delays)
	rows := [][2]string{
		{"consumers, refreshes seen by each", fmt.Sprintf("%d, %d", consumers, len(m.seen)/consumers)},
		{"calls, of which by the sample's consumer", fmt.Sprintf("%d, %d", m.Calls+m.sampleCalls, m.sampleCalls)},
		{"calls with a dead token", fmt.Sprint(m.Dead)},
		{"calls with another business unit's token", fmt.Sprint(m.Wrong)},
		{"calls without an answer", fmt.Sprint(m.Failed)},
		{"Secret written → file changed, p50", seconds(m.delays[len(m.delays)/2])},
		{"Secret written → file changed, max", fmt.Sprintf("%s of %d", seconds(slices.Max(m.delays)), len(m.delays))},
		{"smallest safe refreshBefore", m.safeRefreshBefore().String()},
		{"the same over a kubelet restart, max", m.ofKubelet(slices.Max(append(m.restartDelays, 0)))},
		{"kubelet down until its node is ready", m.ofKubelet(m.kubeletReady.Sub(m.kubeletStopped))},
		{"leader killed → another leads", seconds(m.handover.took)},
		{"lease; with two tries to get it", seconds(m.handover.lease) + "; " + seconds(m.handover.longest())},
		{"endpoint failing; requests that it failed", fmt.Sprintf("%s; %d", reportedLife/2, m.refused)},
		{"life of tokens, reported and real", fmt.Sprintf("%s, %s", reportedLife, realLife)},
	}
	var text strings.Builder
	for _, row := range rows {
		fmt.Fprintf(&text, "| %-42s | %14s |\n", row[0], row[1])
	}
	return text.String()
}

// ofKubelet is a time that is known only if kubelet was restarted.
func (m *measured) ofKubelet(d time.Duration) string {
	if m.kubeletReady.IsZero() {
		return "not done"
	}
	return seconds(d)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
