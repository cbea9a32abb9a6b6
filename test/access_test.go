package test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

const unit = "510004567"

// platform is a namespace that holds credentials for others.
func (w *world) platform() string {
	w.t.Helper()
	platform := w.namespace()
	w.create(harness.CredentialsSecret(platform, "package", w.sfmc, w.pkg))
	return platform
}

// grant lets the world's namespace use the credentials "package" of another one for a business unit.
func (w *world) grant(platform, name string, changes ...func(*v1alpha1.SFMCAccessGrant)) *v1alpha1.SFMCAccessGrant {
	w.t.Helper()
	grant := &v1alpha1.SFMCAccessGrant{
		ObjectMeta: metav1.ObjectMeta{Namespace: platform, Name: name},
		Spec: v1alpha1.SFMCAccessGrantSpec{
			CredentialsSecretRef: v1alpha1.GrantedSecretReference{Name: "package"},
			From:                 []v1alpha1.AccessGrantFrom{{Namespace: w.ns}},
			AccountIDs:           []v1alpha1.AccountID{unit},
		},
	}
	for _, change := range changes {
		change(grant)
	}
	w.create(grant)
	return grant
}

// from is for an SFMCToken that uses credentials of another namespace.
func from(platform, secret string) func(*v1alpha1.SFMCToken) {
	return func(token *v1alpha1.SFMCToken) {
		token.Spec.CredentialsSecretRef = v1alpha1.CredentialsSecretReference{Namespace: platform, Name: secret}
	}
}

func selecting(labels map[string]string) func(*v1alpha1.SFMCAccessGrant) {
	return func(grant *v1alpha1.SFMCAccessGrant) {
		grant.Spec.From = []v1alpha1.AccessGrantFrom{{NamespaceSelector: &metav1.LabelSelector{MatchLabels: labels}}}
	}
}

// label sets a label of a namespace.
func (w *world) label(namespace, key, value string) {
	w.t.Helper()
	change(w, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, func(n *corev1.Namespace) { n.Labels[key] = value })
}

var denied = []string{"Ready=False AccessDenied", "Stalled=True AccessDenied"}

