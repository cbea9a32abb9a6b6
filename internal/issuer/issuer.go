// Package issuer asks Marketing Cloud for tokens: one request in flight for each identity, no more often than its host
// and its client bear, and not again too soon after a failure. It knows nothing of Kubernetes.
package issuer

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	"golang.org/x/time/rate"
	"k8s.io/utils/clock"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// Options of an issuer.
type Options struct {
	Client *sfmc.Client
	Clock  clock.PassiveClock
	// RequestRate is in token requests to one authentication host per second, after a burst of at least 1.
	RequestRate  rate.Limit
	RequestBurst int
	// Recall returns tokens that were recorded for an identity outside of this process.
	Recall func(ctx context.Context, identity string) ([]*token.Token, error)
	// Observe is told of each request that was sent: how it failed, nil if it didn't, and how long it took.
	Observe func(failed *sfmc.Error, took time.Duration)
}

// Issuer remembers the last token of each identity, and nothing that a restart would miss: the Secrets are the record.
type Issuer struct {
	options Options
	flight  singleflight.Group

	mu       sync.Mutex // guards what follows
	tokens   map[string]*token.Token
	failures *failures
	slots    *slots
	swept    time.Time
}

// Candidate is a token that will do, and why the caller asks for it now.
type Candidate struct {
	token.IssuedFor
	Request sfmc.TokenRequest
	// SecretKey is the key of the client secret in the credentials Secret.
	SecretKey     string
	RefreshBefore time.Duration
	// Rejected is an access token that won't do any more.
	Rejected string
	// LifeLeft is how long the caller can do without a new token.
	LifeLeft time.Duration
	// Causes are versions of what a person can change, by where. A change since the last failure is asked for at once.
	Causes map[string]string
	// Issued is called with a new token, if it was asked for by this candidate.
	Issued func(context.Context, *token.Token)
}

// Obtained is what an issuer could do.
type Obtained struct {
	// Token is nil beside an error.
	Token *token.Token
	// Refused is the identity that was refused, as an invalid client, before the other client secret was tried.
	Refused string
}

// New returns an issuer.
func New(options Options) *Issuer {
	return &Issuer{options: options, tokens: map[string]*token.Token{}, failures: newFailures(),
		slots: newSlots(options.RequestRate, options.RequestBurst)}
}

// Obtain returns a token that serves one of the candidates, of which there is one for each client secret: a token known
// from this process or recorded outside, else a new one. The secret that was refused last is tried second.
func (i *Issuer) Obtain(ctx context.Context, candidates []*Candidate, refused string) (Obtained, error) {
	for _, candidate := range candidates {
		if err := i.recall(ctx, candidate); err != nil {
			return Obtained{Refused: refused}, err
		}
	}
	if known := i.known(candidates); known != nil {
		return Obtained{known, refused}, nil
	}
	var issued *token.Token
	var err error
	for _, candidate := range i.preferred(candidates, refused) {
		if issued, err = i.obtain(ctx, candidate); !i.isInvalidClient(candidate, err) {
			break
		}
		refused = candidate.Identity
	}
	return Obtained{issued, refused}, err
}

// recall learns a candidate's token from what was recorded outside, after a restart or a change of leader. It must be
// proved: an identity is keyed with the client secret, and so is the proof. Nobody gets or plants one by a record.
func (i *Issuer) recall(ctx context.Context, candidate *Candidate) error {
	if i.Latest(candidate.Identity) != nil {
		return nil
	}
	recorded, err := i.options.Recall(ctx, candidate.Identity)
	for _, held := range recorded {
		if held.Identity == candidate.Identity && held.IsProved(candidate.Request.ClientSecret) {
			i.learn(held)
		}
	}
	return err
}

// obtain returns a token that serves a candidate: the one remembered for its identity if that will do, else a new one.
func (i *Issuer) obtain(ctx context.Context, candidate *Candidate) (*token.Token, error) {
	for ctx.Err() == nil {
		led := false
		result, err, _ := i.flight.Do(candidate.Identity, func() (any, error) {
			led = true
			return i.obtainAlone(ctx, candidate)
		})
		answer := result.(answer) //nolint:forcetypeassert // obtainAlone returns nothing else
		switch {
		case err != nil && (led || i.isAnswered(candidate, answer.isNew)):
			return nil, err
		case err != nil:
			// Whoever led the flight had no reason to ask again. This caller has.
		case answer.isNew || candidate.isServedBy(answer.token, i.options.Clock.Now()):
			// A new token is taken even if it is the old one again: asking once more would bring no better one.
			return answer.token, nil
		}
	}
	return nil, ctx.Err()
}

// isAnswered reports whether the failure of a flight that another caller led is an answer to this candidate, too: a new
// one is, an old one unless something has changed since.
func (i *Issuer) isAnswered(candidate *Candidate, isNew bool) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	failed := i.failures.last[candidate.Identity]
	if isNew && failed != nil {
		maps.Copy(failed.answered, candidate.Causes)
	}
	return failed == nil || !failed.differs(candidate.Causes)
}

// answer is what one flight brought: a new answer of Marketing Cloud's, or one remembered.
type answer struct {
	token *token.Token
	isNew bool
}

func (c *Candidate) isServedBy(held *token.Token, now time.Time) bool {
	return held.AccessToken != c.Rejected && held.IsFresh(now, c.RefreshBefore)
}

