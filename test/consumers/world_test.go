package consumers

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

const (
	name    = "journeys" // of the SFMCToken, and so of the target Secret
	account = "510004567"
	// A token is replaced after two thirds of its life, less up to a twentieth. The cached file token source of client-go
	// reads the file again after 50 seconds: so a token lives for more than that after it was replaced.
	reportedLife = time.Minute
	realLife     = 2 * time.Minute
	// patience is for a machine that does much else; nothing is measured by it.
	patience = 15 * time.Minute
)

type tenant string

func (t tenant) URL() string { return "https://" + string(t) + ".auth.marketingcloudapis.com/" }

// world is the operator and the stand-in, and a folder that shows the target Secret.
type world struct {
	*WithT
	t         *testing.T
	namespace string
	sfmc      *sfmctest.Server
	volume    volume
	ca        string
	proxy     string
}

// address is the tenant's, as Setup > Installed Packages shows it. It is none of the stand-in: the proxy leads there.
const address = tenant("mc-not-a-real-tenant-0000000")

// newTenant starts the stand-in, and the proxy that leads to it.
func newTenant(t *testing.T) *world {
	t.Helper()
	w := &world{WithT: NewWithT(t), t: t, volume: volume(t.TempDir())}
	w.SetDefaultEventuallyTimeout(patience)
	w.sfmc = sfmctest.Start(t, sfmctest.Options{
		ExpiresIn: reportedLife, Life: realLife, Packages: []sfmctest.Package{harness.Package()},
		Hosts: []string{"*.auth.marketingcloudapis.com", "*.rest.marketingcloudapis.com", "*.soap.marketingcloudapis.com"},
	})
	w.ca = filepath.Join(t.TempDir(), "ca.pem")
	w.Expect(os.WriteFile(w.ca, w.sfmc.CACert(), 0o600)).To(Succeed())
	w.proxy = startProxy(t, w.sfmc.Host())
	return w
}

// newWorld is a tenant and the operator, which shows a token in the folder.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := newTenant(t)
	w.startOperator()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "consumers-"}}
	w.create(ns)
	w.namespace = ns.Name
	shown := w.mount()
	w.create(
		harness.CredentialsSecret(w.namespace, "sfmc-package", address, harness.Package()),
		harness.Token(w.namespace, name, "sfmc-package", account),
	)
	w.Eventually(shown).Should(BeClosed(), "as the kubelet starts no container before all files are there")
	return w
}

func (w *world) create(objects ...client.Object) {
	w.t.Helper()
	for _, object := range objects {
		w.Expect(shared.Admin.Create(w.t.Context(), object)).To(Succeed())
	}
}

// startOperator starts the operator at its default flags. It reaches Marketing Cloud through the proxy.
func (w *world) startOperator() {
	w.t.Helper()
	w.t.Setenv("HTTPS_PROXY", "http://"+w.proxy)
	w.t.Setenv("NO_PROXY", "")
	log := &harness.Log{}
	running, err := harness.StartProcess(harness.ProcessOptions{
		Config: shared.Operator, Dir: w.t.TempDir(), CA: w.sfmc.CACert(), Log: log,
		Flags: []string{"--metrics-bind-address", "0"},
	})
	w.Expect(err).NotTo(HaveOccurred())
	w.t.Cleanup(func() {
		running.Kill()
		if w.t.Failed() {
			w.t.Logf("the operator's log:\n%s", log)
		}
	})
}

// mount shows the target Secret in the folder, from now on. The channel is closed when it has shown it once.
func (w *world) mount() (shown <-chan struct{}) {
	w.t.Helper()
	once := make(chan struct{})
	watch, err := shared.Admin.Watch(w.t.Context(), &corev1.SecretList{}, client.InNamespace(w.namespace))
	w.Expect(err).NotTo(HaveOccurred())
	w.t.Cleanup(watch.Stop)
	go func() {
		closeOnce := sync.OnceFunc(func() { close(once) })
		for event := range watch.ResultChan() {
			if secret, ok := event.Object.(*corev1.Secret); ok && secret.Name == name {
				if err := w.volume.show(secret.Data); err != nil {
					w.t.Errorf("mount the Secret: %v", err)
					continue
				}
				closeOnce()
			}
		}
	}()
	return once
}

// key is a key of a Secret, once it has it.
func (w *world) key(secret, key string) string {
	w.t.Helper()
	found := &corev1.Secret{}
	w.Eventually(func(g Gomega) {
		g.Expect(shared.Admin.Get(w.t.Context(), client.ObjectKey{Namespace: w.namespace, Name: secret}, found)).To(Succeed())
		g.Expect(found.Data).To(HaveKey(key))
	}).Should(Succeed())
	return string(found.Data[key])
}

func (w *world) kubectl(args ...string) string {
	w.t.Helper()
	out, err := shared.Cluster.Kubectl(w.t.Context(), append([]string{"-n", w.namespace}, args...)...)
	w.Expect(err).NotTo(HaveOccurred(), "%v\n%s", args, out)
	return out
}

// program is a running consumer.
type program struct {
	*harness.Process
	log *harness.Log
}

// start starts a consumer that reads a folder, and calls several times a second.
func start(t *testing.T, folder string, command []string, env ...string) program {
	t.Helper()
	p := program{log: &harness.Log{}}
	cmd := exec.Command(command[0], command[1:]...) //nolint:gosec // an example; Kill ends it
	cmd.Env = slices.Concat(os.Environ(), []string{"SFMC_DIR=" + folder, "EVERY=0.2"}, env)
	cmd.Stdout, cmd.Stderr = p.log, p.log
	var err error
	p.Process, err = harness.StartCommand(cmd)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(p.Kill)
	return p
}

// start starts a consumer that trusts the stand-in and reaches it through the proxy, as each does in its own way.
func (w *world) start(folder string, command []string, env ...string) program {
	w.t.Helper()
	return start(w.t, folder, command, append([]string{
		"https_proxy=http://" + w.proxy, "HTTPS_PROXY=http://" + w.proxy, "no_proxy=", "NO_PROXY=",
		"SSL_CERT_FILE=" + w.ca, "CURL_CA_BUNDLE=" + w.ca, "NODE_EXTRA_CA_CERTS=" + w.ca,
		"JAVA_TOOL_OPTIONS=" + w.javaOptions(),
	}, env...)...)
}

// javaOptions have Java trust the stand-in, by a file of its own form, and use the proxy.
func (w *world) javaOptions() string {
	w.t.Helper()
	store := w.ca + ".p12"
	if _, err := os.Stat(store); errors.Is(err, os.ErrNotExist) {
		w.Expect(run("", "keytool", "-importcert", "-noprompt", "-alias", "stand-in", "-file", w.ca, "-keystore", store, "-storepass", "changeit")).To(Succeed())
	}
	host, port, err := net.SplitHostPort(w.proxy)
	w.Expect(err).NotTo(HaveOccurred())
	return "-Djavax.net.ssl.trustStore=" + store + " -Djavax.net.ssl.trustStorePassword=changeit" +
		" -Dhttps.proxyHost=" + host + " -Dhttps.proxyPort=" + port
}

// run runs a program to its end, in a folder.
func run(dir string, command ...string) error {
	cmd := exec.Command(command[0], command[1:]...) //nolint:gosec // what these tests say
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", command, err, out)
	}
	return nil
}
