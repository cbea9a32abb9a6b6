// Package controller keeps the target Secret of every SFMCToken filled with a valid token.
package controller

import (
	"context"
	"errors"
	"sync"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/credentials"
	"github.com/sfmctoken/sfmctoken-operator/internal/issuer"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/status"
)

// +kubebuilder:rbac:groups=sfmctoken.dev,resources=sfmctokens,verbs=get;list;watch
// +kubebuilder:rbac:groups=sfmctoken.dev,resources=sfmctokens/status,verbs=patch
// +kubebuilder:rbac:groups=sfmctoken.dev,resources=sfmcaccessgrants,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch;create;update
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconciler reconciles SFMCTokens.
type Reconciler struct {
	objects     *objects
	credentials *credentials.Store
	issuer      *issuer.Issuer
	sharers     *sharers
	memory      *memory
	contests    *contests
	clock       clock.PassiveClock
	events      events.EventRecorder
	// working is held by each worker, and alone by what comes after them.
	working sync.RWMutex
}

// Reconcile makes the target Secret hold a valid token for exactly what the spec names, reports it, and says when to
// reconcile again. When there is nothing to do, it sends no request to anyone.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	r.working.RLock()
	defer r.working.RUnlock()
	return r.reconcile(ctx, request)
}

func (r *Reconciler) reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var obj v1alpha1.SFMCToken
	if err := r.objects.get(ctx, request.NamespacedName, &obj); err != nil {
		if isStopped(ctx) {
			return ctrl.Result{}, nil // that says nothing about the SFMCToken
		}
		r.memory.forget(request.NamespacedName)
		r.issuer.Forget(askerOf(request.NamespacedName))
		r.contests.forget(request.NamespacedName)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !obj.DeletionTimestamp.IsZero() || r.credentials.IsGoing(ctx, obj.Namespace) {
		return ctrl.Result{}, nil
	}
	result := r.ensure(ctx, &obj)
	failed := problem.Of(result.Err)
	switch {
	case failed != nil && isStopped(ctx):
		return ctrl.Result{}, nil // that says nothing about the token
	case failed != nil && failed.Actor == problem.Nobody:
		return ctrl.Result{RequeueAfter: failed.StandingDelay(0)}, nil
	case r.memory.takeCall(request.NamespacedName) && failed == nil:
		// A new token may have invalidated the one before: the Secrets of its identity go first, then the statuses.
		r.sharers.wake(request.NamespacedName)
		return ctrl.Result{}, nil
	}
	return r.report(ctx, &obj, result)
}

// isStopped reports whether the operator is being stopped. After reconcileTimeout the queue tries again instead.
func isStopped(ctx context.Context) bool { return errors.Is(ctx.Err(), context.Canceled) }

// report writes the status, unless it says all that already, and tells people what is new.
func (r *Reconciler) report(ctx context.Context, obj *v1alpha1.SFMCToken, result status.Result) (ctrl.Result, error) {
	before, now := obj.DeepCopy(), r.clock.Now()
	stood := r.memory.stood(client.ObjectKeyFromObject(obj), problem.Of(result.Err), now)
	outcome := status.Report(obj, result, stood, now)
	if !outcome.Silent && !equality.Semantic.DeepEqual(before.Status, obj.Status) {
		err := r.objects.patchStatus(ctx, before, obj)
		if failed := problem.Of(err); failed != nil && failed.Actor == problem.Nobody {
			return ctrl.Result{RequeueAfter: failed.StandingDelay(0)}, nil
		} else if err != nil {
			return ctrl.Result{}, client.IgnoreNotFound(err)
		}
		r.tell(ctx, before, obj, result)
	}
	return ctrl.Result{RequeueAfter: outcome.Again}, nil
}

// tell logs what became of an SFMCToken, and records an event for what is new.
func (r *Reconciler) tell(ctx context.Context, before, after *v1alpha1.SFMCToken, result status.Result) {
	logger := ctrl.LoggerFrom(ctx)
	switch {
	case result.Err != nil:
		logger.Info("no new token", "why", result.Err.Error(), "consecutiveFailures", after.Status.ConsecutiveFailures)
	case !after.Status.LastRefreshAt.Equal(before.Status.LastRefreshAt):
		logger.Info("new token", "accountID", after.Status.AccountID, "expiresAt", result.Token.ExpiresAt,
			"refreshAt", result.Token.RefreshAt(after.RefreshBefore()))
	}
	status.Events(before, after, func(eventType, reason, message string) {
		r.events.Eventf(after, nil, eventType, reason, "Refresh", "%s", message)
	})
}

// sendRequests has token requests sent until the operator is stopped. A request that was sent then is worth its answer:
// a token that comes is written, once the workers have finished what they were at.
func (r *Reconciler) sendRequests(ctx context.Context) error {
	r.issuer.Run(ctx)
	r.working.Lock()
	defer r.working.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	for _, asker := range r.issuer.Untaken() {
		key := client.ObjectKey{Namespace: asker.Tenant, Name: asker.Name}
		if _, err := r.reconcile(ctx, ctrl.Request{NamespacedName: key}); err != nil {
			ctrl.LoggerFrom(ctx).Error(err, "write a token at the end", "SFMCToken", key)
		}
	}
	return nil
}
