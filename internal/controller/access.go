package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

// access knows who may use the credentials of another namespace. It answers from the cache.
type access struct {
	reader client.Reader
	// namespaces are those that the operator works in, all if there are none. If there are, it may not read
	// namespaces' labels.
	namespaces []string
}

// accessDeniedError means that no grant covers a reference to another namespace. It says the same whether that
// namespace, the Secret or any grant is there or not, so that nobody learns by asking.
type accessDeniedError struct {
	namespace, secretNamespace, secret, accountID string
	scopes                                        []string
}

func (e *accessDeniedError) Error() string {
	what := "the scopes " + strings.Join(e.scopes, " ")
	if len(e.scopes) == 0 {
		what = "all scopes of the package, since spec.scopes is absent"
	}
	return fmt.Sprintf("namespace %q is not granted the credentials Secret %q of namespace %q for account %s with %s; "+
		"ask the owners of that namespace for an SFMCAccessGrant that covers all of this",
		e.namespace, e.secret, e.secretNamespace, e.accountID, what)
}

// authorize is an accessDeniedError unless an SFMCToken may use its credentials Secret: one of its own namespace, or one
// beside which a single SFMCAccessGrant covers its namespace, account and scopes.
func (a access) authorize(ctx context.Context, obj *v1alpha1.SFMCToken) error {
	if !isForeign(obj) {
		return nil
	}
	granted, err := a.isGranted(ctx, obj)
	if err != nil {
		return fmt.Errorf("look for an SFMCAccessGrant: %w", err)
	}
	if granted {
		return nil
	}
	ref := obj.Spec.CredentialsSecretRef
	return &accessDeniedError{namespace: obj.Namespace, secretNamespace: ref.Namespace, secret: ref.Name, accountID: obj.Spec.AccountID, scopes: scopesOf(&obj.Spec)}
}

// isForeign tells whether an SFMCToken refers to another namespace.
func isForeign(obj *v1alpha1.SFMCToken) bool { return obj.CredentialsNamespace() != obj.Namespace }

// isRevoked tells whether an SFMCToken has lost the use of credentials in another namespace: its grant, or the Secret.
func isRevoked(obj *v1alpha1.SFMCToken, err error) bool {
	var denied *accessDeniedError
	var notFound *credentialsNotFoundError
	return errors.As(err, &denied) || isForeign(obj) && errors.As(err, &notFound)
}

func (a access) isGranted(ctx context.Context, obj *v1alpha1.SFMCToken) (bool, error) {
	grants, err := a.candidates(ctx, obj)
	for i := range grants {
		if covered, err := a.covers(ctx, &grants[i], obj); covered || err != nil {
			return covered, err
		}
	}
	return false, err
}

// candidates are the grants that may cover an SFMCToken: for its namespace or a selector, its Secret and its account.
func (a access) candidates(ctx context.Context, obj *v1alpha1.SFMCToken) ([]v1alpha1.SFMCAccessGrant, error) {
	if len(a.namespaces) > 0 && !slices.Contains(a.namespaces, obj.CredentialsNamespace()) {
		return nil, nil
	}
	var found []v1alpha1.SFMCAccessGrant
	for _, from := range []string{obj.Namespace, anyNamespace} {
		key := grantKey(obj.Spec.CredentialsSecretRef.Name, obj.Spec.AccountID, from)
		var grants v1alpha1.SFMCAccessGrantList
		if err := a.reader.List(ctx, &grants, client.InNamespace(obj.CredentialsNamespace()), client.MatchingFields{indexGrant: key}, unwaited); err != nil {
			return nil, err
		}
		found = append(found, grants.Items...)
	}
	return found, nil
}

