package test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

const (
	managedBy = "app.kubernetes.io/managed-by"
	managed   = "sfmctoken-operator"
	issued    = "sfmctoken.dev/issued"
)

var ours = client.MatchingLabels{"app.kubernetes.io/name": "sfmctoken-operator"}

// kustomization writes a kustomization of configurations of this repository, named by their folders in config.
func kustomization(t *testing.T, resource string, components ...string) string {
	t.Helper()
	g, dir := NewWithT(t), t.TempDir()
	config, err := filepath.Rel(dir, harness.Path("config"))
	g.Expect(err).NotTo(HaveOccurred())
	text := "resources:\n- " + filepath.Join(config, resource) + "\ncomponents:\n"
	for _, component := range components {
		text += "- " + filepath.Join(config, component) + "\n"
	}
	g.Expect(os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600)).To(Succeed())
	return dir
}

// withPolicies applies config/default with the policies, and waits until they are in force. They go with the test.
func (w *world) withPolicies() {
	w.t.Helper()
	w.t.Cleanup(func() { removePolicies(w.t) })
	_, err := cluster.Kubectl(w.ctx, "apply", "--server-side", "-k", kustomization(w.t, "default", "components/admission-policies"))
	w.Expect(err).NotTo(HaveOccurred())
	limited := w.limitedNamespace("1", "*")
	w.Eventually(func(g Gomega) {
		g.Expect(tryForgery(w.ctx)).NotTo(Succeed())
		g.Expect(w.as(operator).Create(w.ctx, secretIn("default"), client.DryRunAll)).To(MatchError(ContainSubstring("denied request")))
		g.Expect(admin.Create(w.ctx, harness.Token(limited, "any", "package", "2"), client.DryRunAll)).NotTo(Succeed())
	}).Should(Succeed(), "the API server takes a second to know a policy")
}

func removePolicies(t *testing.T) {
	g, ctx := NewWithT(t), context.Background()
	g.Expect(admin.DeleteAllOf(ctx, &admissionv1.ValidatingAdmissionPolicyBinding{}, ours)).To(Succeed())
	g.Expect(admin.DeleteAllOf(ctx, &admissionv1.ValidatingAdmissionPolicy{}, ours)).To(Succeed())
	g.Eventually(func() error { return tryForgery(ctx) }, patience).Should(Succeed())
}

// tryForgery tries, without leaving anything, what the policies refuse.
func tryForgery(ctx context.Context) error {
	forged := secretIn("default")
	forged.Labels = map[string]string{managedBy: managed}
	return admin.Create(ctx, forged, client.DryRunAll)
}

func secretIn(namespace string) *corev1.Secret {
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "any"}, Type: corev1.SecretTypeOpaque}
}

func (w *world) as(identity *rest.Config) client.Client {
	w.t.Helper()
	mine, err := client.New(identity, client.Options{Scheme: harness.Scheme})
	w.Expect(err).NotTo(HaveOccurred())
	return mine
}

func impersonate(user string) *rest.Config {
	config := cluster.Config()
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:authenticated"}}
	return config
}

// editor is somebody with the built-in role edit in the test's namespace.
func (w *world) editor() client.Client {
	w.t.Helper()
	w.create(&rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "editor"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "edit"},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "editor"}},
	})
	editor := w.as(impersonate("editor"))
	w.Eventually(func() error { return editor.Create(w.ctx, secretIn(w.ns), client.DryRunAll) }).Should(Succeed(), "the right has arrived")
	return editor
}

// limitedNamespace makes a Namespace with limits; none for an empty text.
func (w *world) limitedNamespace(accountIDs, scopes string) string {
	w.t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		GenerateName: "limited-",
		Labels:       map[string]string{"sfmctoken.dev/limits": "enforced"},
		Annotations:  map[string]string{},
	}}
	for key, value := range map[string]string{"sfmctoken.dev/allowed-account-ids": accountIDs, "sfmctoken.dev/allowed-scopes": scopes} {
		if value != "" {
			namespace.Annotations[key] = value
		}
	}
	w.create(namespace)
	w.t.Cleanup(func() { _ = admin.Delete(context.Background(), namespace) })
	return namespace.Name
}

