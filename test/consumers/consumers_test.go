package consumers

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// consumer is an example, and how the stand-in knows it.
type consumer struct {
	name      string
	command   []string
	userAgent string // begins with it
	apis      []string
	waits     bool // for the token, instead of saying that there is none
}

func example(elements ...string) string {
	return harness.Path(append([]string{"config", "samples", "consumers"}, elements...)...)
}

// built is where build puts what it makes.
func built(name string) string { return harness.Path(".cache", "consumers") + "/" + name }

// tools is the module that has what checks the templates.
var tools = harness.Path("hack", "tools", "consumers")

// build makes programs of the examples that have to be built, once.
var build = sync.OnceValues(func() ([]consumer, error) {
	dir, node := built(""), built("node")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o750), os.CopyFS(node, os.DirFS(example("node")))); err != nil {
		return nil, err
	}
	if err := run(harness.Path(), "go", "build", "-o", dir, "./config/samples/consumers/client-go"); err != nil {
		return nil, err
	}
	if err := run(tools, "go", "build", "-o", dir, "./envoy", "./bearertokenauth"); err != nil {
		return nil, err
	}
	if err := run(node, "npm", "ci", "--prefer-offline", "--no-audit", "--no-fund"); err != nil {
		return nil, err
	}
	return []consumer{
		{"shell", []string{"sh", example("consumer.sh")}, "curl/", []string{"rest"}, false},
		{"Go", []string{built("client-go")}, "Go-http-client/", []string{"rest"}, false},
		{"Python", []string{"python3", example("consumer.py")}, "Python-urllib/", []string{"rest"}, false},
		{"Java", []string{"java", example("Consumer.java")}, "Java-http-client/", []string{"rest"}, false},
		{"Node", []string{"node", built("node/consumer.js")}, "axios/", []string{"rest", "soap"}, false},
		{"OpenTelemetry", []string{built("bearertokenauth"), example("opentelemetry.yaml")}, "OpenTelemetry", []string{"rest"}, true},
	}, nil
})

const refreshes = 3

func TestEveryExampleSurvivesRefreshesUnderLoad(t *testing.T) {
	consumers, err := build()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	w := newWorld(t)
	frozen := w.startFrozen()
	running := map[string]program{}
	for _, c := range consumers {
		running[c.name] = w.start(string(w.volume), c.command)
	}

	for _, c := range consumers {
		for _, api := range c.apis {
			w.Eventually(func(g Gomega) {
				select {
				case <-running[c.name].Exited():
					StopTrying(c.name + " ended:\n" + running[c.name].log.String()).Now()
				default:
				}
				g.Expect(w.calls(c, api).Tokens).To(BeNumerically(">", refreshes), "tokens that %s used by %s", c.name, api)
			}).Should(Succeed())
		}
	}
	for _, c := range consumers {
		w.Expect(running[c.name].Exited()).NotTo(BeClosed(), "%s ended:\n%s", c.name, running[c.name].log)
		running[c.name].Kill()
		for _, api := range c.apis {
			counted := w.calls(c, api)
			t.Logf("%s by %s: %d calls, %d tokens, %d answers 401", c.name, api, counted.Calls, counted.Tokens, counted.Refused)
			w.Expect(counted.Refused).To(BeZero(), "calls of %s with a dead token", c.name)
		}
		w.Expect(running[c.name].log.String()).To(ContainSubstring(account), c.name)
	}

	// What keeps its first token, as a variable of the environment does, is found out by the same count.
	w.Eventually(frozen.Exited()).Should(BeClosed())
	w.Expect(frozen.log.String()).To(And(ContainSubstring("business unit "+account), ContainSubstring("Not Authorized")))
}

// startFrozen starts the example for the shell with the files as they are now.
func (w *world) startFrozen() program {
	w.t.Helper()
	dir, curl := w.t.TempDir(), w.t.TempDir()
	for _, key := range []string{"access_token", "rest_instance_url"} {
		value, err := os.ReadFile(w.volume.path(key))
		w.Expect(err).NotTo(HaveOccurred())
		w.Expect(os.WriteFile(filepath.Join(dir, key), value, 0o600)).To(Succeed()) //nolint:gosec // this test's
	}
	w.Expect(os.WriteFile(filepath.Join(curl, ".curlrc"), []byte("user-agent = frozen\n"), 0o600)).To(Succeed())
	return w.start(dir, []string{"sh", example("consumer.sh")}, "CURL_HOME="+curl)
}

// calls are what the stand-in counted of a consumer.
func (w *world) calls(c consumer, api string) sfmctest.Calls {
	all := w.sfmc.Calls()
	i := slices.IndexFunc(all, func(counted sfmctest.Calls) bool {
		return counted.API == api && strings.HasPrefix(counted.UserAgent, c.userAgent)
	})
	if i < 0 {
		return sfmctest.Calls{}
	}
	return all[i]
}

func TestTheRealSDKAcceptsTheStandIn(t *testing.T) {
	_, err := build()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	w := newTenant(t)
	script, err := os.ReadFile(filepath.Join("testdata", "sdk.js"))
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(os.WriteFile(built("node/sdk.js"), script, 0o600)).To(Succeed()) //nolint:gosec // this repository's
	pkg := harness.Package()
	p := w.start("", []string{"node", built("node/sdk.js")},
		"CLIENT_ID="+pkg.ClientID, "CLIENT_SECRET="+pkg.ClientSecret, "ACCOUNT_ID="+account, "AUTH_URL="+address.URL())
	w.Eventually(p.Exited()).Should(BeClosed())
	w.Expect(p.Terminate(t.Context())).To(BeZero(), "%s", p.log)
}

func TestEveryExampleSaysThatTheTokenIsMissing(t *testing.T) {
	consumers, err := build()
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	for _, c := range consumers {
		if c.waits {
			continue
		}
		t.Run(c.name, func(t *testing.T) {
			g := NewWithT(t)
			empty := t.TempDir()
			p := start(t, empty, c.command)
			g.Eventually(p.Exited()).WithTimeout(patience).Should(BeClosed())
			g.Expect(p.Terminate(t.Context())).To(Equal(1))
			g.Expect(p.log.String()).To(ContainSubstring("in " + empty + ": is the Secret mounted there, and is the SFMCToken Ready?"))
		})
	}
}
