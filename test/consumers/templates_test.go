package consumers

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func TestEnvoyTakesTheTemplateAsASecret(t *testing.T) {
	_, err := build()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	w := newWorld(t)
	w.kubectl("apply", "-f", example("envoy-sds.yaml"))
	rendered := w.key("journeys-envoy", "sds.yaml")
	w.Expect(rendered).To(ContainSubstring(w.key("journeys-envoy", "access_token")))
	sds := filepath.Join(t.TempDir(), "sds.yaml")
	w.Expect(os.WriteFile(sds, []byte(rendered), 0o600)).To(Succeed())
	w.Expect(run("", built("envoy"), example("envoy.yaml"), sds)).To(Succeed())
}

// The CRD is of Envoy Gateway's own chart.
func TestEnvoyGatewayTakesTheTemplateAsACredential(t *testing.T) {
	g := NewWithT(t)
	g.Expect(run(tools, "go", "mod", "download", "github.com/envoyproxy/gateway")).To(Succeed())
	list := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/envoyproxy/gateway")
	list.Dir = tools
	folder, err := list.Output()
	g.Expect(err).NotTo(HaveOccurred())
	crd := filepath.Join(strings.TrimSpace(string(folder)),
		"charts", "gateway-helm", "charts", "crds", "crds", "generated", "gateway.envoyproxy.io_httproutefilters.yaml")

	w := newWorld(t)
	w.kubectl("apply", "--server-side", "-f", crd)
	w.kubectl("wait", "--for=condition=Established", "--timeout="+patience.String(), "-f", crd)

	w.kubectl("apply", "-f", example("envoy-gateway.yaml"))
	secret := w.kubectl("get", "httproutefilter", "sfmc", "-o", "jsonpath={.spec.credentialInjection.credential.valueRef.name}")
	w.Expect(w.key(secret, "credential")).To(Equal("Bearer " + w.key(secret, "access_token")))
}