func TestThePoliciesHaveNoErrorThatKubernetesFinds(t *testing.T) {
	w := newWorld(t)
	w.withPolicies()
	w.Eventually(func(g Gomega) {
		var policies admissionv1.ValidatingAdmissionPolicyList
		g.Expect(admin.List(w.ctx, &policies, ours)).To(Succeed())
		g.Expect(policies.Items).To(HaveLen(3))
		for _, policy := range policies.Items {
			g.Expect(policy.Status.ObservedGeneration).To(Equal(policy.Generation))
			g.Expect(policy.Status.TypeChecking.ExpressionWarnings).To(BeEmpty(), policy.Name)
		}
	}).Should(Succeed())
}

func TestThePoliciesKnowTheOperatorWhereverItRuns(t *testing.T) {
	g := NewWithT(t)
	for resource, namespace := range map[string]string{"default": harness.SystemNamespace, "namespaced": "marketing"} {
		out, err := cluster.Kubectl(t.Context(), "kustomize", kustomization(t, resource, "components/admission-policies"))
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(strings.Count(out, "system:serviceaccount:"+namespace+":"+harness.ServiceAccount)).To(Equal(2), resource)
		g.Expect(strings.Count(out, harness.ServiceAccount+"'']")+strings.Count(out, harness.ServiceAccount+"']")).To(Equal(2), resource)
	}
}

func TestWhoMayWriteWhichSecretsUnderThePolicies(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	w.ready("journeys")
	w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "foreign"}})
	owned := secretIn(w.ns) // as a target whose label was taken off before there were policies
	owned.Name, owned.OwnerReferences = "owned", w.secret("journeys").OwnerReferences
	w.create(owned)
	w.withPolicies()

	const (
		makes, changes, disowns                  = "only sfmctoken-operator makes Secrets", "change its SFMCToken instead", "only sfmctoken-operator and the garbage collector"
		leavesLabel, leavesForeign, leavesOpaque = "leaves its label", "changes only Secrets", "Opaque alone"
		allowed                                  = ""
	)
	people := map[string]client.Client{"a cluster administrator": admin, "an editor": w.editor()}
	collector := map[string]client.Client{"the garbage collector": w.as(impersonate("system:serviceaccount:kube-system:generic-garbage-collector"))}
	itself := map[string]client.Client{"the operator": w.as(operator)}
	label := func(s *corev1.Secret) { s.Labels = map[string]string{managedBy: managed} }
	record := func(s *corev1.Secret) { s.Annotations = map[string]string{issued: `{"owner":"journeys"}`} }
	both := func(s *corev1.Secret) { label(s); record(s) }
	nothing := func(*corev1.Secret) {}
	data := func(s *corev1.Secret) { s.Data = map[string][]byte{"access_token": []byte("forged")} }
	disown := func(s *corev1.Secret) { s.OwnerReferences = nil }
	immutable := func(s *corev1.Secret) { s.Immutable = new(bool); *s.Immutable = true }
	for _, try := range []struct {
		who  map[string]client.Client
		what string
		name string // of the Secret; empty: a new one
		edit func(*corev1.Secret)
		says string
	}{
		{people, "edits the token", "journeys", data, changes},
		{people, "takes all data out", "journeys", func(s *corev1.Secret) { s.Data = nil }, changes},
		{people, "takes the label off", "journeys", func(s *corev1.Secret) { delete(s.Labels, managedBy) }, changes},
		{people, "gives it to another manager", "journeys", func(s *corev1.Secret) { s.Labels[managedBy] = "Helm" }, changes},
		{people, "takes the record off", "journeys", func(s *corev1.Secret) { delete(s.Annotations, issued) }, changes},
		{people, "takes everything off", "journeys", func(s *corev1.Secret) { s.Labels, s.Annotations = nil, nil }, changes},
		{people, "forges the record", "journeys", record, changes},
		{people, "makes it immutable", "journeys", immutable, changes},
		{people, "disowns it", "journeys", disown, disowns},
		{people, "adds a label", "journeys", func(s *corev1.Secret) { s.Labels["cost-centre"] = "42" }, allowed},
		{people, "adds an annotation", "journeys", func(s *corev1.Secret) { s.Annotations["reloader"] = "on" }, allowed},
		{people, "writes it as it is", "journeys", nothing, allowed},
		{people, "makes a Secret with the label", "", label, makes},
		{people, "makes a Secret with the record", "", record, makes},
		{people, "makes any other Secret", "", data, allowed},
		{people, "puts the label on another Secret", "foreign", label, changes},
		{people, "puts the record on another Secret", "foreign", record, changes},
		{people, "edits another Secret", "foreign", data, allowed},
		{collector, "disowns it", "journeys", disown, allowed},
		{collector, "edits the token", "journeys", data, changes},
		{itself, "makes a target", "", both, allowed},
		{itself, "makes one without the record", "", label, leavesLabel},
		{itself, "makes one without the label", "", record, leavesLabel},
		{itself, "makes a Secret that Kubernetes writes a ServiceAccount's token into", "", func(s *corev1.Secret) {
			both(s)
			s.Type, s.Annotations["kubernetes.io/service-account.name"] = corev1.SecretTypeServiceAccountToken, "default"
		}, leavesOpaque},
		{itself, "edits the token", "journeys", data, allowed},
		{itself, "leaves a target without a label", "journeys", func(s *corev1.Secret) { s.Labels = nil }, leavesLabel},
		{itself, "edits another Secret", "foreign", data, leavesLabel},
		{itself, "takes another Secret over", "foreign", both, leavesForeign},
		{itself, "takes a Secret over that an SFMCToken owns", "owned", both, allowed},
	} {
		for name, who := range try.who {
			t.Run(name+" "+try.what, func(t *testing.T) {
				g := NewWithT(t)
				secret, write := secretIn(w.ns), who.Update
				if try.name != "" {
					secret = w.secret(try.name)
				} else {
					write = func(ctx context.Context, object client.Object, _ ...client.UpdateOption) error {
						return who.Create(ctx, object, client.DryRunAll)
					}
				}
				try.edit(secret)
				err := write(t.Context(), secret, client.DryRunAll)
				if try.says == allowed {
					g.Expect(err).NotTo(HaveOccurred())
				} else {
					g.Expect(err).To(MatchError(ContainSubstring(try.says)))
				}
			})
		}
	}
	for name, who := range people {
		w.Expect(who.Delete(w.ctx, w.secret("journeys"), client.DryRunAll)).To(Succeed(), name)
	}
}

