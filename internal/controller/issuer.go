package controller

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

// issuer asks Marketing Cloud for tokens. For each identity it has one request in flight and remembers the last token.
// It remembers nothing that a restart would miss: the target Secrets are the record.
type issuer struct {
	client *sfmc.Client
	clock  clock.PassiveClock
	// announce is told of each new token, and of whom it was asked for.
	announce func(context.Context, *issued, types.NamespacedName)

	flight   singleflight.Group
	failures *failures
	pacer    *pacer

	mu     sync.Mutex
	tokens map[string]*issued // by identity
	swept  time.Time
}

// want says which token will do and what made the caller look.
type want struct {
	issuedFor
	// holder is the SFMCToken whose target Secret is to hold the token.
	holder        types.NamespacedName
	request       sfmc.TokenRequest
	refreshBefore time.Duration
	// clientSecretKey is the key of the client secret in the credentials Secret.
	clientSecretKey string
	// not is an access token that won't do any more.
	not string
	// lifeLeft is how long the caller can do without a new token.
	lifeLeft time.Duration
	// causes are versions of what a person can change, by where. A change since the last failure is worth an
	// immediate request.
	causes map[string]string
}

func newIssuer(client *sfmc.Client, clock clock.PassiveClock, announce func(context.Context, *issued, types.NamespacedName)) *issuer {
	return &issuer{client: client, clock: clock, announce: announce,
		tokens: map[string]*issued{}, failures: newFailures(), pacer: newPacer(rate.Inf, 1)}
}

// token returns a token that serves w: the one remembered for its identity if that will do, else a new one.
func (i *issuer) token(ctx context.Context, w want) (*issued, error) {
	for ctx.Err() == nil {
		led := false
		result, err, _ := i.flight.Do(w.Identity, func() (any, error) { led = true; return i.tokenAlone(ctx, w) })
		answer := result.(flown) //nolint:forcetypeassert // tokenAlone returns nothing else
		switch {
		case err != nil && (led || answer.fresh || !i.failures.changed(w)):
			if answer.fresh {
				i.failures.rememberCauses(w)
			}
			return nil, err
		case err != nil:
			// Whoever led the flight had no reason to ask again. This caller has.
		case answer.fresh || w.servedBy(answer.token, i.clock.Now()):
			// A new token is taken as it is, even if it is the old one again: asking once more would bring no
			// better one.
			return answer.token, nil
		}
	}
	return nil, ctx.Err()
}

// flown is what one flight brought: a new token, or one remembered.
type flown struct {
	token *issued
	fresh bool
}

func (w want) servedBy(token *issued, now time.Time) bool {
	return token.AccessToken != w.not && token.stillGood(now, w.refreshBefore)
}

// tokenAlone is token, while no other goroutine is in it for the same identity.
func (i *issuer) tokenAlone(ctx context.Context, w want) (flown, error) {
	now := i.clock.Now()
	if token, err := i.remembered(w, now); token != nil || err != nil {
		return flown{token: token}, err
	}
	if err := i.waitForTurn(w.issuedFor); err != nil {
		return flown{}, err
	}
	i.pacer.take(w.Identity)
	// A request that was sent is worth its answer: a shutdown must not lose the token.
	answer, err := i.client.RequestToken(context.WithoutCancel(ctx), w.request)
	observeRequest(err, i.clock.Since(now))
	if err != nil {
		return flown{fresh: true}, i.failures.recordFailure(w, err, now, i.clock.Now())
	}
	token := &issued{Token: answer, issuedFor: w.issuedFor, IssuedAt: now, ExpiresAt: now.Add(answer.ExpiresIn)}
	token.Proof = token.prove(w.request.ClientSecret)
	i.recordToken(token, w.request.ClientSecret)
	i.announce(ctx, token, w.holder)
	return flown{token: token, fresh: true}, nil
}

func (i *issuer) recordToken(token *issued, clientSecret string) {
	i.mu.Lock()
	i.tokens[token.Identity] = token
	i.sweep(i.clock.Now())
	i.mu.Unlock()
	// Now that whoever misses the failure finds the token.
	i.failures.recordSuccess(token, clientSecret)
}

// remembered answers from memory: a token that will do, or an error as long as no request may be sent.
func (i *issuer) remembered(w want, now time.Time) (*issued, error) {
	if token := i.latest(w.Identity); token != nil && w.servedBy(token, now) {
		return token, nil
	}
	return nil, i.failures.holdBack(w, now)
}

// learn remembers a token that a target Secret holds, unless a newer one is known.
func (i *issuer) learn(token *issued) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if known := i.tokens[token.Identity]; known == nil || known.IssuedAt.Before(token.IssuedAt) {
		i.tokens[token.Identity] = token
	}
}

// latest is the token remembered for an identity, nil if there is none.
func (i *issuer) latest(identity string) *issued {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.tokens[identity]
}

// knowsAnother tells whether another token was issued for a held token's identity since.
func (i *issuer) knowsAnother(held *issued) bool {
	latest := i.latest(held.Identity)
	return latest != nil && latest.AccessToken != held.AccessToken
}

// known is the newest remembered token that serves one of those wanted; nil if there is none.
func (i *issuer) known(wanted []*want) *issued {
	now := i.clock.Now()
	var newest *issued
	for _, w := range wanted {
		if token := i.latest(w.Identity); token != nil && w.servedBy(token, now) && (newest == nil || token.IssuedAt.After(newest.IssuedAt)) {
			newest = token
		}
	}
	return newest
}

// preferred puts the staged client secret first if the active one is known to be refused: by this process, or, before
// a restart, when the token that the caller holds was asked for.
func (i *issuer) preferred(wanted []*want, refusedBefore string) []*want {
	refused := func(w *want) bool { return i.failures.refuses(w) || refusedBefore == w.Identity }
	if len(wanted) == 2 && refused(wanted[0]) && !refused(wanted[1]) {
		return []*want{wanted[1], wanted[0]}
	}
	return wanted
}

// sweep forgets, at most once a minute, what no decision depends on any more.
func (i *issuer) sweep(now time.Time) {
	if now.Sub(i.swept) < time.Minute {
		return
	}
	i.swept = now
	i.failures.sweep(now)
	i.pacer.sweep(now)
	for identity, token := range i.tokens {
		if now.After(token.ExpiresAt) {
			delete(i.tokens, identity)
		}
	}
}
