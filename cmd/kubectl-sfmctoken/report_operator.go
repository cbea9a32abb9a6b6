package main

import (
	"context"
	"fmt"
	"io"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"
)

// Of each log a report has the end: so many lines, and bytes at most.
const (
	maxLogLines = 3000
	maxLog      = 16 << 20
)

// reportOperator adds how the operator is deployed, its Lease, pods and logs.
func (p *plugin) reportOperator(ctx context.Context, contents *contents) {
	deployments, err := p.deployments(ctx)
	contents.miss(err)
	described := []reportDeployment{}
	for i := range deployments {
		described = append(described, describeDeployment(&deployments[i]))
	}
	contents.addJSON("operator/deployments.json", described)
	lease, err := p.coordination.Leases(p.home).Get(ctx, operatorName, metav1.GetOptions{})
	if err != nil {
		contents.miss(fmt.Errorf("read Lease %s: %w", operatorName, err))
	} else {
		contents.addJSON("operator/lease.json", lease.Spec)
	}
	selector := labels.Set{nameLabel: operatorName}.String()
	pods, err := p.core.Pods(p.home).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		contents.miss(fmt.Errorf("list the operator's pods: %w", err))
		return
	}
	var about []reportPod
	for i := range pods.Items {
		about = append(about, describePod(&pods.Items[i]))
		p.reportLog(ctx, contents, &pods.Items[i])
	}
	contents.addJSON("operator/pods.json", about)
}

// reportLog adds the end of a pod's log. The operator logs nothing secret.
func (p *plugin) reportLog(ctx context.Context, contents *contents, pod *corev1.Pod) {
	request := p.core.Pods(pod.Namespace).GetLogs(pod.Name, &corev1.PodLogOptions{
		Container: manager, TailLines: ptr.To[int64](maxLogLines),
	})
	stream, err := request.Stream(ctx)
	if err != nil {
		contents.miss(fmt.Errorf("read the log of pod %s: %w", pod.Name, err))
		return
	}
	defer stream.Close()
	text, err := io.ReadAll(io.LimitReader(stream, maxLog))
	contents.miss(err)
	contents.add("operator/"+pod.Name+".log", text)
}

// reportDeployment is what a report has of a Deployment: what is known to hold no secret.
type reportDeployment struct {
	Metadata   metav1.ObjectMeta       `json:"metadata"`
	Replicas   *int32                  `json:"replicas"`
	Containers []reportContainer       `json:"containers"`
	Status     appsv1.DeploymentStatus `json:"status"`
}

type reportContainer struct {
	Name  string   `json:"name"`
	Image string   `json:"image"`
	Args  []string `json:"args,omitempty"`
	// Env are names alone: a proxy's address may have a password.
	Env       []string                    `json:"env,omitempty"`
	Resources corev1.ResourceRequirements `json:"resources"`
}

func describeDeployment(deployment *appsv1.Deployment) reportDeployment {
	described := reportDeployment{redactedMeta(deployment.ObjectMeta), deployment.Spec.Replicas, nil, deployment.Status}
	for _, c := range deployment.Spec.Template.Spec.Containers {
		container := reportContainer{Name: c.Name, Image: c.Image, Resources: c.Resources}
		if c.Name == manager {
			container.Args = c.Args // the operator has no flag that takes a secret; of others nobody knows
		}
		for _, env := range c.Env {
			container.Env = append(container.Env, env.Name)
		}
		described.Containers = append(described.Containers, container)
	}
	return described
}

type reportPod struct {
	Name       string                   `json:"name"`
	Node       string                   `json:"node"`
	Phase      corev1.PodPhase          `json:"phase"`
	Started    *metav1.Time             `json:"started"`
	Containers []corev1.ContainerStatus `json:"containers"`
}

func describePod(pod *corev1.Pod) reportPod {
	return reportPod{pod.Name, pod.Spec.NodeName, pod.Status.Phase, pod.Status.StartTime, statusesOf(pod)}
}

// statusesOf returns how containers are, without messages: they may quote what a container left in a file.
func statusesOf(pod *corev1.Pod) []corev1.ContainerStatus {
	var statuses []corev1.ContainerStatus
	for _, status := range pod.Status.ContainerStatuses {
		if status.State.Waiting != nil {
			status.State.Waiting.Message = leftOut
		}
		for _, ended := range []*corev1.ContainerStateTerminated{
			status.State.Terminated, status.LastTerminationState.Terminated,
		} {
			if ended != nil {
				ended.Message = leftOut
			}
		}
		statuses = append(statuses, status)
	}
	return statuses
}
