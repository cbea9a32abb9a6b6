// Package access knows what an SFMCAccessGrant grants. It is pure, so that the operator, which decides by it, and
// people, who are told of it, mean the same.
package access

import (
	"cmp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

// Covers reports whether a grant alone is enough for an SFMCToken. Its namespace, whose labels selectors look at, is
// asked for only if it matters; it is nil if it doesn't exist. Without that function, no selector selects anything.
func Covers(
	grant *v1alpha1.SFMCAccessGrant, token *v1alpha1.SFMCToken,
	namespaceOf func() (*metav1.PartialObjectMetadata, error),
) (bool, error) {
	ref := token.Spec.CredentialsSecretRef
	if !grant.DeletionTimestamp.IsZero() || grant.Namespace != cmp.Or(ref.Namespace, token.Namespace) ||
		grant.Spec.CredentialsSecretRef.Name != ref.Name ||
		!slices.Contains(grant.Spec.AccountIDs, v1alpha1.AccountID(token.Spec.AccountID)) ||
		!coversScopes(grant.Spec.Scopes, token.Spec.Scopes) {
		return false, nil
	}
	for _, from := range grant.Spec.From {
		if from.Namespace == token.Namespace {
			return true, nil
		}
		selector, err := metav1.LabelSelectorAsSelector(from.NamespaceSelector)
		if err != nil || from.NamespaceSelector == nil || namespaceOf == nil {
			continue // the grant's status says if this entry can't be used
		}
		namespace, err := namespaceOf()
		if err != nil {
			return false, err
		}
		if namespace != nil && selector.Matches(labels.Set(namespace.Labels)) {
			return true, nil
		}
	}
	return false, nil
}

// coversScopes reports whether a bound covers the requested scopes: they must be named, and be within it.
func coversScopes(bound, requested []v1alpha1.Scope) bool {
	isBeyond := func(scope v1alpha1.Scope) bool { return !slices.Contains(bound, scope) }
	return len(bound) == 0 || len(requested) > 0 && !slices.ContainsFunc(requested, isBeyond)
}
