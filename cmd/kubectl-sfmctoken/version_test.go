package main

import (
	"path/filepath"
	"testing"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

func running(image string) *appsv1.Deployment {
	deployment := &appsv1.Deployment{}
	deployment.Spec.Template.Spec.Containers = []corev1.Container{{Name: "mesh", Image: "mesh:9.9.9"}, {Name: "manager", Image: image}}
	return deployment
}

func TestReleasesAreCompared(t *testing.T) {
	for _, row := range []struct {
		plugin, image string
		verdict       verdict
	}{
		{"v0.3.0", "registry.example.com:5000/sfmctoken-operator:0.3.0", isOK},
		{"v0.3.1", "sfmctoken-operator:v0.3.0", isOK},
		{"v0.4.0", "sfmctoken-operator:0.3.0", isProblem},
		{"v1.3.0", "sfmctoken-operator:0.3.0@sha256:abc", isProblem},
		{"v0.4.0", "sfmctoken-operator@sha256:abc", isOK},
		{"v0.4.0", "registry.example.com:5000/sfmctoken-operator", isOK},
		{"v0.4.0", "sfmctoken-operator:latest", isOK},
		{"(devel)", "sfmctoken-operator:0.3.0", isOK},
		{"v0.0.0-20261101120000-abcdef", "sfmctoken-operator:0.3.0", isOK},
		{"v0.4.0+dirty", "sfmctoken-operator:0.3.0", isOK},
	} {
		g := NewWithT(t)
		got := checkVersion(row.plugin, running(row.image))
		g.Expect(got.verdict).To(Equal(row.verdict), "%v", row)
		g.Expect(got.says).To(And(ContainSubstring(row.plugin), ContainSubstring(row.image)))
	}
}

func TestThePluginsVersionNeedsNoCluster(t *testing.T) {
	g := NewWithT(t)
	streams, _, out, errOut := genericiooptions.NewTestIOStreams()
	missing := filepath.Join(t.TempDir(), "none")
	g.Expect(run(t.Context(), []string{"version", "--client", "--kubeconfig", missing}, streams)).To(Equal(0), errOut.String())
	g.Expect(out.String()).To(HavePrefix("Plugin    "))
}
