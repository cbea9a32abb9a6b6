package issuer

import (
	"errors"
	"slices"
	"time"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

// demandFloor is the least time between two requests that people ask for, for one identity or past one closed gate. If
// what they changed has helped, the next change is tried at once again.
const demandFloor = 30 * time.Second

// worthTelling is how long an asker waits before it should say so.
const worthTelling = 10 * time.Second

// reasons are what each kind of failed request is to a person.
var reasons = map[sfmc.Kind]v1alpha1.ProblemReason{
	sfmc.Refused:     v1alpha1.ReasonRequestRefused,
	sfmc.Throttled:   v1alpha1.ReasonThrottled,
	sfmc.Unavailable: v1alpha1.ReasonEndpointUnavailable,
	sfmc.Unreadable:  v1alpha1.ReasonUnreadableAnswer,
}

var (
	errUnderWay = errors.New("a token request is under way")
	errNoSlot   = errors.New("many tokens of this authentication host are due at once: " +
		"requests are sent one after another (see --token-requests-per-second)")
	errFloor = errors.New("a new token was asked for less than 30 s ago")
)

// entry is an identity that is asked for, or whose last request failed.
type entry struct {
	identity   string
	host       string
	gate       *gate
	claims     map[Asker]*claim
	lines      []*line // that it stands in
	isInFlight bool
	// failure is what became of the last request, nil if it brought a token.
	failure         *problem.Problem
	isInvalidClient bool
	// refresh is for new tokens that people ask for, change for what else they change while it fails.
	refresh, change demand
}

// claim is what an asker asked for.
type claim struct {
	causes string
	// candidate is nil once there is an answer.
	candidate *Candidate
	lifeLeft  time.Duration
	since     time.Time
	// isAnswered is true if the answer is a token that hasn't been taken yet.
	isAnswered bool
}

// demand bounds the requests that are sent since people ask for them.
type demand struct {
	isMade bool
	sentAt time.Time
}

// hurry returns when a request may be sent that is due at some time, now that somebody wishes it sooner.
func (d *demand) hurry(due, wish, now time.Time) time.Time {
	if earliest := d.earliest(now); wish.Before(earliest) {
		wish = earliest
	}
	if !wish.Before(due) {
		return due
	}
	d.isMade = true
	return wish
}

func (d *demand) earliest(now time.Time) time.Time {
	if at := d.sentAt.Add(demandFloor); !d.sentAt.IsZero() && at.After(now) {
		return at
	}
	return now
}

func (d *demand) sent(at time.Time) {
	if d.isMade {
		d.isMade, d.sentAt = false, at
	}
}

func (i *Issuer) entryOf(candidate *Candidate) *entry {
	if e := i.entries[candidate.Identity]; e != nil {
		return e
	}
	e := &entry{identity: candidate.Identity, host: candidate.AuthHost, claims: map[Asker]*claim{}}
	e.gate = i.gateOf(candidate)
	e.gate.entries++
	i.entries[e.identity] = e
	return e
}

// await has a token asked for, unless it is too soon, and returns why there is none yet.
func (i *Issuer) await(e *entry, want *Want, candidate *Candidate, now time.Time) error {
	h, c := i.hostOf(e.host), i.claimFor(e, want, now)
	c.isAnswered = false // what it was answered won't do any more
	if why := e.pending(want, now); why != nil && c.candidate == nil && !e.isInFlight {
		i.dispatch(h, now) // the gate may be due at another time
		return why
	}
	if c.candidate == nil {
		c.since = now
	}
	c.candidate, c.lifeLeft = candidate, want.LifeLeft
	e.refresh.isMade = e.refresh.isMade || !want.After.IsZero()
	h.add(e, want.Tenant)
	i.dispatch(h, now)
	return e.whyWaiting(c, now)
}

// claimFor returns the claim of an asker. A person who asks, or has changed something, has a failed identity and its
// closed gate tried sooner; so has a new asker the gate, by its own fault closed or not, while there is time.
func (i *Issuer) claimFor(e *entry, want *Want, now time.Time) *claim {
	c := e.claims[want.Asker]
	isNew := c == nil
	if isNew {
		c = &claim{causes: want.Causes}
		e.claims[want.Asker] = c
		i.asked[want.Asker] = append(i.asked[want.Asker], e)
	}
	isDemand := c.causes != want.Causes || isNew && !want.After.IsZero()
	if !e.isInFlight {
		c.causes = want.Causes // else it was sent before the change, and may fail for what was changed
	}
	switch {
	case isDemand:
		if e.failure != nil {
			made := &e.change
			if !want.After.IsZero() {
				made = &e.refresh
			}
			e.failure = at(e.failure, made.hurry(e.failure.RetryAt, now, now))
			made.isMade = true
		}
		e.gate.hurry(now, now)
	case isNew && e.failure == nil && !e.gate.isPaused():
		e.gate.hurry(now.Add(max(want.LifeLeft, 0)/4), now)
	}
	return c
}

// pending returns why an asker waits, nil if it doesn't.
func (e *entry) pending(want *Want, now time.Time) error {
	c := e.claims[want.Asker]
	switch earliest := e.refresh.earliest(now); {
	case c.candidate != nil:
		return e.whyWaiting(c, now)
	case e.failure != nil && now.Before(e.failure.RetryAt):
		return e.failure
	case e.failure == nil && !want.After.IsZero() && now.Before(earliest):
		return at(problem.New(v1alpha1.ReasonWaitingForTurn, errFloor), earliest)
	}
	return nil
}

// whyWaiting returns what an asker waits for: the gate of its client, or a slot and the answer.
func (e *entry) whyWaiting(c *claim, now time.Time) error {
	failures := 0
	if e.failure != nil {
		failures = e.failure.Failures
	}
	if held := e.gate.problem; held != nil && !e.isInFlight {
		waiting := e.gate.holding()
		waiting.Failures = failures
		return waiting
	}
	waiting := problem.New(v1alpha1.ReasonWaitingForTurn, errNoSlot)
	if e.isInFlight {
		waiting = problem.New(v1alpha1.ReasonWaitingForTurn, errUnderWay)
	}
	waiting.Failures, waiting.IsWoken, waiting.Standing = failures, true, e.failure
	if tell := c.since.Add(worthTelling); tell.After(now) {
		waiting.RetryAt = tell
	}
	return waiting
}

// isWished reports whether a person wants it sooner.
func (e *entry) isWished() bool { return e.refresh.isMade || e.change.isMade }

// isRefusal reports whether the reason to wait is that the client's id or secret was refused.
func (e *entry) isRefusal(why error) bool {
	return e.isInvalidClient && e.failure != nil && errors.Is(why, e.failure)
}

// fail notes why a request brought no token, and when the next one may be sent.
func (e *entry) fail(f *flight, failed *sfmc.Error, now time.Time) {
	recorded := problem.New(reasons[failed.Kind], failed)
	recorded.Failures = 1
	if e.failure != nil {
		recorded.Failures += e.failure.Failures
	}
	e.isInvalidClient = failed.IsInvalidClient()
	switch failed.Kind {
	case sfmc.Refused:
		recorded.RetryAt = now.Add(recorded.Delay(recorded.Failures))
	case sfmc.Unavailable, sfmc.Unreadable:
		recorded.RetryAt = now.Add(recorded.TransientDelay(recorded.Failures, f.lifeLeft))
	case sfmc.Throttled: // it waits for its gate
	}
	e.gate.fail(f, failed, recorded, now)
	e.failure = recorded
}

// claimOf returns a claim of a tenant that waits; nil if none does.
func (e *entry) claimOf(tenant string) *claim {
	for asker, c := range e.claims {
		if asker.Tenant == tenant && c.candidate != nil {
			return c
		}
	}
	return nil
}

// answer ends all that wait, and returns who should ask again.
func (e *entry) answer(isIssued bool) []Asker {
	var askers []Asker
	for asker, c := range e.claims {
		c.isAnswered = isIssued && (c.isAnswered || c.candidate != nil)
		c.candidate = nil
		askers = append(askers, asker)
	}
	slices.SortFunc(askers, Asker.compare)
	return askers
}

func (i *Issuer) isAnswered(asker Asker, identity string) bool {
	e := i.entries[identity]
	return e != nil && e.claims[asker] != nil && e.claims[asker].isAnswered
}

// keepOnly forgets what an asker asked for before and doesn't want any more.
func (i *Issuer) keepOnly(want *Want, now time.Time) {
	i.abandon(want.Asker, now, func(e *entry) bool {
		return slices.ContainsFunc(want.Candidates, func(c Candidate) bool { return c.Identity == e.identity })
	})
}

// Forget forgets an asker: it has its token, or is gone.
func (i *Issuer) Forget(asker Asker) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.forget(asker, i.options.Clock.Now())
}

