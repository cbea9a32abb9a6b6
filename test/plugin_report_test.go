package test

import (
	"archive/tar"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

// unpack reads the files of a report.
func (w *world) unpack(path string) map[string]string {
	w.t.Helper()
	file, err := os.Open(path) //nolint:gosec // the test's own
	w.Expect(err).NotTo(HaveOccurred())
	defer file.Close()
	uncompressed, err := gzip.NewReader(file)
	w.Expect(err).NotTo(HaveOccurred())
	files := map[string]string{}
	for archive := tar.NewReader(uncompressed); ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		w.Expect(err).NotTo(HaveOccurred())
		text, err := io.ReadAll(archive)
		w.Expect(err).NotTo(HaveOccurred())
		files[strings.TrimPrefix(header.Name, "sfmctoken-report/")] = string(text)
	}
}

func TestAReportHasNothingSecret(t *testing.T) {
	w := newWorldWithLegacyPod(t)
	canaries := []string{w.pkg.ClientSecret, w.pkg.ClientID, w.held("journeys")}
	plant := func(name string) string {
		canary := "canary-" + name + "-7f3a"
		canaries = append(canaries, canary)
		return canary
	}
	change(w, w.secret("sfmc-package"), func(secret *corev1.Secret) {
		secret.Annotations = map[string]string{"kubectl.kubernetes.io/last-applied-configuration": plant("applied"), "note": plant("note")}
	})
	w.token("templated", func(token *v1alpha1.SFMCToken) {
		token.Annotations = map[string]string{"note": plant("annotation")}
		token.Spec.AccountID = "510009999"
		token.Spec.Target = &v1alpha1.Target{Template: &v1alpha1.TargetTemplate{
			Metadata: v1alpha1.TargetMetadata{Annotations: map[string]v1alpha1.AnnotationValue{"note": v1alpha1.AnnotationValue(plant("target"))}},
			Data:     map[string]v1alpha1.TemplateText{"config": v1alpha1.TemplateText(plant("template") + " {{ .AccessToken }}")},
		}}
	})
	w.ready("templated")
	w.sfmc.AddFaults(sfmctest.Fault{Refusal: sfmctest.InvalidClient, Times: sfmctest.Forever})
	w.token("refused", func(token *v1alpha1.SFMCToken) { token.Spec.AccountID = "510000001" })
	w.says("refused", "Stalled=True RequestRefused")
	w.deployment(func(deployment *appsv1.Deployment) {
		deployment.Annotations = map[string]string{"note": plant("deployment")}
		containers := &deployment.Spec.Template.Spec.Containers
		(*containers)[0].Env = []corev1.EnvVar{{Name: "HTTPS_PROXY", Value: "http://somebody:" + plant("env") + "@proxy.example.com"}}
		*containers = append(*containers, corev1.Container{Name: "sidecar", Image: "registry.example.com/sidecar", Args: []string{"--password=" + plant("argument")}})
	})
	w.lease()

	dir := t.TempDir()
	seen := &logs{}
	proxied := w.kubeconfig(w.recordingProxy(seen))
	report := func(kubeconfig, name string) said {
		return w.pluginAs(kubeconfig, "report", "--operator-namespace", w.ns, "--output-file", filepath.Join(dir, name))
	}
	all := report(proxied, "all.tar.gz")
	w.Expect(all.code).To(Equal(0))
	w.Expect(all.out).To(ContainSubstring("all.tar.gz has "))
	files := w.unpack(filepath.Join(dir, "all.tar.gz"))
	for name, has := range map[string]string{
		"about.txt": "kubectl-sfmctoken ", "sfmctokens.json": `"name": "templated"`, "sfmcaccessgrants.json": "[]",
		"events.json": `"reason": "RequestRefused"`, "secrets.json": `"owner": "journeys"`, "operator/deployments.json": "HTTPS_PROXY",
		"operator/lease.json": "sfmctoken-operator-abc", "operator/pods.json": `"name": "manager"`, "doctor.json": `"names": [`, "check.txt": "kinds",
	} {
		w.Expect(files).To(HaveKey(name))
		if name != "operator/pods.json" { // no node has said anything of the pod
			w.Expect(files[name]).To(ContainSubstring(has), name)
		}
	}
	w.Expect(files["secrets.json"]).To(ContainSubstring(`"note": "(left out)"`))
	w.Expect(files).To(HaveKey(MatchRegexp(`^operator/sfmctoken-operator-.+\.log$`)))
	w.Expect(files["about.txt"]).To(ContainSubstring("there is no Secret "+w.ns+"/refused"), "what is missing is said")

	// The proxy saw requests for the metadata of Secrets alone; annotations came with it, and stay here.
	for _, canary := range canaries[:3] {
		expectNone(t, "an answer of the API server", seen.String(), canary)
	}
	for name, text := range files {
		for _, canary := range canaries {
			expectNone(t, name, text, canary)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "all.tar.gz"))
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(info.Mode().Perm()).To(BeEquivalentTo(0o600))

	again := report(proxied, "all.tar.gz")
	w.Expect(again.code).To(Equal(2))
	w.Expect(again.err).To(ContainSubstring("is there already"))
}

// expectNone fails without printing the canary, or the text that has it.
func expectNone(t *testing.T, where, text, canary string) {
	t.Helper()
	whole := canary[:len(canary)/3*3] // in base64 the same, whatever follows
	if strings.Contains(text, canary) || strings.Contains(text, base64.StdEncoding.EncodeToString([]byte(whole))) {
		t.Errorf("%s has a secret that begins with %.16s", where, canary)
	}
}

func TestAReportHasWhatAPersonMaySee(t *testing.T) {
	w := newWorldWithLegacyPod(t)
	w.deployment()
	w.lease()
	least := w.personWho(rights{w.ns: {may("list", own, "sfmctokens")}})
	dir := t.TempDir()
	report := func(kubeconfig, name string) said {
		return w.pluginAs(kubeconfig, "report", "--operator-namespace", w.ns, "--output-file", filepath.Join(dir, name))
	}
	w.Eventually(func() int { return w.pluginAs(least, "list", "--no-headers", "-o", "name").code }).Should(Equal(0), "the right has arrived")
	little := report(least, "little.tar.gz")
	w.Expect(little.code).To(Equal(0))
	files := w.unpack(filepath.Join(dir, "little.tar.gz"))
	w.Expect(files["sfmctokens.json"]).To(ContainSubstring(`"name": "journeys"`))
	for _, missing := range []string{"list SFMCAccessGrants", "list Events", "read the metadata of Secret", "list Deployments", "read Lease", "list the operator's pods"} {
		w.Expect(little.err).To(ContainSubstring("Not in it: " + missing))
		w.Expect(files["about.txt"]).To(ContainSubstring(missing))
	}

	all := w.personWho(rights{w.ns: append(listsReaders, may("list", own, "sfmctokens", "sfmcaccessgrants"), may("list", "", "events", "services"),
		may("get", "", "secrets", "pods/log"), rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}})})
	w.Eventually(func() int { return w.pluginAs(all, "doctor").code }).Should(Equal(1), "the rights have arrived")
	w.Eventually(func() string {
		w.Expect(os.RemoveAll(filepath.Join(dir, "all.tar.gz"))).To(Succeed())
		return report(all, "all.tar.gz").err
	}).Should(BeEmpty())
}
