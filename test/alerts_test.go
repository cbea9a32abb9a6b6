package test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

const (
	alertRules = "config/prometheus-rules/alerts.yaml"
	alertTests = "test/alert_tests.yaml"
	runbooks   = "docs/runbooks"

	// testedLife is how long a token lives in alertTests, where it is due as late as the operator permits.
	testedLife = 1079 * time.Second
)

var promtool = builtTool("promtool")

// rule is one of a file of Prometheus rules: an alert, or a recording rule.
type rule struct {
	Alert       string            `json:"alert"`
	Record      string            `json:"record"`
	Expr        string            `json:"expr"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// rules are those that Prometheus gets, and how often it evaluates them.
func rules(g *WithT) (found []rule, interval time.Duration) {
	var file struct {
		Groups []struct {
			Interval string `json:"interval"`
			Rules    []rule `json:"rules"`
		} `json:"groups"`
	}
	readYAML(g, alertRules, &file)
	g.Expect(file.Groups).To(HaveLen(1))
	interval, err := time.ParseDuration(file.Groups[0].Interval)
	g.Expect(err).NotTo(HaveOccurred())
	return file.Groups[0].Rules, interval
}

// alerts are the rules that are alerts, by name.
func alerts(g *WithT) map[string]rule {
	all, _ := rules(g)
	found := map[string]rule{}
	for _, rule := range all {
		if rule.Alert != "" {
			g.Expect(found).NotTo(HaveKey(rule.Alert))
			found[rule.Alert] = rule
		}
	}
	g.Expect(found).NotTo(BeEmpty())
	return found
}

func readYAML(g *WithT, path string, into any) {
	raw, err := os.ReadFile(harness.Path(path))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(yaml.Unmarshal(raw, into)).To(Succeed())
}

func TestPromtoolChecksAndTestsTheRules(t *testing.T) {
	g := NewWithT(t)
	program, err := promtool()
	g.Expect(err).NotTo(HaveOccurred())
	for _, args := range [][]string{
		{"check", "rules", "--lint=all", "--lint-fatal", harness.Path(alertRules)},
		{"test", "rules", harness.Path(alertTests)},
	} {
		out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput() //nolint:gosec // built by the test
		g.Expect(err).NotTo(HaveOccurred(), string(out))
	}
}

func TestThePlainRulesAreThoseOfThePrometheusRule(t *testing.T) {
	g := NewWithT(t)
	var plain map[string]any
	readYAML(g, alertRules, &plain)
	object := renderConfig(t, "prometheus-rules")["PrometheusRule sfmctoken-system/sfmctoken-operator"]
	g.Expect(object).NotTo(BeNil())
	g.Expect(object["spec"]).To(Equal(plain), "run make generate")
}

func TestEachAlertLeadsToItsRunbook(t *testing.T) {
	g := NewWithT(t)
	var pages []string
	for name, alert := range alerts(g) {
		pages = append(pages, name+".md")
		g.Expect(alert.Labels["severity"]).To(BeElementOf("warning", "critical"), name)
		g.Expect(alert.Annotations["summary"]).NotTo(BeEmpty(), name)
		g.Expect(alert.Annotations["description"]).NotTo(BeEmpty(), name)
		g.Expect(alert.Annotations["runbook_url"]).To(Equal(
			"https://github.com/sfmctoken/sfmctoken-operator/blob/main/"+runbooks+"/"+name+".md"), name)
	}
	files, err := filepath.Glob(harness.Path(runbooks, "*"))
	g.Expect(err).NotTo(HaveOccurred())
	var found []string
	for _, file := range files {
		name := filepath.Base(file)
		found = append(found, name)
		page := readDocument(g, filepath.Join(runbooks, name))
		g.Expect(page.Text).To(HavePrefix("# " + strings.TrimSuffix(name, ".md") + "\n"))
		headings := regexp.MustCompile(`(?m)^## (.+)$`).FindAllStringSubmatch(page.Prose, -1)
		g.Expect(headings).To(HaveLen(4), name)
		for i, heading := range []string{"What it means", "Who acts", "What to do", "How it ends"} {
			g.Expect(headings[i][1]).To(Equal(heading), name)
		}
	}
	g.Expect(found).To(ConsistOf(pages), "one page for each alert")
}