func (i *Issuer) forget(asker Asker, now time.Time) {
	i.abandon(asker, now, func(*entry) bool { return false })
}

func (i *Issuer) abandon(asker Asker, now time.Time, isKept func(*entry) bool) {
	kept := slices.DeleteFunc(i.asked[asker], func(e *entry) bool {
		if isKept(e) {
			return false
		}
		delete(e.claims, asker)
		i.unqueue(e)
		if e.isOver(now) {
			i.drop(e)
		}
		return true
	})
	if i.asked[asker] = kept; len(kept) == 0 {
		delete(i.asked, asker)
	}
}

// Leave ends the waiting of an asker that may not have a token for now. What it has been answered is remembered.
func (i *Issuer) Leave(asker Asker) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, e := range i.asked[asker] {
		e.claims[asker].candidate = nil
		i.unqueue(e)
	}
}

// Untaken returns who has not yet taken the token that was issued for it.
func (i *Issuer) Untaken() []Asker {
	i.mu.Lock()
	defer i.mu.Unlock()
	var askers []Asker
	for asker, entries := range i.asked {
		if slices.ContainsFunc(entries, func(e *entry) bool { return e.claims[asker].isAnswered }) {
			askers = append(askers, asker)
		}
	}
	slices.SortFunc(askers, Asker.compare)
	return askers
}

func (i *Issuer) drop(e *entry) {
	delete(i.entries, e.identity)
	e.gate.entries--
}

// isIdle reports whether nobody has to do with an identity.
func (e *entry) isIdle() bool { return len(e.claims) == 0 && !e.isInFlight }

// isOver reports whether an identity may be forgotten.
func (e *entry) isOver(now time.Time) bool {
	return e.isIdle() && now.Sub(e.refresh.sentAt) > demandFloor &&
		(e.failure == nil || now.After(e.failure.RetryAt.Add(outlasts)))
}

// at returns a problem with another time of the next attempt.
func at(p *problem.Problem, retryAt time.Time) *problem.Problem {
	moved := *p
	moved.RetryAt = retryAt
	return &moved
}
