package status

import (
	"errors"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
)

// expiring are notes of credentials whose client secret expires then.
func expiring(at string) target.Notes {
	return target.Notes{
		Credentials: "marketing/sfmc-package/uid/42", ClientSecretKey: "client_secret", ClientSecretExpiresAt: at,
	}
}

func TestAnExpiringClientSecretIsSaidFrom30DaysBefore(t *testing.T) {
	g := NewWithT(t)
	obj, held := anSFMCToken(), aToken()
	at := noon.AddDate(0, 0, 30)
	look := func(notes target.Notes, now time.Time) *metav1.Condition {
		Report(obj, Result{Token: held, Notes: notes}, 0, now)
		g.Expect(obj.Status.ClientSecretKey).To(Equal(notes.ClientSecretKey))
		return conditionOf(obj, "CredentialsExpiring")
	}
	dated := expiring(at.Format(time.RFC3339))
	g.Expect(look(dated, noon.Add(-1))).To(BeNil())
	g.Expect(obj.Status.ClientSecretExpiresAt.UTC()).To(Equal(at))
	g.Expect(look(dated, noon)).To(And(be(metav1.ConditionTrue, "Expiring"), HaveValue(HaveField("Message",
		HavePrefix("the client secret in Secret sfmc-package expires on 2026-03-31: ")))))
	g.Expect(look(dated, at.Add(-1))).To(be(metav1.ConditionTrue, "Expiring"))
	g.Expect(look(dated, at)).To(be(metav1.ConditionTrue, "Expired"))
	g.Expect(look(target.Notes{}, at)).To(be(metav1.ConditionTrue, "Expired"), "they haven't been read")
	g.Expect(obj.Status.ClientSecretExpiresAt.UTC()).To(Equal(at))
	g.Expect(look(expiring("unreadable"), at)).To(be(metav1.ConditionUnknown, "DateUnreadable"))
	g.Expect(obj.Status.ClientSecretExpiresAt).To(BeNil())
	g.Expect(look(expiring(""), at)).To(BeNil())
}

func TestNothingStaysInTheStatusOfCredentialsThatMayNotBeUsed(t *testing.T) {
	g := NewWithT(t)
	obj := anSFMCToken()
	denied := problem.New(v1alpha1.ReasonAccessDenied, errors.New("not granted"))
	denied.Revokes = true
	for _, notes := range []target.Notes{{}, expiring("2026-03-02T00:00:00Z")} {
		Report(obj, Result{Token: aToken(), Notes: expiring("2026-03-02T00:00:00Z")}, 0, noon)
		g.Expect(conditionOf(obj, "CredentialsExpiring")).NotTo(BeNil())
		Report(obj, Result{Notes: notes, Err: denied}, 0, noon)
		g.Expect(conditionOf(obj, "CredentialsExpiring")).To(BeNil())
		g.Expect(obj.Status.ClientSecretExpiresAt).To(BeNil())
		g.Expect(obj.Status.ClientSecretKey).To(BeEmpty())
	}
}
