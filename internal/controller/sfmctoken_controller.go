// Package controller keeps the target Secret of every SFMCToken filled with a valid token.
package controller

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

// +kubebuilder:rbac:groups=sfmctoken.dev,resources=sfmctokens,verbs=get;list;watch
// +kubebuilder:rbac:groups=sfmctoken.dev,resources=sfmctokens/status,verbs=patch
// +kubebuilder:rbac:groups=sfmctoken.dev,resources=sfmcaccessgrants,verbs=get;list;watch
// +kubebuilder:rbac:groups="",resources=namespaces,verbs=list;watch
// +kubebuilder:rbac:groups="",resources=secrets,verbs=get;list;watch;create;update
// +kubebuilder:rbac:groups=events.k8s.io,resources=events,verbs=create;patch

// Reconciler reconciles SFMCTokens.
type Reconciler struct {
	// Client reads SFMCTokens and target Secrets from the cache, waiting for its own writes to show there.
	Client client.Client
	// Live reads from the API server: credentials.
	Live client.Reader
	// SecretMetadata reads the metadata of all Secrets from a cache of their own.
	SecretMetadata client.Reader
	// Clock decides what time it is.
	Clock clock.PassiveClock
	// Events records what changed for a person.
	Events events.EventRecorder
	// AllowedAuthHosts are authentication hosts to accept beside Marketing Cloud's own, as HOST or HOST:PORT.
	AllowedAuthHosts []string

	access access
	issuer *issuer
	claims sync.Map // by NamespacedName: the claim that the SFMCToken proved last in this process
	// announced are the SFMCTokens, by NamespacedName, whose token was replaced for another one of the same identity,
	// and whose Secrets are yet to be written. They come through the channel.
	announced sync.Map
	shared    chan event.GenericEvent
	// behind is when a read from the cache last took too long.
	behind atomic.Pointer[time.Time]
}

// suspendedError means that spec.suspend is true.
type suspendedError struct{}

func (suspendedError) Error() string {
	return "spec.suspend is true: no token is asked for until it is false"
}

