// Package target knows the target Secret: what it holds, whose it is, what it should be. It reads and writes nothing.
package target

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/target/template"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// ManagedByLabel with the value ManagedByValue is on every target Secret; only such Secrets are cached with their data.
const (
	ManagedByLabel = "app.kubernetes.io/managed-by"
	ManagedByValue = "sfmctoken-operator"
)

// ownerLabel with the SFMCToken's UID is a mark of the operator's own, beside the owner reference and the record: each
// of them tells whose a target Secret is, so that no single edit makes it a stranger's.
const ownerLabel = "sfmctoken.dev/owner-uid"

// nobody is the owner of a target Secret that was released: the garbage collector deletes what belongs to an owner that
// doesn't exist, so the operator needs no right to delete Secrets.
const nobody = types.UID("00000000-0000-0000-0000-000000000000")

// Target is a target Secret as it is.
type Target struct {
	// Secret is nil if there is none.
	Secret *corev1.Secret
	Record Record
	// Token is nil if the Secret holds none, or was edited by hand.
	Token *token.Token
}

// Of returns what a Secret is as a target.
func Of(secret *corev1.Secret) Target {
	record := recordOf(secret)
	return Target{Secret: secret, Record: record, Token: record.tokenIn(secret)}
}

// Claim returns what a Secret is to an SFMCToken, as its target. It is a problem if the Secret is somebody else's.
func Claim(secret *corev1.Secret, obj *v1alpha1.SFMCToken) (Target, error) {
	switch {
	case !BelongsTo(secret, obj):
		return Target{}, Conflict(secret)
	case secret.Type != corev1.SecretTypeOpaque:
		// Kubernetes gives other types a meaning: into one of them it writes a ServiceAccount's token.
		return Target{}, conflict(secret, "somebody who gave it the type "+string(secret.Type))
	}
	return Of(secret), nil
}

// Conflict returns the problem that a Secret is somebody else's.
func Conflict(secret metav1.Object) error {
	owner, retainedFor := metav1.GetControllerOf(secret), recordOf(secret).Owner
	switch {
	case owner != nil:
		return conflict(secret, owner.Kind+" "+owner.Name)
	case retainedFor != "":
		return conflict(secret, "SFMCToken "+retainedFor+", for which it was retained")
	}
	return conflict(secret, "somebody else")
}

// ConflictWithCredentials returns the problem that a target is to be the credentials Secret.
func ConflictWithCredentials(name string) error {
	return problem.New(v1alpha1.ReasonTargetConflict, fmt.Errorf("the target Secret %q is the credentials Secret "+
		"itself, which is left untouched: set spec.target.name to another name", name))
}

func conflict(secret metav1.Object, owner string) error {
	return problem.New(v1alpha1.ReasonTargetConflict, fmt.Errorf("the target Secret %q exists and belongs to %s; "+
		"it is left untouched: choose another spec.target.name, or delete that Secret", secret.GetName(), owner))
}

// BelongsTo reports whether a Secret is the SFMCToken's own. One mark is enough: its owner reference (also that of an
// earlier SFMCToken of the name, whose Secret the garbage collector hasn't got to yet), its record, or its label.
func BelongsTo(secret metav1.Object, obj *v1alpha1.SFMCToken) bool {
	owner := metav1.GetControllerOf(secret)
	if owner != nil {
		return isSFMCToken(*owner) && (owner.UID == obj.UID || owner.Name == obj.Name)
	}
	return recordOf(secret).Owner == obj.Name || secret.GetLabels()[ownerLabel] == string(obj.UID)
}

// OwnerUID returns the UID of the SFMCToken to which a Secret belongs: by its owner reference, or if it has none, by
// its label or its record. It is empty for any other Secret.
func OwnerUID(secret metav1.Object) types.UID {
	owner, labelled := metav1.GetControllerOf(secret), types.UID(secret.GetLabels()[ownerLabel])
	switch {
	case owner != nil && isSFMCToken(*owner):
		return owner.UID
	case owner != nil:
		return ""
	}
	return cmp.Or(labelled, recordOf(secret).OwnerUID)
}

