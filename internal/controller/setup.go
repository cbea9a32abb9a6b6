package controller

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/utils/clock"
	"k8s.io/utils/lru"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/credentials"
	"github.com/sfmctoken/sfmctoken-operator/internal/issuer"
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
	// Concurrency is how many SFMCTokens are reconciled at once, at least 1; of one namespace at most half as many.
	Concurrency int
	// Clock decides what time it is, also for the queue.
	Clock clock.WithTicker
}

// ManagerOptions returns what the manager must be made with, to work in these namespaces; all if there are none.
func ManagerOptions(namespaces []string) ctrl.Options {
	scheme := runtime.NewScheme()
	utilruntime.Must(corev1.AddToScheme(scheme))
	utilruntime.Must(v1alpha1.AddToScheme(scheme))
	return ctrl.Options{
		Scheme:   scheme,
		NewCache: newCache,
		Cache: cache.Options{
			DefaultNamespaces: only(namespaces),
			DefaultTransform:  keep,
			ByObject: map[client.Object]cache.ByObject{
				// Of Secrets, only the targets are held in memory; see keep.
				&corev1.Secret{}:                    {Label: target.Managed(true)},
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
	if err := addIndexes(ctx, mgr.GetFieldIndexer(), secretMetadata); err != nil {
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
	if err := registerTokenMetrics(mgr, r.issuer, options.Clock); err != nil {
		return err
	}
	if err := mgr.Add(manager.RunnableFunc(r.sendRequests)); err != nil {
		return fmt.Errorf("add the issuer: %w", err)
	}
	if err := setupGrants(mgr, r.credentials, options.Clock); err != nil {
		return err
	}
	return watch(mgr, r, secretMetadata, options)
}

func newReconciler(mgr ctrl.Manager, secretMetadata client.Reader, options Options) *Reconciler {
	memory := &memory{}
	sharers := &sharers{cache: mgr.GetClient(), memory: memory}
	counter := &requestCounter{counted: map[string]bool{}}
	options.Issuer.Clock = options.Clock
	options.Issuer.MaxInFlight = 2 * options.Concurrency
	options.Issuer.Recall, options.Issuer.Observe, options.Issuer.Wake = sharers.recall, counter.observe, sharers.answer
	owned := client.WithFieldOwner(mgr.GetClient(), fieldOwner)
	return &Reconciler{
		objects: &objects{owned, mgr.GetAPIReader(), secretMetadata, lru.New(maxNewer)},
		credentials: &credentials.Store{
			Live:             mgr.GetAPIReader(),
			Metadata:         secretMetadata,
			Cache:            mgr.GetClient(),
			Namespaces:       options.WatchNamespaces,
			AllowedAuthHosts: options.AllowedAuthHosts,
		},
		issuer:   issuer.New(options.Issuer),
		sharers:  sharers,
		memory:   memory,
		contests: &contests{},
		clock:    options.Clock,
		events:   mgr.GetEventRecorder(Name),
	}
}

// watch has SFMCTokens reconciled when something changes that matters to them.
func watch(mgr ctrl.Manager, r *Reconciler, secretMetadata cache.Cache, options Options) error {
	fair, err := fairly(mgr, Name, options.Concurrency, options.Clock)
	if err != nil {
		return err
	}
	fair.NewQueue = r.sharers.newQueue(fair.NewQueue)
	fair.EnableWarmup = ptr.To(true) // the next leader is ready to go
	affected := affectedTokens{reader: mgr.GetCache()}
	specOrRequest := predicate.Or(predicate.GenerationChangedPredicate{}, refreshRequestChanged)
	b := ctrl.NewControllerManagedBy(mgr).
		Named(Name).
		For(&v1alpha1.SFMCToken{}, builder.WithPredicates(specOrRequest)).
		WatchesRawSource(source.Kind[client.Object](mgr.GetCache(), &corev1.Secret{},
			handler.EnqueueRequestsFromMapFunc(affected.bySecret))).
		WatchesRawSource(source.Kind[client.Object](secretMetadata, credentials.MetadataOf("Secret"),
			handler.EnqueueRequestsFromMapFunc(affected.bySecret))).
		WatchesRawSource(source.Kind(mgr.GetCache(), &v1alpha1.SFMCAccessGrant{},
			handler.TypedEnqueueRequestsFromMapFunc(affected.byGrant),
			predicate.TypedGenerationChangedPredicate[*v1alpha1.SFMCAccessGrant]{})).
		WithOptions(fair)
	if len(options.WatchNamespaces) == 0 {
		b = b.WatchesRawSource(source.Kind(mgr.GetCache(), credentials.MetadataOf("Namespace"),
			handler.TypedEnqueueRequestsFromMapFunc(affected.byNamespace),
			predicate.TypedLabelChangedPredicate[*metav1.PartialObjectMetadata]{}))
	}
	return b.Complete(r)
}

// newQueue has the sharers woken through the queue that start makes.
func (s *sharers) newQueue(start func(string, rateLimiter) queue) func(string, rateLimiter) queue {
	return func(name string, limiter rateLimiter) queue {
		q := start(name, limiter)
		s.wake = func(key types.NamespacedName) { q.Add(reconcile.Request{NamespacedName: key}) }
		return q
	}
}
