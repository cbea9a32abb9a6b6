package main

import (
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/utils/clock"
)

func TestAWrongCommandLineIsRefusedWithASentence(t *testing.T) {
	for _, row := range []struct{ args, says string }{
		{"refres journeys", `unknown command "refres" for "kubectl sfmctoken"; see kubectl sfmctoken --help`},
		{"completion bash", `unknown command "completion" for "kubectl sfmctoken"; see kubectl sfmctoken --help`},
		{"refresh", "accepts 1 arg(s), received 0; see kubectl sfmctoken refresh --help"},
		{"refresh a b", "accepts 1 arg(s), received 2; see kubectl sfmctoken refresh --help"},
		{"refresh a -A", "unknown shorthand flag: 'A' in -A; see kubectl sfmctoken refresh --help"},
		{"list journeys", `unknown command "journeys" for "kubectl sfmctoken list"; see kubectl sfmctoken list --help`},
		{"-n marketing -A", "[all-namespaces namespace] were all set; see kubectl sfmctoken --help"},
		{"list -A -n marketing", "[all-namespaces namespace] were all set; see kubectl sfmctoken list --help"},
		{"-n marketing doctor -A", "[all-namespaces namespace] were all set; see kubectl sfmctoken doctor --help"},
		{"doctor --timeout 5s", "unknown flag: --timeout; see kubectl sfmctoken doctor --help"},
		{"suspend", "requires at least 1 arg(s), only received 0; see kubectl sfmctoken suspend --help"},
		{"resume a -A", "unknown shorthand flag: 'A' in -A; see kubectl sfmctoken resume --help"},
		{"doctor -o yaml", "--output must be json, or left out; see kubectl sfmctoken doctor --help"},
		{"status", "accepts 1 arg(s), received 0; see kubectl sfmctoken status --help"},
		{"whoami a b", "accepts 1 arg(s), received 2; see kubectl sfmctoken whoami --help"},
		{"whoami a --timeout 0s", "--timeout must be more than 0; see kubectl sfmctoken whoami --help"},
		{"check -A", "unknown shorthand flag: 'A' in -A; see kubectl sfmctoken check --help"},
		{"status a -A", "unknown shorthand flag: 'A' in -A; see kubectl sfmctoken status --help"},
		{"report -A -n marketing", "[all-namespaces namespace] were all set; see kubectl sfmctoken report --help"},
		{"refresh a --timeout 0s", "--timeout must be more than 0; see kubectl sfmctoken refresh --help"},
		{"refresh a --timeout -5s", "--timeout must be more than 0; see kubectl sfmctoken refresh --help"},
		{"refresh a --timeout soon", `invalid duration "soon"; see kubectl sfmctoken refresh --help`},
		{"--no-such-flag", "unknown flag: --no-such-flag; see kubectl sfmctoken --help"},
		{"list --namespace", "flag needs an argument: --namespace; see kubectl sfmctoken list --help"},
	} {
		g := NewWithT(t)
		streams, _, out, errOut := genericiooptions.NewTestIOStreams()
		g.Expect(run(t.Context(), strings.Fields(row.args), streams)).To(Equal(exitFailed), row.args)
		g.Expect(errOut.String()).To(And(HavePrefix("kubectl sfmctoken: "), HaveSuffix(row.says+"\n")), row.args)
		g.Expect(strings.Count(errOut.String(), "\n")).To(Equal(1), row.args)
		g.Expect(out.String()).To(BeEmpty(), row.args)
	}
}

