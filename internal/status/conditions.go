package status

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/credentials"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// readiness returns the Ready condition: whether the target Secret holds a token for this spec that is valid now, and
// if it doesn't, why.
func readiness(obj *v1alpha1.SFMCToken, held *token.Token, err error, now time.Time) metav1.Condition {
	ready := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse}
	switch {
	case held == nil:
		ready.Reason, ready.Message = string(v1alpha1.ReasonWaitingForTurn), "holds no token of this SFMCToken"
	case !held.Fits(obj.Spec.AccountID, obj.RequestedScopes()):
		ready.Reason, ready.Message = v1alpha1.ReasonTokenOutdated, "still holds a token for what the spec named before"
	case !now.Before(held.ExpiresAt):
		ready.Reason, ready.Message = v1alpha1.ReasonTokenExpired, "holds a token that has expired"
	default:
		ready.Status, ready.Reason = metav1.ConditionTrue, v1alpha1.ReasonTokenValid
		ready.Message = "holds a valid token for business unit " + held.AccountID
		if held.AccountID == "" {
			ready.Message = "holds a valid token for the package's business unit"
		}
	}
	ready.Message = fmt.Sprintf("Secret %s %s", obj.TargetSecretName(), ready.Message)
	failed := problem.Of(err)
	if failed == nil || failed.Reason == v1alpha1.ReasonWaitingForTurn {
		return ready // nothing is wrong
	}
	if ready.Status == metav1.ConditionTrue {
		ready.Message += fmt.Sprintf("; it isn't refreshed now: see the condition %s (%s)",
			conditionFor(failed, true), failed.Reason)
		return ready
	}
	ready.Reason = string(failed.Reason)
	ready.Message += ": " + err.Error()
	return ready
}

// lastKnown returns the Ready condition of an SFMCToken whose target Secret can't be read: as before, until the token
// that was in it expires.
func lastKnown(obj *v1alpha1.SFMCToken, err error, now time.Time) metav1.Condition {
	ready := meta.FindStatusCondition(obj.Status.Conditions, v1alpha1.ConditionReady)
	expiresAt := obj.Status.ExpiresAt
	if ready != nil && ready.Status == metav1.ConditionTrue && expiresAt != nil && now.Before(expiresAt.Time) {
		return *ready
	}
	unknown := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse}
	if failed := problem.Of(err); failed != nil {
		unknown.Reason, unknown.Message = string(failed.Reason), failed.Error()
	}
	return unknown
}

// expiry returns when a token expires that is valid now, as far as it is known.
func expiry(obj *v1alpha1.SFMCToken, held *token.Token) time.Time {
	if held != nil {
		return held.ExpiresAt
	}
	return obj.Status.ExpiresAt.Time
}

// conditionFor returns which condition says a problem.
func conditionFor(failed *problem.Problem, isReady bool) string {
	switch {
	case failed.Reason == v1alpha1.ReasonSuspended:
		return v1alpha1.ConditionSuspended
	case failed.Actor == problem.Person:
		return v1alpha1.ConditionStalled
	case isReady:
		return v1alpha1.ConditionRefreshFailing
	}
	return v1alpha1.ConditionReconciling
}

// reportProblem leaves the one condition that says why there is no new token, and Suspended beside it.
func reportProblem(obj *v1alpha1.SFMCToken, err error, isReady bool, now time.Time) {
	failed, said, message := problem.Of(err), "", ""
	if failed != nil {
		said, message = conditionFor(failed, isReady), err.Error()+nextAttempt(failed)
	}
	for _, condition := range []string{
		v1alpha1.ConditionStalled, v1alpha1.ConditionReconciling, v1alpha1.ConditionRefreshFailing,
	} {
		if condition != said {
			meta.RemoveStatusCondition(&obj.Status.Conditions, condition)
			continue
		}
		setCondition(obj, metav1.Condition{Type: condition, Status: metav1.ConditionTrue, Reason: string(failed.Reason),
			Message: message}, now)
	}
	setOrRemove(obj, obj.Spec.Suspend, v1alpha1.ConditionSuspended, string(v1alpha1.ReasonSuspended),
		"spec.suspend is true: no token is asked for until it is false", now)
}

// reportScopes says what Salesforce didn't grant of what the spec asks for.
func reportScopes(obj *v1alpha1.SFMCToken, held *token.Token, now time.Time) {
	var missing []string
	if held != nil && held.GrantedScopes != "" && held.Fits(obj.Spec.AccountID, obj.RequestedScopes()) {
		missing = slices.DeleteFunc(obj.RequestedScopes(), func(scope string) bool {
			return slices.Contains(strings.Fields(held.GrantedScopes), scope)
		})
	}
	setOrRemove(obj, len(missing) > 0, v1alpha1.ConditionScopesMissing, v1alpha1.ReasonScopesNotGranted,
		"Salesforce did not grant "+strings.Join(missing, ", ")+": add this to the package's API integration in "+
			"Setup > Installed Packages, which takes up to five minutes, or take it out of spec.scopes", now)
}

