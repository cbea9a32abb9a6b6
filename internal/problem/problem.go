// Package problem has errors that know what they mean: their reason, who acts, and when it is tried again. An error
// gets its meaning where it arises, and nobody asks for it a second time.
package problem

import (
	"errors"
	"math/rand/v2"
	"time"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

// Actor is who can mend a problem.
type Actor int

const (
	// Nobody has anything to mend, and there is nothing to tell: what was reconciled has changed since.
	Nobody Actor = iota
	// Operator waits, or tries again, by itself.
	Operator
	// Person must act.
	Person
)

// rule says who mends a problem, and how long is waited between attempts: first, doubled up to max.
type rule struct {
	Actor
	first, max time.Duration
}

var (
	byPerson   = rule{Person, 2 * time.Minute, 10 * time.Minute}
	throttled  = rule{Operator, time.Minute, 10 * time.Minute}
	byOperator = rule{Operator, FirstRetry, MaxRetry}
	atRequest  = rule{Operator, 0, 0} // only when something changes
)

// rules are those of all reasons; a linter sees that none is missing.
var rules = map[v1alpha1.ProblemReason]rule{
	v1alpha1.ReasonAccessDenied:        byPerson,
	v1alpha1.ReasonCredentialsInvalid:  byPerson,
	v1alpha1.ReasonHostNotAllowed:      byPerson,
	v1alpha1.ReasonRequestRefused:      byPerson,
	v1alpha1.ReasonTargetConflict:      byPerson,
	v1alpha1.ReasonTemplateInvalid:     byPerson,
	v1alpha1.ReasonWriteRefused:        byPerson,
	v1alpha1.ReasonCredentialsNotFound: byOperator,
	v1alpha1.ReasonEndpointUnavailable: byOperator,
	v1alpha1.ReasonKubernetesAPIError:  byOperator,
	v1alpha1.ReasonRepairDelayed:       byOperator,
	v1alpha1.ReasonSuspended:           atRequest,
	v1alpha1.ReasonThrottled:           throttled,
	v1alpha1.ReasonUnreadableAnswer:    byOperator,
	v1alpha1.ReasonWaitingForTurn:      byOperator,
}

// Problem is an error with its meaning.
type Problem struct {
	Reason v1alpha1.ProblemReason
	// Revokes is true if the credentials may not be used any more: their token must go, too.
	Revokes bool
	// Failures is how many token requests have failed in a row, RetryAt when the next one may be sent, if one was.
	Failures int
	RetryAt  time.Time
	// IsWoken is true if the end of what is waited for wakes those who wait: they needn't look whether it is over.
	IsWoken bool
	// Standing is the last failure, if there was one, of whoever waits for its turn: it stands until the next answer.
	Standing *Problem
	rule
	err error
}

// New returns an error that has this meaning.
func New(reason v1alpha1.ProblemReason, err error) *Problem {
	return &Problem{Reason: reason, err: err, rule: rules[reason]}
}

// Superseded returns an error that says nothing of the object: what was reconciled has changed since, or is going.
// After that time it is reconciled again; never if 0.
func Superseded(err error, after time.Duration) *Problem {
	return &Problem{err: err, rule: rule{Nobody, after, after}}
}

// Of returns the meaning of an error. One without any is the Kubernetes API's, or a fault of ours.
func Of(err error) *Problem {
	var found *Problem
	if err != nil && !errors.As(err, &found) {
		return New(v1alpha1.ReasonKubernetesAPIError, err)
	}
	return found
}

// Error implements error.
func (p *Problem) Error() string { return p.err.Error() }

// Unwrap returns what the problem is about.
func (p *Problem) Unwrap() error { return p.err }

// Delay returns how long to wait after so many failures: doubled with each after the first, up to a limit.
func (p *Problem) Delay(failures int) time.Duration {
	delay := p.first
	for range failures - 1 {
		if delay *= 2; delay >= p.max {
			return p.max
		}
	}
	return delay
}

// TransientDelay is Delay for what passes by itself, ±50 %: at most a quarter of the life that is left, so that several
// attempts fit in before the token expires.
func (p *Problem) TransientDelay(failures int, lifeLeft time.Duration) time.Duration {
	delay := p.Delay(failures)
	if lifeLeft > 0 {
		delay = max(min(delay, lifeLeft/4), p.first)
	}
	return Jitter(delay)
}

// StandingDelay returns how long to wait for what has stood for a while: first longer than it has stood, which doubles
// with each attempt. It needs no memory but when it began.
func (p *Problem) StandingDelay(stood time.Duration) time.Duration {
	return min(max(stood, 0)+p.first, p.max)
}

// What passes by itself is tried again after FirstRetry, doubled up to MaxRetry.
const (
	FirstRetry = time.Second
	MaxRetry   = time.Minute
)

// Jitter returns a delay ±50 %.
func Jitter(delay time.Duration) time.Duration {
	return time.Duration(float64(delay) * (0.5 + rand.Float64())) //nolint:gosec // spreads load, guards nothing
}
