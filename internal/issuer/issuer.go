// Package issuer asks Marketing Cloud for tokens: one request in flight for each identity, no more often than its host
// and its client bear, and not again too soon after a failure. Nobody waits in it: who asks is woken when there is an
// answer. It knows nothing of Kubernetes.
package issuer

import (
	"context"
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/utils/clock"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// Client sends one token request.
type Client interface {
	RequestToken(ctx context.Context, request sfmc.TokenRequest) (sfmc.Token, *sfmc.Error)
}

// Options of an issuer.
type Options struct {
	Client Client
	Clock  clock.Clock
	// RequestRate is in token requests to one authentication host per second, after a burst of at least 1.
	RequestRate  rate.Limit
	RequestBurst int
	// MaxInFlight is how many token requests may be under way to one authentication host, and of one tenant. At one
	// host, a tenant may have three quarters of them, and a client half: none of them takes all. At least 4.
	MaxInFlight int
	// Recall returns tokens that were recorded for an identity outside of this process.
	Recall func(ctx context.Context, identity string) ([]*token.Token, error)
	// Observe is told of each request that was sent: to which authentication host, how it failed, nil if it didn't, and
	// how long it took.
	Observe func(host string, failed *sfmc.Error, took time.Duration)
	// Wake is told who should ask again: there is a new token, or nil if the request failed.
	Wake func(askers []Asker, issued *token.Token)
}

// Issuer remembers the last token of each identity, and nothing that a restart would miss: the Secrets are the record.
// What it remembers belongs to askers that exist, or is bounded by time and number.
type Issuer struct {
	options Options
	kick    chan struct{} // has Run look at the hosts earlier than it planned
	flights sync.WaitGroup

	mu         sync.Mutex // guards what follows
	isStopping bool
	started    time.Time // when the first one asked
	tokens     map[string]*token.Token
	entries    map[string]*entry  // by identity: what is asked for, or failed
	asked      map[Asker][]*entry // what each one has asked for
	gates      map[string]*gate   // by client and client secret
	hosts      map[string]*host
	inFlight   map[string]int // by tenant
	landing    int            // requests whose askers are being woken
	planned    time.Time      // when Run looks at the hosts again
	swept      time.Time
}

// Asker is who asks for a token, and of which tenant: tenants take turns.
type Asker struct{ Tenant, Name string }

// Want is what an asker asks for: a token of any of the candidates, of which there is one for each client secret.
type Want struct {
	Asker
	Candidates []Candidate
	// Refused is the identity whose client secret is tried second, since it was refused last.
	Refused       string
	RefreshBefore time.Duration
	// After is when a token was asked for that won't do any more, nor any before it. It is zero unless a person asks.
	After time.Time
	// LifeLeft is how long the asker can do without a new token.
	LifeLeft time.Duration
	// Causes name the versions of what a person can change. If they are others than before, it is tried again at once.
	Causes string
}

// Candidate is a token that will do.
type Candidate struct {
	token.IssuedFor
	Request sfmc.TokenRequest
}

// Obtained is what an issuer could do.
type Obtained struct {
	// Token is nil beside an error.
	Token *token.Token
	// Refused is the identity that was refused, as an invalid client, before the other client secret was tried.
	Refused string
}

// New returns an issuer. Run must be running.
func New(options Options) *Issuer {
	return &Issuer{
		options:  options,
		kick:     make(chan struct{}, 1),
		tokens:   map[string]*token.Token{},
		entries:  map[string]*entry{},
		asked:    map[Asker][]*entry{},
		gates:    map[string]*gate{},
		hosts:    map[string]*host{},
		inFlight: map[string]int{},
	}
}

// Ask returns a token that serves one of the candidates, if it is known from this process or recorded outside. Else it
// has one asked for, and returns a problem: the asker is woken, or comes again when the problem says.
func (i *Issuer) Ask(ctx context.Context, want *Want) (Obtained, error) {
	for n := range want.Candidates {
		if err := i.recall(ctx, &want.Candidates[n]); err != nil {
			return Obtained{Refused: want.Refused}, err
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.options.Clock.Now()
	if i.started.IsZero() {
		i.started = now
	}
	i.sweep(now)
	candidates, refused := i.preferred(want)
	if held := i.served(want, now); held != nil {
		i.forget(want.Asker, now)
		return Obtained{held, refused}, nil
	}
	i.keepOnly(want, now)
	var why error
	for n, candidate := range candidates {
		e := i.entryOf(candidate)
		why = i.await(e, want, candidate, now)
		// Behind the gate of a dead client secret it waits for either one.
		if !e.isRefusal(why) && (n == len(candidates)-1 || !e.gate.isHeldAsDead(now)) {
			break
		}
		refused = candidate.Identity
	}
	return Obtained{Refused: refused}, why
}

// WhyWaiting returns why an asker waits for what it wanted before; nil if it doesn't, and must ask: also if a token for
// another one of its client secrets may do, for which it hasn't asked yet. It has no need to know candidates.
func (i *Issuer) WhyWaiting(want *Want, secrets int) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	entries := i.asked[want.Asker]
	for _, e := range entries {
		if c := e.claims[want.Asker]; c.isAnswered || c.causes != want.Causes {
			return nil
		}
	}
	var why error
	now := i.options.Clock.Now()
	for _, e := range entries {
		if why = e.pending(want, now); why == nil || !e.isRefusal(why) && !e.gate.isHeldAsDead(now) {
			return why
		}
	}
	if len(entries) < secrets {
		return nil
	}
	return why
}

// recall learns a candidate's token from what was recorded outside, after a restart or a change of leader. It must be
// proved: an identity is keyed with the client secret, and so is the proof. Nobody gets or plants one by a record.
func (i *Issuer) recall(ctx context.Context, candidate *Candidate) error {
	if i.Latest(candidate.Identity) != nil {
		return nil
	}
	recorded, err := i.options.Recall(ctx, candidate.Identity)
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, held := range recorded {
		if held.Identity == candidate.Identity && held.IsProved(candidate.Request.ClientSecret) {
			i.learn(held, i.options.Clock.Now())
		}
	}
	return err
}

// served returns the newest token that serves an asker; nil if there is none. One that was asked for by the asker is
// taken even if it is due again already: asking once more would bring no better one.
func (i *Issuer) served(want *Want, now time.Time) *token.Token {
	var newest *token.Token
	for _, candidate := range want.Candidates {
		held := i.tokens[candidate.Identity]
		if held == nil || newest != nil && !isLater(held, newest, now) || !want.isAfter(held, now) {
			continue
		}
		if held.IsFresh(now, want.RefreshBefore) || i.isAnswered(want.Asker, candidate.Identity) {
			newest = held
		}
	}
	return newest
}

// isAfter reports whether a token was asked for after the one that won't do any more, by the wall clock: by that alone
// it is known of a token in a Secret.
func (w *Want) isAfter(held *token.Token, now time.Time) bool {
	issuedAt := held.IssuedAt.Round(0)
	return w.After.IsZero() || issuedAt.After(w.After) || isInFuture(w.After, now) && !isInFuture(issuedAt, now)
}

// preferred puts the staged client secret first if the active one is known to be refused, which it returns: by this
// process, or, before a restart, when the token that the asker holds was asked for.
func (i *Issuer) preferred(want *Want) (candidates []*Candidate, refused string) {
	isRefused := func(c *Candidate) bool {
		gate := i.gates[gateKey(c)]
		return gate != nil && gate.isRefused || want.Refused == c.Identity
	}
	for n := range want.Candidates {
		candidates = append(candidates, &want.Candidates[n])
	}
	if len(candidates) == 2 && isRefused(candidates[0]) && !isRefused(candidates[1]) {
		return []*Candidate{candidates[1], candidates[0]}, candidates[0].Identity
	}
	return candidates, want.Refused
}

// Latest returns the token remembered for an identity, nil if there is none.
func (i *Issuer) Latest(identity string) *token.Token {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.tokens[identity]
}

// Newest returns the held token, or a later one that is remembered for its identity or one of these; nil if there is
// none.
func (i *Issuer) Newest(held *token.Token, identities []string) *token.Token {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.options.Clock.Now()
	if held != nil {
		identities = append([]string{held.Identity}, identities...)
	}
	for _, identity := range identities {
		// If it is the same one, it carries the monotonic clock.
		if latest := i.tokens[identity]; latest != nil && (held == nil || !isLater(held, latest, now)) {
			held = latest
		}
	}
	return held
}

// Timed returns a held token with its times by both clocks, if it was issued to this process. What a Secret records are
// times by the wall clock alone, which may have been set since.
func (i *Issuer) Timed(held *token.Token) *token.Token {
	if held == nil {
		return nil
	}
	latest := i.Latest(held.Identity)
	if latest == nil || latest.AccessToken != held.AccessToken ||
		!latest.IssuedAt.Equal(held.IssuedAt) || !latest.ExpiresAt.Equal(held.ExpiresAt) {
		return held
	}
	timed := *held
	timed.IssuedAt, timed.ExpiresAt = latest.IssuedAt, latest.ExpiresAt
	return &timed
}

// IsForeign reports whether a token was issued to another process while this one was at work: they both do the same. Of
// one that has expired, or where there are very many, this process may have forgotten its own.
func (i *Issuer) IsForeign(held *token.Token) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	latest, now := i.tokens[held.Identity], i.options.Clock.Now()
	if i.started.IsZero() || !held.IssuedAt.After(i.started.Add(token.ClockSkew)) || !now.Before(held.ExpiresAt) {
		return false
	}
	return latest == nil && len(i.tokens) < maxTokens || latest != nil && isLater(held, latest, now)
}

// isLater reports whether a token was issued later than another one. Neither counts if that is in the future.
func isLater(a, b *token.Token, now time.Time) bool {
	if isInFuture(a.IssuedAt, now) != isInFuture(b.IssuedAt, now) {
		return isInFuture(b.IssuedAt, now)
	}
	if !a.IssuedAt.Equal(b.IssuedAt) {
		return a.IssuedAt.After(b.IssuedAt)
	}
	return a.AccessToken > b.AccessToken // two operators must agree
}

// isInFuture reports whether the wall clock was set back since.
func isInFuture(at, now time.Time) bool { return token.Until(at, now) > token.ClockSkew }

// learn remembers a token, unless a later one of its identity is known.
func (i *Issuer) learn(held *token.Token, now time.Time) {
	if known := i.tokens[held.Identity]; known == nil || isLater(held, known, now) {
		i.tokens[held.Identity] = held
	}
}

// Bounds of what is remembered for nobody who asks, beside those of time.
const (
	maxTokens  = 16_384
	maxEntries = 4_096
	maxGates   = 4_096
	// outlasts is how long a failure is remembered after its end, so that the next one goes on counting.
	outlasts = 10 * time.Minute
	// gateOutlasts is how long a client secret is remembered after its last request.
	gateOutlasts = time.Hour
	sweepEvery   = time.Minute
)

// sweep forgets, now and then, what no decision depends on any more.
func (i *Issuer) sweep(now time.Time) {
	if now.Sub(i.swept).Abs() < sweepEvery {
		return
	}
	i.swept = now
	sweep(i.tokens, maxTokens, func(held *token.Token) (isOver, isBounded bool) {
		return !now.Before(held.ExpiresAt), true
	})
	for _, e := range sweep(i.entries, maxEntries, func(e *entry) (isOver, isBounded bool) {
		return e.isOver(now), e.isIdle()
	}) {
		e.gate.entries--
	}
	sweep(i.gates, maxGates, func(g *gate) (isOver, isBounded bool) {
		return g.isUnused() && now.After(g.sentAt.Add(gateOutlasts)), g.isUnused()
	})
	maps.DeleteFunc(i.hosts, func(_ string, h *host) bool { return h.isOver(now) })
}

// sweep deletes what is over, and so much of what is bounded that no more than limit of it are left. It returns that.
func sweep[V any](all map[string]V, limit int, look func(V) (isOver, isBounded bool)) (deleted []V) {
	bounded := 0
	for key, value := range all {
		isOver, isBounded := look(value)
		if isBounded && !isOver {
			bounded++
		}
		if isOver || isBounded && bounded > limit {
			deleted = append(deleted, value)
			delete(all, key)
		}
	}
	return deleted
}
