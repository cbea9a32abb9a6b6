package issuer

import (
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/time/rate"
)

// host is an authentication host, with the requests that wait for it. Its tenants take turns, and so do the clients of
// a tenant: none makes another one wait for more than a request of each.
type host struct {
	limiter  *rate.Limiter
	inFlight int
	lines    map[*line]bool
	tenants  map[string]*tenant
	turns    int
	// next is when a request may be sent that can't be sent yet; zero if none, or if the end of another one tells.
	next time.Time
}

// tenant is one that has lines or requests at a host.
type tenant struct{ lines, inFlight, turn int }

// line has what one tenant waits for of one client, first come, first served. It is never empty.
type line struct {
	tenant  string
	gate    *gate
	entries []*entry
	turn    int
}

func (i *Issuer) hostOf(name string) *host {
	h := i.hosts[name]
	if h == nil {
		h = &host{
			limiter: rate.NewLimiter(i.options.RequestRate, i.options.RequestBurst),
			lines:   map[*line]bool{},
			tenants: map[string]*tenant{},
		}
		i.hosts[name] = h
	}
	return h
}

// add has an entry stand in the line of a tenant and its client, unless its answer is near. A new line is the last.
func (h *host) add(e *entry, tenantName string) {
	l := e.gate.lines[tenantName]
	if e.isInFlight || slices.Contains(e.lines, l) {
		return
	}
	if l == nil {
		h.turns++
		if h.tenants[tenantName] == nil {
			h.tenants[tenantName] = &tenant{turn: h.turns}
		}
		l = &line{tenant: tenantName, gate: e.gate, turn: h.turns}
		h.tenants[tenantName].lines++
		h.lines[l], e.gate.lines[tenantName] = true, l
	}
	l.entries = append(l.entries, e)
	e.lines = append(e.lines, l)
}

// unqueue takes an entry out of the lines of tenants that don't wait for it any more.
func (i *Issuer) unqueue(e *entry) {
	e.lines = slices.DeleteFunc(e.lines, func(l *line) bool {
		if !e.isInFlight && e.claimOf(l.tenant) != nil {
			return false
		}
		n := slices.Index(l.entries, e)
		l.entries = slices.Delete(l.entries, n, n+1)
		if len(l.entries) == 0 {
			h := i.hosts[e.host]
			delete(h.lines, l)
			delete(l.gate.lines, l.tenant)
			h.tenants[l.tenant].lines--
			h.tidy(l.tenant)
		}
		return true
	})
}

// tidy forgets a tenant that has nothing at the host any more.
func (h *host) tidy(name string) {
	if t := h.tenants[name]; t.lines == 0 && t.inFlight == 0 {
		delete(h.tenants, name)
	}
}

// first returns who is asked for first: behind a closed gate one that hasn't failed, so that those who fail can't keep
// the gate closed for the others; else one that a person asks for.
func (l *line) first() *entry {
	first := l.entries[0]
	if l.gate.problem == nil {
		return first
	}
	for _, e := range l.entries {
		if e.failure == nil {
			return e
		}
		if e.isWished() && !first.isWished() {
			first = e
		}
	}
	return first
}

// dispatch sends what may be sent to a host.
func (i *Issuer) dispatch(h *host, now time.Time) {
	h.next = time.Time{}
	for h.inFlight < i.options.MaxInFlight && len(h.lines) > 0 && !i.isStopping {
		slot := h.limiter.ReserveN(now, 1)
		if wait := slot.DelayFrom(now); wait > 0 {
			slot.CancelAt(now)
			h.plan(now.Add(wait))
			break
		}
		l := i.pick(h, now)
		if l == nil {
			slot.CancelAt(now)
			break
		}
		h.turns++
		l.turn, h.tenants[l.tenant].turn = h.turns, h.turns
		i.send(h, l, now)
	}
	if !h.next.IsZero() && (i.planned.IsZero() || h.next.Before(i.planned)) {
		select {
		case i.kick <- struct{}{}:
		default: // it looks anyway
		}
	}
}

func (h *host) plan(at time.Time) {
	if h.next.IsZero() || at.Before(h.next) {
		h.next = at
	}
}

// pick returns the line whose turn it is, nil if no request may be sent.
func (i *Issuer) pick(h *host, now time.Time) *line {
	next := h.nextOf(func(l *line) bool { return i.lets(h, l, now) })
	if next == nil || next.gate.problem == nil || next.first().failure == nil {
		return next
	}
	healthy := h.nextOf(func(l *line) bool {
		return l.gate == next.gate && i.lets(h, l, now) && l.first().failure == nil
	})
	if healthy != nil {
		return healthy
	}
	return next
}

// nextOf returns the line whose turn it is of those that may have one.
func (h *host) nextOf(lets func(*line) bool) *line {
	var next *line
	for l := range h.lines {
		if !lets(l) {
			continue
		}
		if next == nil || h.tenants[l.tenant].turn < h.tenants[next.tenant].turn ||
			l.tenant == next.tenant && l.turn < next.turn {
			next = l
		}
	}
	return next
}

// lets reports whether a request of a line may be sent now, if there is a slot.
func (i *Issuer) lets(h *host, l *line, now time.Time) bool {
	if held := l.gate.problem; held != nil && now.Before(held.RetryAt) {
		h.plan(held.RetryAt)
		return false
	}
	most := i.options.MaxInFlight
	return l.gate.inFlight < l.gate.lets(most/2) &&
		h.tenants[l.tenant].inFlight < most*3/4 && i.inFlight[l.tenant] < most
}

// HostState is how an authentication host is used now.
type HostState struct {
	Host string
	// Waiting are identities that a token is asked for, and whose request wasn't sent yet; Paused are clients that are
	// throttled.
	Waiting, Paused int
}

// Hosts returns those that are known, in an order that stays the same.
func (i *Issuer) Hosts() []HostState {
	i.mu.Lock()
	defer i.mu.Unlock()
	var states []HostState
	for _, name := range slices.Sorted(maps.Keys(i.hosts)) {
		h := i.hosts[name]
		waiting, paused := map[*entry]bool{}, map[*gate]bool{}
		for l := range h.lines {
			for _, e := range l.entries {
				waiting[e] = true
			}
			if l.gate.isPaused() {
				paused[l.gate] = true
			}
		}
		states = append(states, HostState{name, len(waiting), len(paused)})
	}
	return states
}

// isOver reports whether a host may be forgotten: nothing waits for it, and it has its whole burst again.
func (h *host) isOver(now time.Time) bool {
	return len(h.tenants) == 0 && h.limiter.TokensAt(now) >= float64(h.limiter.Burst())
}

func (a Asker) compare(b Asker) int {
	if order := strings.Compare(a.Tenant, b.Tenant); order != 0 {
		return order
	}
	return strings.Compare(a.Name, b.Name)
}
