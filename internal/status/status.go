// Package status turns what became of an SFMCToken into conditions, events, and the time to reconcile it again.
package status

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/credentials"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// Result is what became of an SFMCToken.
type Result struct {
	// Token is what the target Secret holds in the end; nil for none. Beside an error it is the old one.
	Token *token.Token
	// Notes are what is known of the credentials.
	Notes target.Notes
	// Err is why there is no new token.
	Err error
	// Contest is that somebody else keeps changing the target Secret; nil if nobody does.
	Contest *Contest
}

// Contest says who keeps changing what of a target Secret, and when to look at it again.
type Contest struct {
	Message string
	Again   time.Time
}

// Outcome is when an SFMCToken is reconciled again: after a while (never if 0), or, with an error, when the queue says.
type Outcome struct {
	Again time.Duration
	Retry error
	// Silent leaves the status unwritten.
	Silent bool
}

// wokenAnyway is when an SFMCToken is reconciled again that will be woken: a mistake of ours must not cost a token.
const wokenAnyway = 10 * time.Minute

// Report writes a result into the status, and says when to reconcile again. What went wrong has stood for so long.
func Report(obj *v1alpha1.SFMCToken, result Result, stood time.Duration, now time.Time) Outcome {
	held, failed := result.Token, problem.Of(result.Err)
	obj.Status.ObservedGeneration = obj.Generation
	reportToken(obj, held)
	wasReady := meta.IsStatusConditionTrue(obj.Status.Conditions, v1alpha1.ConditionReady)
	ready := readiness(obj, held, now)
	setCondition(obj, ready, now)

	var outcome Outcome
	message := ""
	if held != nil && now.Before(held.ExpiresAt) {
		outcome.at(held.ExpiresAt, now)
	}
	switch {
	case failed == nil:
		outcome.at(held.RefreshAt(obj.RefreshBefore()), now)
		obj.Status.ConsecutiveFailures = 0
		obj.Status.LastHandledRefreshRequest = obj.RefreshRequest()
	case failed.Reason == v1alpha1.ReasonKubernetesAPIError:
		outcome = Outcome{Retry: result.Err}
	case failed.IsWoken || !failed.RetryAt.IsZero():
		outcome.at(now.Add(wokenAnyway), now)
		if !failed.RetryAt.IsZero() {
			outcome.at(failed.RetryAt, now)
		}
		isTold := wasReady && ready.Reason == v1alpha1.ReasonTokenExpired // whatever else
		isShort := ready.Status == metav1.ConditionTrue || !failed.RetryAt.IsZero()
		if failed.Reason == v1alpha1.ReasonWaitingForTurn && isShort && !isTold {
			outcome.Silent = true // the status is written once, with the new token
			return outcome
		}
		obj.Status.ConsecutiveFailures = int32(min(failed.Failures, 1<<30)) //nolint:gosec // bounded
		message = nextAttempt(failed)
	case failed.StandingDelay(stood) > 0:
		outcome.at(now.Add(failed.StandingDelay(stood)), now)
	}
	if failed != nil {
		message = result.Err.Error() + message
	}
	setProblem(obj, failed, message, now)
	reportCredentials(obj, result, now)
	reportContest(obj, result.Contest, now)
	if result.Contest != nil && outcome.Retry == nil {
		outcome.at(result.Contest.Again, now)
	}
	return outcome
}

// at has the object reconciled then, if it isn't earlier anyway. What is due isn't reconciled never, but very soon.
func (o *Outcome) at(at, now time.Time) {
	if wait := max(token.Until(at, now), time.Millisecond); o.Again == 0 || wait < o.Again {
		o.Again = wait
	}
}

func nextAttempt(failed *problem.Problem) string {
	if failed.IsWoken {
		return ""
	}
	sooner := ""
	if failed.Actor == problem.Person {
		sooner = ", or as soon as the credentials Secret or this object changes"
	}
	return fmt.Sprintf(" (next attempt at %s%s)", failed.RetryAt.UTC().Format(time.RFC3339), sooner)
}

func reportToken(obj *v1alpha1.SFMCToken, held *token.Token) {
	status := &obj.Status
	if held == nil {
		status.ExpiresAt, status.RefreshAt, status.LastRefreshAt = nil, nil, nil
		status.TargetSecretName, status.AccountID, status.GrantedScopes = "", "", nil
		status.RESTInstanceURL, status.SOAPInstanceURL = "", ""
		return
	}
	at := func(t time.Time) *metav1.Time { return &metav1.Time{Time: t.UTC().Truncate(time.Second)} }
	status.ExpiresAt = at(held.ExpiresAt)
	status.RefreshAt = at(held.RefreshAt(obj.RefreshBefore()))
	status.LastRefreshAt = at(held.IssuedAt)
	status.TargetSecretName = obj.TargetSecretName()
	status.AccountID = held.AccountID
	status.GrantedScopes = strings.Fields(held.GrantedScopes)
	status.RESTInstanceURL, status.SOAPInstanceURL = held.RESTInstanceURL, held.SOAPInstanceURL
}

