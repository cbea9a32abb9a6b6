package test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

// rival is a second writer, who puts its own value of a key back whenever it is gone, as fast as it can.
type rival struct {
	came atomic.Int64
	saw  atomic.Value // the value of the key before
	stop func()
}

func (w *world) rival(name, key string) *rival {
	w.t.Helper()
	changes, err := admin.Watch(w.ctx, &corev1.SecretList{}, client.InNamespace(w.ns), client.MatchingFields{"metadata.name": name})
	w.Expect(err).NotTo(HaveOccurred())
	r, done := &rival{}, make(chan struct{})
	r.stop = func() { changes.Stop(); <-done }
	w.t.Cleanup(r.stop)
	rogue := client.WithFieldOwner(admin, "rogue")
	go func() {
		defer close(done)
		for e := range changes.ResultChan() {
			secret, isSecret := e.Object.(*corev1.Secret)
			if !isSecret || secret.DeletionTimestamp != nil || string(secret.Data[key]) == "mine" {
				continue
			}
			if secret.Data == nil {
				secret.Data = map[string][]byte{}
			}
			r.saw.Store(string(secret.Data[key]))
			secret.Data[key] = []byte("mine")
			if rogue.Update(w.ctx, secret) == nil {
				r.came.Add(1)
			}
		}
	}()
	return r
}

// hasCome waits until the rival has come so often, and the operator has nothing more to do.
func (w *world) hasCome(r *rival, times int64) {
	w.t.Helper()
	w.Eventually(r.came.Load).Should(Equal(times))
	w.Eventually(w.running.Idle).Should(BeTrue())
	w.Expect(r.came.Load()).To(Equal(times))
}

// contest is the message of TargetContested; empty if it isn't True.
func (w *world) contest(name string) string {
	found := meta.FindStatusCondition(w.get(name).Status.Conditions, v1alpha1.ConditionTargetContested)
	if found == nil {
		return ""
	}
	return found.Message
}

const (
	contested = "TargetContested=True RepeatedChanges"
	alone     = "TargetContested absent"
	delayed   = "Reconciling=True RepairDelayed"
)

func TestASecondWriterIsAnsweredEverMoreSlowlyAndNamedAndNewTokensAreWrittenInTime(t *testing.T) {
	w := newWorld(t)
	start := w.clock.Now()
	w.token("journeys")
	w.ready("journeys")
	w.says("journeys", valid, alone)
	r := w.rival("journeys", "access_token")
	w.says("journeys", unready(delayed), delayed, fine, contested)
	w.Expect(w.contest("journeys")).To(HavePrefix(`Secret journeys is changed again and again: data key "access_token" by the field manager "rogue"; `))
	w.hasCome(r, 4)
	for i, wait := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second} {
		w.step(wait - time.Millisecond)
		w.hasCome(r, int64(4+i))
		w.step(time.Millisecond)
		w.hasCome(r, int64(5+i))
	}
	w.Expect(w.sfmc.Count()).To(Equal(1))

	first := r.saw.Load()
	// The next token is asked for when it is due, and written at once.
	w.travel(20*time.Minute, 10*time.Second, func() bool { return w.sfmc.Count() == 2 })
	w.Expect(w.clock.Since(start)).To(BeNumerically("<", 14*time.Minute))
	w.Eventually(r.saw.Load).ShouldNot(Equal(first), "it was written, and spoilt")
	w.says("journeys", unready(delayed), delayed, contested)

	// The rival goes.
	r.stop()
	w.travel(2*time.Minute, 10*time.Second, func() bool { return w.alive(w.held("journeys"), "510004567") })
	w.says("journeys", valid, settled, fine, contested)
	w.travel(11*time.Minute, 30*time.Second, func() bool { return w.contest("journeys") == "" })
	w.says("journeys", valid, settled, fine, alone)
	var events corev1.EventList
	w.Eventually(func(g Gomega) {
		g.Expect(admin.List(w.ctx, &events, client.InNamespace(w.ns))).To(Succeed())
		g.Expect(events.Items).To(ConsistOf(HaveField("Reason", "TokenValid"),
			And(HaveField("Reason", "RepeatedChanges"), HaveField("Type", "Warning"), HaveField("Message", ContainSubstring(`"rogue"`)))))
	}).Should(Succeed())
	w.Expect(w.secret("journeys").ManagedFields).To(ContainElement(HaveField("Manager", "sfmctoken-operator")))
}

