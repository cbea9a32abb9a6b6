// Package comparison runs three ways to keep a token in a Secret beside each other: a CronJob with curl, the generator
// Webhook of External Secrets, and this operator. Each serves the same business unit in ten namespaces, with a package of
// its own at one stand-in, which counts what each asks for. Time runs about six times as fast as it does with Marketing
// Cloud: tokens live three minutes, and are replaced as people would do it for eighteen.
//
// The control plane is real, and so are the operators. There is no node: what the kubelet does with the CronJob's pods is
// done by podRunner, which runs the container's command.
package comparison

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

const (
	name       = "journeys" // of the object, and of the Secret with the token
	account    = "510004567"
	namespaces = 10
	expiresIn  = 3 * time.Minute
	life       = expiresIn + 20*time.Second // Salesforce, too, reports less than it is
	patience   = 5 * time.Minute
)

var shared harness.Shared

func TestMain(m *testing.M) {
	os.Exit(harness.RunTests(io.Discard, func(s harness.Shared) int {
		shared = s
		return m.Run()
	}))
}

// ways are what is compared.
var ways = []*way{
	{title: "CronJob with curl", short: "cronjob", newSecretKey: "client_secret"},
	{title: "External Secrets, generator Webhook", short: "externalsecret", newSecretKey: "client_secret", start: startExternalSecrets},
	{title: "this operator", short: "sfmctoken", newSecretKey: "client_secret_staged", start: startOperator},
}

func TestThreeWaysSideBySide(t *testing.T) {
	w := newWorld(t)
	var table rows
	table.add("token requests for the first tokens of ten namespaces", w.phase(func() { w.deploy() }).requests)

	steady := w.phase(func() { w.pass(3 * expiresIn) })
	table.add(fmt.Sprintf("token requests in three lives of a token (%s)", 3*expiresIn), steady.requests)
	table.add("longest time with a dead token in a Secret meanwhile", steady.dead)

	w.restartAll()
	table.add("token requests within 30 s of a restart, just after tokens were replaced", w.each(func(way *way) string { return way.restarted }))

	throttled := w.phase(w.throttle)
	table.add(fmt.Sprintf("token requests while the client is throttled for %s (`Retry-After: 60`)", throttling), throttled.requests)
	table.add("longest time with a dead token in a Secret, until all were well again", throttled.dead)

	rotated := w.phase(w.rotate)
	table.add("refused token requests when the new client secret is written as soon as it is shown", rotated.refused)
	table.add("longest time with a dead token in a Secret meanwhile", rotated.dead)

	w.phase(w.expire)
	table.add("the package is disabled: `Ready` is False", w.each(func(way *way) string { return way.said() }))
	table.add("memory at peak (VmHWM)", w.each(func(way *way) string { return way.memory() }))
	t.Log("\n" + table.String())

	ours := len(ways) - 1
	g := NewWithT(t)
	g.Expect(table.value(0, ours)).To(Equal("1"), "ten SFMCTokens of one identity")
	g.Expect(steady.count(ours)).To(BeNumerically("<=", 5), "replaced after two thirds of a life, less up to a twentieth")
	g.Expect([]string{steady.dead[ours], rotated.dead[ours]}).To(HaveEach("0 s")) // who is throttled for a whole life has none
	g.Expect(ways[ours].restarted).To(Equal("0"))
	g.Expect(throttled.count(ours)).To(BeNumerically("<=", 1+int(throttling/retryAfter)+1))
	g.Expect(rotated.refused[ours]).To(BeElementOf("0", "1"), "the refusal that tells that the staged secret has its turn")
}

// way is one of what is compared.
type way struct {
	title, short string                                 // short is the kind of its object, in small letters
	newSecretKey string                                 // where a person writes the next client secret
	start        func(*world) (*harness.Process, error) // its program, if it has one

	pkg       sfmctest.Package
	running   *harness.Process
	restarted string    // token requests after a restart
	died      time.Time // the first token of the first namespace, in the last phase
	notReady  time.Time // when its object said so
}

func (y *way) namespace(i int) string { return fmt.Sprintf("%s-%d", y.short, i) }

// said is when the object told that there is no valid token.
func (y *way) said() string {
	switch after := y.notReady.Sub(y.died).Round(time.Second); {
	case y.start == nil:
		return "never: Jobs fail"
	case y.notReady.IsZero():
		return "never"
	case after < 0:
		return fmt.Sprintf("%s before the token dies", -after)
	default:
		return fmt.Sprintf("%s after the token died", after)
	}
}

func (y *way) memory() string {
	if y.running == nil {
		return "–"
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", y.running.PID()))
	if err != nil {
		return err.Error()
	}
	var kilobytes int
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscan(after, &kilobytes); err != nil {
		return err.Error()
	}
	return fmt.Sprintf("%d MB", (kilobytes+512)/1024)
}

// manifest is what a person applies in each namespace.
func (y *way) manifest(w *world) string {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", y.short+".yaml"))
	w.Expect(err).NotTo(HaveOccurred())
	return strings.NewReplacer(
		"${AUTH_BASE_URI}", w.sfmc.URL(), "${CA_BUNDLE}", base64.StdEncoding.EncodeToString(w.sfmc.CACert()),
	).Replace(string(text))
}

// deploy does what people do, for each way in ten namespaces, and waits for all tokens.
func (w *world) deploy() {
	w.t.Helper()
	for _, way := range ways {
		for i := range namespaces {
			namespace := way.namespace(i)
			w.create(
				&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}},
				&corev1.Secret{
					ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "sfmc-package", Labels: map[string]string{"external-secrets.io/type": "webhook"}},
					StringData: map[string]string{"client_id": way.pkg.ClientID, "client_secret": way.pkg.ClientSecret, "auth_base_uri": w.sfmc.URL()},
				})
			out, err := shared.Cluster.KubectlInput(w.t.Context(), strings.NewReader(way.manifest(w)), "-n", namespace, "apply", "-f", "-")
			w.Expect(err).NotTo(HaveOccurred(), out)
		}
	}
	w.Eventually(w.watch.withoutToken).Should(BeEmpty())
}

