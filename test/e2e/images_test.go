package e2e

import (
	"os"
	"os/exec"
	"regexp"
	"strings"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/hack/localcluster"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// consumerImage is the name under which pods ask for it. None is pulled.
const consumerImage = "docker.io/library/consumer:latest"

// importImages gives the node all images that pods ask for.
func (w *world) importImages() {
	w.t.Helper()
	w.Expect(w.cluster.ImportImage(w.t.Context(), harness.Path(".cache", "localcluster", "sfmctoken-operator.tar"))).To(Succeed())
	w.importImage(localcluster.Image{
		Name:       consumerImage,
		Files:      map[string]string{"consumer": cache("consumer")},
		Entrypoint: []string{"/consumer"},
		User:       "65532:65532",
	})
	w.importImage(w.curlImage())
}

func (w *world) importImage(image localcluster.Image) {
	w.t.Helper()
	archive := cache("import.tar")
	w.Expect(image.WriteFile(archive)).To(Succeed())
	w.Expect(w.cluster.ImportImage(w.t.Context(), archive)).To(Succeed())
}

var imageLine = regexp.MustCompile(`image: (\S+)`)

// curlImage stands for the one that config/samples/consumer.yaml names, so that the sample runs as it is: the machine's
// curl and a shell, which trust the stand-in beside everybody else.
func (w *world) curlImage() localcluster.Image {
	w.t.Helper()
	manifest, err := os.ReadFile(harness.Path("config", "samples", "consumer.yaml"))
	w.Expect(err).NotTo(HaveOccurred())
	name := imageLine.FindStringSubmatch(string(manifest))
	w.Expect(name).NotTo(BeNil())
	roots, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	w.Expect(err).NotTo(HaveOccurred())

	image := localcluster.Image{
		Name:  "docker.io/" + name[1],
		Files: map[string]string{"bin/busybox": "/bin/busybox", "usr/bin/curl": "/usr/bin/curl"},
		Texts: map[string]string{"etc/ssl/certs/ca-certificates.crt": string(roots) + string(w.standIn.CACert())},
		Links: map[string]string{},
		Env:   []string{"PATH=/usr/bin:/bin"},
	}
	for _, applet := range []string{"sh", "cat", "sleep"} {
		image.Links["bin/"+applet] = "busybox"
	}
	libraries, err := exec.CommandContext(w.t.Context(), "ldd", "/usr/bin/curl").Output()
	w.Expect(err).NotTo(HaveOccurred())
	for field := range strings.FieldsSeq(string(libraries)) {
		if strings.HasPrefix(field, "/") {
			image.Files[field] = field
		}
	}
	return image
}
