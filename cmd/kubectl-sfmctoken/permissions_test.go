package main

import (
	"os"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

// TestDocsPermissionsAreThoseOfTheCode compares what docs/plugin.md says that commands need with what check asks about.
func TestDocsPermissionsAreThoseOfTheCode(t *testing.T) {
	g := NewWithT(t)
	text, err := os.ReadFile("../../docs/plugin.md")
	g.Expect(err).NotTo(HaveOccurred())
	shown := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if cells := strings.Split(line, " | "); len(cells) == 3 && strings.HasPrefix(line, "| `") {
			shown[strings.Trim(cells[0], "| ")] = cells[1]
		}
	}
	for _, need := range needs {
		command := "`" + strings.ReplaceAll(need.command, ", ", "`, `") + "`"
		var says []string
		for _, right := range need.permissions {
			says = append(says, "`"+right.String()+"`")
		}
		g.Expect(shown).To(HaveKeyWithValue(command, strings.Join(says, ", ")))
	}
}
