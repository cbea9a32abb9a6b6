package test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

func TestADeletedTargetComesBackWithoutAnotherRequest(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	w.ready("journeys")
	old := w.secret("journeys")
	for range 3 {
		w.Expect(admin.Delete(w.ctx, w.secret("journeys"))).To(Succeed())
		w.Eventually(func() string { return w.held("journeys") }).Should(Equal(string(old.Data["access_token"])))
	}
	w.ready("journeys")
	w.Expect(w.sfmc.Count()).To(Equal(1))
}

func TestATargetDeletedWhileTheOperatorIsDownCostsOneRequest(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	w.ready("journeys")
	w.stopOperator()
	w.Expect(admin.Delete(w.ctx, w.secret("journeys"))).To(Succeed())
	w.startOperator()
	w.Eventually(func() bool { return w.alive(w.held("journeys"), "510004567") }).Should(BeTrue())
	w.ready("journeys")
	w.Expect(w.sfmc.Count()).To(Equal(2))
}

func TestATargetEditedByHandIsPutRight(t *testing.T) {
	for what, edit := range map[string]func(*corev1.Secret){
		"the token":                func(s *corev1.Secret) { s.Data["access_token"] = []byte("garbage") },
		"a key removed":            func(s *corev1.Secret) { delete(s.Data, "rest_instance_url") },
		"a key added":              func(s *corev1.Secret) { s.Data["extra"] = []byte("x") },
		"all data removed":         func(s *corev1.Secret) { s.Data = nil },
		"the owner removed":        func(s *corev1.Secret) { s.OwnerReferences = nil },
		"the template's label":     func(s *corev1.Secret) { s.Labels["team"] = "apac" },
		"the operator's label":     func(s *corev1.Secret) { delete(s.Labels, "app.kubernetes.io/managed-by") },
		"the record removed":       func(s *corev1.Secret) { delete(s.Annotations, "sfmctoken.dev/issued") },
		"the record made nonsense": func(s *corev1.Secret) { s.Annotations["sfmctoken.dev/issued"] = "{" },
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			w.token("journeys", func(token *v1alpha1.SFMCToken) {
				token.Spec.Target = &v1alpha1.Target{Template: &v1alpha1.TargetTemplate{Metadata: v1alpha1.TargetMetadata{
					Labels: map[string]v1alpha1.LabelValue{"team": "emea"},
				}}}
			})
			w.ready("journeys")
			was := w.secret("journeys")
			change(w, w.secret("journeys"), edit)
			w.Eventually(func(g Gomega) {
				is := w.secret("journeys")
				g.Expect(is.Data).To(Equal(was.Data))
				g.Expect(is.Labels).To(Equal(was.Labels))
				g.Expect(is.OwnerReferences).To(Equal(was.OwnerReferences))
				g.Expect(is.Annotations).To(Equal(was.Annotations))
			}).Should(Succeed())
			w.ready("journeys")
			w.Expect(w.sfmc.Count()).To(Equal(1))
			after := w.secret("journeys").ResourceVersion
			w.Consistently(func() string { return w.secret("journeys").ResourceVersion }, 300*time.Millisecond).Should(Equal(after), "no loop")
		})
	}
}

func TestWhatOthersAddToTheTargetsMetadataStays(t *testing.T) {
	w := newWorld(t)
	template := func(labels map[string]v1alpha1.LabelValue) func(*v1alpha1.SFMCToken) {
		return func(token *v1alpha1.SFMCToken) {
			token.Spec.Target = &v1alpha1.Target{Template: &v1alpha1.TargetTemplate{Metadata: v1alpha1.TargetMetadata{Labels: labels}}}
		}
	}
	token := w.token("journeys", template(map[string]v1alpha1.LabelValue{"team": "emea", "tier": "gold"}))
	w.ready("journeys")
	change(w, w.secret("journeys"), func(s *corev1.Secret) { s.Annotations["reloader"] = "on"; s.Labels["cost"] = "42" })
	change(w, token, template(map[string]v1alpha1.LabelValue{"team": "apac"}))
	w.Eventually(func() map[string]string { return w.secret("journeys").Labels }).Should(Equal(map[string]string{
		"team": "apac", "cost": "42", "app.kubernetes.io/managed-by": "sfmctoken-operator", "sfmctoken.dev/owner-uid": string(token.UID),
	}))
	w.Expect(w.secret("journeys").Annotations).To(HaveKeyWithValue("reloader", "on"))
	w.Expect(w.sfmc.Count()).To(Equal(1))
}

