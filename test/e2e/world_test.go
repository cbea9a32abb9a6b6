package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/e2e/totals"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

const (
	namespace = "marketing"
	// standInAddress is what operator/kustomization.yaml allows.
	standInAddress = localcluster.NodeAddress + ":8443"
	// reportedLife is short, so that a run sees several refreshes. As Salesforce does, the stand-in lets tokens live two
	// minutes longer than it reports.
	reportedLife = 3 * time.Minute
	realLife     = reportedLife + 2*time.Minute
	// patience is for what takes seconds on a machine that has nothing else to do.
	patience = 2 * time.Minute
)

// world is a cluster with a node, the operator on it, and the stand-in beside it.
type world struct {
	*WithT
	t       *testing.T
	cluster *localcluster.Cluster
	api     client.WithWatch
	clients *kubernetes.Clientset
	standIn *sfmctest.Server

	mu     sync.Mutex
	writes map[string]time.Time // of each token into its Secret, by the token's hash
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{WithT: NewWithT(t), t: t, writes: map[string]time.Time{}}
	logs := cache("logs")
	w.Expect(os.RemoveAll(logs)).To(Succeed())
	var err error
	w.cluster, err = localcluster.Start(context.Background(), localcluster.Options{
		Node: true, Out: t.Output(), LogDir: logs, CRDs: []string{harness.Path("config", "crd", "bases")},
	})
	w.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { w.NoError(w.cluster.Stop()) })
	w.api, err = client.NewWithWatch(w.cluster.Config(), client.Options{Scheme: harness.Scheme})
	w.Expect(err).NotTo(HaveOccurred())
	w.clients, err = kubernetes.NewForConfig(w.cluster.Config())
	w.Expect(err).NotTo(HaveOccurred())
	w.standIn = sfmctest.Start(t, sfmctest.Options{
		Listen: standInAddress, ExpiresIn: reportedLife, Life: realLife, Packages: []sfmctest.Package{harness.Package()},
	})
	w.importImages()
	return w
}

// NoError fails the test, but lets it go on: for what is done at its end.
func (w *world) NoError(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Error(err)
	}
}

func (w *world) kubectl(args ...string) string {
	w.t.Helper()
	out, err := w.cluster.Kubectl(w.t.Context(), args...)
	w.Expect(err).NotTo(HaveOccurred())
	return out
}

func (w *world) create(objects ...client.Object) {
	w.t.Helper()
	for _, object := range objects {
		w.Expect(w.api.Create(w.t.Context(), object)).To(Succeed())
	}
}

// installOperator applies config/default with two replicas, in a namespace that enforces the strictest Pod Security.
func (w *world) installOperator() {
	w.t.Helper()
	w.kubectl("apply", "--server-side", "-k", harness.Path("test", "e2e", "operator"))
	w.create(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: harness.SystemNamespace, Name: "stand-in"},
		Data:       map[string]string{"ca.crt": string(w.standIn.CACert())},
	})
	w.t.Cleanup(w.keepOperatorLogs)
	w.kubectl("-n", harness.SystemNamespace, "rollout", "status", "deployment/sfmctoken-operator", "--timeout="+patience.String())
}

func (w *world) keepOperatorLogs() {
	out, err := w.cluster.Kubectl(context.Background(), "-n", harness.SystemNamespace, "logs", "-l", "app.kubernetes.io/name=sfmctoken-operator", "--tail=-1", "--prefix")
	w.NoError(errors.Join(err, os.WriteFile(cache("logs", "operator.log"), []byte(out), 0o600)))
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
				w.noteWrite(token)
			}
		}
	}()
}

func (w *world) noteWrite(token []byte) {
	sum := sha256.Sum256(token)
	hash := hex.EncodeToString(sum[:8]) // as the consumer names it
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.writes[hash]; !known {
		w.writes[hash] = time.Now()
	}
}

