package status

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

// Events emits one for each condition that says something new. A refresh in steady state is no event.
func Events(before, after *v1alpha1.SFMCToken, emit func(eventType, reason, message string)) {
	isContested := meta.IsStatusConditionTrue(before.Status.Conditions, v1alpha1.ConditionTargetContested)
	said := map[string]bool{}
	for _, condition := range after.Status.Conditions {
		if condition.Type == v1alpha1.ConditionReady || !isNews(before, condition) {
			continue
		}
		if eventType := eventTypeOf(condition); eventType != "" {
			emit(eventType, condition.Reason, condition.Message)
		}
		said[condition.Reason] = true
	}
	ready := meta.FindStatusCondition(after.Status.Conditions, v1alpha1.ConditionReady)
	wasReady := meta.IsStatusConditionTrue(before.Status.Conditions, v1alpha1.ConditionReady)
	switch {
	case isContested || said[ready.Reason]: // it was put right once more, or another condition has said it
	case ready.Status == metav1.ConditionTrue && !wasReady:
		emit(corev1.EventTypeNormal, ready.Reason, ready.Message)
	case ready.Status != metav1.ConditionTrue && wasReady:
		emit(corev1.EventTypeWarning, ready.Reason, ready.Message)
	}
}

func isNews(before *v1alpha1.SFMCToken, condition metav1.Condition) bool {
	old := meta.FindStatusCondition(before.Status.Conditions, condition.Type)
	return old == nil || old.Status != condition.Status || old.Reason != condition.Reason
}

func eventTypeOf(condition metav1.Condition) string {
	switch condition.Reason {
	case string(v1alpha1.ReasonSuspended):
		return corev1.EventTypeNormal
	case string(v1alpha1.ReasonWaitingForTurn):
		return "" // it is over in seconds
	case string(v1alpha1.ReasonRepairDelayed):
		return "" // TargetContested says it once
	case string(v1alpha1.ReasonCredentialsNotFound):
		return "" // often a Secret that is yet to come, or a namespace that is going, which takes no events
	}
	return corev1.EventTypeWarning
}
