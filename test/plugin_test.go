package test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

func pluginDir() string {
	return filepath.Join(os.TempDir(), fmt.Sprintf("kubectl-sfmctoken-under-test-%d", os.Getpid()))
}

// plugin builds kubectl's plugin once.
var plugin = sync.OnceValue(func() error {
	build := exec.Command("go", "build", "-o", pluginDir()+string(os.PathSeparator), "./cmd/kubectl-sfmctoken") //nolint:gosec // a path of this test's own
	build.Dir = harness.Path()
	if err := os.MkdirAll(pluginDir(), 0o700); err != nil {
		return err
	}
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the plugin: %w\n%s", err, out)
	}
	return nil
})

// said is what a command printed, and how it ended.
type said struct {
	out, err string
	code     int
}

// rows are the lines of a table, by the first word.
func (s said) rows() map[string][]string {
	found := map[string][]string{}
	for line := range strings.Lines(s.out) {
		var cells []string
		for cell := range strings.SplitSeq(strings.TrimSpace(line), "   ") {
			if cell = strings.TrimSpace(cell); cell != "" {
				cells = append(cells, cell)
			}
		}
		found[cells[0]] = cells[1:]
	}
	return found
}

// kubectlSFMCToken runs the plugin through kubectl, as people do; as an administrator, unless the arguments say else.
func (w *world) kubectlSFMCToken(args ...string) said {
	w.t.Helper()
	return w.kubectlWithPlugin(append([]string{"sfmctoken"}, args...)...)
}

func (w *world) kubectlWithPlugin(args ...string) said {
	w.t.Helper()
	w.Expect(plugin()).To(Succeed())
	ctx, cancel := context.WithTimeout(w.ctx, 2*time.Minute)
	defer cancel()
	kubectl := exec.CommandContext(ctx, filepath.Join(cluster.AssetsDir(), "kubectl"), args...) //nolint:gosec // built by the tests
	kubectl.Env = append(os.Environ(), "KUBECONFIG="+cluster.Kubeconfig(), "KUBERC=off", "KUBECACHEDIR="+w.t.TempDir(),
		"PATH="+pluginDir()+string(os.PathListSeparator)+os.Getenv("PATH"))
	var out, stderr bytes.Buffer
	kubectl.Stdout, kubectl.Stderr = &out, &stderr
	err := kubectl.Run()
	if ended := (*exec.ExitError)(nil); !errors.As(err, &ended) {
		w.Expect(err).NotTo(HaveOccurred())
	}
	w.t.Logf("$ kubectl %s\n%s%s", strings.Join(args, " "), out.String(), stderr.String())
	return said{out.String(), stderr.String(), kubectl.ProcessState.ExitCode()}
}

// pod creates a pod, which stays Pending: there is no node.
func (w *world) pod(name string, change func(*corev1.Pod)) *corev1.Pod {
	w.t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: name},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: ptr.To(int64(0)),
			Containers:                    []corev1.Container{{Name: "app", Image: "registry.example.com/app"}},
		},
	}
	change(pod)
	w.Eventually(func() error { return admin.Create(w.ctx, pod) }).Should(Succeed()) // once the namespace has its ServiceAccount
	return pod
}

// readsByEnv lets a pod read a token through its environment.
func readsByEnv(secret string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "SFMC_TOKEN", ValueFrom: &corev1.EnvVarSource{
			SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: secret}, Key: "access_token"},
		}}}
	}
}

// readsByFile lets a pod read a token from a volume.
func readsByFile(secret, subPath string) func(*corev1.Pod) {
	return func(pod *corev1.Pod) {
		pod.Spec.Volumes = []corev1.Volume{{Name: "sfmc", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: secret}}}}
		pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "sfmc", MountPath: "/sfmc/token", SubPath: subPath}}
	}
}

// person makes a kubeconfig of somebody who has these ClusterRoles in the test's namespace.
func (w *world) person(roles ...string) string {
	w.t.Helper()
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, GenerateName: "person-"}}
	w.create(account)
	for _, role := range roles {
		w.create(&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, GenerateName: "person-"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role},
			Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: w.ns, Name: account.Name}},
		})
	}
	config, err := cluster.ServiceAccountConfig(w.ctx, w.ns, account.Name)
	w.Expect(err).NotTo(HaveOccurred())
	return w.kubeconfig(config)
}