func TestFlagsStandBeforeAndAfterWords(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+strings.TrimPrefix(r.URL.Path, "/apis/sfmctoken.dev/v1alpha1"))
		http.NotFound(w, r)
	}))
	defer server.Close()
	for _, row := range []struct {
		args, asks, namespace string
		timeout               time.Duration
	}{
		{"-n marketing refresh journeys --timeout 5s", "GET /namespaces/marketing/sfmctokens/journeys", "marketing", 5 * time.Second},
		{"refresh --timeout=5s journeys --namespace marketing", "GET /namespaces/marketing/sfmctokens/journeys", "marketing", 5 * time.Second},
		{"refresh journeys", "GET /namespaces/default/sfmctokens/journeys", "default", time.Minute},
		{"doctor -nmarketing", "GET /namespaces/marketing/sfmctokens", "marketing", time.Minute},
		{"doctor -A", "GET /sfmctokens", "", time.Minute},
		{"-A doctor", "GET /sfmctokens", "", time.Minute},
		{"list --all-namespaces", "GET /sfmctokens", "", time.Minute},
		{"-n marketing", "GET /sfmctokens", "marketing", time.Minute}, // it lists; tokens are shared across namespaces
		{"-A", "GET /sfmctokens", "", time.Minute},
		{"", "GET /sfmctokens", "default", time.Minute},
		{"-o json -A", "GET /sfmctokens", "", time.Minute},
		{"list -l team=emea -o name", "GET /namespaces/default/sfmctokens", "default", time.Minute}, // sharers aren't shown
		{"-w -A", "GET /sfmctokens", "", time.Minute},
		{"list --watch", "GET /namespaces/default/sfmctokens", "default", time.Minute}, // sharers aren't shown
		{"status journeys", "GET /namespaces/default/sfmctokens/journeys", "default", time.Minute},
		{"whoami journeys --timeout 5s", "GET /namespaces/default/sfmctokens/journeys", "default", 5 * time.Second},
		{"doctor -o json", "GET /namespaces/default/sfmctokens", "default", time.Minute},
		{"suspend journeys", "PATCH /namespaces/default/sfmctokens/journeys", "default", time.Minute},
		{"resume journeys -n marketing", "PATCH /namespaces/marketing/sfmctokens/journeys", "marketing", time.Minute},
	} {
		g := NewWithT(t)
		t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
		asked = nil
		streams, _, _, _ := genericiooptions.NewTestIOStreams()
		p := &plugin{IOStreams: streams, clock: clock.RealClock{}, connection: genericclioptions.NewConfigFlags(true)}
		root := p.commands()
		root.SetArgs(append(strings.Fields(row.args), "--server", server.URL))
		g.Expect(root.ExecuteContext(t.Context())).To(MatchError(ContainSubstring("could not find")), row.args)
		g.Expect(asked).To(Equal([]string{row.asks}), row.args)
		g.Expect(p.namespace).To(Equal(row.namespace), row.args)
		g.Expect(p.timeout).To(Equal(row.timeout), row.args)
	}
}

func TestHelpNamesTheCommandsAndFlags(t *testing.T) {
	for args, says := range map[string][]string{
		"--help":      {"kubectl sfmctoken [command]", "  list ", "  doctor ", "  refresh ", "  suspend ", "  resume ", "  status ", "  whoami ", "  check ", "  version ", "  report ", "--watch", "--all-namespaces", "--selector", "--no-headers", "--output", "--kubeconfig", "--as "},
		"refresh -h":  {"kubectl sfmctoken refresh NAME", "--timeout duration", "1m0s", "--kubeconfig"},
		"help doctor": {"kubectl sfmctoken doctor", "--all-namespaces"},
		"-A list -h":  {"kubectl sfmctoken list", "--all-namespaces"},
	} {
		g := NewWithT(t)
		streams, _, out, errOut := genericiooptions.NewTestIOStreams()
		g.Expect(run(t.Context(), strings.Fields(args), streams)).To(Equal(0), args)
		for _, text := range says {
			g.Expect(out.String()).To(ContainSubstring(text), args)
		}
		g.Expect(errOut.String()).To(BeEmpty(), args)
	}
}

func TestWithoutAClusterNothingIsKnown(t *testing.T) {
	g := NewWithT(t)
	streams, _, out, errOut := genericiooptions.NewTestIOStreams()
	missing := filepath.Join(t.TempDir(), "none")
	g.Expect(run(t.Context(), []string{"--kubeconfig", missing}, streams)).To(Equal(exitFailed))
	g.Expect(errOut.String()).To(Equal("kubectl sfmctoken: find a cluster: stat " + missing + ": no such file or directory\n"))
	g.Expect(out.String()).To(BeEmpty())
}
