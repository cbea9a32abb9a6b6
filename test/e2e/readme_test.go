package e2e

import (
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// notRun are the documents' sh blocks that are not run here, by their first line, with the reason.
var notRun = map[string]string{
	"make demo # the operator at work, without a Salesforce tenant":                        "takes no cluster",
	"make image IMAGE=registry.example.com/sfmctoken-operator:0.1.0 PLATFORMS=linux/amd64": "needs Docker and a registry: the node is given an image of that name, built from the same Dockerfile",
	helmInstall: "is the other way, which has a test of its own",
}

// removal is run in the end.
const removal = "kubectl delete -f dist/install.yaml"

// helmInstall begins the README's way to install the operator; docs/install.md has another.
const helmInstall = `helm install sfmctoken-operator charts/sfmctoken-operator \`

// The reader has a clone of this repository, an empty cluster, and what the README tells them to make: a package and an
// image. Manifests are applied as they are printed, the operator runs with the settings of config/default, and Marketing
// Cloud is reached by its names, on port 443: only the name service, and the root certificates of the images, lead to
// the stand-in.
func TestAReaderOfTheREADMEGetsFromAnEmptyClusterToAPodThatCallsMarketingCloud(t *testing.T) {
	if node == nil {
		t.Fatal("this needs a node of its own, whose names and images it decides: run it without KUBECONFIG")
	}
	c := accessCluster(t, "marketing", "marketing-emea", "sfmc-platform", "sales")
	install, err := harness.ReadDocument("docs/install.md")
	c.Expect(err).NotTo(HaveOccurred())
	c.serveTenant(install)
	clone, err := harness.NewShell(t.TempDir(), node.Kubeconfig(), node.AssetsDir())
	c.Expect(err).NotTo(HaveOccurred())
	run := func(commands string) {
		t.Helper()
		out, err := clone.Run(t.Context(), commands)
		c.Expect(err).NotTo(HaveOccurred())
		t.Logf("$ %s\n%s", strings.TrimSpace(commands), out)
	}
	read := func(path string) (blocks []harness.Block) {
		doc, err := harness.ReadDocument(path)
		c.Expect(err).NotTo(HaveOccurred())
		return slices.DeleteFunc(doc.Blocks, func(b harness.Block) bool { return b.Lang != "sh" })
	}

	var blocks []harness.Block
	for _, path := range harness.FirstDocuments {
		blocks = append(blocks, read(path)...)
	}
	called, removed := false, false
	for _, b := range blocks {
		reason, skip := notRun[b.FirstLine()]
		switch {
		case skip:
			t.Logf("not run, because it %s:\n%s", reason, b.Text)
		case b.FirstLine() == removal:
			removed = true
		default:
			run(b.Text)
		}
		if strings.Contains(b.Text, " logs deployment/journeys-emea-consumer") {
			c.Eventually(c.sampleLog).WithArguments("marketing").WithTimeout(patience).Should(MatchRegexp(`"organization":\{"id":510004567\}`))
			called = true
		}
	}
	c.Expect(called).To(BeTrue(), "the documents show what the pod prints")

	// What removes the operator takes what it made along.
	c.Expect(removed).To(BeTrue(), "the documents say how to remove it")
	c.awaitGarbageCollector("marketing", "package-owner")
	run(removal)
	c.Eventually(func() string {
		return c.kubectl("get", "secrets", "--all-namespaces", "--selector=app.kubernetes.io/managed-by=sfmctoken-operator", "--output=name")
	}).WithTimeout(patience).Should(BeEmpty())
	c.Expect(c.kubectl("get", "--ignore-not-found", "--output=name", "crd/sfmctokens.sfmctoken.dev", "namespace/"+harness.SystemNamespace)).To(BeEmpty())

	// Then the operator for some namespaces.
	t.Cleanup(func() {
		c.clean("delete", "--ignore-not-found", "--kustomize", harness.Path("config", "namespaced", "cluster"))
	})
	for _, b := range read("docs/namespaced.md") {
		run(b.Text)
	}
	run("kubectl -n marketing apply -f config/samples/sfmctoken_full.yaml")
	run("kubectl -n marketing wait --for=condition=Ready sfmctokens --all --timeout=60s")
}

// The same by the chart: its one command, its own test, and the README's from there on. What is uninstalled takes no
// token away until it is told to.
func TestAReaderWhoHasHelmGetsThereByOneCommand(t *testing.T) {
	if node == nil {
		t.Fatal("this needs a node of its own, whose names and images it decides: run it without KUBECONFIG")
	}
	c := accessCluster(t, "marketing")
	t.Cleanup(func() { c.clean("delete", "--ignore-not-found", "namespace", harness.SystemNamespace) })
	readme, err := harness.ReadDocument("README.md")
	c.Expect(err).NotTo(HaveOccurred())
	install, err := harness.ReadDocument("docs/install.md")
	c.Expect(err).NotTo(HaveOccurred())
	tokens, err := harness.ReadDocument("docs/tokens.md")
	c.Expect(err).NotTo(HaveOccurred())
	ofChart, err := harness.ReadDocument("charts/sfmctoken-operator/README.md")
	c.Expect(err).NotTo(HaveOccurred())
	c.serveTenant(install)
	bin := t.TempDir()
	c.Expect(os.Symlink(harness.Path(".cache", "bin", "helm"), filepath.Join(bin, "helm"))).To(Succeed())
	clone, err := harness.NewShell(t.TempDir(), node.Kubeconfig(), bin+string(filepath.ListSeparator)+node.AssetsDir())
	c.Expect(err).NotTo(HaveOccurred())
	run := func(doc harness.Document, begins string) {
		t.Helper()
		i := slices.IndexFunc(doc.Blocks, func(b harness.Block) bool { return strings.HasPrefix(b.Text, begins) })
		c.Expect(i).To(BeNumerically(">=", 0), "%s has a block that begins with %q", doc.Path, begins)
		out, err := clone.Run(t.Context(), doc.Blocks[i].Text)
		c.Expect(err).NotTo(HaveOccurred())
		t.Logf("$ %s\n%s", strings.TrimSpace(doc.Blocks[i].Text), out)
	}

	run(readme, helmInstall)
	run(ofChart, "kubectl label namespace ")
	run(install, "kubectl -n sfmctoken-system rollout status ")
	head, err := exec.CommandContext(t.Context(), "git", "-C", harness.Path(), "rev-parse", "HEAD").Output() //nolint:gosec // this repository
	c.Expect(err).NotTo(HaveOccurred())
	logs := c.kubectl("-n", harness.SystemNamespace, "logs", "deployment/sfmctoken-operator")
	c.Expect(logs).To(ContainSubstring(`"revision":"`+strings.TrimSpace(string(head))+`"`), "the image tells what it was built from")
	run(ofChart, "helm --namespace sfmctoken-system test ")
	run(readme, "kubectl create namespace marketing\n")
	run(tokens, "kubectl -n marketing apply -f config/samples/sfmctoken_minimal.yaml ")
	run(tokens, "kubectl -n marketing apply -f config/samples/consumer.yaml")
	run(tokens, "kubectl -n marketing rollout status deployment/journeys-emea-consumer")
	c.Eventually(c.sampleLog).WithArguments("marketing").WithTimeout(patience).Should(MatchRegexp(`"organization":\{"id":510004567\}`))

	run(ofChart, "helm --namespace sfmctoken-system uninstall ")
	c.Expect(c.kubectl("-n", "marketing", "get", "secret", "journeys-emea-token", "--output=jsonpath={.data.access_token}")).NotTo(BeEmpty())
	c.awaitGarbageCollector("marketing", "package-owner")
	run(ofChart, "kubectl delete crd ")
	c.Eventually(func() string {
		return c.kubectl("get", "secrets", "--all-namespaces", "--selector=app.kubernetes.io/managed-by=sfmctoken-operator", "--output=name")
	}).WithTimeout(patience).Should(BeEmpty())
}

// awaitGarbageCollector deletes an SFMCToken, and waits until its Secret is gone. From then on the garbage collector knows
// the kind, as it does after a minute in any cluster.
func (c *clusterAccess) awaitGarbageCollector(namespace, name string) {
	c.t.Helper()
	c.kubectl("-n", namespace, "delete", "sfmctoken", name)
	c.Eventually(func() string {
		return c.kubectl("-n", namespace, "get", "--ignore-not-found", "--output=name", "secret/"+name)
	}).WithTimeout(patience).Should(BeEmpty())
}

// serveTenant makes the tenant and the package of config/samples, and images that trust the tenant's certificate.
func (c *clusterAccess) serveTenant(install harness.Document) {
	c.t.Helper()
	var credentials corev1.Secret
	readSample(c, "credentials.yaml", &credentials)
	authBaseURI, err := url.Parse(credentials.StringData["auth_base_uri"])
	c.Expect(err).NotTo(HaveOccurred())
	tenant, _, _ := strings.Cut(authBaseURI.Hostname(), ".")
	names := make([]string, 0, 3)
	for _, api := range []string{"auth", "rest", "soap"} {
		names = append(names, tenant+"."+api+".marketingcloudapis.com")
	}
	c.serveNames()
	standIn := sfmctest.Start(c.t, sfmctest.Options{
		Listen: net.JoinHostPort(localcluster.NodeAddress, "443"),
		Hosts:  names,
		Packages: []sfmctest.Package{{
			ClientID:     credentials.StringData["client_id"],
			ClientSecret: credentials.StringData["client_secret"],
			AccountID:    "510000001",
			AccountIDs:   []string{"510004567", "510009999"},
			Scopes:       []string{"journeys_read", "data_extensions_write"},
		}},
	})
	image := regexp.MustCompile(`IMAGE=(\S+)`).FindStringSubmatch(install.Text)
	c.Expect(image).NotTo(BeNil())
	c.importImage(localcluster.Image{Name: image[1], From: operatorImage(), Texts: c.rootsWith(standIn.CACert())})
	c.importCurl(c.sampleConsumer().Spec.Template.Spec.Containers[0].Image, standIn.CACert()...)
}

// readSample reads a manifest of config/samples.
func readSample(c *clusterAccess, name string, into any) {
	c.t.Helper()
	raw, err := os.ReadFile(harness.Path("config", "samples", name))
	c.Expect(err).NotTo(HaveOccurred())
	c.Expect(yaml.UnmarshalStrict(raw, into)).To(Succeed())
}
