package controller

import (
	"encoding/hex"
	"math"
	"testing"
	"time"
	"unsafe"

	. "github.com/onsi/gomega"
	"k8s.io/utils/clock"
	"pgregory.net/rapid"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// living is a token that was issued then, for so long.
func living(identity string, at time.Time, life time.Duration) *issued {
	return &issued{
		Token:     sfmc.Token{AccessToken: "token", TokenType: "Bearer", ExpiresIn: life},
		issuedFor: issuedFor{Identity: identity},
		IssuedAt:  at,
		ExpiresAt: at.Add(life),
	}
}

var (
	anyLife = rapid.Map(rapid.Int64Range(1, 86400), func(s int64) time.Duration { return time.Duration(s) * time.Second })
	// anyRefreshBefore has what the CRD lets through.
	anyRefreshBefore = rapid.Map(rapid.Int64Range(int64(time.Minute), int64(24*time.Hour)), func(d int64) time.Duration { return time.Duration(d) })
	anyTime          = rapid.Map(rapid.Int64Range(0, 1<<32), func(s int64) time.Time { return time.Unix(s, 0).UTC() })
	anyIdentity      = rapid.Map(rapid.SliceOfN(rapid.Byte(), 32, 32), hex.EncodeToString)
)

func TestATokenIsNeverReplacedBeforeTwoThirdsOfItsLife(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		life := anyLife.Draw(t, "life")
		token := living(anyIdentity.Draw(t, "identity"), anyTime.Draw(t, "issued"), life)
		after := token.refreshAt(anyRefreshBefore.Draw(t, "refreshBefore")).Sub(token.IssuedAt)
		if after < life*2/3-life/20 {
			t.Fatalf("replaced %s after it was issued for %s", after, life)
		}
		if after < time.Second {
			t.Fatalf("replaced %s after it was issued", after)
		}
	})
}

func TestATokenIsReplacedBeforeItExpires(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		life, before := anyLife.Draw(t, "life"), anyRefreshBefore.Draw(t, "refreshBefore")
		token := living(anyIdentity.Draw(t, "identity"), anyTime.Draw(t, "issued"), life)
		at := token.refreshAt(before)
		if life > time.Second && !at.Before(token.ExpiresAt) {
			t.Fatalf("a token of %s is replaced %s after it expired", life, at.Sub(token.ExpiresAt))
		}
		if at.After(token.ExpiresAt) {
			t.Fatal("replaced after it expired")
		}
		// As long before as was asked for, where two thirds of the life leave room for it.
		if before <= life/3 && at.After(token.ExpiresAt.Add(-before)) {
			t.Fatalf("replaced only %s before it expires, not %s", token.ExpiresAt.Sub(at), before)
		}
		// And no earlier than asked for, jitter aside.
		if earliest := token.ExpiresAt.Add(-before - life/20); at.Before(earliest) {
			t.Fatalf("replaced %s earlier than asked for", earliest.Sub(at))
		}
	})
}

func TestTheTimeOfReplacementDependsOnWhatIsAskedForAlone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		identity, at, life := anyIdentity.Draw(t, "identity"), anyTime.Draw(t, "issued"), anyLife.Draw(t, "life")
		before := anyRefreshBefore.Draw(t, "refreshBefore")
		one, other := living(identity, at, life), living(identity, at, life)
		other.AccessToken, other.Proof, other.Scope = "another", "another", "another"
		if !one.refreshAt(before).Equal(other.refreshAt(before)) {
			t.Fatal("two that share a token replace it at two times")
		}
	})
}

func TestReplacementsOfManyIdentitiesAreSpread(t *testing.T) {
	g := NewWithT(t)
	seen := map[time.Duration]bool{}
	first, last := time.Duration(math.MaxInt64), time.Duration(0)
	for i := range 256 {
		identity := hex.EncodeToString([]byte{byte(i), byte(i), 0, 0})
		after := living(identity, noon, 1079*time.Second).refreshAt(5 * time.Minute).Sub(noon)
		seen[after], first, last = true, min(first, after), max(last, after)
	}
	g.Expect(seen).To(HaveLen(256))
	g.Expect(last).To(Equal(779*time.Second), "five minutes before it expires")
	g.Expect(last - first).To(BeNumerically("~", 1079*time.Second/20, time.Millisecond))
}

