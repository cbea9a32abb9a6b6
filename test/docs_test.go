package test

import (
	"context"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/yaml"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	sfmctoken "github.com/sfmctoken/sfmctoken-operator/internal/token"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// notRun are the sh blocks that are not run here, by their first line, with the reason. All others are run.
var notRun = map[string]string{
	"make demo # the operator at work, without a Salesforce tenant":                        "is the demo, and the run that this test is part of; CI runs both",
	"make image IMAGE=registry.example.com/sfmctoken-operator:0.1.0 PLATFORMS=linux/amd64": "needs Docker, and a registry to push to",
	`helm install sfmctoken-operator charts/sfmctoken-operator \`:                          "is run by TestHelmInstallsUpgradesRollsBackAndUninstalls, on a cluster that has nothing of it yet",
	"helm --namespace sfmctoken-system test sfmctoken-operator":                            "needs a node, and is run by make e2e",
	"helm --namespace sfmctoken-system uninstall sfmctoken-operator":                       "is run after that install",
	"kubectl delete crd sfmctokens.sfmctoken.dev sfmcaccessgrants.sfmctoken.dev":           "is run after that, too",
	`helm install sfmctoken-operator charts/sfmctoken-operator --namespace marketing \`:    "is run at the end of that test, by an admin of two namespaces",
	"kubectl -n sfmctoken-system rollout status deployment/sfmctoken-operator":             "needs a node: the operator runs as a process of the test instead",
	"kubectl -n marketing rollout status deployment/sfmctoken-operator":                    "needs a node: a process with this ServiceAccount is what TestAnAdminOfTwoNamespacesRunsTheOperatorForTheseAlone runs",
	"kubectl -n marketing rollout status deployment/journeys-emea-consumer":                "needs a node",
	"kubectl delete -f dist/install.yaml":                                                  "would take the CRD away from the other tests",
	"cd test && go test -run TestASecretWithAValidTokenAppears -v .":                       "would run this test suite inside of itself",
	"cd test && go run ./bench -quick":                                                     "is the benchmark, which takes minutes and wants the machine for itself",
	"make faults                                   # with two minutes of soak":             "is the fault suite, which CI runs beside this one",
	".cache/bin/localcluster up":                                                           "runs until Ctrl-C; the tests' control plane is started by the same code",
	"make image e2e-image":                                                                 "needs Docker and kind; make e2e takes the same way to the cluster that it starts itself",
	"make node":                                                                            "runs until Ctrl-C, and needs root",
	"make neighbours":                                                                      "is a part of the fault suite, in full size",
}

// documents are those at the top and all that is in docs, in the order in which a newcomer reads them. The others only
// need what those before have made.
func documents(g *WithT) []harness.Document {
	paths := slices.Concat(harness.FirstDocuments, []string{"CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", chartREADME})
	g.Expect(fs.WalkDir(os.DirFS(harness.Path()), "docs", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasSuffix(path, ".md") && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
		return err
	})).To(Succeed())
	var found []harness.Document
	for _, path := range paths {
		found = append(found, readDocument(g, path))
	}
	return found
}

func readDocument(g *WithT, path string) harness.Document {
	doc, err := harness.ReadDocument(path)
	g.Expect(err).NotTo(HaveOccurred())
	return doc
}

// table is the table of a document whose first column has this heading, without the heading: a row is its cells.
func table(g *WithT, d harness.Document, heading string) [][]string {
	var rows [][]string
	inside := false
	for line := range strings.Lines(d.Prose) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") {
			inside = false
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		switch {
		case cells[0] == heading:
			inside = true
		case inside && !strings.HasPrefix(cells[0], "---"):
			rows = append(rows, cells)
		}
	}
	g.Expect(rows).NotTo(BeEmpty(), "%s has no table %q", d.Path, heading)
	return rows
}

// codeIn is what stands in backticks in a text.
func codeIn(text string) []string {
	var found []string
	for _, match := range regexp.MustCompile("`([^`\n]+)`").FindAllStringSubmatch(text, -1) {
		found = append(found, match[1])
	}
	return found
}

func TestDocsShowTheSamplesAsTheyAre(t *testing.T) {
	g := NewWithT(t)
	var list struct {
		Resources []string `json:"resources"`
	}
	g.Expect(yaml.Unmarshal(readSample(g, "kustomization.yaml"), &list)).To(Succeed())
	var samples, shown []string
	further := []string{"sfmctoken.yaml", "gitops/platform/grant.yaml", "gitops/team-emea/sfmctoken.yaml", "limited_namespace.yaml"}
	for _, name := range append(list.Resources, further...) {
		samples = append(samples, string(readSample(g, name)))
	}
	for _, doc := range documents(g) {
		for _, b := range doc.Blocks {
			if slices.Contains(samples, b.Text) {
				shown = append(shown, b.Text)
			}
		}
	}
	g.Expect(shown).To(ConsistOf(samples), "each once")
}

func readSample(g *WithT, name string) []byte {
	raw, err := os.ReadFile(harness.Path("config", "samples", name))
	g.Expect(err).NotTo(HaveOccurred())
	return raw
}

func TestDocsManifestsApply(t *testing.T) {
	g := NewWithT(t)
	applied := 0
	for _, doc := range documents(g) {
		for _, b := range doc.Blocks {
			if b.Lang != "yaml" {
				continue
			}
			for _, manifest := range regexp.MustCompile(`(?m)^---\n`).Split(b.Text, -1) {
				object := &unstructured.Unstructured{}
				g.Expect(yaml.Unmarshal([]byte(manifest), object)).To(Succeed(), doc.Path)
				g.Expect(object.GetKind()).NotTo(BeEmpty(), "%s: a yaml block is a whole manifest:\n%s", doc.Path, manifest)
				makeNamespace(t, object.GetNamespace())
				_, err := cluster.KubectlInput(t.Context(), strings.NewReader(manifest), "apply", "--dry-run=server", "-f", "-")
				g.Expect(err).NotTo(HaveOccurred(), "%s:\n%s", doc.Path, manifest)
				applied++
			}
		}
	}
	g.Expect(applied).To(BeNumerically(">=", 4))
}

// makeNamespace makes a namespace that a manifest is in, unless there is one.
func makeNamespace(t *testing.T, name string) {
	if name == "" {
		return
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if err := admin.Create(t.Context(), namespace); apierrors.IsAlreadyExists(err) {
		return
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeNamespaces(t, name) })
}

// removeNamespaces waits until namespaces with names of their own are gone, so that they can be made again.
func removeNamespaces(t *testing.T, names ...string) {
	g, ctx := NewWithT(t), context.Background()
	for _, name := range names {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		g.Expect(client.IgnoreNotFound(admin.Delete(ctx, namespace))).To(Succeed())
	}
	for _, name := range names {
		g.Eventually(func() bool {
			return apierrors.IsNotFound(admin.Get(ctx, client.ObjectKey{Name: name}, &corev1.Namespace{}))
		}, patience).Should(BeTrue())
	}
}

// TestDocsCommandsRun runs the commands of all documents as they are printed, from top to bottom, as a reader with a
// clone of this repository would. The operator runs beside them; the tenant is the stand-in.
func TestDocsCommandsRun(t *testing.T) {
	w := newRealTimeWorld(t, sfmctest.Options{})
	w.startProcess()
	w.ns = "marketing" // the namespace that the commands make
	t.Cleanup(func() { removeNamespaces(t, "marketing", "sales", "marketing-emea", "sfmc-platform", "argocd") })
	argoCD := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "argocd", Name: "argocd-cm"}} // as Argo CD makes it
	w.create(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: argoCD.Namespace}}, argoCD)
	t.Cleanup(func() { removePolicies(t) })
	shell := w.newShell()
	skipped := maps.Clone(notRun)
	ran := 0
	for _, doc := range documents(w.WithT) {
		output := ""
		for _, b := range doc.Blocks {
			switch reason, skip := notRun[b.FirstLine()]; {
			case b.Lang == "text":
				// What a command is said to print has the right columns.
				w.Expect(strings.Fields(b.FirstLine())).To(Equal(strings.Fields(harness.Block{Text: output}.FirstLine())), "%s:\n%s", doc.Path, b.Text)
			case b.Lang != "sh":
				w.Expect(b.Lang).To(BeElementOf("yaml", "go", "mermaid"), "%s: commands stand in sh blocks:\n%s", doc.Path, b.Text)
			case skip:
				t.Logf("not run, because it %s:\n%s", reason, b.Text)
				delete(skipped, b.FirstLine())
			default:
				output = shell.run(doc.Path, b.Text)
				ran++
			}
		}
	}
	w.Expect(skipped).To(BeEmpty(), "blocks in notRun that no document has")
	w.Expect(ran).To(BeNumerically(">=", 9))
	w.Expect(w.alive(w.held("journeys-emea-token"), "510004567")).To(BeTrue(), "the reader has a token for the business unit")
	w.Expect(w.alive(w.held("package-owner"), "510000001")).To(BeTrue())
	w.Expect(admin.Get(w.ctx, client.ObjectKeyFromObject(argoCD), argoCD)).To(Succeed())
	w.Expect(argoCD.Data).To(HaveKey("resource.customizations.health.sfmctoken.dev_SFMCToken"))
	pkg, _, err := harness.SamplePackage()
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(w.sfmc.CountFor(pkg.ClientID, "510004567")).To(Equal(3), "one request for the first token, one for each refresh that the reader asks for")
}

