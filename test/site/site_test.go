// Package site looks at the site that `make docs` has built of docs/: each link leads somewhere, each page fits a
// telephone and a desktop. It needs Chromium. If a page is too wide, look at its picture in dist/site-pictures.
package site

import (
	"cmp"
	"encoding/json"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	"golang.org/x/net/html"

	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// site is what was built.
func site() string { return harness.Path("dist", "site") }

// page is one HTML file of the site.
type page struct {
	links   []string
	anchors map[string]bool
}

// pages are those of the site, by their paths.
func pages(g *WithT) map[string]page {
	found := map[string]page{}
	g.Expect(fs.WalkDir(os.DirFS(site()), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path.Ext(name) != ".html" {
			return err
		}
		file, err := os.Open(filepath.Join(site(), name)) //nolint:gosec // of this repository
		if err != nil {
			return err
		}
		defer file.Close()
		root, err := html.Parse(file)
		if err != nil {
			return err
		}
		read := page{anchors: map[string]bool{}}
		for node := range root.Descendants() {
			for _, attribute := range node.Attr {
				switch attribute.Key {
				case "id":
					read.anchors[attribute.Val] = true
				case "href", "src":
					read.links = append(read.links, attribute.Val)
				}
			}
		}
		found["/"+strings.TrimSuffix(name, "index.html")] = read
		return nil
	})).To(Succeed())
	return found
}

func TestEachFileOfTheDocumentsIsAPage(t *testing.T) {
	g := NewWithT(t)
	built := pages(g)
	g.Expect(built).To(HaveKey("/"))
	g.Expect(fs.WalkDir(os.DirFS(harness.Path("docs")), ".", func(name string, _ fs.DirEntry, err error) error {
		if address, isPage := strings.CutSuffix(name, ".md"); err == nil && isPage {
			g.Expect(built).To(HaveKey("/" + strings.ToLower(address) + "/"))
		}
		return err
	})).To(Succeed())
}

func TestEachLinkOfTheSiteLeadsSomewhere(t *testing.T) {
	g := NewWithT(t)
	built := pages(g)
	const repository = "https://github.com/sfmctoken/sfmctoken-operator/blob/main/"
	followed := 0
	for address, from := range built {
		for _, link := range from.links {
			to, err := url.Parse(link)
			g.Expect(err).NotTo(HaveOccurred(), address)
			if file, isFile := strings.CutPrefix(link, repository); isFile {
				file, _, _ = strings.Cut(file, "#")
				_, err := os.Stat(harness.Path(file))
				g.Expect(err).NotTo(HaveOccurred(), "%s links to %s", address, link)
			}
			if to.IsAbs() {
				continue
			}
			target := (&url.URL{Path: address}).ResolveReference(to)
			if path.Ext(target.Path) != "" && path.Ext(target.Path) != ".html" {
				_, err := os.Stat(filepath.Join(site(), target.Path))
				g.Expect(err).NotTo(HaveOccurred(), "%s links to %s", address, link)
				continue
			}
			target.Path = strings.TrimSuffix(target.Path, "index.html")
			g.Expect(built).To(HaveKey(target.Path), "%s links to %s", address, link)
			if target.Fragment != "" {
				g.Expect(built[target.Path].anchors).To(HaveKey(target.Fragment), "%s links to %s", address, link)
			}
			followed++
		}
	}
	g.Expect(followed).To(BeNumerically(">", 500))
}

// frames shows pages as wide as a screen, one after the other, and writes by how much each is wider than that, and how
// many of its diagrams weren't drawn. The last one stays, to be seen.
var frames = template.Must(template.New("").Parse(`<!doctype html><meta charset="utf-8"><style>iframe{border:0}body{margin:0}</style>
<script type="module">
const seen = {}
let frame
for (const page of {{.Pages}}) {
  frame?.remove()
  frame = document.createElement("iframe")
  frame.width = {{.Width}}; frame.height = {{.Height}}; frame.src = page
  document.body.append(frame)
  await new Promise(loaded => { frame.onload = loaded })
  const drawn = () => frame.contentDocument.querySelectorAll("pre.mermaid").length - frame.contentDocument.querySelectorAll("pre.mermaid svg").length
  for (let i = 0; drawn() > 0 && i < 50; i++) await new Promise(later => setTimeout(later, 100))
  const root = frame.contentDocument.documentElement
  seen[page] = {wider: root.scrollWidth - root.clientWidth, missing: drawn()}
}
document.querySelector("pre").textContent = JSON.stringify(seen)
</script><pre hidden></pre>`))

type screen struct {
	Pages         []string
	Width, Height int
}

// serve serves the site, and what a screen shows of it.
func serve(t *testing.T) (address string) {
	files := http.FileServer(http.Dir(site()))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/frames" {
			files.ServeHTTP(w, r)
			return
		}
		var shown screen
		if err := json.Unmarshal([]byte(r.URL.Query().Get("screen")), &shown); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		_ = frames.Execute(w, shown)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestEachPageFitsATelephoneAndADesktop(t *testing.T) {
	g := NewWithT(t)
	pictures := harness.Path("dist", "site-pictures")
	g.Expect(os.RemoveAll(pictures)).To(Succeed())
	g.Expect(os.MkdirAll(pictures, 0o750)).To(Succeed())
	address := serve(t)
	var all []string
	for name := range pages(g) {
		all = append(all, name)
	}
	for _, size := range []screen{{Width: 390, Height: 1600}, {Width: 1280, Height: 1600}} {
		show := func(pages []string, flags ...string) string {
			t.Helper()
			size.Pages = pages
			query, err := json.Marshal(size)
			g.Expect(err).NotTo(HaveOccurred())
			flags = append(flags, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
				"--user-data-dir="+t.TempDir(), "--virtual-time-budget=120000",
				fmt.Sprintf("--window-size=%d,%d", max(size.Width, 500), size.Height),
				address+"/frames?screen="+url.QueryEscape(string(query)))
			out, err := exec.CommandContext(t.Context(), "chromium", flags...).Output() //nolint:gosec // of this test
			g.Expect(err).NotTo(HaveOccurred(), "Debian's package chromium has it")
			return string(out)
		}
		written := regexp.MustCompile(`<pre hidden="">([^<]+)</pre>`).FindStringSubmatch(show(all, "--dump-dom"))
		g.Expect(written).NotTo(BeNil())
		var seen map[string]struct{ Wider, Missing int }
		g.Expect(json.Unmarshal([]byte(written[1]), &seen)).To(Succeed())
		g.Expect(seen).To(HaveLen(len(all)))
		for name, page := range seen {
			g.Expect(page.Wider).To(BeZero(), "%s is wider than %d pixels", name, size.Width)
			g.Expect(page.Missing).To(BeZero(), "diagrams of %s", name)
		}
		for _, name := range []string{"/", "/tokens/", "/troubleshooting/", "/reference/api/", "/reference/conditions/"} {
			file := cmp.Or(strings.Trim(strings.ReplaceAll(name, "/", "-"), "-"), "home") + fmt.Sprintf("-%d.png", size.Width)
			show([]string{name}, "--screenshot="+filepath.Join(pictures, file))
		}
	}
	t.Logf("pictures to look at: %s", pictures)
}
