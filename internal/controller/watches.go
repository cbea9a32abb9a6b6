package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/credentials"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
)

// Indexes of the caches.
const (
	indexCredentials = "credentials"  // of SFMCTokens: what they must be woken by
	indexTarget      = "targetSecret" // of SFMCTokens: the target Secret's name
	indexAccess      = "access"       // of SFMCTokens that refer to another namespace: what they need a grant for
	indexOwner       = "owner"        // of target Secrets, with the operator's label or not: the owning SFMCToken's UID
	indexIdentity    = "identity"     // of target Secrets: the identities of the token that they hold
)

func addIndexes(ctx context.Context, indexer, secretMetadata client.FieldIndexer) error {
	targetName := func(obj *v1alpha1.SFMCToken) []string { return []string{obj.TargetSecretName()} }
	ownerUID := func(secret *corev1.Secret) []string { return []string{string(target.OwnerUID(secret))} }
	identities := func(secret *corev1.Secret) []string { return target.IdentitiesOf(secret) }
	return errors.Join(
		addIndex(ctx, indexer, indexCredentials, credentials.Wakers),
		addIndex(ctx, indexer, indexAccess, credentials.AccessKeys),
		addIndex(ctx, indexer, indexTarget, targetName),
		addIndex(ctx, indexer, credentials.IndexGrants, credentials.GrantKeys),
		addIndex(ctx, indexer, indexOwner, ownerUID),
		addIndex(ctx, indexer, indexIdentity, identities),
		secretMetadata.IndexField(ctx, credentials.MetadataOf("Secret"), indexOwner, func(obj client.Object) []string {
			return []string{string(target.OwnerUID(obj))}
		}),
	)
}

// addIndex adds an index of objects of one type.
func addIndex[T any, P interface {
	*T
	client.Object
}](ctx context.Context, indexer client.FieldIndexer, field string, values func(P) []string) error {
	return indexer.IndexField(ctx, P(new(T)), field, func(obj client.Object) []string {
		return values(obj.(P)) //nolint:forcetypeassert // indexed as such
	})
}

var refreshRequestChanged = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	const annotation = v1alpha1.RefreshRequestedAtAnnotation
	return e.ObjectOld.GetAnnotations()[annotation] != e.ObjectNew.GetAnnotations()[annotation]
}}

// affectedTokens finds the SFMCTokens that something matters to.
type affectedTokens struct{ reader client.Reader }

func (a affectedTokens) list(ctx context.Context, options ...client.ListOption) []reconcile.Request {
	var tokens v1alpha1.SFMCTokenList
	if err := a.reader.List(ctx, &tokens, append(options, client.UnsafeDisableDeepCopy)...); err != nil {
		ctrl.LoggerFrom(ctx).Error(err, "find the SFMCTokens that a change matters to")
		return nil
	}
	requests := make([]reconcile.Request, 0, len(tokens.Items))
	for i := range tokens.Items {
		requests = append(requests, reconcile.Request{NamespacedName: client.ObjectKeyFromObject(&tokens.Items[i])})
	}
	return requests
}

// bySecret finds those of which a Secret is the target or the credentials.
func (a affectedTokens) bySecret(ctx context.Context, secret client.Object) []reconcile.Request {
	waker := credentials.SecretWaker(client.ObjectKeyFromObject(secret))
	byName := client.MatchingFields{indexTarget: secret.GetName()}
	requests := a.list(ctx, client.InNamespace(secret.GetNamespace()), byName)
	return append(requests, a.list(ctx, client.MatchingFields{indexCredentials: waker})...)
}

func (a affectedTokens) byGrant(ctx context.Context, grant *v1alpha1.SFMCAccessGrant) []reconcile.Request {
	var requests []reconcile.Request
	for _, accountID := range grant.Spec.AccountIDs {
		key := credentials.AccessKey(grant.Namespace, grant.Spec.CredentialsSecretRef.Name, string(accountID))
		for _, from := range grant.Spec.From {
			namespace := client.InNamespace(from.Namespace) // all namespaces if it is a selector
			requests = append(requests, a.list(ctx, namespace, client.MatchingFields{indexAccess: key})...)
		}
	}
	return requests
}

func (a affectedTokens) byNamespace(ctx context.Context, namespace *metav1.PartialObjectMetadata) []reconcile.Request {
	return a.list(ctx, client.InNamespace(namespace.Name))
}

// keep leaves of an object what the operator needs. Anybody can make the rest as large as an object may be.
func keep(obj any) (any, error) {
	switch obj := obj.(type) {
	case *corev1.Secret:
		target.Keep(obj)
	case *v1alpha1.SFMCToken:
		request := strings.Clone(obj.RefreshRequest()) // a part of a text would hold all of it
		keepOfMetadata(obj)
		if request != "" {
			obj.Annotations = map[string]string{v1alpha1.RefreshRequestedAtAnnotation: request}
		}
	case *v1alpha1.SFMCAccessGrant:
		keepOfMetadata(obj)
	}
	return obj, nil
}

func keepOfMetadata(obj client.Object) {
	obj.SetManagedFields(nil)
	obj.SetAnnotations(nil)
	obj.SetLabels(nil)
}

// newSecretMetadataCache watches the metadata of Secrets without the operator's label, which the manager's cache leaves
// out: it shows when credentials change and whether a target's name is taken.
func newSecretMetadataCache(mgr ctrl.Manager, namespaces []string) (cache.Cache, error) {
	metadata, err := newCache(mgr.GetConfig(), cache.Options{
		Scheme:               mgr.GetScheme(),
		Mapper:               mgr.GetRESTMapper(),
		HTTPClient:           mgr.GetHTTPClient(),
		DefaultNamespaces:    only(namespaces),
		DefaultLabelSelector: target.Managed(false),
		DefaultTransform: func(obj any) (any, error) {
			if secret, ok := obj.(*metav1.PartialObjectMetadata); ok {
				target.KeepMarks(secret)
			}
			return obj, nil
		},
	})
	if err != nil {
		return nil, fmt.Errorf("make the cache of Secret metadata: %w", err)
	}
	if err := mgr.Add(cacheOfEveryReplica{metadata}); err != nil {
		return nil, fmt.Errorf("add the cache of Secret metadata: %w", err)
	}
	return metadata, nil
}

// only restricts a cache to some namespaces; to none if there are none.
func only(namespaces []string) map[string]cache.Config {
	configs := map[string]cache.Config{}
	for _, namespace := range namespaces {
		configs[namespace] = cache.Config{}
	}
	return configs
}

// cacheOfEveryReplica is filled whether the replica leads or stands by. Of controller-runtime's caches, the one for
// several namespaces doesn't say so itself, and the replica that stands by would never be ready.
type cacheOfEveryReplica struct{ cache.Cache }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (cacheOfEveryReplica) NeedLeaderElection() bool { return false }
