package test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/yaml"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// states are those of an SFMCToken, and how it gets there: the rows of the table in docs/reference/conditions.md.
var states = []struct {
	name  string
	reach func(*world)
}{
	{"applied, and not looked at yet", func(w *world) { w.stopOperator(); w.token("journeys") }},
	{"all is well", healthy},
	{"the credentials Secret isn't there yet", func(w *world) {
		w.token("journeys", func(t *v1alpha1.SFMCToken) { t.Spec.CredentialsSecretRef.Name = "sfmc" })
	}},
	{"Marketing Cloud can't be reached", func(w *world) { w.sfmc.TakeDown(); w.token("journeys") }},
	{"the client is throttled", func(w *world) {
		w.sfmc.AddFaults(sfmctest.Fault{Refusal: sfmctest.RateLimited, RetryAfter: 5 * time.Minute})
		w.token("journeys")
	}},
	{"the client secret is wrong", func(w *world) {
		w.sfmc.AddFaults(sfmctest.Fault{Refusal: sfmctest.InvalidClient, Times: sfmctest.Forever})
		w.token("journeys")
	}},
	{"a refresh fails, and the token is valid", func(w *world) {
		healthy(w)
		w.sfmc.TakeDown()
		w.setTime(w.get("journeys").Status.RefreshAt.Add(time.Second))
	}},
	{"the same, at the moment of expiry", func(w *world) {
		healthy(w)
		expires := w.get("journeys").Status.ExpiresAt.Time
		w.sfmc.TakeDown()
		w.setTime(w.get("journeys").Status.RefreshAt.Add(time.Second))
		w.says("journeys", "RefreshFailing=True EndpointUnavailable")
		w.setTime(expires)
	}},
	{"the client secret is refused, and the token is valid", refusedLater},
	{"the same, after its expiry", func(w *world) {
		expires := func() time.Time { return w.get("journeys").Status.ExpiresAt.Time }
		refusedLater(w)
		w.setTime(expires())
	}},
	{"suspended, and the token is valid", suspended},
	{"the same, after its expiry", func(w *world) {
		suspended(w)
		w.setTime(w.get("journeys").Status.ExpiresAt.Time)
	}},
	{"fewer scopes are granted than asked for", func(w *world) {
		w.sfmc.AddFaults(sfmctest.Fault{Fields: map[string]string{"scope": `"email_read"`}})
		w.token("journeys", func(t *v1alpha1.SFMCToken) { t.Spec.Scopes = []v1alpha1.Scope{"email_read", "journeys_read"} })
	}},
	{"the client secret expires soon", func(w *world) {
		change(w, w.secret("sfmc-package"), func(s *corev1.Secret) {
			s.Data["client_secret_expires_at"] = []byte(w.clock.Now().AddDate(0, 0, 20).Format(time.RFC3339))
		})
		healthy(w)
	}},
	{"the target Secret is somebody else's", func(w *world) {
		w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "journeys"}})
		w.token("journeys")
	}},
	{"somebody else keeps changing the target Secret", func(w *world) {
		healthy(w)
		w.rival("journeys", "access_token")
	}},
	{"Kubernetes refuses the target Secret", func(w *world) {
		w.create(&corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "small"},
			Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/secrets": resource.MustParse("1")}}})
		quota := &corev1.ResourceQuota{}
		w.Eventually(func() corev1.ResourceList {
			w.Expect(admin.Get(w.ctx, client.ObjectKey{Namespace: w.ns, Name: "small"}, quota)).To(Succeed())
			return quota.Status.Used
		}).ShouldNot(BeEmpty())
		w.token("journeys")
	}},
}

func healthy(w *world) {
	w.token("journeys")
	w.ready("journeys")
}

func refusedLater(w *world) {
	healthy(w)
	w.Expect(w.sfmc.DisablePackage(w.pkg.ClientID, true)).To(Succeed())
	w.setTime(w.get("journeys").Status.RefreshAt.Add(time.Second))
	w.says("journeys", "Stalled=True RequestRefused")
}

func suspended(w *world) {
	healthy(w)
	change(w, w.get("journeys"), func(t *v1alpha1.SFMCToken) { t.Spec.Suspend = true })
	w.says("journeys", "Suspended=True Suspended")
}

var writeStates = flag.Bool("write-states", false, "Write the table of docs/reference/conditions.md and the objects in config/argocd anew, for a person to review.")

