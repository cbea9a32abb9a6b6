package test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// apiRequests counts what the API server has served, as "PUT secrets", of the kinds that the operator touches. Watches
// are left out: they are counted when they end.
func (w *world) apiRequests() map[string]int {
	w.t.Helper()
	raw, err := kubernetes.NewForConfigOrDie(cluster.Config()).Discovery().RESTClient().Get().AbsPath("/metrics").DoRaw(w.ctx)
	w.Expect(err).NotTo(HaveOccurred())
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(raw))
	w.Expect(err).NotTo(HaveOccurred())
	counts := map[string]int{}
	for _, metric := range families["apiserver_request_total"].GetMetric() {
		labels := map[string]string{}
		for _, label := range metric.GetLabel() {
			labels[label.GetName()] = label.GetValue()
		}
		what := strings.TrimSuffix(labels["resource"]+"/"+labels["subresource"], "/")
		switch labels["resource"] {
		case "secrets", "sfmctokens", "events":
			if labels["verb"] != "WATCH" {
				counts[labels["verb"]+" "+what] += int(metric.GetCounter().GetValue())
			}
		}
	}
	return counts
}

// requestsSince is what was served since an earlier count.
func (w *world) requestsSince(before map[string]int) map[string]int {
	w.t.Helper()
	now := w.apiRequests()
	for what, count := range before {
		now[what] -= count
	}
	maps.DeleteFunc(now, func(_ string, count int) bool { return count == 0 })
	return now
}

// hasCost asserts what has been served since an earlier count, once the operator is idle. The API server counts a request
// when it has been answered.
func (w *world) hasCost(before, requests map[string]int) {
	w.t.Helper()
	w.Eventually(w.running.Idle).Should(BeTrue())
	w.Eventually(func() map[string]int { return w.requestsSince(before) }).Should(Equal(requests))
}

// quiet waits until nothing comes any more that would be counted too: the deletion of what earlier tests had, and the
// events that tell of valid tokens.
func (w *world) quiet() {
	w.t.Helper()
	w.Eventually(func(g Gomega) {
		var tokens v1alpha1.SFMCTokenList
		g.Expect(admin.List(w.ctx, &tokens, client.InNamespace(w.ns))).To(Succeed())
		var events corev1.EventList
		g.Expect(admin.List(w.ctx, &events, client.InNamespace(w.ns))).To(Succeed())
		for _, token := range tokens.Items {
			g.Expect(events.Items).To(ContainElement(And(HaveField("Reason", "TokenValid"), HaveField("InvolvedObject.UID", token.UID))))
		}
		var namespaces corev1.NamespaceList
		g.Expect(admin.List(w.ctx, &namespaces)).To(Succeed())
		for _, namespace := range namespaces.Items {
			g.Expect(namespace.DeletionTimestamp).To(BeNil(), namespace.Name)
		}
	}).Should(Succeed())
}

// next waits for the next change of an SFMCToken that meets the condition, without a request of its own.
func next(w *world, changes watch.Interface, meets func(*v1alpha1.SFMCToken) bool) {
	w.t.Helper()
	w.Eventually(func() bool {
		select {
		case e := <-changes.ResultChan():
			token, ok := e.Object.(*v1alpha1.SFMCToken)
			return ok && meets(token)
		default:
			return false
		}
	}).Should(BeTrue())
}

// costsNothingToLookAt asserts that the operator sends no request when it looks at an SFMCToken with nothing to do.
func (w *world) costsNothingToLookAt(name string) {
	w.t.Helper()
	secret := w.secret(name)
	w.Eventually(w.running.Idle).Should(BeTrue())
	looked, before := harness.Looks(), w.apiRequests()
	secret.Labels["somebody"] = "elses" // an event about the target that asks for nothing
	w.Expect(admin.Update(w.ctx, secret)).To(Succeed())
	w.Eventually(harness.Looks).Should(BeNumerically(">", looked))
	w.hasCost(before, map[string]int{"PUT secrets": 1}) // the test's own
}

func TestARefreshCostsTwoWritesAndOneRead(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	seen := w.ready("journeys")
	w.quiet()
	changes, err := admin.Watch(w.ctx, &v1alpha1.SFMCTokenList{}, client.InNamespace(w.ns))
	w.Expect(err).NotTo(HaveOccurred())
	defer changes.Stop()
	for range 3 {
		before := w.apiRequests()
		due := seen.Status.RefreshAt.Time
		w.setTime(due.Add(time.Second))
		next(w, changes, func(token *v1alpha1.SFMCToken) bool { seen = token; return token.Status.RefreshAt.After(due) })
		w.hasCost(before, map[string]int{"GET secrets": 1, "PUT secrets": 1, "PATCH sfmctokens/status": 1})
	}
	w.Expect(w.sfmc.Count()).To(Equal(4))
}

func TestARefreshOfASharedTokenReadsTheCredentialsOnce(t *testing.T) {
	const sharers = 10
	w := newWorld(t)
	// One of them is due before the others.
	w.token("first", func(token *v1alpha1.SFMCToken) {
		token.Spec.RefreshBefore = &metav1.Duration{Duration: 6 * time.Minute}
	})
	due := w.ready("first").Status.RefreshAt.Time
	for i := range sharers - 1 {
		w.token(fmt.Sprintf("sharer-%d", i))
		w.ready(fmt.Sprintf("sharer-%d", i))
	}
	w.quiet()
	changes, err := admin.Watch(w.ctx, &v1alpha1.SFMCTokenList{}, client.InNamespace(w.ns))
	w.Expect(err).NotTo(HaveOccurred())
	defer changes.Stop()
	before := w.apiRequests()
	w.setTime(due.Add(time.Second))
	switched := map[string]bool{}
	next(w, changes, func(token *v1alpha1.SFMCToken) bool {
		if token.Status.LastRefreshAt != nil && token.Status.LastRefreshAt.Time.Equal(due.Add(time.Second)) {
			switched[token.Name] = true
		}
		return len(switched) == sharers
	})
	w.hasCost(before, map[string]int{"GET secrets": 1, "PUT secrets": sharers, "PATCH sfmctokens/status": sharers})
	w.Expect(w.sfmc.Count()).To(Equal(2))
}

