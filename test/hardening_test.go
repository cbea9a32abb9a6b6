package test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// render returns what a folder of config renders to, on top of config/default if it is a component: each manifest as
// JSON, by kind and name.
func render(t *testing.T, folder string) map[string][]byte {
	t.Helper()
	g := NewWithT(t)
	raw, err := os.ReadFile(harness.Path("config", folder, "kustomization.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	dir := harness.Path("config", folder)
	if strings.Contains(string(raw), "kind: Component") {
		dir = kustomization(t, "default", folder)
	}
	out, err := cluster.Kubectl(t.Context(), "kustomize", dir)
	g.Expect(err).NotTo(HaveOccurred())
	found := map[string][]byte{}
	for _, manifest := range strings.Split(out, "\n---\n") {
		encoded, err := yaml.YAMLToJSON([]byte(manifest))
		g.Expect(err).NotTo(HaveOccurred())
		var object metav1.PartialObjectMetadata
		g.Expect(json.Unmarshal(encoded, &object)).To(Succeed())
		found[object.Kind+" "+object.Namespace+"/"+object.Name] = encoded
	}
	return found
}

// folders are all folders of config that kustomize renders.
func folders(g *WithT) []string {
	var found []string
	config := harness.Path("config")
	g.Expect(filepath.WalkDir(config, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.Name() == "kustomization.yaml" {
			folder, _ := filepath.Rel(config, filepath.Dir(path))
			found = append(found, folder)
		}
		return err
	})).To(Succeed())
	return found
}

// TestThePodsAreAdmittedAsRestricted asks the API server's Pod Security admission, in the namespace that config/default
// makes with the label for it.
func TestThePodsAreAdmittedAsRestricted(t *testing.T) {
	for folder, deployment := range map[string]string{
		"default":    "sfmctoken-system/sfmctoken-operator",
		"namespaced": "marketing/sfmctoken-operator",
		"samples":    "/journeys-emea-consumer",
	} {
		g := NewWithT(t)
		manifest, found := render(t, folder)["Deployment "+deployment]
		g.Expect(found).To(BeTrue(), folder)
		var parsed appsv1.Deployment
		g.Expect(json.Unmarshal(manifest, &parsed)).To(Succeed())
		template := parsed.Spec.Template
		create := func(spoil func(*corev1.PodSpec, *corev1.SecurityContext)) error {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: harness.SystemNamespace, Name: "any", Labels: template.Labels}, Spec: *template.Spec.DeepCopy()}
			spoil(&pod.Spec, pod.Spec.Containers[0].SecurityContext)
			return admin.Create(t.Context(), pod, client.DryRunAll)
		}
		g.Expect(create(func(*corev1.PodSpec, *corev1.SecurityContext) {})).To(Succeed(), folder)
		for what, spoil := range map[string]func(*corev1.PodSpec, *corev1.SecurityContext){
			"privileged": func(_ *corev1.PodSpec, c *corev1.SecurityContext) {
				c.Privileged, c.AllowPrivilegeEscalation = ptr.To(true), nil
			},
			"as root":                           func(p *corev1.PodSpec, _ *corev1.SecurityContext) { p.SecurityContext.RunAsUser = ptr.To(int64(0)) },
			"as root if the image says so":      func(p *corev1.PodSpec, _ *corev1.SecurityContext) { p.SecurityContext.RunAsNonRoot = nil },
			"with escalation of privileges":     func(_ *corev1.PodSpec, c *corev1.SecurityContext) { c.AllowPrivilegeEscalation = nil },
			"with capabilities":                 func(_ *corev1.PodSpec, c *corev1.SecurityContext) { c.Capabilities = nil },
			"without a filter for system calls": func(p *corev1.PodSpec, _ *corev1.SecurityContext) { p.SecurityContext.SeccompProfile = nil },
			"in the node's network":             func(p *corev1.PodSpec, _ *corev1.SecurityContext) { p.HostNetwork = true },
			"with the node's files": func(p *corev1.PodSpec, _ *corev1.SecurityContext) {
				p.Volumes = append(p.Volumes, corev1.Volume{Name: "node", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}})
			},
		} {
			g.Expect(create(spoil)).To(MatchError(ContainSubstring(`violates PodSecurity "restricted`)), "%s: %s", folder, what)
		}
		// What "restricted" doesn't ask for.
		container := template.Spec.Containers[0]
		g.Expect(container.SecurityContext.ReadOnlyRootFilesystem).To(HaveValue(BeTrue()), folder)
		g.Expect(container.Resources.Limits).To(HaveKey(corev1.ResourceMemory), folder)
	}
}

