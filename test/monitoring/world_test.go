package monitoring

import (
	"context"
	"net"
	"os/exec"
	"slices"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

const (
	// patience bounds every wait; it decides nothing, since what is waited for has to come.
	patience = 10 * time.Minute
	account  = "510004567"
	// shortLife makes a refresh due soon: the alerts on overdue ones need no quarter of an hour.
	shortLife = 90 * time.Second
	replicas  = 2
)

// world is two tenants of Marketing Cloud, two replicas of the operator and a Prometheus that scrapes them.
type world struct {
	*WithT
	t          *testing.T
	ctx        context.Context
	steady     *sfmctest.Server // its tokens live as long as Salesforce's
	hasty      *sfmctest.Server // its tokens live for shortLife
	packages   map[string]sfmctest.Package
	addresses  []string // of the replicas' metrics
	replicas   []*harness.Process
	prometheus prometheus
}

// in is the same world for a subtest.
func (w *world) in(t *testing.T) *world {
	within := *w
	within.WithT, within.t, within.ctx = NewWithT(t), t, t.Context()
	within.SetDefaultEventuallyTimeout(patience)
	within.SetDefaultEventuallyPollingInterval(time.Second)
	return &within
}

// newWorld starts all. Each namespace has a package and an SFMCToken "journeys", but marketing and sales share one.
func newWorld(t *testing.T) *world {
	w := (&world{packages: map[string]sfmctest.Package{}}).in(t)
	for _, namespace := range []string{"marketing", "loyalty", "service", "partners"} {
		pkg := harness.Package()
		pkg.ClientID = "client-id-of-" + namespace
		w.packages[namespace] = pkg
	}
	w.packages["sales"] = w.packages["marketing"]
	w.steady = sfmctest.Start(t, sfmctest.Options{})
	w.hasty = sfmctest.Start(t, sfmctest.Options{ExpiresIn: shortLife})
	for namespace, pkg := range w.packages {
		if namespace != "sales" { // that is marketing's
			w.Expect(w.host(namespace).AddPackage(pkg)).To(Succeed())
		}
		w.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}})
		w.create(harness.CredentialsSecret(namespace, "sfmc-package", w.host(namespace), pkg))
		w.create(harness.Token(namespace, "journeys", "sfmc-package", account))
	}
	w.letPrometheusIn()
	for _, pod := range w.pods() {
		address, err := harness.FreeAddress()
		w.Expect(err).NotTo(HaveOccurred())
		_, port, err := net.SplitHostPort(address)
		w.Expect(err).NotTo(HaveOccurred())
		address = net.JoinHostPort(w.machineAddress(), port)
		w.addresses = append(w.addresses, address)
		w.discover(pod, address)
	}
	w.startReplicas()
	w.startPrometheus()
	return w
}

// host is the tenant that a namespace's credentials name.
func (w *world) host(namespace string) *sfmctest.Server {
	if namespace == "loyalty" {
		return w.hasty
	}
	return w.steady
}

// letPrometheusIn gives its ServiceAccount what docs tell people to: the shipped ClusterRole. What Prometheus needs to
// find its targets is of the Prometheus operator's documentation.
func (w *world) letPrometheusIn() {
	w.t.Helper()
	account := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: "monitoring", Name: "prometheus"}
	in := metav1.ObjectMeta{Namespace: harness.SystemNamespace, Name: "prometheus"}
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName}
	reader, finder := ref, ref
	reader.Kind, reader.Name = "ClusterRole", "sfmctoken-operator-metrics-reader"
	finder.Kind, finder.Name = "Role", in.Name
	verbs := []string{"get", "list", "watch"}
	for _, object := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: account.Namespace}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: account.Namespace, Name: account.Name}},
		&rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: in.Name}, RoleRef: reader, Subjects: []rbacv1.Subject{account},
		},
		&rbacv1.Role{ObjectMeta: in, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"services", "pods"}, Verbs: verbs},
			{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: verbs},
		}},
		&rbacv1.RoleBinding{ObjectMeta: in, RoleRef: finder, Subjects: []rbacv1.Subject{account}},
	} {
		w.create(object)
	}
}

// startReplicas starts both, as the Deployment does.
func (w *world) startReplicas() {
	w.t.Helper()
	for _, address := range w.addresses {
		log := &harness.Log{}
		replica, err := harness.StartProcess(harness.ProcessOptions{
			Config: shared.Operator, Dir: w.t.TempDir(), Log: log,
			AuthHosts: []string{w.steady.Host(), w.hasty.Host()},
			CA:        slices.Concat(w.steady.CACert(), w.hasty.CACert()),
			Flags: []string{"--leader-elect", "--leader-election-namespace", harness.SystemNamespace,
				"--metrics-bind-address", address},
		})
		w.Expect(err).NotTo(HaveOccurred())
		w.ended(replica, log)
		w.replicas = append(w.replicas, replica)
	}
}

// start runs a program until the test ends.
func (w *world) start(cmd *exec.Cmd) {
	w.t.Helper()
	log := &harness.Log{}
	cmd.Stdout, cmd.Stderr = log, log
	process, err := harness.StartCommand(cmd)
	w.Expect(err).NotTo(HaveOccurred())
	w.ended(process, log)
}

// ended has a process end with the test, and its log shown if that failed.
func (w *world) ended(process *harness.Process, log *harness.Log) {
	w.t.Cleanup(func() {
		process.Kill()
		if w.t.Failed() {
			w.t.Logf("the log of process %d:\n%s", process.PID(), log)
		}
	})
}

func (w *world) create(object client.Object) {
	w.t.Helper()
	w.Expect(shared.Admin.Create(w.ctx, object)).To(Succeed())
}

// change updates an object as a person with kubectl edit does.
func change[T client.Object](w *world, object T, edit func(T)) {
	w.t.Helper()
	w.Eventually(func() error {
		if err := shared.Admin.Get(w.ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		edit(object)
		return shared.Admin.Update(w.ctx, object)
	}).Should(Succeed())
}

// refresh asks for a new token, as a person does.
func (w *world) refresh(why string, namespaces ...string) {
	w.t.Helper()
	for _, namespace := range namespaces {
		change(w, harness.Token(namespace, "journeys", "", ""), func(token *v1alpha1.SFMCToken) {
			token.Annotations = map[string]string{v1alpha1.RefreshRequestedAtAnnotation: why}
		})
	}
}

// secretEnds says in a namespace's credentials when their client secret ends.
func (w *world) secretEnds(namespace string, at time.Time) {
	w.t.Helper()
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "sfmc-package"}}
	change(w, secret, func(s *corev1.Secret) {
		s.Data["client_secret_expires_at"] = []byte(at.UTC().Format(time.RFC3339))
	})
}