// readiness returns the Ready condition: whether the target Secret holds a token for this spec that is valid now.
func readiness(obj *v1alpha1.SFMCToken, held *token.Token, now time.Time) metav1.Condition {
	is := func(status metav1.ConditionStatus, reason, format string, args ...any) metav1.Condition {
		message := fmt.Sprintf(format, append([]any{obj.TargetSecretName()}, args...)...)
		return metav1.Condition{Type: v1alpha1.ConditionReady, Status: status, Reason: reason, Message: message}
	}
	no, yes := metav1.ConditionFalse, metav1.ConditionTrue
	switch {
	case held == nil:
		return is(no, v1alpha1.ReasonNoToken, "Secret %s holds no token of this SFMCToken")
	case !held.Fits(obj.Spec.AccountID, obj.RequestedScopes()):
		return is(no, v1alpha1.ReasonTokenOutdated, "Secret %s still holds a token for what the spec named before")
	case !now.Before(held.ExpiresAt):
		return is(no, v1alpha1.ReasonTokenExpired, "the token in Secret %s has expired and could not be replaced yet")
	case held.AccountID == "":
		return is(yes, v1alpha1.ReasonTokenValid, "Secret %s holds a valid token for the package's business unit")
	}
	return is(yes, v1alpha1.ReasonTokenValid, "Secret %s holds a valid token for business unit %s", held.AccountID)
}

// setProblem leaves at most one of Stalled and Reconciling.
func setProblem(obj *v1alpha1.SFMCToken, failed *problem.Problem, message string, now time.Time) {
	for condition, actor := range map[string]problem.Actor{
		v1alpha1.ConditionStalled: problem.Person, v1alpha1.ConditionReconciling: problem.Operator,
	} {
		if failed == nil || failed.Actor != actor {
			meta.RemoveStatusCondition(&obj.Status.Conditions, condition)
			continue
		}
		setCondition(obj, metav1.Condition{Type: condition, Status: metav1.ConditionTrue, Reason: string(failed.Reason),
			Message: message}, now)
	}
}

func reportContest(obj *v1alpha1.SFMCToken, contest *Contest, now time.Time) {
	if contest == nil {
		meta.RemoveStatusCondition(&obj.Status.Conditions, v1alpha1.ConditionTargetContested)
		return
	}
	setCondition(obj, metav1.Condition{Type: v1alpha1.ConditionTargetContested, Status: metav1.ConditionTrue,
		Reason: v1alpha1.ReasonRepeatedChanges, Message: contest.Message}, now)
}

func setCondition(obj *v1alpha1.SFMCToken, condition metav1.Condition, now time.Time) {
	condition.ObservedGeneration = obj.Generation
	condition.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second)) // if it is one
	if len(condition.Message) > 1024 {
		condition.Message = strings.ToValidUTF8(condition.Message[:1024], "") + "…"
	}
	meta.SetStatusCondition(&obj.Status.Conditions, condition)
}

// Events emits one for each condition that says something new. A refresh in steady state is no event.
func Events(before, after *v1alpha1.SFMCToken, emit func(eventType, reason, message string)) {
	isContested := meta.IsStatusConditionTrue(before.Status.Conditions, v1alpha1.ConditionTargetContested)
	for _, condition := range after.Status.Conditions {
		if isContested && condition.Reason == v1alpha1.ReasonTokenValid {
			continue // it was put right once more
		}
		old := meta.FindStatusCondition(before.Status.Conditions, condition.Type)
		isOld := old != nil && old.Status == condition.Status && old.Reason == condition.Reason
		if eventType := eventTypeOf(condition); eventType != "" && !isOld {
			emit(eventType, condition.Reason, condition.Message)
		}
	}
}

func eventTypeOf(condition metav1.Condition) string {
	switch condition.Reason {
	case v1alpha1.ReasonTokenValid, string(v1alpha1.ReasonSuspended):
		return corev1.EventTypeNormal
	case v1alpha1.ReasonNoToken, string(v1alpha1.ReasonWaitingForTurn):
		return "" // the other condition says why, or it is over in seconds
	case string(v1alpha1.ReasonRepairDelayed):
		return "" // TargetContested says it once
	case string(v1alpha1.ReasonCredentialsNotFound):
		return "" // often a Secret that is yet to come, or a namespace that is going, which takes no events
	}
	return corev1.EventTypeWarning
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
	expiring := expiry(notes.ClientSecretExpiresAt, credentials.KeyIn(notes.Credentials).Name, now)
	if expiring.Reason == "" || isRevoked {
		meta.RemoveStatusCondition(&status.Conditions, v1alpha1.ConditionCredentialsExpiring)
	} else {
		setCondition(obj, expiring, now)
	}
	if at, err := time.Parse(time.RFC3339, notes.ClientSecretExpiresAt); err == nil && !isRevoked {
		status.ClientSecretExpiresAt = &metav1.Time{Time: at}
	}
}

// expiry returns the CredentialsExpiring condition for that time; without a reason if there is nothing to say.
func expiry(text, secret string, now time.Time) metav1.Condition {
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
