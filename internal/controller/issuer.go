package controller

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"k8s.io/utils/clock"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

// issuer asks Marketing Cloud for tokens. For each identity it has one request in flight, remembers the last token,
// and waits longer after each failure; a throttled client is paused as a whole. It remembers nothing that a restart
// would miss: the target Secrets are the record.
type issuer struct {
	client *sfmc.Client
	clock  clock.PassiveClock
	// announce is told of each new token.
	announce func(context.Context, *issued)

	flight singleflight.Group

	mu       sync.Mutex
	tokens   map[string]*issued
	failures map[string]*failure // by identity
	pauses   map[string]*pause   // by client
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
	request       sfmc.TokenRequest
	refreshBefore time.Duration
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

func newIssuer(client *sfmc.Client, clock clock.PassiveClock, announce func(context.Context, *issued)) *issuer {
	return &issuer{client: client, clock: clock, announce: announce, tokens: map[string]*issued{}, failures: map[string]*failure{}, pauses: map[string]*pause{}}
}

// token returns a token that serves w: the one remembered for its identity if that will do, else a new one.
func (i *issuer) token(ctx context.Context, w want) (*issued, error) {
	for ctx.Err() == nil {
		result, err, _ := i.flight.Do(w.Identity, func() (any, error) { return i.tokenAlone(ctx, w) })
		if err != nil {
			i.mu.Lock()
			defer i.mu.Unlock()
			if failed := i.failures[w.Identity]; failed != nil {
				failed.changed(w.causes) // answered for this caller too
			}
			return nil, err
		}
		// Whoever led the flight may have been content with a remembered token that this caller can't use. A new
		// one is taken as it is, however short its life: asking again would bring no better one.
		answer := result.(flown) //nolint:forcetypeassert // tokenAlone returns nothing else
		if answer.fresh && answer.token.AccessToken != w.not || w.servedBy(answer.token, i.clock.Now()) {
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
	// A request that was sent is worth its answer: a shutdown must not lose the token.
	answer, err := i.client.RequestToken(context.WithoutCancel(ctx), w.request)
	observeRequest(err, i.clock.Since(now))
	if err != nil {
		return flown{}, i.recordFailure(w, err)
	}
	token := &issued{Token: answer, issuedFor: w.issuedFor, IssuedAt: now, ExpiresAt: now.Add(answer.ExpiresIn)}
	token.Proof = token.prove(w.request.ClientSecret)
	i.recordToken(token)
	i.announce(ctx, token)
	return flown{token: token, fresh: true}, nil
}

func (i *issuer) recordToken(token *issued) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.tokens[token.Identity] = token
	delete(i.failures, token.Identity)
	delete(i.pauses, token.client())
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
	if failed != nil && !failed.changed(w.causes) && now.Before(failed.retryAt) {
		return nil, &attemptError{err: failed.err, failures: failed.count, retryAt: failed.retryAt}
	}
	return nil, nil
}

// changed tells whether something that was there when the request failed is different now, and remembers what is new.
func (f *failure) changed(causes map[string]string) bool {
	changed := false
	for where, version := range causes {
		if before, seen := f.tried[where]; seen && before != version {
			changed = true
		}
		f.tried[where] = version
	}
	return changed
}

// recordFailure remembers when w may be asked for again.
func (i *issuer) recordFailure(w want, err error) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.clock.Now()
	failed := i.failures[w.Identity]
	if failed == nil {
		failed = &failure{tried: map[string]string{}}
		i.failures[w.Identity] = failed
	}
	failed.changed(w.causes)
	failed.err = err
	failed.count++
	switch sfmc.KindOf(err) {
	case sfmc.Refused:
		failed.retryAt = now.Add(doubling(blockedFirst, blockedMost, failed.count))
	case sfmc.Throttled:
		paused := i.pauses[w.client()]
		if paused == nil {
			paused = &pause{}
			i.pauses[w.client()] = paused
		}
		paused.err = err
		paused.count++
		paused.until = now.Add(doubling(throttledFirst, throttledMost, paused.count))
		if asked := sfmc.RetryAfter(err); asked > 0 {
			paused.until = now.Add(asked)
		}
		failed.retryAt = paused.until
	default:
		failed.retryAt = now.Add(transientDelay(failed.count, w.lifeLeft))
	}
	return &attemptError{err: err, failures: failed.count, retryAt: failed.retryAt}
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

// sweep forgets, at most once a minute, what no decision depends on any more.
func (i *issuer) sweep(now time.Time) {
	if now.Sub(i.swept) < time.Minute {
		return
	}
	i.swept = now
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
