package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

const (
	chart           = "charts/sfmctoken-operator"
	chartDeployment = "Deployment sfmctoken-system/sfmctoken-operator"
	chartTestPod    = "Pod sfmctoken-system/sfmctoken-operator-test"
)

// Helm 4, which most tests run, Helm 3, and what runs the chart's suites, all built from source by make.
var (
	helm4        = builtTool("helm")
	helm3        = builtTool("helm3")
	helmUnittest = builtTool("helm-unittest")
)

func builtTool(name string) func() (string, error) {
	return sync.OnceValues(func() (string, error) { return buildTool(name) })
}

func buildTool(name string) (string, error) {
	path := harness.Path(".cache", "bin", name)
	build := exec.Command("make", "-C", harness.Path(), path) //nolint:gosec // this repository's own Makefile
	// A make around this test must not tell this one what to do.
	build.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, "MAKE") || strings.HasPrefix(variable, "MFLAGS=")
	})
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
	}
	return path, nil
}

// helm runs Helm with none of a person's settings. Values stand on its standard input.
func helm(t *testing.T, values string, args ...string) (string, error) {
	t.Helper()
	program, err := helm4()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	cmd := exec.CommandContext(t.Context(), program, args...) //nolint:gosec // built by the test
	home := t.TempDir()
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG=")
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(values), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("helm %s: %w\n%s\n%s", strings.Join(args, " "), err, values, stderr.String())
	}
	return stdout.String(), nil
}

// template returns what the chart renders to, in the namespace of config/default unless a flag names another one.
func template(t *testing.T, values string, flags ...string) (string, error) {
	t.Helper()
	args := []string{"template", "sfmctoken-operator", harness.Path(chart), "--namespace", harness.SystemNamespace, "--values", "-"}
	return helm(t, values, append(args, flags...)...)
}

// renderChart is template with the objects as render has those of kustomize: by kind and name.
func renderChart(t *testing.T, values string, flags ...string) map[string]map[string]any {
	t.Helper()
	g := NewWithT(t)
	out, err := template(t, values, flags...)
	g.Expect(err).NotTo(HaveOccurred())
	found := map[string]map[string]any{}
	decoder := utilyaml.NewYAMLOrJSONDecoder(strings.NewReader(out), 4096)
	for {
		var object map[string]any
		err := decoder.Decode(&object)
		if errors.Is(err, io.EOF) {
			return found
		}
		g.Expect(err).NotTo(HaveOccurred(), out)
		if object == nil { // comments alone
			continue
		}
		meta := unstructured.Unstructured{Object: object}
		name := meta.GetKind() + " " + meta.GetNamespace() + "/" + meta.GetName()
		g.Expect(found).NotTo(HaveKey(name), "an object is made once")
		found[name] = object
	}
}

// renderConfig is render with the objects of several folders of config.
func renderConfig(t *testing.T, folders ...string) map[string]map[string]any {
	t.Helper()
	found := map[string]map[string]any{}
	for _, folder := range folders {
		for name, manifest := range render(t, folder) {
			var object map[string]any
			NewWithT(t).Expect(json.Unmarshal(manifest, &object)).To(Succeed())
			found[name] = object
		}
	}
	return found
}

// withoutHelm takes out what the chart has for Helm's sake.
func withoutHelm(value any) {
	switch value := value.(type) {
	case map[string]any:
		for _, key := range []string{"helm.sh/chart", "helm.sh/resource-policy", "app.kubernetes.io/instance", "app.kubernetes.io/version"} {
			delete(value, key)
		}
		if value[managedBy] == "Helm" {
			delete(value, managedBy)
		}
		for _, below := range value {
			withoutHelm(below)
		}
	case []any:
		for _, below := range value {
			withoutHelm(below)
		}
	}
}

// unfold makes a text of many lines one line, with single spaces.
func unfold(object map[string]any) {
	for key, value := range object {
		switch value := value.(type) {
		case string:
			if strings.Contains(value, "\n") {
				object[key] = strings.Join(strings.Fields(value), " ")
			}
		case map[string]any:
			unfold(value)
		case []any:
			for _, below := range value {
				if below, isObject := below.(map[string]any); isObject {
					unfold(below)
				}
			}
		}
	}
}

