package issuer

import (
	"cmp"
	"errors"
	"maps"
	"time"

	"golang.org/x/time/rate"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// reasons are what each kind of failed request is to a person.
var reasons = map[sfmc.Kind]v1alpha1.ProblemReason{
	sfmc.Refused:     v1alpha1.ReasonRequestRefused,
	sfmc.Throttled:   v1alpha1.ReasonThrottled,
	sfmc.Unavailable: v1alpha1.ReasonEndpointUnavailable,
	sfmc.Unreadable:  v1alpha1.ReasonUnreadableAnswer,
}

// outlasts is how long a failure or a pause is remembered after its end, so that the next one goes on counting.
const outlasts = 10 * time.Minute

// failures remembers the token requests that failed, and says when to ask again: an identity waits longer after each
// failure, and a throttled client is paused as a whole.
type failures struct {
	last    map[string]*failure         // by identity
	pauses  map[string]*problem.Problem // by client
	refused map[string]string           // by client: a hash of the client secret that was refused last
}

// failure is what became of the last request for one identity.
type failure struct {
	problem *problem.Problem
	// answered are the causes that the failure answers.
	answered        map[string]string
	isInvalidClient bool
}

func newFailures() *failures {
	return &failures{last: map[string]*failure{}, pauses: map[string]*problem.Problem{}, refused: map[string]string{}}
}

// holdBack returns a problem as long as no request may be sent for a candidate.
func (f *failures) holdBack(candidate *Candidate, now time.Time) error {
	if paused := f.pauses[candidate.Client()]; paused != nil && now.Before(paused.RetryAt) {
		return paused
	}
	failed := f.last[candidate.Identity]
	if failed != nil && !failed.differs(candidate.Causes) && now.Before(failed.problem.RetryAt) {
		maps.Copy(failed.answered, candidate.Causes)
		return failed.problem
	}
	return nil
}

// differs reports whether something that was there when the request failed is different now.
func (f *failure) differs(causes map[string]string) bool {
	for where, version := range causes {
		if before, seen := f.answered[where]; seen && before != version {
			return true
		}
	}
	return false
}

// record remembers a failed request, and returns the problem with the time before which it isn't repeated.
func (f *failures) record(candidate *Candidate, failed *sfmc.Error, sent, now time.Time) error {
	last := f.last[candidate.Identity]
	if last == nil {
		last = &failure{answered: map[string]string{}, problem: &problem.Problem{}}
		f.last[candidate.Identity] = last
	}
	maps.Copy(last.answered, candidate.Causes)
	if last.isInvalidClient = failed.IsInvalidClient(); last.isInvalidClient {
		f.refused[candidate.Client()] = token.Hash(candidate.Request.ClientSecret)
	}
	recorded := problem.New(reasons[failed.Kind], failed)
	recorded.Failures = last.problem.Failures + 1
	switch failed.Kind {
	case sfmc.Refused:
		recorded.RetryAt = now.Add(recorded.Delay(recorded.Failures))
	case sfmc.Throttled:
		recorded.RetryAt = f.pauseClient(candidate.Client(), failed, sent, now)
	case sfmc.Unavailable, sfmc.Unreadable:
		recorded.RetryAt = now.Add(recorded.TransientDelay(recorded.Failures, candidate.LifeLeft))
	}
	last.problem = recorded
	return recorded
}

// pauseClient keeps a client from sending anything, and returns until when. Refusals of requests that were under way
// together are one: they don't lengthen the pause, nor does a milder one shorten it.
func (f *failures) pauseClient(client string, failed *sfmc.Error, sent, now time.Time) time.Time {
	paused := problem.New(v1alpha1.ReasonThrottled, failed)
	if before := f.pauses[client]; before != nil {
		paused.Failures, paused.RetryAt = before.Failures, before.RetryAt
	}
	if !sent.Before(paused.RetryAt) {
		paused.Failures++
	}
	until := now.Add(cmp.Or(failed.RetryAfter, paused.Delay(paused.Failures)))
	if until.After(paused.RetryAt) {
		paused.RetryAt = until
	}
	f.pauses[client] = paused
	return paused.RetryAt
}

// forget forgets what is over, now that a token was issued.
func (f *failures) forget(candidate *Candidate, issued *token.Token) {
	client := issued.Client()
	if f.refused[client] == token.Hash(candidate.Request.ClientSecret) {
		delete(f.refused, client)
	}
	delete(f.last, issued.Identity)
	if paused := f.pauses[client]; paused != nil && !issued.IssuedAt.Before(paused.RetryAt) {
		delete(f.pauses, client) // a request that was under way before says nothing of it
	}
}

func (f *failures) isRefused(candidate *Candidate) bool {
	return f.refused[candidate.Client()] == token.Hash(candidate.Request.ClientSecret)
}

func (f *failures) sweep(now time.Time) {
	isOver := func(at time.Time) bool { return now.After(at.Add(outlasts)) }
	maps.DeleteFunc(f.last, func(_ string, failed *failure) bool { return isOver(failed.problem.RetryAt) })
	maps.DeleteFunc(f.pauses, func(_ string, paused *problem.Problem) bool { return isOver(paused.RetryAt) })
}

// slots bound how many token requests are sent to one authentication host per second. They make nobody wait: each
// identity is told when its slot comes, and the slot is kept for it.
type slots struct {
	limit rate.Limit
	burst int
	hosts map[string]*rate.Limiter
	at    map[string]time.Time // by identity
}

var errNoSlot = errors.New("many tokens of this authentication host are due at once: " +
	"requests are sent one after another (see --token-requests-per-second)")

func newSlots(limit rate.Limit, burst int) *slots {
	return &slots{limit: limit, burst: max(burst, 1), hosts: map[string]*rate.Limiter{}, at: map[string]time.Time{}}
}

// slotOf returns when a request for an identity may be sent.
func (s *slots) slotOf(issuedFor token.IssuedFor, now time.Time) time.Time {
	if at, found := s.at[issuedFor.Identity]; found {
		return at
	}
	host := s.hosts[issuedFor.AuthHost]
	if host == nil {
		host = rate.NewLimiter(s.limit, s.burst)
		s.hosts[issuedFor.AuthHost] = host
	}
	at := now.Add(host.ReserveN(now, 1).DelayFrom(now))
	s.at[issuedFor.Identity] = at
	return at
}

func (s *slots) take(identity string) { delete(s.at, identity) }

func (s *slots) sweep(now time.Time) {
	maps.DeleteFunc(s.at, func(_ string, at time.Time) bool { return now.Sub(at) > time.Minute })
}