func TestASecretThatIsNotOursIsUntouchedUntilItGoes(t *testing.T) {
	w := newWorld(t)
	foreign := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "journeys"},
		StringData: map[string]string{"access_token": "somebody's own"},
	}
	w.create(foreign)
	w.token("journeys")
	w.says("journeys", "Ready=False TargetConflict", "Stalled=True TargetConflict", "Reconciling absent")
	w.step(time.Hour)
	w.says("journeys", "Ready=False TargetConflict", "Stalled=True TargetConflict", "Reconciling absent")
	w.Expect(w.secret("journeys").ResourceVersion).To(Equal(foreign.ResourceVersion))
	w.Expect(w.sfmc.Count()).To(BeZero(), "no token is asked for that can't be stored")

	w.Expect(admin.Delete(w.ctx, foreign)).To(Succeed())
	w.ready("journeys")
}

func TestOfTwoWithOneTargetTheHolderKeepsItAndTheOtherRecovers(t *testing.T) {
	w := newWorld(t)
	shared := func(token *v1alpha1.SFMCToken) { token.Spec.Target = &v1alpha1.Target{Name: "shared"} }
	holder := w.token("holder", shared)
	w.ready("holder")
	w.token("other", shared, func(token *v1alpha1.SFMCToken) { token.Spec.AccountID = "510009999" })
	w.says("other", "Ready=False TargetConflict", "Stalled=True TargetConflict")
	w.Expect(w.get("other").Status.Conditions).To(ContainElement(HaveField("Message", ContainSubstring("SFMCToken holder"))))
	// Through several refreshes there is one writer.
	for range 3 {
		was := w.held("shared")
		w.travel(20*time.Minute, time.Minute, func() bool { return w.held("shared") != was })
	}
	w.Expect(w.alive(w.held("shared"), "510004567")).To(BeTrue())
	w.Expect(w.sfmc.CountFor(w.pkg.ClientID, "510009999")).To(BeZero())

	w.Expect(admin.Delete(w.ctx, holder)).To(Succeed())
	w.ready("other") // the garbage collector has deleted the holder's Secret
	w.Expect(w.alive(w.held("shared"), "510009999")).To(BeTrue())
}

func TestTheTargetIsDeletedWithItsSFMCToken(t *testing.T) {
	w := newWorld(t)
	token := w.token("journeys")
	w.ready("journeys")
	w.Expect(admin.Delete(w.ctx, token)).To(Succeed())
	w.Eventually(func() *corev1.Secret { return w.secret("journeys") }).Should(BeNil())
}

func TestARetainedTargetStaysAndComesBackToTheSameName(t *testing.T) {
	w := newWorld(t)
	retain := func(token *v1alpha1.SFMCToken) {
		token.Spec.Target = &v1alpha1.Target{DeletionPolicy: v1alpha1.DeletionPolicyRetain}
	}
	token := w.token("journeys", retain)
	w.ready("journeys")
	w.Expect(w.secret("journeys").OwnerReferences).To(BeEmpty())
	was := w.secret("journeys")
	w.Expect(admin.Delete(w.ctx, token)).To(Succeed())

	// Another name doesn't get it.
	w.token("thief", func(token *v1alpha1.SFMCToken) { token.Spec.Target = &v1alpha1.Target{Name: "journeys"} })
	w.says("thief", "Stalled=True TargetConflict")
	w.Expect(w.secret("journeys").UID).To(Equal(was.UID))

	w.token("journeys", retain)
	w.ready("journeys")
	w.Expect(w.secret("journeys").UID).To(Equal(was.UID))
	w.Expect(w.held("journeys")).To(Equal(string(was.Data["access_token"])))
	w.Expect(w.sfmc.Count()).To(Equal(1))
}