// shell runs commands in a clone of this repository, with the test's control plane as the current cluster.
type shell struct {
	*world
	*harness.Shell
}

func (w *world) newShell() *shell {
	w.t.Helper()
	clone, err := harness.NewShell(w.t.TempDir(), cluster.Kubeconfig(), cluster.AssetsDir())
	w.Expect(err).NotTo(HaveOccurred())
	pkg, _, err := harness.SamplePackage()
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(w.sfmc.AddPackage(pkg)).To(Succeed())
	w.Expect(clone.UseStandIn(w.sfmc)).To(Succeed())
	return &shell{world: w, Shell: clone}
}

// run runs a block and returns what it printed on stdout.
func (s *shell) run(path, commands string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, 5*time.Minute)
	defer cancel()
	out, err := s.Run(ctx, commands)
	s.Expect(err).NotTo(HaveOccurred(), path)
	s.t.Logf("$ %s\n%s", strings.TrimSpace(commands), out)
	return out
}

func TestDocsMakeTargetsExist(t *testing.T) {
	g := NewWithT(t)
	makefile, err := os.ReadFile(harness.Path("Makefile"))
	g.Expect(err).NotTo(HaveOccurred())
	targets := map[string]bool{}
	for _, match := range regexp.MustCompile(`(?m)^([a-z][a-z0-9-]*):`).FindAllStringSubmatch(string(makefile), -1) {
		targets[match[1]] = true
	}
	named := 0
	for _, doc := range documents(g) {
		code := strings.Join(codeIn(doc.Prose), "\n")
		for _, b := range doc.Blocks {
			if b.Lang == "sh" {
				code += "\n" + b.Text
			}
		}
		for _, match := range regexp.MustCompile(`(?m)^\s*make ([a-z0-9-]+)`).FindAllStringSubmatch(code, -1) {
			g.Expect(targets).To(HaveKey(match[1]), doc.Path)
			named++
		}
	}
	g.Expect(named).To(BeNumerically(">=", 10))
}

