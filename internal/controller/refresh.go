package controller

import (
	"encoding/hex"
	"math/rand/v2"
	"time"
)

const (
	// clockSkew is how far into the future a token may seem to have been issued before the wall clock is taken to
	// have been set back; two replicas' clocks differ by less.
	clockSkew = 30 * time.Second

	// shortestLife is how long a token is kept however soon it expires, so that an endpoint that issues tokens
	// of no use is not asked in a loop.
	shortestLife = time.Second

	blockedFirst, blockedMost     = 2 * time.Minute, 10 * time.Minute
	throttledFirst, throttledMost = 1 * time.Minute, 10 * time.Minute
	transientFirst, transientMost = 1 * time.Second, 60 * time.Second
)

// refreshAt is when a token is replaced: refreshBefore before it expires, but never before two thirds of its life
// have passed, less a jitter of up to a twentieth of its life. The jitter depends only on the token's identity, so
// all who share the token refresh it at one time, and a restart changes nothing.
func (t *issued) refreshAt(refreshBefore time.Duration) time.Time {
	life := t.ExpiresAt.Sub(t.IssuedAt)
	at := t.ExpiresAt.Add(-refreshBefore)
	if twoThirds := t.IssuedAt.Add(life * 2 / 3); at.Before(twoThirds) {
		at = twoThirds
	}
	at = at.Add(-time.Duration(fraction(t.Identity) * float64(life/20)))
	if soonest := t.IssuedAt.Add(shortestLife); at.Before(soonest) {
		return soonest
	}
	return at
}

// stillGood tells whether a token needs no replacement yet. Both clocks must agree: the wall clock, which survives
// restarts, and the monotonic one, which a token issued by this process carries and which survives leaps of the
// wall clock.
func (t *issued) stillGood(now time.Time, refreshBefore time.Duration) bool {
	return until(t.refreshAt(refreshBefore), now) > 0 && until(t.IssuedAt, now) <= clockSkew
}

// until is how long it is from now to at, by whichever of the wall and the monotonic clock comes first.
func until(at, now time.Time) time.Duration {
	return min(at.Sub(now), at.Round(0).Sub(now.Round(0)))
}

// fraction maps an identity, which is a hex digest, to a number from 0 to 1.
func fraction(identity string) float64 {
	digest, err := hex.DecodeString(identity[:min(4, len(identity))])
	if err != nil || len(digest) < 2 {
		return 0
	}
	return float64(uint(digest[0])<<8|uint(digest[1])) / 0xffff
}

// doubling is first, doubled with each failure after the first one, and at most most.
func doubling(first, most time.Duration, failures int) time.Duration {
	delay := first
	for range failures - 1 {
		if delay *= 2; delay >= most {
			return most
		}
	}
	return delay
}

// transientDelay is how long to wait after a failure that passes by itself: from 1 s doubling to 60 s and to a
// quarter of the life that is left, so that several tries fit in before the token expires, ±50 %.
func transientDelay(failures int, lifeLeft time.Duration) time.Duration {
	delay := doubling(transientFirst, transientMost, failures)
	if lifeLeft > 0 {
		delay = max(min(delay, lifeLeft/4), transientFirst)
	}
	return time.Duration(float64(delay) * (0.5 + rand.Float64())) //nolint:gosec // spreads load, guards nothing
}

// standingDelay is how long to wait before looking again at something that has stood for a while: first longer than it
// has stood, which doubles with each look, and at most most. It needs no memory but the condition's own time.
func standingDelay(stood, first, most time.Duration) time.Duration {
	return min(max(stood, 0)+first, most)
}
