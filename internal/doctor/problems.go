package doctor

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

// Problem is what a person should know of an SFMCToken, or mend.
type Problem struct {
	// What is wrong, in one or two words, for example "Stalled, RequestRefused".
	What string
	// Message is one line.
	Message string
}

func (p Problem) String() string { return p.What + ": " + p.Message }

// clockSkew is how far this machine's clock and the operator's may be apart before anything is said about it.
const clockSkew = 30 * time.Second

// Problems are those of an SFMCToken, why there is no new token first.
func Problems(token *v1alpha1.SFMCToken, now time.Time) []Problem {
	ready := meta.FindStatusCondition(token.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil {
		return []Problem{{"Not looked at", "the operator hasn't looked at it yet; is it running, and does it watch this namespace?"}}
	}
	var found []Problem
	tell := func(kind string, c *metav1.Condition) {
		found = append(found, Problem{kind + ", " + c.Reason, oneLine(c.Message)})
	}
	isReady := ready.Status == metav1.ConditionTrue
	for _, kind := range []string{v1alpha1.ConditionStalled, v1alpha1.ConditionReconciling} {
		c := meta.FindStatusCondition(token.Status.Conditions, kind)
		if c != nil && c.Status == metav1.ConditionTrue && (!isReady || c.Reason != v1alpha1.ReasonWaitingForTurn) {
			tell(kind, c)
		}
	}
	switch expires := token.Status.ExpiresAt; {
	case !isReady:
		tell("Not ready", ready)
	case expires != nil && now.Sub(expires.Time) > clockSkew:
		// The operator turns Ready to False at the very moment.
		found = append(found, Problem{"Expired", fmt.Sprintf("the status says Ready, but the token ran out %s; is the operator running?", When(expires, now))})
	}
	if token.Status.ObservedGeneration != token.Generation {
		found = append(found, Problem{"Changed", "the operator hasn't looked at the spec as it is now; is it running?"})
	}
	if c := meta.FindStatusCondition(token.Status.Conditions, v1alpha1.ConditionCredentialsExpiring); c != nil && c.Status != metav1.ConditionFalse {
		tell(c.Type, c)
	}
	return found
}

// isTrue tells whether an SFMCToken has a condition, for this reason.
func isTrue(token *v1alpha1.SFMCToken, kind, reason string) bool {
	c := meta.FindStatusCondition(token.Status.Conditions, kind)
	return c != nil && c.Status == metav1.ConditionTrue && c.Reason == reason
}

// When says how far away a time is: "in 12m", "3m ago", or "-" for none.
func When(at *metav1.Time, now time.Time) string {
	switch {
	case at.IsZero():
		return "-"
	case at.Time.Before(now):
		return duration.HumanDuration(now.Sub(at.Time)) + " ago"
	default:
		return "in " + duration.HumanDuration(at.Sub(now))
	}
}

// oneLine leaves nothing in a text by which it could break a table, or speak to the terminal.
func oneLine(text string) string {
	printable := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	return strings.Join(strings.Fields(printable), " ")
}

// Cut shortens a text to so many characters.
func Cut(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return strings.TrimSpace(string(runes[:most-1])) + "…"
	}
	return text
}
