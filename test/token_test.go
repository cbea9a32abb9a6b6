package test

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gstruct"
	"github.com/onsi/gomega/types"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

func TestASecretWithAValidTokenAppears(t *testing.T) {
	w := newWorld(t)
	token := w.token("journeys", func(token *v1alpha1.SFMCToken) {
		token.Spec.Scopes = []v1alpha1.Scope{"journeys_read", "email_read", "not_in_the_package"}
		token.Spec.Target = &v1alpha1.Target{Template: &v1alpha1.TargetTemplate{Metadata: v1alpha1.TargetMetadata{
			Labels:      map[string]v1alpha1.LabelValue{"team": "emea"},
			Annotations: map[string]v1alpha1.AnnotationValue{"example.com/contact": "emea@example.com"},
		}}}
	})
	seen := w.ready("journeys")

	secret := w.secret("journeys")
	w.Expect(secret.Type).To(Equal(corev1.SecretTypeOpaque))
	w.Expect(secret.Labels).To(Equal(map[string]string{"team": "emea", "app.kubernetes.io/managed-by": "sfmctoken-operator",
		"sfmctoken.dev/owner-uid": string(token.UID)}))
	w.Expect(secret.Annotations).To(HaveKeyWithValue("example.com/contact", "emea@example.com"))
	w.Expect(secret.OwnerReferences).To(ConsistOf(metav1.OwnerReference{
		APIVersion: "sfmctoken.dev/v1alpha1", Kind: "SFMCToken", Name: "journeys", UID: token.UID, Controller: ptr.To(true),
	}))
	w.Expect(seen.Finalizers).To(BeEmpty())
	expires := w.clock.Now().Add(1079 * time.Second).UTC().Format(time.RFC3339)
	text := func(s string) types.GomegaMatcher {
		return WithTransform(func(b []byte) string { return string(b) }, Equal(s))
	}
	w.Expect(secret.Data).To(gstruct.MatchAllKeys(gstruct.Keys{
		"access_token":      HaveLen(512),
		"token_type":        text("Bearer"),
		"expires_at":        text(expires),
		"account_id":        text("510004567"),
		"scope":             text(string(secret.Data["scope"])),
		"rest_instance_url": text(w.sfmc.URL()),
		"soap_instance_url": text(w.sfmc.URL()),
	}))
	w.Expect(strings.Fields(string(secret.Data["scope"]))).To(ConsistOf("email_read", "journeys_read"))
	w.Expect(w.alive(string(secret.Data["access_token"]), "510004567")).To(BeTrue(), "the token acts in the business unit of the spec")

	w.Expect(seen.Status.ExpiresAt.UTC().Format(time.RFC3339)).To(Equal(expires))
	w.Expect(seen.Status.LastRefreshAt.Time).To(BeTemporally("==", w.clock.Now()))
	w.Expect(seen.Status.RefreshAt.Sub(w.clock.Now())).To(BeNumerically("~", 752*time.Second, 27*time.Second))
	w.Expect(seen.Status.TargetSecretName).To(Equal("journeys"))
	w.Expect(seen.Status.AccountID).To(Equal("510004567"))
	w.Expect(seen.Status.GrantedScopes).To(ConsistOf("email_read", "journeys_read"))
	w.Expect(seen.Status.RESTInstanceURL).To(Equal(w.sfmc.URL()))
	w.Expect(w.sfmc.Requests()).To(HaveLen(1))
	w.Expect(w.sfmc.Requests()[0].Scope).To(Equal("journeys_read email_read not_in_the_package"))
}

func TestWithoutAnAccountOrScopesThePackagesOwnAreUsed(t *testing.T) {
	w := newWorld(t)
	w.token("journeys", func(token *v1alpha1.SFMCToken) { token.Spec.AccountID = "" })
	seen := w.ready("journeys")
	secret := w.secret("journeys")
	w.Expect(secret.Data).NotTo(HaveKey("account_id"))
	w.Expect(w.alive(string(secret.Data["access_token"]), w.pkg.AccountID)).To(BeTrue())
	w.Expect(seen.Status.GrantedScopes).To(ConsistOf(w.pkg.Scopes))
	w.Expect(w.sfmc.Requests()[0].ScopeSent).To(BeFalse(), "an empty scope would ask for no permission")
}

