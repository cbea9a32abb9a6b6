// Package token knows what a Marketing Cloud token is: what it was issued for, what the target Secret has of it, what
// proves it, and when it is replaced. It is pure: no clock, no network, no Kubernetes.
package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"slices"
	"time"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

// Token is an access token with what must be remembered of it.
type Token struct {
	sfmc.Token
	IssuedFor
	// IssuedAt is when the request was sent; ExpiresAt is the reported life later.
	IssuedAt, ExpiresAt time.Time
	// Proof shows that the token was issued to an owner of the client secret; see Prove.
	Proof string
}

// IssuedFor says what a token was asked for, without any secret.
type IssuedFor struct {
	// Identity tells tokens apart: equal for equal auth host, client id, client secret, account and requested scopes.
	Identity string `json:"identity,omitempty"`
	AuthHost string `json:"authHost,omitempty"`
	// ClientIDHash stands for the client id, which is nobody's business who may read the target.
	ClientIDHash    string   `json:"clientIDHash,omitempty"`
	AccountID       string   `json:"accountID,omitempty"`
	RequestedScopes []string `json:"scopes,omitempty"`
}

// Identify returns what a request asks for. The identity is keyed with the client secret, so that it neither gives the
// secret away nor can be computed by anyone who lacks it.
func Identify(request sfmc.TokenRequest) IssuedFor {
	scopes := slices.Sorted(slices.Values(request.Scopes))
	fields := append([]string{request.AuthHost, request.ClientID, request.AccountID}, scopes...)
	return IssuedFor{
		Identity:        keyed(request.ClientSecret, fields),
		AuthHost:        request.AuthHost,
		ClientIDHash:    Hash(request.ClientID),
		AccountID:       request.AccountID,
		RequestedScopes: scopes,
	}
}

// Prove returns what only an owner of the client secret can compute of a token, so nobody can plant one in a Secret. It
// covers what the token was issued for, when, and every key of the target Secret: the others follow.
func (t *Token) Prove(clientSecret string) string {
	fields := []string{t.Identity, t.AuthHost, t.ClientIDHash, t.AccountID, fmt.Sprintf("%q", t.RequestedScopes)}
	for _, key := range Keys {
		if key.Answer != nil {
			fields = append(fields, *key.Answer(t))
		}
	}
	times := []string{t.IssuedAt.UTC().Format(time.RFC3339Nano), t.ExpiresAt.UTC().Format(time.RFC3339Nano)}
	return keyed(clientSecret, append(fields, times...))
}

// IsProved reports whether the token was issued to an owner of the client secret.
func (t *Token) IsProved(clientSecret string) bool {
	return hmac.Equal([]byte(t.Proof), []byte(t.Prove(clientSecret)))
}

// Client names the client at its host: what is throttled as a whole, and what tokens must not be mixed up about.
func (f IssuedFor) Client() string { return f.AuthHost + " " + f.ClientIDHash }

// Fits reports whether a token acts in the business unit and was asked for with the scopes. That a client secret was
// rotated since doesn't matter to the token's reader.
func (f IssuedFor) Fits(accountID string, scopes []string) bool {
	return f.AccountID == accountID && slices.Equal(f.RequestedScopes, slices.Sorted(slices.Values(scopes)))
}

// Hash returns a digest of some fields.
func Hash(fields ...string) string { return digest(sha256.New(), fields) }

func keyed(secret string, fields []string) string {
	return digest(hmac.New(sha256.New, []byte(secret)), fields)
}

// digest is made of each field behind its length, so that no two lists of fields look the same.
func digest(hash hash.Hash, fields []string) string {
	for _, field := range fields {
		fmt.Fprintf(hash, "%d:%s,", len(field), field)
	}
	return hex.EncodeToString(hash.Sum(nil))
}

const (
	// ClockSkew is how far into the future a token may seem to have been issued before the wall clock is taken to have
	// been set back; two replicas' clocks differ by less.
	ClockSkew = 30 * time.Second

	// shortestLife is how long a token is kept however soon it expires, lest it be asked for in a loop.
	shortestLife = time.Second
)

// RefreshAt returns when a token is replaced: refreshBefore before it expires, but never before two thirds of its life
// have passed, less a jitter of up to a twentieth of its life. The jitter depends only on the token's identity, so all
// who share the token refresh it at one time, and a restart changes nothing.
func (t *Token) RefreshAt(refreshBefore time.Duration) time.Time {
	life := t.ExpiresAt.Sub(t.IssuedAt)
	at := t.ExpiresAt.Add(-refreshBefore)
	if twoThirds := t.IssuedAt.Add(life * 2 / 3); at.Before(twoThirds) {
		at = twoThirds
	}
	at = at.Add(-time.Duration(fraction(t.Identity) * float64(life/20)))
	if soonest := t.IssuedAt.Add(shortestLife); at.Before(soonest) {
		return soonest
	}
	return at
}

// IsFresh reports whether a token needs no replacement yet, by two clocks: the wall clock, which survives restarts, and
// the monotonic one, which a token issued by this process carries and which survives leaps of the wall clock.
func (t *Token) IsFresh(now time.Time, refreshBefore time.Duration) bool {
	return Until(t.RefreshAt(refreshBefore), now) > 0 && Until(t.IssuedAt, now) <= ClockSkew
}

// Until returns how long it is from now to at, by whichever of the wall and the monotonic clock comes first.
func Until(at, now time.Time) time.Duration {
	return min(at.Sub(now), at.Round(0).Sub(now.Round(0)))
}

// fraction maps an identity, which is a hex digest, to a number from 0 to 1.
func fraction(identity string) float64 {
	digest, err := hex.DecodeString(identity[:min(4, len(identity))])
	if err != nil || len(digest) < 2 {
		return 0
	}
	return float64(uint(digest[0])<<8|uint(digest[1])) / 0xffff
}
