package flux

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/flux/layout"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// patience bounds every wait; it decides nothing, since what is waited for has to come.
const patience = 3 * time.Minute

const (
	system = "flux-system"
	// The Kustomizations of the layout.
	operator, platform, team = "sfmctoken-operator", "sfmc-platform", "team-emea"
)

// world is a cluster with Flux's source-controller and kustomize-controller, a Git server with the layout, and a tenant.
// The control plane has nothing of the operator but what Flux applies.
type world struct {
	*WithT
	t       *testing.T
	ctx     context.Context
	cluster *localcluster.Cluster
	admin   client.WithWatch
	sfmc    *sfmctest.Server
	account string // that the SFMCToken names
	secret  string // the client secret
	fleet   *repository
	applied *harness.Log // what kustomize-controller logged
}

// newWorld has Flux and the layout, which isn't pushed yet.
func newWorld(t *testing.T) *world {
	w := &world{WithT: NewWithT(t), t: t, ctx: t.Context(), account: "510009999"}
	w.SetDefaultEventuallyTimeout(patience)
	w.SetDefaultEventuallyPollingInterval(100 * time.Millisecond)
	cluster, err := localcluster.Start(w.ctx, localcluster.Options{CRDs: fluxCRDs(w.WithT, "kustomize-controller", "source-controller")})
	w.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { w.Expect(cluster.Stop()).To(Succeed()) })
	w.cluster = cluster
	w.admin, err = client.NewWithWatch(cluster.Config(), client.Options{Scheme: harness.Scheme})
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(w.admin.Create(w.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: system}})).To(Succeed())
	w.makeRepositories()
	w.startFlux()
	return w
}

// fluxCRDs are the folders of CRDs in the modules that the programs are built of.
func fluxCRDs(g *WithT, programs ...string) (folders []string) {
	for _, program := range programs {
		list := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/fluxcd/"+program) //nolint:gosec // of this test
		list.Dir = harness.Path("hack", "tools", program)
		out, err := list.Output()
		g.Expect(err).NotTo(HaveOccurred())
		folders = append(folders, filepath.Join(strings.TrimSpace(string(out)), "config", "crd", "bases"))
	}
	return folders
}

// tool is a program that make gitops builds.
func tool(name string) string { return harness.Path(".cache", "bin", name) }

// makeRepositories does what docs/gitops.md asks the reader for: an age key, one's own values, and encryption.
func (w *world) makeRepositories() {
	git := startGitServer(w.t)
	source := git.newRepository("sfmctoken-operator", w.t.TempDir())
	w.Expect(os.CopyFS(filepath.Join(source.dir, "config"), os.DirFS(harness.Path("config")))).To(Succeed())
	source.push("The operator")
	source.run("git", "push", "--quiet", "origin", "HEAD:refs/tags/v0.1.0")

	w.fleet = git.newRepository("fleet", layout.Dir())
	key := filepath.Join(w.t.TempDir(), "age.agekey")
	w.fleet.run(tool("age-keygen"), "-o", key)
	private, err := os.ReadFile(key) //nolint:gosec // of this test
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(w.admin.Create(w.ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "sops-age"}, Data: map[string][]byte{"age.agekey": private},
	})).To(Succeed())
	w.fleet.replace(".sops.yaml", sampleRecipient(w.WithT), w.fleet.run(tool("age-keygen"), "-y", key))

	pkg, address, err := layout.Package()
	w.Expect(err).NotTo(HaveOccurred())
	w.secret = pkg.ClientSecret
	w.sfmc = sfmctest.Start(w.t, sfmctest.Options{Packages: []sfmctest.Package{pkg}})
	w.fleet.replace("platform/credentials.yaml", address, w.sfmc.URL())
	w.fleet.run(tool("sops"), "encrypt", "--in-place", "platform/credentials.yaml")
	w.fleet.replace("clusters/production/operator.yaml", "https://github.com/sfmctoken/sfmctoken-operator", source.url)
}

