package main

import (
	"encoding/json"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAReportHasNoValuesThatMayBeSecret(t *testing.T) {
	g := NewWithT(t)
	const canary = "canary-that-stays"
	deployment := running("sfmctoken-operator:0.3.0")
	deployment.Annotations = map[string]string{"note": canary}
	deployment.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: canary}}
	containers := deployment.Spec.Template.Spec.Containers
	containers[0].Args = []string{"--password=" + canary}
	containers[1].Args = []string{"--leader-elect"}
	for i := range containers {
		containers[i].Env = []corev1.EnvVar{{Name: "HTTPS_PROXY", Value: "http://user:" + canary + "@proxy"}}
	}
	pod := &corev1.Pod{Status: corev1.PodStatus{ContainerStatuses: []corev1.ContainerStatus{{
		State:                corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "CrashLoopBackOff", Message: canary}},
		LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Error", Message: canary}},
	}}}}
	text, err := json.Marshal([]any{describeDeployment(deployment), describePod(pod)})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(strings.Contains(string(text), canary)).To(BeFalse())
	for _, kept := range []string{"HTTPS_PROXY", "--leader-elect", `"note":"(left out)"`, "CrashLoopBackOff", "sfmctoken-operator:0.3.0"} {
		g.Expect(string(text)).To(ContainSubstring(kept))
	}
}
