package controller

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

// expiryWarning is how long before a client secret's expiry a person is told.
const expiryWarning = 30 * 24 * time.Hour

// reportCredentials writes into the status which client secret is in use and when it expires, as far as the
// credentials Secret says so.
func reportCredentials(obj *v1alpha1.SFMCToken, held *issued, known notes, now time.Time) {
	status := &obj.Status
	status.ClientSecretKey = ""
	if held != nil {
		status.ClientSecretKey = known.ClientSecretKey
	}
	if known.Credentials == "" {
		return // they haven't been read
	}
	status.ClientSecretExpiresAt = nil
	expiring := metav1.Condition{Type: v1alpha1.ConditionCredentialsExpiring, Status: metav1.ConditionTrue}
	name := known.credentialsSecret().Name
	switch at, err := time.Parse(time.RFC3339, known.ClientSecretExpiresAt); {
	case known.ClientSecretExpiresAt == "":
		meta.RemoveStatusCondition(&status.Conditions, expiring.Type)
		return
	case err != nil:
		expiring.Status, expiring.Reason = metav1.ConditionUnknown, v1alpha1.ReasonDateUnreadable
		expiring.Message = fmt.Sprintf("client_secret_expires_at in Secret %s is neither a date such as 2027-03-31 nor a time such as 2027-03-31T12:00:00Z", name)
	default:
		status.ClientSecretExpiresAt = &metav1.Time{Time: at}
		if now.Before(at.Add(-expiryWarning)) {
			meta.RemoveStatusCondition(&status.Conditions, expiring.Type)
			return
		}
		expiring.Reason = v1alpha1.ReasonExpiring
		expiring.Message = fmt.Sprintf("the client secret in Secret %s expires on %s: stage a new one in Setup > Installed Packages and add it as client_secret_staged", name, at.Format(time.DateOnly))
		if !now.Before(at) {
			expiring.Reason = v1alpha1.ReasonExpired
			expiring.Message = fmt.Sprintf("the client secret in Secret %s expired on %s, by what client_secret_expires_at says: make a new one in Setup > Installed Packages", name, at.Format(time.DateOnly))
		}
	}
	setCondition(obj, expiring, now)
}

// forgetCredentials takes out of the status what it says of credentials that may not be used any more.
func forgetCredentials(obj *v1alpha1.SFMCToken) {
	obj.Status.ClientSecretExpiresAt = nil
	meta.RemoveStatusCondition(&obj.Status.Conditions, v1alpha1.ConditionCredentialsExpiring)
}

// explain adds to a refusal that the client secret has expired, if the credentials Secret says so.
func (c credentials) explain(err error, now time.Time) error {
	if err == nil {
		return nil
	}
	at, parseErr := time.Parse(time.RFC3339, c.expiresAt)
	if parseErr == nil && !now.Before(at) && sfmc.KindOf(err) == sfmc.Refused {
		return fmt.Errorf("%w; client_secret_expires_at says that the secret expired on %s", err, at.Format(time.DateOnly))
	}
	return err
}
