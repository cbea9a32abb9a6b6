package test

import (
	"encoding/json"
	"os"
	"testing"

	. "github.com/onsi/gomega"
	lua "github.com/yuin/gopher-lua"
	luajson "layeh.com/gopher-json"
	"sigs.k8s.io/yaml"

	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// argoCDFile reads a file of what Argo CD is to know.
func argoCDFile(g *WithT, into any, elements ...string) string {
	raw, err := os.ReadFile(harness.Path(append([]string{argoCD}, elements...)...))
	g.Expect(err).NotTo(HaveOccurred())
	if into != nil {
		g.Expect(yaml.Unmarshal(raw, into)).To(Succeed())
	}
	return string(raw)
}

// run returns what a Lua script returns of an object.
func run(g *WithT, script string, object map[string]any) (result map[string]any) {
	state := lua.NewState()
	defer state.Close()
	state.SetGlobal("obj", luajson.DecodeValue(state, object))
	g.Expect(state.DoString(script)).To(Succeed())
	raw, err := luajson.Encode(state.Get(-1))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(json.Unmarshal(raw, &result)).To(Succeed())
	return result
}

// TestTheScriptsForArgoCDSayWhatIsExpected runs them by the Lua that Argo CD has; make gitops runs them by all of its
// engine, which takes minutes to compile.
func TestTheScriptsForArgoCDSayWhatIsExpected(t *testing.T) {
	g := NewWithT(t)
	for _, kind := range []string{"SFMCToken", "SFMCAccessGrant"} {
		health := argoCDFile(g, nil, kind, "health.lua")
		var expected struct {
			Tests []struct {
				InputPath    string         `json:"inputPath"`
				HealthStatus map[string]any `json:"healthStatus"`
			} `json:"tests"`
		}
		argoCDFile(g, &expected, kind, "health_test.yaml")
		g.Expect(expected.Tests).NotTo(BeEmpty())
		for _, test := range expected.Tests {
			var object map[string]any
			argoCDFile(g, &object, kind, test.InputPath)
			g.Expect(run(g, health, object)).To(Equal(test.HealthStatus), "%s, %s", kind, test.InputPath)
		}
	}
	var expected struct {
		ActionTests []struct{ Action, InputPath, ExpectedOutputPath string } `json:"actionTests"`
	}
	argoCDFile(g, &expected, "SFMCToken", "actions", "action_test.yaml")
	g.Expect(expected.ActionTests).To(HaveLen(3))
	for _, test := range expected.ActionTests {
		var before, after map[string]any
		argoCDFile(g, &before, "SFMCToken", "actions", test.InputPath)
		argoCDFile(g, &after, "SFMCToken", "actions", test.ExpectedOutputPath)
		changed := run(g, argoCDFile(g, nil, "SFMCToken", "actions", test.Action, "action.lua"), before)
		if test.Action == "refresh" { // the time is another in each run
			const key = "sfmctoken.dev/refresh-requested-at"
			annotations := func(object map[string]any) map[string]any {
				return object["metadata"].(map[string]any)["annotations"].(map[string]any)
			}
			g.Expect(annotations(changed)[key]).To(MatchRegexp(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`))
			annotations(changed)[key] = annotations(after)[key]
		}
		g.Expect(changed).To(Equal(after), test.Action)
	}
}
