package monitoring

import (
	"fmt"
	"html/template"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// page shows a person what the dashboard shows, as far as that is to be had without Grafana.
var page = template.Must(template.New("").Parse(`<!doctype html>
<meta charset="utf-8"><title>The dashboard's queries</title>
<h1>The dashboard's queries, as Prometheus shows them</h1>
<p>Marketing Cloud refused, throttled and hung up for some of the SFMCTokens, and then no more.</p>
{{range .}}<h2>{{.Title}}</h2><p>{{.Description}}</p><img src="{{.ID}}.png" alt="">
{{end}}`))

// drawsThePage has Chromium open the queries of each panel in Prometheus' own pages, and keeps pictures of them.
func (w *world) drawsThePage() {
	dir := harness.Path("dist", "dashboard")
	w.Expect(os.RemoveAll(dir)).To(Succeed())
	w.Expect(os.MkdirAll(dir, 0o750)).To(Succeed())
	var drawn []panel
	for _, panel := range readDashboard(w.WithT).Panels {
		if panel.Type == "row" {
			continue
		}
		address := w.prometheus.graphs(panel)
		// Chromium may be done with a page before Prometheus has answered.
		w.Eventually(func() int { return strings.Count(w.chromium(address, "--dump-dom"), `class="u-legend`) }).
			Should(Equal(len(panel.Targets)), "%s: each query has a graph, and a legend\n%s", panel.Title, address)
		w.chromium(address, fmt.Sprintf("--window-size=1200,%d", 900*len(panel.Targets)),
			"--screenshot="+filepath.Join(dir, strconv.Itoa(panel.ID)+".png"))
		drawn = append(drawn, panel)
	}
	file, err := os.Create(filepath.Join(dir, "index.html")) //nolint:gosec // of this repository
	w.Expect(err).NotTo(HaveOccurred())
	defer file.Close()
	w.Expect(page.Execute(file, drawn)).To(Succeed())
	w.t.Logf("%d panels to look at: %s", len(drawn), file.Name())
}

// graphs is where Prometheus shows the queries of a panel.
func (p prometheus) graphs(shown panel) string {
	values := url.Values{}
	for i, target := range shown.Targets {
		set := func(key, value string) { values.Set(fmt.Sprintf("g%d.%s", i, key), value) }
		set("expr", filled(target.Expr, ".*"))
		set("tab", "graph")
		set("range_input", "15m")
	}
	return "http://" + p.address + "/query?" + values.Encode()
}

// chromium opens a page and waits until it has loaded what it shows.
func (w *world) chromium(address string, flags ...string) string {
	w.t.Helper()
	flags = append(flags, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
		"--user-data-dir="+w.t.TempDir(), "--virtual-time-budget=30000", address)
	out, err := exec.CommandContext(w.ctx, "chromium", flags...).Output() //nolint:gosec // of this test
	w.Expect(err).NotTo(HaveOccurred(), "Debian's package chromium has it")
	return string(out)
}
