package monitoring

import (
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// board is what Grafana reads of the dashboard.
type board struct {
	Templating struct {
		List []struct {
			Name       string `json:"name"`
			Type       string `json:"type"`
			Definition string `json:"definition"`
		} `json:"list"`
	} `json:"templating"`
	Panels []panel `json:"panels"`
}

// panel has queries, unless it is a row.
type panel struct {
	ID          int        `json:"id"`
	Type        string     `json:"type"`
	Title       string     `json:"title"`
	Description string     `json:"description"`
	Datasource  datasource `json:"datasource"`
	GridPos     struct {
		X, Y, W, H int
	} `json:"gridPos"`
	Targets []struct {
		Datasource datasource `json:"datasource"`
		Expr       string     `json:"expr"`
	} `json:"targets"`
}

type datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

func readDashboard(g *WithT) (read board) {
	text, err := os.ReadFile(harness.Path("config/dashboard/sfmctoken-operator.json"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(json.Unmarshal(text, &read)).To(Succeed())
	g.Expect(read.Panels).NotTo(BeEmpty())
	return read
}

func TestEachPanelHasItsPlaceAndAsksTheChosenDatasource(t *testing.T) {
	g := NewWithT(t)
	ids, taken := map[int]bool{}, map[[2]int]string{}
	var titles []string
	for _, panel := range readDashboard(g).Panels {
		g.Expect(ids).NotTo(HaveKey(panel.ID), panel.Title)
		ids[panel.ID] = true
		titles = append(titles, panel.Title)
		at := panel.GridPos
		g.Expect(at.X+at.W).To(BeNumerically("<=", 24), panel.Title)
		for x := range at.W {
			for y := range at.H {
				cell := [2]int{at.X + x, at.Y + y}
				g.Expect(taken[cell]).To(BeEmpty(), panel.Title)
				taken[cell] = panel.Title
			}
		}
		if panel.Type == "row" {
			continue
		}
		chosen := datasource{"prometheus", "${datasource}"}
		g.Expect(panel.Datasource).To(Equal(chosen), panel.Title)
		g.Expect(panel.Targets).NotTo(BeEmpty(), panel.Title)
		for _, target := range panel.Targets {
			g.Expect(target.Datasource).To(Equal(chosen), panel.Title)
			g.Expect(strings.Count(target.Expr, "by (namespace, name)")).
				To(Equal(strings.Count(target.Expr, `{namespace=~"$namespace"}`)), "%s knows the variable", panel.Title)
		}
	}
	g.Expect(titles).To(ContainElements(moved))
}

// moved are the panels that show more than zero while the failures of this test last.
var moved = []string{
	"Not ready", "Stalled", "Suspended", "Not ready, stalled or suspended by namespace", "Refresh lateness by namespace",
	"Most failed attempts", "Throttled clients by host", "Waiting token requests by host",
}

// filled is a query with what Grafana puts in place of the variables.
func filled(expr, namespace string) string {
	return strings.NewReplacer("$namespace", namespace, "$__rate_interval", "5m").Replace(expr)
}

// drawsTheDashboard runs each query for all namespaces and for one.
func (w *world) drawsTheDashboard() {
	suspended := harness.Token("service", "paused", "sfmc-package", account)
	suspended.Spec.Suspend = true
	w.create(suspended)
	w.namespacesToChooseFrom()
	for _, panel := range readDashboard(w.WithT).Panels {
		for _, target := range panel.Targets {
			w.numbers(panel.Title, filled(target.Expr, ".*"))
			found, err := w.prometheus.query(filled(target.Expr, "sales"))
			w.Expect(err).NotTo(HaveOccurred())
			for _, one := range found {
				w.Expect(one.labels["namespace"]).To(BeElementOf("", "sales"), target.Expr)
			}
		}
		if slices.Contains(moved, panel.Title) {
			w.Eventually(func() float64 { return w.most(panel) }).Should(BeNumerically(">", 0), panel.Title)
		}
	}
}

// most is the highest value that a panel shows.
func (w *world) most(shown panel) (value float64) {
	for _, target := range shown.Targets {
		for _, one := range w.numbers(shown.Title, filled(target.Expr, ".*")) {
			value = max(value, one.value)
		}
	}
	return value
}

// numbers waits until a query has series, each with a number.
func (w *world) numbers(title, expr string) (found []series) {
	w.Eventually(func(g Gomega) {
		var err error
		found, err = w.prometheus.query(expr)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(found).NotTo(BeEmpty(), "%s: %s", title, expr)
		for _, one := range found {
			g.Expect(math.IsNaN(one.value)).To(BeFalse(), "%s: %s", title, expr)
		}
	}).Should(Succeed())
	return found
}

// namespacesToChooseFrom are those of the variable.
func (w *world) namespacesToChooseFrom() {
	w.t.Helper()
	var variables []string
	for _, variable := range readDashboard(w.WithT).Templating.List {
		variables = append(variables, variable.Type+" "+variable.Name)
		asked := regexp.MustCompile(`^label_values\((\w+), (\w+)\)$`).FindStringSubmatch(variable.Definition)
		if variable.Type != "query" {
			continue
		}
		w.Expect(asked).NotTo(BeNil(), variable.Definition)
		var values []string
		path := fmt.Sprintf("/api/v1/label/%s/values?match[]=%s", asked[2], url.QueryEscape(asked[1]))
		w.Expect(w.prometheus.get(path, &values)).To(Succeed())
		w.Expect(values).To(ConsistOf("marketing", "sales", "loyalty", "service", "partners"))
	}
	w.Expect(variables).To(Equal([]string{"datasource datasource", "query namespace"}))
}