func TestAReconcileWithNothingToDoCostsNothing(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	w.ready("journeys")
	w.quiet()
	w.costsNothingToLookAt("journeys")
	w.Expect(w.sfmc.Count()).To(Equal(1))
}

func TestAnAnnotationOnTheCredentialsWritesNothing(t *testing.T) {
	const sharers = 3
	w := newWorld(t)
	for i := range sharers {
		w.token(fmt.Sprintf("sharer-%d", i))
		w.ready(fmt.Sprintf("sharer-%d", i))
	}
	w.quiet()
	credentials := w.secret("sfmc-package")
	w.Eventually(w.running.Idle).Should(BeTrue())
	looked, before := harness.Looks(), w.apiRequests()
	credentials.Annotations = map[string]string{"somebody": "elses"}
	w.Expect(admin.Update(w.ctx, credentials)).To(Succeed())
	w.Eventually(harness.Looks).Should(BeNumerically(">=", looked+sharers))
	w.hasCost(before, map[string]int{"GET secrets": sharers, "PUT secrets": 1}) // the write is the test's own
	w.costsNothingToLookAt("sharer-0")
	w.Expect(w.sfmc.Count()).To(Equal(1))
}

func TestAThousandTokensThroughARestartAndARefresh(t *testing.T) {
	const many = 1000
	w := newWorld(t)
	units := make([]string, many)
	for i := range units {
		units[i] = fmt.Sprint(600000000 + i)
	}
	big := sfmctest.Package{ClientID: "big", ClientSecret: "big-secret", AccountID: units[0], AccountIDs: units, Scopes: w.pkg.Scopes}
	w.Expect(w.sfmc.AddPackage(big)).To(Succeed())
	w.create(harness.CredentialsSecret(w.ns, "big", w.sfmc, big))
	for i, unit := range units {
		w.create(harness.Token(w.ns, fmt.Sprintf("token-%d", i), "big", unit))
	}
	allReady := func(g Gomega) {
		var tokens v1alpha1.SFMCTokenList
		g.Expect(admin.List(w.ctx, &tokens, client.InNamespace(w.ns))).To(Succeed())
		for i := range tokens.Items {
			g.Expect(condition(&tokens.Items[i], "Ready")).To(Equal(valid))
			g.Expect(tokens.Items[i].Status.RefreshAt.Time).To(BeTemporally(">", w.clock.Now()))
		}
	}
	w.Eventually(allReady, patience, time.Second).Should(Succeed())
	w.Expect(w.sfmc.Count()).To(Equal(many))

	w.stopOperator()
	w.startOperator()
	w.token("marker")
	w.ready("marker")
	w.Expect(w.sfmc.Count()).To(Equal(many+1), "the restart asked for nothing but the marker's token")

	// All come due while the operator is away. On its return each is asked for once, before it expires.
	w.stopOperator()
	w.step(900 * time.Second)
	w.startOperator()
	w.Eventually(allReady, patience, time.Second).Should(Succeed())
	w.Expect(w.sfmc.Count()).To(Equal(2*many + 2))
	var secrets corev1.SecretList
	w.Expect(admin.List(w.ctx, &secrets, client.InNamespace(w.ns), client.MatchingLabels{"app.kubernetes.io/managed-by": "sfmctoken-operator"})).To(Succeed())
	w.Expect(secrets.Items).To(HaveLen(many + 1))
	for _, secret := range secrets.Items {
		w.Expect(w.alive(string(secret.Data["access_token"]), string(secret.Data["account_id"]))).To(BeTrue())
	}
}

func TestARenewalIsNotStarvedByAStreamOfOtherEvents(t *testing.T) {
	w := newWorld(t)
	for i := range 20 {
		w.token(fmt.Sprintf("due-%d", i), func(token *v1alpha1.SFMCToken) {
			token.Spec.Scopes = []v1alpha1.Scope{v1alpha1.Scope(fmt.Sprintf("scope_%d", i))}
		})
	}
	for i := range 20 {
		w.ready(fmt.Sprintf("due-%d", i))
	}
	noisy := w.token("noisy")
	w.stopOperator()
	w.step(850 * time.Second) // all are due
	ctx, stop := context.WithCancel(w.ctx)
	flooded := make(chan struct{})
	go func() {
		defer close(flooded)
		for i := 0; ctx.Err() == nil; i++ {
			patch := fmt.Appendf(nil, `{"spec":{"target":{"template":{"metadata":{"annotations":{"round":"%d"}}}}}}`, i)
			_ = admin.Patch(ctx, noisy.DeepCopy(), client.RawPatch("application/merge-patch+json", patch))
		}
	}()
	w.startOperator()
	w.Eventually(func() int { return w.sfmc.Issued() }).Should(BeNumerically(">=", 41))
	stop()
	<-flooded
	for i := range 20 {
		w.Eventually(func() time.Time { return w.get(fmt.Sprintf("due-%d", i)).Status.RefreshAt.Time }).Should(BeTemporally(">", w.clock.Now()))
	}
}