func TestARenamedTargetIsWrittenBeforeTheOldOneGoes(t *testing.T) {
	w := newWorld(t)
	token := w.token("journeys")
	w.ready("journeys")
	events, err := admin.Watch(w.ctx, &corev1.SecretList{}, client.InNamespace(w.ns))
	w.Expect(err).NotTo(HaveOccurred())
	defer events.Stop()
	change(w, token, func(token *v1alpha1.SFMCToken) { token.Spec.Target = &v1alpha1.Target{Name: "renamed"} })
	var order []string
	w.Eventually(func() []string {
		select {
		case e := <-events.ResultChan():
			secret := e.Object.(*corev1.Secret)
			if secret.Name != "sfmc-package" {
				order = append(order, string(e.Type)+" "+secret.Name)
			}
		default:
		}
		return order
	}).Should(ContainElement("DELETED journeys"))
	w.Expect(order).To(Equal([]string{"ADDED journeys", "ADDED renamed", "MODIFIED journeys", "DELETED journeys"}))
	w.Eventually(func() string { return w.get("journeys").Status.TargetSecretName }).Should(Equal("renamed"))
	w.ready("journeys")
	w.Expect(w.sfmc.Count()).To(Equal(1))
}

func TestARetainedTargetGoesTooWhenItIsRenamed(t *testing.T) {
	w := newWorld(t)
	token := w.token("journeys", func(token *v1alpha1.SFMCToken) {
		token.Spec.Target = &v1alpha1.Target{DeletionPolicy: v1alpha1.DeletionPolicyRetain}
	})
	w.ready("journeys")
	change(w, token, func(token *v1alpha1.SFMCToken) { token.Spec.Target.Name = "renamed" })
	w.Eventually(func() *corev1.Secret { return w.secret("journeys") }).Should(BeNil())
	w.Eventually(func() string { return w.get("journeys").Status.TargetSecretName }).Should(Equal("renamed"))
	w.Expect(w.secret("renamed").OwnerReferences).To(BeEmpty())
	w.Expect(w.sfmc.Count()).To(Equal(1))
}

func TestAnotherBusinessUnitNeverLeavesTheOldTokenInTheTarget(t *testing.T) {
	w := newWorld(t)
	token := w.token("journeys")
	w.ready("journeys")
	// It can be served: the token changes.
	change(w, token, func(token *v1alpha1.SFMCToken) { token.Spec.AccountID = "510009999" })
	w.Eventually(func() bool { return w.alive(w.held("journeys"), "510009999") }).Should(BeTrue())
	w.ready("journeys")
	// It can't: the old token is taken out.
	change(w, token, func(token *v1alpha1.SFMCToken) { token.Spec.AccountID = "999" })
	w.says("journeys", "Ready=False RequestRefused", "Stalled=True RequestRefused")
	w.Expect(w.secret("journeys").Data).To(BeEmpty())
	change(w, token, func(token *v1alpha1.SFMCToken) { token.Spec.AccountID = "510004567" })
	w.ready("journeys")
}

func TestAnotherClientOrTenantNeverLeavesTheOldTokenInTheTarget(t *testing.T) {
	w := newWorld(t)
	token := w.token("journeys")
	w.ready("journeys")
	credentials := w.secret("sfmc-package")
	change(w, credentials, func(s *corev1.Secret) { s.Data["client_id"] = []byte("another-client") })
	w.says("journeys", "Ready=False RequestRefused", "Stalled=True RequestRefused")
	w.Expect(w.secret("journeys").Data).To(BeEmpty())
	change(w, credentials, func(s *corev1.Secret) { s.Data["client_id"] = []byte(w.pkg.ClientID) })
	w.ready("journeys")

	change(w, token, func(token *v1alpha1.SFMCToken) { token.Spec.CredentialsSecretRef.Name = "not-there" })
	w.says("journeys", "Ready=False CredentialsNotFound", "Reconciling=True CredentialsNotFound")
	w.Expect(w.secret("journeys").Data).To(BeEmpty())
}

