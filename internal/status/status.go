// Package status turns what became of an SFMCToken into conditions, events, and the time to reconcile it again.
package status

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
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
	// IsUnread is true if the target Secret couldn't be read: what it holds isn't known.
	IsUnread bool
	// OwnerDenied is why the owner of a target Secret couldn't be changed; nil if it could, or needn't be.
	OwnerDenied error
	// Contest is that somebody else keeps changing the target Secret; nil if nobody does.
	Contest *Contest
}

// Contest says who keeps changing what of a target Secret, and when to look at it again.
type Contest struct {
	Message string
	Again   time.Time
}

// Outcome is when an SFMCToken is reconciled again: after a while; only when something changes if that is 0.
type Outcome struct {
	Again time.Duration
	// Silent leaves the status unwritten.
	Silent bool
}

// wokenAnyway is when an SFMCToken is reconciled again that will be woken: a mistake of ours must not cost a token.
const wokenAnyway = 10 * time.Minute

// Report writes a result into the status, and says when to reconcile again. What went wrong has stood for so long.
func Report(obj *v1alpha1.SFMCToken, result Result, stood time.Duration, now time.Time) Outcome {
	waiting := problem.Of(result.Err)
	isWaiting := waiting != nil && waiting.Reason == v1alpha1.ReasonWaitingForTurn
	if isWaiting && waiting.Standing != nil {
		standing := *waiting.Standing
		standing.IsWoken, standing.RetryAt = true, waiting.RetryAt
		result.Err = &standing
	}
	held, failed := result.Token, problem.Of(result.Err)
	wasReady := meta.IsStatusConditionTrue(obj.Status.Conditions, v1alpha1.ConditionReady)
	obj.Status.ObservedGeneration = obj.Generation
	ready := lastKnown(obj, result.Err, now)
	if !result.IsUnread {
		reportToken(obj, held)
		ready = readiness(obj, held, result.Err, now)
	}
	isReady := ready.Status == metav1.ConditionTrue
	outcome := next(obj, result, isReady, stood, now)
	hasExpired := wasReady && held != nil && !now.Before(held.ExpiresAt) // that is told whatever else
	if isWaiting && !hasExpired && (isReady || waiting.Standing != nil || !waiting.RetryAt.IsZero()) {
		outcome.Silent = true // the status is written once, with the new token
		return outcome
	}
	count(obj, failed)
	setCondition(obj, ready, now)
	reportProblem(obj, result.Err, isReady, now)
	if !result.IsUnread {
		reportScopes(obj, held, now)
		reportCredentials(obj, result, now)
		reportOwner(obj, result.OwnerDenied, now)
	}
	reportContest(obj, result.Contest, now)
	return outcome
}

// next returns when to reconcile again.
func next(
	obj *v1alpha1.SFMCToken, result Result, isReady bool, stood time.Duration, now time.Time,
) (outcome Outcome) {
	failed := problem.Of(result.Err)
	if isReady {
		outcome.at(expiry(obj, result.Token), now) // whatever else fails
	}
	switch {
	case failed == nil:
		outcome.at(result.Token.RefreshAt(obj.RefreshBefore()), now)
	case failed.IsWoken || !failed.RetryAt.IsZero():
		outcome.at(now.Add(wokenAnyway), now)
		if !failed.RetryAt.IsZero() {
			outcome.at(failed.RetryAt, now)
		}
	case failed.Reason == v1alpha1.ReasonKubernetesAPIError:
		outcome.at(now.Add(problem.Jitter(failed.StandingDelay(stood))), now)
	case failed.StandingDelay(stood) > 0:
		outcome.at(now.Add(failed.StandingDelay(stood)), now)
	}
	if result.Contest != nil {
		outcome.at(result.Contest.Again, now)
	}
	return outcome
}

// count counts the attempts in a row that brought no token into the target Secret.
func count(obj *v1alpha1.SFMCToken, failed *problem.Problem) {
	const most = 1 << 30
	switch {
	case failed == nil:
		obj.Status.ConsecutiveFailures = 0
		obj.Status.LastHandledRefreshRequest = obj.RefreshRequest()
	case failed.IsWoken || !failed.RetryAt.IsZero():
		obj.Status.ConsecutiveFailures = int32(min(failed.Failures, most)) //nolint:gosec // bounded
	case failed.Reason == v1alpha1.ReasonWriteRefused:
		obj.Status.ConsecutiveFailures = min(obj.Status.ConsecutiveFailures, most-1) + 1
	}
}

// at has the object reconciled then, if it isn't earlier anyway. What is due isn't reconciled never, but very soon.
func (o *Outcome) at(at, now time.Time) {
	if wait := max(token.Until(at, now), time.Millisecond); o.Again == 0 || wait < o.Again {
		o.Again = wait
	}
}

func nextAttempt(failed *problem.Problem) string {
	if failed.IsWoken || failed.RetryAt.IsZero() {
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
	if status.RefreshAt = nil; !obj.Spec.Suspend {
		status.RefreshAt = at(held.RefreshAt(obj.RefreshBefore()))
	}
	status.LastRefreshAt = at(held.IssuedAt)
	status.TargetSecretName = obj.TargetSecretName()
	status.AccountID = held.AccountID
	status.GrantedScopes = strings.Fields(held.GrantedScopes)
	status.RESTInstanceURL, status.SOAPInstanceURL = held.RESTInstanceURL, held.SOAPInstanceURL
}
