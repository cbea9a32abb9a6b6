package controller

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
)

// newSecretMetadataCache watches the metadata of all Secrets: it shows when credentials change and whether a target's
// name is taken. It is a cache of its own, because the manager's restricts Secrets to the targets, metadata included.
func newSecretMetadataCache(mgr ctrl.Manager, namespaces []string) (cache.Cache, error) {
	metadata, err := cache.New(mgr.GetConfig(), cache.Options{
		Scheme:            mgr.GetScheme(),
		Mapper:            mgr.GetRESTMapper(),
		HTTPClient:        mgr.GetHTTPClient(),
		DefaultNamespaces: only(namespaces),
		DefaultTransform:  keepLittle,
	})
	if err != nil {
		return nil, fmt.Errorf("make the cache of Secret metadata: %w", err)
	}
	if err := mgr.Add(cacheOfEveryReplica{metadata}); err != nil {
		return nil, fmt.Errorf("add the cache of Secret metadata: %w", err)
	}
	return metadata, nil
}

// cacheOfEveryReplica is filled whether the replica leads or stands by. Of controller-runtime's caches, the one for
// several namespaces doesn't say so itself, and the replica that stands by would never be ready.
type cacheOfEveryReplica struct{ cache.Cache }

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (cacheOfEveryReplica) NeedLeaderElection() bool { return false }

// keepLittle keeps of a Secret's metadata what tells whose it is and which version. An annotation can hold a whole
// Secret: kubectl apply writes one.
func keepLittle(obj any) (any, error) {
	secret, ok := obj.(*metav1.PartialObjectMetadata)
	if !ok {
		return obj, nil
	}
	kept := metav1.ObjectMeta{
		Namespace:       secret.Namespace,
		Name:            secret.Name,
		UID:             secret.UID,
		ResourceVersion: secret.ResourceVersion,
		OwnerReferences: secret.OwnerReferences,
	}
	if isManaged(secret) {
		kept.Labels = map[string]string{ManagedByLabel: ManagedByValue} // the other cache has the rest
	} else if record, found := secret.Annotations[recordAnnotation]; found {
		kept.Annotations = map[string]string{recordAnnotation: record}
	}
	secret.ObjectMeta = kept
	return secret, nil
}
