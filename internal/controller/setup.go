package controller

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"time"

	"golang.org/x/time/rate"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

// Name is the controller's name in events, metrics and logs.
const Name = "sfmctoken"

// Indexes of the caches.
const (
	indexCredentials = "credentialsSecret" // of SFMCTokens: the credentials Secret's namespace and name
	indexTarget      = "targetSecret"      // of SFMCTokens: the target Secret's name
	indexAccess      = "access"            // of SFMCTokens that refer to another namespace: what they need a grant for
	indexForeign     = "foreign"           // of SFMCTokens: whether they refer to another namespace
	indexGrant       = "grant"             // of SFMCAccessGrants: what they grant to whom
	indexOwner       = "owner"             // of target Secrets: the owning SFMCToken's UID
	indexIdentity    = "identity"          // of target Secrets: the identities of the token that they hold
)

// Options of the controller.
type Options struct {
	// AuthClient sends the token requests.
	AuthClient *sfmc.Client
	// AllowedAuthHosts are authentication hosts to accept beside Marketing Cloud's own, as HOST or HOST:PORT.
	AllowedAuthHosts []string
	// WatchNamespaces are the namespaces to work in; all if there are none. The same as for ManagerOptions.
	WatchNamespaces []string
	// RequestRate is how many token requests are sent to one authentication host per second, after a burst of
	// RequestBurst, at least 1.
	RequestRate  rate.Limit
	RequestBurst int
	// Concurrency is how many SFMCTokens are reconciled at once, at least 1.
	Concurrency int
	// Clock decides what time it is, also for the queue.
	Clock clock.WithTicker
}

// ManagerOptions returns what the manager of this controller must be made with. Namespaces are those to work in; all
// if there are none.
func ManagerOptions(namespaces []string) ctrl.Options {
	scheme := runtime.NewScheme()
	utilruntime.Must(corev1.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return ctrl.Options{
		Scheme: scheme,
		Cache: cache.Options{
			DefaultNamespaces: only(namespaces),
			DefaultTransform:  cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{
				// Of Secrets, only the targets are held in memory.
				&corev1.Secret{}: {Label: labels.SelectorFromSet(labels.Set{ManagedByLabel: ManagedByValue})},
				namespaceKind():  {Transform: keepOfNamespace},
			},
		},
		// Reads wait until the cache shows this process's own writes: a token just written must not look absent.
		Client: client.Options{Cache: &client.CacheOptions{EnableReadYourWritesConsistency: ptr.To(true)}},
	}
}

func only(namespaces []string) map[string]cache.Config {
	configs := map[string]cache.Config{}
	for _, namespace := range namespaces {
		configs[namespace] = cache.Config{}
	}
	return configs
}

// Setup adds the controller to a manager that was made with ManagerOptions.
func Setup(ctx context.Context, mgr ctrl.Manager, options Options) error {
	secretMetadata, err := newSecretMetadataCache(mgr, options.WatchNamespaces)
	if err != nil {
		return err
	}
	if err := addIndexes(ctx, mgr.GetFieldIndexer()); err != nil {
		return err
	}
	r := &Reconciler{
		Client:           mgr.GetClient(),
		Live:             mgr.GetAPIReader(),
		SecretMetadata:   secretMetadata,
		Clock:            options.Clock,
		Events:           mgr.GetEventRecorder(Name),
		AllowedAuthHosts: options.AllowedAuthHosts,
		access:           access{reader: mgr.GetClient(), namespaces: options.WatchNamespaces},
		shared:           make(chan event.GenericEvent),
	}
	r.issuer = newIssuer(options.AuthClient, options.Clock, r.announceToken)
	r.issuer.pacer = newPacer(options.RequestRate, options.RequestBurst)
	if err := registerTokenMetrics(mgr); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("caches", func(request *http.Request) error {
		if !mgr.GetCache().WaitForCacheSync(request.Context()) || !secretMetadata.WaitForCacheSync(request.Context()) {
			return errors.New("the caches are not filled yet")
		}
		return nil
	}); err != nil {
		return err
	}
	if err := setupGrants(mgr, r.access, options.Clock); err != nil {
		return err
	}
	// Handlers read the cache itself: waiting for it here would be waiting for themselves.
	affected := affectedTokens{reader: mgr.GetCache()}
	b := ctrl.NewControllerManagedBy(mgr).
		Named(Name).
		For(&v1alpha1.SFMCToken{}, builder.WithPredicates(predicate.Or(predicate.GenerationChangedPredicate{}, refreshRequestChanged))).
		WatchesRawSource(source.Kind(mgr.GetCache(), &corev1.Secret{}, handler.TypedEnqueueRequestsFromMapFunc(affected.byTarget))).
		WatchesRawSource(source.Kind(secretMetadata, secretKind(), handler.TypedEnqueueRequestsFromMapFunc(affected.byMetadata))).
		WatchesRawSource(source.Kind(mgr.GetCache(), &v1alpha1.SFMCAccessGrant{}, handler.TypedEnqueueRequestsFromMapFunc(affected.byGrant),
			predicate.TypedGenerationChangedPredicate[*v1alpha1.SFMCAccessGrant]{})).
		WatchesRawSource(source.Channel(r.shared, &handler.EnqueueRequestForObject{})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: options.Concurrency,
			RateLimiter:             queueDelay(),
			NewQueue:                newQueue(options.Clock),
			EnableWarmup:            ptr.To(true), // the next leader is ready to go
		})
	if len(options.WatchNamespaces) == 0 {
		b = b.WatchesRawSource(source.Kind(mgr.GetCache(), namespaceKind(), handler.TypedEnqueueRequestsFromMapFunc(affected.byNamespace),
			predicate.TypedLabelChangedPredicate[*metav1.PartialObjectMetadata]{}))
	}
	return b.Complete(r)
}