func TestDocsFlagsAreThoseOfTheBinary(t *testing.T) {
	g := NewWithT(t)
	path, err := harness.Program()
	g.Expect(err).NotTo(HaveOccurred())
	help, err := exec.CommandContext(t.Context(), path, "--help").CombinedOutput() //nolint:gosec // built by the test
	g.Expect(err).NotTo(HaveOccurred())
	defaults := map[string]string{}
	for _, match := range regexp.MustCompile(`(?m)^  -([a-z-]+).*\n\s+(.*)$`).FindAllStringSubmatch(string(help), -1) {
		defaults["--"+match[1]] = ""
		if value := regexp.MustCompile(`\(default "?([^")]+)"?\)$`).FindStringSubmatch(match[2]); value != nil {
			defaults["--"+match[1]] = "`" + value[1] + "`"
		}
	}
	shown := map[string]string{}
	for _, row := range table(g, readDocument(g, "docs/reference/flags.md"), "Flag") {
		shown[strings.Trim(row[0], "`")] = row[1]
	}
	g.Expect(slices.Sorted(maps.Keys(shown))).To(Equal(slices.Sorted(maps.Keys(defaults))))
	for flag, value := range defaults {
		if value == "" { // the zero value, which the table says in words
			g.Expect(shown[flag]).NotTo(ContainSubstring("`"), flag)
		} else {
			g.Expect(shown[flag]).To(Equal(value), flag)
		}
	}
}

