package controller

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/credentials"
	"github.com/sfmctoken/sfmctoken-operator/internal/issuer"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/status"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// attempt is one SFMCToken on its way from its target Secret and back to it.
type attempt struct {
	obj       *v1alpha1.SFMCToken
	key       types.NamespacedName
	reference credentials.Reference
	// isRefreshRequested is true if a person has asked for another token than the one in the target Secret.
	isRefreshRequested bool
	current            target.Target
	notes              target.Notes
	candidates         []*issuer.Candidate // none until the credentials are read
	desired            *token.Token
}

// ensureToken makes the target Secret hold the token that it should, or takes out one that must not be there.
func (r *Reconciler) ensureToken(ctx context.Context, obj *v1alpha1.SFMCToken) status.Result {
	a := &attempt{obj: obj, key: client.ObjectKeyFromObject(obj), reference: r.credentials.Of(obj)}
	var err error
	a.current, err = r.objects.readTarget(ctx, obj) // first, so that no token is asked for that can't be stored
	a.notes = a.current.Record.Notes
	a.isRefreshRequested = a.current.Record.RefreshRequest != obj.RefreshRequest()
	if denied := a.reference.Allow(ctx); denied != nil {
		err = denied
	}
	if err == nil {
		err = r.findToken(ctx, a)
	}
	if err == nil {
		err = r.writeToken(ctx, a)
	}
	if err == nil {
		released := func(former target.Target) *corev1.Secret { return former.Released(obj) }
		return status.Result{Token: a.desired, Notes: a.notes, Err: r.objects.eachFormer(ctx, obj, released)}
	}
	return r.dropWrong(ctx, a, err)
}

// findToken finds the token that the target Secret should hold: the one that it holds already, one that another
// SFMCToken of the same identity has, or a new one.
func (r *Reconciler) findToken(ctx context.Context, a *attempt) error {
	obj, held := a.obj, a.current.Token
	if obj.Spec.Suspend {
		err := errors.New("spec.suspend is true: no token is asked for until it is false")
		return problem.New(v1alpha1.ReasonSuspended, err)
	}
	version, err := a.reference.Version(ctx)
	if err != nil {
		return err
	}
	isRead := a.notes.Credentials == version
	isFitting := held != nil && held.Fits(obj.Spec.AccountID, obj.RequestedScopes())
	newest := r.issuer.Newest(held, a.notes.Aliases)
	isNewest := isFitting && newest.AccessToken == held.AccessToken
	isGood := isFitting && newest.IsFresh(r.clock.Now(), obj.RefreshBefore()) && !a.isRefreshRequested
	switch {
	case isRead && isNewest && isGood:
		a.desired = held
		return nil
	case isRead && isGood && newest.Fits(obj.Spec.AccountID, obj.RequestedScopes()) &&
		r.memory.hasProved(a.key, claim{obj.UID, version, newest.Identity}):
		// Another SFMCToken got a new one. The target Secret's word is no proof: whoever may write it may write that.
		a.desired = newest
		return nil
	case isRead && isNewest:
		// A new token is due, and it is known for which identity: the credentials are read when its slot has come.
		if err := r.issuer.WaitForSlot(held.IssuedFor); err != nil {
			return err
		}
	}
	return r.obtainToken(ctx, a, isNewest && isGood)
}

// obtainToken reads the credentials, and gets a token for them unless the one in the target Secret is good for them.
func (r *Reconciler) obtainToken(ctx context.Context, a *attempt, isGood bool) error {
	read, err := a.reference.Read(ctx)
	if err != nil {
		return err
	}
	a.notes.Credentials, a.notes.ClientSecretExpiresAt = read.Version, read.ExpiresAt
	for i, request := range read.Requests(a.obj) {
		candidate := a.candidateOf(request, read, r.clock.Now())
		candidate.SecretKey = credentials.SecretKeys[i]
		candidate.Issued = func(ctx context.Context, issued *token.Token) { r.sharers.call(ctx, issued, a.key) }
		a.candidates = append(a.candidates, candidate)
	}
	if isGood && slices.ContainsFunc(a.candidates, a.isHeld) {
		a.take(a.current.Token)
		return nil
	}
	if _, err := target.Render(a.obj, token.Specimen); err != nil {
		return err // no token is asked for that can't be written
	}
	obtained, err := r.issuer.Obtain(ctx, a.candidates, a.notes.Refused)
	a.notes.Refused = obtained.Refused
	if err != nil {
		return read.Explain(err, r.clock.Now())
	}
	a.take(obtained.Token)
	r.memory.prove(a.key, claim{a.obj.UID, read.Version, obtained.Token.Identity})
	return nil
}

