package issuer

import (
	"context"
	"maps"
	"time"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// flight is a token request that is under way.
type flight struct {
	entry     *entry
	host      *host
	tenant    string
	candidate *Candidate
	lifeLeft  time.Duration
	sent      time.Time
	closings  int // of the gate before it
}

// send sends the request whose turn it is in a line.
func (i *Issuer) send(h *host, l *line, now time.Time) {
	e := l.first()
	c := e.claimOf(l.tenant)
	f := &flight{entry: e, host: h, tenant: l.tenant, candidate: c.candidate, lifeLeft: c.lifeLeft, sent: now,
		closings: e.gate.closings}
	e.refresh.sent(now)
	e.change.sent(now)
	e.gate.demand.sent(now)
	e.gate.sentAt = now
	e.gate.inFlight++
	h.inFlight++
	h.tenants[f.tenant].inFlight++
	i.inFlight[f.tenant]++
	e.isInFlight = true
	i.unqueue(e)
	i.flights.Add(1)
	go i.fly(f)
}

// fly sends a request, and has everyone who waits for it ask again.
func (i *Issuer) fly(f *flight) {
	defer i.flights.Done()
	// A request that was sent is worth its answer: a shutdown must not lose the token.
	got, failed := i.options.Client.RequestToken(context.Background(), f.candidate.Request)
	i.options.Observe(f.candidate.AuthHost, failed, i.options.Clock.Since(f.sent))
	issued, askers := i.land(f, got, failed)
	i.options.Wake(askers, issued)
	i.mu.Lock()
	defer i.mu.Unlock()
	i.landing--
}

// land remembers what a request brought, and returns who should ask again. Others are sent in its place.
func (i *Issuer) land(f *flight, got sfmc.Token, failed *sfmc.Error) (issued *token.Token, askers []Asker) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.landing++
	e, now := f.entry, i.options.Clock.Now()
	e.isInFlight = false
	e.gate.inFlight--
	f.host.inFlight--
	f.host.tenants[f.tenant].inFlight--
	f.host.tidy(f.tenant)
	wasFull, wasDead := i.inFlight[f.tenant] >= i.options.MaxInFlight, e.gate.isDead()
	if i.inFlight[f.tenant]--; i.inFlight[f.tenant] == 0 {
		delete(i.inFlight, f.tenant)
	}
	e.refresh.isMade, e.change.isMade = false, false // who has asked meanwhile asks again
	if failed != nil {
		e.fail(f, failed, now)
	} else {
		e.change = demand{}
		issued = i.remember(f, got, now)
		e.failure, e.isInvalidClient = nil, false
		e.gate.succeed(f)
	}
	askers = e.answer(issued != nil)
	if !wasDead && e.gate.isDead() {
		askers = append(askers, e.gate.waiting()...) // the other client secret may do
	}
	if e.isOver(now) {
		i.drop(e)
	}
	if wasFull {
		for h := range maps.Values(i.hosts) {
			i.dispatch(h, now)
		}
	}
	i.dispatch(f.host, now)
	return issued, askers
}

// remember makes what a request brought the latest token of its identity.
func (i *Issuer) remember(f *flight, got sfmc.Token, now time.Time) *token.Token {
	issued := &token.Token{Token: got, IssuedFor: f.candidate.IssuedFor, IssuedAt: f.sent}
	issued.ExpiresAt = f.sent.Add(got.ExpiresIn)
	if before := i.tokens[issued.Identity]; before != nil {
		last := before.IssuedAt.Round(0)
		if !issued.IssuedAt.Round(0).After(last) && !isInFuture(last, now) {
			issued.IssuedAt = last.Add(1) // the clock was set back a little: it is the later one all the same
		}
	}
	issued.Proof = issued.Prove(f.candidate.Request.ClientSecret)
	i.tokens[issued.Identity] = issued
	return issued
}

// InFlight returns how many requests are under way, or have been answered without everyone having been woken yet.
func (i *Issuer) InFlight() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	sum := i.landing
	for _, n := range i.inFlight {
		sum += n
	}
	return sum
}

// Run sends requests when their time has come. When it is stopped, it returns once those under way have their answers.
func (i *Issuer) Run(ctx context.Context) {
	for {
		timer := i.options.Clock.NewTimer(i.look())
		select {
		case <-ctx.Done():
			timer.Stop()
			i.mu.Lock()
			i.isStopping = true
			i.mu.Unlock()
			i.flights.Wait()
			return
		case <-timer.C():
		case <-i.kick:
			timer.Stop()
		}
	}
}

// look sends what may be sent to any host, and returns when to look again.
func (i *Issuer) look() time.Duration {
	i.mu.Lock()
	defer i.mu.Unlock()
	now := i.options.Clock.Now()
	i.sweep(now)
	i.planned = now // it needs no kick
	planned := now.Add(sweepEvery)
	for _, h := range i.hosts {
		if !h.next.IsZero() && !now.Before(h.next) {
			i.dispatch(h, now)
		}
		if !h.next.IsZero() && h.next.Before(planned) {
			planned = h.next
		}
	}
	i.planned = planned
	return planned.Sub(now)
}