func TestDocsReasonsAreThoseOfTheAPI(t *testing.T) {
	g := NewWithT(t)
	shown := map[string]string{}
	sections := regexp.MustCompile("(?m)^### (\\w+)\n\nReason of `(\\w+)`(?s:.*?)\n\\*\\*Who acts:\\*\\* ")
	for _, section := range sections.FindAllStringSubmatch(readDocument(g, "docs/troubleshooting.md").Prose, -1) {
		shown[section[1]] = section[2]
	}
	g.Expect(shown).To(Equal(reasons(g)), "each has a section that says what it means and who acts")
}

// reasons are the constants of the API whose names begin with Reason, each with the condition that its group's comment
// names.
func reasons(g *WithT) map[string]string {
	var declarations []ast.Decl
	for _, name := range []string{"sfmctoken_types.go", "sfmcaccessgrant_types.go"} {
		file, err := parser.ParseFile(token.NewFileSet(), harness.Path("api", "v1alpha1", name), nil, parser.ParseComments)
		g.Expect(err).NotTo(HaveOccurred())
		declarations = append(declarations, file.Decls...)
	}
	found := map[string]string{}
	for _, declaration := range declarations {
		group, ok := declaration.(*ast.GenDecl)
		if !ok || group.Tok != token.CONST {
			continue
		}
		condition := regexp.MustCompile(`^Reasons of the (\w+) condition`).FindStringSubmatch(group.Doc.Text())
		for _, spec := range group.Specs {
			constant := spec.(*ast.ValueSpec)
			if !strings.HasPrefix(constant.Names[0].Name, "Reason") {
				continue
			}
			g.Expect(condition).NotTo(BeNil(), "the comment above %s must name its condition", constant.Names[0].Name)
			value, err := strconv.Unquote(constant.Values[0].(*ast.BasicLit).Value)
			g.Expect(err).NotTo(HaveOccurred())
			found[value] = condition[1]
		}
	}
	return found
}

func TestDocsMetricsAreThoseOfTheRegistry(t *testing.T) {
	w := newWorld(t)
	change(w, w.secret("sfmc-package"), func(s *corev1.Secret) { s.Data["client_secret_expires_at"] = []byte("2999-12-31") })
	w.token("journeys")
	w.ready("journeys")
	labels := map[string]string{}
	w.Eventually(func() map[string]string {
		labels = w.registered()
		return labels
	}).Should(HaveKey("sfmctoken_client_secret_expiry_timestamp_seconds"))

	shown := map[string]string{}
	for _, row := range table(w.WithT, readDocument(w.WithT, "docs/reference/metrics.md"), "Metric") {
		shown[strings.Trim(row[0], "`")] = strings.Join(codeIn(row[1]), " ")
	}
	own := maps.Clone(labels)
	maps.DeleteFunc(own, func(name, _ string) bool { return !strings.HasPrefix(name, "sfmctoken_") })
	w.Expect(shown).To(Equal(own))

	// Whatever else is named in passing exists too.
	for _, doc := range documents(w.WithT) {
		for _, match := range regexp.MustCompile(`\b((?:sfmctoken|controller_runtime|workqueue)_[a-z_]+)(\.\w+)?`).FindAllStringSubmatch(doc.Text, -1) {
			if match[2] == "" { // no file
				w.Expect(labels).To(HaveKey(regexp.MustCompile(`_(bucket|sum|count)$`).ReplaceAllString(match[1], "")), doc.Path)
			}
		}
	}
}

