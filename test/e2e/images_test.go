package e2e

import (
	"os"
	"os/exec"
	"strings"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
)

const certificates = "/etc/ssl/certs/ca-certificates.crt"

// importImage gives the node an image, for pods that name it.
func (c *clusterAccess) importImage(image localcluster.Image) {
	c.t.Helper()
	archive := cache("import.tar")
	c.Expect(image.WriteFile(archive)).To(Succeed())
	c.Expect(node.ImportImage(c.t.Context(), archive)).To(Succeed())
	c.Expect(os.Remove(archive)).To(Succeed())
}

// rootsWith are the machine's root certificates and one more.
func (c *clusterAccess) rootsWith(authority []byte) map[string]string {
	c.t.Helper()
	roots, err := os.ReadFile(certificates)
	c.Expect(err).NotTo(HaveOccurred())
	return map[string]string{certificates: string(roots) + string(authority)}
}

// importCurl gives the node an image like the one that config/samples/consumer.yaml names: the machine's curl and a
// shell. It trusts those who everybody trusts, and an authority if one is given.
func (c *clusterAccess) importCurl(name string, authority ...byte) {
	c.t.Helper()
	image := localcluster.Image{
		Name:  "docker.io/" + name,
		Files: map[string]string{"bin/busybox": "/bin/busybox", "usr/bin/curl": "/usr/bin/curl"},
		Texts: c.rootsWith(authority),
		Links: map[string]string{},
		Env:   []string{"PATH=/usr/bin:/bin"},
	}
	for _, applet := range []string{"sh", "cat", "sleep"} {
		image.Links["bin/"+applet] = "busybox"
	}
	libraries, err := exec.CommandContext(c.t.Context(), "ldd", "/usr/bin/curl").Output()
	c.Expect(err).NotTo(HaveOccurred())
	for field := range strings.FieldsSeq(string(libraries)) {
		if strings.HasPrefix(field, "/") {
			image.Files[field] = field
		}
	}
	c.importImage(image)
}
