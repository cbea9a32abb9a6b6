package controller

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// pacer bounds how many token requests are sent to one authentication host per second. It makes nobody wait: it says
// when an identity's turn comes, and keeps that turn for it.
type pacer struct {
	limit rate.Limit
	burst int

	mu    sync.Mutex
	hosts map[string]*rate.Limiter
	turns map[string]time.Time // by identity
}

// notYetError means that a token request has to wait for its turn.
type notYetError struct{}

func (notYetError) Error() string {
	return "many tokens of this authentication host are due at once: requests are sent one after another (see --token-requests-per-second)"
}

func newPacer(limit rate.Limit, burst int) *pacer {
	return &pacer{limit: limit, burst: max(burst, 1), hosts: map[string]*rate.Limiter{}, turns: map[string]time.Time{}}
}

// turn is when a request for an identity may be sent.
func (p *pacer) turn(f issuedFor, now time.Time) time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if at, found := p.turns[f.Identity]; found {
		return at
	}
	host := p.hosts[f.AuthHost]
	if host == nil {
		host = rate.NewLimiter(p.limit, p.burst)
		p.hosts[f.AuthHost] = host
	}
	at := now.Add(host.ReserveN(now, 1).DelayFrom(now))
	p.turns[f.Identity] = at
	return at
}

// take uses up an identity's turn.
func (p *pacer) take(identity string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.turns, identity)
}

// sweep forgets turns that nobody took.
func (p *pacer) sweep(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for identity, at := range p.turns {
		if now.Sub(at) > time.Minute {
			delete(p.turns, identity)
		}
	}
}

// waitForTurn is an attemptError until the identity's turn has come.
func (i *issuer) waitForTurn(f issuedFor) error {
	now := i.clock.Now()
	if at := i.pacer.turn(f, now); now.Before(at) {
		return &attemptError{err: notYetError{}, failures: i.failures.count(f.Identity), retryAt: at}
	}
	return nil
}
