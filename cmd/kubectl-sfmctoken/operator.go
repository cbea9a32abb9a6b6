package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// operatorName is the name of the operator's Lease, and what the label nameLabel of its pods says.
const (
	operatorName = "sfmctoken-operator"
	nameLabel    = "app.kubernetes.io/name"
	manager      = "manager" // the container
)

// deployments returns the operator's Deployments. It is found by the label of its pods.
func (p *plugin) deployments(ctx context.Context) ([]appsv1.Deployment, error) {
	found, err := p.apps.Deployments(p.home).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list Deployments in namespace %s: %w", p.home, err)
	}
	return slices.DeleteFunc(found.Items, func(deployment appsv1.Deployment) bool {
		return deployment.Spec.Template.Labels[nameLabel] != operatorName
	}), nil
}

// managerOf returns the container in which the operator runs.
func managerOf(pod *corev1.PodSpec) corev1.Container {
	for _, c := range pod.Containers {
		if c.Name == manager {
			return c
		}
	}
	return corev1.Container{}
}

// hasFlag reports whether the operator runs with a flag that turns something on.
func hasFlag(deployment *appsv1.Deployment, name string) bool {
	return slices.ContainsFunc(managerOf(&deployment.Spec.Template.Spec).Args, func(arg string) bool {
		flag, value, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		return flag == name && value != "0" && value != "false"
	})
}
