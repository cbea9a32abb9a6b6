package test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/cert"
	"k8s.io/utils/clock"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// process is the operator as people run it.
type process struct {
	*harness.Process
	log *harness.Log
}

// startProcess starts the operator's binary with its ServiceAccount's rights.
func (w *world) startProcess(flags ...string) *process {
	w.t.Helper()
	return w.startProcessAs(operator, flags...)
}

func (w *world) startProcessAs(identity *rest.Config, flags ...string) *process {
	w.t.Helper()
	log := &harness.Log{}
	running, err := harness.StartProcess(harness.ProcessOptions{
		Config: identity, Dir: w.t.TempDir(), AuthHosts: []string{w.sfmc.Host()}, CA: w.sfmc.CACert(), Log: log,
		Flags: append([]string{"--log-level", "debug"}, flags...),
	})
	w.Expect(err).NotTo(HaveOccurred())
	w.t.Cleanup(func() {
		running.Kill()
		if w.t.Failed() {
			w.t.Logf("the log of process %d:\n%s", running.PID(), log)
		}
	})
	return &process{running, log}
}

// terminate asks a process that runs to end, and returns its exit code.
func (w *world) terminate(p *process) int {
	w.t.Helper()
	w.Expect(p.Exited()).NotTo(BeClosed())
	ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
	defer cancel()
	return p.Terminate(ctx)
}

// newRealTimeWorld is a world without an operator in this process, on the machine's own clock.
func newRealTimeWorld(t *testing.T, options sfmctest.Options) *world {
	w := (&world{pkg: harness.Package(), logs: &logs{}}).in(t)
	options.Clock = clock.RealClock{}
	options.Packages = []sfmctest.Package{w.pkg}
	w.sfmc = sfmctest.Start(t, options)
	w.ns = w.namespace()
	w.create(harness.CredentialsSecret(w.ns, "sfmc-package", w.sfmc, w.pkg))
	return w
}

func TestATerminatedOperatorWritesTheTokenThatItHasAskedFor(t *testing.T) {
	w := newRealTimeWorld(t, sfmctest.Options{Latency: 2 * time.Second})
	p := w.startProcess()
	w.token("journeys")
	w.Eventually(w.sfmc.Count).Should(Equal(1)) // the request has arrived, its answer is two seconds away
	w.Expect(w.terminate(p)).To(Equal(0))
	w.Expect(w.alive(w.held("journeys"), "510004567")).To(BeTrue())
	w.Expect(w.sfmc.Count()).To(Equal(1))
}

func TestAKilledLeaderIsReplacedAndNoTokenIsAskedForAgain(t *testing.T) {
	w := newRealTimeWorld(t, sfmctest.Options{})
	elect := []string{"--leader-elect", "--leader-election-namespace", harness.SystemNamespace}
	first := w.startProcess(elect...)
	w.token("journeys")
	w.ready("journeys")
	second := w.startProcess(elect...)
	w.Eventually(second.log.String).Should(ContainSubstring("Attempting to acquire leader lease"))
	w.Expect(first.Exited()).NotTo(BeClosed())
	first.Kill()
	w.token("later")
	w.Eventually(func() string { return condition(w.get("later"), "Ready") }).Should(Equal(valid))
	w.Expect(w.sfmc.Count()).To(Equal(1), "the new leader found the token in the other target Secret")
	w.Expect(w.terminate(second)).To(Equal(0))
}

func TestMetricsNeedAuthentication(t *testing.T) {
	w := newRealTimeWorld(t, sfmctest.Options{})
	address, err := harness.FreeAddress()
	w.Expect(err).NotTo(HaveOccurred())
	w.startProcess("--metrics-bind-address", address)
	w.token("journeys")
	w.ready("journeys")
	scrape := func(config *rest.Config) func() (string, error) {
		return func() (string, error) {
			request, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "https://"+address+"/metrics", nil)
			if err != nil {
				return "", err
			}
			if config != nil {
				request.Header.Set("Authorization", "Bearer "+config.BearerToken)
			}
			// The endpoint signs its own certificate.
			insecure := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}} //nolint:gosec // a test
			response, err := insecure.Do(request)
			if err != nil {
				return "", err
			}
			defer response.Body.Close()
			body, err := io.ReadAll(response.Body)
			return fmt.Sprintf("%d %s", response.StatusCode, body), err
		}
	}
	w.Eventually(scrape(nil)).Should(HavePrefix("401"))
	account := func(name string) *rest.Config {
		w.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: name}})
		config, err := cluster.ServiceAccountConfig(w.ctx, w.ns, name)
		w.Expect(err).NotTo(HaveOccurred())
		return config
	}
	w.Eventually(scrape(account("stranger"))).Should(HavePrefix("403"))
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "prometheus-"},
		RoleRef:    rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: "sfmctoken-operator-metrics-reader"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: w.ns, Name: "prometheus"}},
	}
	w.create(binding)
	t.Cleanup(func() { _ = admin.Delete(context.Background(), binding) })
	w.Eventually(scrape(account("prometheus"))).Should(And(HavePrefix("200"), ContainSubstring(`sfmctoken_ready{name="journeys"`)))
}