func TestMarketingCloudsUsualTokenIsReplacedBetween719And779SecondsAfterItWasIssued(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		token := living(anyIdentity.Draw(t, "identity"), noon, 1079*time.Second)
		after := token.refreshAt(5 * time.Minute).Sub(noon)
		if after < 719*time.Second || after > 779*time.Second {
			t.Fatalf("after %s", after)
		}
	})
}

func TestAnIdentityThatIsNoDigestHasNoJitter(t *testing.T) {
	for _, identity := range []string{"", "a", "ab", "abc", "no hex", "\xff\xff\xff\xff"} {
		g := NewWithT(t)
		g.Expect(fraction(identity)).To(BeZero(), "%q", identity)
		g.Expect(living(identity, noon, 1079*time.Second).refreshAt(5 * time.Minute)).To(Equal(noon.Add(779 * time.Second)))
	}
	NewWithT(t).Expect(fraction("ffffcafe")).To(Equal(1.0))
}

func TestATokenIsGoodUntilItIsToBeReplaced(t *testing.T) {
	g := NewWithT(t)
	token := living("", noon, 1079*time.Second)
	at := token.refreshAt(5 * time.Minute)
	g.Expect(token.stillGood(noon, 5*time.Minute)).To(BeTrue())
	g.Expect(token.stillGood(at.Add(-1), 5*time.Minute)).To(BeTrue())
	g.Expect(token.stillGood(at, 5*time.Minute)).To(BeFalse())
}

func TestATokenThatExpiredIsNeverGood(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		token := living(anyIdentity.Draw(t, "identity"), anyTime.Draw(t, "issued"), anyLife.Draw(t, "life"))
		before := anyRefreshBefore.Draw(t, "refreshBefore")
		ago := time.Duration(rapid.Int64Range(0, int64(1000*time.Hour)).Draw(t, "expired ago"))
		for _, ago := range []time.Duration{ago, 30 * time.Minute} {
			if token.stillGood(token.ExpiresAt.Add(ago), before) {
				t.Fatalf("good although it expired %s ago", ago)
			}
		}
	})
}

func TestATokenFromTheFutureIsNotGood(t *testing.T) {
	for ahead, good := range map[time.Duration]bool{0: true, clockSkew: true, clockSkew + 1: false, 10 * time.Minute: false, 1000 * time.Hour: false} {
		g := NewWithT(t)
		token := living("", noon, 1079*time.Second)
		g.Expect(token.stillGood(noon.Add(-ahead), 5*time.Minute)).To(Equal(good), "issued %s from now", ahead)
	}
}

// leap returns t as it would be had the wall clock been set while the monotonic one went on. The layout of a time
// with a monotonic reading is that of package time: the wall clock's seconds stand above 30 bits of nanoseconds.
func leap(t time.Time, by time.Duration) time.Time {
	*(*uint64)(unsafe.Pointer(&t)) += uint64(by/time.Second) << 30 //nolint:gosec // there is no other way to two clocks
	return t
}

