package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

// problem is why there is no new token, by who can mend it.
type problem struct {
	// condition is Stalled if a person must act, Reconciling if the operator waits or tries again.
	condition string
	reason    string
	// first and most bound how long to wait before looking again, unless the failed request has a time of its own.
	first, most time.Duration
}

// classify is the one place that knows what an error means. What it doesn't know came from the Kubernetes API, and is
// nil: the queue tries again.
func classify(err error) *problem {
	blocked := func(reason string) *problem {
		return &problem{v1alpha1.ConditionStalled, reason, blockedFirst, blockedMost}
	}
	waiting := func(reason string) *problem {
		return &problem{v1alpha1.ConditionReconciling, reason, transientFirst, transientMost}
	}
	var (
		conflict    *targetConflictError
		notFound    *credentialsNotFoundError
		invalid     *credentialsInvalidError
		denied      *accessDeniedError
		badTemplate *templateInvalidError
		badHost     *sfmc.HostNotAllowedError
		isSuspended suspendedError
		notYet      notYetError
	)
	switch {
	case errors.As(err, &notYet):
		return waiting(v1alpha1.ReasonWaitingForTurn)
	case errors.As(err, &isSuspended):
		return &problem{condition: v1alpha1.ConditionReconciling, reason: v1alpha1.ReasonSuspended}
	case errors.As(err, &denied):
		return blocked(v1alpha1.ReasonAccessDenied)
	case errors.As(err, &conflict):
		return blocked(v1alpha1.ReasonTargetConflict)
	case errors.As(err, &badTemplate):
		return blocked(v1alpha1.ReasonTemplateInvalid)
	case errors.As(err, &notFound):
		return waiting(v1alpha1.ReasonCredentialsNotFound)
	case errors.As(err, &badHost):
		return blocked(v1alpha1.ReasonHostNotAllowed)
	case errors.As(err, &invalid):
		return blocked(v1alpha1.ReasonCredentialsInvalid)
	}
	switch sfmc.KindOf(err) {
	case sfmc.Refused:
		return blocked(v1alpha1.ReasonRequestRefused)
	case sfmc.Throttled:
		return waiting(v1alpha1.ReasonThrottled)
	case sfmc.Unavailable:
		return waiting(v1alpha1.ReasonEndpointUnavailable)
	case sfmc.Unreadable:
		return waiting(v1alpha1.ReasonUnreadableAnswer)
	}
	return nil
}

// outcome is when an SFMCToken is looked at again: after a while (never if 0), or, with an error, when the queue says.
type outcome struct {
	again time.Duration
	retry error
	// silent leaves the status unwritten.
	silent bool
}

// worthTelling is how long an SFMCToken without a token waits for its turn before its status says so.
const worthTelling = 10 * time.Second

// report writes into the status what the target Secret holds and what went wrong, and says when to look again.
func report(obj *v1alpha1.SFMCToken, held *issued, err error, now time.Time) outcome {
	status := &obj.Status
	status.ObservedGeneration = obj.Generation
	reportToken(obj, held)
	ready := readiness(obj, held, now)
	setCondition(obj, ready, now)

	var looks []time.Time
	if held != nil && now.Before(held.ExpiresAt) {
		looks = append(looks, held.ExpiresAt)
	}
	var result outcome
	failed := classify(err)
	switch {
	case err == nil:
		status.ConsecutiveFailures = 0
		status.LastHandledRefreshRequest = obj.RefreshRequest()
		looks = append(looks, held.refreshAt(obj.RefreshBefore()))
		setProblem(obj, nil, "", now)
	case failed == nil:
		result.retry = err
		setProblem(obj, &problem{condition: v1alpha1.ConditionReconciling, reason: v1alpha1.ReasonKubernetesAPIError}, err.Error(), now)
	default:
		message := err.Error()
		var attempt *attemptError
		if errors.As(err, &attempt) {
			if failed.reason == v1alpha1.ReasonWaitingForTurn && (ready.Status == metav1.ConditionTrue || held == nil && attempt.retryAt.Sub(now) < worthTelling) {
				// The status is written once, with the new token.
				result.silent = true
				looks = append(looks, attempt.retryAt)
				break
			}
			status.ConsecutiveFailures = int32(min(attempt.failures, 1<<30)) //nolint:gosec // bounded
			message += nextAttempt(failed, attempt.retryAt)
			looks = append(looks, attempt.retryAt)
		}
		since := setProblem(obj, failed, message, now)
		if attempt == nil && failed.first > 0 {
			looks = append(looks, now.Add(standingDelay(now.Sub(since), failed.first, failed.most)))
		}
	}
	for _, look := range looks {
		// A look that is due is a look after the shortest time there is, not none.
		if wait := max(until(look, now), time.Millisecond); result.again == 0 || wait < result.again {
			result.again = wait
		}
	}
	return result
}

func nextAttempt(failed *problem, at time.Time) string {
	when := at.UTC().Truncate(time.Second).Format(time.RFC3339)
	if failed.condition == v1alpha1.ConditionStalled {
		return fmt.Sprintf(" (next attempt at %s, or as soon as the credentials Secret or this object changes)", when)
	}
	return fmt.Sprintf(" (next attempt at %s)", when)
}