func TestUnrelatedSecretsCostHardlyAnyMemory(t *testing.T) {
	const many, size = 1000, 100_000
	w := newRealTimeWorld(t, sfmctest.Options{})
	p := w.startProcess()
	w.token("journeys")
	w.ready("journeys")
	before := peakMemory(w, p)
	blob := []byte(strings.Repeat("x", size))
	for i := range many {
		w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: fmt.Sprintf("unrelated-%d", i)}, Data: map[string][]byte{"blob": blob}})
	}
	w.token("after")
	w.ready("after") // events up to here have been seen
	started := w.startProcess()
	w.token("restarted", func(token *v1alpha1.SFMCToken) { token.Spec.AccountID = "510009999" })
	w.ready("restarted")
	for what, running := range map[string]*process{"events": p, "a start": started} {
		grown := peakMemory(w, running) - before
		t.Logf("%d Secrets of %d kB seen through %s: memory grew from %d to %d kB", many, size/1000, what, before/1000, (before+grown)/1000)
		w.Expect(grown).To(BeNumerically("<", many*size/4), what)
	}
}

// peakMemory is the most memory in bytes that a process has had resident.
func peakMemory(w *world, p *process) int {
	w.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	w.Expect(err).NotTo(HaveOccurred())
	for line := range strings.Lines(string(status)) {
		if fields := strings.Fields(line); fields[0] == "VmHWM:" {
			kib, err := strconv.Atoi(fields[1])
			w.Expect(err).NotTo(HaveOccurred())
			return kib << 10
		}
	}
	w.t.Fatal("no VmHWM in /proc")
	return 0
}

func TestBadFlagsAreRefusedWithASentence(t *testing.T) {
	g := NewWithT(t)
	path, err := harness.Program()
	g.Expect(err).NotTo(HaveOccurred())
	for _, bad := range []struct{ flag, says string }{
		{"--allow-auth-host=https://gateway.example.com/", "must be HOST or HOST:PORT"},
		{"--allow-auth-host=gateway:", "must be HOST or HOST:PORT"},
		{"--ca-file=/does/not/exist", "read --ca-file"},
		{"--ca-file=/etc/hostname", "no certificate found"},
		{"--log-level=trace", "must be info or debug"},
		{"--max-concurrent-reconciles=1", "must be at least 2"},
		{"--no-such-flag", "flag provided but not defined"},
	} {
		out, err := exec.CommandContext(t.Context(), path, bad.flag).CombinedOutput() //nolint:gosec // the binary just built
		g.Expect(err).To(HaveOccurred(), bad.flag)
		g.Expect(string(out)).To(ContainSubstring(bad.says), bad.flag)
	}
}

func TestMetricsAreServedWithACertificateOfOnesOwn(t *testing.T) {
	w := newRealTimeWorld(t, sfmctest.Options{})
	dir := t.TempDir()
	certificate, key, err := cert.GenerateSelfSignedCertKey("127.0.0.1", nil, nil)
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(os.WriteFile(filepath.Join(dir, "tls.crt"), certificate, 0o600)).To(Succeed())
	w.Expect(os.WriteFile(filepath.Join(dir, "tls.key"), key, 0o600)).To(Succeed())
	address, err := harness.FreeAddress()
	w.Expect(err).NotTo(HaveOccurred())
	p := w.startProcess("--metrics-bind-address", address, "--metrics-cert-dir", dir)
	roots := x509.NewCertPool()
	w.Expect(roots.AppendCertsFromPEM(certificate)).To(BeTrue())
	trusting := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	w.Eventually(func() (int, error) {
		request, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "https://"+address+"/metrics", nil)
		if err != nil {
			return 0, err
		}
		response, err := trusting.Do(request)
		if err != nil {
			return 0, err
		}
		return response.StatusCode, response.Body.Close()
	}).Should(Equal(http.StatusUnauthorized), "over a connection that is trusted")
	first, _, _ := strings.Cut(p.log.String(), "\n")
	w.Expect(first).To(And(ContainSubstring(`"msg":"sfmctoken-operator"`), ContainSubstring(`"version":`), ContainSubstring(`"revision":`)), "the first line")
	w.Expect(w.terminate(p)).To(Equal(0))
}
