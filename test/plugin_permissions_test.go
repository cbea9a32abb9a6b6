package test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// TestThePluginNeedsNoMoreThanDocsSay runs each command as somebody who has the rights that docs/plugin.md says it needs,
// and nothing else.
func TestThePluginNeedsNoMoreThanDocsSay(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	w.ready("journeys")
	w.step(5 * time.Minute)
	ca := filepath.Join(t.TempDir(), "ca.crt")
	w.Expect(os.WriteFile(ca, w.sfmc.CACert(), 0o600)).To(Succeed())
	arguments := map[string]string{
		"list": "", "status": "journeys", "doctor": "", "refresh": "journeys", "suspend": "journeys", "resume": "journeys",
		"whoami":  "journeys --ca-file " + ca + " --allow-rest-host " + w.sfmc.Host(),
		"report":  "--output-file " + filepath.Join(t.TempDir(), "report.tar.gz"),
		"list -w": "", // it doesn't end: TestThePluginWatches has the same rights
	}
	ran := map[string]bool{}
	for _, row := range table(w.WithT, readDocument(w.WithT, "docs/plugin.md"), "Command") {
		var rules []rbacv1.PolicyRule
		for _, right := range codeIn(row[1]) {
			verb, resource, _ := strings.Cut(right, " ")
			of := schema.ParseGroupResource(resource)
			rules = append(rules, may(verb, of.Group, of.Resource))
		}
		person := w.personWho(rights{w.ns: rules})
		for _, command := range codeIn(row[0]) {
			w.Expect(arguments).To(HaveKey(command))
			if ran[command] = true; command == "list -w" {
				continue
			}
			w.Eventually(func() int {
				return w.pluginAs(person, append([]string{command}, strings.Fields(arguments[command])...)...).code
			}).Should(Equal(0), command)
		}
	}
	w.Expect(ran).To(HaveLen(len(arguments)), "docs have all commands that work on SFMCTokens")
}