func TestEveryReferenceToAnotherNamespaceIsDeniedUnlessOneGrantCoversAllOfIt(t *testing.T) {
	w := newWorld(t)
	w.label(w.ns, "region", "emea")
	platform, other := w.platform(), w.platform()
	secret := harness.CredentialsSecret(platform, "another", w.sfmc, w.pkg)
	w.create(secret)
	type grants = []func(*v1alpha1.SFMCAccessGrant)
	plain := func(*v1alpha1.SFMCAccessGrant) {}
	bound := func(scopes ...v1alpha1.Scope) func(*v1alpha1.SFMCAccessGrant) {
		return func(grant *v1alpha1.SFMCAccessGrant) { grant.Spec.Scopes = scopes }
	}
	accounts := func(ids ...v1alpha1.AccountID) func(*v1alpha1.SFMCAccessGrant) {
		return func(grant *v1alpha1.SFMCAccessGrant) { grant.Spec.AccountIDs = ids }
	}
	scopes := func(scopes ...v1alpha1.Scope) func(*v1alpha1.SFMCToken) {
		return func(token *v1alpha1.SFMCToken) { token.Spec.Scopes = scopes }
	}
	both := func(changes ...func(*v1alpha1.SFMCAccessGrant)) func(*v1alpha1.SFMCAccessGrant) {
		return func(grant *v1alpha1.SFMCAccessGrant) {
			for _, change := range changes {
				change(grant)
			}
		}
	}
	same := func(*v1alpha1.SFMCToken) {}
	for i, c := range []struct {
		what   string
		served bool
		token  func(*v1alpha1.SFMCToken)
		grants grants
	}{
		{"by name", true, same, grants{plain}},
		{"by a label", true, same, grants{selecting(map[string]string{"region": "emea"})}},
		{"by the second entry", true, same, grants{func(g *v1alpha1.SFMCAccessGrant) {
			g.Spec.From = append([]v1alpha1.AccessGrantFrom{{Namespace: "elsewhere"}}, g.Spec.From...)
		}}},
		{"by the second grant", true, same, grants{accounts("510009999"), plain}},
		{"all scopes within the bound", true, scopes("email_read"), grants{bound("email_read", "email_send")}},
		{"scopes without a bound", true, scopes("email_read"), grants{plain}},
		{"an empty selector", true, same, grants{selecting(nil)}},

		{"no grant", false, same, nil},
		{"a grant in another namespace", false, same, grants{func(g *v1alpha1.SFMCAccessGrant) { g.Namespace = other }}},
		{"a grant in the SFMCToken's namespace", false, same, grants{func(g *v1alpha1.SFMCAccessGrant) { g.Namespace = w.ns }}},
		{"a grant for another Secret", false, same, grants{func(g *v1alpha1.SFMCAccessGrant) { g.Spec.CredentialsSecretRef.Name = "another" }}},
		{"a grant for another account", false, same, grants{accounts("510009999")}},
		{"a grant for another namespace", false, same, grants{func(g *v1alpha1.SFMCAccessGrant) { g.Spec.From[0].Namespace = "elsewhere" }}},
		{"another label", false, same, grants{selecting(map[string]string{"region": "apac"})}},
		{"a label of which the namespace has only the key", false, same, grants{selecting(map[string]string{"region": ""})}},
		{"a scope beyond the bound", false, scopes("email_read", "journeys_read"), grants{bound("email_read")}},
		{"no scopes named, though there is a bound", false, same, grants{bound("email_read")}},
		{"the scopes in two grants", false, scopes("email_read", "journeys_read"), grants{bound("email_read"), bound("journeys_read")}},
		{"the account in one grant and the scope in another", false, scopes("email_read"),
			grants{both(accounts("510009999"), bound("email_read")), bound("journeys_read")}},
		{"a selector that can't be read", false, same, grants{func(g *v1alpha1.SFMCAccessGrant) {
			g.Spec.From = []v1alpha1.AccessGrantFrom{{NamespaceSelector: &metav1.LabelSelector{
				MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "region", Operator: "Like", Values: []string{"emea"}}}}}}
		}}},
	} {
		t.Run(c.what, func(t *testing.T) {
			w := w.in(t)
			name, credentials := fmt.Sprintf("case-%d", i), fmt.Sprintf("package-%d", i)
			w.create(harness.CredentialsSecret(platform, credentials, w.sfmc, w.pkg))
			for j, changed := range c.grants {
				w.grant(platform, fmt.Sprintf("%s-%d", name, j), func(g *v1alpha1.SFMCAccessGrant) { g.Spec.CredentialsSecretRef.Name = credentials }, changed)
			}
			w.sfmc.ResetRecord()
			token := w.token(name, from(platform, credentials), c.token)
			if c.served {
				w.ready(name)
				return
			}
			w.says(name, denied...)
			w.Expect(w.sfmc.Count()).To(BeZero())
			w.Expect(w.secret(name)).To(BeNil())
			// What the message says is the same for a Secret and a namespace that don't exist.
			said := meta.FindStatusCondition(w.get(name).Status.Conditions, "Stalled").Message
			missing := w.token(name+"-missing", from("no-such-namespace", credentials), c.token)
			w.says(missing.Name, denied...)
			saidOfNone := meta.FindStatusCondition(w.get(missing.Name).Status.Conditions, "Stalled").Message
			w.Expect(strings.ReplaceAll(said, platform, "no-such-namespace")).To(Equal(saidOfNone))
			w.Expect(said).To(And(ContainSubstring(`ask the owners of that namespace for an SFMCAccessGrant`), ContainSubstring(unit)))
			w.Expect(admin.Delete(w.ctx, token)).To(Succeed())
		})
	}
}

// emptied waits until a target Secret has nothing in it, and checks that it stays so.
func (w *world) emptied(name string) {
	w.t.Helper()
	w.says(name, denied...)
	w.Expect(w.secret(name)).NotTo(BeNil(), "a mounted volume stays")
	w.Expect(w.secret(name).Data).To(BeEmpty())
}