// as is an object in its own type.
func as[T any](g *WithT, object map[string]any) (typed T) {
	g.Expect(object).NotTo(BeNil())
	encoded, err := json.Marshal(object)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(json.Unmarshal(encoded, &typed)).To(Succeed())
	return typed
}

func TestTheChartMakesWhatConfigDoes(t *testing.T) {
	for _, same := range []struct {
		values  string
		folders []string
	}{
		{"", []string{"default"}},
		{"metrics: {serviceMonitor: {enabled: true}}", []string{"default", "prometheus"}},
		{"prometheusRule: {enabled: true}", []string{"default", "prometheus-rules"}},
		{"dashboard: {enabled: true}", []string{"default", "dashboard"}},
		{"rbac: {ownerReferences: true}", []string{"default", "owner-references"}},
		{"admissionPolicies: {enabled: true}", []string{"components/admission-policies"}},
	} {
		t.Run(same.folders[len(same.folders)-1], func(t *testing.T) {
			g := NewWithT(t)
			rendered, wanted := renderChart(t, same.values, "--skip-tests"), renderConfig(t, same.folders...)
			delete(wanted, "Namespace /sfmctoken-system") // which Helm makes itself
			g.Expect(slices.Sorted(maps.Keys(rendered))).To(Equal(slices.Sorted(maps.Keys(wanted))))
			for name, want := range wanted {
				withoutHelm(rendered[name])
				unfold(want) // kustomize doubles a line break in folded text, which means nothing there
				unfold(rendered[name])
				// Folders that are applied beside config/default have no label.
				g.Expect(unstructured.SetNestedField(want, "sfmctoken-operator", "metadata", "labels", "app.kubernetes.io/name")).To(Succeed())
				g.Expect(rendered[name]).To(Equal(want), name)
			}
		})
	}
}

// TestTheChartInSomeNamespacesMakesWhatConfigDoes is for an admin of two namespaces, who has no rights beyond them.
func TestTheChartInSomeNamespacesMakesWhatConfigDoes(t *testing.T) {
	g := NewWithT(t)
	values := `
crds: {enabled: false}
metrics: {enabled: false}
rbac: {aggregateToBuiltInRoles: false, existingClusterRole: sfmctoken-operator}
watchNamespaces: [marketing, sales]
`
	rendered, wanted := renderChart(t, values, "--skip-tests", "--namespace", "marketing"), renderConfig(t, "namespaced")
	// config/namespaced leaves what is for metrics in these two.
	unstructured.RemoveNestedField(wanted["NetworkPolicy marketing/sfmctoken-operator"], "spec", "ingress")
	container := wanted["Deployment marketing/sfmctoken-operator"]
	for _, key := range []string{"spec", "template", "spec"} {
		container = container[key].(map[string]any)
	}
	container = container["containers"].([]any)[0].(map[string]any)
	container["ports"] = container["ports"].([]any)[1:]

	g.Expect(slices.Sorted(maps.Keys(rendered))).To(Equal(slices.Sorted(maps.Keys(wanted))))
	for name, want := range wanted {
		withoutHelm(rendered[name])
		g.Expect(unstructured.SetNestedField(want, "sfmctoken-operator", "metadata", "labels", "app.kubernetes.io/name")).To(Succeed())
		g.Expect(rendered[name]).To(Equal(want), name)
	}
}

func TestTheChartsRolesInNamespacesGiveWhatTheClusterRoleDoes(t *testing.T) {
	g := NewWithT(t)
	everywhere := as[rbacv1.ClusterRole](g, renderChart(t, "")["ClusterRole /sfmctoken-operator"]).Rules
	everywhere = slices.DeleteFunc(everywhere, func(rule rbacv1.PolicyRule) bool { return slices.Contains(rule.Resources, "namespaces") })
	rendered := renderChart(t, "watchNamespaces: [marketing, sales]")
	for _, namespace := range []string{"marketing", "sales"} {
		g.Expect(as[rbacv1.Role](g, rendered["Role "+namespace+"/sfmctoken-operator"]).Rules).To(Equal(everywhere))
	}
}