func TestEachStateLooksTheSameToAllWhoLook(t *testing.T) {
	g := NewWithT(t)
	documented := table(g, readDocument(g, "docs/reference/conditions.md"), "state")
	var seen strings.Builder
	for n, state := range states {
		t.Run(state.name, func(t *testing.T) {
			w := newWorld(t)
			state.reach(w)
			look := func() []string { return append([]string{state.name}, w.looks("journeys")...) }
			kept := func() {
				read := func() client.Object { return w.get("journeys") }
				w.isKept(read, "SFMCToken", fmt.Sprintf("%02d.yaml", n+1), state.name)
			}
			if *writeStates {
				w.Eventually(w.settled(look), patience, time.Second).Should(BeTrue())
				seen.WriteString("| " + strings.Join(look(), " | ") + " |\n")
				kept()
				return
			}
			w.Expect(len(documented)).To(BeNumerically(">", n), "it has a row")
			w.Eventually(look).Should(Equal(documented[n]), "this is the row")
			kept()
		})
	}
	if !*writeStates {
		g.Expect(documented).To(HaveLen(len(states)))
		return
	}
	raw, err := os.ReadFile(harness.Path("docs/reference/conditions.md"))
	g.Expect(err).NotTo(HaveOccurred())
	head := regexp.MustCompile(`(?s)^.*\n\| state \|[^\n]*\n[^\n]*\n`).FindString(string(raw))
	_, tail, _ := strings.Cut(strings.TrimPrefix(string(raw), head), "\n\n")
	whole := head + seen.String() + "\n" + tail
	g.Expect(os.WriteFile(harness.Path("docs/reference/conditions.md"), []byte(whole), 0o600)).To(Succeed()) //nolint:gosec // of this repository
}

// settled reports whether what is seen is what was seen a second ago.
func (w *world) settled(look func() []string) func() bool {
	var before []string
	return func() bool {
		now := look()
		defer func() { before = now }()
		return slices.Equal(before, now)
	}
}

// looks is how an SFMCToken looks to kubectl, kstatus, those who read events, the plugin and Prometheus.
func (w *world) looks(name string) []string {
	columns := w.columns(name)
	var beside []string
	for _, condition := range w.get(name).Status.Conditions {
		if condition.Type != "Ready" {
			beside = append(beside, condition.Type)
		}
	}
	slices.Sort(beside)
	or := func(text string) string {
		if text == "" {
			return "–"
		}
		return text
	}
	row := []string{columns["READY"], columns["REASON"], or(strings.Join(beside, ", ")), columns["MESSAGE"],
		string(w.kstatus(name)), or(strings.Join(w.eventsOf(name), ", ")), or(w.doctorSays()),
		fmt.Sprintf("%v, %v, %v", w.gauge("sfmctoken_ready", name), w.gauge("sfmctoken_stalled", name), w.gauge("sfmctoken_consecutive_failures", name))}
	for i := range row {
		row[i] = or(w.withoutNames(row[i]))
	}
	return row
}

// argoCD is what Argo CD is to know.
const argoCD = "config/argocd/resource_customizations/sfmctoken.dev"

// isKept waits until an object is as the one that Argo CD is tried with, or writes that anew.
func (w *world) isKept(read func() client.Object, kind, file, state string) {
	w.t.Helper()
	path := harness.Path(argoCD, kind, "testdata", file)
	look := func() string { return "# " + state + "\n" + w.withoutIdentity(read(), kind) }
	if *writeStates {
		w.Expect(os.WriteFile(path, []byte(look()), 0o600)).To(Succeed())
		return
	}
	kept, err := os.ReadFile(path) //nolint:gosec // a file of this repository
	w.Expect(err).NotTo(HaveOccurred())
	w.Eventually(look).Should(Equal(string(kept)), "what Argo CD is tried with")
}