func (w *world) kubeconfig(config *rest.Config) string {
	path := filepath.Join(w.t.TempDir(), "kubeconfig")
	w.Expect(localcluster.WriteKubeconfig(config, path)).To(Succeed())
	return path
}

// newWorldWithLegacyPod has all that the plugin tells of: two SFMCTokens that share a token, and a pod, "legacy",
// that misses its refreshes.
func newWorldWithLegacyPod(t *testing.T) *world {
	w := newWorld(t)
	w.token("journeys")
	w.ready("journeys")
	w.token("reports")
	w.ready("reports")
	w.pod("legacy", readsByEnv("journeys"))
	return w
}

func TestThePluginListsWhatAPersonWantsToKnow(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	w.ready("journeys")
	w.token("reports")
	w.token("email", func(token *v1alpha1.SFMCToken) { token.Spec.AccountID = "510009999" })
	w.token("waiting", func(token *v1alpha1.SFMCToken) {
		token.Spec.AccountID = ""
		token.Spec.CredentialsSecretRef.Name = "not-there"
	})
	w.says("waiting", "Reconciling=True CredentialsNotFound")
	other := w.in(t)
	other.ns = w.namespace()
	other.create(harness.CredentialsSecret(other.ns, "sfmc-package", w.sfmc, w.pkg))
	other.token("elsewhere")
	other.ready("elsewhere")
	w.ready("reports")
	w.ready("email")

	list := w.kubectlSFMCToken("list", "-n", w.ns)
	w.Expect(list.code).To(Equal(0))
	rows := list.rows()
	w.Expect(rows).To(HaveLen(5))
	w.Expect(rows["NAME"]).To(Equal([]string{"READY", "BU", "EXPIRES", "NEXT REFRESH", "SHARED WITH", "PROBLEM"}))
	elsewhere := other.ns + "/elsewhere"
	in := func(low, high int) OmegaMatcher {
		return WithTransform(func(text string) (n int, err error) { _, err = fmt.Sscanf(text, "in %dm", &n); return }, And(BeNumerically(">=", low), BeNumerically("<=", high)))
	}
	w.Expect(rows["journeys"]).To(HaveExactElements(Equal("True"), Equal("510004567"), in(15, 17), in(9, 13), Or(Equal("reports,"+elsewhere), Equal(elsewhere+",reports")), Equal("-")))
	w.Expect(rows["email"]).To(HaveExactElements(Equal("True"), Equal("510009999"), in(15, 17), in(9, 13), Equal("-"), Equal("-")))
	w.Expect(rows["waiting"]).To(HaveExactElements(Equal("False"), Equal("-"), Equal("-"), Equal("-"), Equal("-"), HavePrefix("Reconciling, CredentialsNotFound: ")))

	w.Eventually(func() bool { // a minute may end between the two
		return w.kubectlSFMCToken("-n", w.ns).out == w.kubectlSFMCToken("list", "-n", w.ns).out
	}).Should(BeTrue(), "list is what it does unless told else")
	everywhere := w.kubectlSFMCToken("list", "--all-namespaces")
	w.Expect(everywhere.out).To(HavePrefix("NAMESPACE "))
	w.Expect(everywhere.out).To(MatchRegexp(`(?m)^%s +elsewhere +True`, other.ns))
	w.Expect(everywhere.out).To(MatchRegexp(`(?m)^%s +journeys +True`, w.ns))
	w.Expect(w.kubectlSFMCToken("list", "-n", "default").err).To(Equal("No SFMCTokens found in namespace default.\n"))
}