// TestTheTableOfAlertsSaysWhenAPersonIsTold compares docs/monitoring.md with the rules and with what promtool tests of
// them: that an alert fires at one time, and did not one evaluation before.
func TestTheTableOfAlertsSaysWhenAPersonIsTold(t *testing.T) {
	g := NewWithT(t)
	fires := firstFirings(g)
	all := alerts(g)
	_, interval := rules(g)
	var shown []string
	for _, row := range table(g, readDocument(g, "docs/monitoring.md"), "Alert") {
		name, severity, told := codeIn(row[0])[0], row[1], row[3]
		shown = append(shown, name)
		g.Expect(all[name].Labels["severity"]).To(Equal(severity), name)
		g.Expect(row[0]).To(ContainSubstring("(runbooks/" + name + ".md)"))
		g.Expect(fires).To(HaveKey(name), "a case fires, and one before doesn't")
		// What changes just after a scrape is seen at the next one, and that may come just after an evaluation.
		left := (testedLife - fires[name] - 2*interval) / time.Second
		switch {
		case !regexp.MustCompile(`\d s\b`).MatchString(told): // it has nothing to do with a token's life
		case left > 0:
			g.Expect(told).To(Equal(fmt.Sprintf("%d s before", left)), name)
		default:
			g.Expect(told).To(Equal(fmt.Sprintf("%d s after", -left)), name)
		}
	}
	g.Expect(shown).To(ConsistOf(slices.Collect(maps.Keys(all))))

	tested, err := os.ReadFile(harness.Path(alertTests))
	g.Expect(err).NotTo(HaveOccurred())
	scrapes := (testedLife - v1alpha1.DefaultRefreshBefore) / interval
	g.Expect(string(tested)).To(And(
		ContainSubstring(fmt.Sprintf("name=\"journeys\", pod=\"a\"}', values: %dx65}", testedLife/time.Second)),
		ContainSubstring(fmt.Sprintf("name=\"journeys\", pod=\"a\"}', values: 0x%d 1+30x40}", scrapes)),
	))
}

func TestTheTableOfRecordingRulesIsThatOfTheRules(t *testing.T) {
	g := NewWithT(t)
	all, _ := rules(g)
	var recorded, shown []string
	for _, rule := range all {
		if rule.Record != "" {
			recorded = append(recorded, rule.Record)
		}
	}
	for _, row := range table(g, readDocument(g, "docs/monitoring.md"), "Recording rule") {
		shown = append(shown, codeIn(row[0])...)
	}
	g.Expect(shown).To(Equal(recorded))
}

// firstFirings are the times at which the alerts fire first in what promtool tests, if that is tested to be the first.
func firstFirings(g *WithT) map[string]time.Duration {
	var file struct {
		Interval string `json:"evaluation_interval"`
		Tests    []struct {
			Interval string `json:"interval"`
			Cases    []struct {
				Alert  string `json:"alertname"`
				At     string `json:"eval_time"`
				Alerts []any  `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		} `json:"tests"`
	}
	readYAML(g, alertTests, &file)
	_, interval := rules(g)
	g.Expect(file.Interval).To(Equal(interval.String()))
	first := map[string]time.Duration{}
	for _, test := range file.Tests {
		g.Expect(test.Interval).To(Equal(file.Interval), "it is scraped as often as it is evaluated")
		quiet := map[string]time.Duration{}
		for _, c := range test.Cases {
			at, err := time.ParseDuration(c.At)
			g.Expect(err).NotTo(HaveOccurred())
			before, wasQuiet := quiet[c.Alert]
			if len(c.Alerts) == 0 {
				quiet[c.Alert] = at
			} else if found, isKnown := first[c.Alert]; wasQuiet && before+interval == at && (!isKnown || at < found) {
				first[c.Alert] = at
			}
		}
	}
	return first
}

// TestTheRulesNameMetricsThatTheOperatorServes asks the binary, since in tests nobody else is elected.
func TestTheRulesNameMetricsThatTheOperatorServes(t *testing.T) {
	w := newRealTimeWorld(t, sfmctest.Options{})
	change(w, w.secret("sfmc-package"), func(s *corev1.Secret) { s.Data["client_secret_expires_at"] = []byte("2999-12-31") })
	address, err := harness.FreeAddress()
	w.Expect(err).NotTo(HaveOccurred())
	leader := w.startProcess("--leader-elect", "--leader-election-namespace", harness.SystemNamespace,
		"--metrics-bind-address", address, "--metrics-secure=false")
	w.token("journeys")
	status := w.ready("journeys").Status
	w.Expect(status.ExpiresAt.Sub(status.LastRefreshAt.Time)).To(Equal(testedLife))
	all, _ := rules(w.WithT)
	w.Eventually(func(g Gomega) { // its cache may show the status later than ours
		response, err := http.Get("http://" + address + "/metrics")
		g.Expect(err).NotTo(HaveOccurred())
		defer response.Body.Close()
		served, err := io.ReadAll(response.Body)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(string(served)).To(ContainSubstring("leader_election_master_status{name=\"sfmctoken-operator\"} 1\n"))
		var metrics []string
		for _, match := range regexp.MustCompile(`(?m)^# TYPE (\w+) `).FindAllStringSubmatch(string(served), -1) {
			metrics = append(metrics, match[1])
		}
		for _, rule := range all {
			names := metricsIn(rule.Expr)
			g.Expect(names).NotTo(BeEmpty(), rule.Expr)
			for _, name := range names {
				g.Expect(metrics).To(ContainElement(name), rule.Expr)
			}
		}
	}).Should(Succeed())
	w.Expect(w.terminate(leader)).To(Equal(0))
}

// metricsIn are the names in a PromQL expression that are neither functions nor operators nor labels.
func metricsIn(expr string) []string {
	for _, other := range []string{`\{[^}]*\}`, `\[[^\]]*\]`, `\b(by|on) \([^)]*\)`, `\w+ *\(`, `\b(and|or|unless)\b`} {
		expr = regexp.MustCompile(other).ReplaceAllString(expr, " ")
	}
	return regexp.MustCompile(`[a-zA-Z_:][\w:]*`).FindAllString(expr, -1)
}
