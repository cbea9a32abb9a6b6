package controller

import (
	"context"
	"errors"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/credentials"
	"github.com/sfmctoken/sfmctoken-operator/internal/issuer"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
)

// Name is the controller's name in events, metrics and logs.
const Name = "sfmctoken"

// Options of the controller.
type Options struct {
	// Issuer has the client and the limits of token requests.
	Issuer issuer.Options
	// AllowedAuthHosts are authentication hosts to accept beside Marketing Cloud's own, as HOST or HOST:PORT.
	AllowedAuthHosts []string
	// WatchNamespaces are the namespaces to work in; all if there are none. The same as for ManagerOptions.
	WatchNamespaces []string
	// Concurrency is how many SFMCTokens are reconciled at once, at least 1.
	Concurrency int
	// Clock decides what time it is, also for the queue.
	Clock clock.WithTicker
}

// ManagerOptions returns what the manager must be made with, to work in these namespaces; all if there are none.
func ManagerOptions(namespaces []string) ctrl.Options {
	scheme := runtime.NewScheme()
	utilruntime.Must(corev1.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	managed := labels.SelectorFromSet(labels.Set{target.ManagedByLabel: target.ManagedByValue})
	return ctrl.Options{
		Scheme: scheme,
		Cache: cache.Options{
			DefaultNamespaces: only(namespaces),
			DefaultTransform:  cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{
				// Of Secrets, only the targets are held in memory.
				&corev1.Secret{}:                    {Label: managed},
				credentials.MetadataOf("Namespace"): {Transform: credentials.KeepOfNamespace},
			},
		},
	}
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
	if err := registerTokenMetrics(mgr); err != nil {
		return err
	}
	if err := mgr.AddReadyzCheck("caches", func(request *http.Request) error {
		ctx := request.Context()
		if !mgr.GetCache().WaitForCacheSync(ctx) || !secretMetadata.WaitForCacheSync(ctx) {
			return errors.New("the caches are not filled yet")
		}
		return nil
	}); err != nil {
		return err
	}
	r := newReconciler(mgr, secretMetadata, options)
	if err := setupGrants(mgr, r.credentials, options.Clock); err != nil {
		return err
	}
	return watch(mgr, r, secretMetadata, options)
}

func newReconciler(mgr ctrl.Manager, secretMetadata client.Reader, options Options) *Reconciler {
	memory := &memory{}
	options.Issuer.Clock = options.Clock
	sharers := &sharers{cache: mgr.GetClient(), memory: memory}
	options.Issuer.Recall, options.Issuer.Observe = sharers.recall, observeRequest
	return &Reconciler{
		objects: &objects{mgr.GetClient(), mgr.GetAPIReader(), secretMetadata, lru.New(maxNewer)},
		credentials: &credentials.Store{
			Live:             mgr.GetAPIReader(),
			Metadata:         secretMetadata,
			Cache:            mgr.GetClient(),
			Namespaces:       options.WatchNamespaces,
			AllowedAuthHosts: options.AllowedAuthHosts,
		},
		issuer:  issuer.New(options.Issuer),
		sharers: sharers,
		memory:  memory,
		clock:   options.Clock,
		events:  mgr.GetEventRecorder(Name),
	}
}

// watch has SFMCTokens reconciled when something changes that matters to them.
func watch(mgr ctrl.Manager, r *Reconciler, secretMetadata cache.Cache, options Options) error {
	affected := affectedTokens{reader: mgr.GetCache()}
	specOrRequest := predicate.Or(predicate.GenerationChangedPredicate{}, refreshRequestChanged)
	b := ctrl.NewControllerManagedBy(mgr).
		Named(Name).
		For(&v1alpha1.SFMCToken{}, builder.WithPredicates(specOrRequest)).
		WatchesRawSource(source.Kind(mgr.GetCache(), &corev1.Secret{},
			handler.TypedEnqueueRequestsFromMapFunc(affected.byTarget))).
		WatchesRawSource(source.Kind(secretMetadata, credentials.MetadataOf("Secret"),
			handler.TypedEnqueueRequestsFromMapFunc(affected.byMetadata))).
		WatchesRawSource(source.Kind(mgr.GetCache(), &v1alpha1.SFMCAccessGrant{},
			handler.TypedEnqueueRequestsFromMapFunc(affected.byGrant),
			predicate.TypedGenerationChangedPredicate[*v1alpha1.SFMCAccessGrant]{})).
		WithOptions(controller.Options{
			MaxConcurrentReconciles: options.Concurrency,
			RateLimiter:             queueDelay(),
			NewQueue:                r.sharers.newQueue(options.Clock),
			EnableWarmup:            ptr.To(true), // the next leader is ready to go
		})
	if len(options.WatchNamespaces) == 0 {
		b = b.WatchesRawSource(source.Kind(mgr.GetCache(), credentials.MetadataOf("Namespace"),
			handler.TypedEnqueueRequestsFromMapFunc(affected.byNamespace),
			predicate.TypedLabelChangedPredicate[*metav1.PartialObjectMetadata]{}))
	}
	return b.Complete(r)
}

type (
	queue       = workqueue.TypedRateLimitingInterface[reconcile.Request]
	rateLimiter = workqueue.TypedRateLimiter[reconcile.Request]
	config      = workqueue.TypedRateLimitingQueueConfig[reconcile.Request]
)

// newQueue makes a plain first-in-first-out queue: a renewal that is due waits only for what came before it, while a
// priority queue would let a stream of other events overtake it. The clock is passed in.
func (s *sharers) newQueue(clock clock.WithTicker) func(string, rateLimiter) queue {
	return func(name string, limiter rateLimiter) queue {
		q := workqueue.NewTypedRateLimitingQueueWithConfig(limiter, config{Name: name, Clock: clock})
		s.wake = func(key types.NamespacedName) { q.Add(reconcile.Request{NamespacedName: key}) }
		return q
	}
}

// queueDelay is how long the queue waits after an error. The usual 1,000 s are almost a token's life.
func queueDelay() rateLimiter {
	const first, limit = problem.FirstRetry, problem.MaxRetry
	return jittered{workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](first, limit)}
}

type jittered struct{ rateLimiter }

// When implements workqueue.TypedRateLimiter.
func (j jittered) When(item reconcile.Request) time.Duration {
	return problem.Jitter(j.rateLimiter.When(item))
}
