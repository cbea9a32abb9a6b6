package localcluster

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// A slow machine may take this long; a fast one doesn't wait for it.
const patience = 3 * time.Minute

// startCluster starts a cluster that the end of the test stops.
func startCluster(t *testing.T, options Options) (*Cluster, *kubernetes.Clientset) {
	t.Helper()
	options.Out = t.Output()
	cluster, err := Start(context.Background(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	client, err := kubernetes.NewForConfig(cluster.Config())
	if err != nil {
		t.Fatal(err)
	}
	return cluster, client
}

func TestTheClusterBehavesAsARealOne(t *testing.T) {
	cluster, client := startCluster(t, Options{})
	for name, test := range map[string]func(*testing.T, *Cluster, *kubernetes.Clientset){
		"kubectl applies a ConfigMap":                       kubectlAppliesAConfigMap,
		"kubectl says why it was refused":                   kubectlSaysWhyItWasRefused,
		"kubectl and API server tell one version":           oneVersion,
		"a Secret is collected with its owner":              secretIsCollectedWithItsOwner,
		"a deleted namespace goes away with what is in it":  deletedNamespaceGoesAway,
		"RBAC decides what a ServiceAccount may do":         rbacDecides,
		"a written kubeconfig authenticates as its user":    writtenKubeconfigAuthenticates,
		"Pod Security refuses a privileged pod":             podSecurityRefuses,
		"the API server keeps its data and address stopped": apiServerKeepsItsData,
	} {
		t.Run(name, func(t *testing.T) { test(t, cluster, client) })
	}
}

func kubectlAppliesAConfigMap(t *testing.T, cluster *Cluster, client *kubernetes.Clientset) {
	g := NewWithT(t)
	manifest := `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"key": "value"}}`
	out, err := cluster.KubectlInput(t.Context(), strings.NewReader(manifest), "apply", "-f", "-")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(out).To(ContainSubstring("configmap/applied created"))

	got, err := client.CoreV1().ConfigMaps("default").Get(t.Context(), "applied", metav1.GetOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(got.Data).To(HaveKeyWithValue("key", "value"))
}

func kubectlSaysWhyItWasRefused(t *testing.T, cluster *Cluster, _ *kubernetes.Clientset) {
	g := NewWithT(t)
	_, err := cluster.Kubectl(t.Context(), "get", "configmap", "absent")
	g.Expect(err).To(MatchError(ContainSubstring(`configmaps "absent" not found`)))
}

func oneVersion(t *testing.T, cluster *Cluster, _ *kubernetes.Clientset) {
	g := NewWithT(t)
	out, err := cluster.Kubectl(t.Context(), "version")
	g.Expect(err).NotTo(HaveOccurred())
	module, err := findBinariesModule()
	g.Expect(err).NotTo(HaveOccurred())
	version, err := kubernetesVersion(t.Context(), module)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(out).To(ContainSubstring("Client Version: " + version + "\n"))
	g.Expect(out).To(ContainSubstring("Server Version: " + version + "\n"))
}

func secretIsCollectedWithItsOwner(t *testing.T, _ *Cluster, client *kubernetes.Clientset) {
	g := NewWithT(t)
	ctx := t.Context()
	owner, err := client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "owner"}}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	_, err = client.CoreV1().Secrets("default").Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{
		Name:            "owned",
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}},
	}}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())

	g.Expect(client.CoreV1().ConfigMaps("default").Delete(ctx, owner.Name, metav1.DeleteOptions{})).To(Succeed())
	g.Eventually(func() error {
		_, err := client.CoreV1().Secrets("default").Get(ctx, "owned", metav1.GetOptions{})
		return err
	}).WithTimeout(patience).Should(Satisfy(apierrors.IsNotFound))
}

func deletedNamespaceGoesAway(t *testing.T, _ *Cluster, client *kubernetes.Clientset) {
	g := NewWithT(t)
	ctx := t.Context()
	_, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "brief"}}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	_, err = client.CoreV1().Secrets("brief").Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "inside"}}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())

	g.Expect(client.CoreV1().Namespaces().Delete(ctx, "brief", metav1.DeleteOptions{})).To(Succeed())
	g.Eventually(func() error {
		_, err := client.CoreV1().Namespaces().Get(ctx, "brief", metav1.GetOptions{})
		return err
	}).WithTimeout(patience).Should(Satisfy(apierrors.IsNotFound))
}

func rbacDecides(t *testing.T, cluster *Cluster, _ *kubernetes.Clientset) {
	g := NewWithT(t)
	ctx := t.Context()
	config, err := cluster.ServiceAccountConfig(ctx, "default", "default")
	g.Expect(err).NotTo(HaveOccurred())
	asServiceAccount, err := kubernetes.NewForConfig(config)
	g.Expect(err).NotTo(HaveOccurred())
	list := func() error {
		_, err := asServiceAccount.CoreV1().Secrets("default").List(ctx, metav1.ListOptions{})
		return err
	}
	g.Expect(list()).To(And(
		Satisfy(apierrors.IsForbidden),
		MatchError(ContainSubstring("system:serviceaccount:default:default"))))

	_, err = cluster.Kubectl(ctx, "create", "rolebinding", "view-secrets", "--clusterrole=edit", "--serviceaccount=default:default")
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(list).WithTimeout(patience).Should(Succeed())

	_, err = cluster.ServiceAccountConfig(ctx, "default", "absent")
	g.Expect(err).To(MatchError(ContainSubstring(`ServiceAccount default/absent`)))
}

