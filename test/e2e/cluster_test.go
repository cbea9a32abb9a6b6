package e2e

import (
	"context"
	"os/exec"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// patience is for what takes seconds on a machine that has nothing else to do.
const patience = 2 * time.Minute

// clusterAccess is the cluster that KUBECONFIG names, which has no operator, and will have none afterwards.
type clusterAccess struct {
	*WithT
	t       *testing.T
	api     client.WithWatch
	clients *kubernetes.Clientset
}

// accessCluster refuses a cluster that has the operator or one of the namespaces, and deletes them all when the test ends.
func accessCluster(t *testing.T, namespaces ...string) *clusterAccess {
	t.Helper()
	c := &clusterAccess{WithT: NewWithT(t), t: t}
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(), nil).ClientConfig()
	c.Expect(err).NotTo(HaveOccurred())
	config.QPS = -1 // what is measured must not be the client
	c.api, err = client.NewWithWatch(config, client.Options{Scheme: harness.Scheme})
	c.Expect(err).NotTo(HaveOccurred())
	c.clients, err = kubernetes.NewForConfig(config)
	c.Expect(err).NotTo(HaveOccurred())

	installed := []string{"crd/sfmctokens.sfmctoken.dev"}
	for _, name := range append(namespaces, harness.SystemNamespace) {
		installed = append(installed, "namespace/"+name)
	}
	found := c.kubectl(append([]string{"get", "--ignore-not-found", "--output=name"}, installed...)...)
	c.Expect(found).To(BeEmpty(), "%s has this already: e2e wants a cluster without it, and would delete it afterwards", config.Host)
	t.Logf("on %s", config.Host)
	t.Cleanup(func() {
		c.tellWhatFailed()
		c.clean("delete", "--ignore-not-found", "--kustomize", harness.Path("config", "default"))
		c.clean(append([]string{"delete", "--ignore-not-found", "namespace"}, namespaces...)...)
	})
	return c
}

func (c *clusterAccess) kubectl(args ...string) string {
	c.t.Helper()
	out, err := kubectl(c.t.Context(), args...)
	c.Expect(err).NotTo(HaveOccurred(), out)
	return out
}

// clean runs a command when the test has ended, and goes on whatever comes.
func (c *clusterAccess) clean(args ...string) {
	c.t.Helper()
	if out, err := kubectl(context.Background(), args...); err != nil {
		c.t.Errorf("%v: %v\n%s", args, err, out)
	}
}

// tellWhatFailed shows what a person would look at first.
func (c *clusterAccess) tellWhatFailed() {
	if !c.t.Failed() {
		return
	}
	for _, args := range [][]string{
		{"get", "pods,sfmctokens", "--all-namespaces", "--output=wide"},
		{"get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"},
		{"logs", "--namespace=" + harness.SystemNamespace, "--selector=app.kubernetes.io/name=sfmctoken-operator", "--tail=50", "--prefix"},
	} {
		out, err := kubectl(context.Background(), args...)
		c.t.Logf("kubectl %s (%v)\n%s", strings.Join(args, " "), err, out)
	}
}

func kubectl(ctx context.Context, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "kubectl", args...).CombinedOutput() //nolint:gosec // the test's own arguments
	return strings.TrimSpace(string(out)), err
}

func (c *clusterAccess) create(objects ...client.Object) {
	c.t.Helper()
	for _, object := range objects {
		c.Expect(c.api.Create(c.t.Context(), object)).To(Succeed())
	}
}

// proxy is a request to a pod by way of the API server, as that works in every cluster. A port follows the pod's name,
// and https: comes before it if that is what it speaks.
func (c *clusterAccess) proxy(verb, namespace, pod string) *rest.Request {
	return c.clients.CoreV1().RESTClient().Verb(verb).Namespace(namespace).Resource("pods").SubResource("proxy").Name(pod)
}
