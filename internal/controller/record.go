package controller

import (
	"encoding/json"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"

	"k8s.io/apimachinery/pkg/types"
)

// recordAnnotation of a target Secret holds the record, in JSON.
const recordAnnotation = "sfmctoken.dev/issued"

// record is what the operator must remember of the token in a target Secret, and of the Secret itself. It is written
// together with the token in one request, so a crash can't part them.
type record struct {
	// Owner is the SFMCToken's name: a retained Secret comes back to an SFMCToken of the same name.
	Owner string `json:"owner"`
	issuedFor
	IssuedAt  time.Time `json:"issuedAt,omitzero"`
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
	Proof     string    `json:"proof,omitempty"`
	notes
	// RefreshRequest is the refresh request that the token answers.
	RefreshRequest string `json:"refreshRequest,omitempty"`
	// Labels and Annotations are the keys that come from the template, to be removed when they leave it.
	Labels      []string `json:"labels,omitempty"`
	Annotations []string `json:"annotations,omitempty"`
	// Seal is a hash of the token's keys in the Secret and of this record; it doesn't match after an edit by hand. Keys
	// from templates needn't be sealed: they are made again at each look.
	Seal string `json:"seal"`
}

// notes are what is known of the credentials as they were read last, so that they needn't be read again.
type notes struct {
	// Credentials is the version of the credentials Secret.
	Credentials string `json:"credentials,omitempty"`
	// Aliases are the identities that the same token would have under the package's other client secret.
	Aliases []string `json:"aliases,omitempty"`
	// Refused is the identity for which the request was refused, during a rotation, before the other client secret
	// was tried.
	Refused string `json:"refused,omitempty"`
	// ClientSecretKey is the key of the client secret that Marketing Cloud accepts.
	ClientSecretKey string `json:"clientSecretKey,omitempty"`
	// ClientSecretExpiresAt is when client_secret expires, in RFC 3339; empty if that isn't said.
	ClientSecretExpiresAt string `json:"clientSecretExpiresAt,omitempty"`
}

// recordOf reads the record of a Secret; it is zero if the Secret has none that can be read.
func recordOf(annotations map[string]string) record {
	var found record
	if err := json.Unmarshal([]byte(annotations[recordAnnotation]), &found); err != nil {
		return record{}
	}
	return found
}

// credentialsSecret is the credentials Secret that was read last.
func (n notes) credentialsSecret() types.NamespacedName {
	parts := strings.SplitN(n.Credentials, "/", 3) // see versionOf
	if len(parts) < 3 {
		return types.NamespacedName{}
	}
	return types.NamespacedName{Namespace: parts[0], Name: parts[1]}
}

// IdentitiesOf are those of the token in a target Secret, by the Secret's metadata alone; none if it holds no token.
func IdentitiesOf(secret metav1.Object) []string {
	return recordOf(secret.GetAnnotations()).identities()
}

// identities are all by which the token can be asked for.
func (rec record) identities() []string {
	if rec.Identity == "" {
		return nil
	}
	return append([]string{rec.Identity}, rec.Aliases...)
}

// sealed returns the record with the seal for the token's keys in this data.
func (rec record) sealed(data map[string][]byte) record {
	rec.Seal = ""
	encoded, err := json.Marshal(rec)
	if err != nil {
		panic(err) // strings and times always marshal
	}
	fields := []string{string(encoded)}
	for _, key := range tokenKeys {
		if value, found := data[key]; found {
			fields = append(fields, key, string(value))
		}
	}
	rec.Seal = hashOf(fields...)
	return rec
}

// Keys of the target Secret.
const (
	keyAccessToken     = "access_token"
	keyTokenType       = "token_type"
	keyExpiresAt       = "expires_at"
	keyAccountID       = "account_id"
	keyScope           = "scope"
	keyRESTInstanceURL = "rest_instance_url"
	keySOAPInstanceURL = "soap_instance_url"
)

// tokenKeys are the keys that tell of the token, in their sealed order.
var tokenKeys = []string{keyAccessToken, keyAccountID, keyExpiresAt, keyRESTInstanceURL, keyScope, keySOAPInstanceURL, keyTokenType}

// data is what the target Secret holds of a token; nothing for no token.
func (t *issued) data() map[string][]byte {
	data := map[string][]byte{}
	if t == nil {
		return data
	}
	for key, value := range map[string]string{
		keyAccessToken:     t.AccessToken,
		keyTokenType:       t.TokenType,
		keyExpiresAt:       t.ExpiresAt.UTC().Format(time.RFC3339),
		keyAccountID:       t.AccountID,
		keyScope:           t.Scope,
		keyRESTInstanceURL: t.RESTInstanceURL,
		keySOAPInstanceURL: t.SOAPInstanceURL,
	} {
		if value != "" || key == keyScope {
			data[key] = []byte(value)
		}
	}
	return data
}

// heldBy returns the token that a target Secret holds, nil if it holds none or was edited since it was written.
func heldBy(secret *corev1.Secret, rec record) *issued {
	if rec.Identity == "" || rec.Seal != rec.sealed(secret.Data).Seal {
		return nil
	}
	text := func(key string) string { return string(secret.Data[key]) }
	return &issued{
		Token: sfmc.Token{
			AccessToken:     text(keyAccessToken),
			TokenType:       text(keyTokenType),
			Scope:           text(keyScope),
			RESTInstanceURL: text(keyRESTInstanceURL),
			SOAPInstanceURL: text(keySOAPInstanceURL),
			ExpiresIn:       rec.ExpiresAt.Sub(rec.IssuedAt),
		},
		issuedFor: rec.issuedFor,
		IssuedAt:  rec.IssuedAt,
		ExpiresAt: rec.ExpiresAt,
		Proof:     rec.Proof,
	}
}