// sampleRecipient is the age key that the layout has in place of one's own.
func sampleRecipient(g *WithT) string {
	var config struct {
		CreationRules []struct {
			Age string `json:"age"`
		} `json:"creation_rules"`
	}
	g.Expect(layout.Read(".sops.yaml", &config)).To(Succeed())
	return config.CreationRules[0].Age
}

// startFlux starts the two controllers, as an administrator.
func (w *world) startFlux() {
	address, err := harness.FreeAddress()
	w.Expect(err).NotTo(HaveOccurred())
	w.startController("source-controller", "--storage-path", w.t.TempDir(), "--storage-addr", address, "--storage-adv-addr", address)
	w.applied = w.startController("kustomize-controller", "--requeue-dependency", "1s")
}

func (w *world) startController(name string, flags ...string) *harness.Log {
	log := &harness.Log{}
	cmd := exec.Command(tool(name), append([]string{"--metrics-addr", "0", "--health-addr", "0"}, flags...)...) //nolint:gosec // Kill ends it
	cmd.Env = append(os.Environ(), "KUBECONFIG="+w.cluster.Kubeconfig(), "RUNTIME_NAMESPACE="+system, "TMPDIR="+w.t.TempDir())
	cmd.Stdout, cmd.Stderr = log, log
	running, err := harness.StartCommand(cmd)
	w.Expect(err).NotTo(HaveOccurred(), "make gitops builds it")
	w.t.Cleanup(func() {
		running.Kill()
		if w.t.Failed() {
			w.t.Logf("the log of %s:\n%s", name, log)
		}
	})
	return log
}

// bootstrap pushes the layout and tells Flux of it, as flux bootstrap does.
func (w *world) bootstrap() {
	w.fleet.push("The layout")
	_, err := w.cluster.KubectlInput(w.ctx, strings.NewReader(fmt.Sprintf(`
apiVersion: source.toolkit.fluxcd.io/v1
kind: GitRepository
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 10m, url: %s, ref: {branch: main}}
---
apiVersion: kustomize.toolkit.fluxcd.io/v1
kind: Kustomization
metadata: {name: flux-system, namespace: flux-system}
spec: {interval: 10m, path: ./clusters/production, prune: true, sourceRef: {kind: GitRepository, name: flux-system}}
`, w.fleet.url)), "apply", "--server-side", "-f", "-")
	w.Expect(err).NotTo(HaveOccurred())
}

// startOperator waits until Flux has applied what the operator needs, and starts it: there is no node for its pods.
func (w *world) startOperator() {
	w.Eventually(w.ready(operator)).Should(BeTrue())
	identity, err := w.cluster.ServiceAccountConfig(w.ctx, harness.SystemNamespace, harness.ServiceAccount)
	w.Expect(err).NotTo(HaveOccurred())
	log := &harness.Log{}
	running, err := harness.StartProcess(harness.ProcessOptions{
		Config: identity, Dir: w.t.TempDir(), AuthHosts: []string{w.sfmc.Host()}, CA: w.sfmc.CACert(), Log: log,
	})
	w.Expect(err).NotTo(HaveOccurred())
	w.t.Cleanup(func() {
		running.Kill()
		if w.t.Failed() {
			w.t.Logf("the operator's log:\n%s", log)
		}
	})
}

// newFleet is a world in which everything is applied and well.
func newFleet(t *testing.T) *world {
	w := newWorld(t)
	w.bootstrap()
	w.startOperator()
	w.Eventually(w.ready(team)).Should(BeTrue())
	w.Expect(w.alive()).To(BeTrue(), "Ready means that the token is valid")
	return w
}

// commit pushes a change, and returns when Flux has fetched it.
func (w *world) commit(message string) string {
	revision := w.fleet.push(message)
	w.annotate("source.toolkit.fluxcd.io", "GitRepository", system)
	w.Eventually(func() string {
		return w.field("source.toolkit.fluxcd.io", "GitRepository", system, "status", "artifact", "revision")
	}).Should(Equal(revision))
	return revision
}

