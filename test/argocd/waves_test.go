package argocd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/argoproj/gitops-engine/pkg/sync"
	"github.com/argoproj/gitops-engine/pkg/sync/common"
	"github.com/argoproj/gitops-engine/pkg/utils/kube"
	"github.com/argoproj/gitops-engine/pkg/utils/tracing"
	"github.com/go-logr/logr"
	. "github.com/onsi/gomega"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

const (
	samples = "../../config/samples"
	// patience bounds every wait; it decides nothing, since what is waited for has to come.
	patience = 3 * time.Minute
)

// surroundings are a control plane with the operator, and the stand-in for Marketing Cloud.
type surroundings struct {
	*WithT
	ctx    context.Context
	config *rest.Config
	url    string
	client *http.Client
}

// start runs test/flux/cluster, which is built with the Kubernetes libraries of the operator, not of Argo CD.
func start(t *testing.T) *surroundings {
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(patience)
	program := filepath.Join(t.TempDir(), "cluster")
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../flux", "-o", program, "./cluster") //nolint:gosec // made here
	out, err := build.CombinedOutput()
	g.Expect(err).NotTo(HaveOccurred(), "%s", out)
	cmd := exec.Command(program) //nolint:gosec // it ends with its standard input
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	g.Expect(err).NotTo(HaveOccurred())
	stdout, err := cmd.StdoutPipe()
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(cmd.Start()).To(Succeed())
	t.Cleanup(func() {
		g.Expect(stdin.Close()).To(Succeed())
		g.Expect(cmd.Wait()).To(Succeed())
	})
	var where struct{ Kubeconfig, URL, CA string }
	g.Expect(json.NewDecoder(stdout).Decode(&where)).To(Succeed())
	config, err := clientcmd.BuildConfigFromFlags("", where.Kubeconfig)
	g.Expect(err).NotTo(HaveOccurred())
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(where.CA))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}}
	return &surroundings{g, t.Context(), config, where.URL, client}
}

// control asks the stand-in for something.
func (s *surroundings) control(method, path, body string) string {
	request, err := http.NewRequestWithContext(s.ctx, method, s.url+"_control/"+path, strings.NewReader(body))
	s.Expect(err).NotTo(HaveOccurred())
	response, err := s.client.Do(request)
	s.Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	s.Expect(err).NotTo(HaveOccurred())
	s.Expect(response.StatusCode).To(BeNumerically("<", 300), "%s", text)
	return string(text)
}

// scopes tells the engine which kinds of the application are namespaced.
type scopes struct{}

func (scopes) IsNamespaced(kind schema.GroupKind) (bool, error) { return kind.Kind != "Namespace", nil }

// application is synchronized as Argo CD's controller does: each step looks at the live objects and goes on from the
// state that the step before left.
type application struct {
	*surroundings
	kubectl *kube.KubectlCmd
	health  lua.ResourceHealthOverrides
	targets []*unstructured.Unstructured
	phase   common.OperationPhase
	message string
	results []common.ResourceSyncResult
	started metav1.Time
}

func (s *surroundings) newApplication(t *testing.T, targets []*unstructured.Unstructured) *application {
	return &application{
		surroundings: s, targets: targets, health: engine(t).ResourceOverrides, started: metav1.Now(),
		kubectl: &kube.KubectlCmd{Log: logr.Discard(), Tracer: tracing.NopTracer{}},
	}
}

// live is an object as the cluster has it, nil if it hasn't.
func (a *application) live(target *unstructured.Unstructured) *unstructured.Unstructured {
	found, err := a.kubectl.GetResource(a.ctx, a.config, target.GroupVersionKind(), target.GetName(), target.GetNamespace())
	if apierrors.IsNotFound(err) {
		return nil
	}
	a.Expect(err).NotTo(HaveOccurred())
	return found
}

// step is one look of the controller, and returns the phase of the synchronization.
func (a *application) step() common.OperationPhase {
	liveByKey := map[kube.ResourceKey]*unstructured.Unstructured{}
	var targets []*unstructured.Unstructured
	for _, target := range a.targets {
		targets = append(targets, target.DeepCopy())
		if found := a.live(target); found != nil {
			liveByKey[kube.GetResourceKey(found)] = found
		}
	}
	schemas, _, err := a.kubectl.LoadOpenAPISchema(a.config)
	a.Expect(err).NotTo(HaveOccurred())
	synchronization, cleanup, err := sync.NewSyncContext("revision", sync.Reconcile(targets, liveByKey, "", scopes{}),
		a.config, a.config, a.kubectl, "", schemas, sync.WithHealthOverride(a.health), sync.WithLogr(logr.Discard()),
		sync.WithInitialState(a.phase, a.message, a.results, a.started))
	a.Expect(err).NotTo(HaveOccurred())
	defer cleanup()
	synchronization.Sync()
	a.phase, a.message, a.results = synchronization.GetState()
	return a.phase
}