// withoutIdentity is an object as YAML, but for what is another in each run.
func (w *world) withoutIdentity(object client.Object, kind string) string {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	w.Expect(err).NotTo(HaveOccurred())
	metadata := content["metadata"].(map[string]any)
	for _, field := range []string{"uid", "resourceVersion", "managedFields"} {
		delete(metadata, field)
	}
	content["apiVersion"], content["kind"] = v1alpha1.GroupVersion.String(), kind
	raw, err := json.Marshal(content)
	w.Expect(err).NotTo(HaveOccurred())
	names := strings.NewReplacer("TIME", "2026-01-01T00:00:00Z", object.GetNamespace(), "sfmc-platform")
	text, err := yaml.JSONToYAML([]byte(names.Replace(w.withoutNames(string(raw)))))
	w.Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// grantStates are those of an SFMCAccessGrant, by the files that they are kept in.
var grantStates = []struct {
	file   string
	change func(*v1alpha1.SFMCAccessGrant)
	reason string // of the condition Ready; none if no operator looks at it
}{
	{"not_looked_at.yaml", func(*v1alpha1.SFMCAccessGrant) {}, ""},
	{"in_force.yaml", func(*v1alpha1.SFMCAccessGrant) {}, v1alpha1.ReasonInForce},
	{"selector_invalid.yaml", func(grant *v1alpha1.SFMCAccessGrant) {
		wrong := []metav1.LabelSelectorRequirement{{Key: "region", Operator: "Is", Values: []string{"emea"}}}
		grant.Spec.From = []v1alpha1.AccessGrantFrom{{NamespaceSelector: &metav1.LabelSelector{MatchExpressions: wrong}}}
	}, v1alpha1.ReasonSelectorInvalid},
	{"deleted.yaml", func(grant *v1alpha1.SFMCAccessGrant) { grant.Finalizers = []string{"example.com/keep"} }, v1alpha1.ReasonTerminating},
}

func TestEachStateOfAGrantIsWhatArgoCDIsTriedWith(t *testing.T) {
	for _, state := range grantStates {
		t.Run(state.file, func(t *testing.T) {
			w := newWorld(t)
			if state.reason == "" {
				w.stopOperator()
			}
			grant := w.grant(w.platform(), "emea", state.change)
			read := func() client.Object {
				w.Expect(admin.Get(w.ctx, client.ObjectKeyFromObject(grant), grant)).To(Succeed())
				return grant
			}
			reason := func() (reason string) {
				read()
				if ready := meta.FindStatusCondition(grant.Status.Conditions, v1alpha1.ConditionReady); ready != nil {
					reason = ready.Reason
				}
				return reason
			}
			if len(grant.Finalizers) > 0 {
				w.Expect(admin.Delete(w.ctx, grant)).To(Succeed())
				defer change(w, grant.DeepCopy(), func(gone *v1alpha1.SFMCAccessGrant) { gone.Finalizers = nil })
			}
			w.Eventually(reason).Should(Equal(state.reason))
			w.isKept(read, "SFMCAccessGrant", state.file, strings.ReplaceAll(strings.TrimSuffix(state.file, ".yaml"), "_", " "))
		})
	}
}

var (
	timeOfDay = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ|\d{4}-\d\d-\d\d`)
	address   = regexp.MustCompile(`127\.0\.0\.1:\d+`)
)

// withoutNames returns a text that is the same in each run.
func (w *world) withoutNames(text string) string {
	text = strings.ReplaceAll(strings.ReplaceAll(text, w.ns, "marketing"), w.sfmc.Host(), "HOST")
	return strings.ReplaceAll(address.ReplaceAllString(timeOfDay.ReplaceAllString(text, "TIME"), "HOST"), "|", "/")
}

// columns are those that kubectl get -o wide shows.
func (w *world) columns(name string) map[string]string {
	out, err := cluster.Kubectl(w.ctx, "get", "sfmctoken", name, "-n", w.ns, "-o", "wide")
	w.Expect(err).NotTo(HaveOccurred())
	lines := strings.SplitN(strings.TrimRight(out, "\n"), "\n", 2)
	heads := regexp.MustCompile(`\S+\s*`).FindAllStringIndex(lines[0], -1)
	found := map[string]string{}
	for i, at := range heads {
		end := len(lines[1])
		if i+1 < len(heads) {
			end = min(at[1], end)
		}
		if at[0] < end {
			found[strings.TrimSpace(lines[0][at[0]:min(at[1], len(lines[0]))])] = strings.TrimSpace(lines[1][at[0]:end])
		}
	}
	return found
}

func (w *world) kstatus(name string) status.Status {
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(w.get(name))
	w.Expect(err).NotTo(HaveOccurred())
	result, err := status.Compute(&unstructured.Unstructured{Object: content})
	w.Expect(err).NotTo(HaveOccurred())
	return result.Status
}

// eventsOf are the events of an SFMCToken, in their order.
func (w *world) eventsOf(name string) []string {
	var events eventsv1.EventList
	w.Expect(admin.List(w.ctx, &events, client.InNamespace(w.ns))).To(Succeed())
	slices.SortFunc(events.Items, func(a, b eventsv1.Event) int { return a.EventTime.Compare(b.EventTime.Time) })
	var said []string
	for _, event := range events.Items {
		if event.Regarding.Name == name && event.Regarding.Kind == "SFMCToken" {
			said = append(said, event.Type+" "+event.Reason)
		}
	}
	return said
}

// doctorSays are the problems that the plugin finds in the namespace.
func (w *world) doctorSays() string {
	var problems []string
	for _, line := range strings.Split(w.kubectlSFMCToken("doctor", "-n", w.ns).out, "\n") {
		if problem, isProblem := strings.CutPrefix(line, "  "); isProblem {
			what, _, _ := strings.Cut(problem, ": ")
			problems = append(problems, what)
		}
	}
	return strings.Join(problems, "; ")
}

// gauge is a metric of an SFMCToken; "–" if there is none.
func (w *world) gauge(metric, name string) string {
	families, err := metrics.Registry.Gather()
	w.Expect(err).NotTo(HaveOccurred())
	for _, family := range families {
		for _, found := range family.GetMetric() {
			labels := map[string]string{}
			for _, label := range found.GetLabel() {
				labels[label.GetName()] = label.GetValue()
			}
			if family.GetName() == metric && labels["namespace"] == w.ns && labels["name"] == name {
				return fmt.Sprint(found.GetGauge().GetValue())
			}
		}
	}
	return "–"
}
