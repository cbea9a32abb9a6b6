package comparison

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// world has all ways beside each other.
type world struct {
	*WithT
	t     *testing.T
	sfmc  *sfmctest.Server
	watch *watcher
	logs  []*harness.Log

	counted []int // requests at the end of what counts in a phase, if that isn't its end
}

func newWorld(t *testing.T) *world {
	w := &world{WithT: NewWithT(t), t: t}
	w.SetDefaultEventuallyTimeout(patience)
	w.SetDefaultEventuallyPollingInterval(200 * time.Millisecond)
	var packages []sfmctest.Package
	for _, way := range ways {
		way.pkg = harness.Package()
		way.pkg.ClientID = "client-of-" + way.short
		packages = append(packages, way.pkg)
	}
	w.sfmc = sfmctest.Start(t, sfmctest.Options{ExpiresIn: expiresIn, Life: life, Packages: packages})
	w.watch = watchTokens(w)
	startPodRunner(w)
	for _, way := range ways {
		if way.start != nil {
			running, err := way.start(w)
			w.Expect(err).NotTo(HaveOccurred())
			way.running = running
			t.Cleanup(func() { way.running.Kill() })
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, log := range w.logs {
				t.Log(log.String())
			}
		}
	})
	return w
}

func (w *world) create(objects ...client.Object) {
	w.t.Helper()
	for _, object := range objects {
		w.Expect(shared.Admin.Create(w.t.Context(), object)).To(Succeed())
	}
}

func (w *world) patchSecret(namespace, key, value string) {
	w.t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "sfmc-package"}}
	patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"stringData":{%q:%q}}`, key, value))
	w.Expect(shared.Admin.Patch(w.t.Context(), secret, patch)).To(Succeed())
}

// pass lets time go by: what is compared is what programs do as time passes.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	select {
	case <-time.After(d):
	case <-w.t.Context().Done():
		w.t.Fatal(w.t.Context().Err())
	}
}

// kinds are of the objects that say whether a token is ready.
var kinds = map[string]schema.GroupVersionKind{
	"externalsecret": {Group: "external-secrets.io", Version: "v1", Kind: "ExternalSecret"},
	"sfmctoken":      {Group: "sfmctoken.dev", Version: "v1alpha1", Kind: "SFMCToken"},
}

// says is the condition Ready of the object in the first namespace.
func (w *world) says(way *way) metav1.ConditionStatus {
	w.t.Helper()
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(kinds[way.short])
	w.Expect(shared.Admin.Get(w.t.Context(), client.ObjectKey{Namespace: way.namespace(0), Name: name}, object)).To(Succeed())
	conditions, _, err := unstructured.NestedSlice(object.Object, "status", "conditions")
	w.Expect(err).NotTo(HaveOccurred())
	for _, condition := range conditions {
		if c := condition.(map[string]any); c["type"] == "Ready" {
			return metav1.ConditionStatus(c["status"].(string))
		}
	}
	return metav1.ConditionUnknown
}

// requests are the token requests that each way sent so far.
func (w *world) requests() []int {
	var counts []int
	for _, way := range ways {
		counts = append(counts, w.sfmc.CountFor(way.pkg.ClientID, account))
	}
	return counts
}

// refused are those that weren't answered with a token.
func (w *world) refused() []int {
	counts := make([]int, len(ways))
	for _, request := range w.sfmc.Requests() {
		for i, way := range ways {
			if request.ClientID == way.pkg.ClientID && !request.Issued {
				counts[i]++
			}
		}
	}
	return counts
}

// phase is what was measured of each way in a part of the run.
type phase struct{ requests, refused, dead []string }

func (p phase) count(way int) int {
	n, err := strconv.Atoi(p.requests[way])
	if err != nil {
		return -1
	}
	return n
}

func (w *world) phase(what func()) phase {
	w.t.Helper()
	requests, refused := w.requests(), w.refused()
	w.counted = nil
	w.watch.forget()
	what()
	var p phase
	after, refusedAfter := w.requests(), w.refused()
	if w.counted != nil {
		after = w.counted
	}
	for i := range ways {
		p.requests = append(p.requests, strconv.Itoa(after[i]-requests[i]))
		p.refused = append(p.refused, strconv.Itoa(refusedAfter[i]-refused[i]))
		p.dead = append(p.dead, fmt.Sprintf("%.0f s", w.watch.longestDead(i).Seconds()))
	}
	w.t.Logf("%+v", p)
	return p
}

func (w *world) each(say func(*way) string) []string {
	var all []string
	for _, way := range ways {
		all = append(all, say(way))
	}
	return all
}

// rows are the table.
type rows [][]string

func (r *rows) add(what string, values []string) { *r = append(*r, append([]string{what}, values...)) }

func (r *rows) value(row, way int) string { return (*r)[row][way+1] }

func (r *rows) String() string {
	var out strings.Builder
	out.WriteString("| |")
	for _, way := range ways {
		fmt.Fprintf(&out, " %s |", way.title)
	}
	fmt.Fprintf(&out, "\n|%s\n", strings.Repeat(" --- |", len(ways)+1))
	for _, row := range *r {
		fmt.Fprintf(&out, "| %s |\n", strings.Join(row, " | "))
	}
	return out.String()
}

// watcher knows the token of each Secret, and since when it is dead.
type watcher struct {
	sfmc *sfmctest.Server
	mu   sync.Mutex
	held map[string]*holding // by namespace
}

type holding struct {
	token   string
	since   time.Time
	dead    time.Time // zero while it lives
	longest time.Duration
}

func watchTokens(w *world) *watcher {
	w.t.Helper()
	watching, err := shared.Admin.Watch(w.t.Context(), &corev1.SecretList{}, client.MatchingFields{"metadata.name": name})
	w.Expect(err).NotTo(HaveOccurred())
	w.t.Cleanup(watching.Stop)
	s := &watcher{sfmc: w.sfmc, held: map[string]*holding{}}
	go func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case event, open := <-watching.ResultChan():
				if !open {
					return
				}
				if secret, ok := event.Object.(*corev1.Secret); ok {
					s.take(secret.Namespace, string(secret.Data["access_token"]))
				}
			case now := <-tick.C:
				s.look(now)
			}
		}
	}()
	return s
}

func (s *watcher) take(namespace, token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.held[namespace]
	if h == nil {
		h = &holding{}
		s.held[namespace] = h
	}
	if h.token != token {
		h.token, h.since = token, time.Now()
	}
}

func (s *watcher) look(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.held {
		_, alive := s.sfmc.Check(h.token)
		switch {
		case alive:
			h.dead = time.Time{}
		case h.dead.IsZero():
			h.dead = now
		default:
			h.longest = max(h.longest, now.Sub(h.dead))
		}
	}
}

func (s *watcher) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.held {
		h.longest = 0
	}
}

// of is what a way holds, by namespace. The lock is held.
func (s *watcher) of(way, namespace int) holding {
	if h := s.held[ways[way].namespace(namespace)]; h != nil {
		return *h
	}
	return holding{}
}

func (s *watcher) longestDead(way int) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var longest time.Duration
	for i := range namespaces {
		longest = max(longest, s.of(way, i).longest)
	}
	return longest
}

// oldest is the age of the oldest token of a way.
func (s *watcher) oldest(way int) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var oldest time.Duration
	for i := range namespaces {
		oldest = max(oldest, time.Since(s.of(way, i).since))
	}
	return oldest
}

// withoutToken has the namespaces in which no living token is.
func (s *watcher) withoutToken() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var without []string
	for i, way := range ways {
		for j := range namespaces {
			if _, alive := s.sfmc.Check(s.of(i, j).token); !alive {
				without = append(without, way.namespace(j))
			}
		}
	}
	return without
}

func (s *watcher) isDead(way, namespace int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, alive := s.sfmc.Check(s.of(way, namespace).token)
	return !alive
}

// startPodRunner runs the commands of the pods that Jobs make, as the kubelet of a node does.
func startPodRunner(w *world) {
	w.t.Helper()
	ca := filepath.Join(w.t.TempDir(), "ca.pem")
	w.Expect(os.WriteFile(ca, w.sfmc.CACert(), 0o600)).To(Succeed())
	watching, err := shared.Admin.Watch(w.t.Context(), &corev1.PodList{})
	w.Expect(err).NotTo(HaveOccurred())
	var running sync.WaitGroup
	w.t.Cleanup(running.Wait)
	w.t.Cleanup(watching.Stop)
	ctx := w.t.Context()
	go func() {
		started := map[string]bool{}
		for event := range watching.ResultChan() {
			pod, ok := event.Object.(*corev1.Pod)
			if !ok || started[string(pod.UID)] || !slices.ContainsFunc(pod.OwnerReferences, func(r metav1.OwnerReference) bool { return r.Kind == "Job" }) {
				continue
			}
			started[string(pod.UID)] = true
			running.Go(func() { runPod(ctx, pod, ca) })
		}
	}()
}

func runPod(ctx context.Context, pod *corev1.Pod, ca string) {
	phase := corev1.PodSucceeded
	if out, err := runContainer(ctx, pod, ca); err != nil {
		phase = corev1.PodFailed
		pod.Status.Message = fmt.Sprintf("%v: %s", err, out)
	}
	patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"status":{"phase":%q}}`, phase))
	_ = shared.Admin.Status().Patch(ctx, pod, patch) // deleted meanwhile, or the test is over
}