// reportOwner says that the owner of a target Secret couldn't be changed; the token in it is as good as it is.
func reportOwner(obj *v1alpha1.SFMCToken, denied error, now time.Time) {
	message := ""
	if denied != nil {
		message = denied.Error()
	}
	setOrRemove(obj, denied != nil, v1alpha1.ConditionOwnerOutdated, v1alpha1.ReasonOwnerChangeDenied, message, now)
}

func reportContest(obj *v1alpha1.SFMCToken, contest *Contest, now time.Time) {
	message := ""
	if contest != nil {
		message = contest.Message
	}
	setOrRemove(obj, contest != nil, v1alpha1.ConditionTargetContested, v1alpha1.ReasonRepeatedChanges, message, now)
}

func setOrRemove(obj *v1alpha1.SFMCToken, isTrue bool, condition, reason, message string, now time.Time) {
	if !isTrue {
		meta.RemoveStatusCondition(&obj.Status.Conditions, condition)
		return
	}
	is := metav1.Condition{Type: condition, Status: metav1.ConditionTrue, Reason: reason, Message: message}
	setCondition(obj, is, now)
}

func setCondition(obj *v1alpha1.SFMCToken, condition metav1.Condition, now time.Time) {
	condition.ObservedGeneration = obj.Generation
	condition.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second)) // if it is one
	condition.Message = cut(condition.Message)
	meta.SetStatusCondition(&obj.Status.Conditions, condition)
}

// maxMessage is in bytes: an event's note can't be longer.
const maxMessage = 1024

// cut shortens a message in its middle: it begins with what it is about, and ends with the cause.
func cut(message string) string {
	const gap = " … "
	if len(message) <= maxMessage {
		return message
	}
	half := (maxMessage - len(gap)) / 2
	head, tail := message[:half], message[len(message)-half:]
	for !utf8.RuneStart(tail[0]) {
		tail = tail[1:]
	}
	return strings.ToValidUTF8(head, "") + gap + tail
}

// expiryWarning is how long before a client secret's expiry a person is told.
const expiryWarning = 30 * 24 * time.Hour

// reportCredentials writes into the status which client secret is in use and when it expires, as far as the credentials
// Secret says so. Nothing stays there of credentials that may not be used any more.
func reportCredentials(obj *v1alpha1.SFMCToken, result Result, now time.Time) {
	status, notes := &obj.Status, result.Notes
	status.ClientSecretKey = ""
	if result.Token != nil {
		status.ClientSecretKey = notes.ClientSecretKey
	}
	failed := problem.Of(result.Err)
	isRevoked := failed != nil && failed.Revokes
	if notes.Credentials == "" && !isRevoked {
		return // they haven't been read
	}
	status.ClientSecretExpiresAt = nil
	expiring := secretExpiry(notes.ClientSecretExpiresAt, credentials.KeyIn(notes.Credentials).Name, now)
	if expiring.Reason == "" || isRevoked {
		meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionCredentialsExpiring)
	} else {
		setCondition(obj, expiring, now)
	}
	if at, err := time.Parse(time.RFC3339, notes.ClientSecretExpiresAt); err == nil && !isRevoked {
		status.ClientSecretExpiresAt = &metav1.Time{Time: at}
	}
}

// secretExpiry returns the CredentialsExpiring condition for that time; without a reason if there is nothing to say.
func secretExpiry(text, secret string, now time.Time) metav1.Condition {
	says := func(status metav1.ConditionStatus, reason, format string, args ...any) metav1.Condition {
		return metav1.Condition{Type: v1alpha1.ConditionCredentialsExpiring, Status: status, Reason: reason,
			Message: fmt.Sprintf(format, args...)}
	}
	at, err := time.Parse(time.RFC3339, text)
	day := at.Format(time.DateOnly)
	switch {
	case text == "":
		return metav1.Condition{}
	case err != nil:
		return says(metav1.ConditionUnknown, v1alpha1.ReasonDateUnreadable, "client_secret_expires_at in Secret %s is "+
			"neither a date such as 2027-03-31 nor a time such as 2027-03-31T12:00:00Z", secret)
	case !now.Before(at):
		return says(metav1.ConditionTrue, v1alpha1.ReasonExpired, "the client secret in Secret %s expired on %s, by "+
			"what client_secret_expires_at says: make a new one in Setup > Installed Packages", secret, day)
	case !now.Before(at.Add(-expiryWarning)):
		return says(metav1.ConditionTrue, v1alpha1.ReasonExpiring, "the client secret in Secret %s expires on %s: "+
			"stage a new one in Setup > Installed Packages and add it as client_secret_staged", secret, day)
	}
	return metav1.Condition{}
}
