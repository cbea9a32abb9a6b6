package target

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// recordAnnotation of a target Secret holds the record, in JSON.
const recordAnnotation = "sfmctoken.dev/issued"

// Record is what the operator must remember of the token in a target Secret, and of the Secret itself. It is written
// together with the token in one request, so a crash can't part them. The version before and the one after read it too:
// so these fields stay, new ones stand outside of the seal, and what isn't known here is kept.
type Record struct {
	// Owner is the SFMCToken's name: a retained Secret comes back to an SFMCToken of the same name.
	Owner string `json:"owner"`
	token.IssuedFor
	IssuedAt  time.Time `json:"issuedAt,omitzero"`
	ExpiresAt time.Time `json:"expiresAt,omitzero"`
	Proof     string    `json:"proof,omitempty"`
	Notes
	// RefreshRequest is the refresh request that the token answers.
	RefreshRequest string `json:"refreshRequest,omitempty"`
	// Labels and Annotations are the keys that come from the template, to be removed when they leave it.
	Labels      []string `json:"labels,omitempty"`
	Annotations []string `json:"annotations,omitempty"`
	// Seal is a hash of the token's keys in the Secret and of this record; it doesn't match after an edit by hand. Keys
	// from templates needn't be sealed: they are made again at each reconciliation.
	Seal string `json:"seal"`

	// OwnerUID is the SFMCToken's UID while it retains the Secret, which has no owner reference then. Not sealed.
	OwnerUID types.UID `json:"ownerUID,omitempty"`
}

// Notes are what is known of the credentials as they were read last, so that they needn't be read again.
type Notes struct {
	// Credentials is the version of the credentials Secret.
	Credentials string `json:"credentials,omitempty"`
	// Aliases are the identities that the same token would have under the package's other client secret.
	Aliases []string `json:"aliases,omitempty"`
	// Refused is the identity that was refused, during a rotation, before the other client secret was tried.
	Refused string `json:"refused,omitempty"`
	// ClientSecretKey is the key of the client secret that Marketing Cloud accepts.
	ClientSecretKey string `json:"clientSecretKey,omitempty"`
	// ClientSecretExpiresAt is when client_secret expires, in RFC 3339; empty if that isn't said.
	ClientSecretExpiresAt string `json:"clientSecretExpiresAt,omitempty"`
}

// recordOf returns the record of a Secret; it is zero if the Secret has none that can be read.
func recordOf(secret metav1.Object) Record {
	var found Record
	if err := json.Unmarshal([]byte(secret.GetAnnotations()[recordAnnotation]), &found); err != nil {
		return Record{}
	}
	return found
}

// encoded returns the record in JSON, with what another version of the operator wrote into the one before. If nothing
// else has changed, that stays to the letter: versions that take turns have nothing to write.
func (r Record) encoded(before string) string {
	encoded := mustMarshal(r)
	all, old := map[string]json.RawMessage{}, Record{}
	if before == string(encoded) || json.Unmarshal([]byte(before), &all) != nil {
		return string(encoded)
	}
	maps.DeleteFunc(all, func(field string, _ json.RawMessage) bool { return isKnown(field) })
	switch {
	case len(all) == 0:
		return string(encoded)
	case json.Unmarshal([]byte(before), &old) == nil && bytes.Equal(encoded, mustMarshal(old)):
		return before
	}
	if err := json.Unmarshal(encoded, &all); err != nil {
		panic(err) // it was just made
	}
	return string(mustMarshal(all))
}

var recordFields = reflect.VisibleFields(reflect.TypeFor[Record]())

// isKnown reports whether a field is read into a record, which JSON does without regard to case.
func isKnown(name string) bool {
	return slices.ContainsFunc(recordFields, func(field reflect.StructField) bool {
		known, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		return strings.EqualFold(name, known)
	})
}

// sealed returns the record with the seal for the token's keys in this data.
func (r Record) sealed(data map[string][]byte) Record {
	sealing := r
	sealing.Seal, sealing.OwnerUID = "", ""
	fields := []string{string(mustMarshal(sealing))}
	byName := func(a, b token.Key) int { return strings.Compare(a.Name, b.Name) }
	for _, key := range slices.SortedFunc(slices.Values(token.Keys), byName) {
		if value, found := data[key.Name]; found {
			fields = append(fields, key.Name, string(value))
		}
	}
	r.Seal = token.Hash(fields...)
	return r
}

func mustMarshal(value any) []byte {
	encoded, err := json.Marshal(value)
	if err != nil {
		panic(err) // strings and times always marshal
	}
	return encoded
}

// IdentitiesOf returns those of the token in a target Secret, by its metadata alone; none if it holds no token.
func IdentitiesOf(secret metav1.Object) []string { return recordOf(secret).Identities() }

// Identities returns all by which the token can be asked for.
func (r Record) Identities() []string {
	if r.Identity == "" {
		return nil
	}
	return append([]string{r.Identity}, r.Aliases...)
}

// tokenIn returns the token that a target Secret holds, nil if it holds none or was edited since it was written.
func (r Record) tokenIn(secret *corev1.Secret) *token.Token {
	if r.Identity == "" || r.Seal != r.sealed(secret.Data).Seal {
		return nil
	}
	held := &token.Token{IssuedFor: r.IssuedFor, IssuedAt: r.IssuedAt, ExpiresAt: r.ExpiresAt, Proof: r.Proof}
	held.ExpiresIn = r.ExpiresAt.Sub(r.IssuedAt)
	if !held.ReadData(secret.Data) {
		return nil
	}
	return held
}

// publicFields are those fields of a record that may be shown to whom the Secret may not be: no digest is among them.
var publicFields = []string{
	"owner", "authHost", "accountID", "scopes", "issuedAt", "expiresAt", "refreshRequest", "labels", "annotations",
	"ownerUID", "credentials", "clientSecretKey", "clientSecretExpiresAt",
}

// PublicRecordOf returns what may be shown of the record in a target Secret, by its metadata alone; nil if it has none.
func PublicRecordOf(secret metav1.Object) map[string]json.RawMessage {
	if secret.GetAnnotations()[recordAnnotation] == "" {
		return nil
	}
	public := map[string]json.RawMessage{}
	encoded := mustMarshal(recordOf(secret)) // what isn't known here is left out
	if err := json.Unmarshal(encoded, &public); err != nil {
		panic(err) // it was just made
	}
	maps.DeleteFunc(public, func(field string, _ json.RawMessage) bool { return !slices.Contains(publicFields, field) })
	return public
}