// again has a Kustomization applied once more, as flux reconcile does, and returns when that has ended.
func (w *world) again(name string) {
	request := w.annotate("kustomize.toolkit.fluxcd.io", "Kustomization", name)
	w.Eventually(func() string {
		return w.field("kustomize.toolkit.fluxcd.io", "Kustomization", name, "status", "lastHandledReconcileAt")
	}).Should(Equal(request))
	w.Eventually(w.condition(name, "Ready")).ShouldNot(HavePrefix("Ready=Unknown"))
}

func (w *world) annotate(group, kind, name string) string {
	now := time.Now().Format(time.RFC3339Nano)
	patch := client.RawPatch("application/merge-patch+json",
		fmt.Appendf(nil, `{"metadata":{"annotations":{"reconcile.fluxcd.io/requestedAt":%q}}}`, now))
	w.Expect(w.admin.Patch(w.ctx, w.object(group, kind, name), patch)).To(Succeed())
	return now
}

func (w *world) object(group, kind, name string) *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(schema.GroupVersionKind{Group: group, Version: "v1", Kind: kind})
	object.SetNamespace(system)
	object.SetName(name)
	return object
}

// field is a text in an object of Flux's, empty if there is none.
func (w *world) field(group, kind, name string, path ...string) string {
	object := w.object(group, kind, name)
	if err := w.admin.Get(w.ctx, client.ObjectKeyFromObject(object), object); err != nil {
		return ""
	}
	text, _, _ := unstructured.NestedString(object.Object, path...)
	return text
}

// condition reads a condition of a Kustomization, as "Ready=False HealthCheckFailed: what went wrong".
func (w *world) condition(name, kind string) func() string {
	return func() string {
		object := w.object("kustomize.toolkit.fluxcd.io", "Kustomization", name)
		if err := w.admin.Get(w.ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return err.Error()
		}
		var status struct {
			Status struct {
				Conditions []metav1.Condition `json:"conditions"`
			} `json:"status"`
		}
		raw, err := json.Marshal(object.Object)
		w.Expect(err).NotTo(HaveOccurred())
		w.Expect(json.Unmarshal(raw, &status)).To(Succeed())
		for _, c := range status.Status.Conditions {
			if c.Type == kind {
				return fmt.Sprintf("%s=%s %s: %s", kind, c.Status, c.Reason, c.Message)
			}
		}
		return kind + " absent"
	}
}

func (w *world) ready(name string) func() bool {
	return func() bool {
		return strings.HasPrefix(w.condition(name, "Ready")(), "Ready=True ReconciliationSucceeded")
	}
}

// appliedRevision is the last revision with which a Kustomization was Ready.
func (w *world) appliedRevision(name string) func() string {
	return func() string {
		return w.field("kustomize.toolkit.fluxcd.io", "Kustomization", name, "status", "lastAppliedRevision")
	}
}

// journeys is the layout's SFMCToken, empty if there is none yet.
func (w *world) journeys() *v1alpha1.SFMCToken {
	token := &v1alpha1.SFMCToken{ObjectMeta: metav1.ObjectMeta{Namespace: "marketing-emea", Name: "journeys"}}
	w.Expect(client.IgnoreNotFound(w.admin.Get(w.ctx, client.ObjectKeyFromObject(token), token))).To(Succeed())
	return token
}

// tokenSays reads a condition of the SFMCToken, as "Ready=True TokenValid".
func (w *world) tokenSays(kind string) func() string {
	return func() string {
		if c := meta.FindStatusCondition(w.journeys().Status.Conditions, kind); c != nil {
			return fmt.Sprintf("%s=%s %s", kind, c.Status, c.Reason)
		}
		return kind + " absent"
	}
}

// held is the token in the target Secret, which must exist.
func (w *world) held() string {
	secret := &corev1.Secret{}
	w.Expect(w.admin.Get(w.ctx, client.ObjectKey{Namespace: "marketing-emea", Name: "journeys"}, secret)).To(Succeed())
	return string(secret.Data["access_token"])
}

// alive tells whether Marketing Cloud takes the token in the target Secret, for the business unit.
func (w *world) alive() bool {
	account, alive := w.sfmc.Check(w.held())
	return alive && account == w.account
}
