package controller

import (
	"fmt"
	"reflect"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/credentials"
	"github.com/sfmctoken/sfmctoken-operator/internal/issuer"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// reading is what is kept of credentials that were read for an SFMCToken: no secret, but what its token may be.
type reading struct {
	uid        types.UID
	generation int64
	version    string
	expiresAt  string
	client     string
	// identities are those of the tokens that will do, in the order of credentials.SecretKeys.
	identities []string
	// refused is the identity that was refused before the other client secret was tried.
	refused string
	// request is the refresh request that was noticed last. A token answers it that was asked for after that time.
	request string
	after   time.Time
}

func newReading(a *attempt, read credentials.Credentials, requests []sfmc.TokenRequest) *reading {
	made := &reading{uid: a.obj.UID, generation: a.obj.Generation, version: read.Version, expiresAt: read.ExpiresAt,
		refused: a.notes.Refused}
	for _, request := range requests {
		issuedFor := token.Identify(request)
		made.client, made.identities = issuedFor.Client(), append(made.identities, issuedFor.Identity)
	}
	return made
}

// readingOf returns what is known of the credentials in this version, nil if they weren't read for this spec.
func (m *memory) readingOf(key types.NamespacedName, obj *v1alpha1.SFMCToken, version string) *reading {
	found, _ := m.readings.Load(key)
	read, _ := found.(*reading)
	if read == nil || read.uid != obj.UID || read.generation != obj.Generation || read.version != version {
		return nil
	}
	return read
}

// isForCredentials reports whether the token in the target Secret is one for the credentials that were read.
func (a *attempt) isForCredentials() bool {
	return slices.ContainsFunc(a.current.Record.Identities(), func(identity string) bool {
		return slices.Contains(a.read.identities, identity)
	})
}

// take makes a token the desired one, and notes for which credentials it is. That these have another version, with
// nothing else in it, is not worth a write.
func (a *attempt) take(desired *token.Token) {
	notes := target.Notes{Credentials: a.read.version, ClientSecretExpiresAt: a.read.expiresAt, Refused: a.read.refused}
	for n, identity := range a.read.identities {
		if identity != desired.Identity {
			notes.Aliases = append(notes.Aliases, identity)
		}
		if identity == desired.Identity || len(a.read.identities) == 1 {
			notes.ClientSecretKey = credentials.SecretKeys[n]
		}
	}
	unchanged := notes
	unchanged.Credentials = a.notes.Credentials
	isSameSecret := credentials.KeyIn(a.notes.Credentials) == a.reference.Key
	if desired == a.current.Token && isSameSecret && reflect.DeepEqual(unchanged, a.notes) {
		notes = unchanged
	}
	a.desired, a.notes = desired, notes
}

// note notes of the credentials what was read.
func (a *attempt) note() {
	a.notes.Credentials, a.notes.ClientSecretExpiresAt = a.read.version, a.read.expiresAt
}

// waits notes why an SFMCToken that asked for a token has none yet.
func (a *attempt) waits(why error, now time.Time) error {
	a.isWaiting = true
	a.note()
	return credentials.Explain(why, a.read.expiresAt, now)
}

// want returns what an SFMCToken asks for, but for the candidates. The newest token is the one that is known of these
// credentials, nil if none is.
func (a *attempt) want(newest *token.Token, now time.Time) *issuer.Want {
	want := &issuer.Want{
		Asker:         askerOf(a.key),
		Refused:       a.read.refused,
		RefreshBefore: a.obj.RefreshBefore(),
		Causes:        fmt.Sprint(a.read.version, a.obj.Generation, a.obj.RefreshRequest()),
	}
	held := a.current.Token
	if held != nil && !a.isForCredentials() {
		held = nil
	}
	if held != nil {
		want.LifeLeft = token.Until(held.ExpiresAt, now)
	}
	if a.isRefreshRequested {
		want.After = a.read.afterRequest(a.obj.RefreshRequest(), now, held, newest)
	}
	return want
}

// afterRequest returns after when the token must have been asked for that answers a refresh request: after that was
// noticed, and after the tokens that were known then, which matters if the clock was set back.
func (r *reading) afterRequest(request string, now time.Time, known ...*token.Token) time.Time {
	if r.request != request {
		r.request, r.after = request, now.Round(0).Add(-1)
		for _, before := range known {
			if before != nil && before.IssuedAt.Round(0).After(r.after) {
				r.after = before.IssuedAt
			}
		}
	}
	return r.after
}

// askerOf returns an SFMCToken as one who asks: its namespace is the tenant.
func askerOf(key types.NamespacedName) issuer.Asker {
	return issuer.Asker{Tenant: key.Namespace, Name: key.Name}
}
