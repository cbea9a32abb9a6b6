// Package credentials leads from what an SFMCToken refers to, if it may, to the token requests that it permits.
package credentials

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
)

// Store has the credentials of all namespaces, and knows who may use those of another one.
type Store struct {
	// Live reads from the API server: client secrets are kept in no cache.
	Live client.Reader
	// Metadata reads the metadata of Secrets without the operator's label from a cache, Cache everything else.
	Metadata, Cache client.Reader
	// Namespaces to work in, all if none. If there are, namespaces' labels may not be read.
	Namespaces []string
	// AllowedAuthHosts are authentication hosts to accept beside Marketing Cloud's own, as HOST or HOST:PORT.
	AllowedAuthHosts []string
}

// kind is what a reference leads to. What isn't known here is denied.
type kind string

const kindSecret kind = "Secret"

// Reference is an SFMCToken's reference to its credentials.
type Reference struct {
	// Key is the name of what is referred to.
	Key   types.NamespacedName
	kind  kind
	store *Store
	obj   *v1alpha1.SFMCToken
}

// Of returns an SFMCToken's reference.
func (s *Store) Of(obj *v1alpha1.SFMCToken) Reference {
	return Reference{KeyOf(obj), kindSecret, s, obj}
}

// KeyOf returns the name of what an SFMCToken refers to.
func KeyOf(obj *v1alpha1.SFMCToken) types.NamespacedName {
	ref := obj.Spec.CredentialsSecretRef
	return types.NamespacedName{Namespace: cmp.Or(ref.Namespace, obj.Namespace), Name: ref.Name}
}

// IsForeign reports whether an SFMCToken refers to another namespace.
func IsForeign(obj *v1alpha1.SFMCToken) bool { return KeyOf(obj).Namespace != obj.Namespace }

// Wakers returns what must wake an SFMCToken when it changes.
func Wakers(obj *v1alpha1.SFMCToken) []string { return []string{SecretWaker(KeyOf(obj))} }

// SecretWaker returns the waker that a Secret is.
func SecretWaker(secret types.NamespacedName) string {
	return string(kindSecret) + " " + secret.String()
}

// Allow returns a problem unless the SFMCToken may use what it refers to: what is in its own namespace, or what is in
// another one and beside which a single SFMCAccessGrant covers its namespace, account and scopes.
func (r Reference) Allow(ctx context.Context) error {
	isKnown := r.kind == kindSecret
	if isKnown && !IsForeign(r.obj) {
		return nil
	}
	granted, err := r.store.isGranted(ctx, r.obj)
	if err != nil {
		return fmt.Errorf("look for an SFMCAccessGrant: %w", err)
	}
	if !isKnown || !granted {
		return r.denied()
	}
	_, err = r.Version(ctx)
	return err
}

// denied says the same whether that Secret or any grant is there or not, so that nobody learns by asking.
func (r Reference) denied() error {
	what := "all scopes of the package, since spec.scopes is absent"
	if scopes := r.obj.RequestedScopes(); len(scopes) > 0 {
		what = "the scopes " + strings.Join(scopes, " ")
	}
	denied := problem.New(v1alpha1.ReasonAccessDenied, fmt.Errorf("namespace %q is not granted the credentials %s %q "+
		"of namespace %q for account %s with %s; ask the owners of that namespace for an SFMCAccessGrant that covers "+
		"all of this", r.obj.Namespace, r.kind, r.Key.Name, r.Key.Namespace, r.obj.Spec.AccountID, what))
	denied.Revokes = true
	return denied
}

// notFound says that the credentials aren't there (yet). In another namespace that takes away their use.
func (r Reference) notFound(ctx context.Context) error {
	missing := problem.New(v1alpha1.ReasonCredentialsNotFound, fmt.Errorf("the credentials %s %q does not exist in "+
		"namespace %q; create it with the keys %s, %s and %s%s",
		r.kind, r.Key.Name, r.Key.Namespace, keyClientID, keyClientSecret, keyAuthBaseURI, r.likelyCause(ctx)))
	missing.Revokes = IsForeign(r.obj)
	return missing
}

// likelyCause names a Secret that kustomize may have made, which puts a hash behind the name. Of another namespace
// nobody learns what is there.
func (r Reference) likelyCause(ctx context.Context) string {
	secrets := MetadataListOf("Secret")
	if IsForeign(r.obj) || r.store.Metadata.List(ctx, secrets, client.InNamespace(r.Key.Namespace),
		client.UnsafeDisableDeepCopy) != nil {
		return ""
	}
	first := "" // in an order that stays the same
	for i := range secrets.Items {
		if name := secrets.Items[i].Name; strings.HasPrefix(name, r.Key.Name+"-") && (first == "" || name < first) {
			first = name
		}
	}
	if first == "" {
		return ""
	}
	return fmt.Sprintf("; Secret %q is there: if kustomize made it, kustomize must be told to put the hash behind its "+
		"name into spec.credentialsSecretRef.name, too: see config/kustomize", first)
}

// Version names the credentials as they are now, by the cache. As long as it stays the same, they needn't be read.
func (r Reference) Version(ctx context.Context) (string, error) {
	var secret client.Object = MetadataOf("Secret")
	err := r.store.Metadata.Get(ctx, r.Key, secret)
	if apierrors.IsNotFound(err) { // or it has the operator's label
		secret = &corev1.Secret{}
		err = r.store.Cache.Get(ctx, r.Key, secret)
	}
	if apierrors.IsNotFound(err) { // or that was put on it just now, and neither cache shows it
		secret = MetadataOf("Secret")
		err = r.store.Live.Get(ctx, r.Key, secret)
	}
	if apierrors.IsNotFound(err) {
		return "", r.notFound(ctx)
	} else if err != nil {
		return "", fmt.Errorf("look up the credentials Secret: %w", err)
	}
	return versionOf(secret), nil
}

func versionOf(secret metav1.Object) string {
	version := []string{secret.GetNamespace(), secret.GetName(), string(secret.GetUID()), secret.GetResourceVersion()}
	return strings.Join(version, "/")
}

// KeyIn returns the name that is in a version.
func KeyIn(version string) types.NamespacedName {
	parts := strings.SplitN(version, "/", 3)
	if len(parts) < 3 {
		return types.NamespacedName{}
	}
	return types.NamespacedName{Namespace: parts[0], Name: parts[1]}
}

// Read reads the credentials from the API server, past the cache.
func (r Reference) Read(ctx context.Context) (Credentials, error) {
	var secret corev1.Secret
	if err := r.store.Live.Get(ctx, r.Key, &secret); apierrors.IsNotFound(err) {
		return Credentials{}, r.notFound(ctx)
	} else if err != nil {
		return Credentials{}, fmt.Errorf("read the credentials Secret: %w", err)
	}
	read, err := parse(secret.Data, r.store.AllowedAuthHosts)
	if err != nil {
		return Credentials{}, fmt.Errorf("the credentials Secret %q can't be used: %w", r.Key.Name, err)
	}
	read.Version = versionOf(&secret)
	return read, nil
}

// MetadataOf returns an empty Secret or Namespace, of which the metadata alone is read.
func MetadataOf(kind string) *metav1.PartialObjectMetadata {
	empty := &metav1.PartialObjectMetadata{}
	empty.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind))
	return empty
}

// MetadataListOf returns an empty list of those.
func MetadataListOf(kind string) *metav1.PartialObjectMetadataList {
	empty := &metav1.PartialObjectMetadataList{}
	empty.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind(kind + "List"))
	return empty
}
