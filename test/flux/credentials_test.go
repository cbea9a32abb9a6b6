package flux

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/test/flux/layout"
)

// published are the modules in which projects publish their CRDs, and those of them that the examples need.
var published = map[string][]string{
	"github.com/external-secrets/external-secrets@v1.3.2": {
		"config/crds/bases/external-secrets.io_secretstores.yaml", "config/crds/bases/external-secrets.io_externalsecrets.yaml",
	},
	"github.com/bitnami-labs/sealed-secrets@v0.40.0": {"helm/sealed-secrets/crds/bitnami.com_sealedsecrets.yaml"},
}

// TestTheExamplesOfCredentialsAreWhatThePublishedCRDsTake applies each, and looks which Secret it asks for.
func TestTheExamplesOfCredentialsAreWhatThePublishedCRDsTake(t *testing.T) {
	g, ctx := NewWithT(t), t.Context()
	var crds []string
	for module, files := range published {
		dir := moduleDir(t, module)
		for _, file := range files {
			crds = append(crds, filepath.Join(dir, file))
		}
	}
	cluster, err := localcluster.Start(ctx, localcluster.Options{CRDs: crds})
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { g.Expect(cluster.Stop()).To(Succeed()) })
	_, err = cluster.Kubectl(ctx, "create", "namespace", "sfmc-platform")
	g.Expect(err).NotTo(HaveOccurred())
	folder := filepath.Join(layout.Dir(), "credentials")
	for file, example := range map[string]struct{ kind, path, secret string }{
		"external_secrets.yaml": {"externalsecret", "{.spec.target.name} {.spec.data[*].secretKey}", "sfmc-package client_id client_secret auth_base_uri"},
		"vault.yaml":            {"externalsecret", "{.spec.target.name}", "sfmc-package"},
		"sealed_secrets.yaml":   {"sealedsecret", "{.metadata.name} {.spec.encryptedData}", "sfmc-package.*auth_base_uri.*client_id.*client_secret"},
	} {
		path := filepath.Join(folder, file)
		_, err := cluster.Kubectl(ctx, "apply", "--server-side", "--validate=strict", "-f", path)
		g.Expect(err).NotTo(HaveOccurred(), file)
		out, err := cluster.Kubectl(ctx, "-n", "sfmc-platform", "get", example.kind, "sfmc-package", "-o", "jsonpath="+example.path)
		g.Expect(err).NotTo(HaveOccurred(), file)
		g.Expect(out).To(MatchRegexp(example.secret), file)
		_, err = cluster.Kubectl(ctx, "delete", "-f", path)
		g.Expect(err).NotTo(HaveOccurred(), file)
	}
	files, err := os.ReadDir(folder)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(files).To(HaveLen(3), "each is tried")
}

// moduleDir downloads a module, which isn't compiled, and returns its folder.
func moduleDir(t *testing.T, module string) string {
	g := NewWithT(t)
	download := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module) //nolint:gosec // of this test
	download.Dir = t.TempDir()                                                             // outside of this module, which doesn't need it
	out, err := download.Output()
	g.Expect(err).NotTo(HaveOccurred(), "%s", out)
	var found struct{ Dir string }
	g.Expect(json.Unmarshal(out, &found)).To(Succeed())
	return found.Dir
}
