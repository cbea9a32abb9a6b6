// Package flux tries config/samples/gitops with Flux's own parts, and what stands in for its credentials.
package flux

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	kstatus "github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/sfmctoken/sfmctoken-operator/test/flux/layout"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// asFlux is what Flux is to say where Argo CD says the other.
var asFlux = map[string]kstatus.Status{
	"Healthy":     kstatus.CurrentStatus,
	"Suspended":   kstatus.CurrentStatus, // it holds nothing up
	"Progressing": kstatus.InProgressStatus,
	"Degraded":    kstatus.FailedStatus,
}

// TestEachStateIsTheSameToFluxAsToArgoCD evaluates the layout's healthCheckExprs as kustomize-controller does, on the
// objects that a real operator left in each state.
func TestEachStateIsTheSameToFluxAsToArgoCD(t *testing.T) {
	for kind, file := range map[string]string{"SFMCToken": "team-emea.yaml", "SFMCAccessGrant": "platform.yaml"} {
		evaluator := healthCheck(NewWithT(t), kind, file)
		folder := harness.Path("config", "argocd", "resource_customizations", "sfmctoken.dev", kind)
		var listed struct {
			Tests []struct {
				InputPath    string `json:"inputPath"`
				HealthStatus struct {
					Status string `json:"status"`
				} `json:"healthStatus"`
			} `json:"tests"`
		}
		read(NewWithT(t), filepath.Join(folder, "health_test.yaml"), &listed)
		NewWithT(t).Expect(listed.Tests).NotTo(BeEmpty())
		for _, test := range listed.Tests {
			t.Run(kind+" "+test.InputPath, func(t *testing.T) {
				g := NewWithT(t)
				object := &unstructured.Unstructured{}
				read(g, filepath.Join(folder, test.InputPath), &object.Object)
				result, err := evaluator.Evaluate(t.Context(), object)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(result.Status).To(Equal(asFlux[test.HealthStatus.Status]))
			})
		}
	}
}

// healthCheck has the expressions for a kind that a file in clusters/production gives to Flux.
func healthCheck(g *WithT, kind, file string) *cel.StatusEvaluator {
	raw, err := os.ReadFile(filepath.Join(layout.Dir(), "clusters", "production", file)) //nolint:gosec // of this repository
	g.Expect(err).NotTo(HaveOccurred())
	for _, text := range documents(raw) {
		var kustomization struct {
			Spec struct {
				HealthCheckExprs []kustomize.CustomHealthCheck `json:"healthCheckExprs"`
			} `json:"spec"`
		}
		g.Expect(yaml.Unmarshal(text, &kustomization)).To(Succeed())
		for _, check := range kustomization.Spec.HealthCheckExprs {
			if check.Kind == kind {
				evaluator, err := cel.NewStatusEvaluator(&check.HealthCheckExpressions)
				g.Expect(err).NotTo(HaveOccurred())
				return evaluator
			}
		}
	}
	g.Expect(kind).To(BeEmpty(), "%s has no healthCheckExprs for it", file)
	return nil
}

// documents are those of a YAML file.
func documents(raw []byte) [][]byte { return bytes.Split(raw, []byte("\n---\n")) }

// read reads a YAML file. Numbers become what the API server's are.
func read(g *WithT, path string, into any) {
	raw, err := os.ReadFile(path) //nolint:gosec // of this repository
	g.Expect(err).NotTo(HaveOccurred())
	raw, err = yaml.YAMLToJSON(raw)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(json.Unmarshal(raw, into)).To(Succeed())
}

func TestASuspendedTokenHoldsNothingUpEvenIfStalled(t *testing.T) {
	g := NewWithT(t)
	object := &unstructured.Unstructured{}
	read(g, harness.Path("config/argocd/resource_customizations/sfmctoken.dev/SFMCToken/testdata/10.yaml"), &object.Object)
	evaluator := healthCheck(g, "SFMCToken", "team-emea.yaml")
	result, err := evaluator.Evaluate(t.Context(), object)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(result.Status).To(Equal(kstatus.FailedStatus))
	g.Expect(unstructured.SetNestedField(object.Object, true, "spec", "suspend")).To(Succeed())
	result, err = evaluator.Evaluate(t.Context(), object)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(result.Status).To(Equal(kstatus.CurrentStatus))
}
