package controller

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

// issued is a token with what the operator must remember of it.
type issued struct {
	sfmc.Token
	issuedFor
	// IssuedAt is when the request was sent; ExpiresAt is the reported life later.
	IssuedAt, ExpiresAt time.Time
	// Proof shows that this token was issued to a holder of the client secret; see prove.
	Proof string
}

// issuedFor says what a token was asked for, without any secret.
type issuedFor struct {
	// Identity tells tokens apart: equal for equal auth host, client id, client secret, account and scopes.
	Identity string `json:"identity,omitempty"`
	AuthHost string `json:"authHost,omitempty"`
	// ClientIDHash stands for the client id, which is nobody's business who may read the target.
	ClientIDHash string   `json:"clientIDHash,omitempty"`
	AccountID    string   `json:"accountID,omitempty"`
	Scopes       []string `json:"scopes,omitempty"`
}

// identify names the token that a request asks for. The identity is keyed with the client secret, so that it neither
// gives the secret away nor can be computed by anyone who lacks it.
func identify(request sfmc.TokenRequest) issuedFor {
	scopes := slices.Sorted(slices.Values(request.Scopes))
	mac := hmac.New(sha256.New, []byte(request.ClientSecret))
	writeFields(mac, append([]string{request.AuthHost, request.ClientID, request.AccountID}, scopes...)...)
	return issuedFor{
		Identity:     hex.EncodeToString(mac.Sum(nil)),
		AuthHost:     request.AuthHost,
		ClientIDHash: hashOf(request.ClientID),
		AccountID:    request.AccountID,
		Scopes:       scopes,
	}
}

// prove returns what only a holder of the client secret can compute of a token. A token is taken over from another
// target Secret only if its proof is right, so nobody can plant one by writing a Secret.
func (t *issued) prove(clientSecret string) string {
	mac := hmac.New(sha256.New, []byte(clientSecret))
	writeFields(mac, t.Identity, t.AuthHost, t.ClientIDHash, t.AccountID, fmt.Sprintf("%q", t.Scopes),
		t.AccessToken, t.TokenType, t.Scope, t.RESTInstanceURL, t.SOAPInstanceURL,
		t.IssuedAt.UTC().Format(time.RFC3339Nano), t.ExpiresAt.UTC().Format(time.RFC3339Nano))
	return hex.EncodeToString(mac.Sum(nil))
}

// client names the client at its host: what is throttled as a whole, and what a token must never be mixed up about.
func (f issuedFor) client() string { return f.AuthHost + " " + f.ClientIDHash }

// fits tells whether a token acts in the business unit and with the scopes that are asked for. That a client secret
// was rotated since doesn't matter to the token's reader.
func (f issuedFor) fits(accountID string, scopes []string) bool {
	return f.AccountID == accountID && slices.Equal(f.Scopes, slices.Sorted(slices.Values(scopes)))
}

func hashOf(fields ...string) string {
	sum := sha256.New()
	writeFields(sum, fields...)
	return hex.EncodeToString(sum.Sum(nil))
}

// writeFields writes each field behind its length, so that no two lists of fields look the same.
func writeFields(to io.Writer, fields ...string) {
	for _, field := range fields {
		fmt.Fprintf(to, "%d:%s,", len(field), field)
	}
}
