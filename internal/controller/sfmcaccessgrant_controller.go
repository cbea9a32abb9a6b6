package controller

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	"github.com/sfmctoken/sfmctoken-operator/internal/credentials"
)

// +kubebuilder:rbac:groups=sfmctoken.dev,resources=sfmcaccessgrants/status,verbs=patch

// grantReconciler writes the status of SFMCAccessGrants. It decides about nobody's access.
type grantReconciler struct {
	client      client.Client
	credentials *credentials.Store
	clock       clock.PassiveClock
}

// countDelay is how long a grant waits for further changes before its SFMCTokens are counted again: a thousand of them
// that come at once are a few writes of the status, not a thousand.
const countDelay = time.Second

func setupGrants(mgr ctrl.Manager, store *credentials.Store, clock clock.WithTicker) error {
	r := &grantReconciler{client: mgr.GetClient(), credentials: store, clock: clock}
	fair, err := fairly(mgr, "sfmcaccessgrant", 1, clock)
	if err != nil {
		return err
	}
	changedSpec := builder.WithPredicates(predicate.GenerationChangedPredicate{})
	b := ctrl.NewControllerManagedBy(mgr).
		Named("sfmcaccessgrant").
		For(&v1alpha1.SFMCAccessGrant{}, changedSpec).
		Watches(&v1alpha1.SFMCToken{}, later(r.grantsOfToken), changedSpec).
		WithOptions(fair)
	if len(store.Namespaces) == 0 {
		b = b.WatchesMetadata(credentials.MetadataOf("Namespace"), later(r.grantsOfNamespace),
			builder.WithPredicates(predicate.LabelChangedPredicate{}))
	}
	return b.Complete(r)
}

// later enqueues what a change affects after countDelay.
func later(affected handler.MapFunc) handler.EventHandler {
	enqueue := func(ctx context.Context, obj client.Object, q queue) {
		for _, request := range affected(ctx, obj) {
			q.AddAfter(request, countDelay)
		}
	}
	return handler.Funcs{
		CreateFunc: func(ctx context.Context, e event.CreateEvent, q queue) { enqueue(ctx, e.Object, q) },
		UpdateFunc: func(ctx context.Context, e event.UpdateEvent, q queue) {
			enqueue(ctx, e.ObjectOld, q)
			enqueue(ctx, e.ObjectNew, q)
		},
		DeleteFunc: func(ctx context.Context, e event.DeleteEvent, q queue) { enqueue(ctx, e.Object, q) },
	}
}

// grantsOfToken returns those that may cover an SFMCToken.
func (r *grantReconciler) grantsOfToken(ctx context.Context, obj client.Object) []reconcile.Request {
	token, ok := obj.(*v1alpha1.SFMCToken)
	if !ok || !credentials.IsForeign(token) {
		return nil
	}
	grants, err := r.credentials.Candidates(ctx, token)
	if err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "find the SFMCAccessGrants of an SFMCToken")
	}
	requests := make([]reconcile.Request, 0, len(grants))
	for i := range grants {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&grants[i])})
	}
	return requests
}

// grantsOfNamespace returns those that may cover the SFMCTokens in a namespace.
func (r *grantReconciler) grantsOfNamespace(ctx context.Context, namespace client.Object) []reconcile.Request {
	var tokens v1alpha1.SFMCTokenList
	if err := r.client.List(ctx, &tokens, client.InNamespace(namespace.GetName())); err != nil {
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

func (r *grantReconciler) count(ctx context.Context, grant *v1alpha1.SFMCAccessGrant) (int32, error) {
	count := int32(0)
	for _, accountID := range grant.Spec.AccountIDs {
		var tokens v1alpha1.SFMCTokenList
		key := credentials.AccessKey(grant.Namespace, grant.Spec.CredentialsSecretRef.Name, string(accountID))
		if err := r.client.List(ctx, &tokens, client.MatchingFields{indexAccess: key}); err != nil {
			return 0, fmt.Errorf("list the SFMCTokens: %w", err)
		}
		for i := range tokens.Items {
			covered, err := r.credentials.Covers(ctx, grant, &tokens.Items[i])
			if err != nil {
				return 0, err
			}
			if covered {
				count++
			}
		}
	}
	return count, nil
}

// reportGrant writes the conditions: an entry that can't be used is a person's to mend.
func (r *grantReconciler) reportGrant(grant *v1alpha1.SFMCAccessGrant) {
	set := func(conditionType string, status metav1.ConditionStatus, reason, message string) {
		meta.SetStatusCondition(&grant.Status.Conditions, metav1.Condition{
			Type: conditionType, Status: status, Reason: reason, Message: message,
			ObservedGeneration: grant.Generation,
			LastTransitionTime: metav1.NewTime(r.clock.Now().Truncate(time.Second)),
		})
	}
	if !grant.DeletionTimestamp.IsZero() {
		meta.RemoveStatusCondition(&grant.Status.Conditions, v1alpha1.ConditionStalled)
		set(v1alpha1.ConditionReady, metav1.ConditionFalse, v1alpha1.ReasonTerminating,
			"grants nothing: it is being deleted")
		return
	}
	for i, from := range grant.Spec.From {
		if reason, message := r.mistakeIn(from); reason != "" {
			message = fmt.Sprintf("from[%d].namespaceSelector grants nothing: %s", i, message)
			set(v1alpha1.ConditionReady, metav1.ConditionFalse, reason, message)
			set(v1alpha1.ConditionStalled, metav1.ConditionTrue, reason, message)
			return
		}
	}
	set(v1alpha1.ConditionReady, metav1.ConditionTrue, v1alpha1.ReasonInForce, "all of the grant counts")
	meta.RemoveStatusCondition(&grant.Status.Conditions, v1alpha1.ConditionStalled)
}

// mistakeIn returns why an entry can't be used; nothing if it can.
func (r *grantReconciler) mistakeIn(from v1alpha1.AccessGrantFrom) (reason, message string) {
	if from.NamespaceSelector == nil {
		return "", ""
	}
	if _, err := metav1.LabelSelectorAsSelector(from.NamespaceSelector); err != nil {
		return v1alpha1.ReasonSelectorInvalid, err.Error()
	}
	if len(r.credentials.Namespaces) > 0 {
		return v1alpha1.ReasonSelectorUnavailable, "an operator that works in some namespaces only " +
			"(--watch-namespaces) may not read namespaces' labels; name the namespaces instead"
	}
	return "", ""
}
