package controller

import (
	"context"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

// issuer asks Marketing Cloud for tokens. For each identity it has one request in flight, remembers the last token,
// and waits longer after each failure; a throttled client is paused as a whole. It remembers nothing that a restart
// would miss: the target Secrets are the record.
type issuer struct {
	client *sfmc.Client
	clock  clock.PassiveClock
	// announce is told of each new token, and of whom it was asked for.
	announce func(context.Context, *issued, types.NamespacedName)

	flight singleflight.Group
	pacer  *pacer

	mu       sync.Mutex
	tokens   map[string]*issued  // by identity
	failures map[string]*failure // by identity
	pauses   map[string]*pause   // by client
	refused  map[string]string   // by client: a hash of the client secret that was refused last
	swept    time.Time
}

// failure is what became of the last request for one identity.
type failure struct {
	err     error
	count   int
	retryAt time.Time
	tried   map[string]string
}

// pause keeps one client from sending anything until a moment.
type pause struct {
	err   error
	count int
	until time.Time
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

// attemptError is a token request that failed, now or a while ago, with the time before which it isn't repeated.
type attemptError struct {
	err      error
	failures int
	retryAt  time.Time
}

func (e *attemptError) Error() string { return e.err.Error() }
func (e *attemptError) Unwrap() error { return e.err }

func newIssuer(client *sfmc.Client, clock clock.PassiveClock, announce func(context.Context, *issued, types.NamespacedName)) *issuer {
	return &issuer{client: client, clock: clock, announce: announce,
		tokens: map[string]*issued{}, failures: map[string]*failure{}, pauses: map[string]*pause{}, refused: map[string]string{},
		pacer: newPacer(rate.Inf, 1)}
}

// token returns a token that serves w: the one remembered for its identity if that will do, else a new one.
func (i *issuer) token(ctx context.Context, w want) (*issued, error) {
	for ctx.Err() == nil {
		led := false
		result, err, _ := i.flight.Do(w.Identity, func() (any, error) { led = true; return i.tokenAlone(ctx, w) })
		answer := result.(flown) //nolint:forcetypeassert // tokenAlone returns nothing else
		switch {
		case err != nil && (led || answer.fresh || !i.changed(w)):
			if answer.fresh {
				i.rememberCauses(w)
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
		return flown{fresh: true}, i.recordFailure(w, err, now)
	}
	token := &issued{Token: answer, issuedFor: w.issuedFor, IssuedAt: now, ExpiresAt: now.Add(answer.ExpiresIn)}
	token.Proof = token.prove(w.request.ClientSecret)
	i.recordToken(token, w.request.ClientSecret)
	i.announce(ctx, token, w.holder)
	return flown{token: token, fresh: true}, nil
}

func (i *issuer) recordToken(token *issued, clientSecret string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.refused[token.client()] == hashOf(clientSecret) {
		delete(i.refused, token.client())
	}
	i.tokens[token.Identity] = token
	delete(i.failures, token.Identity)
	if paused := i.pauses[token.client()]; paused != nil && !token.IssuedAt.Before(paused.until) {
		delete(i.pauses, token.client()) // a request that was under way before says nothing of it
	}
	i.sweep(i.clock.Now())
}

// remembered answers from memory: a token that will do, or an error as long as no request may be sent.
func (i *issuer) remembered(w want, now time.Time) (*issued, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if token := i.tokens[w.Identity]; token != nil && w.servedBy(token, now) {
		return token, nil
	}
	failed := i.failures[w.Identity]
	if paused := i.pauses[w.client()]; paused != nil && now.Before(paused.until) {
		return nil, &attemptError{err: paused.err, failures: paused.count, retryAt: paused.until}
	}
	if failed != nil && !failed.differs(w.causes) && now.Before(failed.retryAt) {
		maps.Copy(failed.tried, w.causes)
		return nil, &attemptError{err: failed.err, failures: failed.count, retryAt: failed.retryAt}
	}
	return nil, nil
}

// differs tells whether something that was there when the request failed is different now.
func (f *failure) differs(causes map[string]string) bool {
	for where, version := range causes {
		if before, seen := f.tried[where]; seen && before != version {
			return true
		}
	}
	return false
}

func (i *issuer) changed(w want) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	failed := i.failures[w.Identity]
	return failed != nil && failed.differs(w.causes)
}

// rememberCauses takes what made a caller look as answered by the failure.
func (i *issuer) rememberCauses(w want) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if failed := i.failures[w.Identity]; failed != nil {
		maps.Copy(failed.tried, w.causes)
	}
}

// recordFailure remembers when w, for which a request was sent at that time, may be asked for again.
func (i *issuer) recordFailure(w want, err error, sent time.Time) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.clock.Now()
	failed := i.failures[w.Identity]
	if failed == nil {
		failed = &failure{tried: map[string]string{}}
		i.failures[w.Identity] = failed
	}
	maps.Copy(failed.tried, w.causes)
	failed.err = err
	failed.count++
	if sfmc.IsInvalidClient(err) {
		i.refused[w.client()] = hashOf(w.request.ClientSecret)
	}
	switch sfmc.KindOf(err) {
	case sfmc.Refused:
		failed.retryAt = now.Add(doubling(blockedFirst, blockedMost, failed.count))
	case sfmc.Throttled:
		failed.retryAt = i.pauseClient(w.client(), err, sent)
	default:
		failed.retryAt = now.Add(transientDelay(failed.count, w.lifeLeft))
	}
	return &attemptError{err: err, failures: failed.count, retryAt: failed.retryAt}
}

// pauseClient keeps a client from sending anything, and returns until when. Refusals of requests that were under way
// together are one: they don't lengthen the pause, nor does a milder one shorten it.
func (i *issuer) pauseClient(client string, err error, sent time.Time) time.Time {
	paused := i.pauses[client]
	if paused == nil {
		paused = &pause{}
		i.pauses[client] = paused
	}
	if !sent.Before(paused.until) {
		paused.count++
	}
	until := i.clock.Now().Add(doubling(throttledFirst, throttledMost, paused.count))
	if asked := sfmc.RetryAfter(err); asked > 0 {
		until = i.clock.Now().Add(asked)
	}
	paused.err = err
	if until.After(paused.until) {
		paused.until = until
	}
	return paused.until
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
	i.mu.Lock()
	defer i.mu.Unlock()
	refused := func(w *want) bool {
		return i.refused[w.client()] == hashOf(w.request.ClientSecret) || refusedBefore == w.Identity
	}
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
	i.pacer.sweep(now)
	for identity, token := range i.tokens {
		if now.After(token.ExpiresAt) {
			delete(i.tokens, identity)
		}
	}
	for identity, failed := range i.failures {
		if now.After(failed.retryAt.Add(blockedMost)) {
			delete(i.failures, identity)
		}
	}
	for client, paused := range i.pauses {
		if now.After(paused.until.Add(throttledMost)) {
			delete(i.pauses, client)
		}
	}
}
