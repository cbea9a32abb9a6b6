package issuer

import (
	"fmt"
	"time"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// failsAsAWhole is for how many identities a client secret is refused in a row before it is held back as a whole. While
// it isn't known whether any succeeds, as many may be under way, less those that failed.
const failsAsAWhole = 3

// gate holds back all requests of one client with one client secret: while it is throttled, and when it is refused for
// several identities. Then one request goes first, after a while, and the others if it succeeds.
type gate struct {
	entries  int              // that have to do with it
	lines    map[string]*line // by tenant
	inFlight int
	sentAt   time.Time // of the last request
	// failed are identities that were refused or throttled since the last success, at most failsAsAWhole.
	failed map[string]bool
	// isProven is true from a success until the next refusal or throttling.
	isProven bool
	// isRefused is true if the client secret was refused last.
	isRefused bool
	// problem is why the gate is closed, and until when; nil while it is open.
	problem *problem.Problem
	// closings tells requests that were under way when the gate was closed from the one that was let through.
	closings int
	demand   demand
}

func gateKey(c *Candidate) string { return c.Client() + " " + token.Hash(c.Request.ClientSecret) }

func (i *Issuer) gateOf(candidate *Candidate) *gate {
	key := gateKey(candidate)
	if i.gates[key] == nil {
		i.gates[key] = &gate{failed: map[string]bool{}, lines: map[string]*line{}}
	}
	return i.gates[key]
}

// lets returns how many requests may be under way, of at most so many, once it is time.
func (g *gate) lets(limit int) int {
	switch {
	case g.problem != nil:
		return 1
	case !g.isProven:
		return min(max(failsAsAWhole-len(g.failed), 1), limit)
	}
	return limit
}

// succeed opens the gate: the client was given an answer that it can use, or refused for what it asked for.
func (g *gate) succeed(f *flight) {
	if g.isPaused() && f.closings != g.closings {
		return // it was under way before, and says nothing of the pause
	}
	g.isProven, g.isRefused, g.problem = true, false, nil
	g.demand = demand{}
	clear(g.failed)
}

// fail closes the gate if it is time. Failures of requests that were under way together are one.
func (g *gate) fail(f *flight, failed *sfmc.Error, recorded *problem.Problem, now time.Time) {
	isRefused := failed.Kind == sfmc.Refused
	if isRefused && !failed.IsInvalidClient() {
		g.succeed(f)
		return
	}
	if g.problem == nil && !isRefused && failed.Kind != sfmc.Throttled {
		return // what passes by itself is each identity's own: it must be had as soon as that is due
	}
	g.isProven, g.isRefused = false, g.isRefused || isRefused
	if len(g.failed) < failsAsAWhole {
		g.failed[f.entry.identity] = true
	}
	isStale := f.closings != g.closings
	closed := *recorded
	closed.Failures = 0
	if g.problem != nil {
		closed.Failures = g.problem.Failures
	}
	if !isStale {
		closed.Failures++
	}
	switch {
	case failed.Kind == sfmc.Throttled:
		closed.RetryAt = now.Add(closed.Delay(closed.Failures))
		if failed.RetryAfter > 0 {
			closed.RetryAt = now.Add(failed.RetryAfter)
		}
		if g.isPaused() && isStale && g.problem.RetryAt.After(closed.RetryAt) {
			return // nor does a milder one shorten a pause
		}
	case isStale || g.problem == nil && len(g.failed) < failsAsAWhole:
		return
	case isRefused:
		closed.RetryAt = now.Add(closed.Delay(closed.Failures))
	default:
		closed.RetryAt = recorded.RetryAt // as if it were alone: probes of many would make it late
	}
	g.problem = &closed
	g.closings++
}

// hurry has the next request sent sooner if it is closed.
func (g *gate) hurry(wish, now time.Time) {
	if g.problem != nil {
		g.problem = at(g.problem, g.demand.hurry(g.problem.RetryAt, wish, now))
	}
}

// waiting returns who waits in its lines.
func (g *gate) waiting() []Asker {
	var askers []Asker
	for _, l := range g.lines {
		for _, e := range l.entries {
			for asker, c := range e.claims {
				if c.candidate != nil {
					askers = append(askers, asker)
				}
			}
		}
	}
	return askers
}

// holding returns why an identity waits that may be good by itself.
func (g *gate) holding() *problem.Problem {
	until := "until one gets through"
	if g.isPaused() {
		until = "until " + g.problem.RetryAt.UTC().Format(time.RFC3339)
	}
	held := problem.New(g.problem.Reason, fmt.Errorf("%w; this client's requests wait %s", g.problem, until))
	held.IsWoken = true
	return held
}

func (g *gate) isPaused() bool {
	return g.problem != nil && g.problem.Reason == v1alpha1.ReasonThrottled
}

// isDead reports whether the gate is closed since the client secret is refused, isHeldAsDead whether it is not yet time
// to try whether it still is.
func (g *gate) isDead() bool {
	return g.problem != nil && g.problem.Reason == v1alpha1.ReasonRequestRefused
}

func (g *gate) isHeldAsDead(now time.Time) bool { return g.isDead() && now.Before(g.problem.RetryAt) }

func (g *gate) isUnused() bool { return g.entries == 0 && g.inFlight == 0 }