func TestTheChartsCopiesAreThoseOfConfig(t *testing.T) {
	g := NewWithT(t)
	text := func(path string) string {
		raw, err := os.ReadFile(harness.Path(path))
		g.Expect(err).NotTo(HaveOccurred())
		return string(raw)
	}
	for copied, original := range map[string]string{
		"role.yaml":            "config/rbac/role.yaml",
		"prometheus_rule.yaml": "config/prometheus-rules/prometheus_rule.yaml",
		"dashboard.json":       "config/dashboard/sfmctoken-operator.json",
	} {
		g.Expect(text(chart+"/files/"+copied)).To(Equal(text(original)), "run make generate")
	}
	for copied, original := range map[string]string{"crds": "crd/bases", "admission-policies": "components/admission-policies"} {
		read := func(elements ...string) map[string]string {
			files, err := filepath.Glob(harness.Path(append(elements, "*.yaml")...))
			g.Expect(err).NotTo(HaveOccurred())
			found := map[string]string{}
			for _, file := range files {
				text, err := os.ReadFile(file) //nolint:gosec // a file of this repository
				g.Expect(err).NotTo(HaveOccurred())
				found[filepath.Base(file)] = string(text)
			}
			return found
		}
		originals := read("config", original)
		delete(originals, "kustomization.yaml")
		g.Expect(originals).NotTo(BeEmpty())
		g.Expect(read(chart, "files", copied)).To(Equal(originals), "run make generate")
	}
}

// TestTheChartsSuitesPass is about the values that change which objects there are, or their shape.
func TestTheChartsSuitesPass(t *testing.T) {
	g := NewWithT(t)
	program, err := helmUnittest()
	g.Expect(err).NotTo(HaveOccurred())
	out, err := exec.CommandContext(t.Context(), program, "--strict", harness.Path(chart)).CombinedOutput() //nolint:gosec // built by make
	g.Expect(err).NotTo(HaveOccurred(), "%s", out)
}