// registered are the metrics that are served, each with the names of its labels.
func (w *world) registered() map[string]string {
	families, err := metrics.Registry.Gather()
	w.Expect(err).NotTo(HaveOccurred())
	found := map[string]string{}
	for _, family := range families {
		var names []string
		for _, label := range family.GetMetric()[0].GetLabel() {
			names = append(names, label.GetName())
		}
		slices.Sort(names)
		slices.Reverse(names) // namespace before name, as people say it
		found[family.GetName()] = strings.Join(names, " ")
	}
	return found
}

func TestDocsRecordIsThatOfTheCode(t *testing.T) {
	g := NewWithT(t)
	var fields []string
	for _, source := range []struct {
		file  string
		types []string
	}{{"target/record.go", []string{"Record", "Notes"}}, {"token/token.go", []string{"IssuedFor"}}} {
		text, err := os.ReadFile(harness.Path("internal", source.file))
		g.Expect(err).NotTo(HaveOccurred())
		for _, name := range source.types {
			body := regexp.MustCompile(`(?ms)^type ` + name + ` struct \{.*?^\}`).FindString(string(text))
			g.Expect(body).NotTo(BeEmpty(), name)
			for _, match := range regexp.MustCompile(`json:"(\w+)`).FindAllStringSubmatch(body, -1) {
				fields = append(fields, match[1])
			}
		}
	}
	var shown []string
	for _, row := range table(g, readDocument(g, "docs/architecture.md"), "Field") {
		shown = append(shown, codeIn(row[0])...)
	}
	g.Expect(shown).To(ConsistOf(fields))
}

// TestDocsKeysAreThoseOfTheTable compares the keys of the target Secret, wherever they are named, with the one table that
// they come from. What kubectl explains of the template fields is compared in TestDocsTemplatesAreThoseOfTheCode.
func TestDocsKeysAreThoseOfTheTable(t *testing.T) {
	g := NewWithT(t)
	var keys, fields []string
	for _, key := range sfmctoken.Keys {
		keys, fields = append(keys, key.Name), append(fields, "."+key.Field)
		if key.ListField != "" {
			fields = append(fields, "."+key.ListField)
		}
	}
	rule, message := reservedKeys(g)
	g.Expect(rule).To(ConsistOf(keys), "the rule on spec.target.template.data")
	g.Expect(message).To(ConsistOf(keys), "the message of that rule")

	for _, documented := range []struct {
		path, heading string
		names         []string
	}{{"docs/tokens.md", "Key", keys}, {"docs/templates.md", "Template field", fields}} {
		var shown []string
		for _, row := range table(g, readDocument(g, documented.path), documented.heading) {
			shown = append(shown, codeIn(row[0])...)
		}
		g.Expect(shown).To(ConsistOf(documented.names), "the table %q of %s", documented.heading, documented.path)
	}
}