func TestAfterAChangeOfScopesTheOldTokenStaysUntilReplaced(t *testing.T) {
	w := newWorld(t)
	token := w.token("journeys")
	w.ready("journeys")
	old := w.held("journeys")
	w.sfmc.AddFaults(sfmctest.Fault{Refusal: sfmctest.InternalError, Times: sfmctest.Forever})
	change(w, token, func(token *v1alpha1.SFMCToken) { token.Spec.Scopes = []v1alpha1.Scope{"email_read"} })
	w.says("journeys", "Ready=False EndpointUnavailable", "Reconciling=True EndpointUnavailable")
	w.Expect(w.held("journeys")).To(Equal(old))
	w.sfmc.ClearFaults()
	w.travel(2*time.Minute, time.Second, func() bool { return w.held("journeys") != old })
	w.Eventually(func() []string { return w.get("journeys").Status.GrantedScopes }).Should(ConsistOf("email_read"))
	w.ready("journeys")
}

func TestNamespacesWithTokensAreDeletedWithoutWaitingForTheOperator(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"a", "b", "c"} {
		w.token(name)
		w.ready(name)
	}
	w.stopOperator() // a finalizer would need it
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: w.ns}}
	w.Expect(admin.Delete(w.ctx, namespace)).To(Succeed())
	w.Eventually(func() error {
		return client.IgnoreNotFound(admin.Get(w.ctx, client.ObjectKeyFromObject(namespace), namespace))
	}).Should(Succeed())
	w.Eventually(func() *corev1.Secret { return w.secret("a") }).Should(BeNil())
	w.startOperator()
}

func TestATargetThatIsTheCredentialsSecretIsRefusedAndNobodyIsToldToDeleteThat(t *testing.T) {
	w := newWorld(t)
	before := w.secret("sfmc-package")
	w.token("journeys", aimAt("sfmc-package", ""), func(token *v1alpha1.SFMCToken) {
		token.Spec.CredentialsSecretRef.Namespace = w.ns // the CRD can't see that it is its own
	})
	w.says("journeys", "Ready=False TargetConflict", "Stalled=True TargetConflict")
	w.Expect(w.message("journeys")).To(ContainSubstring("is the credentials Secret itself, which is left untouched: set spec.target.name to another name"))
	w.Expect(w.secret("sfmc-package")).To(Equal(before))
	w.Expect(w.sfmc.Count()).To(BeZero())
}

func TestTheTargetOfAnEarlierNameIsReleasedWhateverHappensInBetween(t *testing.T) {
	for what, between := range map[string]func(w *world, token *v1alpha1.SFMCToken){
		"suspended, and resumed": func(w *world, token *v1alpha1.SFMCToken) {
			change(w, token, func(t *v1alpha1.SFMCToken) { t.Spec.Suspend = true; t.Spec.Target.Name = "after" })
			w.says("journeys", "Suspended=True Suspended")
			change(w, token, func(t *v1alpha1.SFMCToken) { t.Spec.Suspend = false })
		},
		"the operator is down": func(w *world, token *v1alpha1.SFMCToken) {
			w.stopOperator()
			change(w, token, func(t *v1alpha1.SFMCToken) { t.Spec.Target.Name = "after" })
			w.startOperator()
		},
		"its label is lost meanwhile": func(w *world, token *v1alpha1.SFMCToken) {
			w.stopOperator()
			change(w, w.secret("before"), func(s *corev1.Secret) { s.Labels = nil })
			change(w, token, func(t *v1alpha1.SFMCToken) { t.Spec.Target.Name = "after" })
			w.startOperator()
		},
		"the new name is somebody's for a while": func(w *world, token *v1alpha1.SFMCToken) {
			foreign := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "after"}}
			w.create(foreign)
			change(w, token, func(t *v1alpha1.SFMCToken) { t.Spec.Target.Name = "after" })
			w.says("journeys", "Stalled=True TargetConflict")
			w.Expect(admin.Delete(w.ctx, foreign)).To(Succeed())
		},
	} {
		for _, policy := range policies {
			t.Run(what+", "+string(policy), func(t *testing.T) {
				w := newWorld(t)
				token := w.token("journeys", aimAt("before", policy))
				w.ready("journeys")
				between(w, token)
				w.Eventually(func() bool { return w.alive(w.held("after"), unit) }).Should(BeTrue())
				w.Eventually(func() *corev1.Secret { return w.secret("before") }).Should(BeNil())
				w.ready("journeys")
			})
		}
	}
}

