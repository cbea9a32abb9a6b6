package sfmctest_test

import (
	"os"
	"regexp"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// TestTheDocsNameEveryRouteAndRefusal compares docs/standin.md with the code.
func TestTheDocsNameEveryRouteAndRefusal(t *testing.T) {
	g := NewWithT(t)
	read := func(path, pattern string) []string {
		text, err := os.ReadFile(path) //nolint:gosec // a file of this repository
		g.Expect(err).NotTo(HaveOccurred())
		var found []string
		for _, match := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
			found = append(found, strings.Join(match[1:], " "))
		}
		g.Expect(found).NotTo(BeEmpty())
		return found
	}
	const page = "../../docs/standin.md"
	g.Expect(read(page, "(?m)^\\| `([A-Z]+) (/_control/[^`]+)` \\|")).To(ConsistOf(
		read("control.go", `(?m)^//\t([A-Z]+) +(/_control/\S+?)(?:\?\S*)? `)))
	g.Expect(read(page, "`([a-z-]+)`")).To(ContainElements(read("refusals.go", `Refusal = "([a-z-]+)" *//`)))
	g.Expect(read(page, "`([a-z-]+)`")).To(ContainElements(read("faults.go", `Wire = "([a-z-]+)"`)))
}
