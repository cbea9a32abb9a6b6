// Package release uses what `make release` has made, as people do who download it: on a node of its own, which needs root
// on Linux.
package release

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

var node *localcluster.Cluster

func dist(elements ...string) string { return harness.Path(append([]string{"dist"}, elements...)...) }

func tool(name string) string { return harness.Path(".cache", "bin", name) }

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	if err := startNode(); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		return 1
	}
	defer node.Stop() //nolint:errcheck // the tests have their verdict by then
	return m.Run()
}

func startNode() error {
	err := localcluster.Isolate(func(ctx context.Context) error {
		_, err := localcluster.NodeBinaries(ctx)
		return err
	})
	if err != nil {
		return err
	}
	if node, err = localcluster.Start(context.Background(), localcluster.Options{Node: true, Out: os.Stderr}); err != nil {
		return err
	}
	return errors.Join(
		os.Setenv("KUBECONFIG", node.Kubeconfig()),
		os.Setenv("PATH", node.AssetsDir()+string(filepath.ListSeparator)+os.Getenv("PATH")))
}

// do runs a command in a folder, and returns what it printed.
func do(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...) //nolint:gosec // of this test
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	NewWithT(t).Expect(err).NotTo(HaveOccurred(), "%s %s\n%s", name, strings.Join(args, " "), out)
	return string(out)
}

// version is that of the release, which its chart's name tells.
func version(t *testing.T) string {
	t.Helper()
	charts, err := filepath.Glob(dist("release", "sfmctoken-operator-*.tgz"))
	g := NewWithT(t)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(charts).To(HaveLen(1), "make release")
	return "v" + strings.TrimSuffix(strings.TrimPrefix(filepath.Base(charts[0]), "sfmctoken-operator-"), ".tgz")
}

func chart(t *testing.T) string {
	return dist("release", "sfmctoken-operator-"+strings.TrimPrefix(version(t), "v")+".tgz")
}