func TestThePluginListsAsKubectlDoes(t *testing.T) {
	w := newWorld(t)
	labelled := func(team string) func(*v1alpha1.SFMCToken) {
		return func(token *v1alpha1.SFMCToken) { token.Labels = map[string]string{"team": team} }
	}
	w.token("journeys", labelled("emea"))
	w.token("reports", labelled("apac"))
	w.ready("journeys")
	w.ready("reports")

	selected := w.kubectlSFMCToken("-n", w.ns, "-l", "team in (emea)", "--no-headers").rows()
	w.Expect(selected).To(HaveLen(1))
	w.Expect(selected["journeys"]).To(HaveExactElements("True", "510004567", HavePrefix("in "), HavePrefix("in "), "reports", "-"))
	w.Expect(w.kubectlSFMCToken("-n", w.ns, "-l", "team=none").err).To(Equal("No SFMCTokens found in namespace " + w.ns + " that the label query selects.\n"))
	wide := w.kubectlSFMCToken("list", "-n", w.ns, "-o", "wide").rows()
	w.Expect(wide["NAME"]).To(HaveExactElements("READY", "BU", "EXPIRES", "NEXT REFRESH", "SHARED WITH", "PROBLEM", "CREDENTIALS", "TARGET"))
	w.Expect(wide["journeys"]).To(ContainElements(w.ns+"/sfmc-package", "journeys"))

	w.Expect(w.kubectlSFMCToken("-n", w.ns, "-o", "name").out).To(Equal("sfmctoken.sfmctoken.dev/journeys\nsfmctoken.sfmctoken.dev/reports\n"))
	var list v1alpha1.SFMCTokenList
	w.Expect(json.Unmarshal([]byte(w.kubectlSFMCToken("-n", w.ns, "-l", "team=apac", "-o", "json").out), &list)).To(Succeed())
	w.Expect(list.Items).To(HaveLen(1))
	w.Expect(list.Items[0].Status).To(Equal(w.get("reports").Status), "the schema is the API's")
	w.Expect(w.kubectlSFMCToken("-n", w.ns, "-o", "jsonpath={.items[*].metadata.name}").out).To(Equal("journeys reports"))

	wrong := w.kubectlSFMCToken("-n", w.ns, "-o", "xml")
	w.Expect(wrong.code).To(Equal(2))
	w.Expect(wrong.err).To(And(ContainSubstring(`output format "xml"`), HaveSuffix(",yaml, or wide\n")))
	wrong = w.kubectlSFMCToken("-n", w.ns, "-l", "team==(")
	w.Expect(wrong.code).To(Equal(2))
	w.Expect(wrong.err).To(ContainSubstring("--selector: "))
}

func TestThePluginSuspendsAndResumes(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	w.ready("journeys")
	w.token("waiting", func(token *v1alpha1.SFMCToken) { token.Spec.CredentialsSecretRef.Name = "not-there" })
	w.says("waiting", "Reconciling=True CredentialsNotFound")
	editor := w.person("sfmctoken-edit") // it may change SFMCTokens and nothing else
	as := func(args ...string) said {
		return w.kubectlSFMCToken(append(args, "-n", w.ns, "--kubeconfig", editor)...)
	}
	var suspended said
	w.Eventually(func() int { suspended = as("suspend", "journeys", "waiting"); return suspended.code }).Should(Equal(0), "the right has arrived")
	w.Expect(suspended.out).To(MatchRegexp("^SFMCToken %[1]s/journeys is suspended. Its token expires in 1[5-7]m.\n"+
		"SFMCToken %[1]s/waiting is suspended. It has no valid token.\n$", w.ns))
	w.says("journeys", "Suspended=True Suspended")
	w.step(time.Hour)
	w.Expect(w.sfmc.Count()).To(Equal(1))

	resumed := as("resume", "no-such", "journeys")
	w.Expect(resumed.code).To(Equal(2))
	w.Expect(resumed.err).To(ContainSubstring(`change SFMCToken no-such: sfmctokens.sfmctoken.dev "no-such" not found`))
	w.Expect(resumed.out).To(Equal("SFMCToken "+w.ns+"/journeys is refreshed again.\n"), "one that isn't there hinders no other")
	w.ready("journeys")
	w.Expect(w.sfmc.Count()).To(Equal(2))
}

