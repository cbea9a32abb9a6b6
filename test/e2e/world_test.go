package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

const (
	namespace = "marketing"
	// reportedLife is short, so that a run sees several refreshes. As Salesforce does, the stand-in lets tokens live two
	// minutes longer than it reports.
	reportedLife = 3 * time.Minute
	realLife     = reportedLife + 2*time.Minute
)

// world is a cluster with the operator, the stand-in, and consumers.
type world struct {
	*clusterAccess
	standIn *standIn

	mu     sync.Mutex
	writes map[string]time.Time   // of each token into its Secret, by the token's hash
	held   map[string][]time.Time // when each Secret got its tokens, by its name
}

// newWorld installs config/default with two replicas, in a namespace that enforces the strictest Pod Security.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{clusterAccess: accessCluster(t, namespace, toolsNamespace), writes: map[string]time.Time{}, held: map[string][]time.Time{}}
	w.create(
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"}}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: toolsNamespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "privileged"}}},
	)
	w.startStandIn()
	w.kubectl("apply", "--server-side", "-k", harness.Path("test", "e2e", "operator"))
	w.create(w.standIn.configMap(harness.SystemNamespace))
	t.Cleanup(w.keepOperatorLogs)
	w.kubectl("-n", harness.SystemNamespace, "rollout", "status", "deployment/sfmctoken-operator", "--timeout="+patience.String())
	w.watchSecrets()
	return w
}

// startTool runs a pod of the test's own and waits until it is ready.
func (w *world) startTool(made *corev1.Pod) {
	w.t.Helper()
	w.create(made)
	w.kubectl("-n", made.Namespace, "wait", "--for=condition=Ready", "pod/"+made.Name, "--timeout="+patience.String())
}

func (w *world) keepOperatorLogs() {
	out, err := kubectl(context.Background(), "-n", harness.SystemNamespace, "logs", "-l", "app.kubernetes.io/name=sfmctoken-operator", "--tail=-1", "--prefix")
	if err := errors.Join(err, os.MkdirAll(cache("logs"), 0o750), os.WriteFile(cache("logs", "operator.log"), []byte(out), 0o600)); err != nil {
		w.t.Error(err)
	}
}

// watchSecrets notes when each token is written.
func (w *world) watchSecrets() {
	w.t.Helper()
	watch, err := w.api.Watch(w.t.Context(), &corev1.SecretList{}, client.InNamespace(namespace))
	w.Expect(err).NotTo(HaveOccurred())
	w.t.Cleanup(watch.Stop)
	go func() {
		for event := range watch.ResultChan() {
			secret, ok := event.Object.(*corev1.Secret)
			if !ok {
				continue
			}
			if token := secret.Data["access_token"]; len(token) > 0 {
				w.noteWrite(secret.Name, token)
			}
		}
	}()
}

func (w *world) noteWrite(secret string, token []byte) {
	sum := sha256.Sum256(token)
	hash := hex.EncodeToString(sum[:8]) // as the consumer names it
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.writes[hash]; !known {
		w.writes[hash] = time.Now()
		w.held[secret] = append(w.held[secret], w.writes[hash])
	}
}

// tokensOf are the times at which a business unit's Secret got its tokens.
func (w *world) tokensOf(account string) []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.held[tokenName(account)]
}

// awaitTokens waits until the Secret of every business unit got as many tokens.
func (w *world) awaitTokens(count int) {
	w.t.Helper()
	for _, account := range accounts {
		w.Eventually(w.tokensOf).WithArguments(account).WithTimeout(realLife).Should(HaveLen(count), "tokens of %s", account)
	}
}

// awaitAge waits until the first of the business units has a token of that age.
func (w *world) awaitAge(age time.Duration) {
	w.t.Helper()
	w.Eventually(func() time.Duration {
		tokens := w.tokensOf(accounts[0])
		return time.Since(tokens[len(tokens)-1])
	}).WithTimeout(reportedLife + patience).Should(BeNumerically(">=", age))
}

// lease is the Lease of the operator's replicas, and which process holds it: its pod's name, an underscore and a UUID.
func (w *world) lease() (lease *coordinationv1.Lease, holder string, err error) {
	lease, err = w.clients.CoordinationV1().Leases(harness.SystemNamespace).Get(w.t.Context(), "sfmctoken-operator", metav1.GetOptions{})
	if err != nil {
		return nil, "", err
	}
	return lease, ptr.Deref(lease.Spec.HolderIdentity, ""), nil
}

// killLeader ends the leading operator as a crash would, and measures how long it takes until another one leads, which
// may be the next that is started in the same pod.
func (w *world) killLeader() handover {
	w.t.Helper()
	lease, leader, err := w.lease()
	w.Expect(err).NotTo(HaveOccurred())
	leadingPod, _, _ := strings.Cut(leader, "_")
	running, err := w.clients.CoreV1().Pods(harness.SystemNamespace).Get(w.t.Context(), leadingPod, metav1.GetOptions{})
	w.Expect(err).NotTo(HaveOccurred())
	killer := pod(toolsNamespace, "killer")
	killer.Spec.NodeName, killer.Spec.HostPID = running.Spec.NodeName, true
	killer.Spec.Containers = []corev1.Container{container("killer", "/killer")}
	w.startTool(killer)

	var killed time.Time
	w.Eventually(func() error { // it may not listen yet
		killed = time.Now()
		return w.proxy("POST", toolsNamespace, "killer:8080").Param("program", "/sfmctoken-operator").Param("pod", leadingPod).Do(w.t.Context()).Error()
	}).WithTimeout(patience).Should(Succeed())
	h := handover{lease: time.Duration(*lease.Spec.LeaseDurationSeconds) * time.Second}
	looked := killed
	w.Eventually(func() (string, error) {
		_, holder, err := w.lease()
		h.blind, looked = max(h.blind, time.Since(looked)), time.Now()
		return holder, err
	}).WithTimeout(patience).WithPolling(50 * time.Millisecond).ShouldNot(Or(Equal(leader), BeEmpty()))
	h.took = looked.Sub(killed)
	return h
}

// handover is how another operator came to lead.
type handover struct {
	took time.Duration
	// lease is for how long a Lease counts that nobody renews.
	lease time.Duration
	// blind is the longest time between two looks at the Lease. A machine that stops for a moment stops everybody.
	blind time.Duration
}

// A process that wants the Lease tries to get it every 2 to 4.4 s: controller-runtime's default, and client-go's jitter.
const slowestTry = 4400 * time.Millisecond

// longest is how long it may take: who comes next notices the last renewal with one of its tries, and the end of the
// Lease with another.
func (h handover) longest() time.Duration { return h.lease + 2*slowestTry }
