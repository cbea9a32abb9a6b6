package controller

import (
	"cmp"
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/credentials"
	"github.com/sfmctoken/sfmctoken-operator/internal/issuer"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
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
	// read is what is known of the credentials in their present version, nil if this process hasn't read them.
	read    *reading
	desired *token.Token
	// ownerDenied is why the owner of a target Secret couldn't be changed.
	ownerDenied error
	// isWaiting is true if a token was asked for.
	isWaiting bool
}

// ensureToken makes the target Secret hold the token that it should, or takes out one that must not be there.
func (r *Reconciler) ensureToken(ctx context.Context, obj *v1alpha1.SFMCToken) status.Result {
	a := &attempt{obj: obj, key: client.ObjectKeyFromObject(obj), reference: r.credentials.Of(obj)}
	var err error
	a.current, err = r.objects.readTarget(ctx, obj) // first, so that no token is asked for that can't be stored
	if err != nil && problem.Of(err).Reason == v1alpha1.ReasonKubernetesAPIError {
		return status.Result{IsUnread: true, Err: err} // what is in it isn't known, and so not what must go
	}
	a.current.Token = r.issuer.Timed(a.current.Token)
	a.notes = a.current.Record.Notes
	a.isRefreshRequested = isRefreshRequested(obj, a.current)
	if denied := a.reference.Allow(ctx); denied != nil {
		err = denied
	}
	if err == nil {
		err = r.findToken(ctx, a)
	}
	if !a.isWaiting {
		r.issuer.Leave(askerOf(a.key))
	}
	if err == nil {
		err = r.writeToken(ctx, a)
	}
	if err != nil {
		return r.dropWrong(ctx, a, err)
	}
	r.issuer.Forget(askerOf(a.key))
	ownerDenied, err := r.objects.eachFormer(ctx, obj, released(obj))
	return status.Result{Token: a.desired, Notes: a.notes, Err: err, OwnerDenied: cmp.Or(a.ownerDenied, ownerDenied)}
}

// isRefreshRequested reports whether a person has asked for another token than the one in the target Secret. If that is
// gone, the status tells which request was handled last.
func isRefreshRequested(obj *v1alpha1.SFMCToken, current target.Target) bool {
	handled := current.Record.RefreshRequest
	if current.Token == nil && handled == "" {
		handled = obj.Status.LastHandledRefreshRequest
	}
	return handled != obj.RefreshRequest()
}

func released(obj *v1alpha1.SFMCToken) func(target.Target) *corev1.Secret {
	return func(former target.Target) *corev1.Secret { return former.Released(obj) }
}

// findToken finds the token that the target Secret should hold: the one that it holds already, one that was asked for,
// by this SFMCToken or another one of the same identity, or a new one.
func (r *Reconciler) findToken(ctx context.Context, a *attempt) error {
	version, err := a.reference.Version(ctx)
	if gone := problem.Of(err); a.obj.Spec.Suspend && (gone == nil || !gone.Revokes) {
		err := errors.New("spec.suspend is true: no token is asked for until it is false")
		return problem.New(v1alpha1.ReasonSuspended, err)
	}
	if err != nil {
		return err
	}
	a.read = r.memory.readingOf(a.key, a.obj, version)
	isGood := r.isGood(ctx, a)
	switch {
	case a.read == nil && isGood && a.notes.Credentials == version:
		a.desired = a.current.Token
		return nil
	case a.read == nil:
		return r.obtainToken(ctx, a, isGood)
	case isGood && a.isForCredentials():
		a.take(a.current.Token)
		return nil
	}
	newest := r.issuer.Newest(nil, a.read.identities)
	want := a.want(newest, r.clock.Now())
	if newest != nil && newest.IssuedAt.After(want.After) && newest.IsFresh(r.clock.Now(), want.RefreshBefore) {
		// The target Secret's word is no proof that it may have this one: whoever may write it may write anything.
		a.take(newest)
		return nil
	}
	if why := r.issuer.WhyWaiting(want, len(a.read.identities)); why != nil {
		return a.waits(why, r.clock.Now())
	}
	return r.obtainToken(ctx, a, isGood)
}

// isGood reports whether the target Secret holds a token that fits the spec, isn't due, and is the newest.
func (r *Reconciler) isGood(ctx context.Context, a *attempt) bool {
	held := a.current.Token
	if held == nil || a.isRefreshRequested || !held.Fits(a.obj.Spec.AccountID, a.obj.RequestedScopes()) {
		return false
	}
	if r.issuer.IsForeign(held) && r.memory.tells(r.clock.Now()) {
		ctrl.LoggerFrom(ctx).Info("another operator asks for the same tokens, and the later one counts: two " +
			"installations see this SFMCToken, or one is run by hand beside a cluster's")
	}
	newest := r.issuer.Newest(held, a.current.Record.Identities())
	isNewest := newest.AccessToken == held.AccessToken && newest.IssuedAt.Equal(held.IssuedAt)
	return isNewest && newest.IsFresh(r.clock.Now(), a.obj.RefreshBefore())
}

// obtainToken reads the credentials, and has a token asked for unless the one in the target Secret is good for them.
func (r *Reconciler) obtainToken(ctx context.Context, a *attempt, isGood bool) error {
	read, err := a.reference.Read(ctx)
	if err != nil {
		return err
	}
	requests, before := read.Requests(a.obj), a.read
	a.read = newReading(a, read, requests)
	if before != nil {
		a.read.request, a.read.after = before.request, before.after
	}
	r.memory.readings.Store(a.key, a.read)
	if isGood && a.isForCredentials() {
		a.take(a.current.Token)
		return nil
	}
	if _, err := target.Render(a.obj, token.Specimen); err != nil {
		a.note()
		return err // no token is asked for that can't be written
	}
	want := a.want(r.issuer.Newest(nil, a.read.identities), r.clock.Now())
	for _, request := range requests {
		candidate := issuer.Candidate{IssuedFor: token.Identify(request), Request: request}
		want.Candidates = append(want.Candidates, candidate)
	}
	obtained, err := r.issuer.Ask(ctx, want)
	a.read.refused = obtained.Refused
	if err != nil {
		return a.waits(err, r.clock.Now())
	}
	a.take(obtained.Token)
	return nil
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
	return r.putRight(ctx, a, func(current target.Target) *corev1.Secret {
		return current.Filled(a.obj, a.desired, a.notes, further)
	})
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
		if result.OwnerDenied, result.Err = r.objects.writeSecret(ctx, a.current.Secret, emptied); result.Err != nil {
			return result
		}
		result.Token, result.Err = nil, err
	}
	former := desired
	if problem.Of(err).Reason == v1alpha1.ReasonTargetConflict && r.objects.isTargetMovingAway(ctx, a.obj) {
		former = released(a.obj) // it may be what the other one waits for
	}
	ownerDenied, formerErr := r.objects.eachFormer(ctx, a.obj, former)
	if result.OwnerDenied = cmp.Or(result.OwnerDenied, ownerDenied); formerErr != nil {
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
	case a.read != nil:
		return record.Client() != a.read.client
	}
	return credentials.KeyIn(record.Credentials) != a.reference.Key
}