// kubectl calls a program of this name for what a person may mean; docs have people make this link.
func TestKubectlCompletesNamesOfSFMCTokens(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	w.token("reports")
	w.Expect(plugin()).To(Succeed())
	link := filepath.Join(pluginDir(), "kubectl_complete-sfmctoken")
	w.Expect(os.Symlink("kubectl-sfmctoken", link)).To(Succeed())
	defer os.Remove(link)
	for words, completed := range map[string][]string{
		"res":                        {"resume\tHave SFMCTokens refreshed again"},
		"-n NS suspend ":             {"journeys", "reports"},
		"suspend -n NS journeys ":    {"reports"},
		"-n NS refresh ":             {"journeys", "reports"},
		"-n NS refresh journeys ":    nil,
		"-n NS status ":              {"journeys", "reports"},
		"-n NS whoami ":              {"journeys", "reports"},
		"--kubeconfig none refresh ": nil,
	} {
		words = strings.ReplaceAll(words, "NS", w.ns)
		said := w.kubectlWithPlugin(append([]string{"__complete", "sfmctoken"}, strings.Split(words, " ")...)...)
		lines := strings.Split(strings.TrimSpace(said.out), "\n")
		w.Expect(lines[:len(lines)-1]).To(HaveExactElements(completed), words) // the last is a directive
	}
}

func TestThePluginShowsWhatAPersonMaySee(t *testing.T) {
	w := newWorldWithLegacyPod(t)

	viewer := w.person("view") // it has no right to read Secrets
	w.Eventually(func() int { return w.kubectlSFMCToken("-n", w.ns, "--kubeconfig", viewer).code }).Should(Equal(0), "the right has arrived")
	list := w.kubectlSFMCToken("list", "-n", w.ns, "--kubeconfig", viewer)
	w.Expect(list.rows()["journeys"]).To(HaveExactElements("True", "510004567", HavePrefix("in "), HavePrefix("in "), "?", "-"))
	w.Expect(list.err).To(ContainSubstring("you may not list Secrets"))
	w.Expect(w.kubectlSFMCToken("doctor", "-n", w.ns, "--kubeconfig", viewer).out).To(ContainSubstring("Pod legacy, container app"))

	editor := w.person("edit")
	w.Eventually(func() []string { return w.kubectlSFMCToken("-n", w.ns, "--kubeconfig", editor).rows()["journeys"] }).Should(ContainElement("reports"))
	w.Expect(w.kubectlSFMCToken("-n", w.ns, "--kubeconfig", editor).err).To(ContainSubstring("namespace " + w.ns + " only"))

	reader := w.person("sfmctoken-view") // it may read SFMCTokens and nothing else
	w.Eventually(func() int { return w.kubectlSFMCToken("-n", w.ns, "--kubeconfig", reader).code }).Should(Equal(0))
	blind := w.kubectlSFMCToken("doctor", "-n", w.ns, "--kubeconfig", reader)
	w.Expect(blind.code).To(Equal(2), "not to see pods is not to find none")
	w.Expect(blind.err).To(ContainSubstring("look for what misses refreshes: list Deployments"))
	refused := w.kubectlSFMCToken("refresh", "journeys", "-n", w.ns, "--kubeconfig", reader)
	w.Expect(refused.code).To(Equal(2))
	w.Expect(refused.err).To(ContainSubstring("ask for a new token"))
	w.Expect(w.kubectlSFMCToken("list", "-A", "--kubeconfig", reader).code).To(Equal(2))
	w.Expect(w.kubectlSFMCToken("list", "--context", "none").code).To(Equal(2))
}