// newQueue makes a plain first-in-first-out queue: a renewal that is due waits only for what came before it, while a
// priority queue would let a stream of other events overtake it. The clock is passed in.
func newQueue(clock clock.WithTicker) func(string, workqueue.TypedRateLimiter[reconcile.Request]) workqueue.TypedRateLimitingInterface[reconcile.Request] {
	return func(name string, limiter workqueue.TypedRateLimiter[reconcile.Request]) workqueue.TypedRateLimitingInterface[reconcile.Request] {
		return workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[reconcile.Request]{Name: name, Clock: clock})
	}
}

// queueDelay is how long the queue waits after an error of the Kubernetes API: 1 s doubling to 60 s, ±50 %. The usual
// limiter's 1,000 s are almost a token's life.
func queueDelay() workqueue.TypedRateLimiter[reconcile.Request] {
	return jittered{workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](transientFirst, transientMost)}
}

type jittered struct {
	workqueue.TypedRateLimiter[reconcile.Request]
}

func (j jittered) When(item reconcile.Request) time.Duration {
	return time.Duration(float64(j.TypedRateLimiter.When(item)) * (0.5 + rand.Float64())) //nolint:gosec // spreads load, guards nothing
}

var refreshRequestChanged = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	return e.ObjectOld.GetAnnotations()[v1alpha1.RefreshRequestedAtAnnotation] != e.ObjectNew.GetAnnotations()[v1alpha1.RefreshRequestedAtAnnotation]
}}

// affectedTokens finds the SFMCTokens that something matters to.
type affectedTokens struct{ reader client.Reader }

func (a affectedTokens) list(ctx context.Context, options ...client.ListOption) []reconcile.Request {
	var tokens v1alpha1.SFMCTokenList
	if err := a.reader.List(ctx, &tokens, options...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "find the SFMCTokens that a change matters to")
		return nil
	}
	requests := make([]reconcile.Request, 0, len(tokens.Items))
	for i := range tokens.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&tokens.Items[i])})
	}
	return requests
}

func (a affectedTokens) byTarget(ctx context.Context, secret *corev1.Secret) []reconcile.Request {
	return a.list(ctx, client.InNamespace(secret.Namespace), client.MatchingFields{indexTarget: secret.Name})
}