func TestATokenGoesWhenAccessIsTakenAwayAndComesBackWithIt(t *testing.T) {
	w := newWorld(t)
	w.label(w.ns, "region", "emea")
	platform := w.platform()
	grant := w.grant(platform, "emea", selecting(map[string]string{"region": "emea"}), func(g *v1alpha1.SFMCAccessGrant) {
		g.Spec.Scopes = []v1alpha1.Scope{"email_read", "email_send"}
	})
	w.token("journeys", from(platform, "package"), func(token *v1alpha1.SFMCToken) { token.Spec.Scopes = []v1alpha1.Scope{"email_read"} })
	first := w.ready("journeys")
	w.Expect(w.sfmc.Count()).To(Equal(1))
	for _, way := range []struct {
		what       string
		take, give func()
	}{
		{"the namespace loses its label", func() { w.label(w.ns, "region", "apac") }, func() { w.label(w.ns, "region", "emea") }},
		{"the grant is deleted", func() { w.Expect(admin.Delete(w.ctx, grant)).To(Succeed()) }, func() {
			grant = w.grant(platform, "emea-2", func(g *v1alpha1.SFMCAccessGrant) { g.Spec.Scopes = []v1alpha1.Scope{"email_read"} })
		}},
		{"the scope is taken out", func() {
			change(w, grant, func(g *v1alpha1.SFMCAccessGrant) { g.Spec.Scopes = []v1alpha1.Scope{"email_send"} })
		}, func() {
			change(w, grant, func(g *v1alpha1.SFMCAccessGrant) { g.Spec.Scopes = nil })
		}},
		{"the account is taken out", func() {
			change(w, grant, func(g *v1alpha1.SFMCAccessGrant) { g.Spec.AccountIDs = []v1alpha1.AccountID{"510009999"} })
		}, func() {
			change(w, grant, func(g *v1alpha1.SFMCAccessGrant) { g.Spec.AccountIDs = []v1alpha1.AccountID{"510009999", unit} })
		}},
		{"the grant is for another namespace", func() {
			change(w, grant, func(g *v1alpha1.SFMCAccessGrant) { g.Spec.From[0].Namespace = "elsewhere" })
		}, func() {
			change(w, grant, func(g *v1alpha1.SFMCAccessGrant) { g.Spec.From[0].Namespace = w.ns })
		}},
		{"the grant is for another Secret", func() {
			change(w, grant, func(g *v1alpha1.SFMCAccessGrant) { g.Spec.CredentialsSecretRef.Name = "another" })
		}, func() {
			change(w, grant, func(g *v1alpha1.SFMCAccessGrant) { g.Spec.CredentialsSecretRef.Name = "package" })
		}},
	} {
		t.Run(way.what, func(t *testing.T) {
			w := w.in(t)
			way.take()
			w.emptied("journeys")
			way.give()
			w.Expect(w.ready("journeys").Status.ExpiresAt).To(Equal(first.Status.ExpiresAt))
			w.Expect(w.sfmc.Count()).To(Equal(1), "the same token serves again")
		})
	}
	// Suspended, and with a target that is somebody else's meanwhile, it is taken out all the same.
	change(w, w.get("journeys"), func(token *v1alpha1.SFMCToken) { token.Spec.Suspend = true })
	w.says("journeys", "Ready=True TokenValid", "Suspended=True Suspended")
	w.Expect(admin.Delete(w.ctx, grant)).To(Succeed())
	w.emptied("journeys")
}

func TestATokenGoesWithTheCredentialsSecretOfAnotherNamespace(t *testing.T) {
	w := newWorld(t)
	platform := w.platform()
	w.grant(platform, "emea")
	w.token("journeys", from(platform, "package"))
	w.ready("journeys")
	w.deleteCredentials(platform)
	w.says("journeys", "Ready=False CredentialsNotFound", "Reconciling=True CredentialsNotFound")
	w.Expect(w.secret("journeys").Data).To(BeEmpty())
	// Replaced under the same name by credentials of another package: its token, not the old one.
	another := w.pkg
	another.ClientID = "client-id-of-another"
	w.Expect(w.sfmc.AddPackage(another)).To(Succeed())
	w.create(harness.CredentialsSecret(platform, "package", w.sfmc, another))
	w.ready("journeys")
	w.Expect(w.sfmc.CountFor(another.ClientID, unit)).To(Equal(1))
	w.Expect(w.sfmc.Count()).To(Equal(2))

	// Suspended, it goes all the same.
	change(w, w.get("journeys"), func(token *v1alpha1.SFMCToken) { token.Spec.Suspend = true })
	w.says("journeys", valid, "Suspended=True Suspended")
	w.deleteCredentials(platform)
	w.says("journeys", "Ready=False CredentialsNotFound", "Suspended=True Suspended")
	w.Expect(w.secret("journeys").Data).To(BeEmpty())
}