func TestATokenIsReplacedBeforeItExpiresWithoutAGap(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	first := w.ready("journeys")
	old := w.held("journeys")
	for range 5 {
		due := first.Status.RefreshAt.Time
		w.setTime(due.Add(-2 * time.Second))
		w.Consistently(func() string { return w.held("journeys") }, 200*time.Millisecond).Should(Equal(old), "not before its time")
		w.travel(4*time.Second, time.Second, func() bool { return w.held("journeys") != old })
		w.Expect(w.alive(old, "510004567")).To(BeTrue(), "the old token was replaced while it was alive")
		old = w.held("journeys")
		w.Expect(w.alive(old, "510004567")).To(BeTrue())
		w.Eventually(func() *metav1.Time { return w.get("journeys").Status.RefreshAt }).ShouldNot(Equal(first.Status.RefreshAt))
		first = w.ready("journeys")
	}
	w.Expect(w.sfmc.Count()).To(Equal(6))
}

func TestAShrinkingLifeNeverLetsATokenExpire(t *testing.T) {
	w := newWorld(t)
	w.sfmc.ChangeMode(func(mode *sfmctest.Mode) { mode.Life = time.Hour }) // the operator goes by what is reported
	w.token("journeys")
	w.ready("journeys")
	for i, life := range []time.Duration{60 * time.Second, 1079 * time.Second, 45 * time.Second, 1079 * time.Second} {
		w.sfmc.ChangeMode(func(mode *sfmctest.Mode) { mode.ExpiresIn = life })
		expires := w.get("journeys").Status.ExpiresAt.Time
		w.travel(20*time.Minute, 5*time.Second, func() bool { return w.sfmc.Count() > i+1 })
		w.Expect(w.clock.Now()).To(BeTemporally("<", expires))
		w.Eventually(func() time.Time { return w.get("journeys").Status.ExpiresAt.Time }).ShouldNot(Equal(expires))
		w.ready("journeys")
	}
}

func TestARestartAsksForNothing(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"journeys", "email", "data"} {
		w.token(name)
		w.ready(name)
	}
	asked := w.sfmc.Count()
	held := w.held("journeys")
	w.stopOperator()
	w.startOperator()
	// The restarted operator has looked at everything once it has served something new.
	w.token("marker", func(token *v1alpha1.SFMCToken) { token.Spec.AccountID = "510009999" })
	w.ready("marker")
	w.Expect(w.sfmc.CountFor(w.pkg.ClientID, "510004567")).To(Equal(asked))
	w.Expect(w.held("journeys")).To(Equal(held))
}

func TestARefreshRequestBringsANewTokenOnce(t *testing.T) {
	w := newWorld(t)
	token := w.token("journeys")
	w.ready("journeys")
	old := w.held("journeys")
	change(w, token, func(token *v1alpha1.SFMCToken) {
		token.Annotations = map[string]string{v1alpha1.RefreshRequestedAtAnnotation: "2026-11-24T10:00:00Z"}
	})
	w.Eventually(func() string { return w.get("journeys").Status.LastHandledRefreshRequest }).Should(Equal("2026-11-24T10:00:00Z"))
	w.Expect(w.held("journeys")).NotTo(Equal(old))
	w.Expect(w.sfmc.Count()).To(Equal(2))

	w.stopOperator()
	w.startOperator()
	change(w, token, func(token *v1alpha1.SFMCToken) { token.Labels = map[string]string{"unrelated": "change"} })
	w.token("marker", func(token *v1alpha1.SFMCToken) { token.Spec.AccountID = "510009999" })
	w.ready("marker")
	w.Expect(w.sfmc.CountFor(w.pkg.ClientID, "510004567")).To(Equal(2), "a handled request is not handled again")
}

func TestASuspendedTokenIsNotAskedForAndRunsOut(t *testing.T) {
	w := newWorld(t)
	token := w.token("journeys")
	w.ready("journeys")
	change(w, token, func(token *v1alpha1.SFMCToken) { token.Spec.Suspend = true })
	w.says("journeys", valid, "Suspended=True Suspended", fine)
	w.step(1078 * time.Second)
	w.says("journeys", valid)
	w.travel(2*time.Second, time.Second, func() bool { return condition(w.get("journeys"), "Ready") == "Ready=False Suspended" })
	w.Expect(w.held("journeys")).NotTo(BeEmpty(), "an expired token is not removed")
	w.Expect(w.sfmc.Count()).To(Equal(1))

	change(w, token, func(token *v1alpha1.SFMCToken) { token.Spec.Suspend = false })
	w.ready("journeys")
	w.Expect(w.sfmc.Count()).To(Equal(2))
}
