package controller

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/utils/lru"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/credentials"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
)

const (
	// writeTimeout bounds a write that goes on although the operator is being stopped.
	writeTimeout = 10 * time.Second
	// changedDelay is how long to wait before an object is reconciled again that has changed meanwhile.
	changedDelay = time.Second
	// maxNewer bounds what is remembered until the cache shows it: within milliseconds, or a second under load.
	maxNewer = 2048
)

// objects reads and writes SFMCTokens and target Secrets. The cache may be behind this process's own writes, so each
// object is read as it is known best, and no other one for its sake.
type objects struct {
	// client reads from the cache, live from the API server.
	client client.Client
	live   client.Reader
	// metadata has the metadata of Secrets without the operator's label.
	metadata client.Reader
	// newer has objects that the cache hasn't shown yet, by kind and name.
	newer *lru.Cache
}

// get reads an object from the cache, or as it is remembered if the cache doesn't show that yet.
func (o *objects) get(ctx context.Context, key client.ObjectKey, obj client.Object) error {
	err := o.client.Get(ctx, key, obj)
	found, isRemembered := o.newer.Get(nameOf(obj, key))
	if !isRemembered || client.IgnoreNotFound(err) != nil {
		return err
	}
	if err != nil {
		// The cache doesn't show it yet, or shows that it is gone.
		return o.reread(ctx, key, obj)
	}
	newer := found.(client.Object) //nolint:forcetypeassert // nothing else is in it
	order, err := resourceversion.CompareResourceVersion(newer.GetResourceVersion(), obj.GetResourceVersion())
	if err != nil || order <= 0 {
		o.newer.Remove(nameOf(obj, key))
		return nil //nolint:nilerr // versions that can't be compared say nothing
	}
	reflect.ValueOf(obj).Elem().Set(reflect.ValueOf(newer.DeepCopyObject()).Elem())
	return nil
}

func (o *objects) reread(ctx context.Context, key client.ObjectKey, obj client.Object) error {
	o.newer.Remove(nameOf(obj, key))
	err := o.live.Get(ctx, key, obj)
	if err == nil {
		o.remember(obj)
	}
	return err
}

func (o *objects) remember(obj client.Object) {
	newer := obj.DeepCopyObject().(client.Object) //nolint:forcetypeassert // a copy of one
	_, _ = keep(newer)                            // as in the cache; it never fails
	o.newer.Add(nameOf(obj, client.ObjectKeyFromObject(obj)), newer)
}

func nameOf(obj client.Object, key client.ObjectKey) string { return fmt.Sprintf("%T %s", obj, key) }

// written remembers what was written, and says what it means if it could not be.
func (o *objects) written(ctx context.Context, obj client.Object, err error) error {
	switch {
	case err == nil:
		o.remember(obj)
		return nil
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return problem.Superseded(err, 0)
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err):
		// Somebody wrote it after it was read, or the cache is behind; it is no failure to reconcile it as it is now.
		if err := o.reread(ctx, client.ObjectKeyFromObject(obj), obj); client.IgnoreNotFound(err) != nil {
			return err
		}
		return problem.Superseded(err, changedDelay)
	}
	return err
}

// writeSecret creates or updates a target Secret, if it differs from what is there. Where the operator may not change
// who owns the Secret, all the rest is written, and that it may not is returned as denied. A write that was begun is
// finished also while the operator is being stopped: the token in it has been paid for.
func (o *objects) writeSecret(ctx context.Context, current, desired *corev1.Secret) (denied, err error) {
	if current != nil && equality.Semantic.DeepEqual(current, desired) {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	if current == nil {
		err = o.client.Create(ctx, desired)
	} else {
		wanted := desired.DeepCopy()
		if err = o.client.Update(ctx, desired); isOwnerChangeDenied(err) {
			denied = ownerChangeDenied(desired.Name)
			wanted.OwnerReferences = current.OwnerReferences
			wanted.DeepCopyInto(desired)
			if equality.Semantic.DeepEqual(current, desired) {
				return denied, nil
			}
			err = o.client.Update(ctx, desired)
		}
	}
	if err = o.written(ctx, desired, err); err != nil {
		return denied, refused(fmt.Errorf("write the target Secret %q: %w", desired.Name, err))
	}
	return denied, nil
}

// patchStatus writes the status of an SFMCToken, if nobody has changed it since it was read.
func (o *objects) patchStatus(ctx context.Context, before, after *v1alpha1.SFMCToken) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := o.written(ctx, after, o.client.Status().Patch(ctx, after, patch)); err != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	return nil
}