func TestALeapOfTheWallClockNeverMakesATokenLastLonger(t *testing.T) {
	g := NewWithT(t)
	began := clock.RealClock{}.Now()
	g.Expect(leap(began, 10*time.Minute).Round(0).Sub(began.Round(0))).To(Equal(10 * time.Minute))
	g.Expect(leap(began, 10*time.Minute).Sub(began)).To(BeZero(), "the monotonic clock went on")

	mine := living("", began, 1079*time.Second) // issued by this process
	recorded := living("", began.Round(0), 1079*time.Second)
	for _, by := range []time.Duration{-10 * time.Minute, -time.Minute, -10 * time.Second, 0, 10 * time.Second, time.Minute, 10 * time.Minute} {
		for after := time.Duration(0); after < time.Hour; after += 17 * time.Second {
			now := leap(began.Add(after), by)
			if after >= 1079*time.Second {
				g.Expect(mine.stillGood(now, 5*time.Minute)).To(BeFalse(), "clock set by %s, expired %s ago", by, after-1079*time.Second)
			}
			if by >= -clockSkew && after >= 1079*time.Second-by {
				g.Expect(recorded.stillGood(now, 5*time.Minute)).To(BeFalse(), "clock set by %s, %s after", by, after)
			}
		}
	}
	// A clock that was set back: what this process issued is known to be good, what was only recorded isn't trusted.
	back := leap(began.Add(10*time.Second), -10*time.Minute)
	g.Expect(mine.stillGood(back, 5*time.Minute)).To(BeTrue())
	g.Expect(recorded.stillGood(back, 5*time.Minute)).To(BeFalse())
	// A clock that was set forward: at worst a token is replaced early.
	forward := leap(began.Add(10*time.Minute), 10*time.Minute)
	g.Expect(mine.stillGood(forward, 5*time.Minute)).To(BeFalse())
	g.Expect(recorded.stillGood(forward, 5*time.Minute)).To(BeFalse())
}

func TestDelaysDoubleFromTheFirstToTheMost(t *testing.T) {
	g := NewWithT(t)
	minutes := func(first, most time.Duration) []float64 {
		var delays []float64
		for failures := 1; failures <= 7; failures++ {
			delays = append(delays, doubling(first, most, failures).Minutes())
		}
		return delays
	}
	g.Expect(minutes(blockedFirst, blockedMost)).To(Equal([]float64{2, 4, 8, 10, 10, 10, 10}))
	g.Expect(minutes(throttledFirst, throttledMost)).To(Equal([]float64{1, 2, 4, 8, 10, 10, 10}))
	rapid.Check(t, func(t *rapid.T) {
		failures := rapid.IntRange(-1, math.MaxInt).Draw(t, "failures")
		if delay := doubling(transientFirst, transientMost, failures); delay < transientFirst || delay > transientMost {
			t.Fatalf("%s after %d failures", delay, failures)
		}
	})
}

func TestATransientFailureIsRepeatedSoonEnoughForSeveralTries(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		failures := rapid.IntRange(1, 1<<40).Draw(t, "failures")
		left := time.Duration(rapid.Int64Range(-int64(time.Hour), int64(24*time.Hour)).Draw(t, "life left"))
		delay := transientDelay(failures, left)
		middle := time.Minute
		if failures < 7 {
			middle = min(middle, time.Second<<(failures-1))
		}
		if left > 0 {
			middle = max(time.Second, min(middle, left/4))
		}
		if delay < middle/2 || delay > middle*3/2 {
			t.Fatalf("%s after %d failures with %s left; expected %s ± 50 %%", delay, failures, left, middle)
		}
	})
}

func TestTransientDelaysAreSpread(t *testing.T) {
	g := NewWithT(t)
	seen := map[time.Duration]bool{}
	for range 100 {
		seen[transientDelay(10, time.Hour)] = true
	}
	g.Expect(len(seen)).To(BeNumerically(">", 50))
}

func TestWhatStandsForLongIsLookedAtSeldom(t *testing.T) {
	g := NewWithT(t)
	stood, looks := time.Duration(0), 0
	for ; stood < 6*time.Hour; looks++ {
		delay := standingDelay(stood, blockedFirst, blockedMost)
		g.Expect(delay).To(Equal(doubling(blockedFirst, blockedMost, looks+1)))
		stood += delay
	}
	g.Expect(looks).To(BeNumerically("<", 6*6+5))
	g.Expect(standingDelay(-time.Hour, blockedFirst, blockedMost)).To(Equal(blockedFirst), "the clock was set back")
	g.Expect(standingDelay(1000*time.Hour, transientFirst, transientMost)).To(Equal(transientMost))
}
