package faults

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// What the design allows. Each bound is computed from docs/reliability.md's words, not from the operator's code.

// soonest is the part of a life before whose end no token is replaced: two thirds, less a jitter of a twentieth.
const soonest = 2.0/3 - 1.0/20

const (
	firstDelay, mostDelay = time.Second, 60 * time.Second
	most, least           = 1.5, 0.5 // ±50 %
)

// refreshesAllowed is how many tokens an identity may get in a time: one at once, one after each soonest end.
func refreshesAllowed(during, life time.Duration) int {
	return 1 + int(float64(during)/(soonest*float64(life)))
}

// delay is what the backoff schedule has after so many failures, without its ±50 %.
func delay(failures int, lifeLeft time.Duration) time.Duration {
	wait := firstDelay
	for range failures - 1 {
		wait = min(2*wait, mostDelay)
	}
	if lifeLeft > 0 {
		wait = max(min(wait, lifeLeft/4), firstDelay)
	}
	return wait
}

// attemptsAllowed is the most requests that the backoff schedule allows an identity while all of them fail.
func attemptsAllowed(during, life time.Duration) int {
	lifeLeft := time.Duration((1 - soonest) * float64(life))
	attempts := 1
	for at := time.Duration(0); ; attempts++ {
		if at += time.Duration(least * float64(delay(attempts, lifeLeft-at))); at > during {
			return attempts
		}
	}
}

// retryWithin is how soon after the end of a fault the next attempt comes at the latest, if the token has expired
// meanwhile and this many attempts failed.
func retryWithin(failures int) time.Duration {
	return time.Duration(most * float64(delay(failures, 0)))
}

// retryWithinLife is retryWithin while a token is alive.
func retryWithinLife(life time.Duration) time.Duration {
	return time.Duration(most * float64(max(firstDelay, time.Duration((1-soonest)*float64(life))/4)))
}

// retryWithinAfter is retryWithin if it isn't known how many attempts failed: with the shortest delays, those that fit.
func retryWithinAfter(away time.Duration) time.Duration {
	failures := 1
	for at := time.Duration(0); at <= away; failures++ {
		at += time.Duration(least * float64(delay(failures, 0)))
	}
	return retryWithin(failures)
}

func TestTheAllowancesAreTheDesigns(t *testing.T) {
	g := NewWithT(t)
	const life = 1079 * time.Second
	g.Expect(refreshesAllowed(time.Hour, life)).To(Equal(6), "not sooner than every 665 s")
	g.Expect(delay(1, 0)).To(Equal(time.Second))
	g.Expect(delay(5, 0)).To(Equal(16 * time.Second))
	g.Expect(delay(50, 0)).To(Equal(time.Minute))
	g.Expect(delay(50, 20*time.Second)).To(Equal(5 * time.Second))
	g.Expect(delay(50, 2*time.Second)).To(Equal(time.Second))
	g.Expect(attemptsAllowed(0, life)).To(Equal(1))
	g.Expect(attemptsAllowed(time.Second, life)).To(Equal(2))
	g.Expect(attemptsAllowed(time.Hour, life)).To(BeNumerically("~", 155, 5), "every 30 s, and more often while the life runs out")
	g.Expect(retryWithin(100)).To(Equal(90 * time.Second))
	g.Expect(retryWithinLife(10 * time.Second)).To(Equal(1500 * time.Millisecond))
	g.Expect(retryWithinAfter(10 * time.Second)).To(BeNumerically("<=", 48*time.Second))
}