// runContainer runs the command with the variables that envFrom gives, as the pod's ServiceAccount.
func runContainer(ctx context.Context, pod *corev1.Pod, ca string) ([]byte, error) {
	config, err := shared.Cluster.ServiceAccountConfig(ctx, pod.Namespace, pod.Spec.ServiceAccountName)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "pod-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := localcluster.WriteKubeconfig(config, kubeconfig); err != nil {
		return nil, err
	}
	// In a pod, kubectl takes the namespace from the files of the ServiceAccount.
	if _, err := shared.Cluster.Kubectl(ctx, "--kubeconfig", kubeconfig, "config", "set-context", "--current", "--namespace", pod.Namespace); err != nil {
		return nil, err
	}
	container := pod.Spec.Containers[0]
	command := slices.Concat(container.Command, container.Args)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...) //nolint:gosec // of testdata
	cmd.Dir = dir
	cmd.Env = []string{"HOME=" + dir, "PATH=" + shared.Cluster.AssetsDir() + ":" + os.Getenv("PATH"), "KUBECONFIG=" + kubeconfig,
		"NAMESPACE=" + pod.Namespace, "CURL_CA_BUNDLE=" + ca}
	for _, from := range container.EnvFrom {
		var secret corev1.Secret
		if err := shared.Admin.Get(ctx, client.ObjectKey{Namespace: pod.Namespace, Name: from.SecretRef.Name}, &secret); err != nil {
			return nil, err
		}
		for key, value := range secret.Data {
			cmd.Env = append(cmd.Env, key+"="+string(value))
		}
	}
	return cmd.CombinedOutput()
}
