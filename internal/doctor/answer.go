package doctor

import (
	"errors"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

// Answered tells whether an SFMCToken has got the new token that was asked for; an error is why it hasn't. The status
// as it was when the request was written tells an answer from what was said before: the operator writes none that is
// about an older object.
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

// Standing is why an SFMCToken gets no new token as things are; nil if nothing is known to be wrong.
func Standing(token *v1alpha1.SFMCToken) error {
	for _, kind := range []string{v1alpha1.ConditionStalled, v1alpha1.ConditionReconciling} {
		c := meta.FindStatusCondition(token.Status.Conditions, kind)
		if c != nil && c.Status == metav1.ConditionTrue && c.Reason != v1alpha1.ReasonWaitingForTurn {
			return errors.New(Problem{kind + ", " + c.Reason, oneLine(c.Message)}.String())
		}
	}
	return nil
}
