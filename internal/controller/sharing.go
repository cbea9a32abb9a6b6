package controller

import (
	"context"
	"crypto/hmac"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/event"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

// unwaited reads the cache as it is: for reads that needn't see this process's last writes.
var unwaited = client.DisableReadYourWritesConsistency

// share returns a token that serves one of those wanted: known from this process or from any target Secret of the same
// identity, else a new one, which all SFMCTokens of the identity then get. Each of them proves its claim by credentials
// of its own, since an identity is keyed with the client secret. During a rotation either client secret may be dead:
// share takes and returns the identity for which it was refused.
func (r *Reconciler) share(ctx context.Context, wanted []*want, refused string) (*issued, string, error) {
	for _, w := range wanted {
		if r.issuer.latest(w.Identity) == nil {
			// After a restart or a change of leader: what the target Secrets record.
			if err := r.learnFromTargets(ctx, w); err != nil {
				return nil, refused, err
			}
		}
	}
	if token := r.issuer.known(wanted); token != nil {
		return token, refused, nil
	}
	var token *issued
	var err error
	for _, w := range r.issuer.preferred(wanted, refused) {
		if token, err = r.issuer.token(ctx, *w); !sfmc.IsInvalidClient(err) {
			break
		}
		refused = w.Identity
	}
	return token, refused, err
}

// claim is what an SFMCToken has proved to this process: that its credentials, in this version, are those of an identity.
type claim struct {
	owner       types.UID
	credentials string
	identity    string
}

// claimed returns the token that another SFMCToken of the same identity got, without reading the credentials again; nil
// if this one has not proved its claim to it. What the target Secret says of the identity proves nothing: whoever may
// write the Secret may write that.
func (r *Reconciler) claimed(obj *v1alpha1.SFMCToken, version string, is target) *issued {
	proved, found := r.claims.Load(client.ObjectKeyFromObject(obj))
	if !found || proved != any(claim{obj.UID, version, is.held.Identity}) || is.record.RefreshRequest != obj.RefreshRequest() {
		return nil
	}
	token := r.issuer.latest(is.held.Identity)
	if token == nil || !token.fits(obj.Spec.AccountID, scopesOf(&obj.Spec)) || !token.stillGood(r.Clock.Now(), obj.RefreshBefore()) {
		return nil
	}
	return token
}

func (r *Reconciler) learnFromTargets(ctx context.Context, wanted *want) error {
	targets, err := r.targetsOf(ctx, wanted.Identity)
	if err != nil {
		return err
	}
	for i := range targets {
		held := targetFrom(&targets[i]).held
		if held != nil && held.Identity == wanted.Identity && hmac.Equal([]byte(held.Proof), []byte(held.prove(wanted.request.ClientSecret))) {
			r.issuer.learn(held)
		}
	}
	return nil
}

// announceToken has the SFMCTokens reconciled that hold another token of the same identity: the new one may have
// invalidated it. The one for which it was asked needs no reminder.
func (r *Reconciler) announceToken(ctx context.Context, token *issued, askedFor types.NamespacedName) {
	targets, err := r.targetsOf(ctx, token.Identity)
	if err != nil {
		return // they find the new token at their own refresh time
	}
	for i := range targets {
		holder := targetFrom(&targets[i])
		sharer := &v1alpha1.SFMCToken{ObjectMeta: metav1.ObjectMeta{Namespace: targets[i].Namespace, Name: holder.record.Owner}}
		key := client.ObjectKeyFromObject(sharer)
		if key == askedFor || holder.held != nil && holder.held.AccessToken == token.AccessToken {
			continue
		}
		r.announced.Store(key, true)
		r.enqueue(ctx, sharer)
	}
}

// enqueue has an SFMCToken reconciled after all that wait already.
func (r *Reconciler) enqueue(ctx context.Context, obj *v1alpha1.SFMCToken) {
	select {
	case r.shared <- event.GenericEvent{Object: obj}:
	case <-ctx.Done(): // nobody listens any more
	}
}

func (r *Reconciler) targetsOf(ctx context.Context, identity string) ([]corev1.Secret, error) {
	var targets corev1.SecretList
	if err := r.Client.List(ctx, &targets, client.MatchingFields{indexIdentity: identity}, unwaited); err != nil {
		return nil, fmt.Errorf("list the target Secrets: %w", err)
	}
	return targets.Items, nil
}