// TestCredentialsThatGetTheOperatorsLabelAreStillThere: they go from the one cache of Secrets to the other.
func TestCredentialsThatGetTheOperatorsLabelAreStillThere(t *testing.T) {
	w := newWorld(t)
	platform := w.platform()
	w.grant(platform, "emea")
	w.token("journeys", from(platform, "package"))
	w.ready("journeys")
	before := w.secret("journeys").ResourceVersion
	credentials := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: platform, Name: "package"}}
	for range 10 {
		for _, value := range []string{"sfmctoken-operator", "somebody-else"} {
			change(w, credentials, func(secret *corev1.Secret) {
				metav1.SetMetaDataLabel(&secret.ObjectMeta, "app.kubernetes.io/managed-by", value)
			})
		}
	}
	change(w, credentials, func(secret *corev1.Secret) { secret.Labels["app.kubernetes.io/managed-by"] = "sfmctoken-operator" })
	w.Eventually(w.running.Idle).Should(BeTrue())
	w.Expect(w.secret("journeys").ResourceVersion).To(Equal(before), "it was never without them")
	w.Expect(w.sfmc.Count()).To(Equal(1))

	// And a change of them is noticed there, too.
	rotated := w.pkg
	rotated.ClientID, rotated.ClientSecret = "client-id-of-another", "another-secret"
	w.Expect(w.sfmc.AddPackage(rotated)).To(Succeed())
	change(w, credentials, func(secret *corev1.Secret) {
		secret.Data["client_id"], secret.Data["client_secret"] = []byte(rotated.ClientID), []byte(rotated.ClientSecret)
	})
	w.Eventually(func() int { return w.sfmc.CountFor(rotated.ClientID, unit) }).Should(Equal(1))
	w.Eventually(func() bool { return w.alive(w.held("journeys"), unit) }).Should(BeTrue())
	w.deleteCredentials(platform)
	w.says("journeys", "Ready=False CredentialsNotFound", "Reconciling=True CredentialsNotFound")
	w.Expect(w.secret("journeys").Data).To(BeEmpty())
}

// denyReads lets nobody's Secret be read by the operator, which still hears of them.
func (w *world) denyReads() (allow func()) {
	w.t.Helper()
	set := func(verbs ...string) error {
		role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "sfmctoken-operator"}}
		if err := admin.Get(context.Background(), client.ObjectKeyFromObject(role), role); err != nil {
			return err
		}
		for i := range role.Rules {
			if slices.Equal(role.Rules[i].Resources, []string{"secrets"}) {
				role.Rules[i].Verbs = verbs
			}
		}
		return admin.Update(context.Background(), role)
	}
	tried := func() error {
		live, err := client.New(operator, client.Options{})
		w.Expect(err).NotTo(HaveOccurred())
		return live.Get(context.Background(), client.ObjectKey{Namespace: w.ns, Name: "sfmc-package"}, &corev1.Secret{})
	}
	allow = func() {
		w.Expect(set("create", "get", "list", "update", "watch")).To(Succeed())
		w.Eventually(tried).Should(Succeed())
	}
	w.t.Cleanup(allow)
	w.Expect(set("create", "list", "update", "watch")).To(Succeed())
	w.Eventually(tried).Should(MatchError(apierrors.IsForbidden, "is forbidden"))
	return allow
}

