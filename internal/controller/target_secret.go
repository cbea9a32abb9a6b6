package controller

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

// ManagedByLabel with the value ManagedByValue is on every target Secret; only such Secrets are cached.
const (
	ManagedByLabel = "app.kubernetes.io/managed-by"
	ManagedByValue = "sfmctoken-operator"
)

// nobody is the owner of a target Secret that was given up: the garbage collector deletes what belongs to an owner
// that doesn't exist, so the operator needs no right to delete Secrets.
const nobody = types.UID("00000000-0000-0000-0000-000000000000")

// writeTimeout bounds a write that goes on although the operator is being stopped.
const writeTimeout = 10 * time.Second

// target is the target Secret as it is.
type target struct {
	secret *corev1.Secret // nil if there is none
	record record
	held   *issued // the token in it; nil if there is none, or if it was edited by hand
}

// targetConflictError means that the target Secret belongs to somebody else.
type targetConflictError struct{ name, owner string }

func (e *targetConflictError) Error() string {
	return fmt.Sprintf("the target Secret %q exists and belongs to %s; it is left untouched: choose another spec.target.name, or delete that Secret", e.name, e.owner)
}

// readTarget reads the target Secret from the cache. It is a targetConflictError if the Secret isn't this SFMCToken's.
func (r *Reconciler) readTarget(ctx context.Context, obj *v1alpha1.SFMCToken) (target, error) {
	key := types.NamespacedName{Namespace: obj.Namespace, Name: obj.TargetSecretName()}
	secret := &corev1.Secret{}
	err := r.get(ctx, key, secret)
	if apierrors.IsNotFound(err) {
		// Not there, or without the operator's label and so not in this cache.
		var found *metav1.PartialObjectMetadata
		found, err = r.secretMetadata(ctx, key)
		switch {
		case err != nil:
			return target{}, err
		case found == nil:
			return target{}, nil
		case !isManaged(found) && !belongsTo(found, obj):
			return target{}, &targetConflictError{name: key.Name, owner: ownerOf(found)}
		}
		err = r.Live.Get(ctx, key, secret)
		if apierrors.IsNotFound(err) {
			return target{}, nil
		}
	}
	if err != nil {
		return target{}, fmt.Errorf("read the target Secret: %w", err)
	}
	switch {
	case !belongsTo(secret, obj):
		return target{}, &targetConflictError{name: key.Name, owner: ownerOf(secret)}
	case secret.Type != corev1.SecretTypeOpaque:
		// Kubernetes gives other types a meaning: into one of them it writes a ServiceAccount's token.
		return target{}, &targetConflictError{name: key.Name, owner: "somebody who gave it the type " + string(secret.Type)}
	}
	return targetFrom(secret), nil
}

func targetFrom(secret *corev1.Secret) target {
	rec := recordOf(secret.Annotations)
	return target{secret: secret, record: rec, held: heldBy(secret, rec)}
}

// belongsTo tells whether a Secret is the SFMCToken's own: it has its owner reference (also that of an earlier
// SFMCToken of the name, whose Secret the garbage collector hasn't got to yet), or was retained for its name.
func belongsTo(secret metav1.Object, obj *v1alpha1.SFMCToken) bool {
	if owner := metav1.GetControllerOf(secret); owner != nil {
		return isSFMCToken(*owner) && (owner.UID == obj.UID || owner.Name == obj.Name)
	}
	return isManaged(secret) && recordOf(secret.GetAnnotations()).Owner == obj.Name
}

// isManaged tells whether a Secret has the operator's label.
func isManaged(secret metav1.Object) bool {
	return secret.GetLabels()[ManagedByLabel] == ManagedByValue
}

func isSFMCToken(owner metav1.OwnerReference) bool {
	return owner.Kind == "SFMCToken" && strings.HasPrefix(owner.APIVersion, v1alpha1.GroupVersion.Group+"/")
}

// setOwner makes an SFMCToken the controlling owner, in place of any other SFMCToken.
func setOwner(secret *corev1.Secret, name string, uid types.UID) {
	secret.OwnerReferences = append(slices.DeleteFunc(secret.OwnerReferences, isSFMCToken), metav1.OwnerReference{
		APIVersion: v1alpha1.GroupVersion.String(), Kind: "SFMCToken", Name: name, UID: uid, Controller: ptr.To(true),
	})
}

// ownerOf names the owner of a Secret for people.
func ownerOf(secret metav1.Object) string {
	if owner := metav1.GetControllerOf(secret); owner != nil {
		return owner.Kind + " " + owner.Name
	}
	if owner := recordOf(secret.GetAnnotations()).Owner; owner != "" {
		return "SFMCToken " + owner + ", for which it was retained"
	}
	return "somebody else"
}

// compose returns the target Secret as it should be: with this token, or empty if it is nil. What others added to
// its metadata stays, what an earlier template added goes.
func compose(was target, obj *v1alpha1.SFMCToken, token *issued, rec record) *corev1.Secret {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: obj.Namespace, Name: obj.TargetSecretName()}, Type: corev1.SecretTypeOpaque}
	if was.secret != nil {
		secret = was.secret.DeepCopy()
	}
	template := templateOf(obj).Metadata
	secret.Labels = replaceKeys(secret.Labels, was.record.Labels, template.Labels)
	secret.Annotations = replaceKeys(secret.Annotations, was.record.Annotations, template.Annotations)
	secret.Labels[ManagedByLabel] = ManagedByValue
	setOwner(secret, obj.Name, obj.UID)
	if obj.RetainsTarget() {
		secret.OwnerReferences = slices.DeleteFunc(secret.OwnerReferences, isSFMCToken)
	}
	secret.Data = token.data()
	rec.Owner = obj.Name
	rec.Labels = slices.Sorted(maps.Keys(template.Labels))
	rec.Annotations = slices.Sorted(maps.Keys(template.Annotations))
	if token != nil {
		rec.issuedFor, rec.IssuedAt, rec.ExpiresAt, rec.Proof = token.issuedFor, token.IssuedAt.UTC().Round(0), token.ExpiresAt.UTC().Round(0), token.Proof
	}
	encoded, err := json.Marshal(rec.sealed(secret.Data))
	if err != nil {
		panic(err) // strings and times always marshal
	}
	secret.Annotations[recordAnnotation] = string(encoded)
	return secret
}