// OwnerName returns the name of the SFMCToken to which a Secret belongs, as far as that is recorded.
func OwnerName(secret metav1.Object) string {
	if owner := metav1.GetControllerOf(secret); owner != nil {
		if isSFMCToken(*owner) {
			return owner.Name
		}
		return ""
	}
	return recordOf(secret).Owner
}

// Managed selects the Secrets that have the operator's label, or those that don't.
func Managed(is bool) labels.Selector {
	operator := selection.NotEquals
	if is {
		operator = selection.Equals
	}
	requirement, err := labels.NewRequirement(ManagedByLabel, operator, []string{ManagedByValue})
	if err != nil {
		panic(err) // it is always the same
	}
	return labels.NewSelector().Add(*requirement)
}

func isSFMCToken(owner metav1.OwnerReference) bool {
	return owner.Kind == "SFMCToken" && strings.HasPrefix(owner.APIVersion, v1alpha1.GroupVersion.Group+"/")
}

func ownerReference(name string, uid types.UID) metav1.OwnerReference {
	return metav1.OwnerReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "SFMCToken", Name: name, UID: uid,
		Controller: ptr.To(true)}
}

// Render returns the further keys that templates make of a token. On token.Specimen it tells whether they can.
func Render(obj *v1alpha1.SFMCToken, held *token.Token) (map[string][]byte, error) {
	data, err := template.Render(obj.TargetTemplate().Data, held.Fields())
	if err != nil {
		return nil, problem.New(v1alpha1.ReasonTemplateInvalid, err)
	}
	return data, nil
}

// Filled returns the target Secret with a token, what is known of the credentials, and further keys from templates.
func (t Target) Filled(
	obj *v1alpha1.SFMCToken, held *token.Token, notes Notes, further map[string][]byte,
) *corev1.Secret {
	record := Record{IssuedFor: held.IssuedFor, IssuedAt: held.IssuedAt.UTC().Round(0), Proof: held.Proof,
		ExpiresAt: held.ExpiresAt.UTC().Round(0), Notes: notes, RefreshRequest: obj.RefreshRequest()}
	secret := t.compose(obj, held, record)
	maps.Copy(secret.Data, further)
	return secret
}

// Emptied returns the target Secret without a token. It stays, so that mounted volumes do.
func (t Target) Emptied(obj *v1alpha1.SFMCToken) *corev1.Secret { return t.compose(obj, nil, Record{}) }

// Released returns an emptied target Secret that the garbage collector deletes.
func (t Target) Released(obj *v1alpha1.SFMCToken) *corev1.Secret {
	secret := t.Emptied(obj)
	secret.OwnerReferences = append(withoutOwner(secret), ownerReference(obj.Name, nobody))
	return secret
}

// compose returns the target Secret as it should be: with this token, or empty if it is nil. What others added to its
// metadata stays, what an earlier template added goes.
func (t Target) compose(obj *v1alpha1.SFMCToken, held *token.Token, record Record) *corev1.Secret {
	secret := &corev1.Secret{Type: corev1.SecretTypeOpaque}
	secret.Namespace, secret.Name = obj.Namespace, obj.TargetSecretName()
	if t.Secret != nil {
		secret = t.Secret.DeepCopy()
	}
	wanted := obj.TargetTemplate().Metadata
	secret.Labels = replaceKeys(secret.Labels, t.Record.Labels, wanted.Labels)
	secret.Annotations = replaceKeys(secret.Annotations, t.Record.Annotations, wanted.Annotations)
	secret.Labels[ManagedByLabel] = ManagedByValue
	secret.Labels[ownerLabel] = string(obj.UID)
	secret.OwnerReferences = withoutOwner(secret)
	if obj.RetainsTarget() {
		record.OwnerUID = obj.UID
	} else {
		secret.OwnerReferences = append(secret.OwnerReferences, ownerReference(obj.Name, obj.UID))
	}
	secret.Data = held.Data()
	record.Owner = obj.Name
	record.Labels = slices.Sorted(maps.Keys(wanted.Labels))
	record.Annotations = slices.Sorted(maps.Keys(wanted.Annotations))
	secret.Annotations[recordAnnotation] = record.sealed(secret.Data).encoded(secret.Annotations[recordAnnotation])
	return secret
}

func withoutOwner(secret *corev1.Secret) []metav1.OwnerReference {
	return slices.DeleteFunc(secret.OwnerReferences, isSFMCToken)
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
