// Package argocd runs config/argocd by Argo CD's own engine, on objects that a real operator produced.
package argocd

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/argoproj/argo-cd/v3/pkg/apis/application/v1alpha1"
	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/argoproj/argo-cd/v3/util/settings"
	"github.com/argoproj/gitops-engine/pkg/health"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"
)

const (
	group          = "sfmctoken.dev"
	customizations = "../../config/argocd/resource_customizations/" + group
	configMap      = "../../config/argocd/argocd-cm.yaml"
)

var write = flag.Bool("write", false, "Write config/argocd/argocd-cm.yaml anew, of the Lua scripts.")

var kinds = []string{"SFMCAccessGrant", "SFMCToken"}

func read(g *WithT, elements ...string) string {
	raw, err := os.ReadFile(filepath.Join(append([]string{customizations}, elements...)...))
	g.Expect(err).NotTo(HaveOccurred())
	return string(raw)
}

func object(g *WithT, elements ...string) *unstructured.Unstructured {
	found := map[string]any{}
	g.Expect(yaml.Unmarshal([]byte(read(g, elements...)), &found)).To(Succeed())
	return &unstructured.Unstructured{Object: found}
}

// actionNames are those that a kind has a folder for.
func actionNames(g *WithT, kind string) []string {
	files, err := filepath.Glob(filepath.Join(customizations, kind, "actions", "*", "action.lua"))
	g.Expect(err).NotTo(HaveOccurred())
	var names []string
	for _, file := range files {
		names = append(names, filepath.Base(filepath.Dir(file)))
	}
	return names
}

// TestTheConfigMapHasTheScripts compares config/argocd/argocd-cm.yaml with the files that are in upstream's layout.
func TestTheConfigMapHasTheScripts(t *testing.T) {
	g := NewWithT(t)
	want := corev1.ConfigMap{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Name: "argocd-cm", Namespace: "argocd",
			Labels: map[string]string{"app.kubernetes.io/name": "argocd-cm", "app.kubernetes.io/part-of": "argocd"}},
		Data: map[string]string{},
	}
	for _, kind := range kinds {
		want.Data["resource.customizations.health."+group+"_"+kind] = read(g, kind, "health.lua")
		names := actionNames(g, kind)
		if len(names) == 0 {
			continue
		}
		actions := v1alpha1.ResourceActions{ActionDiscoveryLua: read(g, kind, "actions", "discovery.lua")}
		for _, name := range names {
			actions.Definitions = append(actions.Definitions,
				v1alpha1.ResourceActionDefinition{Name: name, ActionLua: read(g, kind, "actions", name, "action.lua")})
		}
		text, err := yaml.Marshal(actions)
		g.Expect(err).NotTo(HaveOccurred())
		want.Data["resource.customizations.actions."+group+"_"+kind] = string(text)
	}
	text, err := yaml.Marshal(want)
	g.Expect(err).NotTo(HaveOccurred())
	whole := "# To be merged into Argo CD's own ConfigMap; made of the scripts beside it by: cd test/argocd && go test . -write\n" + string(text)
	if *write {
		g.Expect(os.WriteFile(configMap, []byte(whole), 0o600)).To(Succeed())
	}
	given, err := os.ReadFile(configMap)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(given)).To(Equal(whole))
}

// engine is Argo CD's, with the ConfigMap as its settings.
func engine(t *testing.T) lua.VM {
	g := NewWithT(t)
	raw, err := os.ReadFile(configMap)
	g.Expect(err).NotTo(HaveOccurred())
	var config corev1.ConfigMap
	g.Expect(yaml.UnmarshalStrict(raw, &config)).To(Succeed())
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "argocd-secret", Namespace: "argocd", Labels: config.Labels}}
	manager := settings.NewSettingsManager(t.Context(), fake.NewClientset(&config, secret), "argocd")
	overrides, err := manager.GetResourceOverrides()
	g.Expect(err).NotTo(HaveOccurred())
	return lua.VM{ResourceOverrides: overrides}
}