// templateOf is the target's template; without any, it is empty.
func templateOf(obj *v1alpha1.SFMCToken) v1alpha1.TargetTemplate {
	if obj.Spec.Target == nil || obj.Spec.Target.Template == nil {
		return v1alpha1.TargetTemplate{}
	}
	return *obj.Spec.Target.Template
}

func replaceKeys[V ~string](have map[string]string, remove []string, add map[string]V) map[string]string {
	result := map[string]string{}
	maps.Copy(result, have)
	for _, key := range remove {
		delete(result, key)
	}
	for key, value := range add {
		result[key] = string(value)
	}
	return result
}

// writeTarget makes the target Secret hold this token and these further keys, in one request, or in none if it does
// already. It returns what the Secret holds afterwards.
func (r *Reconciler) writeTarget(ctx context.Context, obj *v1alpha1.SFMCToken, was target, token *issued, further map[string][]byte, known notes) (*issued, error) {
	secret := compose(was, obj, token, record{notes: known, RefreshRequest: obj.RefreshRequest()})
	maps.Copy(secret.Data, further)
	if err := r.writeSecret(ctx, was.secret, secret); err != nil {
		return was.held, err
	}
	return token, nil
}

// dropWrong takes the token out of the target Secret if it must not be there.
func (r *Reconciler) dropWrong(ctx context.Context, obj *v1alpha1.SFMCToken, was target, wrong func(record) bool) (*issued, error) {
	if was.secret == nil || !wrong(was.record) {
		return was.held, nil
	}
	secret := compose(was, obj, nil, record{})
	if err := r.writeSecret(ctx, was.secret, secret); err != nil {
		return was.held, err
	}
	return nil, nil
}

// isWrong tells whether the token is for another business unit, tenant or client than the spec names. wanted is empty if
// the credentials can't be read; another reference counts as another client then.
func (rec record) isWrong(obj *v1alpha1.SFMCToken, wanted []*want) bool {
	switch {
	case rec.Identity == "": // holds no token
		return false
	case rec.AccountID != obj.Spec.AccountID:
		return true
	case len(wanted) > 0:
		return rec.client() != wanted[0].client()
	default:
		return rec.credentialsSecret() != credentialsKey(obj)
	}
}

// writeSecret creates or updates a target Secret, if it differs from what is there. A write that was begun is
// finished also while the operator is being stopped: the token in it has been paid for.
func (r *Reconciler) writeSecret(ctx context.Context, is, should *corev1.Secret) error {
	if is != nil && equality.Semantic.DeepEqual(is, should) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeTimeout)
	defer cancel()
	var err error
	if is == nil {
		err = r.Client.Create(ctx, should)
	} else {
		err = r.Client.Update(ctx, should)
	}
	if err != nil {
		return fmt.Errorf("write the target Secret %q: %w", should.Name, err)
	}
	return nil
}

// releaseFormer gives up target Secrets of earlier names: emptied, and left to the garbage collector. While the new
// one isn't written, only a token that must not be there is taken out of them.
func (r *Reconciler) releaseFormer(ctx context.Context, obj *v1alpha1.SFMCToken, wrong func(record) bool, written bool) error {
	formers, err := r.formerTargets(ctx, obj)
	if err != nil {
		return err
	}
	for i := range formers {
		former := targetFrom(&formers[i])
		if !written && !wrong(former.record) {
			continue
		}
		secret := compose(former, obj, nil, record{})
		if written {
			setOwner(secret, obj.Name, nobody)
		}
		if err := r.writeSecret(ctx, former.secret, secret); err != nil {
			return err
		}
	}
	return nil
}

// formerTargets are the Secrets of earlier names: those that the SFMCToken owns, and one without an owner, because it
// is retained, that the status names.
func (r *Reconciler) formerTargets(ctx context.Context, obj *v1alpha1.SFMCToken) ([]corev1.Secret, error) {
	var owned corev1.SecretList
	if err := r.Client.List(ctx, &owned, client.InNamespace(obj.Namespace), client.MatchingFields{indexOwner: string(obj.UID)}, unwaited); err != nil {
		return nil, fmt.Errorf("list the target Secrets: %w", err)
	}
	if last := obj.Status.TargetSecretName; last != "" && last != obj.TargetSecretName() {
		var retained corev1.Secret
		err := r.get(ctx, types.NamespacedName{Namespace: obj.Namespace, Name: last}, &retained)
		if client.IgnoreNotFound(err) != nil {
			return nil, fmt.Errorf("read the target Secret of an earlier name: %w", err)
		}
		if err == nil && metav1.GetControllerOf(&retained) == nil && belongsTo(&retained, obj) {
			owned.Items = append(owned.Items, retained)
		}
	}
	return slices.DeleteFunc(owned.Items, func(secret corev1.Secret) bool {
		return secret.Name == obj.TargetSecretName() || secret.Type != corev1.SecretTypeOpaque
	}), nil
}