func (a affectedTokens) byMetadata(ctx context.Context, secret *metav1.PartialObjectMetadata) []reconcile.Request {
	requests := a.list(ctx, client.MatchingFields{indexCredentials: client.ObjectKeyFromObject(secret).String()})
	if !isManaged(secret) { // else the other cache has it whole
		requests = append(requests, a.list(ctx, client.InNamespace(secret.Namespace), client.MatchingFields{indexTarget: secret.Name})...)
	}
	return requests
}

func (a affectedTokens) byGrant(ctx context.Context, grant *v1alpha1.SFMCAccessGrant) []reconcile.Request {
	var requests []reconcile.Request
	for _, accountID := range grant.Spec.AccountIDs {
		for _, from := range grant.Spec.From {
			requests = append(requests, a.list(ctx, client.InNamespace(from.Namespace), // all namespaces if it is a selector
				client.MatchingFields{indexAccess: accessKey(grant.Namespace, grant.Spec.CredentialsSecretRef.Name, string(accountID))})...)
		}
	}
	return requests
}

func (a affectedTokens) byNamespace(ctx context.Context, namespace *metav1.PartialObjectMetadata) []reconcile.Request {
	return a.list(ctx, client.InNamespace(namespace.Name), client.MatchingFields{indexForeign: "true"})
}

func addIndexes(ctx context.Context, indexer client.FieldIndexer) error {
	token := func(value func(*v1alpha1.SFMCToken) string) client.IndexerFunc {
		return func(obj client.Object) []string { return []string{value(obj.(*v1alpha1.SFMCToken))} } //nolint:forcetypeassert // indexed as such
	}
	foreign := func(value func(*v1alpha1.SFMCToken) string) client.IndexerFunc {
		return func(obj client.Object) []string {
			if t := obj.(*v1alpha1.SFMCToken); isForeign(t) { //nolint:forcetypeassert // indexed as such
				return []string{value(t)}
			}
			return nil
		}
	}
	secret := func(values func(*corev1.Secret) []string) client.IndexerFunc {
		return func(obj client.Object) []string { return values(obj.(*corev1.Secret)) } //nolint:forcetypeassert // indexed as such
	}
	for _, index := range []struct {
		object client.Object
		field  string
		value  client.IndexerFunc
	}{
		{&v1alpha1.SFMCToken{}, indexCredentials, token(func(t *v1alpha1.SFMCToken) string { return credentialsKey(t).String() })},
		{&v1alpha1.SFMCToken{}, indexAccess, foreign(func(t *v1alpha1.SFMCToken) string {
			return accessKey(t.CredentialsNamespace(), t.Spec.CredentialsSecretRef.Name, t.Spec.AccountID)
		})},
		{&v1alpha1.SFMCToken{}, indexForeign, foreign(func(*v1alpha1.SFMCToken) string { return "true" })},
		{&v1alpha1.SFMCAccessGrant{}, indexGrant, func(obj client.Object) []string {
			return grantKeys(obj.(*v1alpha1.SFMCAccessGrant)) //nolint:forcetypeassert // indexed as such
		}},
		{&v1alpha1.SFMCToken{}, indexTarget, token((*v1alpha1.SFMCToken).TargetSecretName)},
		{&corev1.Secret{}, indexIdentity, secret(func(s *corev1.Secret) []string { return recordOf(s.Annotations).identities() })},
		{&corev1.Secret{}, indexOwner, secret(func(s *corev1.Secret) []string {
			if owner := metav1.GetControllerOf(s); owner != nil && isSFMCToken(*owner) {
				return []string{string(owner.UID)}
			}
			return nil
		})},
	} {
		if err := indexer.IndexField(ctx, index.object, index.field, index.value); err != nil {
			return fmt.Errorf("index %s: %w", index.field, err)
		}
	}
	return nil
}

func secretKind() *metav1.PartialObjectMetadata {
	secret := &metav1.PartialObjectMetadata{}
	secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	return secret
}
