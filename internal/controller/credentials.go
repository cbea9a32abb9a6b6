package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

// Keys of the credentials Secret, named as OAuth names them.
const (
	keyClientID              = "client_id"
	keyClientSecret          = "client_secret"
	keyClientSecretStaged    = "client_secret_staged"     // optional: the next secret, during a rotation
	keyClientSecretExpiresAt = "client_secret_expires_at" // optional: a date or time
	keyAuthBaseURI           = "auth_base_uri"
)

// maxCredential bounds a value in bytes; real ones have less than 100.
const maxCredential = 1024

// credentials are what the credentials Secret holds, checked.
type credentials struct {
	authHost, clientID, clientSecret, clientSecretStaged string
	// expiresAt is when client_secret expires, in RFC 3339; empty if that isn't said, unreadable if it can't be read.
	expiresAt string
}

// unreadable stands for a client_secret_expires_at that is neither a date nor a time.
const unreadable = "unreadable"

// credentialsNotFoundError means that the credentials Secret isn't there (yet).
type credentialsNotFoundError struct{ secret types.NamespacedName }

func (e *credentialsNotFoundError) Error() string {
	return fmt.Sprintf("the credentials Secret %q does not exist in namespace %q; create it with the keys %s, %s and %s",
		e.secret.Name, e.secret.Namespace, keyClientID, keyClientSecret, keyAuthBaseURI)
}

// credentialsInvalidError means that a key of the credentials Secret is missing or malformed.
type credentialsInvalidError struct {
	name string
	err  error
}

func (e *credentialsInvalidError) Error() string {
	return fmt.Sprintf("the credentials Secret %q can't be used: %s", e.name, e.err)
}
func (e *credentialsInvalidError) Unwrap() error { return e.err }

// credentialsKey names the credentials Secret of an SFMCToken.
func credentialsKey(obj *v1alpha1.SFMCToken) types.NamespacedName {
	return types.NamespacedName{Namespace: obj.CredentialsNamespace(), Name: obj.Spec.CredentialsSecretRef.Name}
}

// credentialsVersion names the credentials Secret as it is now, read from the metadata cache; it is empty if there is
// no such Secret. As long as it stays the same, the Secret itself needn't be read.
func (r *Reconciler) credentialsVersion(ctx context.Context, obj *v1alpha1.SFMCToken) (string, error) {
	secret, err := r.secretMetadata(ctx, credentialsKey(obj))
	if err != nil || secret == nil {
		return "", err
	}
	return versionOf(secret), nil
}

func versionOf(secret metav1.Object) string {
	return strings.Join([]string{secret.GetNamespace(), secret.GetName(), string(secret.GetUID()), secret.GetResourceVersion()}, "/")
}

// readCredentials reads the credentials Secret from the API server, past the cache: client secrets are not kept in
// memory. It returns the version that was read beside the credentials.
func (r *Reconciler) readCredentials(ctx context.Context, obj *v1alpha1.SFMCToken) (credentials, string, error) {
	key := credentialsKey(obj)
	var secret corev1.Secret
	if err := r.Live.Get(ctx, key, &secret); apierrors.IsNotFound(err) {
		return credentials{}, "", &credentialsNotFoundError{key}
	} else if err != nil {
		return credentials{}, "", fmt.Errorf("read the credentials Secret: %w", err)
	}
	parsed, err := parseCredentials(secret.Data, r.AllowedAuthHosts)
	if err != nil {
		return credentials{}, "", &credentialsInvalidError{name: key.Name, err: err}
	}
	return parsed, versionOf(&secret), nil
}

// parseCredentials checks the data of a credentials Secret. Its errors name keys and never quote values.
func parseCredentials(data map[string][]byte, allowedHosts []string) (credentials, error) {
	var problems []string
	value := func(key string) string {
		raw, found := data[key]
		// `kubectl create secret --from-file` leaves a final newline, a browser's copy a space.
		trimmed := strings.TrimSpace(string(raw))
		switch {
		case !found && key == keyClientSecretStaged:
			// No rotation is under way.
		case trimmed == "" && key == keyClientSecretStaged:
			// The same, said with an empty value.
		case !found:
			problems = append(problems, fmt.Sprintf("key %s is missing", key))
		case trimmed == "":
			problems = append(problems, fmt.Sprintf("key %s is empty", key))
		case len(trimmed) > maxCredential:
			problems = append(problems, fmt.Sprintf("key %s is longer than %d bytes", key, maxCredential))
		case strings.ContainsFunc(trimmed, func(c rune) bool { return c <= ' ' || c > '~' }):
			problems = append(problems, fmt.Sprintf("key %s has a space, a line break or a character that is not ASCII in the middle", key))
		}
		return trimmed
	}
	parsed := credentials{clientID: value(keyClientID), clientSecret: value(keyClientSecret), clientSecretStaged: value(keyClientSecretStaged)}
	uri := value(keyAuthBaseURI)
	if len(problems) > 0 {
		return credentials{}, errors.New(strings.Join(problems, "; "))
	}
	host, err := sfmc.ParseAuthBaseURI(uri, allowedHosts)
	if err != nil {
		return credentials{}, fmt.Errorf("key %s: %w", keyAuthBaseURI, err)
	}
	parsed.authHost = host
	parsed.expiresAt = parseExpiry(strings.TrimSpace(string(data[keyClientSecretExpiresAt])))
	return parsed, nil
}

// parseExpiry reads a time, or a date, which ends with its day. A mistake in it is no reason to ask for no token.
func parseExpiry(text string) string {
	if text == "" {
		return ""
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at.UTC().Format(time.RFC3339)
	}
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		return day.AddDate(0, 0, 1).Format(time.RFC3339)
	}
	return unreadable
}

// tokenRequests are the requests that serve an SFMCToken with these credentials: with the active secret, and during
// a rotation with the staged one.
func (c credentials) tokenRequests(spec *v1alpha1.SFMCTokenSpec) map[string]sfmc.TokenRequest {
	request := sfmc.TokenRequest{
		AuthHost:     c.authHost,
		ClientID:     c.clientID,
		ClientSecret: c.clientSecret,
		AccountID:    spec.AccountID,
		Scopes:       scopesOf(spec),
	}
	requests := map[string]sfmc.TokenRequest{keyClientSecret: request}
	if c.clientSecretStaged != "" && c.clientSecretStaged != c.clientSecret {
		request.ClientSecret = c.clientSecretStaged
		requests[keyClientSecretStaged] = request
	}
	return requests
}

func scopesOf(spec *v1alpha1.SFMCTokenSpec) []string {
	scopes := make([]string, 0, len(spec.Scopes))
	for _, scope := range spec.Scopes {
		scopes = append(scopes, string(scope))
	}
	return scopes
}

// secretMetadata is a Secret's metadata from the cache; nil if there is no such Secret.
func (r *Reconciler) secretMetadata(ctx context.Context, key client.ObjectKey) (*metav1.PartialObjectMetadata, error) {
	secret := &metav1.PartialObjectMetadata{}
	secret.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	if err := r.SecretMetadata.Get(ctx, key, secret); apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("look up Secret %s: %w", key.Name, err)
	}
	return secret, nil
}
