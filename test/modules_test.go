package test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// Kubernetes' client is a third of what a first run compiles. Modules that hold the same versions of all that it needs
// share it; one other version of golang.org/x/net is enough to compile it again.
func TestTheModulesCompileKubernetesClientOnce(t *testing.T) {
	g := NewWithT(t)
	list := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "k8s.io/client-go/kubernetes", "k8s.io/client-go/dynamic")
	list.Dir = harness.Path()
	out, err := list.Output()
	g.Expect(err).NotTo(HaveOccurred())
	needed := strings.Fields(string(out))
	g.Expect(needed).To(ContainElements("k8s.io/api", "golang.org/x/net"))
	want := requiredBy(g, "go.mod")
	for _, module := range []string{
		"test", "hack/localcluster", "hack/localcluster/binaries",
		"hack/tools/controller-gen", "hack/tools/helm", "hack/tools/prometheus",
	} {
		has := requiredBy(g, module, "go.mod")
		for _, path := range needed {
			if version := has[path]; version != "" {
				g.Expect(version).To(Equal(want[path]), "%s in %s/go.mod", path, module)
			}
		}
	}
}

// requiredBy has the versions that a go.mod names, which are all that are built from: it names what is indirect, too.
func requiredBy(g *WithT, path ...string) map[string]string {
	text, err := os.ReadFile(harness.Path(path...))
	g.Expect(err).NotTo(HaveOccurred())
	versions := map[string]string{}
	for _, line := range regexp.MustCompile(`(?m)^(?:require )?\s*(\S+) (v\S+)(?: // indirect)?$`).FindAllStringSubmatch(string(text), -1) {
		versions[line[1]] = line[2]
	}
	return versions
}