func TestNoRoleInAnyManifestIsBroaderThanItNeedsToBe(t *testing.T) {
	g := NewWithT(t)
	seen := 0
	for _, folder := range folders(g) {
		for name, manifest := range render(t, folder) {
			if !strings.HasPrefix(name, "Role ") && !strings.HasPrefix(name, "ClusterRole ") {
				continue
			}
			var role rbacv1.ClusterRole // a Role looks the same
			g.Expect(json.Unmarshal(manifest, &role)).To(Succeed())
			for _, rule := range role.Rules {
				broad := tooBroad(rule)
				if folder == "owner-references" {
					g.Expect(broad).To(Equal("delete of Secrets"), "that is what it is for")
					broad = ""
				}
				g.Expect(broad).To(BeEmpty(), "%s of config/%s", name, folder)
				seen++
			}
		}
	}
	g.Expect(seen).To(BeNumerically(">", 20))

	for _, broad := range []struct {
		rule rbacv1.PolicyRule
		says string
	}{
		{rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"*"}}, "wildcard"},
		{rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"*"}, Verbs: []string{"get"}}, "wildcard"},
		{rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets/*"}, Verbs: []string{"get"}}, "wildcard"},
		{rbacv1.PolicyRule{APIGroups: []string{"*"}, Resources: []string{"pods"}, Verbs: []string{"get"}}, "wildcard"},
		{rbacv1.PolicyRule{NonResourceURLs: []string{"/*"}, Verbs: []string{"get"}}, "wildcard"},
		{rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps", "secrets"}, Verbs: []string{"get", "delete"}}, "delete"},
		{rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"deletecollection"}}, "delete"},
		{rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"serviceaccounts"}, Verbs: []string{"impersonate"}}, "impersonate"},
		{rbacv1.PolicyRule{APIGroups: []string{rbacv1.GroupName}, Resources: []string{"clusterroles"}, Verbs: []string{"bind"}}, "bind"},
	} {
		g.Expect(tooBroad(broad.rule)).To(ContainSubstring(broad.says), "%v", broad.rule)
	}
}

// tooBroad says what a rule should not give; nothing if it is fine.
func tooBroad(rule rbacv1.PolicyRule) string {
	for _, list := range [][]string{rule.Verbs, rule.Resources, rule.APIGroups, rule.NonResourceURLs} {
		for _, value := range list {
			if strings.Contains(value, "*") {
				return "a wildcard: " + value
			}
		}
	}
	for _, verb := range rule.Verbs {
		switch {
		case slices.Contains(rule.Resources, "secrets") && strings.HasPrefix(verb, "delete"):
			return verb + " of Secrets"
		case verb == "impersonate" || verb == "escalate":
			return verb
		case verb == "bind" && len(rule.ResourceNames) == 0:
			return "bind of any role"
		}
	}
	return ""
}

// TestPrometheusKeepsTheLabelNamespace: otherwise it is the operator's, and what is summed by it merges all tenants.
func TestPrometheusKeepsTheLabelNamespace(t *testing.T) {
	g := NewWithT(t)
	monitor := render(t, "prometheus")["ServiceMonitor sfmctoken-system/sfmctoken-operator"]
	var parsed struct {
		Spec struct {
			Endpoints []struct {
				HonorLabels bool `json:"honorLabels"`
			} `json:"endpoints"`
		} `json:"spec"`
	}
	g.Expect(json.Unmarshal(monitor, &parsed)).To(Succeed())
	g.Expect(parsed.Spec.Endpoints).To(HaveLen(1))
	g.Expect(parsed.Spec.Endpoints[0].HonorLabels).To(BeTrue())
}

func TestTheImageIsNothingButTheBinaryAndHasNoRoot(t *testing.T) {
	g := NewWithT(t)
	raw, err := os.ReadFile(harness.Path("Dockerfile"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(faultsOf(string(raw))).To(BeEmpty())
	var deployment appsv1.Deployment
	g.Expect(json.Unmarshal(render(t, "default")["Deployment sfmctoken-system/sfmctoken-operator"], &deployment)).To(Succeed())
	user := *deployment.Spec.Template.Spec.SecurityContext.RunAsUser
	g.Expect(string(raw)).To(ContainSubstring(fmt.Sprintf("\nUSER %d:", user)), "the Deployment's user is the image's")

	for spoilt, says := range map[string]string{
		strings.Replace(string(raw), ":1.26", "", 1):                              "no tag",
		strings.Replace(string(raw), ":1.26.8-trixie", ":latest", 1):              "latest",
		strings.Replace(string(raw), "USER 65532:65532\n", "", 1):                 "user",
		strings.Replace(string(raw), "USER 65532:65532", "USER 0", 1):             "user",
		strings.Replace(string(raw), "USER 65532:65532", "USER nonroot", 1):       "user",
		strings.Replace(string(raw), `ENTRYPOINT ["/s`, `ENTRYPOINT /s`, 1):       "shell",
		strings.Replace(string(raw), "FROM scratch", "FROM debian:13", 1):         "nothing but",
		strings.Replace(string(raw), "USER 65532", "ADD x /\nUSER 65532", 1):      "nothing but",
		strings.Replace(string(raw), "USER 65532", "RUN [\"/x\"]\nUSER 65532", 1): "RUN",
	} {
		g.Expect(spoilt).NotTo(Equal(string(raw)), says)
		g.Expect(faultsOf(spoilt)).To(ContainElement(ContainSubstring(says)))
	}
}

// faultsOf says what a Dockerfile should not have. Its last stage is the image.
func faultsOf(dockerfile string) []string {
	var faults []string
	stage := map[string]string{}
	for _, line := range regexp.MustCompile(`(?m)^[A-Z]+ .*$`).FindAllString(dockerfile, -1) {
		instruction, rest, _ := strings.Cut(line, " ")
		if instruction == "FROM" {
			stage = map[string]string{}
			image := regexp.MustCompile(`^(--\S+ )*(\S+)`).FindStringSubmatch(rest)[2]
			switch _, tag, found := strings.Cut(filepath.Base(image), ":"); {
			case image == "scratch": // has nothing, and no versions
			case !found:
				faults = append(faults, image+" has no tag")
			case tag == "latest":
				faults = append(faults, image+" has the tag latest, which means another image each time")
			}
		}
		stage[instruction] = rest
	}
	if !regexp.MustCompile(`^[1-9]\d*(:[1-9]\d*)?$`).MatchString(stage["USER"]) {
		faults = append(faults, "the user must be a number other than 0, or Kubernetes can't tell that it isn't root")
	}
	if stage["FROM"] != "scratch" || stage["ADD"] != "" || stage["COPY"] != "--from=build /sfmctoken-operator /sfmctoken-operator" {
		faults = append(faults, "the image must be nothing but the binary")
	}
	for _, instruction := range slices.Sorted(maps.Keys(stage)) {
		switch {
		case instruction == "RUN":
			faults = append(faults, "RUN in the last stage needs what the image should not have")
		case (instruction == "ENTRYPOINT" || instruction == "CMD") && !strings.HasPrefix(stage[instruction], "["):
			faults = append(faults, instruction+" would need a shell")
		}
	}
	return faults
}

// TestTheBinaryIsTheSameWhereverItIsBuilt builds it as the Dockerfile does.
func TestTheBinaryIsTheSameWhereverItIsBuilt(t *testing.T) {
	g := NewWithT(t)
	sums := map[string]bool{}
	for range 2 {
		source, out := t.TempDir(), filepath.Join(t.TempDir(), "sfmctoken-operator")
		for _, copied := range []string{"cmd", "api", "internal"} {
			g.Expect(os.CopyFS(filepath.Join(source, copied), os.DirFS(harness.Path(copied)))).To(Succeed())
		}
		for _, copied := range []string{"go.mod", "go.sum"} {
			g.Expect(os.Symlink(harness.Path(copied), filepath.Join(source, copied))).To(Succeed())
		}
		build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, "./cmd") //nolint:gosec // of this test
		build.Dir, build.Env = source, append(os.Environ(), "CGO_ENABLED=0")
		said, err := build.CombinedOutput()
		g.Expect(err).NotTo(HaveOccurred(), "%s", said)
		binary, err := os.ReadFile(out) //nolint:gosec // built above
		g.Expect(err).NotTo(HaveOccurred())
		sums[fmt.Sprintf("%x", sha256.Sum256(binary))] = true
	}
	g.Expect(sums).To(HaveLen(1))
}