// covers tells whether a grant alone is enough for an SFMCToken.
func (a access) covers(ctx context.Context, grant *v1alpha1.SFMCAccessGrant, obj *v1alpha1.SFMCToken) (bool, error) {
	spec := &grant.Spec
	if !grant.DeletionTimestamp.IsZero() || grant.Namespace != obj.CredentialsNamespace() ||
		spec.CredentialsSecretRef.Name != obj.Spec.CredentialsSecretRef.Name ||
		!slices.Contains(spec.AccountIDs, v1alpha1.AccountID(obj.Spec.AccountID)) || !coversScopes(spec.Scopes, obj.Spec.Scopes) {
		return false, nil
	}
	for _, from := range spec.From {
		if from.Namespace == obj.Namespace {
			return true, nil
		}
		selector, err := selectorOf(from)
		if err != nil || from.NamespaceSelector == nil || len(a.namespaces) > 0 {
			continue // the grant's status says if this entry can't be used
		}
		namespace, err := a.namespace(ctx, obj.Namespace)
		if err != nil {
			return false, err
		}
		if namespace != nil && selector.Matches(labels.Set(namespace.Labels)) {
			return true, nil
		}
	}
	return false, nil
}

// coversScopes: a bound covers those who name their scopes, all of them within it.
func coversScopes(bound, wanted []v1alpha1.Scope) bool {
	if len(bound) == 0 {
		return true
	}
	return len(wanted) > 0 && !slices.ContainsFunc(wanted, func(scope v1alpha1.Scope) bool { return !slices.Contains(bound, scope) })
}

func selectorOf(from v1alpha1.AccessGrantFrom) (labels.Selector, error) {
	return metav1.LabelSelectorAsSelector(from.NamespaceSelector)
}

// namespace is what is known of a namespace; nil if there is none of the name.
func (a access) namespace(ctx context.Context, name string) (*metav1.PartialObjectMetadata, error) {
	namespace := namespaceKind()
	if err := a.reader.Get(ctx, client.ObjectKey{Name: name}, namespace, unwaited); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return namespace, nil
}

// isGoing tells whether a namespace is being deleted, as far as that may be known.
func (a access) isGoing(ctx context.Context, name string) bool {
	if len(a.namespaces) > 0 {
		return false
	}
	namespace, err := a.namespace(ctx, name)
	return err == nil && namespace != nil && !namespace.DeletionTimestamp.IsZero()
}

// keepOfNamespace keeps of a namespace what selectors look at, and whether it is being deleted.
func keepOfNamespace(obj any) (any, error) {
	if namespace, ok := obj.(*metav1.PartialObjectMetadata); ok {
		namespace.ObjectMeta = metav1.ObjectMeta{Name: namespace.Name, UID: namespace.UID, ResourceVersion: namespace.ResourceVersion,
			Labels: namespace.Labels, DeletionTimestamp: namespace.DeletionTimestamp}
	}
	return obj, nil
}

func namespaceKind() *metav1.PartialObjectMetadata {
	namespace := &metav1.PartialObjectMetadata{}
	namespace.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Namespace"))
	return namespace
}

// Grants are found by what they are about, so that a look at one SFMCToken reads only those that may cover it, however
// many there are.

// anyNamespace stands for the namespaces that a selector selects.
const anyNamespace = "*"

func grantKey(secret, accountID, from string) string {
	return strings.Join([]string{secret, accountID, from}, "/")
}

// accessKey is what SFMCTokens that refer to another namespace are found by when a grant changes.
func accessKey(secretNamespace, secret, accountID string) string {
	return strings.Join([]string{secretNamespace, secret, accountID}, "/")
}

// grantKeys are all under which a grant is found.
func grantKeys(grant *v1alpha1.SFMCAccessGrant) []string {
	var keys []string
	for _, accountID := range grant.Spec.AccountIDs {
		for _, from := range grant.Spec.From {
			namespace := from.Namespace
			if namespace == "" {
				namespace = anyNamespace
			}
			keys = append(keys, grantKey(grant.Spec.CredentialsSecretRef.Name, string(accountID), namespace))
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}