func TestTheOperatorServesUnderThePolicies(t *testing.T) {
	w := newWorld(t)
	token := w.token("journeys")
	w.ready("journeys")
	w.stopOperator()
	change(w, w.secret("journeys"), func(s *corev1.Secret) { s.Labels, s.Annotations = nil, nil }) // before there were policies
	w.withPolicies()
	w.startOperator()
	w.Eventually(func() map[string]string { return w.secret("journeys").Labels }).Should(HaveKeyWithValue(managedBy, managed))

	w.ready("journeys")
	was := w.held("journeys")
	w.travel(20*time.Minute, time.Minute, func() bool { return w.held("journeys") != was })
	w.Expect(admin.Delete(w.ctx, w.secret("journeys"))).To(Succeed())
	w.Eventually(func() bool { return w.alive(w.held("journeys"), "510004567") }).Should(BeTrue(), "deleted by hand")

	change(w, token, func(token *v1alpha1.SFMCToken) { token.Spec.Target = &v1alpha1.Target{Name: "renamed"} })
	w.Eventually(func() bool { return w.alive(w.held("renamed"), "510004567") }).Should(BeTrue())
	w.Eventually(func() *corev1.Secret { return w.secret("journeys") }).Should(BeNil(), "the garbage collector may delete it")

	change(w, token, func(token *v1alpha1.SFMCToken) { token.Spec.Target.DeletionPolicy = v1alpha1.DeletionPolicyRetain })
	w.Eventually(func() []metav1.OwnerReference { return w.secret("renamed").OwnerReferences }).Should(BeEmpty())
	w.Expect(admin.Delete(w.ctx, token)).To(Succeed())
	back := w.token("journeys", func(token *v1alpha1.SFMCToken) { token.Spec.Target = &v1alpha1.Target{Name: "renamed"} })
	w.Eventually(func() []metav1.OwnerReference { return w.secret("renamed").OwnerReferences }).ShouldNot(BeEmpty())
	w.ready("journeys")

	// The garbage collector, which makes orphans of dependents, must be able to end the deletion.
	w.stopOperator()
	w.Expect(admin.Delete(w.ctx, back, client.PropagationPolicy(metav1.DeletePropagationOrphan))).To(Succeed())
	w.Eventually(func() error { return admin.Get(w.ctx, client.ObjectKeyFromObject(back), back) }).Should(MatchError(ContainSubstring("not found")))
	w.Expect(w.secret("renamed").OwnerReferences).To(BeEmpty())
	w.Expect(w.logs.String()).NotTo(ContainSubstring("denied request"))
}