// Reconcile makes the target Secret hold a valid token for exactly what the spec names, reports it, and says when to
// look again. When there is nothing to do, it sends no request to anyone.
func (r *Reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	var obj v1alpha1.SFMCToken
	if err := r.get(ctx, request.NamespacedName, &obj); err != nil {
		if ctx.Err() != nil {
			return ctrl.Result{}, nil //nolint:nilerr // being stopped says nothing about the SFMCToken
		}
		r.claims.Delete(request.NamespacedName)
		r.announced.Delete(request.NamespacedName)
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !obj.DeletionTimestamp.IsZero() || r.access.isGoing(ctx, obj.Namespace) {
		return ctrl.Result{}, nil
	}
	before := obj.DeepCopy()
	held, known, err := r.ensureToken(ctx, &obj)
	switch {
	case err != nil && ctx.Err() != nil:
		return ctrl.Result{}, nil //nolint:nilerr // being stopped says nothing about the token
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return ctrl.Result{}, nil
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		// Somebody wrote the Secret after it was read, or the cache is behind; it is no failure to look once more.
		r.distrustCache()
		return ctrl.Result{RequeueAfter: transientFirst}, nil
	}
	if _, found := r.announced.LoadAndDelete(request.NamespacedName); found && err == nil {
		// A new token may have invalidated the one before: the Secrets of its identity go first, then the statuses.
		r.enqueue(ctx, &obj)
		return ctrl.Result{}, nil
	}
	outcome := report(&obj, held, err, r.Clock.Now())
	reportCredentials(&obj, held, known, r.Clock.Now())
	if isRevoked(&obj, err) {
		forgetCredentials(&obj)
	}
	if !outcome.silent && !equality.Semantic.DeepEqual(before.Status, obj.Status) {
		patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
		switch err := r.Client.Status().Patch(context.WithoutCancel(ctx), &obj, patch); {
		case apierrors.IsConflict(err):
			r.distrustCache()
			return ctrl.Result{RequeueAfter: transientFirst}, nil // about an object that has changed since
		case err != nil:
			return ctrl.Result{}, client.IgnoreNotFound(fmt.Errorf("write the status: %w", err))
		}
		r.announce(ctx, before, &obj, held, err)
	}
	// What Kubernetes refused is tried again by the queue; the rest has its own time.
	return ctrl.Result{RequeueAfter: outcome.again}, outcome.retry
}

// ensureToken returns the token that the target Secret holds in the end, and what is known of the credentials. With an
// error it is the old token, which may be good for a while yet.
func (r *Reconciler) ensureToken(ctx context.Context, obj *v1alpha1.SFMCToken) (*issued, notes, error) {
	is, err := r.readTarget(ctx, obj) // first, so that no token is asked for that can't be stored
	if denied := r.access.authorize(ctx, obj); denied != nil {
		err = denied
	}
	var token *issued
	known := is.record.notes
	var wanted []*want
	if err == nil {
		token, known, wanted, err = r.serve(ctx, obj, is)
	}
	revoked := isRevoked(obj, err)
	if revoked {
		known = notes{}
	}
	wrong := func(rec record) bool { return rec.isWrong(obj, wanted) || rec.Identity != "" && revoked }
	if err != nil {
		var dropErr error
		if token, dropErr = r.dropWrong(ctx, obj, is, wrong); dropErr != nil {
			return token, known, dropErr
		}
	}
	if releaseErr := r.releaseFormer(ctx, obj, wrong, err == nil); releaseErr != nil {
		return token, known, releaseErr
	}
	return token, known, err
}

// serve finds the token that the target Secret should hold, and writes it with what templates make of it.
func (r *Reconciler) serve(ctx context.Context, obj *v1alpha1.SFMCToken, is target) (*issued, notes, []*want, error) {
	token, known, wanted, err := r.findToken(ctx, obj, is)
	if err != nil {
		return token, known, wanted, err
	}
	further, err := renderTemplates(templateOf(obj).Data, fieldsOf(token))
	if err == nil && token != is.held {
		err = r.stillEntitled(ctx, obj)
	}
	if err == nil {
		token, err = r.writeTarget(ctx, obj, is, token, further, known)
	}
	return token, known, wanted, err
}

// stillEntitled looks once more whether an SFMCToken may use credentials of another namespace: a grant or the credentials
// may have gone while a token was asked for.
func (r *Reconciler) stillEntitled(ctx context.Context, obj *v1alpha1.SFMCToken) error {
	if !isForeign(obj) {
		return nil
	}
	version, err := r.credentialsVersion(ctx, obj)
	switch {
	case err != nil:
		return err
	case version == "":
		return &credentialsNotFoundError{credentialsKey(obj)}
	}
	return r.access.authorize(ctx, obj)
}

// findToken returns the token that the target Secret should hold: the one that it holds already, one that another
// SFMCToken of the same identity has, or a new one.
func (r *Reconciler) findToken(ctx context.Context, obj *v1alpha1.SFMCToken, is target) (*issued, notes, []*want, error) {
	known := is.record.notes
	if obj.Spec.Suspend {
		return nil, known, nil, suspendedError{}
	}
	version, err := r.credentialsVersion(ctx, obj)
	if err != nil {
		return nil, known, nil, err
	}
	fits := is.held != nil && is.held.fits(obj.Spec.AccountID, scopesOf(&obj.Spec))
	good := fits && is.record.RefreshRequest == obj.RefreshRequest() && r.isNewest(is, obj)
	switch {
	case good && known.Credentials == version:
		return is.held, known, nil, nil
	case version == "":
		return nil, known, nil, &credentialsNotFoundError{credentialsKey(obj)}
	case fits && known.Credentials == version && r.issuer.knowsAnother(is.held):
		// Another SFMCToken got a new one.
		if token := r.claimed(obj, version, is); token != nil {
			return token, known, nil, nil
		}
	case fits && known.Credentials == version:
		// A new token is due, and it is known for which identity: the credentials are read when its turn has come.
		if err := r.issuer.waitForTurn(is.held.issuedFor); err != nil {
			return nil, known, nil, err
		}
	}
	credentials, version, err := r.readCredentials(ctx, obj)
	if err != nil {
		return nil, known, nil, err
	}
	wanted := r.want(obj, credentials, version, is)
	if good && slices.ContainsFunc(wanted, func(w *want) bool { return slices.Contains(is.record.identities(), w.Identity) }) {
		return is.held, note(credentials, version, wanted, is.held, known), wanted, nil
	}
	if _, err := renderTemplates(templateOf(obj).Data, specimen); err != nil {
		return nil, known, wanted, err // no token is asked for that can't be written
	}
	token, refused, err := r.share(ctx, wanted, known.Refused)
	known.Refused = refused
	if token != nil {
		r.claims.Store(client.ObjectKeyFromObject(obj), claim{obj.UID, version, token.Identity})
	}
	return token, note(credentials, version, wanted, token, known), wanted, credentials.explain(err, r.Clock.Now())
}

// isNewest tells whether a held token is still good and is the last one that was issued for its identity.
func (r *Reconciler) isNewest(is target, obj *v1alpha1.SFMCToken) bool {
	held := is.held
	if r.issuer.knowsAnother(held) {
		return false
	}
	if latest := r.issuer.latest(held.Identity); latest != nil {
		held = latest // the same token, and it carries the monotonic clock
	}
	for _, alias := range is.record.Aliases {
		if latest := r.issuer.latest(alias); latest != nil && latest.IssuedAt.After(held.IssuedAt) {
			return false
		}
	}
	return held.stillGood(r.Clock.Now(), obj.RefreshBefore())
}

// want says which tokens serve an SFMCToken: one for each client secret, the active one first.
func (r *Reconciler) want(obj *v1alpha1.SFMCToken, credentials credentials, version string, is target) []*want {
	var wanted []*want
	requests := credentials.tokenRequests(&obj.Spec)
	for _, key := range []string{keyClientSecret, keyClientSecretStaged} {
		request, found := requests[key]
		if !found {
			continue
		}
		w := &want{
			issuedFor:       identify(request),
			holder:          client.ObjectKeyFromObject(obj),
			clientSecretKey: key,
			request:         request,
			refreshBefore:   obj.RefreshBefore(),
			causes: map[string]string{
				"credentials " + credentialsKey(obj).String(): version,
				"object " + string(obj.UID):                   fmt.Sprint(obj.Generation, obj.RefreshRequest()),
			},
		}
		if is.held != nil && slices.Contains(is.record.identities(), w.Identity) {
			w.lifeLeft = until(is.held.ExpiresAt, r.Clock.Now())
			if is.record.RefreshRequest != obj.RefreshRequest() {
				w.not = is.held.AccessToken
			}
		}
		wanted = append(wanted, w)
	}
	return wanted
}

// note says what is to be remembered of credentials beside the token that they brought, if they did.
func note(credentials credentials, version string, wanted []*want, token *issued, known notes) notes {
	known.Credentials, known.ClientSecretExpiresAt = version, credentials.expiresAt
	if token == nil {
		return known
	}
	known.Aliases = nil
	for _, w := range wanted {
		if w.Identity != token.Identity {
			known.Aliases = append(known.Aliases, w.Identity)
		}
		if w.Identity == token.Identity || len(wanted) == 1 {
			known.ClientSecretKey = w.clientSecretKey
		}
	}
	return known
}
