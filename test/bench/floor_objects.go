package main

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
)

// composeSecret makes a Secret as large as the operator's, annotation included.
func composeSecret(token *floorToken, got answer, at time.Time) *corev1.Secret {
	expires := at.Add(time.Duration(got.ExpiresIn) * time.Second).UTC()
	digest := strings.Repeat("0", 64)
	note := fmt.Sprintf(`{"owner":%q,"identity":%q,"authHost":"127.0.0.1:12345","clientIDHash":%q,"accountID":%q,"issuedAt":%q,"expiresAt":%q,"proof":%q,"credentials":"%s/%s/1234","seal":%q}`,
		token.Name, digest, digest, token.Spec.AccountID, at.UTC().Format(time.RFC3339Nano), expires.Format(time.RFC3339Nano), digest, credentialsName, token.UID, digest)
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:   token.Namespace,
			Name:        token.Name,
			Labels:      map[string]string{target.ManagedByLabel: target.ManagedByValue},
			Annotations: map[string]string{"sfmctoken.dev/issued": note},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: v1alpha1.GroupVersion.String(), Kind: "SFMCToken", Name: token.Name, UID: token.UID, Controller: ptr.To(true),
			}},
		},
		Type: corev1.SecretTypeOpaque,
		Data: map[string][]byte{
			"access_token":      []byte(got.AccessToken),
			"token_type":        []byte(got.TokenType),
			"expires_at":        []byte(expires.Format(time.RFC3339)),
			"account_id":        []byte(token.Spec.AccountID),
			"scope":             []byte(got.Scope),
			"rest_instance_url": []byte(got.REST),
			"soap_instance_url": []byte(got.SOAP),
		},
	}
}

// composeDenial makes a patch that says what the operator says when access was taken away.
func composeDenial(token *floorToken) map[string]any {
	now := metav1.Now().Rfc3339Copy()
	message := fmt.Sprintf("namespace %q is not granted the credentials Secret %q of namespace %q for account %s with all scopes of the package, "+
		"since spec.scopes is absent; ask the owners of that namespace for an SFMCAccessGrant that covers all of this",
		token.Namespace, credentialsName, platform, token.Spec.AccountID)
	return map[string]any{
		"conditions": []metav1.Condition{{
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse, Reason: string(v1alpha1.ReasonWaitingForTurn),
			Message: "no token", ObservedGeneration: token.Generation, LastTransitionTime: now,
		}, {
			Type: v1alpha1.ConditionStalled, Status: metav1.ConditionTrue, Reason: string(v1alpha1.ReasonAccessDenied),
			Message: message, ObservedGeneration: token.Generation, LastTransitionTime: now,
		}},
		"expiresAt": nil, "refreshAt": nil, "lastRefreshAt": nil, "targetSecretName": nil, "accountID": nil,
		"grantedScopes": nil, "restInstanceURL": nil, "soapInstanceURL": nil,
	}
}

// composeStatus makes a status that says what the operator's says.
func composeStatus(token *floorToken, got answer, at time.Time) v1alpha1.SFMCTokenStatus {
	life := time.Duration(got.ExpiresIn) * time.Second
	second := func(t time.Time) *metav1.Time { return &metav1.Time{Time: t.UTC().Truncate(time.Second)} }
	return v1alpha1.SFMCTokenStatus{
		ObservedGeneration: token.Generation,
		Conditions: []metav1.Condition{{
			Type:               v1alpha1.ConditionReady,
			Status:             metav1.ConditionTrue,
			Reason:             v1alpha1.ReasonTokenValid,
			Message:            fmt.Sprintf("Secret %s holds a valid token for business unit %s", token.Name, token.Spec.AccountID),
			ObservedGeneration: token.Generation,
			LastTransitionTime: *second(at),
		}},
		ExpiresAt:        second(at.Add(life)),
		RefreshAt:        second(at.Add(life * 2 / 3)),
		LastRefreshAt:    second(at),
		TargetSecretName: token.Name,
		AccountID:        token.Spec.AccountID,
		GrantedScopes:    strings.Fields(got.Scope),
		RESTInstanceURL:  got.REST,
		SOAPInstanceURL:  got.SOAP,
	}
}
