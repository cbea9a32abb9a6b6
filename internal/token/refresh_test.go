package token

import (
	"encoding/hex"
	"math"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/utils/clock"
	"pgregory.net/rapid"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// living is a token that was issued then, for so long.
func living(identity string, at time.Time, life time.Duration) *Token {
	return &Token{
		Token:     sfmc.Token{AccessToken: "token", TokenType: "Bearer", ExpiresIn: life},
		IssuedFor: IssuedFor{Identity: identity},
		IssuedAt:  at,
		ExpiresAt: at.Add(life),
	}
}

// durations are those between two, both included, in whole units.
func durations(from, to, unit time.Duration) *rapid.Generator[time.Duration] {
	return rapid.Map(rapid.Int64Range(int64(from/unit), int64(to/unit)), func(n int64) time.Duration {
		return time.Duration(n) * unit
	})
}

var (
	anyLife = durations(time.Second, 24*time.Hour, time.Second)
	// anyRefreshBefore has what the CRD lets through.
	anyRefreshBefore = durations(time.Minute, 24*time.Hour, 1)
	anyTime          = rapid.Map(rapid.Int64Range(0, 1<<32), func(s int64) time.Time { return time.Unix(s, 0).UTC() })
	anyIdentity      = rapid.Map(rapid.SliceOfN(rapid.Byte(), 32, 32), hex.EncodeToString)
)

func TestATokenIsNeverReplacedBeforeTwoThirdsOfItsLife(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		life := anyLife.Draw(t, "life")
		token := living(anyIdentity.Draw(t, "identity"), anyTime.Draw(t, "issued"), life)
		after := token.RefreshAt(anyRefreshBefore.Draw(t, "refreshBefore")).Sub(token.IssuedAt)
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
		at := token.RefreshAt(before)
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
		other.AccessToken, other.Proof, other.GrantedScopes = "another", "another", "another"
		if !one.RefreshAt(before).Equal(other.RefreshAt(before)) {
			t.Fatal("two that share a token replace it at two times")
		}
	})
}

func TestReplacementsOfManyIdentitiesAreSpread(t *testing.T) {
	g := NewWithT(t)
	seen := map[float64]bool{}
	first, last := time.Duration(math.MaxInt64), time.Duration(0)
	for i := range 256 {
		identity := hex.EncodeToString([]byte{byte(i), byte(i), 0, 0})
		after := living(identity, noon, 1079*time.Second).RefreshAt(5 * time.Minute).Sub(noon)
		seen[after.Seconds()], first, last = true, min(first, after), max(last, after)
	}
	g.Expect(seen).To(HaveLen(256))
	g.Expect(last).To(Equal(779*time.Second), "five minutes before it expires")
	g.Expect(last - first).To(BeNumerically("~", 1079*time.Second/20, time.Millisecond))
}

func TestMarketingCloudsUsualTokenIsReplacedBetween719And779SecondsAfterItWasIssued(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		token := living(anyIdentity.Draw(t, "identity"), noon, 1079*time.Second)
		after := token.RefreshAt(5 * time.Minute).Sub(noon)
		if after < 719*time.Second || after > 779*time.Second {
			t.Fatalf("after %s", after)
		}
	})
}

func TestAnIdentityThatIsNoDigestHasNoJitter(t *testing.T) {
	for _, identity := range []string{"", "a", "ab", "abc", "no hex", "\xff\xff\xff\xff"} {
		g := NewWithT(t)
		g.Expect(fraction(identity)).To(BeZero(), "%q", identity)
		at := living(identity, noon, 1079*time.Second).RefreshAt(5 * time.Minute)
		g.Expect(at).To(Equal(noon.Add(779 * time.Second)))
	}
	NewWithT(t).Expect(fraction("ffffcafe")).To(Equal(1.0))
}

func TestATokenIsFreshUntilItIsToBeReplaced(t *testing.T) {
	g := NewWithT(t)
	token := living("", noon, 1079*time.Second)
	at := token.RefreshAt(5 * time.Minute)
	g.Expect(token.IsFresh(noon, 5*time.Minute)).To(BeTrue())
	g.Expect(token.IsFresh(at.Add(-1), 5*time.Minute)).To(BeTrue())
	g.Expect(token.IsFresh(at, 5*time.Minute)).To(BeFalse())
}