// valuesInSuites are the values that the chart's suites set.
func valuesInSuites(g *WithT) []string {
	files, err := filepath.Glob(harness.Path(chart, "tests", "*_test.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	found := map[string]bool{}
	for _, file := range files {
		raw, err := os.ReadFile(file) //nolint:gosec // a file of this repository
		g.Expect(err).NotTo(HaveOccurred())
		var suite struct {
			Tests []struct{ Set map[string]any }
		}
		g.Expect(yaml.Unmarshal(raw, &suite)).To(Succeed(), file)
		for _, test := range suite.Tests {
			for name := range test.Set {
				found[name] = true
			}
		}
	}
	return slices.Collect(maps.Keys(found))
}

// chartValues are other values than the default ones, and what comes into the rendering by them. Those that change which
// objects there are, or their shape, are in the chart's suites instead.
var chartValues = map[string]struct {
	values string
	comes  []string
}{
	"affinity":                        {values: "affinity: {nodeAffinity: {}}", comes: []string{"affinity:\n        nodeAffinity: {}"}},
	"commonAnnotations":               {values: "commonAnnotations: {example.com/team: crm}", comes: []string{"annotations:\n    example.com/team: crm"}},
	"commonLabels":                    {values: "commonLabels: {example.com/team: crm}", comes: []string{"    example.com/team: crm", "        example.com/team: crm"}},
	"containerSecurityContext":        {values: "containerSecurityContext: {procMount: Default}", comes: []string{"procMount: Default"}},
	"dashboard.annotations":           {values: "dashboard: {enabled: true, annotations: {grafana_folder: CRM}}", comes: []string{"grafana_folder: CRM"}},
	"deploymentAnnotations":           {values: "deploymentAnnotations: {example.com/a: b}", comes: []string{"annotations:\n    example.com/a: b\nspec:\n  replicas"}},
	"extraArgs":                       {values: "extraArgs: [--log-level=debug]", comes: []string{"- --log-level=debug"}},
	"extraEnv":                        {values: "extraEnv: [{name: A, value: b}]", comes: []string{"- name: A\n          value: b"}},
	"extraVolumeMounts":               {values: "extraVolumeMounts: [{name: a, mountPath: /a}]", comes: []string{"volumeMounts:\n        - mountPath: /a\n          name: a"}},
	"extraVolumes":                    {values: "extraVolumes: [{name: a, emptyDir: {}}]", comes: []string{"volumes:\n      - emptyDir: {}\n        name: a"}},
	"fullnameOverride":                {values: "fullnameOverride: tokens", comes: []string{"name: tokens-metrics"}},
	"goMemLimit":                      {values: "goMemLimit: 1GiB", comes: []string{`value: "1GiB"`}},
	"image.pullPolicy":                {values: "image: {pullPolicy: Always}", comes: []string{"imagePullPolicy: Always"}},
	"image.repository":                {values: "image: {repository: registry.example.com/other}", comes: []string{"image: registry.example.com/other:latest\n"}},
	"imagePullSecrets":                {values: "imagePullSecrets: [{name: registry}]", comes: []string{"imagePullSecrets:\n      - name: registry"}},
	"metrics.service.annotations":     {values: "metrics: {service: {annotations: {example.com/a: b}}}", comes: []string{"example.com/a: b"}},
	"metrics.serviceMonitor.interval": {values: "metrics: {serviceMonitor: {enabled: true, interval: 17s}}", comes: []string{"interval: 17s"}},
	"metrics.serviceMonitor.labels":   {values: "metrics: {serviceMonitor: {enabled: true, labels: {release: prometheus}}}", comes: []string{"release: prometheus"}},
	"metrics.serviceMonitor.metricRelabelings": {values: "metrics: {serviceMonitor: {enabled: true, metricRelabelings: [{action: drop}]}}",
		comes: []string{"metricRelabelings:\n    - action: drop"}},
	"metrics.serviceMonitor.relabelings":   {values: "metrics: {serviceMonitor: {enabled: true, relabelings: [{action: drop}]}}", comes: []string{"    relabelings:\n    - action: drop"}},
	"metrics.serviceMonitor.scrapeTimeout": {values: "metrics: {serviceMonitor: {enabled: true, scrapeTimeout: 7s}}", comes: []string{"scrapeTimeout: 7s"}},
	"metrics.serviceMonitor.tlsConfig":     {values: "metrics: {serviceMonitor: {enabled: true, tlsConfig: {serverName: a}}}", comes: []string{"serverName: a"}},
	"nameOverride":                         {values: "nameOverride: tokens", comes: []string{"app.kubernetes.io/name: tokens\n", "name: sfmctoken-operator-tokens\n"}},
	"networkPolicy.extraEgressPorts":       {values: "networkPolicy: {extraEgressPorts: [9443]}", comes: []string{"- port: 9443"}},
	"networkPolicy.metricsFrom":            {values: "networkPolicy: {metricsFrom: [{podSelector: {}}]}", comes: []string{"from:\n    - podSelector: {}"}},
	"nodeSelector":                         {values: "nodeSelector: {kubernetes.io/arch: arm64}", comes: []string{"nodeSelector:\n        kubernetes.io/arch: arm64"}},
	"podAnnotations":                       {values: "podAnnotations: {example.com/a: b}", comes: []string{"        example.com/a: b\n"}},
	"podDisruptionBudget.maxUnavailable":   {values: "podDisruptionBudget: {maxUnavailable: 50%}", comes: []string{"maxUnavailable: 50%"}},
	"podLabels":                            {values: "podLabels: {example.com/a: b}", comes: []string{"        example.com/a: b\n"}},
	"podSecurityContext":                   {values: "podSecurityContext: {runAsUser: 1234}", comes: []string{"runAsUser: 1234"}},
	"priorityClassName":                    {values: "priorityClassName: high", comes: []string{"priorityClassName: high"}},
	"prometheusRule.enabled":               {values: "prometheusRule: {enabled: true}", comes: []string{"kind: PrometheusRule"}},
	"prometheusRule.labels":                {values: "prometheusRule: {enabled: true, labels: {release: prometheus}}", comes: []string{"release: prometheus"}},
	"proxy.httpsProxy": {values: "proxy: {httpsProxy: 'http://proxy.example.com:3128'}",
		comes: []string{`value: "http://proxy.example.com:3128"`, `value: "$(KUBERNETES_SERVICE_HOST)"`, "- port: 3128"}},
	"proxy.noProxy": {values: "proxy: {httpsProxy: 'https://proxy.example.com', noProxy: gateway.example.com}",
		comes: []string{`value: "$(KUBERNETES_SERVICE_HOST),gateway.example.com"`}},
	"replicaCount":               {values: "replicaCount: 3", comes: []string{"replicas: 3"}},
	"resources":                  {values: "resources: {limits: {memory: 1Gi}}", comes: []string{"memory: 1Gi"}},
	"serviceAccount.annotations": {values: "serviceAccount: {annotations: {example.com/a: b}}", comes: []string{"example.com/a: b\nautomount"}},
	"tolerations":                {values: "tolerations: [{operator: Exists}]", comes: []string{"tolerations:\n      - operator: Exists"}},
	"topologySpreadConstraints": {values: "topologySpreadConstraints: [{topologyKey: zone, maxSkew: 2, whenUnsatisfiable: DoNotSchedule, labelSelector: {}}]",
		comes: []string{"labelSelector: {}\n        maxSkew: 2"}},
}

func TestEachValueOfTheChartHasAnEffect(t *testing.T) {
	g := NewWithT(t)
	var names []string
	for _, row := range table(g, readDocument(g, chart+"/README.md"), "Value") {
		names = append(names, strings.Trim(row[0], "`"))
	}
	g.Expect(names).To(ConsistOf(append(valuesInSuites(g), slices.Collect(maps.Keys(chartValues))...)), "each is tried in one place")
	before, err := template(t, "")
	g.Expect(err).NotTo(HaveOccurred())
	for name, other := range chartValues {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			after, err := template(t, other.values)
			g.Expect(err).NotTo(HaveOccurred())
			for _, text := range other.comes {
				g.Expect(before).NotTo(ContainSubstring(text))
				g.Expect(after).To(ContainSubstring(text))
			}
		})
	}
}