func TestARevocationDuringAFailedReadIsRetried(t *testing.T) {
	w := newWorld(t)
	platform := w.platform()
	grant := w.grant(platform, "emea")
	w.token("journeys", from(platform, "package"), func(t *v1alpha1.SFMCToken) {
		data := map[string]v1alpha1.TemplateText{}
		for i := range 5 {
			data[fmt.Sprint("key-", i)] = v1alpha1.TemplateText(strings.Repeat("x", 4096)) // no cache keeps it whole
		}
		t.Spec.Target = &v1alpha1.Target{Template: &v1alpha1.TargetTemplate{Data: data}}
	})
	w.ready("journeys")
	allow := w.denyReads()
	w.Expect(admin.Delete(w.ctx, grant)).To(Succeed())
	w.says("journeys", valid, "RefreshFailing=True KubernetesAPIError", fine)
	w.Expect(w.alive(w.held("journeys"), unit)).To(BeTrue(), "and that is true")
	w.step(10 * time.Second)
	allow()
	w.travel(time.Minute, time.Second, func() bool { return len(w.secret("journeys").Data) == 0 })
	w.emptied("journeys")
}

func TestAccessThatGoesDuringARequestLeavesNothingInTheTarget(t *testing.T) {
	const accessDenied, notFound = "Stalled=True AccessDenied", "Reconciling=True CredentialsNotFound"
	for what, way := range map[string]struct {
		take func(w *world, platform string, grant *v1alpha1.SFMCAccessGrant)
		says string
	}{
		"the grant": {func(w *world, _ string, grant *v1alpha1.SFMCAccessGrant) {
			w.Expect(admin.Delete(w.ctx, grant)).To(Succeed())
		}, accessDenied},
		"the namespace's label": {func(w *world, _ string, _ *v1alpha1.SFMCAccessGrant) {
			w.label(w.ns, "region", "apac")
		}, accessDenied},
		"the credentials Secret": {func(w *world, platform string, _ *v1alpha1.SFMCAccessGrant) {
			w.deleteCredentials(platform)
		}, notFound},
		"the Secret, replaced under the same name": {func(w *world, platform string, grant *v1alpha1.SFMCAccessGrant) {
			w.deleteCredentials(platform)
			other := w.pkg
			other.ClientID = "client-id-of-a-stranger"
			w.create(harness.CredentialsSecret(platform, "package", w.sfmc, other))
			w.Expect(admin.Delete(w.ctx, grant)).To(Succeed())
		}, accessDenied},
	} {
		t.Run(what, func(t *testing.T) {
			const served = "510009999"
			held := make(chan struct{})
			release := sync.OnceFunc(func() { close(held) })
			w := newWorld(t, func(options *sfmctest.Options) {
				options.OnTokenRequest = func(request sfmctest.TokenRequest) {
					if request.AccountID == unit {
						<-held // the token is issued, and its answer on its way
					}
				}
			})
			defer release()
			w.label(w.ns, "region", "emea")
			platform := w.platform()
			grant := w.grant(platform, "emea", selecting(map[string]string{"region": "emea"}), func(grant *v1alpha1.SFMCAccessGrant) {
				grant.Spec.AccountIDs = []v1alpha1.AccountID{unit, served}
			})
			w.token("served", from(platform, "package"), func(token *v1alpha1.SFMCToken) { token.Spec.AccountID = served })
			w.ready("served")
			changes, err := admin.Watch(w.ctx, &corev1.SecretList{}, client.InNamespace(w.ns))
			w.Expect(err).NotTo(HaveOccurred())
			defer changes.Stop()
			w.token("journeys", from(platform, "package"))
			w.Eventually(w.sfmc.Issued).Should(Equal(2))
			way.take(w, platform, grant)
			w.says("served", unready(way.says), way.says) // so the operator knows
			release()
			w.says("journeys", unready(way.says), way.says)
			w.Expect(w.sfmc.CountFor(w.pkg.ClientID, unit)).To(Equal(1))
			w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "the-last-event"}})
			for e := range changes.ResultChan() {
				secret, ok := e.Object.(*corev1.Secret)
				w.Expect(ok).To(BeTrue())
				if secret.Name == "journeys" {
					w.Expect(secret.Data).NotTo(HaveKey("access_token"))
				}
				if secret.Name == "the-last-event" {
					break
				}
			}
		})
	}
}

func (w *world) deleteCredentials(platform string) {
	w.t.Helper()
	w.Expect(admin.Delete(w.ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: platform, Name: "package"}})).To(Succeed())
}