func TestATokenThatExpiredIsNeverFresh(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		token := living(anyIdentity.Draw(t, "identity"), anyTime.Draw(t, "issued"), anyLife.Draw(t, "life"))
		before := anyRefreshBefore.Draw(t, "refreshBefore")
		ago := durations(0, 1000*time.Hour, 1).Draw(t, "expired ago")
		for _, ago := range []time.Duration{ago, 30 * time.Minute} {
			if token.IsFresh(token.ExpiresAt.Add(ago), before) {
				t.Fatalf("fresh although it expired %s ago", ago)
			}
		}
	})
}

func TestATokenFromTheFutureIsNotFresh(t *testing.T) {
	for _, ahead := range []time.Duration{0, ClockSkew, ClockSkew + 1, 10 * time.Minute, 1000 * time.Hour} {
		g := NewWithT(t)
		token := living("", noon, 1079*time.Second)
		isFresh := token.IsFresh(noon.Add(-ahead), 5*time.Minute)
		g.Expect(isFresh).To(Equal(ahead <= 30*time.Second), "issued %s from now", ahead)
	}
}

func TestALeapOfTheWallClockNeverMakesATokenLastLonger(t *testing.T) {
	g := NewWithT(t)
	began := clock.RealClock{}.Now()
	g.Expect(sfmctest.Leapt(began, 10*time.Minute).Round(0).Sub(began.Round(0))).To(Equal(10 * time.Minute))
	g.Expect(sfmctest.Leapt(began, 10*time.Minute).Sub(began)).To(BeZero(), "the monotonic clock went on")

	const life, before = 1079 * time.Second, 5 * time.Minute
	mine := living("", began, life) // issued by this process
	recorded := living("", began.Round(0), life)
	for _, by := range []time.Duration{
		-10 * time.Minute, -time.Minute, -10 * time.Second, 0, 10 * time.Second, time.Minute, 10 * time.Minute,
	} {
		for after := time.Duration(0); after < time.Hour; after += 17 * time.Second {
			now := sfmctest.Leapt(began.Add(after), by)
			if after >= life {
				g.Expect(mine.IsFresh(now, before)).To(BeFalse(), "clock set by %s, expired %s ago", by, after-life)
			}
			if by >= -ClockSkew && after >= life-by {
				g.Expect(recorded.IsFresh(now, before)).To(BeFalse(), "clock set by %s, %s after", by, after)
			}
		}
	}
	// A clock that was set back: what this process issued is known to be fresh, what was only recorded isn't trusted.
	back := sfmctest.Leapt(began.Add(10*time.Second), -10*time.Minute)
	g.Expect(mine.IsFresh(back, before)).To(BeTrue())
	g.Expect(recorded.IsFresh(back, before)).To(BeFalse())
	// A clock that was set forward: at worst a token is replaced early.
	forward := sfmctest.Leapt(began.Add(10*time.Minute), 10*time.Minute)
	g.Expect(mine.IsFresh(forward, before)).To(BeFalse())
	g.Expect(recorded.IsFresh(forward, before)).To(BeFalse())
}

func TestATimeHasComeWhenEitherClockSaysSo(t *testing.T) {
	g := NewWithT(t)
	now := clock.RealClock{}.Now()
	at := now.Add(time.Hour)
	g.Expect(Until(at, now)).To(Equal(time.Hour))
	g.Expect(Until(at, sfmctest.Leapt(now, 10*time.Minute))).To(Equal(50*time.Minute), "the wall clock was set forward")
	g.Expect(Until(at, sfmctest.Leapt(now, -10*time.Minute))).To(Equal(time.Hour), "it was set back")
	g.Expect(Until(at.Round(0), sfmctest.Leapt(now, -10*time.Minute))).To(Equal(70*time.Minute), "a time without the other clock")
	g.Expect(Until(now, at)).To(Equal(-time.Hour))
}