func TestTheDoctorNamesPodsThatMissEveryRefresh(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	w.ready("journeys")
	w.pod("good", readsByFile("journeys", ""))
	w.pod("unrelated", readsByEnv("another-secret"))
	well := w.kubectlSFMCToken("doctor", "-n", w.ns)
	w.Expect(well).To(Equal(said{out: "No problem found with 1 SFMCToken and 2 Pods.\n"}))

	byEnv := w.pod("by-env", readsByEnv("journeys"))
	byFile := w.pod("by-sub-path", readsByFile("journeys", "access_token"))
	ill := w.kubectlSFMCToken("doctor", "-n", w.ns)
	w.Expect(ill.code).To(Equal(1))
	w.Expect(ill.out).To(ContainSubstring("SFMCToken %s/journeys\n", w.ns))
	w.Expect(ill.out).To(ContainSubstring("  Pod by-env, container app, reads Secret journeys once, when it starts: environment variable SFMC_TOKEN\n"))
	w.Expect(ill.out).To(ContainSubstring("  Pod by-sub-path, container app, reads Secret journeys once, when it starts: subPath mount at /sfmc/token\n"))
	w.Expect(ill.out).To(ContainSubstring("Mount Secret journeys as a volume, without subPath, and read the file for each call."))
	w.Expect(ill.out).To(HaveSuffix("2 problems found with 1 SFMCToken and 4 Pods.\n"))
	w.Expect(ill.out).NotTo(Or(ContainSubstring("good"), ContainSubstring("unrelated")))
	w.Expect(w.kubectlSFMCToken("doctor", "-A").out).To(ContainSubstring("Pod by-env"))

	w.Expect(admin.Delete(w.ctx, byEnv)).To(Succeed())
	w.Expect(admin.Delete(w.ctx, byFile)).To(Succeed())
	w.Expect(w.kubectlSFMCToken("doctor", "-n", w.ns)).To(Equal(well))
}

func TestTheDoctorNamesSFMCTokensThatAreNotWell(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	w.ready("journeys")
	w.sfmc.AddFaults(sfmctest.Fault{Refusal: sfmctest.InvalidClient, Times: sfmctest.Forever})
	w.token("email", func(token *v1alpha1.SFMCToken) { token.Spec.AccountID = "510009999" })
	w.says("email", "Stalled=True RequestRefused")
	ill := w.kubectlSFMCToken("doctor", "-n", w.ns)
	w.Expect(ill.code).To(Equal(1))
	w.Expect(ill.out).To(ContainSubstring("SFMCToken %s/email\n  Stalled, RequestRefused: ", w.ns))
	w.Expect(ill.out).To(ContainSubstring(w.message("email")), "the whole message")
	w.Expect(ill.out).To(ContainSubstring("\n1 problem found with 2 SFMCTokens and 0 Pods.\n"))
	w.Expect(ill.out).NotTo(ContainSubstring("journeys"))
}

func TestThePluginBringsANewToken(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	w.ready("journeys")
	old := w.held("journeys")
	w.step(5 * time.Minute)
	refreshed := w.kubectlSFMCToken("refresh", "journeys", "-n", w.ns)
	w.Expect(refreshed.code).To(Equal(0))
	is := w.ready("journeys")
	w.Expect(refreshed.out).To(HavePrefix("SFMCToken %s/journeys has a new token, valid until %s (in ", w.ns, is.Status.ExpiresAt.UTC().Format(time.RFC3339)))
	w.Expect(w.held("journeys")).NotTo(Equal(old))
	w.Expect(w.sfmc.Count()).To(Equal(2))
	w.step(30 * time.Second)
	w.Expect(w.kubectlSFMCToken("refresh", "journeys", "-n", w.ns).code).To(Equal(0), "each request is a new one")
	w.Expect(w.sfmc.Count()).To(Equal(3))
}