func TestThePoliciesLimitBusinessUnitsAndScopesByNamespace(t *testing.T) {
	w := newWorld(t)
	w.withPolicies()
	var sample corev1.Namespace
	w.Expect(yaml.Unmarshal(readSample(w.WithT, "limited_namespace.yaml"), &sample)).To(Succeed())
	limits := sample.Annotations
	both := w.limitedNamespace(limits["sfmctoken.dev/allowed-account-ids"], limits["sfmctoken.dev/allowed-scopes"])
	const allowed = ""
	for _, try := range []struct {
		what, namespace, account string
		scopes                   []v1alpha1.Scope
		says                     string
	}{
		{"both within the limits", both, "510004567", []v1alpha1.Scope{"journeys_read", "email_read"}, allowed},
		{"another business unit of the list", both, "510009999", []v1alpha1.Scope{"email_read"}, allowed},
		{"a business unit beyond", both, "510000001", []v1alpha1.Scope{"email_read"}, `spec.accountID "510000001" is not one that Namespace ` + both + ` allows: set it to one of [510004567, 510009999], or have`},
		{"a part of a number", both, "51000456", []v1alpha1.Scope{"email_read"}, `spec.accountID "51000456"`},
		{"no business unit", both, "", []v1alpha1.Scope{"email_read"}, "spec.accountID is absent, but"},
		{"a scope beyond", both, "510004567", []v1alpha1.Scope{"email_read", "email_send"}, "spec.scopes [email_send] are not among those that Namespace " + both + " allows: choose from [journeys_read, email_read]"},
		{"no scopes, which are all", both, "510004567", nil, "spec.scopes is absent, which means all scopes of the package, but"},
		{"any business unit", w.limitedNamespace("*", "email_read"), "", []v1alpha1.Scope{"email_read"}, allowed},
		{"any scope", w.limitedNamespace("1", "*"), "1", nil, allowed},
		{"no limits where there must be some", w.limitedNamespace("", ""), "1", nil, "but not both of the annotations"},
		{"scopes without limits where there must be some", w.limitedNamespace("1", ""), "1", nil, "but not both of the annotations"},
		{"nothing allowed", w.limitedNamespace(" ", "*"), "1", nil, "set it to one of []"},
		{"a namespace without the label", w.ns, "510000001", nil, allowed},
	} {
		t.Run(try.what, func(t *testing.T) {
			g := NewWithT(t)
			token := harness.Token(try.namespace, "any", "package", try.account)
			token.Spec.Scopes = try.scopes
			err := admin.Create(t.Context(), token, client.DryRunAll)
			if try.says == allowed {
				g.Expect(err).NotTo(HaveOccurred())
			} else {
				g.Expect(err).To(MatchError(ContainSubstring(try.says)))
			}
		})
	}
}

func TestLimitsLeaveAloneWhatWasThereBefore(t *testing.T) {
	w := newWorld(t)
	token := w.token("journeys")
	w.ready("journeys")
	w.withPolicies()
	change(w, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.ns}}, func(namespace *corev1.Namespace) {
		namespace.Labels["sfmctoken.dev/limits"] = "enforced"
	})
	w.Eventually(func() error {
		return admin.Create(w.ctx, harness.Token(w.ns, "any", "package", ""), client.DryRunAll)
	}).ShouldNot(Succeed())
	was := w.held("journeys")
	w.travel(20*time.Minute, time.Minute, func() bool { return w.held("journeys") != was })
	w.ready("journeys")
	change(w, token, func(token *v1alpha1.SFMCToken) { token.Labels = map[string]string{"team": "emea"} })
	token.Spec.AccountID = "510009999"
	w.Expect(admin.Update(w.ctx, token)).To(MatchError(ContainSubstring("but not both of the annotations")))
	// In the foreground, as some GitOps tools delete: the garbage collector updates the SFMCToken.
	w.Expect(admin.Delete(w.ctx, token, client.PropagationPolicy(metav1.DeletePropagationForeground))).To(Succeed())
	w.Eventually(func() error { return admin.Get(w.ctx, client.ObjectKeyFromObject(token), token) }).Should(MatchError(ContainSubstring("not found")))
}
