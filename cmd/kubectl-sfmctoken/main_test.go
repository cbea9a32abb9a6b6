package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
)

func TestAWrongCommandLineIsRefusedWithASentence(t *testing.T) {
	for _, row := range []struct{ args, says string }{
		{"refres journeys", `there is no command "refres"`},
		{"refresh", "needs the name of one SFMCToken"},
		{"refresh a b", "needs the name of one SFMCToken"},
		{"refresh a -A", "is for one namespace"},
		{"list journeys", "list takes no name"},
		{"doctor -n marketing -A", "exclude each other"},
		{"doctor --timeout 5s", "is for refresh"},
		{"refresh a --timeout 0s", "must be more than 0"},
		{"refresh a --timeout soon", "invalid value"},
		{"--no-such-flag", "flag provided but not defined"},
	} {
		g := NewWithT(t)
		var out, errOut strings.Builder
		g.Expect(run(t.Context(), strings.Fields(row.args), &out, &errOut)).To(Equal(exitFailed), row.args)
		g.Expect(errOut.String()).To(And(ContainSubstring(row.says), HaveSuffix("see kubectl sfmctoken --help\n")), row.args)
		g.Expect(out.String()).To(BeEmpty(), row.args)
	}
}

func TestFlagsStandBeforeAndAfterWords(t *testing.T) {
	g := NewWithT(t)
	for _, args := range []string{"-n marketing refresh journeys --timeout 5s", "refresh --timeout=5s journeys --namespace marketing"} {
		s, err := readSettings(strings.Fields(args), os.Stderr)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect([]string{s.command, s.name, s.namespace, s.timeout.String()}).To(Equal([]string{"refresh", "journeys", "marketing", "5s"}))
	}
	s, err := readSettings(nil, os.Stderr)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(s.command).To(Equal("list"))
}

func TestHelpNamesTheCommands(t *testing.T) {
	g := NewWithT(t)
	var out, errOut strings.Builder
	g.Expect(run(t.Context(), []string{"--help"}, &out, &errOut)).To(Equal(0))
	g.Expect(errOut.String()).To(And(ContainSubstring("doctor"), ContainSubstring("refresh NAME"), ContainSubstring("-kubeconfig FILE")))
}

func TestWithoutAClusterNothingIsKnown(t *testing.T) {
	g := NewWithT(t)
	var out, errOut strings.Builder
	g.Expect(run(t.Context(), []string{"--kubeconfig", filepath.Join(t.TempDir(), "none")}, &out, &errOut)).To(Equal(exitFailed))
	g.Expect(errOut.String()).To(ContainSubstring("find a cluster"))
}