func TestThePluginSaysWhyThereIsNoNewToken(t *testing.T) {
	w := newWorld(t)
	token := w.token("journeys")
	w.ready("journeys")
	old := w.held("journeys")
	w.sfmc.AddFaults(sfmctest.Fault{Refusal: sfmctest.InvalidClient, Times: sfmctest.Forever})
	for range 2 { // the second time, it is refused already
		failed := w.kubectlSFMCToken("refresh", "journeys", "-n", w.ns)
		w.Expect(failed.code).To(Equal(1))
		w.Expect(failed.out).To(HavePrefix("SFMCToken %s/journeys has no new token. Stalled, RequestRefused: ", w.ns))
		w.Expect(failed.out).To(ContainSubstring(w.message("journeys")))
		w.step(30 * time.Second) // people get one request in that time
	}
	w.Expect(w.sfmc.Count()).To(Equal(3))
	w.Expect(w.held("journeys")).To(Equal(old))

	change(w, token, func(token *v1alpha1.SFMCToken) { token.Spec.Suspend = true })
	w.says("journeys", "Suspended=True Suspended")
	suspended := w.kubectlSFMCToken("refresh", "journeys", "-n", w.ns)
	w.Expect(suspended.code).To(Equal(1))
	w.Expect(suspended.out).To(ContainSubstring("spec.suspend is true"))

	unknown := w.kubectlSFMCToken("refresh", "no-such", "-n", w.ns)
	w.Expect(unknown.code).To(Equal(2))
	w.Expect(unknown.err).To(ContainSubstring(`"no-such" not found`))
	w.stopOperator()
	change(w, token, func(token *v1alpha1.SFMCToken) { token.Spec.Suspend = false })
	silent := w.kubectlSFMCToken("refresh", "journeys", "-n", w.ns, "--timeout", "1s")
	w.Expect(silent.code).To(Equal(1))
	w.Expect(silent.out).To(ContainSubstring("no answer within 1s: "))
	w.Expect(w.sfmc.Count()).To(Equal(3))
}

// TestThePluginIsSentNoSecret looks at all that the API server answers to it.
func TestThePluginIsSentNoSecret(t *testing.T) {
	w := newWorldWithLegacyPod(t)
	canaries := []string{w.pkg.ClientSecret, w.pkg.ClientID, w.held("journeys")}
	seen := &logs{}
	proxied := w.kubeconfig(w.recordingProxy(seen))
	list := w.kubectlSFMCToken("list", "-n", w.ns, "--kubeconfig", proxied)
	w.Expect(list.rows()["journeys"]).To(ContainElement("reports"), "it has read the metadata of Secrets")
	doctor := w.kubectlSFMCToken("doctor", "-n", w.ns, "--kubeconfig", proxied)
	w.Expect(doctor.code).To(Equal(1))
	refresh := w.kubectlSFMCToken("refresh", "journeys", "-n", w.ns, "--kubeconfig", proxied)
	w.Expect(refresh.code).To(Equal(0))
	canaries = append(canaries, w.held("journeys"))
	status := w.kubectlSFMCToken("status", "journeys", "-n", w.ns, "--kubeconfig", proxied)
	w.Expect(status.code).To(Equal(0))
	check := w.kubectlSFMCToken("check", "-n", w.ns, "--kubeconfig", proxied)

	for where, text := range map[string]string{"an answer": seen.String(), "list": list.out + list.err, "status": status.out + status.err, "check": check.out + check.err, "doctor": doctor.out + doctor.err, "refresh": refresh.out + refresh.err} {
		for _, canary := range canaries {
			whole := canary[:len(canary)/3*3] // in base64 the same, whatever follows
			// Not with a matcher, whose failure would print it.
			if strings.Contains(text, canary) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(whole))) {
				t.Errorf("%s has a secret that begins with %.6s", where, canary)
			}
		}
	}
	w.Expect(seen.String()).To(And(ContainSubstring("PartialObjectMetadata"), ContainSubstring("sfmctoken.dev/issued")))
}

// recordingProxy stands before the API server, as an administrator, and writes down what that answers.
func (w *world) recordingProxy(seen io.Writer) *rest.Config {
	w.t.Helper()
	return w.apiProxy(cluster.Config(), func(response *http.Response) {
		response.Body = struct {
			io.Reader
			io.Closer
		}{io.TeeReader(response.Body, seen), response.Body}
	})
}

// apiProxy stands before the API server, with somebody's identity, and can change what that answers.
func (w *world) apiProxy(identity *rest.Config, change func(*http.Response)) *rest.Config {
	w.t.Helper()
	transport, err := rest.TransportFor(identity)
	w.Expect(err).NotTo(HaveOccurred())
	target, err := url.Parse(identity.Host)
	w.Expect(err).NotTo(HaveOccurred())
	server := httptest.NewServer(&httputil.ReverseProxy{
		FlushInterval: -1, // watches
		Transport:     transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Header.Set("Accept-Encoding", "identity")
		},
		ModifyResponse: func(response *http.Response) error {
			change(response)
			return nil
		},
	})
	w.t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL}
}
