package e2e

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// accounts are the business units that consumers call for.
var accounts = []string{"510004567", "510009999"}

// A token of 3 minutes is replaced after two thirds of its life, less up to a twentieth of it: at an age of 111 to 120 s.
const earliestRefresh = 111 * time.Second

func TestNoConsumerEverCallsWithADeadTokenOrAnotherUnits(t *testing.T) {
	w := newWorld(t)
	w.installOperator()
	w.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: namespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}})
	w.watchSecrets()
	consumers := w.startConsumers()
	var m measured

	t.Log("refresh 1: undisturbed")
	w.awaitIssued(2)

	t.Log("refresh 2: the leader is killed just before it")
	w.awaitAge(accounts[0], earliestRefresh-10*time.Second)
	m.lease = w.leaseDuration()
	m.handover = w.killLeader()
	w.awaitIssued(3)

	t.Log("refresh 3: kubelet is down while it happens")
	w.awaitAge(accounts[0], earliestRefresh-5*time.Second)
	m.kubeletStopped = time.Now()
	w.cluster.StopKubelet()
	w.awaitIssued(4)
	w.Expect(w.cluster.StartKubelet(t.Context())).To(Succeed())
	m.kubeletReady = time.Now()

	t.Log("refresh 4: the endpoint fails for half a life, across the moment when it is due")
	w.awaitAge(accounts[0], 45*time.Second)
	requests := w.standIn.Count()
	w.standIn.AddFaults(sfmctest.Fault{Refusal: sfmctest.InternalError, Times: sfmctest.Forever})
	w.awaitAge(accounts[0], 45*time.Second+reportedLife/2)
	m.refused = w.standIn.Count() - requests
	w.standIn.ClearFaults()
	w.awaitIssued(5)

	t.Log("refresh 5: undisturbed; every consumer sees it")
	w.awaitIssued(6)
	for _, c := range consumers {
		w.Eventually(w.totals).WithArguments(c).WithTimeout(patience).WithPolling(time.Second).Should(HaveField("Seen", HaveLen(6)), "tokens in the file of %v", c)
	}

	for _, c := range consumers {
		got, err := w.totals(c)
		w.Expect(err).NotTo(HaveOccurred())
		m.add(got)
	}
	m.countSample(w.sampleLog())
	w.collectDelays(&m)
	t.Log("\n" + m.table(len(consumers)))

	w.Expect(m.sampleCalls).To(BeNumerically(">", 5), "calls of the sample's consumer")
	w.Expect(m.sampleOthers).To(BeZero(), "answers to the sample's consumer that name another unit, or none:\n%s", w.sampleLog())
	w.Expect(m.Dead).To(BeZero(), "calls with a dead token")
	w.Expect(m.Wrong).To(BeZero(), "calls with another business unit's token")
	w.Expect(m.Failed).To(BeZero(), "calls without an answer: %s", m.LastError)
	w.Expect(m.refused).To(BeNumerically(">", 2), "requests that the endpoint failed")
	w.Expect(m.handover).To(BeNumerically("<", m.lease+10*time.Second))
}

// startConsumers makes the objects that a person writes, and pods for each business unit alone and for both together.
func (w *world) startConsumers() []consumer {
	w.t.Helper()
	w.create(
		&corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "stand-in"},
			Data:       map[string]string{"ca.crt": string(w.standIn.CACert())},
		},
		harness.CredentialsSecret(namespace, "sfmc-package", w.standIn, harness.Package()),
	)
	for _, file := range []string{"sfmctoken_full.yaml", "consumer.yaml"} {
		w.kubectl("-n", namespace, "apply", "-f", harness.Path("config", "samples", file))
	}
	for _, account := range accounts {
		w.create(harness.Token(namespace, tokenName(account), "sfmc-package", account))
	}
	made, consumers := pod("both-units", accounts...)
	w.create(made)
	for _, account := range accounts {
		for i := range 3 {
			made, one := pod(fmt.Sprintf("%s-%d", tokenName(account), i), account)
			w.create(made)
			consumers = append(consumers, one...)
		}
	}
	w.kubectl("-n", namespace, "wait", "--for=condition=Ready", "pods", "--all", "--timeout="+patience.String())
	return consumers
}

// collectDelays compares when tokens were written with when consumers saw them. The first ones were there before the pods.
func (w *world) collectDelays(m *measured) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, seen := range m.seen {
		written, known := w.writes[seen.Token]
		w.Expect(known).To(BeTrue(), "a consumer saw a token that no Secret was seen to hold")
		switch delay := seen.At.Sub(written); {
		case seen.At.After(m.kubeletStopped) && written.Before(m.kubeletReady):
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
