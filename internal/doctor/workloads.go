package doctor

import (
	"maps"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// Cluster is what a cluster has that may read target Secrets.
type Cluster struct {
	Deployments  []appsv1.Deployment
	StatefulSets []appsv1.StatefulSet
	DaemonSets   []appsv1.DaemonSet
	Jobs         []batchv1.Job
	CronJobs     []batchv1.CronJob
	Pods         []corev1.Pod
}

// workload has containers: it is a pod, or makes pods of a template, whether there is one just now or not.
type workload struct {
	kind, namespace, name string
	annotations           map[string]string // its own, and those of its pods
	spec                  *corev1.PodSpec
	// controller of a pod that no template is known of, for example "ReplicaSet journeys-6d5f9".
	controller string
	// endsWithin is how long its pods run at most; 0 if they may run for ever.
	endsWithin time.Duration
}

// workloads returns all that can read Secrets. What makes pods stands for them; a pod stands for itself if none does.
func (c *Cluster) workloads() []workload {
	var all []workload
	known := map[string]bool{}
	add := func(kind string, obj metav1.ObjectMeta, template *corev1.PodTemplateSpec, endsWithin time.Duration) {
		known[obj.Namespace+"/"+kind+"/"+obj.Name] = true
		annotations := map[string]string{}
		maps.Copy(annotations, obj.Annotations)
		maps.Copy(annotations, template.Annotations)
		all = append(all, workload{kind: kind, namespace: obj.Namespace, name: obj.Name, annotations: annotations,
			spec: &template.Spec, endsWithin: endsWithin})
	}
	for i := range c.Deployments {
		add("Deployment", c.Deployments[i].ObjectMeta, &c.Deployments[i].Spec.Template, 0)
	}
	for i := range c.StatefulSets {
		add("StatefulSet", c.StatefulSets[i].ObjectMeta, &c.StatefulSets[i].Spec.Template, 0)
	}
	for i := range c.DaemonSets {
		add("DaemonSet", c.DaemonSets[i].ObjectMeta, &c.DaemonSets[i].Spec.Template, 0)
	}
	for i := range c.CronJobs {
		job := &c.CronJobs[i].Spec.JobTemplate
		add("CronJob", c.CronJobs[i].ObjectMeta, &job.Spec.Template, deadlineOf(&job.Spec))
	}
	for i := range c.Jobs {
		job := &c.Jobs[i]
		if owner := metav1.GetControllerOf(job); owner != nil && known[job.Namespace+"/"+owner.Kind+"/"+owner.Name] {
			known[job.Namespace+"/Job/"+job.Name] = true // its pods are spoken for, too
		} else if job.Status.CompletionTime == nil && !hasFailed(job) {
			add("Job", job.ObjectMeta, &job.Spec.Template, deadlineOf(&job.Spec))
		}
	}
	for i := range c.Pods {
		pod := &c.Pods[i]
		owner := metav1.GetControllerOf(pod)
		if isOver(pod) || owner != nil && known[pod.Namespace+"/"+makerOf(pod, owner)] {
			continue
		}
		of := workload{kind: "Pod", namespace: pod.Namespace, name: pod.Name, annotations: pod.Annotations,
			spec: &pod.Spec}
		if owner != nil {
			of.controller = owner.Kind + " " + owner.Name
		}
		all = append(all, of)
	}
	return all
}

// makerOf returns the kind and name of what has the template of a pod: a Deployment makes its pods through ReplicaSets.
func makerOf(pod *corev1.Pod, owner *metav1.OwnerReference) string {
	suffix := "-" + pod.Labels[appsv1.DefaultDeploymentUniqueLabelKey]
	if name, isCut := strings.CutSuffix(owner.Name, suffix); owner.Kind == "ReplicaSet" && isCut {
		return "Deployment/" + name
	}
	return owner.Kind + "/" + owner.Name
}

func deadlineOf(job *batchv1.JobSpec) time.Duration {
	return time.Duration(ptr.Deref(job.ActiveDeadlineSeconds, 0)) * time.Second
}

func hasFailed(job *batchv1.Job) bool {
	for _, c := range job.Status.Conditions {
		if c.Type == batchv1.JobFailed && c.Status == corev1.ConditionTrue {
			return true
		}
	}
	return false
}