func TestTheChartsValuesAreThoseOfItsSchemaAndREADME(t *testing.T) {
	g := NewWithT(t)
	var values, schema map[string]any
	for name, into := range map[string]*map[string]any{"values.yaml": &values, "values.schema.json": &schema} {
		raw, err := os.ReadFile(harness.Path(chart, name))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(yaml.Unmarshal(raw, into)).To(Succeed())
	}
	delete(schema["properties"].(map[string]any), "global") // Helm's own
	shown := map[string][]string{}
	for _, row := range table(g, readDocument(g, chart+"/README.md"), "Value") {
		shown[strings.Trim(row[0], "`")] = row[1:]
	}
	var compare func(prefix string, values, schema map[string]any)
	compare = func(prefix string, values, schema map[string]any) {
		g.Expect(schema["additionalProperties"]).To(BeFalse(), "%q: an unknown value is refused", prefix)
		properties := schema["properties"].(map[string]any)
		g.Expect(slices.Sorted(maps.Keys(properties))).To(Equal(slices.Sorted(maps.Keys(values))), prefix)
		for name, value := range values {
			path, property := prefix+name, properties[name].(map[string]any)
			g.Expect(property["description"]).NotTo(BeEmpty(), path)
			row, isValue := shown[path]
			if !isValue {
				g.Expect(value).To(BeAssignableToTypeOf(map[string]any{}), "%s stands in the README", path)
				compare(path+".", value.(map[string]any), property)
				continue
			}
			encoded, err := json.Marshal(value)
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(row).To(Equal([]string{"`" + string(encoded) + "`", property["description"].(string)}), path)
			delete(shown, path)
		}
	}
	compare("", values, schema)
	g.Expect(shown).To(BeEmpty(), "the README has values that there aren't")
}

