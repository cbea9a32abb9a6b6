package test

import (
	"context"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// denyWrites has a policy deny every write of a Secret by the operator in the world's namespace. It returns how to end it.
func (w *world) denyWrites() (allow func()) {
	w.t.Helper()
	name := "deny-" + w.ns
	account := "system:serviceaccount:" + harness.SystemNamespace + ":" + harness.ServiceAccount
	policy := &admissionregistrationv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionregistrationv1.MatchResources{
				NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: w.ns}},
				ResourceRules: []admissionregistrationv1.NamedRuleWithOperations{{RuleWithOperations: admissionregistrationv1.RuleWithOperations{
					Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update},
					Rule:       admissionregistrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
				}}},
			},
			Validations: []admissionregistrationv1.Validation{{
				Expression: `request.userInfo.username != "` + account + `" && !(has(object.metadata.labels) && "any" in object.metadata.labels)`,
				Message:    "nobody may",
			}},
		},
	}
	binding := &admissionregistrationv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: admissionregistrationv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: name, ValidationActions: []admissionregistrationv1.ValidationAction{admissionregistrationv1.Deny},
		},
	}
	w.create(policy, binding)
	allow = func() {
		for _, object := range []client.Object{binding, policy} {
			w.Expect(client.IgnoreNotFound(admin.Delete(w.ctx, object))).To(Succeed())
		}
		w.Eventually(w.tryLabelled).Should(Succeed())
	}
	w.t.Cleanup(func() {
		for _, object := range []client.Object{binding, policy} {
			_ = admin.Delete(context.Background(), object) // it may be gone
		}
	})
	w.Eventually(w.tryLabelled).ShouldNot(Succeed(), "the API server takes a second to know a policy")
	return allow
}

// tryLabelled tries whether the policy is in force: it denies this to everybody.
func (w *world) tryLabelled() error {
	try := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, GenerateName: "try-", Labels: map[string]string{"any": "label"}}}
	return admin.Create(w.ctx, try, client.DryRunAll)
}

func TestAWriteThatKubernetesRefusesForGoodIsForAPersonToMend(t *testing.T) {
	for what, row := range map[string]struct {
		refuse         func(*world) (mend func())
		says           string
		isTokenInPlace bool
	}{
		"a quota": {func(w *world) func() {
			quota := &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "small"},
				Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/secrets": resource.MustParse("1")}}}
			w.create(quota)
			w.Eventually(func() corev1.ResourceList {
				w.Expect(admin.Get(w.ctx, client.ObjectKeyFromObject(quota), quota)).To(Succeed())
				return quota.Status.Used
			}).ShouldNot(BeEmpty())
			w.token("journeys")
			return func() { w.Expect(admin.Delete(w.ctx, quota)).To(Succeed()) }
		}, "; raise this ResourceQuota, or delete what nobody needs in the namespace", false},
		"a policy": {func(w *world) func() {
			allow := w.denyWrites()
			w.token("journeys")
			return allow
		}, "; have the ValidatingAdmissionPolicy allow it", false},
		"an immutable Secret": {func(w *world) func() {
			w.token("journeys")
			w.ready("journeys")
			change(w, w.secret("journeys"), func(s *corev1.Secret) { s.Immutable = ptr.To(true) })
			w.setTime(w.get("journeys").Status.RefreshAt.Add(time.Second))
			return func() { w.Expect(admin.Delete(w.ctx, w.secret("journeys"))).To(Succeed()) }
		}, "; delete this Secret: the operator makes it anew", true},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			mend := row.refuse(w)
			w.says("journeys", "Stalled=True WriteRefused", settled, "RefreshFailing absent")
			w.Expect(w.message("journeys")).To(ContainSubstring(row.says))
			w.Eventually(func() string { return w.gauge("sfmctoken_stalled", "journeys") }).Should(Equal("1"))
			w.Eventually(func() string { return w.gauge("sfmctoken_consecutive_failures", "journeys") }).ShouldNot(Equal("0"))
			if row.isTokenInPlace {
				w.says("journeys", valid)
			} else {
				w.says("journeys", "Ready=False WriteRefused")
			}
			asked := w.sfmc.Count()
			start := w.clock.Now()
			w.travel(5*time.Minute, 10*time.Second, func() bool { return w.clock.Since(start) >= 4*time.Minute })
			w.Expect(w.sfmc.Count()).To(Equal(asked), "the token that was asked for is kept")
			mend()
			w.travel(11*time.Minute, 10*time.Second, func() bool {
				return w.alive(w.held("journeys"), unit) && condition(w.get("journeys"), "Ready") == valid
			})
			w.ready("journeys")
			w.Expect(w.get("journeys").Status.ConsecutiveFailures).To(BeZero())
		})
	}
}

func TestReadyTurnsFalseAtTheMomentOfExpiryThoughKubernetesRefusesWrites(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	expires := w.ready("journeys").Status.ExpiresAt.Time
	w.denyWrites()
	w.setTime(w.get("journeys").Status.RefreshAt.Add(time.Second))
	w.says("journeys", valid, "Stalled=True WriteRefused")
	w.setTime(expires.Add(-time.Second))
	w.Consistently(func() []string { return w.conditions("journeys", valid) }, 300*time.Millisecond).Should(Equal([]string{valid}))
	w.Expect(w.gauge("sfmctoken_ready", "journeys")).To(Equal("1"))
	w.setTime(expires)
	w.says("journeys", "Ready=False WriteRefused")
	w.Expect(w.gauge("sfmctoken_ready", "journeys")).To(Equal("0"))
}