func TestOnlyThoseWhoAreEntitledShareATokenAcrossNamespaces(t *testing.T) {
	w := newWorld(t)
	platform := w.platform()
	w.grant(platform, "emea")
	w.token("granted", from(platform, "package"))
	w.token("own") // the same package, by credentials of its own namespace
	w.ready("granted")
	w.ready("own")
	w.Expect(w.held("own")).To(Equal(w.held("granted")))
	outsider := w.namespace()
	stranger := harness.Token(outsider, "journeys", "package", unit)
	stranger.Spec.CredentialsSecretRef.Namespace = platform
	w.create(stranger)
	w.Eventually(func() string {
		w.Expect(admin.Get(w.ctx, client.ObjectKeyFromObject(stranger), stranger)).To(Succeed())
		return condition(stranger, "Stalled")
	}).Should(Equal("Stalled=True AccessDenied"))
	w.Expect(admin.Get(w.ctx, client.ObjectKeyFromObject(stranger), &corev1.Secret{})).NotTo(Succeed())
	w.Expect(w.sfmc.Count()).To(Equal(1))
}

func TestAReferenceThatIsNoLongerGrantedIsGivenUpUnderItsFormerNameToo(t *testing.T) {
	w := newWorld(t)
	platform := w.platform()
	grant := w.grant(platform, "emea")
	w.token("journeys", from(platform, "package"))
	w.ready("journeys")
	w.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "taken"}})
	change(w, w.get("journeys"), func(token *v1alpha1.SFMCToken) { token.Spec.Target = &v1alpha1.Target{Name: "taken"} })
	w.says("journeys", "Ready=False TargetConflict", "Stalled=True TargetConflict")
	w.Expect(w.held("journeys")).NotTo(BeEmpty(), "the former Secret keeps it while the new one can't be written")
	w.Expect(admin.Delete(w.ctx, grant)).To(Succeed())
	w.says("journeys", denied...)
	w.Expect(w.held("journeys")).To(BeEmpty())
}

func TestAGrantSaysHowManyUseItAndWhatIsWrongWithIt(t *testing.T) {
	w := newWorld(t)
	platform := w.platform()
	w.label(w.ns, "region", "emea")
	grant := w.grant(platform, "emea", selecting(map[string]string{"region": "emea"}))
	w.Expect(grant.Status.ObservedGeneration).To(Equal(int64(-1)), "before anybody looked at it")
	reads := func(ready string, tokens int32) {
		t.Helper()
		w.Eventually(func(g Gomega) {
			if w.running.Idle() {
				w.clock.Step(time.Second) // a grant waits for further changes
			}
			g.Expect(admin.Get(w.ctx, client.ObjectKeyFromObject(grant), grant)).To(Succeed())
			g.Expect(grant.Status.ObservedGeneration).To(Equal(grant.Generation))
			found := meta.FindStatusCondition(grant.Status.Conditions, "Ready")
			g.Expect(found).NotTo(BeNil())
			g.Expect(string(found.Status) + " " + found.Reason).To(Equal(ready))
			g.Expect(grant.Status.Tokens).To(HaveValue(Equal(tokens)))
			g.Expect(meta.FindStatusCondition(grant.Status.Conditions, "Stalled") != nil).To(Equal(found.Status != metav1.ConditionTrue))
		}).Should(Succeed())
	}
	reads("True InForce", 0)
	for i := range 3 {
		w.token(fmt.Sprintf("journeys-%d", i), from(platform, "package"))
	}
	w.token("another-unit", from(platform, "package"), func(token *v1alpha1.SFMCToken) { token.Spec.AccountID = "510009999" })
	reads("True InForce", 3)
	w.Expect(admin.Delete(w.ctx, w.get("journeys-0"))).To(Succeed())
	reads("True InForce", 2)
	w.label(w.ns, "region", "apac")
	reads("True InForce", 0)
	change(w, grant, func(g *v1alpha1.SFMCAccessGrant) {
		g.Spec.From = append(g.Spec.From, v1alpha1.AccessGrantFrom{Namespace: w.ns}, v1alpha1.AccessGrantFrom{NamespaceSelector: &metav1.LabelSelector{
			MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "region", Operator: "Like"}}}})
	})
	reads("False SelectorInvalid", 2)
	w.Expect(meta.FindStatusCondition(grant.Status.Conditions, "Stalled").Message).To(ContainSubstring(`from[2].namespaceSelector grants nothing: "Like" is not a valid label selector operator`))
}