func TestTheChartRefusesWhatItDoesNotKnow(t *testing.T) {
	for values, says := range map[string]string{
		"replicas: 3": "replicas",
		"metrics: {serviceMonitor: {enable: true}}": "serviceMonitor",
		"image: {digest: abc}":                      "digest",
		"replicaCount: two":                         "replicaCount",
		"watchNamespaces: ['*']":                    "watchNamespaces",
		"proxy: {httpsProxy: proxy:3128}":           "httpsProxy",
		"metrics: {readers: [{name: a}]}":           "readers",
		"openshift: {adaptSecurityContext: true}":   "adaptSecurityContext",
		"caFile: {configMapName: a, secretName: b}": "configMapName or secretName, not both",
		"commonLabels: {app: 1}":                    "commonLabels",
	} {
		_, err := template(t, values)
		NewWithT(t).Expect(err).To(MatchError(ContainSubstring(says)), values)
	}
	_, err := template(t, "global: {a: b}")
	NewWithT(t).Expect(err).NotTo(HaveOccurred(), "a chart around this one may have global values")
	_, err = template(t, "", "--kube-version", "1.31.9")
	NewWithT(t).Expect(err).To(MatchError(ContainSubstring("kubeVersion")))
}

// everyValue has objects and fields that the default values don't.
const everyValue = `
watchNamespaces: [default, kube-system]
image: {registry: registry.example.com, digest: "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"}
imagePullSecrets: [{name: registry}]
extraArgs: [--log-level=debug]
extraEnv: [{name: A, value: b}]
extraVolumes: [{name: a, emptyDir: {}}]
extraVolumeMounts: [{name: a, mountPath: /a}]
proxy: {httpsProxy: "http://proxy.example.com:3128", noProxy: gateway.example.com}
caFile: {secretName: roots, key: root.pem}
priorityClassName: system-cluster-critical
nodeSelector: {kubernetes.io/os: linux}
tolerations: [{key: a, operator: Exists}]
affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: zone, labelSelector: {matchLabels: {a: b}}}]}}
podDisruptionBudget: {maxUnavailable: 50%}
serviceAccount: {annotations: {example.com/a: b}}
rbac: {ownerReferences: true}
metrics: {readers: [{name: prometheus, namespace: monitoring}], service: {annotations: {example.com/a: b}}}
networkPolicy: {extraEgressPorts: [9443]}
admissionPolicies: {enabled: true, otherOperators: [{name: two, namespace: marketing}]}
commonLabels: {example.com/team: crm}
commonAnnotations: {example.com/team: crm}
deploymentAnnotations: {example.com/a: b}
podLabels: {example.com/a: b}
podAnnotations: {example.com/a: b}
extraObjects: [{apiVersion: v1, kind: ConfigMap, metadata: {name: extra, namespace: "{{ .Release.Namespace }}"}}]
`

func TestTheAPIServerTakesWhatTheChartMakes(t *testing.T) {
	for what, values := range map[string]string{"the defaults": "", "all values": everyValue} {
		g := NewWithT(t)
		// Under another name and in another namespace than config/default, whose Deployment selects pods by one label less.
		out, err := helm(t, values, "template", "other", harness.Path(chart), "--namespace", "default", "--values", "-", "--skip-tests")
		g.Expect(err).NotTo(HaveOccurred(), what)
		_, err = cluster.KubectlInput(t.Context(), strings.NewReader(out), "apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-")
		g.Expect(err).NotTo(HaveOccurred(), what)
	}
}

func TestTheChartsPodsAreAdmittedAsRestricted(t *testing.T) {
	for _, values := range []string{"", "openshift: {adaptSecurityContext: force}", "extraEnv: [{name: A, value: b}]\ncaFile: {secretName: roots}"} {
		g := NewWithT(t)
		rendered := renderChart(t, values)
		deployment := as[appsv1.Deployment](g, rendered[chartDeployment])
		operator := corev1.Pod{Spec: deployment.Spec.Template.Spec, ObjectMeta: metav1.ObjectMeta{
			Namespace: harness.SystemNamespace, Name: "any", Labels: deployment.Spec.Template.Labels,
		}}
		test := as[corev1.Pod](g, rendered[chartTestPod])
		for _, pod := range []*corev1.Pod{&operator, &test} {
			g.Expect(admin.Create(t.Context(), pod, client.DryRunAll)).To(Succeed(), values)
		}
	}
}