func writtenKubeconfigAuthenticates(t *testing.T, cluster *Cluster, _ *kubernetes.Clientset) {
	g := NewWithT(t)
	config, err := cluster.ServiceAccountConfig(t.Context(), "default", "default")
	g.Expect(err).NotTo(HaveOccurred())
	path := filepath.Join(t.TempDir(), "kubeconfig")
	g.Expect(WriteKubeconfig(config, path)).To(Succeed())

	out, err := cluster.Kubectl(t.Context(), "--kubeconfig="+path, "auth", "whoami")
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(out).To(ContainSubstring("system:serviceaccount:default:default"))
}

func podSecurityRefuses(t *testing.T, cluster *Cluster, client *kubernetes.Clientset) {
	g := NewWithT(t)
	ctx := t.Context()
	_, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "restricted", Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(func() (string, error) {
		return cluster.Kubectl(ctx, "get", "serviceaccount", "default", "-n", "restricted")
	}).WithTimeout(patience).ShouldNot(BeEmpty())

	_, err = cluster.Kubectl(ctx, "run", "refused", "-n", "restricted", "--image=any", "--privileged")
	g.Expect(err).To(MatchError(ContainSubstring(`violates PodSecurity "restricted`)))
}

func apiServerKeepsItsData(t *testing.T, cluster *Cluster, client *kubernetes.Clientset) {
	g := NewWithT(t)
	ctx := t.Context()
	_, err := client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "kept"}}, metav1.CreateOptions{})
	g.Expect(err).NotTo(HaveOccurred())
	get := func() error {
		_, err := client.CoreV1().ConfigMaps("default").Get(ctx, "kept", metav1.GetOptions{})
		return err
	}
	before := cluster.APIServerPID()
	g.Expect(cluster.StartAPIServer(ctx)).To(MatchError(ContainSubstring("StopAPIServer")))

	cluster.StopAPIServer()
	g.Expect(running(before)).To(BeFalse())
	g.Expect(cluster.APIServerPID()).To(BeZero())
	g.Expect(get()).To(MatchError(ContainSubstring("connection refused")))

	g.Expect(cluster.StartAPIServer(ctx)).To(Succeed())
	g.Expect(cluster.APIServerPID()).NotTo(Equal(before))
	g.Expect(get()).To(Succeed())
}

func TestKindsKnownFromTheStartAreCollectedAtOnce(t *testing.T) {
	g := NewWithT(t)
	cluster, client := startCluster(t, Options{CRDs: []string{"testdata/crd.yaml"}})
	ctx := t.Context()
	_, err := cluster.KubectlInput(ctx, strings.NewReader(`{"apiVersion": "example.com/v1", "kind": "Owner", "metadata": {"name": "owner"}}`), "create", "-f", "-")
	g.Expect(err).NotTo(HaveOccurred())
	uid, err := cluster.Kubectl(ctx, "get", "owners.example.com", "owner", "-o", "jsonpath={.metadata.uid}")
	g.Expect(err).NotTo(HaveOccurred())
	manifest := `{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "owned", "ownerReferences": [{"apiVersion": "example.com/v1", "kind": "Owner", "name": "owner", "uid": "` + uid + `"}]}}`
	_, err = cluster.KubectlInput(ctx, strings.NewReader(manifest), "create", "-f", "-")
	g.Expect(err).NotTo(HaveOccurred())

	_, err = cluster.Kubectl(ctx, "delete", "owners.example.com", "owner")
	g.Expect(err).NotTo(HaveOccurred())
	g.Eventually(func() error {
		_, err := client.CoreV1().Secrets("default").Get(ctx, "owned", metav1.GetOptions{})
		return err
	}).WithTimeout(15 * time.Second).Should(Satisfy(apierrors.IsNotFound))
}

func TestAFailedStartSaysWhyAndLeavesNothing(t *testing.T) {
	g := NewWithT(t)
	t.Setenv("TMPDIR", t.TempDir())
	_, err := Start(t.Context(), Options{Out: io.Discard, APIServerFlags: []string{"--no-such-flag"}})
	g.Expect(err).To(MatchError(And(ContainSubstring("kube-apiserver did not become ready"), ContainSubstring("unknown flag: --no-such-flag"))))
	g.Expect(os.ReadDir(os.Getenv("TMPDIR"))).To(BeEmpty())
}

func TestNothingIsLeftOnceTheContextEnds(t *testing.T) {
	g := NewWithT(t)
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cluster, err := Start(ctx, Options{})
	g.Expect(err).NotTo(HaveOccurred())
	pids := []int{cluster.etcd.pid, cluster.apiServer.pid, cluster.controllerManager.pid}
	for _, pid := range pids {
		g.Expect(running(pid)).To(BeTrue())
	}

	cancel()
	g.Eventually(func() ([]os.DirEntry, error) { return os.ReadDir(os.Getenv("TMPDIR")) }).WithTimeout(patience).Should(BeEmpty())
	for _, pid := range pids {
		g.Expect(running(pid)).To(BeFalse())
	}
	g.Expect(cluster.Stop()).To(Succeed())
	g.Expect(cluster.StartAPIServer(t.Context())).To(MatchError(ContainSubstring("start a new one")))
	_, err = net.Dial("tcp", net.JoinHostPort(loopback, cluster.port))
	g.Expect(err).To(HaveOccurred())
}