// issued is how many tokens a business unit was given, without scopes, and when it got the last one.
func (w *world) issued(accountID string) (count int, last time.Time) {
	for _, request := range w.standIn.Requests() {
		if request.Issued && request.AccountID == accountID && request.Scope == "" {
			count, last = count+1, request.Time
		}
	}
	return count, last
}

// awaitAge waits until the last token of a business unit is that old.
func (w *world) awaitAge(accountID string, age time.Duration) {
	w.t.Helper()
	w.Eventually(func() time.Duration {
		_, last := w.issued(accountID)
		return time.Since(last)
	}).WithTimeout(reportedLife + patience).WithPolling(100 * time.Millisecond).Should(BeNumerically(">=", age))
}

// awaitIssued waits until every business unit was given as many tokens.
func (w *world) awaitIssued(count int) {
	w.t.Helper()
	for _, accountID := range accounts {
		w.Eventually(func() int {
			got, _ := w.issued(accountID)
			return got
		}).WithTimeout(realLife).WithPolling(100*time.Millisecond).Should(BeNumerically(">=", count), "tokens issued for %s", accountID)
	}
}

// leader is the replica that holds the Lease.
func (w *world) leader() (string, error) {
	lease, err := w.clients.CoordinationV1().Leases(harness.SystemNamespace).Get(w.t.Context(), "sfmctoken-operator", metav1.GetOptions{})
	if err != nil {
		return "", err
	}
	if lease.Spec.HolderIdentity == nil {
		return "", nil
	}
	pod, _, _ := strings.Cut(*lease.Spec.HolderIdentity, "_")
	return pod, nil
}

func (w *world) leaseDuration() time.Duration {
	w.t.Helper()
	lease, err := w.clients.CoordinationV1().Leases(harness.SystemNamespace).Get(w.t.Context(), "sfmctoken-operator", metav1.GetOptions{})
	w.Expect(err).NotTo(HaveOccurred())
	return time.Duration(*lease.Spec.LeaseDurationSeconds) * time.Second
}

// killLeader ends the leading operator as a crash would, and returns how long it took until the other one leads.
func (w *world) killLeader() time.Duration {
	w.t.Helper()
	before, err := w.leader()
	w.Expect(err).NotTo(HaveOccurred())
	pod, err := w.clients.CoreV1().Pods(harness.SystemNamespace).Get(w.t.Context(), before, metav1.GetOptions{})
	w.Expect(err).NotTo(HaveOccurred())
	killed := time.Now()
	w.Expect(w.cluster.KillContainer(w.t.Context(), pod.Status.ContainerStatuses[0].ContainerID)).To(Succeed())
	w.Eventually(w.leader).WithTimeout(patience).WithPolling(50 * time.Millisecond).ShouldNot(Or(Equal(before), BeEmpty()))
	return time.Since(killed)
}

// totals asks a consumer what it counted, by way of the API server, as that works in every cluster.
func (w *world) totals(c consumer) (totals.Totals, error) {
	raw, err := w.clients.CoreV1().RESTClient().Get().Namespace(namespace).Resource("pods").SubResource("proxy").
		Name(fmt.Sprintf("%s:%d", c.pod, c.port)).DoRaw(w.t.Context())
	if err != nil {
		return totals.Totals{}, err
	}
	var got totals.Totals
	return got, json.Unmarshal(raw, &got)
}

// sampleLog is what the consumer of config/samples printed.
func (w *world) sampleLog() string {
	w.t.Helper()
	pods, err := w.clients.CoreV1().Pods(namespace).List(w.t.Context(), metav1.ListOptions{LabelSelector: "app=journeys-emea-consumer"})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(pods.Items).To(HaveLen(1))
	log, err := w.clients.CoreV1().Pods(namespace).GetLogs(pods.Items[0].Name, &corev1.PodLogOptions{}).Stream(w.t.Context())
	w.Expect(err).NotTo(HaveOccurred())
	defer log.Close()
	text, err := io.ReadAll(log)
	w.Expect(err).NotTo(HaveOccurred())
	return string(text)
}
