package controller

import (
	"maps"
	"sync"
	"time"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

// failures remembers the token requests that failed, and says when to ask again: an identity waits longer after each
// failure, and a throttled client is paused as a whole.
type failures struct {
	mu      sync.Mutex
	last    map[string]*failure // by identity
	pauses  map[string]*pause   // by client
	refused map[string]string   // by client: a hash of the client secret that was refused last
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

// attemptError is a token request that failed, now or a while ago, with the time before which it isn't repeated.
type attemptError struct {
	err      error
	failures int
	retryAt  time.Time
}

func (e *attemptError) Error() string { return e.err.Error() }
func (e *attemptError) Unwrap() error { return e.err }

func newFailures() *failures {
	return &failures{last: map[string]*failure{}, pauses: map[string]*pause{}, refused: map[string]string{}}
}

// holdBack is an error as long as no request may be sent for w.
func (f *failures) holdBack(w want, now time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if paused := f.pauses[w.client()]; paused != nil && now.Before(paused.until) {
		return &attemptError{err: paused.err, failures: paused.count, retryAt: paused.until}
	}
	if failed := f.last[w.Identity]; failed != nil && !failed.differs(w.causes) && now.Before(failed.retryAt) {
		maps.Copy(failed.tried, w.causes)
		return &attemptError{err: failed.err, failures: failed.count, retryAt: failed.retryAt}
	}
	return nil
}

// differs tells whether something that was there when the request failed is different now.
func (f *failure) differs(causes map[string]string) bool {
	for where, version := range causes {
		if before, seen := f.tried[where]; seen && before != version {
			return true
		}
	}
	return false
}

func (f *failures) changed(w want) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	failed := f.last[w.Identity]
	return failed != nil && failed.differs(w.causes)
}

// rememberCauses takes what made a caller look as answered by the failure.
func (f *failures) rememberCauses(w want) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if failed := f.last[w.Identity]; failed != nil {
		maps.Copy(failed.tried, w.causes)
	}
}

// recordFailure remembers when w, for which a request was sent at that time, may be asked for again.
func (f *failures) recordFailure(w want, err error, sent, now time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	failed := f.last[w.Identity]
	if failed == nil {
		failed = &failure{tried: map[string]string{}}
		f.last[w.Identity] = failed
	}
	maps.Copy(failed.tried, w.causes)
	failed.err = err
	failed.count++
	if sfmc.IsInvalidClient(err) {
		f.refused[w.client()] = hashOf(w.request.ClientSecret)
	}
	switch sfmc.KindOf(err) {
	case sfmc.Refused:
		failed.retryAt = now.Add(doubling(blockedFirst, blockedMost, failed.count))
	case sfmc.Throttled:
		failed.retryAt = f.pauseClient(w.client(), err, sent, now)
	default:
		failed.retryAt = now.Add(transientDelay(failed.count, w.lifeLeft))
	}
	return &attemptError{err: err, failures: failed.count, retryAt: failed.retryAt}
}

// pauseClient keeps a client from sending anything, and returns until when. Refusals of requests that were under way
// together are one: they don't lengthen the pause, nor does a milder one shorten it.
func (f *failures) pauseClient(client string, err error, sent, now time.Time) time.Time {
	paused := f.pauses[client]
	if paused == nil {
		paused = &pause{}
		f.pauses[client] = paused
	}
	if !sent.Before(paused.until) {
		paused.count++
	}
	until := now.Add(doubling(throttledFirst, throttledMost, paused.count))
	if asked := sfmc.RetryAfter(err); asked > 0 {
		until = now.Add(asked)
	}
	paused.err = err
	if until.After(paused.until) {
		paused.until = until
	}
	return paused.until
}

// recordSuccess forgets what is over, now that a token was issued.
func (f *failures) recordSuccess(token *issued, clientSecret string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refused[token.client()] == hashOf(clientSecret) {
		delete(f.refused, token.client())
	}
	delete(f.last, token.Identity)
	if paused := f.pauses[token.client()]; paused != nil && !token.IssuedAt.Before(paused.until) {
		delete(f.pauses, token.client()) // a request that was under way before says nothing of it
	}
}

// count is how many requests for an identity have failed in a row.
func (f *failures) count(identity string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if failed := f.last[identity]; failed != nil {
		return failed.count
	}
	return 0
}

// refuses tells whether the client secret of w is the one that was refused last.
func (f *failures) refuses(w *want) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refused[w.client()] == hashOf(w.request.ClientSecret)
}

// sweep forgets what no decision depends on any more.
func (f *failures) sweep(now time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for identity, failed := range f.last {
		if now.After(failed.retryAt.Add(blockedMost)) {
			delete(f.last, identity)
		}
	}
	for client, paused := range f.pauses {
		if now.After(paused.until.Add(throttledMost)) {
			delete(f.pauses, client)
		}
	}
}
