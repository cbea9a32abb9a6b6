package credentials

import (
	"context"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/access"
)

// IndexGrants is the index of SFMCAccessGrants by what they grant to whom; see GrantKeys.
const IndexGrants = "grant"

func (s *Store) isGranted(ctx context.Context, obj *v1alpha1.SFMCToken) (bool, error) {
	grants, err := s.Candidates(ctx, obj)
	for i := range grants {
		if covered, err := s.Covers(ctx, &grants[i], obj); covered || err != nil {
			return covered, err
		}
	}
	return false, err
}

// Candidates returns the grants that may cover an SFMCToken: for its Secret, account, and namespace or a selector.
func (s *Store) Candidates(ctx context.Context, obj *v1alpha1.SFMCToken) ([]v1alpha1.SFMCAccessGrant, error) {
	if len(s.Namespaces) > 0 && !slices.Contains(s.Namespaces, KeyOf(obj).Namespace) {
		return nil, nil
	}
	var found []v1alpha1.SFMCAccessGrant
	beside := client.InNamespace(KeyOf(obj).Namespace)
	for _, from := range []string{obj.Namespace, anyNamespace} {
		key := grantKey(obj.Spec.CredentialsSecretRef.Name, obj.Spec.AccountID, from)
		var grants v1alpha1.SFMCAccessGrantList
		if err := s.Cache.List(ctx, &grants, beside, client.MatchingFields{IndexGrants: key}); err != nil {
			return nil, err
		}
		found = append(found, grants.Items...)
	}
	return found, nil
}

// Covers reports whether a grant alone is enough for an SFMCToken.
func (s *Store) Covers(ctx context.Context, grant *v1alpha1.SFMCAccessGrant, obj *v1alpha1.SFMCToken) (bool, error) {
	if len(s.Namespaces) > 0 {
		return access.Covers(grant, obj, nil)
	}
	return access.Covers(grant, obj, func() (*metav1.PartialObjectMetadata, error) {
		return s.namespace(ctx, obj.Namespace)
	})
}

func (s *Store) namespace(ctx context.Context, name string) (*metav1.PartialObjectMetadata, error) {
	namespace := MetadataOf("Namespace")
	if err := s.Cache.Get(ctx, client.ObjectKey{Name: name}, namespace); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return namespace, nil
}

// IsGoing reports whether a namespace is being deleted, as far as that may be known.
func (s *Store) IsGoing(ctx context.Context, name string) bool {
	if len(s.Namespaces) > 0 {
		return false
	}
	namespace, err := s.namespace(ctx, name)
	return err == nil && namespace != nil && !namespace.DeletionTimestamp.IsZero()
}

// KeepOfNamespace keeps of a namespace what selectors look at, and whether it is being deleted.
func KeepOfNamespace(obj any) (any, error) {
	if namespace, ok := obj.(*metav1.PartialObjectMetadata); ok {
		namespace.ObjectMeta = metav1.ObjectMeta{
			Name: namespace.Name, UID: namespace.UID, ResourceVersion: namespace.ResourceVersion,
			Labels: namespace.Labels, DeletionTimestamp: namespace.DeletionTimestamp,
		}
	}
	return obj, nil
}

// Grants are found by what they are about: reconciling one SFMCToken reads only those that may cover it.

// anyNamespace stands for the namespaces that a selector selects.
const anyNamespace = "*"

func grantKey(secret, accountID, from string) string { return secret + "/" + accountID + "/" + from }

// AccessKey returns what SFMCTokens that refer to another namespace are found by when a grant changes.
func AccessKey(namespace, secret, accountID string) string {
	return namespace + "/" + secret + "/" + accountID
}

// AccessKeys returns the key under which an SFMCToken that refers to another namespace is found; none for any other.
func AccessKeys(obj *v1alpha1.SFMCToken) []string {
	if !IsForeign(obj) {
		return nil
	}
	return []string{AccessKey(KeyOf(obj).Namespace, KeyOf(obj).Name, obj.Spec.AccountID)}
}

// GrantKeys returns all keys under which a grant is found.
func GrantKeys(grant *v1alpha1.SFMCAccessGrant) []string {
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