// askFor asks for a new token, as a person does.
func (w *world) askFor(token *v1alpha1.SFMCToken, request string) {
	w.t.Helper()
	change(w, token, func(t *v1alpha1.SFMCToken) {
		t.Annotations = map[string]string{v1alpha1.RefreshRequestedAtAnnotation: request}
	})
}

func (w *world) handles(name, request string) {
	w.t.Helper()
	w.Eventually(func() string { return w.get(name).Status.LastHandledRefreshRequest }).Should(Equal(request))
}

func TestARefreshRequestIsAnsweredByANewTokenWhateverChangesInTheSameBreath(t *testing.T) {
	credentials := func(edit func(*corev1.Secret)) func(*world) {
		return func(w *world) { change(w, w.secret("sfmc-package"), edit) }
	}
	for what, breath := range map[string]func(*world){
		"the target is deleted": func(w *world) { w.Expect(admin.Delete(w.ctx, w.secret("journeys"))).To(Succeed()) },
		"the target is emptied": func(w *world) { change(w, w.secret("journeys"), func(s *corev1.Secret) { s.Data = nil }) },
		"a key is added to the credentials": credentials(func(s *corev1.Secret) {
			s.Data["client_secret_expires_at"] = []byte("2999-12-31")
		}),
		"the credentials have another version": credentials(func(s *corev1.Secret) {
			s.Annotations = map[string]string{"a": "b"}
		}),
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			token := w.token("journeys")
			w.ready("journeys")
			old := w.held("journeys")
			w.step(time.Minute)
			breath(w)
			w.askFor(token, "now")
			w.handles("journeys", "now")
			w.Expect(w.held("journeys")).NotTo(Equal(old))
			w.Expect(w.sfmc.Count()).To(Equal(2))

			// One that was handled isn't answered again, whatever becomes of the Secret.
			w.Expect(admin.Delete(w.ctx, w.secret("journeys"))).To(Succeed())
			w.Eventually(func() string { return w.held("journeys") }).ShouldNot(BeEmpty())
			w.ready("journeys")
			w.Expect(w.sfmc.Count()).To(Equal(2))
		})
	}
}

func TestARefreshRequestIsNotAnsweredByATokenThatWasAskedForBeforeIt(t *testing.T) {
	var isHeld atomic.Bool
	held := make(chan struct{})
	w := newWorld(t, func(options *sfmctest.Options) {
		options.OnTokenRequest = func(request sfmctest.TokenRequest) {
			if isHeld.Load() && request.AccountID == unit {
				<-held // the token is issued, and its answer on its way
			}
		}
	})
	release := sync.OnceFunc(func() { close(held) })
	defer release()
	token := w.token("journeys")
	other := w.token("other", func(t *v1alpha1.SFMCToken) { t.Spec.AccountID = w.pkg.AccountIDs[2] })
	w.ready("other")
	refresh := w.ready("journeys").Status.RefreshAt.Time
	isHeld.Store(true)
	w.setTime(refresh.Add(time.Second))
	w.Eventually(func() int { return w.sfmc.CountFor(w.pkg.ClientID, unit) }).Should(Equal(2))
	w.clock.Step(time.Second)
	w.askFor(token, "now")
	w.askFor(other, "now")
	w.handles("other", "now") // so the operator knows
	isHeld.Store(false)
	release()
	w.handles("journeys", "now")
	w.Expect(w.sfmc.CountFor(w.pkg.ClientID, unit)).To(Equal(3))
	w.ready("journeys")
}