// TestTheChartsTestPodIsAnOperatorThatNobodyTakesForOne: it has the arguments and rights of the others, but isn't counted
// among them by what selects pods.
func TestTheChartsTestPodIsAnOperatorThatNobodyTakesForOne(t *testing.T) {
	g := NewWithT(t)
	rendered := renderChart(t, everyValue)
	deployment, pod := as[appsv1.Deployment](g, rendered[chartDeployment]), as[corev1.Pod](g, rendered[chartTestPod])
	selector := labels.SelectorFromSet(deployment.Spec.Selector.MatchLabels)
	g.Expect(selector.Matches(labels.Set(deployment.Spec.Template.Labels))).To(BeTrue())
	g.Expect(selector.Matches(labels.Set(pod.Labels))).To(BeFalse())

	operator, standby := deployment.Spec.Template.Spec, pod.Spec.InitContainers[0]
	g.Expect(standby.RestartPolicy).To(HaveValue(Equal(corev1.ContainerRestartPolicyAlways)))
	g.Expect(standby.Args).To(Equal(operator.Containers[0].Args))
	g.Expect(standby.Env).To(Equal(operator.Containers[0].Env))
	g.Expect(standby.VolumeMounts).To(Equal(operator.Containers[0].VolumeMounts))
	g.Expect(standby.Image).To(Equal(operator.Containers[0].Image))
	g.Expect(pod.Spec.Containers[0].Image).To(Equal(standby.Image), "no other image is needed")
	g.Expect(pod.Spec.Volumes).To(Equal(operator.Volumes))
	g.Expect(pod.Spec.ServiceAccountName).To(Equal(operator.ServiceAccountName))
}

func TestTheChartsDescriptionIsTrue(t *testing.T) {
	g := NewWithT(t)
	raw, err := os.ReadFile(harness.Path(chart, "Chart.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	var description struct {
		Annotations map[string]string `json:"annotations"`
	}
	g.Expect(yaml.Unmarshal(raw, &description)).To(Succeed())

	var listed []struct{ Kind, Version, Name string }
	g.Expect(yaml.Unmarshal([]byte(description.Annotations["artifacthub.io/crds"]), &listed)).To(Succeed())
	var shown, made []string
	for _, crd := range listed {
		shown = append(shown, crd.Kind+" "+crd.Version+" "+crd.Name)
	}
	for name, object := range renderChart(t, "") {
		if strings.HasPrefix(name, "CustomResourceDefinition ") {
			crd := as[struct {
				Metadata struct{ Name string }
				Spec     struct {
					Names    struct{ Kind string }
					Versions []struct{ Name string }
				}
			}](g, object)
			made = append(made, crd.Spec.Names.Kind+" "+crd.Spec.Versions[0].Name+" "+crd.Metadata.Name)
		}
	}
	g.Expect(shown).To(ConsistOf(made))

	var examples, samples []any
	g.Expect(yaml.Unmarshal([]byte(description.Annotations["artifacthub.io/crdsExamples"]), &examples)).To(Succeed())
	for _, name := range []string{"sfmctoken_minimal.yaml", "gitops/platform/grant.yaml"} {
		var sample any
		g.Expect(yaml.Unmarshal(readSample(g, name), &sample)).To(Succeed())
		samples = append(samples, sample)
	}
	g.Expect(examples).To(Equal(samples))
}

func TestTheChartsNotesSayWhatAnUninstallTakesAway(t *testing.T) {
	for values, says := range map[string]string{
		"":                                    "helm uninstall leaves every SFMCToken",
		"crds: {keep: false}":                 "WARNING: helm uninstall deletes every SFMCToken",
		"watchNamespaces: [marketing, sales]": "in the namespaces marketing, sales.",
		"metrics: {serviceMonitor: {enabled: true}}": "Prometheus may not read the metrics yet",
	} {
		g := NewWithT(t)
		out, err := helm(t, values, "install", "sfmctoken-operator", harness.Path(chart), "--namespace", harness.SystemNamespace,
			"--values", "-", "--dry-run=client")
		g.Expect(err).NotTo(HaveOccurred())
		_, notes, found := strings.Cut(out, "NOTES:")
		g.Expect(found).To(BeTrue(), out)
		g.Expect(notes).To(ContainSubstring(says))
	}
}

func TestHelmFindsNoFaultInTheChart(t *testing.T) {
	_, err := helm(t, "", "lint", "--strict", harness.Path(chart))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
}