func TestHealthIsWhatThePageSays(t *testing.T) {
	for _, kind := range kinds {
		g := NewWithT(t)
		var listed struct {
			Tests []struct {
				InputPath    string              `json:"inputPath"`
				HealthStatus health.HealthStatus `json:"healthStatus"`
			} `json:"tests"`
		}
		g.Expect(yaml.Unmarshal([]byte(read(g, kind, "health_test.yaml")), &listed)).To(Succeed())
		files, err := filepath.Glob(filepath.Join(customizations, kind, "testdata", "*.yaml"))
		g.Expect(err).NotTo(HaveOccurred())
		var tried []string
		for _, test := range listed.Tests {
			tried = append(tried, filepath.Base(test.InputPath))
			t.Run(kind+" "+test.InputPath, func(t *testing.T) {
				g := NewWithT(t)
				vm, obj := engine(t), object(g, kind, test.InputPath)
				script, _, err := vm.GetHealthScript(obj)
				g.Expect(err).NotTo(HaveOccurred())
				result, err := vm.ExecuteHealthLua(obj, script)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(*result).To(Equal(test.HealthStatus))
			})
		}
		for i := range files {
			files[i] = filepath.Base(files[i])
		}
		g.Expect(tried).To(ConsistOf(files), "each object of %s is tried", kind)
	}
}

func TestActionsDoWhatTheirNameSays(t *testing.T) {
	const kind = "SFMCToken"
	g := NewWithT(t)
	var listed struct {
		DiscoveryTests []struct {
			InputPath string                    `json:"inputPath"`
			Result    []v1alpha1.ResourceAction `json:"result"`
		} `json:"discoveryTests"`
		ActionTests []struct {
			Action             string `json:"action"`
			InputPath          string `json:"inputPath"`
			ExpectedOutputPath string `json:"expectedOutputPath"`
		} `json:"actionTests"`
	}
	g.Expect(yaml.Unmarshal([]byte(read(g, kind, "actions", "action_test.yaml")), &listed)).To(Succeed())
	vm := engine(t)
	for _, test := range listed.DiscoveryTests {
		obj := object(g, kind, "actions", test.InputPath)
		scripts, err := vm.GetResourceActionDiscovery(obj)
		g.Expect(err).NotTo(HaveOccurred())
		found, err := vm.ExecuteResourceActionDiscovery(obj, scripts)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(found).To(ConsistOf(test.Result), test.InputPath)
	}
	var tried []string
	for _, test := range listed.ActionTests {
		tried = append(tried, test.Action)
		obj := object(g, kind, "actions", test.InputPath)
		action, err := vm.GetResourceAction(obj, test.Action)
		g.Expect(err).NotTo(HaveOccurred())
		changed, err := vm.ExecuteResourceAction(obj, action.ActionLua, nil)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(changed).To(HaveLen(1))
		g.Expect(changed[0].K8SOperation).To(Equal(lua.PatchOperation))
		got := changed[0].UnstructuredObj
		if at := got.GetAnnotations()["sfmctoken.dev/refresh-requested-at"]; test.Action == "refresh" {
			g.Expect(at).To(MatchRegexp(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`))
			g.Expect(unstructured.SetNestedField(got.Object, "2026-01-01T00:00:00Z", "metadata", "annotations", "sfmctoken.dev/refresh-requested-at")).To(Succeed())
		}
		g.Expect(asYAML(g, got)).To(Equal(asYAML(g, object(g, kind, "actions", test.ExpectedOutputPath))), test.Action)
	}
	g.Expect(tried).To(ConsistOf(actionNames(g, kind)))
	g.Expect(slices.IsSorted(tried)).To(BeTrue())
}

func asYAML(g *WithT, obj *unstructured.Unstructured) string {
	text, err := yaml.Marshal(obj.Object)
	g.Expect(err).NotTo(HaveOccurred())
	return strings.TrimSpace(string(text))
}
