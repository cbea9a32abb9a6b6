package e2e

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// consumer is a container that calls Marketing Cloud for one business unit.
type consumer struct {
	pod     string
	port    int32
	account string
}

// pod makes a pod with one container for each business unit, each with its own Secret, as the strictest Pod Security
// wants it.
func pod(name string, accounts ...string) (*corev1.Pod, []consumer) {
	made := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: ptr.To(false),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:   ptr.To(true),
				RunAsUser:      ptr.To[int64](65532),
				FSGroup:        ptr.To[int64](65532),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Volumes: []corev1.Volume{{Name: "stand-in", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: "stand-in"},
			}}}},
		},
	}
	var consumers []consumer
	for i, account := range accounts {
		c := consumer{pod: name, port: int32(8080 + i), account: account}
		consumers = append(consumers, c)
		made.Spec.Volumes = append(made.Spec.Volumes, corev1.Volume{Name: account, VolumeSource: corev1.VolumeSource{
			Secret: &corev1.SecretVolumeSource{SecretName: tokenName(account), DefaultMode: ptr.To[int32](0o440)},
		}})
		made.Spec.Containers = append(made.Spec.Containers, corev1.Container{
			Name:            tokenName(account),
			Image:           consumerImage,
			ImagePullPolicy: corev1.PullNever,
			Args:            []string{"--account-id=" + account, "--ca-file=/stand-in/ca.crt", fmt.Sprintf("--listen=:%d", c.port)},
			VolumeMounts: []corev1.VolumeMount{
				{Name: account, MountPath: "/sfmc", ReadOnly: true},
				{Name: "stand-in", MountPath: "/stand-in", ReadOnly: true},
			},
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: ptr.To(false),
				ReadOnlyRootFilesystem:   ptr.To(true),
				Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
		})
	}
	return made, consumers
}

// tokenName names the container and the SFMCToken, and so the Secret, of a business unit.
func tokenName(account string) string { return "unit-" + account }