// reportToken writes into the status what the target Secret holds.
func reportToken(obj *v1alpha1.SFMCToken, held *issued) {
	status := &obj.Status
	if held == nil {
		status.ExpiresAt, status.RefreshAt, status.LastRefreshAt = nil, nil, nil
		status.TargetSecretName, status.AccountID, status.GrantedScopes = "", "", nil
		status.RESTInstanceURL, status.SOAPInstanceURL = "", ""
		return
	}
	at := func(t time.Time) *metav1.Time { return &metav1.Time{Time: t.UTC().Truncate(time.Second)} }
	status.ExpiresAt = at(held.ExpiresAt)
	status.RefreshAt = at(held.refreshAt(obj.RefreshBefore()))
	status.LastRefreshAt = at(held.IssuedAt)
	status.TargetSecretName = obj.TargetSecretName()
	status.AccountID = held.AccountID
	status.GrantedScopes = strings.Fields(held.Scope)
	status.RESTInstanceURL, status.SOAPInstanceURL = held.RESTInstanceURL, held.SOAPInstanceURL
}

// readiness is the Ready condition: whether the target Secret holds a token for this spec that is valid now.
func readiness(obj *v1alpha1.SFMCToken, held *issued, now time.Time) metav1.Condition {
	ready := metav1.Condition{Type: v1alpha1.ConditionReady, Status: metav1.ConditionFalse}
	switch {
	case held == nil:
		ready.Reason, ready.Message = v1alpha1.ReasonNoToken, fmt.Sprintf("Secret %s holds no token of this SFMCToken", obj.TargetSecretName())
	case !held.fits(obj.Spec.AccountID, scopesOf(&obj.Spec)):
		ready.Reason, ready.Message = v1alpha1.ReasonTokenOutdated, fmt.Sprintf("Secret %s still holds a token for what the spec named before", obj.TargetSecretName())
	case !now.Before(held.ExpiresAt):
		ready.Reason, ready.Message = v1alpha1.ReasonTokenExpired, fmt.Sprintf("the token in Secret %s has expired and could not be replaced yet", obj.TargetSecretName())
	default:
		unit := "the package's business unit"
		if held.AccountID != "" {
			unit = "business unit " + held.AccountID
		}
		ready.Status = metav1.ConditionTrue
		ready.Reason, ready.Message = v1alpha1.ReasonTokenValid, fmt.Sprintf("Secret %s holds a valid token for %s", obj.TargetSecretName(), unit)
	}
	return ready
}

// setProblem leaves at most one of Stalled and Reconciling, and returns since when it has been there.
func setProblem(obj *v1alpha1.SFMCToken, is *problem, message string, now time.Time) time.Time {
	for _, condition := range []string{v1alpha1.ConditionStalled, v1alpha1.ConditionReconciling} {
		if is == nil || condition != is.condition {
			meta.RemoveStatusCondition(&obj.Status.Conditions, condition)
		}
	}
	if is == nil {
		return now
	}
	setCondition(obj, metav1.Condition{Type: is.condition, Status: metav1.ConditionTrue, Reason: is.reason, Message: message}, now)
	return meta.FindStatusCondition(obj.Status.Conditions, is.condition).LastTransitionTime.Time
}

func setCondition(obj *v1alpha1.SFMCToken, condition metav1.Condition, now time.Time) {
	condition.ObservedGeneration = obj.Generation
	if was := meta.FindStatusCondition(obj.Status.Conditions, condition.Type); was == nil || was.Status != condition.Status {
		condition.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second))
	}
	if len(condition.Message) > 1024 {
		condition.Message = strings.ToValidUTF8(condition.Message[:1024], "") + "…"
	}
	meta.SetStatusCondition(&obj.Status.Conditions, condition)
}

// announce logs what became of an SFMCToken, and records an event for each condition that says something new. A refresh
// in steady state is no event.
func (r *Reconciler) announce(ctx context.Context, before, after *v1alpha1.SFMCToken, held *issued, err error) {
	logger := ctrl.LoggerFrom(ctx)
	switch {
	case err != nil:
		logger.Info("no new token", "why", err.Error(), "consecutiveFailures", after.Status.ConsecutiveFailures)
	case !after.Status.LastRefreshAt.Equal(before.Status.LastRefreshAt):
		logger.Info("new token", "accountID", after.Status.AccountID, "expiresAt", held.ExpiresAt, "refreshAt", held.refreshAt(after.RefreshBefore()))
	}
	for _, condition := range after.Status.Conditions {
		was := meta.FindStatusCondition(before.Status.Conditions, condition.Type)
		if was != nil && was.Status == condition.Status && was.Reason == condition.Reason {
			continue
		}
		kind := corev1.EventTypeWarning
		switch condition.Reason {
		case v1alpha1.ReasonTokenValid, v1alpha1.ReasonSuspended:
			kind = corev1.EventTypeNormal
		case v1alpha1.ReasonNoToken, v1alpha1.ReasonWaitingForTurn:
			continue // the other condition says why, or it is over in seconds
		case v1alpha1.ReasonCredentialsNotFound:
			continue // often a Secret that is yet to come, or a namespace that is going, which takes no events
		}
		r.Events.Eventf(after, nil, kind, condition.Reason, "Refresh", "%s", condition.Message)
	}
}
