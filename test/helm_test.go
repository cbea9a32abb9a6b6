package test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// helmUser is a person at a cluster that has nothing of the operator yet, with one version of Helm.
type helmUser struct {
	*world
	clone *harness.Shell // with that version of Helm
}

// startBareCluster starts a control plane that has nothing of the operator, and has the tests use it until this one ends.
func startBareCluster(t *testing.T, options localcluster.Options) {
	g := NewWithT(t)
	options.Out = os.Stderr
	bare, err := localcluster.Start(context.Background(), options) // until the last cleanup
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(bare.Stop()).To(Succeed()) })
	before := harness.Shared{Cluster: cluster, Admin: admin, Operator: operator}
	t.Cleanup(func() { cluster, admin, operator = before.Cluster, before.Admin, before.Operator })
	cluster, operator = bare, nil
	admin, err = client.NewWithWatch(bare.Config(), client.Options{Scheme: harness.Scheme})
	g.Expect(err).NotTo(HaveOccurred())
}

func newHelmUser(t *testing.T, tool func() (string, error)) helmUser {
	g := NewWithT(t)
	program, err := tool()
	g.Expect(err).NotTo(HaveOccurred())
	startBareCluster(t, localcluster.Options{})
	bin := t.TempDir()
	g.Expect(os.Symlink(program, filepath.Join(bin, "helm"))).To(Succeed())
	g.Expect(os.Symlink(filepath.Join(cluster.AssetsDir(), "kubectl"), filepath.Join(bin, "kubectl"))).To(Succeed())
	clone, err := harness.NewShell(t.TempDir(), cluster.Kubeconfig(), bin)
	g.Expect(err).NotTo(HaveOccurred())
	return helmUser{newRealTimeWorld(t, sfmctest.Options{}), clone}
}

func (u helmUser) run(commands string) string {
	u.t.Helper()
	out, err := u.clone.Run(u.ctx, commands)
	u.Expect(err).NotTo(HaveOccurred())
	u.t.Logf("$ %s\n%s", strings.TrimSpace(commands), out)
	return out
}

// documented is the command of a document that begins like that.
func (u helmUser) documented(path, begins string) string {
	u.t.Helper()
	for _, block := range readDocument(u.WithT, path).Blocks {
		if strings.HasPrefix(block.Text, begins) {
			return block.Text
		}
	}
	u.t.Fatalf("%s has no command that begins with %q", path, begins)
	return ""
}

func (u helmUser) deployment(namespace string) *appsv1.Deployment {
	u.t.Helper()
	deployment := &appsv1.Deployment{}
	u.Expect(admin.Get(u.ctx, client.ObjectKey{Namespace: namespace, Name: "sfmctoken-operator"}, deployment)).To(Succeed())
	return deployment
}

// starts runs the operator as the release's pods would: with its ServiceAccount and arguments.
func (u helmUser) starts(namespace string) *process {
	u.t.Helper()
	account, err := cluster.ServiceAccountConfig(u.ctx, namespace, harness.ServiceAccount)
	u.Expect(err).NotTo(HaveOccurred())
	args := u.deployment(namespace).Spec.Template.Spec.Containers[0].Args
	u.Expect(args[0]).To(Equal("--leader-elect"))
	metrics, err := harness.FreeAddress()
	u.Expect(err).NotTo(HaveOccurred())
	// Outside of a pod, the process can't know its namespace, and its port may be taken.
	own := []string{"--leader-election-namespace", namespace, "--metrics-bind-address", metrics}
	return u.startProcessAs(account, append(args, own...)...)
}

func (u helmUser) kinds() int {
	u.t.Helper()
	out, err := cluster.Kubectl(u.ctx, "get", "crds", "-o", "name")
	u.Expect(err).NotTo(HaveOccurred())
	return strings.Count(out, "sfmctoken.dev")
}

const chartREADME = chart + "/README.md"

