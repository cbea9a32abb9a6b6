package problem

import (
	"errors"
	"math"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"pgregory.net/rapid"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

var errAny = errors.New("something went wrong")

func TestDelaysDoubleFromTheFirstToTheMost(t *testing.T) {
	g := NewWithT(t)
	minutes := func(reason v1alpha1.ProblemReason) []float64 {
		var delays []float64
		for failures := 1; failures <= 7; failures++ {
			delays = append(delays, New(reason, errAny).Delay(failures).Minutes())
		}
		return delays
	}
	for _, reason := range []v1alpha1.ProblemReason{
		v1alpha1.ReasonAccessDenied, v1alpha1.ReasonCredentialsInvalid, v1alpha1.ReasonHostNotAllowed,
		v1alpha1.ReasonRequestRefused, v1alpha1.ReasonTargetConflict, v1alpha1.ReasonTemplateInvalid,
	} {
		g.Expect(minutes(reason)).To(Equal([]float64{2, 4, 8, 10, 10, 10, 10}), string(reason))
	}
	g.Expect(minutes(v1alpha1.ReasonThrottled)).To(Equal([]float64{1, 2, 4, 8, 10, 10, 10}))
	rapid.Check(t, func(t *rapid.T) {
		failures := rapid.IntRange(-1, math.MaxInt).Draw(t, "failures")
		for reason, rule := range rules {
			if delay := New(reason, errAny).Delay(failures); delay < rule.first || delay > rule.max {
				t.Fatalf("%s: %s after %d failures", reason, delay, failures)
			}
		}
	})
}

func TestWhatPassesByItselfIsTriedAgainAfterASecondUpToAMinute(t *testing.T) {
	for _, reason := range []v1alpha1.ProblemReason{
		v1alpha1.ReasonCredentialsNotFound, v1alpha1.ReasonEndpointUnavailable, v1alpha1.ReasonKubernetesAPIError,
		v1alpha1.ReasonUnreadableAnswer, v1alpha1.ReasonWaitingForTurn,
	} {
		g := NewWithT(t)
		for failures, seconds := range []int{1, 1, 2, 4, 8, 16, 32, 60, 60} {
			delay := time.Duration(seconds) * time.Second
			g.Expect(New(reason, errAny).Delay(failures)).To(Equal(delay), "%s: %d failures", reason, failures)
		}
	}
}

func TestATransientFailureIsRepeatedSoonEnoughForSeveralAttempts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		failures := rapid.IntRange(1, 1<<40).Draw(t, "failures")
		left := time.Duration(rapid.Int64Range(-int64(time.Hour), int64(24*time.Hour)).Draw(t, "life left"))
		delay := New(v1alpha1.ReasonEndpointUnavailable, errAny).TransientDelay(failures, left)
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
	seen := map[float64]bool{}
	for range 100 {
		seen[New(v1alpha1.ReasonEndpointUnavailable, errAny).TransientDelay(10, time.Hour).Seconds()] = true
	}
	g.Expect(len(seen)).To(BeNumerically(">", 50))
}

func TestWhatStandsForLongIsTriedSeldom(t *testing.T) {
	g := NewWithT(t)
	stands := New(v1alpha1.ReasonCredentialsInvalid, errAny)
	stood, attempts := time.Duration(0), 0
	for ; stood < 6*time.Hour; attempts++ {
		delay := stands.StandingDelay(stood)
		g.Expect(delay).To(Equal(stands.Delay(attempts + 1)))
		stood += delay
	}
	g.Expect(attempts).To(BeNumerically("<", 6*6+5))
	g.Expect(stands.StandingDelay(-time.Hour)).To(Equal(2*time.Minute), "the clock was set back")
	passes := New(v1alpha1.ReasonCredentialsNotFound, errAny)
	g.Expect(passes.StandingDelay(0)).To(Equal(time.Second))
	g.Expect(passes.StandingDelay(1000 * time.Hour)).To(Equal(time.Minute))
}

func TestWhatIsDoneAtRequestIsNotTriedByItself(t *testing.T) {
	g := NewWithT(t)
	suspended := New(v1alpha1.ReasonSuspended, errAny)
	for failures := range 5 {
		g.Expect(suspended.Delay(failures)).To(BeZero())
	}
	g.Expect(suspended.StandingDelay(0)).To(BeZero())
	g.Expect(suspended.StandingDelay(time.Hour)).To(BeZero())
}

func TestWhatIsSupersededIsReconciledAgainAfterItsOwnTime(t *testing.T) {
	g := NewWithT(t)
	for _, after := range []time.Duration{0, FirstRetry} {
		superseded := Superseded(errAny, after)
		g.Expect(superseded.Delay(1)).To(Equal(after))
		g.Expect(superseded.Delay(5)).To(Equal(after))
		g.Expect(superseded.StandingDelay(time.Hour)).To(Equal(after))
	}
}
