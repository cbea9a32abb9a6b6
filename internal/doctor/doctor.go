package doctor

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
)

// Problem is what a person should know of an SFMCToken, or mend.
type Problem struct {
	// What is wrong, in one or two words, for example "Stalled, RequestRefused".
	What string `json:"what"`
	// Message is one line.
	Message string `json:"message"`
}

func (p Problem) String() string { return p.What + ": " + p.Message }

// problemOf returns what a condition says.
func problemOf(c *metav1.Condition) Problem {
	what := c.Type
	if c.Reason != c.Type {
		what += ", " + c.Reason
	}
	return Problem{what, OneLine(c.Message)}
}

// ClockSkew is how far this machine's clock and the operator's may be apart before anything is said about it.
const ClockSkew = 30 * time.Second

// Problems returns those of an SFMCToken, why there is no new token first. That is one, whether or not the old one is
// still valid.
func Problems(token *v1alpha1.SFMCToken, now time.Time) []Problem {
	ready := meta.FindStatusCondition(token.Status.Conditions, v1alpha1.ConditionReady)
	if ready == nil {
		return []Problem{{"Not looked at",
			"the operator hasn't looked at it yet; is it running, and does it watch this namespace?"}}
	}
	var found []Problem
	isReady := ready.Status == metav1.ConditionTrue
	hindered := hindrance(token)
	switch {
	case hindered != nil:
		found = append(found, problemOf(hindered))
	case !isReady:
		found = append(found, Problem{"Not ready, " + ready.Reason, OneLine(ready.Message)})
	}
	if expires := token.Status.ExpiresAt; isReady && expires != nil && now.Sub(expires.Time) > ClockSkew {
		// The operator turns Ready to False at the very moment.
		found = append(found, Problem{"Expired",
			"the status says Ready, but the token ran out " + When(expires, now) + "; is the operator running?"})
	}
	if token.Status.ObservedGeneration != token.Generation {
		found = append(found, Problem{"Changed", "the operator hasn't looked at the spec as it is now; is it running?"})
	}
	for _, kind := range []string{
		v1alpha1.ConditionScopesMissing, v1alpha1.ConditionTargetContested, v1alpha1.ConditionCredentialsExpiring,
	} {
		c := meta.FindStatusCondition(token.Status.Conditions, kind)
		if c != nil && c.Status != metav1.ConditionFalse {
			found = append(found, problemOf(c))
		}
	}
	return found
}

// hindrance returns the condition that says why there is no new token, nil if nothing does. The first that is True
// counts.
func hindrance(token *v1alpha1.SFMCToken) *metav1.Condition {
	for _, kind := range []string{
		v1alpha1.ConditionStalled, v1alpha1.ConditionSuspended, v1alpha1.ConditionReconciling,
		v1alpha1.ConditionRefreshFailing,
	} {
		if c := meta.FindStatusCondition(token.Status.Conditions, kind); c != nil && c.Status == metav1.ConditionTrue {
			return c
		}
	}
	return nil
}

// When returns how far away a time is: "in 12m", "3m ago", or "-" for none.
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

// OneLine returns a text without anything by which it could break a table, or speak to the terminal.
func OneLine(text string) string {
	printable := strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	return strings.Join(strings.Fields(printable), " ")
}

// Cut returns a text, shortened to so many characters.
func Cut(text string, maxLength int) string {
	if runes := []rune(text); len(runes) > maxLength {
		return strings.TrimSpace(string(runes[:maxLength-1])) + "…"
	}
	return text
}

// Answered reports whether an SFMCToken has got the new token that was asked for; an error is why it hasn't. What its
// status said already when it was asked for is no answer: the operator writes none that is about an older object.
func Answered(asked, is *v1alpha1.SFMCToken) (bool, error) {
	switch handled := is.Status.LastHandledRefreshRequest; {
	case handled != "" && handled == is.RefreshRequest(): // the one asked for, or a later one
		return true, nil
	case equality.Semantic.DeepEqual(asked.Status, is.Status):
		return false, nil
	default:
		return false, Standing(is)
	}
}

// Standing returns why an SFMCToken gets no new token as things are; nil if nothing is known to be wrong.
func Standing(token *v1alpha1.SFMCToken) error {
	if c := hindrance(token); c != nil && c.Reason != string(v1alpha1.ReasonWaitingForTurn) {
		return errors.New(problemOf(c).String())
	}
	return nil
}

// Sharers returns the others that share each SFMCToken's token. Of the target Secrets it needs the metadata alone.
func Sharers(
	tokens []v1alpha1.SFMCToken, secrets []metav1.PartialObjectMetadata,
) map[types.NamespacedName][]types.NamespacedName {
	owners := map[types.NamespacedName]types.NamespacedName{} // by target Secret
	for i := range tokens {
		// The status names the Secret only while there is a token of this SFMCToken in it.
		secret := types.NamespacedName{Namespace: tokens[i].Namespace, Name: tokens[i].Status.TargetSecretName}
		owners[secret] = keyOf(&tokens[i])
	}
	groups := map[string][]types.NamespacedName{} // by identity
	for i := range secrets {
		if owner, found := owners[keyOf(&secrets[i])]; found {
			for _, identity := range target.IdentitiesOf(&secrets[i]) {
				groups[identity] = append(groups[identity], owner)
			}
		}
	}
	sharers := map[types.NamespacedName][]types.NamespacedName{}
	for _, identity := range slices.Sorted(maps.Keys(groups)) {
		for _, owner := range groups[identity] {
			for _, other := range groups[identity] {
				if other != owner && !slices.Contains(sharers[owner], other) {
					sharers[owner] = append(sharers[owner], other)
				}
			}
		}
	}
	return sharers
}

func keyOf(object metav1.Object) types.NamespacedName {
	return types.NamespacedName{Namespace: object.GetNamespace(), Name: object.GetName()}
}
