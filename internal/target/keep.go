package target

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

const (
	// maxKept is how large a target Secret is at most that a cache keeps whole. With a token and templates it has a few
	// KiB. Anybody may put the label and a record on a Secret of 1 MiB.
	maxKept = 16 << 10
	// maxMark is how large one of the marks can be: an owner reference, or what is kept of a record.
	maxMark = 1 << 10
)

// Keep leaves of a Secret what a cache needs: all of it if it can be a target, else the marks. A target of more than
// maxKept is cut too, and one whose record was spoilt: whoever needs it reads it from the API server.
func Keep(secret *corev1.Secret) {
	secret.ManagedFields = nil
	if secret.Size() <= maxKept {
		if record := recordOf(secret); record.Owner != "" && record.Seal != "" {
			return
		}
	}
	*secret = corev1.Secret{ObjectMeta: marksOf(secret)}
}

// IsWhole reports whether all of a Secret is there. What Keep has cut has no type; the API server gives one to each.
func IsWhole(secret *corev1.Secret) bool { return secret.Type != "" }

// KeepMarks leaves of metadata what tells whose a Secret is and which version. An annotation can hold a whole Secret.
func KeepMarks(secret *metav1.PartialObjectMetadata) {
	secret.ObjectMeta = marksOf(secret)
}

// marksOf returns what of a Secret's metadata tells whose it is, which version, and the identities of its token. How
// much that is doesn't depend on what anybody has written there.
func marksOf(secret metav1.Object) metav1.ObjectMeta {
	marks := metav1.ObjectMeta{
		Namespace:       secret.GetNamespace(),
		Name:            secret.GetName(),
		UID:             secret.GetUID(),
		ResourceVersion: secret.GetResourceVersion(),
	}
	if owner := metav1.GetControllerOf(secret); owner != nil && owner.Size() <= maxMark {
		marks.OwnerReferences = []metav1.OwnerReference{*owner}
	}
	if value, found := secret.GetLabels()[ownerLabel]; found {
		marks.Labels = map[string]string{ownerLabel: strings.Clone(value)}
	}
	record := recordOf(secret)
	mark := mustMarshal(Record{Owner: record.Owner, OwnerUID: record.OwnerUID,
		IssuedFor: token.IssuedFor{Identity: record.Identity}, Notes: Notes{Aliases: record.Aliases}})
	if record.Owner != "" && len(mark) <= maxMark {
		marks.Annotations = map[string]string{recordAnnotation: string(mark)}
	}
	return marks
}