func TestHelmInstallsUpgradesRollsBackAndUninstalls(t *testing.T) {
	for version, tool := range map[string]func() (string, error){"4.3": helm4, "3.22": helm3} {
		t.Run(version, func(t *testing.T) {
			u := newHelmUser(t, tool)
			u.Expect(u.run("helm version --short")).To(HavePrefix("v" + version))
			const namespace = harness.SystemNamespace
			install := u.documented("README.md", "helm install ")
			u.Expect(u.documented(chartREADME, "helm install ")).To(Equal(install), "it is one command")
			u.Expect(u.run(install)).To(ContainSubstring("looks after the SFMCTokens in all namespaces"))
			u.run(u.documented(chartREADME, "kubectl label namespace"))
			u.starts(namespace)
			token := u.token("journeys")
			u.ready("journeys")

			// Neither an upgrade nor a rollback is anything to a token.
			before := u.deployment(namespace).Spec
			u.run("helm upgrade sfmctoken-operator " + chart + " --namespace " + namespace +
				" --reuse-values --set replicaCount=3 --set 'extraArgs={--log-level=debug}' --set metrics.enabled=false")
			after := u.deployment(namespace).Spec
			u.Expect(after.Replicas).To(HaveValue(BeEquivalentTo(3)))
			u.Expect(after.Template.Spec.Containers[0].Args).To(Equal([]string{"--leader-elect", "--log-level=debug"}))
			u.run("helm rollback sfmctoken-operator 1 --namespace " + namespace)
			u.Expect(u.deployment(namespace).Spec).To(Equal(before))

			// An uninstall keeps what people made, and the next install takes it over.
			secret := u.secret("journeys")
			u.run(u.documented(chartREADME, "helm --namespace sfmctoken-system uninstall"))
			u.Expect(admin.Get(u.ctx, client.ObjectKeyFromObject(u.operatorRole()), u.operatorRole())).NotTo(Succeed())
			u.Expect(u.kinds()).To(Equal(2))
			u.Expect(u.get("journeys").UID).To(Equal(token.UID))
			u.Expect(u.secret("journeys")).To(Equal(secret))
			u.run(install)
			u.starts(namespace)
			change(u.world, u.secret("journeys"), func(s *corev1.Secret) { s.Data["access_token"] = []byte("garbage") })
			u.Eventually(func() bool { return u.alive(u.held("journeys"), unit) }).Should(BeTrue(), "it works again")
			u.Expect(u.sfmc.Count()).To(BeNumerically("<=", 2))

			// Told to, it takes everything away, by the garbage collector, which looks for new kinds every 30 s.
			u.token("short-lived")
			u.ready("short-lived")
			u.Expect(admin.Delete(u.ctx, u.get("short-lived"))).To(Succeed())
			u.Eventually(func() *corev1.Secret { return u.secret("short-lived") }).Should(BeNil())
			u.run("helm upgrade sfmctoken-operator " + chart + " --namespace " + namespace + " --reuse-values --set crds.keep=false")
			u.run(u.documented(chartREADME, "helm --namespace sfmctoken-system uninstall"))
			u.Eventually(u.kinds).Should(BeZero())
			u.Eventually(func() *corev1.Secret { return u.secret("journeys") }).Should(BeNil())

			u.run(install)
			u.run(u.documented(chartREADME, "kubectl delete crd"))
			u.Eventually(u.kinds).Should(BeZero())
			u.run(u.documented(chartREADME, "helm --namespace sfmctoken-system uninstall"))
			u.inTwoNamespaces()
		})
	}
}

func (u helmUser) operatorRole() *rbacv1.ClusterRole {
	return &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "sfmctoken-operator"}}
}

// inTwoNamespaces is the chart for somebody who is admin of two namespaces and nothing else.
func (u helmUser) inTwoNamespaces() {
	u.t.Helper()
	u.run(u.documented(chartREADME, "kubectl apply --server-side -k config/namespaced/cluster"))
	third := u.ns
	for _, ns := range []string{"marketing", "sales"} {
		u.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, &rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "tester"},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "admin"},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "tester"}},
		}, harness.CredentialsSecret(ns, "sfmc-package", u.sfmc, u.pkg))
	}
	install := u.documented(chartREADME, "helm install sfmctoken-operator "+chart+" --namespace marketing")
	u.Eventually(func() error { // once the controller manager has added the new ClusterRoles to admin
		_, err := cluster.Kubectl(context.Background(), "auth", "can-i", "create", "sfmctokens", "--as", "tester", "-n", "marketing")
		return err
	}).Should(Succeed())
	u.run("export HELM_KUBEASUSER=tester\n" + install)
	u.starts("marketing")
	for _, u.ns = range []string{third, "sales", "marketing"} { // the third first, so that it has had its chance
		u.token("journeys")
	}
	for _, u.ns = range []string{"sales", "marketing"} {
		u.ready("journeys")
	}
	u.ns = third
	u.Expect(u.get("journeys").Status).To(Equal(v1alpha1.SFMCTokenStatus{ObservedGeneration: -1}), "never looked at")
	u.run("HELM_KUBEASUSER=tester helm uninstall sfmctoken-operator --namespace marketing")
	u.Expect(u.secret("journeys")).To(BeNil())
}