func TestAReleaseHasAllFilesAndTheirSums(t *testing.T) {
	g := NewWithT(t)
	do(t, dist("release"), "sha256sum", "--check", "--strict", "SHA256SUMS")
	want := []string{
		"SHA256SUMS", "crds.yaml", "install.yaml", filepath.Base(chart(t)), "sfmctoken.yaml", "sfmctoken-operator_image.tar",
		"sfmctoken_v1alpha1.json", "sfmcaccessgrant_v1alpha1.json",
	}
	for program, platforms := range map[string][]string{
		"sfmctoken-operator": {"linux"}, "kubectl-sfmctoken": {"linux", "darwin", "windows"},
	} {
		for _, platform := range platforms {
			for _, arch := range []string{"amd64", "arm64"} {
				kind := ".tar.gz"
				if platform == "windows" {
					kind = ".zip"
				}
				name := program + "_" + platform + "_" + arch
				want = append(want, name+kind, name+".cdx.json")
			}
		}
	}
	entries, err := os.ReadDir(dist("release"))
	g.Expect(err).NotTo(HaveOccurred())
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	g.Expect(names).To(ConsistOf(want))
	sums, err := os.ReadFile(dist("release", "SHA256SUMS"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(strings.Count(string(sums), "\n")).To(Equal(len(want) - 1))
}

func TestThePluginOfAReleaseRunsAndKrewInstallsIt(t *testing.T) {
	g := NewWithT(t)
	archive := dist("release", fmt.Sprintf("kubectl-sfmctoken_%s_%s.tar.gz", runtime.GOOS, runtime.GOARCH))
	home := t.TempDir()
	t.Setenv("KREW_ROOT", home)
	t.Setenv("PATH", filepath.Join(home, "bin")+string(filepath.ListSeparator)+os.Getenv("PATH"))
	do(t, home, tool("krew"), "install", "--manifest="+dist("release", "sfmctoken.yaml"), "--archive="+archive)
	said := do(t, home, "kubectl", "sfmctoken", "--version")
	g.Expect(said).To(ContainSubstring(version(t) + " (commit " + head(t) + ","))
}

func head(t *testing.T) string {
	t.Helper()
	return strings.TrimSpace(do(t, harness.Path(), "git", "rev-parse", "HEAD"))
}

// The image is the Dockerfile's, for both platforms.
func TestTheImageIsForBothPlatformsAndComesThroughARegistry(t *testing.T) {
	g := NewWithT(t)
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	g.Expect(err).NotTo(HaveOccurred())
	address := listener.Addr().String()
	g.Expect(listener.Close()).To(Succeed())
	registry := exec.CommandContext(t.Context(), tool("crane"), "registry", "serve", "--address="+address) //nolint:gosec // of this test
	g.Expect(registry.Start()).To(Succeed())
	t.Cleanup(func() { _ = registry.Process.Kill(); _ = registry.Wait() })
	image := address + "/sfmctoken-operator:" + version(t)
	g.Eventually(func() error {
		return exec.CommandContext(t.Context(), tool("crane"), "push", dist("image"), image).Run() //nolint:gosec // of this test
	}).WithTimeout(time.Minute).Should(Succeed())
	for _, arch := range []string{"amd64", "arm64"} {
		var config struct {
			Architecture string
			Config       struct {
				User       string
				Entrypoint []string
				Labels     map[string]string
			}
		}
		said := do(t, "", tool("crane"), "config", "--platform=linux/"+arch, image)
		g.Expect(json.Unmarshal([]byte(said), &config)).To(Succeed())
		g.Expect(config.Architecture).To(Equal(arch))
		g.Expect(config.Config.User).To(Equal("65532:65532"))
		g.Expect(config.Config.Entrypoint).To(Equal([]string{"/sfmctoken-operator"}))
		g.Expect(config.Config.Labels).To(HaveKeyWithValue("org.opencontainers.image.version", version(t)))
		g.Expect(config.Config.Labels).To(HaveKeyWithValue("org.opencontainers.image.revision", head(t)))
		g.Expect(config.Config.Labels).To(HaveLen(6), "those of the Dockerfile")
		archive := filepath.Join(t.TempDir(), "files.tar")
		do(t, "", tool("crane"), "export", "--platform=linux/"+arch, image, archive)
		g.Expect(do(t, "", "tar", "-tf", archive)).To(Equal("sfmctoken-operator\n"), "nothing but the binary")
	}
}

func TestTheChartAndTheImageOfAReleaseRunOnANode(t *testing.T) {
	g := NewWithT(t)
	g.Expect(node.ImportImage(t.Context(), dist("release", "sfmctoken-operator_image.tar"))).To(Succeed())
	do(t, "", tool("helm"), "install", "sfmctoken-operator", chart(t), "--namespace", harness.SystemNamespace, "--create-namespace",
		"--wait", "--timeout=5m")
	logs := do(t, "", "kubectl", "-n", harness.SystemNamespace, "logs", "deployment/sfmctoken-operator")
	g.Expect(logs).To(ContainSubstring(`"version":"` + version(t) + `"`))
	g.Expect(logs).To(ContainSubstring(`"revision":"` + head(t) + `"`))
	do(t, "", tool("helm"), "--namespace", harness.SystemNamespace, "test", "sfmctoken-operator")

	// install.yaml asks for the same.
	manifests, err := os.ReadFile(dist("release", "install.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	running := do(t, "", "kubectl", "-n", harness.SystemNamespace, "get", "deployment", "sfmctoken-operator",
		"--output=jsonpath={.spec.template.spec.containers[0].image}")
	g.Expect(running).To(HaveSuffix("/sfmctoken-operator:" + version(t)))
	g.Expect(strings.Count(string(manifests), "image: "+running+"\n")).To(Equal(1))
	do(t, "", tool("helm"), "--namespace", harness.SystemNamespace, "uninstall", "sfmctoken-operator", "--wait")
	do(t, "", "kubectl", "delete", "-f", dist("release", "crds.yaml"))
	do(t, "", "kubectl", "apply", "--server-side", "-f", dist("release", "install.yaml"))
	do(t, "", "kubectl", "-n", harness.SystemNamespace, "rollout", "status", "deployment/sfmctoken-operator", "--timeout=5m")
}

func TestTheSchemasOfAReleaseAreWhatKubeconformChecksWith(t *testing.T) {
	g := NewWithT(t)
	sample := harness.Path("config", "samples", "sfmctoken_full.yaml")
	raw, err := os.ReadFile(sample) //nolint:gosec // of this repository
	g.Expect(err).NotTo(HaveOccurred())
	check := func(manifests string) (string, error) {
		cmd := exec.CommandContext(t.Context(), tool("kubeconform"), "-schema-location", //nolint:gosec // of this test
			dist("release", "{{.ResourceKind}}_{{.ResourceAPIVersion}}.json"), "-summary", "-")
		cmd.Stdin = strings.NewReader(manifests)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	said, err := check(string(raw))
	g.Expect(err).NotTo(HaveOccurred(), said)
	g.Expect(said).To(ContainSubstring("Skipped: 0"))
	for what, spoilt := range map[string]string{
		"an unknown field": strings.Replace(string(raw), "spec:\n", "spec:\n  acountID: \"1\"\n", 1),
		"a number":         regexp.MustCompile(`accountID: "(\d+)"`).ReplaceAllString(string(raw), "accountID: $1"),
	} {
		g.Expect(spoilt).NotTo(Equal(string(raw)))
		said, err := check(spoilt)
		g.Expect(err).To(HaveOccurred(), what+": "+said)
		g.Expect(said).To(ContainSubstring("Invalid: 1"), what)
	}
}