// obtainAlone is obtain, while no other goroutine is in it for the same identity.
func (i *Issuer) obtainAlone(ctx context.Context, candidate *Candidate) (answer, error) {
	sent := i.options.Clock.Now()
	if held, err := i.mayAsk(candidate, sent); held != nil || err != nil {
		return answer{token: held}, err
	}
	// A request that was sent is worth its answer: a shutdown must not lose the token.
	got, failed := i.options.Client.RequestToken(context.WithoutCancel(ctx), candidate.Request)
	i.options.Observe(failed, i.options.Clock.Since(sent))
	if failed != nil {
		i.mu.Lock()
		defer i.mu.Unlock()
		return answer{isNew: true}, i.failures.record(candidate, failed, sent, i.options.Clock.Now())
	}
	issued := &token.Token{Token: got, IssuedFor: candidate.IssuedFor, IssuedAt: sent}
	issued.ExpiresAt = sent.Add(got.ExpiresIn)
	issued.Proof = issued.Prove(candidate.Request.ClientSecret)
	i.remember(candidate, issued)
	candidate.Issued(ctx, issued)
	return answer{issued, true}, nil
}

// mayAsk returns the token that is remembered if it will do, else a problem as long as no request may be sent.
func (i *Issuer) mayAsk(candidate *Candidate, now time.Time) (*token.Token, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if held := i.tokens[candidate.Identity]; held != nil && candidate.isServedBy(held, now) {
		return held, nil
	}
	if err := i.failures.holdBack(candidate, now); err != nil {
		return nil, err
	}
	if err := i.waitForSlot(candidate.IssuedFor, now); err != nil {
		return nil, err
	}
	i.slots.take(candidate.Identity)
	return nil, nil
}

// WaitForSlot returns a problem until the identity's slot has come.
func (i *Issuer) WaitForSlot(issuedFor token.IssuedFor) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.waitForSlot(issuedFor, i.options.Clock.Now())
}

func (i *Issuer) waitForSlot(issuedFor token.IssuedFor, now time.Time) error {
	at := i.slots.slotOf(issuedFor, now)
	if !now.Before(at) {
		return nil
	}
	waiting := problem.New(v1alpha1.ReasonWaitingForTurn, errNoSlot)
	waiting.RetryAt = at
	if failed := i.failures.last[issuedFor.Identity]; failed != nil {
		waiting.Failures = failed.problem.Failures
	}
	return waiting
}

// remember keeps a token that was just issued, and forgets what is over with it.
func (i *Issuer) remember(candidate *Candidate, issued *token.Token) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.tokens[issued.Identity] = issued
	i.failures.forget(candidate, issued)
	i.sweep(i.options.Clock.Now())
}

// learn remembers a token, unless a newer one of its identity is known.
func (i *Issuer) learn(held *token.Token) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if known := i.tokens[held.Identity]; known == nil || known.IssuedAt.Before(held.IssuedAt) {
		i.tokens[held.Identity] = held
	}
}

// Latest returns the token remembered for an identity, nil if there is none.
func (i *Issuer) Latest(identity string) *token.Token {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.tokens[identity]
}

// Newest returns the held token, or one that is remembered instead for its identities; nil if none is held.
func (i *Issuer) Newest(held *token.Token, aliases []string) *token.Token {
	if held == nil {
		return nil
	}
	newest := held
	if latest := i.Latest(held.Identity); latest != nil {
		newest = latest // if it is the same one, it carries the monotonic clock
	}
	for _, alias := range aliases {
		if latest := i.Latest(alias); latest != nil && latest.IssuedAt.After(newest.IssuedAt) {
			newest = latest
		}
	}
	return newest
}

// known returns the newest remembered token that serves one of the candidates; nil if there is none.
func (i *Issuer) known(candidates []*Candidate) *token.Token {
	now := i.options.Clock.Now()
	var newest *token.Token
	for _, candidate := range candidates {
		held := i.Latest(candidate.Identity)
		if held != nil && candidate.isServedBy(held, now) && (newest == nil || held.IssuedAt.After(newest.IssuedAt)) {
			newest = held
		}
	}
	return newest
}

// preferred puts the staged client secret first if the active one is known to be refused: by this process, or, before a
// restart, when the token that the caller holds was asked for.
func (i *Issuer) preferred(candidates []*Candidate, refusedBefore string) []*Candidate {
	i.mu.Lock()
	defer i.mu.Unlock()
	isRefused := func(c *Candidate) bool { return i.failures.isRefused(c) || refusedBefore == c.Identity }
	if len(candidates) == 2 && isRefused(candidates[0]) && !isRefused(candidates[1]) {
		return []*Candidate{candidates[1], candidates[0]}
	}
	return candidates
}

// isInvalidClient reports whether an error is a refusal because of the client's id or secret.
func (i *Issuer) isInvalidClient(candidate *Candidate, err error) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	failed := i.failures.last[candidate.Identity]
	return failed != nil && failed.isInvalidClient && errors.Is(err, failed.problem)
}

// sweep forgets, at most once a minute, what no decision depends on any more.
func (i *Issuer) sweep(now time.Time) {
	if now.Sub(i.swept) < time.Minute {
		return
	}
	i.swept = now
	i.failures.sweep(now)
	i.slots.sweep(now)
	maps.DeleteFunc(i.tokens, func(_ string, held *token.Token) bool { return now.After(held.ExpiresAt) })
}