// readTarget reads the target Secret of an SFMCToken. It is a problem if it is somebody else's.
func (o *objects) readTarget(ctx context.Context, obj *v1alpha1.SFMCToken) (target.Target, error) {
	key := client.ObjectKey{Namespace: obj.Namespace, Name: obj.TargetSecretName()}
	if credentials.KeyOf(obj) == key { // the CRD sees it only if the reference names no namespace
		return target.Target{}, target.ConflictWithCredentials(key.Name)
	}
	secret := &corev1.Secret{}
	err := o.get(ctx, key, secret)
	if apierrors.IsNotFound(err) {
		// Not there, or without the operator's label and so not in this cache.
		found := credentials.MetadataOf("Secret")
		if err := o.metadata.Get(ctx, key, found); err != nil {
			return target.Target{}, client.IgnoreNotFound(err)
		}
		if !target.BelongsTo(found, obj) {
			return target.Target{}, target.Conflict(found)
		}
		if err := o.live.Get(ctx, key, secret); err != nil {
			return target.Target{}, client.IgnoreNotFound(err)
		}
	} else if err != nil {
		return target.Target{}, fmt.Errorf("read the target Secret: %w", err)
	}
	if !target.IsWhole(secret) {
		if !target.BelongsTo(secret, obj) { // the marks tell: a stranger's costs no read, however often it changes
			return target.Target{}, target.Conflict(secret)
		}
		if err := o.readWhole(ctx, secret); err != nil {
			return target.Target{}, client.IgnoreNotFound(err)
		}
	}
	return target.Claim(secret, obj)
}

// readWhole reads a Secret from the API server that a cache has cut. Nothing is decided or written by what is left.
func (o *objects) readWhole(ctx context.Context, secret *corev1.Secret) error {
	key := client.ObjectKeyFromObject(secret)
	*secret = corev1.Secret{}
	return o.live.Get(ctx, key, secret)
}

// eachFormer writes what target Secrets of earlier names should be. It returns what may not be changed as denied.
func (o *objects) eachFormer(
	ctx context.Context, obj *v1alpha1.SFMCToken, desired func(former target.Target) *corev1.Secret,
) (denied, err error) {
	names, err := o.formers(ctx, obj)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		former := &corev1.Secret{}
		key := client.ObjectKey{Namespace: obj.Namespace, Name: name}
		if err = o.get(ctx, key, former); apierrors.IsNotFound(err) {
			err = o.live.Get(ctx, key, former) // it may lack the label
		}
		if err == nil && !target.IsWhole(former) {
			err = o.readWhole(ctx, former)
		}
		if err == nil && former.Type == corev1.SecretTypeOpaque && target.OwnerUID(former) == obj.UID {
			var deniedHere error
			deniedHere, err = o.writeSecret(ctx, former, desired(target.Of(former)))
			denied = cmp.Or(denied, deniedHere)
		}
		if client.IgnoreNotFound(err) != nil {
			return denied, err
		}
	}
	return denied, nil
}

// formers returns the names of an SFMCToken's target Secrets but the one that it names now, with the operator's label
// or without.
func (o *objects) formers(ctx context.Context, obj *v1alpha1.SFMCToken) ([]string, error) {
	inNamespace, ownUID := client.InNamespace(obj.Namespace), client.MatchingFields{indexOwner: string(obj.UID)}
	var labelled corev1.SecretList
	if err := o.client.List(ctx, &labelled, inNamespace, ownUID, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list the target Secrets: %w", err)
	}
	all := credentials.MetadataListOf("Secret")
	if err := o.metadata.List(ctx, all, inNamespace, ownUID, client.UnsafeDisableDeepCopy); err != nil {
		return nil, fmt.Errorf("list the metadata of Secrets: %w", err)
	}
	var names []string
	for i := range labelled.Items {
		names = append(names, labelled.Items[i].Name)
	}
	for i := range all.Items {
		names = append(names, all.Items[i].Name)
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return slices.DeleteFunc(names, func(name string) bool { return name == obj.TargetSecretName() }), nil
}

// isTargetMovingAway reports whether the Secret in the way of an SFMCToken is the target of another one that names
// another target now: the two, or more in a ring, exchange their names.
func (o *objects) isTargetMovingAway(ctx context.Context, obj *v1alpha1.SFMCToken) bool {
	secret, holder := credentials.MetadataOf("Secret"), &v1alpha1.SFMCToken{}
	key := client.ObjectKey{Namespace: obj.Namespace, Name: obj.TargetSecretName()}
	labelled := &corev1.Secret{}
	if err := o.get(ctx, key, labelled); err == nil {
		secret.ObjectMeta = labelled.ObjectMeta
	} else if o.metadata.Get(ctx, key, secret) != nil {
		return false
	}
	key.Name = target.OwnerName(secret)
	return key.Name != "" && o.get(ctx, key, holder) == nil && holder.TargetSecretName() != secret.Name
}