// candidateOf returns the token that a request can bring, as one that will do for the SFMCToken.
func (a *attempt) candidateOf(
	request sfmc.TokenRequest, read credentials.Credentials, now time.Time,
) *issuer.Candidate {
	candidate := &issuer.Candidate{
		IssuedFor:     token.Identify(request),
		Request:       request,
		RefreshBefore: a.obj.RefreshBefore(),
		Causes: map[string]string{
			"credentials " + a.reference.Key.String(): read.Version,
			"object " + string(a.obj.UID):             fmt.Sprint(a.obj.Generation, a.obj.RefreshRequest()),
		},
	}
	if a.current.Token != nil && a.isHeld(candidate) {
		candidate.LifeLeft = token.Until(a.current.Token.ExpiresAt, now)
		if a.isRefreshRequested {
			candidate.Rejected = a.current.Token.AccessToken
		}
	}
	return candidate
}

func (a *attempt) isHeld(candidate *issuer.Candidate) bool {
	return slices.Contains(a.current.Record.Identities(), candidate.Identity)
}

// take makes a token the desired one, and notes which client secret it is for.
func (a *attempt) take(desired *token.Token) {
	a.desired, a.notes.Aliases = desired, nil
	for _, candidate := range a.candidates {
		if candidate.Identity != desired.Identity {
			a.notes.Aliases = append(a.notes.Aliases, candidate.Identity)
		}
		if candidate.Identity == desired.Identity || len(a.candidates) == 1 {
			a.notes.ClientSecretKey = candidate.SecretKey
		}
	}
}

// writeToken makes the target Secret hold the desired token and what templates make of it, in one request at most.
func (r *Reconciler) writeToken(ctx context.Context, a *attempt) error {
	further, err := target.Render(a.obj, a.desired)
	if err != nil {
		return err
	}
	if a.desired != a.current.Token {
		if err := a.reference.Allow(ctx); err != nil {
			return err
		}
	}
	return r.objects.writeSecret(ctx, a.current.Secret, a.current.Filled(a.obj, a.desired, a.notes, further))
}

// dropWrong takes a token out of the target Secret, and out of those of earlier names, that must not be there: since
// its credentials may not be used any more, or it is for another business unit, tenant or client than the spec names.
func (r *Reconciler) dropWrong(ctx context.Context, a *attempt, err error) status.Result {
	result := status.Result{Token: a.current.Token, Notes: a.notes, Err: err}
	isRevoked := problem.Of(err).Revokes
	if isRevoked {
		result.Notes = target.Notes{}
	}
	desired := func(current target.Target) *corev1.Secret {
		if current.Record.Identity != "" && (isRevoked || a.isOther(current.Record)) {
			return current.Emptied(a.obj)
		}
		return current.Secret
	}
	if emptied := desired(a.current); emptied != a.current.Secret {
		if result.Err = r.objects.writeSecret(ctx, a.current.Secret, emptied); result.Err != nil {
			return result
		}
		result.Token, result.Err = nil, err
	}
	if formerErr := r.objects.eachFormer(ctx, a.obj, desired); formerErr != nil {
		result.Err = formerErr
	}
	return result
}

// isOther reports whether a token is for another business unit, tenant or client than the spec names. If the
// credentials can't be read, another reference counts as another client.
func (a *attempt) isOther(record target.Record) bool {
	switch {
	case record.AccountID != a.obj.Spec.AccountID:
		return true
	case len(a.candidates) > 0:
		return record.Client() != a.candidates[0].Client()
	}
	return credentials.KeyIn(record.Credentials) != a.reference.Key
}