func TestATokenIsTakenOutAtOnceWhateverIsContested(t *testing.T) {
	w := newWorld(t)
	platform := w.platform()
	grant := w.grant(platform, "any")
	w.token("journeys", from(platform, "package"))
	w.ready("journeys")
	was := w.held("journeys")
	r := w.rival("journeys", "extra")
	w.says("journeys", valid, settled, fine, contested)
	w.Expect(w.contest("journeys")).To(ContainSubstring(`data key "extra" by the field manager "rogue"`))
	w.hasCome(r, 4)

	w.Expect(admin.Delete(w.ctx, grant)).To(Succeed()) // and the clock stands still
	w.Eventually(func() map[string][]byte { return w.secret("journeys").Data }).Should(Equal(map[string][]byte{"extra": []byte("mine")}))
	w.says("journeys", append(denied, alone)...)
	w.grant(platform, "again")
	w.Eventually(func() string { return w.held("journeys") }).Should(Equal(was), "what comes back is no repair")
}

func TestATargetThatIsDeletedAgainAndAgainComesBackEverMoreSlowly(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	w.ready("journeys")
	for i := range 6 {
		w.Expect(admin.Delete(w.ctx, w.secret("journeys"))).To(Succeed())
		if i >= 3 {
			w.says("journeys", unready(delayed), delayed, fine, contested)
			w.Expect(w.secret("journeys")).To(BeNil())
			w.step(time.Second << (i - 3))
		}
		w.Eventually(func() bool { return w.alive(w.held("journeys"), "510004567") }).Should(BeTrue())
		w.ready("journeys")
	}
	w.Expect(w.contest("journeys")).To(HavePrefix("Secret journeys is changed again and again: it is deleted, "))
	w.Expect(w.sfmc.Count()).To(Equal(1))
}

// altered has an admission policy set a key of every Secret that is written with the operator's label.
func (w *world) altered(key string) {
	w.t.Helper()
	name := metav1.ObjectMeta{Name: w.ns}
	policy, binding := &admissionv1.MutatingAdmissionPolicy{ObjectMeta: name}, &admissionv1.MutatingAdmissionPolicyBinding{ObjectMeta: name}
	fail := admissionv1.Fail
	policy.Spec = admissionv1.MutatingAdmissionPolicySpec{
		FailurePolicy:      &fail,
		ReinvocationPolicy: admissionv1.NeverReinvocationPolicy,
		MatchConstraints: &admissionv1.MatchResources{
			NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: w.ns}},
			ObjectSelector:    &metav1.LabelSelector{MatchLabels: map[string]string{managedBy: managed}},
			ResourceRules: []admissionv1.NamedRuleWithOperations{{RuleWithOperations: admissionv1.RuleWithOperations{
				Operations: []admissionv1.OperationType{admissionv1.Create, admissionv1.Update},
				Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"}},
			}}},
		},
		Mutations: []admissionv1.Mutation{{
			PatchType: admissionv1.PatchTypeJSONPatch,
			JSONPatch: &admissionv1.JSONPatch{Expression: fmt.Sprintf(`[JSONPatch{op: "add", path: "/data/%s", value: "bWluZQ=="}]`, key)},
		}},
	}
	binding.Spec.PolicyName = w.ns
	w.create(policy, binding)
	w.t.Cleanup(func() {
		w.Expect(admin.Delete(context.Background(), binding)).To(Succeed())
		w.Expect(admin.Delete(context.Background(), policy)).To(Succeed())
	})
	w.Eventually(func() map[string][]byte {
		try := secretIn(w.ns)
		try.Labels, try.Data = map[string]string{managedBy: managed}, map[string][]byte{"any": nil}
		w.Expect(admin.Create(w.ctx, try, client.DryRunAll)).To(Succeed())
		return try.Data
	}).Should(HaveKeyWithValue(key, []byte("mine")), "the API server takes a second to know a policy")
}

func TestAPolicyThatChangesEveryWriteIsNamedAndReadyStaysTrue(t *testing.T) {
	for key, ready := range map[string][]string{
		"injected":     {valid, settled},
		"access_token": {unready(delayed), delayed},
	} {
		t.Run(key, func(t *testing.T) {
			w := newWorld(t)
			w.altered(key)
			w.token("journeys")
			w.says("journeys", append(ready, fine, contested)...)
			w.Expect(w.contest("journeys")).To(ContainSubstring(fmt.Sprintf(
				"data key %q by an admission webhook or policy that changes what this operator writes;", key)))
			w.step(time.Second)
			w.says("journeys", append(ready, fine, contested)...)
			w.Expect(w.sfmc.Count()).To(Equal(1))
		})
	}
}
