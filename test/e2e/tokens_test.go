package e2e

import (
	"regexp"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// accounts are the business units that consumers call for.
var accounts = []string{"510004567", "510009999"}

// A token of 3 minutes is replaced after two thirds of its life, less up to a twentieth of it: at an age of 111 to 120 s.
const earliestRefresh = 111 * time.Second

func TestNoConsumerEverCallsWithADeadTokenOrAnotherUnits(t *testing.T) {
	w := newWorld(t)
	consumers := w.startConsumers()
	var m measured

	t.Log("refresh 1: undisturbed")
	w.awaitTokens(2)

	t.Log("refresh 2: the leader is killed just before it")
	w.awaitAge(earliestRefresh - 15*time.Second)
	m.handover = w.killLeader()
	w.awaitTokens(3)

	if node != nil {
		t.Log("refresh 3: kubelet is down while it happens")
		w.awaitAge(earliestRefresh - 5*time.Second)
		m.kubeletStopped = time.Now()
		node.StopKubelet()
		w.awaitTokens(4)
		w.Expect(node.StartKubelet(t.Context())).To(Succeed())
		m.kubeletReady = time.Now()
	} else {
		t.Log("refresh 3: undisturbed, since nobody but the cluster's own people can restart its kubelets")
		w.awaitTokens(4)
	}

	t.Log("refresh 4: the endpoint fails for half a life, across the moment when it is due")
	w.awaitAge(45 * time.Second)
	requests := w.standIn.requests()
	w.standIn.failAlways()
	w.awaitAge(45*time.Second + reportedLife/2)
	m.refused = w.standIn.requests() - requests
	w.standIn.succeedAgain()
	w.awaitTokens(5)

	t.Log("refresh 5: undisturbed; every consumer sees it")
	w.awaitTokens(6)
	for _, c := range consumers {
		w.Eventually(w.totals).WithArguments(c).WithTimeout(patience).WithPolling(time.Second).Should(HaveField("Seen", HaveLen(6)), "tokens in the file of %v", c)
	}

	for _, c := range consumers {
		got, err := w.totals(c)
		w.Expect(err).NotTo(HaveOccurred())
		m.add(got)
	}
	m.countSample(w.sampleLog(namespace))
	w.collectDelays(&m)
	t.Log("\n" + m.table(len(consumers)))

	w.Expect(m.sampleCalls).To(BeNumerically(">", 5), "calls of the sample's consumer")
	w.Expect(m.sampleOthers).To(BeZero(), "answers to the sample's consumer that name another unit, or none:\n%s", w.sampleLog(namespace))
	w.Expect(m.Dead).To(BeZero(), "calls with a dead token")
	w.Expect(m.Wrong).To(BeZero(), "calls with another business unit's token")
	w.Expect(m.Failed).To(BeZero(), "calls without an answer: %s", m.LastError)
	w.Expect(m.refused).To(BeNumerically(">", 2), "requests that the endpoint failed")
	w.Expect(m.handover.took).To(BeNumerically("<", m.handover.longest()+m.handover.blind), "time until another process leads")
}

// collectDelays compares when tokens were written with when consumers saw them. The first ones were there before the pods.
func (w *world) collectDelays(m *measured) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, seen := range m.seen {
		written, known := w.writes[seen.Token]
		w.Expect(known).To(BeTrue(), "a consumer saw a token that no Secret was seen to hold")
		switch delay := seen.At.Sub(written); {
		case node != nil && seen.At.After(m.kubeletStopped) && written.Before(m.kubeletReady):
			m.restartDelays = append(m.restartDelays, delay)
		default:
			m.delays = append(m.delays, delay)
		}
	}
}

var organization = regexp.MustCompile(`"organization":\{"id":510004567\}`)

// countSample counts what the consumer of config/samples printed: the body of each answer, in a line.
func (m *measured) countSample(log string) {
	for line := range strings.Lines(log) {
		switch {
		case strings.TrimSpace(line) == "":
		case organization.MatchString(line):
			m.sampleCalls++
		default:
			m.sampleOthers++
		}
	}
}