func startOperator(w *world) (*harness.Process, error) {
	return harness.StartProcess(harness.ProcessOptions{
		Config: shared.Operator, Dir: w.t.TempDir(), AuthHosts: []string{w.sfmc.Host()}, CA: w.sfmc.CACert(), Log: &harness.Log{},
		Flags: []string{"--metrics-bind-address", "0"},
	})
}

func startExternalSecrets(w *world) (*harness.Process, error) {
	var out bytes.Buffer
	crds := exec.CommandContext(w.t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/external-secrets/external-secrets")
	crds.Dir, crds.Stdout = harness.Path("hack", "tools", "external-secrets"), &out
	if err := crds.Run(); err != nil {
		return nil, fmt.Errorf("find the module of External Secrets: %w", err)
	}
	said, err := shared.Cluster.Kubectl(w.t.Context(), "apply", "--server-side", "-k", filepath.Join(strings.TrimSpace(out.String()), "config", "crds", "bases"))
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, said)
	}
	log := &harness.Log{}
	cmd := exec.CommandContext(context.Background(), harness.Path(".cache", "bin", "external-secrets"), "--metrics-addr=127.0.0.1:0") //nolint:gosec // built by make
	cmd.Env = append(os.Environ(), "KUBECONFIG="+shared.Cluster.Kubeconfig())
	cmd.Stdout, cmd.Stderr = log, log
	w.logs = append(w.logs, log)
	return harness.StartCommand(cmd)
}

// restartAll ends each program, as a node that is drained does, just after it replaced its tokens.
func (w *world) restartAll() {
	w.t.Helper()
	for i, way := range ways {
		if way.start == nil {
			way.restarted = "–"
			continue
		}
		w.Eventually(func() time.Duration { return w.watch.oldest(i) }).Should(BeNumerically("<", 20*time.Second), "all tokens of "+way.title)
		before := w.sfmc.CountFor(way.pkg.ClientID, account)
		way.running.Kill()
		var err error
		way.running, err = way.start(w)
		w.Expect(err).NotTo(HaveOccurred())
		w.pass(30 * time.Second)
		way.restarted = strconv.Itoa(w.sfmc.CountFor(way.pkg.ClientID, account) - before)
	}
}

const (
	retryAfter = time.Minute
	throttling = 3 * time.Minute
)

func (w *world) throttle() {
	w.t.Helper()
	for _, way := range ways {
		w.sfmc.AddFaults(sfmctest.Fault{ClientID: way.pkg.ClientID, Refusal: sfmctest.RateLimited, RetryAfter: retryAfter, Times: sfmctest.Forever})
	}
	w.pass(throttling)
	w.sfmc.ClearFaults()
	w.counted = w.requests()
	w.Eventually(w.watch.withoutToken).Should(BeEmpty())
	w.pass(expiresIn)
}

// rotate writes the next client secret as soon as Marketing Cloud shows it. It is accepted some time later, and is the
// only one some time after that.
func (w *world) rotate() {
	w.t.Helper()
	const accepted, activated = time.Minute, 2 * time.Minute
	w.sfmc.ChangeMode(func(mode *sfmctest.Mode) { mode.StagedAfter = accepted })
	for _, way := range ways {
		next := way.pkg.ClientSecret + "-next"
		w.Expect(w.sfmc.StageSecret(way.pkg.ClientID, next)).To(Succeed())
		for i := range namespaces {
			w.patchSecret(way.namespace(i), way.newSecretKey, next)
		}
	}
	w.pass(activated)
	for _, way := range ways {
		w.Expect(w.sfmc.ActivateStagedSecret(way.pkg.ClientID)).To(Succeed())
	}
	w.pass(2 * expiresIn)
}

// expire disables the packages until all tokens are dead, and looks at what people see.
func (w *world) expire() {
	w.t.Helper()
	w.Eventually(func() time.Duration { return w.watch.oldest(len(ways) - 1) }).Should(BeNumerically("<", 20*time.Second))
	for _, way := range ways {
		w.Expect(w.sfmc.DisablePackage(way.pkg.ClientID, true)).To(Succeed())
	}
	w.sfmc.ClearFaults()
	deadline := time.Now().Add(life + 30*time.Second)
	for time.Now().Before(deadline) {
		for i, way := range ways {
			if way.died.IsZero() && w.watch.isDead(i, 0) {
				way.died = time.Now()
			}
			if way.start != nil && way.notReady.IsZero() && w.says(way) == metav1.ConditionFalse {
				way.notReady = time.Now()
			}
		}
		w.pass(time.Second)
	}
}