// layout are the objects of config/samples/gitops, with this stand-in's address, and the consumer in the next wave.
func (s *surroundings) layout() (all []*unstructured.Unstructured, token, consumer *unstructured.Unstructured) {
	for _, folder := range []string{"gitops/platform", "gitops/team-emea"} {
		var list struct {
			Resources []string `json:"resources"`
		}
		s.Expect(yaml.Unmarshal(s.sample(folder, "kustomization.yaml"), &list)).To(Succeed())
		for _, file := range list.Resources {
			for _, text := range bytes.Split(s.sample(folder, file), []byte("\n---\n")) {
				all = append(all, s.parse(text))
			}
		}
	}
	for _, object := range all {
		switch object.GetKind() {
		case "Secret":
			s.Expect(unstructured.SetNestedField(object.Object, s.url, "stringData", "auth_base_uri")).To(Succeed())
		case "SFMCToken":
			token = object
		}
	}
	consumer = s.parse(s.sample("consumer.yaml"))
	consumer.SetNamespace(token.GetNamespace())
	consumer.SetAnnotations(map[string]string{common.AnnotationSyncWave: "1"})
	return append(all, consumer), token, consumer
}

func (s *surroundings) sample(elements ...string) []byte {
	raw, err := os.ReadFile(filepath.Join(append([]string{samples}, elements...)...))
	s.Expect(err).NotTo(HaveOccurred())
	return raw
}

func (s *surroundings) parse(text []byte) *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	s.Expect(yaml.Unmarshal(text, &object.Object)).To(Succeed())
	return object
}

func TestSyncWavesWaitForTheToken(t *testing.T) {
	s := start(t)
	s.control(http.MethodPost, "faults", `{"status": 503, "times": -1}`)
	all, token, consumer := s.layout()
	a := s.newApplication(t, all)
	failures := func() int64 {
		a.Expect(a.step()).To(Equal(common.OperationRunning), a.message)
		found := a.live(token)
		if found == nil {
			return 0
		}
		count, _, err := unstructured.NestedInt64(found.Object, "status", "consecutiveFailures")
		a.Expect(err).NotTo(HaveOccurred())
		return count
	}
	a.Eventually(failures).Should(BeNumerically(">=", 3))
	a.Expect(a.live(consumer)).To(BeNil(), "the next wave waits")
	s.control(http.MethodDelete, "faults", "")
	a.Eventually(a.step).Should(Equal(common.OperationSucceeded))
	a.Expect(a.live(consumer)).NotTo(BeNil())
	a.Expect(a.held(token)).To(ContainSubstring(`"alive":true`))
}

// held is what the stand-in says of the token in the target Secret.
func (a *application) held(token *unstructured.Unstructured) string {
	secret := a.live(a.parse([]byte("{apiVersion: v1, kind: Secret, metadata: {name: " + token.GetName() + ", namespace: " + token.GetNamespace() + "}}")))
	encoded, _, err := unstructured.NestedString(secret.Object, "data", "access_token")
	a.Expect(err).NotTo(HaveOccurred())
	var decoded []byte
	a.Expect(json.Unmarshal([]byte(`"`+encoded+`"`), &decoded)).To(Succeed())
	body, err := json.Marshal(map[string]string{"token": string(decoded)})
	a.Expect(err).NotTo(HaveOccurred())
	return a.control(http.MethodPost, "check", string(body))
}

func TestAStalledTokenFailsTheSynchronization(t *testing.T) {
	s := start(t)
	all, token, consumer := s.layout()
	s.Expect(unstructured.SetNestedField(token.Object, "510004567", "spec", "accountID")).To(Succeed())
	a := s.newApplication(t, all)
	a.Eventually(a.step).Should(Equal(common.OperationFailed), "no grant is for this business unit")
	a.Expect(a.live(consumer)).To(BeNil())
	a.Expect(a.results).To(ContainElement(HaveField("Message", ContainSubstring("AccessDenied"))))
}

func TestASuspendedTokenHoldsTheNextWaveUp(t *testing.T) {
	s := start(t)
	all, token, consumer := s.layout()
	s.Expect(unstructured.SetNestedField(token.Object, true, "spec", "suspend")).To(Succeed())
	a := s.newApplication(t, all)
	health := func() (string, error) {
		a.Expect(a.step()).To(Equal(common.OperationRunning), a.message)
		found := a.live(token)
		if found == nil {
			return "", nil
		}
		status, err := a.health.GetResourceHealth(found)
		return string(status.Status), err
	}
	a.Eventually(health).Should(Equal("Suspended"))
	for range 3 {
		a.Expect(a.step()).To(Equal(common.OperationRunning), a.message)
	}
	a.Expect(a.live(consumer)).To(BeNil())
}
