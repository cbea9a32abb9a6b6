package credentials

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
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

var knownKeys = []string{
	keyClientID, keyClientSecret, keyClientSecretStaged, keyClientSecretExpiresAt, keyAuthBaseURI,
}

// unreadable stands for a client_secret_expires_at that is neither a date nor a time.
const unreadable = "unreadable"

// Credentials are what the credentials Secret holds, checked.
type Credentials struct {
	// Version names the credentials Secret as it was read.
	Version string
	// ExpiresAt is when client_secret expires, in RFC 3339; empty if that isn't said, unreadable if it can't be read.
	ExpiresAt string

	authHost, clientID, clientSecret, clientSecretStaged string
}

// parse checks the data of a credentials Secret. Its errors name keys and never quote values.
func parse(data map[string][]byte, allowedHosts []string) (Credentials, error) {
	var wrong []string
	value := func(key string) string {
		raw, found := data[key]
		// `kubectl create secret --from-file` leaves a final newline, a browser's copy a space.
		trimmed := strings.TrimSpace(string(raw))
		if trimmed == "" && key == keyClientSecretStaged {
			return "" // no rotation is under way
		}
		if mistake := mistakeIn(trimmed, found); mistake != "" {
			wrong = append(wrong, fmt.Sprintf("key %s %s", key, mistake))
		}
		return trimmed
	}
	parsed := Credentials{
		clientID:           value(keyClientID),
		clientSecret:       value(keyClientSecret),
		clientSecretStaged: value(keyClientSecretStaged),
		ExpiresAt:          parseExpiry(strings.TrimSpace(string(data[keyClientSecretExpiresAt]))),
	}
	uri := value(keyAuthBaseURI)
	if len(wrong) > 0 {
		err := errors.New(strings.Join(wrong, "; ") + otherKeys(data))
		return Credentials{}, problem.New(v1alpha1.ReasonCredentialsInvalid, err)
	}
	host, err := sfmc.ParseAuthBaseURI(uri, allowedHosts)
	if err != nil {
		return Credentials{}, problem.New(v1alpha1.ReasonHostNotAllowed, fmt.Errorf("key %s: %w", keyAuthBaseURI, err))
	}
	parsed.authHost = host
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

// SecretKeys are the keys of the client secrets in the order of Requests.
var SecretKeys = []string{keyClientSecret, keyClientSecretStaged}

// Requests returns the token requests for an SFMCToken: with the active secret, in a rotation with the staged one, too.
func (c Credentials) Requests(obj *v1alpha1.SFMCToken) []sfmc.TokenRequest {
	active := sfmc.TokenRequest{
		AuthHost:     c.authHost,
		ClientID:     c.clientID,
		ClientSecret: c.clientSecret,
		AccountID:    obj.Spec.AccountID,
		Scopes:       obj.RequestedScopes(),
	}
	if c.clientSecretStaged == "" || c.clientSecretStaged == c.clientSecret {
		return []sfmc.TokenRequest{active}
	}
	staged := active
	staged.ClientSecret = c.clientSecretStaged
	return []sfmc.TokenRequest{active, staged}
}

// Explain adds to a refusal that the client secret has expired, if that is what the credentials Secret says.
func Explain(err error, expiresAt string, now time.Time) error {
	at, parseErr := time.Parse(time.RFC3339, expiresAt)
	if parseErr != nil || now.Before(at) || problem.Of(err).Reason != v1alpha1.ReasonRequestRefused {
		return err
	}
	const says = "client_secret_expires_at says that the secret expired on"
	return fmt.Errorf("%w; %s %s", err, says, at.Format(time.DateOnly))
}
