package faults

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

func TestANamespaceWithTwoThousandSFMCTokensGoesWithoutHelp(t *testing.T) {
	const many = 2000
	// In all namespaces: only then may the operator know that one is going.
	w := newWorld(t, shape{life: time.Hour, namespaces: 1, packages: 2, accounts: 10, each: many / 20, everywhere: true})
	w.startOperator()
	w.served()
	var tokens v1alpha1.SFMCTokenList
	lines := -1
	w.Eventually(func() bool { // the statuses follow the Secrets, and the events the statuses
		before := lines
		lines, _ = w.log.Count()
		w.Expect(admin.List(w.ctx, &tokens, client.InNamespace(w.namespaces[0]))).To(Succeed())
		return lines == before && !slices.ContainsFunc(tokens.Items, func(token v1alpha1.SFMCToken) bool {
			return token.Status.ExpiresAt == nil && token.Name != "wanted"
		})
	}).WithPolling(3 * time.Second).Should(BeTrue())
	for i := range tokens.Items {
		w.Expect(tokens.Items[i].Finalizers).To(BeEmpty())
	}
	w.observer.end() // the Secrets go, and should
	w.observer.stop = nil
	linesBefore, errorsBefore := w.log.Count()
	namespace := &corev1.Namespace{}
	w.Expect(admin.Get(w.ctx, client.ObjectKey{Name: w.namespaces[0]}, namespace)).To(Succeed())
	began := time.Now()
	w.Expect(admin.Delete(w.ctx, namespace)).To(Succeed())
	// In the order that could cost most: the credentials go first.
	for i := range w.packages {
		credentials := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: fmt.Sprintf("package-%d", i)}}
		w.Expect(client.IgnoreNotFound(admin.Delete(w.ctx, credentials))).To(Succeed())
	}
	w.Eventually(func() bool {
		return apierrors.IsNotFound(admin.Get(w.ctx, client.ObjectKeyFromObject(namespace), namespace))
	}).Should(BeTrue())
	took := time.Since(began)
	lines, errs := w.log.Count()
	lines, errs = lines-linesBefore, errs-errorsBefore
	w.Expect(errs).To(BeNumerically("<=", many/100), "errors in the log")
	w.Expect(lines).To(BeNumerically("<=", many/10), "lines in the log")
	asked := w.standIn.Count()
	w.Expect(asked).To(Equal(w.shape.identities()), "no token was asked for while the namespace went")
	table.add(t, row{fault: "a namespace with 2,000 SFMCTokens deleted", times: "1", outage: "–", gap: "–", asked: asked, allowed: w.shape.identities(),
		remark: fmt.Sprintf("gone after %.0f s; the operator logged %d lines, %d of them errors", took.Seconds(), lines, errs)})
}

// switches notes when each token was issued, and when each Secret was seen to hold it.
type switches struct {
	mu     sync.Mutex
	issued map[string]time.Time
	seen   map[string]map[client.ObjectKey]time.Time
}

func (s *switches) saw(key client.ObjectKey, token string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen[token] == nil {
		s.seen[token] = map[client.ObjectKey]time.Time{}
	}
	s.seen[token][key] = time.Now()
}

// complete are how long the switches took that reached all Secrets, from the issue of a token to the last Secret.
func (s *switches) complete(all int) []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var took []time.Duration
	for token, at := range s.seen {
		if len(at) < all || s.issued[token].IsZero() {
			continue
		}
		var last time.Time
		for _, seen := range at {
			if seen.After(last) {
				last = seen
			}
		}
		took = append(took, last.Sub(s.issued[token]))
	}
	slices.Sort(took)
	return took
}

func TestTwoHundredSecretsSwitchTogetherWhenANewTokenKillsTheOldOne(t *testing.T) {
	const namespaces, each, refreshes = 5, 40, 3
	w := newWorld(t, shape{life: reportedLife, namespaces: namespaces, packages: 1, accounts: 1, each: each,
		mode: func(mode *sfmctest.Mode) { mode.KillOldTokens = true }})
	s := &switches{issued: map[string]time.Time{}, seen: map[string]map[client.ObjectKey]time.Time{}}
	w.observer.mu.Lock()
	for key, target := range w.observer.targets {
		target.sawNew = func(token string) { s.saw(key, token) }
	}
	w.observer.mu.Unlock()
	w.startOperator()
	w.served()
	w.Expect(w.standIn.Count()).To(Equal(1))
	for i := range refreshes {
		// One of the 200 asks for a new token, whose issue kills the one that all have.
		asking := &v1alpha1.SFMCToken{}
		asking.Namespace, asking.Name = w.namespaces[i], "token-0-"+w.packages[0].AccountIDs[0]+"-0"
		patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"annotations":{%q:"%d"}}}`, v1alpha1.RefreshRequestedAtAnnotation, i))
		w.Expect(admin.Patch(w.ctx, asking, patch)).To(Succeed())
		w.Eventually(w.standIn.Count).Should(Equal(i + 2))
		for _, token := range w.standIn.IssuedTokens() {
			s.issued[token.Value] = token.IssuedAt
		}
		w.served()
	}
	w.Expect(w.standIn.Count()).To(Equal(1+refreshes), "one request for each switch of all 200")
	took := s.complete(namespaces * each)
	w.Expect(took).To(HaveLen(refreshes), "all 200 held each token")
	outage, _, _, _ := w.observer.outcome()
	table.add(t, row{fault: "200 Secrets of one identity in 5 namespaces, a new token kills the old one", times: fmt.Sprintf("%d refreshes", refreshes),
		outage: fmt.Sprintf("%.2f s", outage.Seconds()), gap: "–", asked: w.standIn.Count(), allowed: 1 + refreshes,
		remark: fmt.Sprintf("the last Secret was switched %.2f s to %.2f s after the token's issue", took[0].Seconds(), took[len(took)-1].Seconds())})
}
