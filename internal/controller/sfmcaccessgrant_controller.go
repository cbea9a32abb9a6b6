package controller

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

// +kubebuilder:rbac:groups=sfmctoken.dev,resources=sfmcaccessgrants/status,verbs=patch

// grantReconciler writes the status of SFMCAccessGrants. It decides about nobody's access.
type grantReconciler struct {
	client client.Client
	access access
	clock  clock.PassiveClock
}

// countDelay is how long a grant waits for further changes before its SFMCTokens are counted again: a thousand of them
// that come at once are a few writes of the status, not a thousand.
const countDelay = time.Second

func setupGrants(mgr ctrl.Manager, access access, clock clock.PassiveClock) error {
	r := &grantReconciler{client: mgr.GetClient(), access: access, clock: clock}
	b := ctrl.NewControllerManagedBy(mgr).
		Named("sfmcaccessgrant").
		For(&v1alpha1.SFMCAccessGrant{}, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.SFMCToken{}, later(r.grantsOfToken), builder.WithPredicates(predicate.GenerationChangedPredicate{}))
	if len(access.namespaces) == 0 {
		b = b.WatchesMetadata(namespaceKind(), later(r.grantsOfNamespace), builder.WithPredicates(predicate.LabelChangedPredicate{}))
	}
	return b.Complete(r)
}

// later enqueues what a change affects after countDelay.
func later(affected handler.MapFunc) handler.EventHandler {
	enqueue := func(ctx context.Context, obj client.Object, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) {
		for _, request := range affected(ctx, obj) {
			queue.AddAfter(request, countDelay)
		}
	}
	type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) { enqueue(ctx, e.Object, q) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			enqueue(ctx, e.ObjectOld, q)
			enqueue(ctx, e.ObjectNew, q)
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) { enqueue(ctx, e.Object, q) },
	}
}

// grantsOfToken are those that may cover an SFMCToken.
func (r *grantReconciler) grantsOfToken(ctx context.Context, obj client.Object) []reconcile.Request {
	token, ok := obj.(*v1alpha1.SFMCToken)
	if !ok || !isForeign(token) {
		return nil
	}
	grants, err := r.access.candidates(ctx, token)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "find the SFMCAccessGrants of an SFMCToken")
	}
	requests := make([]reconcile.Request, 0, len(grants))
	for i := range grants {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&grants[i])})
	}
	return requests
}

// grantsOfNamespace are those that may cover the SFMCTokens in a namespace.
func (r *grantReconciler) grantsOfNamespace(ctx context.Context, namespace client.Object) []reconcile.Request {
	var tokens v1alpha1.SFMCTokenList
	if err := r.client.List(ctx, &tokens, client.InNamespace(namespace.GetName()), client.MatchingFields{indexForeign: "true"}, unwaited); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "find the SFMCTokens of a namespace")
		return nil
	}
	var requests []reconcile.Request
	for i := range tokens.Items {
		requests = append(requests, r.grantsOfToken(ctx, &tokens.Items[i])...)
	}
	return requests
}

// Reconcile writes whether all of a grant counts, and how many SFMCTokens use it.
func (r *grantReconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var grant v1alpha1.SFMCAccessGrant
	if err := r.client.Get(ctx, request.NamespacedName, &grant); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !grant.DeletionTimestamp.IsZero() {
		return ctrl.Result{}, nil
	}
	before := grant.DeepCopy()
	count, err := r.count(ctx, &grant)
	if err != nil {
		return ctrl.Result{}, err
	}
	grant.Status.ObservedGeneration = grant.Generation
	grant.Status.Tokens = ptr.To(count)
	r.reportGrant(&grant)
	if equality.Semantic.DeepEqual(before.Status, grant.Status) {
		return ctrl.Result{}, nil
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := r.client.Status().Patch(ctx, &grant, patch); apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: countDelay}, nil
	} else if err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(fmt.Errorf("write the status: %w", err))
	}
	return ctrl.Result{}, nil
}

// count is how many SFMCTokens a grant covers.
func (r *grantReconciler) count(ctx context.Context, grant *v1alpha1.SFMCAccessGrant) (int32, error) {
	using := map[types.UID]bool{}
	for _, accountID := range grant.Spec.AccountIDs {
		var tokens v1alpha1.SFMCTokenList
		key := accessKey(grant.Namespace, grant.Spec.CredentialsSecretRef.Name, string(accountID))
		if err := r.client.List(ctx, &tokens, client.MatchingFields{indexAccess: key}, unwaited); err != nil {
			return 0, fmt.Errorf("list the SFMCTokens: %w", err)
		}
		for i := range tokens.Items {
			covered, err := r.access.covers(ctx, grant, &tokens.Items[i])
			if err != nil {
				return 0, err
			}
			if covered {
				using[tokens.Items[i].UID] = true
			}
		}
	}
	return int32(len(using)), nil //nolint:gosec // far below
}

// reportGrant writes the conditions: an entry that can't be used is a person's to mend.
func (r *grantReconciler) reportGrant(grant *v1alpha1.SFMCAccessGrant) {
	set := func(conditionType string, status metav1.ConditionStatus, reason, message string) {
		meta.SetStatusCondition(&grant.Status.Conditions, metav1.Condition{Type: conditionType, Status: status, Reason: reason, Message: message,
			ObservedGeneration: grant.Generation, LastTransitionTime: metav1.NewTime(r.clock.Now().Truncate(time.Second))})
	}
	for i, from := range grant.Spec.From {
		if from.NamespaceSelector == nil {
			continue
		}
		reason, message := "", ""
		if _, err := selectorOf(from); err != nil {
			reason, message = v1alpha1.ReasonSelectorInvalid, fmt.Sprintf("from[%d].namespaceSelector grants nothing: %s", i, err)
		} else if len(r.access.namespaces) > 0 {
			reason, message = v1alpha1.ReasonSelectorUnavailable, fmt.Sprintf("from[%d].namespaceSelector grants nothing: "+
				"an operator that works in some namespaces only (--watch-namespaces) may not read namespaces' labels; name the namespaces instead", i)
		}
		if reason != "" {
			set(v1alpha1.ConditionReady, metav1.ConditionFalse, reason, message)
			set(v1alpha1.ConditionStalled, metav1.ConditionTrue, reason, message)
			return
		}
	}
	set(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonInForce, "all of the grant counts")
	meta.RemoveStatusCondition(&grant.Status.Conditions, v1alpha1.ConditionStalled)
}