// reservedKeys are the keys that templates can't make, by the CRD's rule and by the message of that rule.
func reservedKeys(g *WithT) (rule, message []string) {
	files, err := filepath.Glob(harness.Path("config", "crd", "bases", "*.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	for _, file := range files {
		raw, err := os.ReadFile(file) //nolint:gosec // a file of this repository
		g.Expect(err).NotTo(HaveOccurred())
		var crd map[string]any
		g.Expect(yaml.Unmarshal(raw, &crd)).To(Succeed())
		versions, _, err := unstructured.NestedSlice(crd, "spec", "versions")
		g.Expect(err).NotTo(HaveOccurred())
		for _, version := range versions {
			path := strings.Split("schema openAPIV3Schema properties spec properties target properties template properties data x-kubernetes-validations", " ")
			validations, _, err := unstructured.NestedSlice(version.(map[string]any), path...)
			g.Expect(err).NotTo(HaveOccurred())
			for _, validation := range validations {
				names, found := between(validation.(map[string]any)["rule"].(string), "!(k in ['", "'])")
				if !found {
					continue
				}
				said, isSaid := between(validation.(map[string]any)["message"].(string), "data: ", " are the operator's own keys")
				g.Expect(isSaid).To(BeTrue(), "the message names the keys")
				rule = append(rule, strings.Split(names, "', '")...)
				message = append(message, regexp.MustCompile(`, | and `).Split(said, -1)...)
			}
		}
	}
	return rule, message
}

// between is what stands between two parts of a text.
func between(text, from, to string) (string, bool) {
	_, rest, hasFrom := strings.Cut(text, from)
	found, _, hasTo := strings.Cut(rest, to)
	return found, hasFrom && hasTo
}

func TestDocsNameWhatExists(t *testing.T) {
	g := NewWithT(t)
	var tests strings.Builder
	for _, pattern := range []string{"test/*_test.go", "internal/*/*_test.go", "internal/*/*/*_test.go"} {
		files, err := filepath.Glob(harness.Path(pattern))
		g.Expect(err).NotTo(HaveOccurred())
		for _, file := range files {
			raw, err := os.ReadFile(file) //nolint:gosec // a file of this repository
			g.Expect(err).NotTo(HaveOccurred())
			tests.Write(raw)
		}
	}
	for _, doc := range documents(g) {
		for _, code := range codeIn(doc.Prose) {
			if regexp.MustCompile(`^(api|cmd|config|docs|hack|internal|test|\.ci)/[\w./-]*$`).MatchString(code) {
				g.Expect(harness.Path(code)).To(exist(), doc.Path)
			}
		}
		for _, name := range regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(doc.Text, -1) {
			g.Expect(tests.String()).To(ContainSubstring("func "+name+"("), doc.Path)
		}
		for _, b := range doc.Blocks {
			if b.Lang == "go" {
				g.Expect(tests.String()).To(ContainSubstring(b.Text), "%s: Go is shown as a test has it", doc.Path)
			}
		}
	}
}

// exist matches a path at which there is something.
func exist() OmegaMatcher {
	return WithTransform(func(path string) error { _, err := os.Stat(path); return err }, Succeed())
}

// TestAFailureLeavesTheOldTokenInTheSecret is the example in CONTRIBUTING.md.
func TestAFailureLeavesTheOldTokenInTheSecret(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	w.ready("journeys")
	w.sfmc.AddFaults(sfmctest.Fault{Refusal: sfmctest.InternalError, Times: sfmctest.Forever})
	w.travel(14*time.Minute, 10*time.Second, func() bool { return w.sfmc.Count() > 1 })
	w.says("journeys", valid, "RefreshFailing=True EndpointUnavailable")
	w.Expect(w.alive(w.held("journeys"), "510004567")).To(BeTrue())
}

func TestDocsLinksResolve(t *testing.T) {
	g := NewWithT(t)
	followed := 0
	for _, doc := range documents(g) {
		for _, match := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(doc.Prose, -1) {
			link := match[1]
			if strings.Contains(link, "://") {
				continue
			}
			path, anchor, _ := strings.Cut(link, "#")
			target := doc.Path
			if path != "" {
				target = filepath.Join(filepath.Dir(doc.Path), path)
			}
			g.Expect(harness.Path(target)).To(exist(), "%s links to %s", doc.Path, link)
			if anchor != "" {
				g.Expect(anchors(readDocument(g, target))).To(ContainElement(anchor), "%s links to %s", doc.Path, link)
			}
			followed++
		}
	}
	g.Expect(followed).To(BeNumerically(">=", 20))
}

// anchors are those that headings get on the usual Git hosts.
func anchors(doc harness.Document) []string {
	var found []string
	for _, match := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(doc.Prose, -1) {
		heading := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(match[1]), "")
		found = append(found, strings.ReplaceAll(heading, " ", "-"))
	}
	return found
}
