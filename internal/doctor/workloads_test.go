package doctor_test

import (
	"testing"

	. "github.com/onsi/gomega"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
)

// template has a container that reads the token once.
func template() corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{Spec: aPod("", withToken(target)).Spec}
}

func named(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: aToken().Namespace, Name: name}
}

// job is one that runs for at most so many seconds; for ever if 0.
func job(seconds int64) batchv1.JobSpec {
	spec := batchv1.JobSpec{Template: template()}
	if seconds > 0 {
		spec.ActiveDeadlineSeconds = &seconds
	}
	return spec
}

// madeBy is a pod that reads the token once, and was made by that.
func madeBy(kind, name, hash string) corev1.Pod {
	pod := aPod("made", withToken(target))
	pod.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: name, Controller: ptr.To(true)}}
	if hash != "" {
		pod.Labels = map[string]string{"pod-template-hash": hash}
	}
	return pod
}

func TestWhatMakesPodsStandsForThem(t *testing.T) {
	const how = ", container app, reads Secret journeys-token once, when it starts: environment variable TOKEN"
	elsewhere, done, failed := named("a"), batchv1.JobStatus{CompletionTime: &metav1.Time{}}, batchv1.JobStatus{}
	elsewhere.Namespace = "elsewhere"
	failed.Conditions = []batchv1.JobCondition{{Type: batchv1.JobFailed, Status: corev1.ConditionTrue}}
	ofCronJob := named("nightly-1")
	ofCronJob.OwnerReferences = []metav1.OwnerReference{{Kind: "CronJob", Name: "nightly", Controller: ptr.To(true)}}
	for name, row := range map[string]struct {
		cluster doctor.Cluster
		said    []string
	}{
		"a Deployment at 0": {doctor.Cluster{Deployments: []appsv1.Deployment{{ObjectMeta: named("a"),
			Spec: appsv1.DeploymentSpec{Replicas: ptr.To[int32](0), Template: template()}}}}, []string{"Deployment a" + how}},
		"a Deployment and its pods": {doctor.Cluster{
			Deployments: []appsv1.Deployment{{ObjectMeta: named("a"), Spec: appsv1.DeploymentSpec{Template: template()}}},
			Pods:        []corev1.Pod{madeBy("ReplicaSet", "a-6d5f9", "6d5f9")},
		}, []string{"Deployment a" + how}},
		"pods of a Deployment that can't be seen": {doctor.Cluster{
			Pods: []corev1.Pod{madeBy("ReplicaSet", "a-6d5f9", "6d5f9")},
		}, []string{"Pod made of ReplicaSet a-6d5f9" + how}},
		"a ReplicaSet of a similar name": {doctor.Cluster{
			Deployments: []appsv1.Deployment{{ObjectMeta: named("a"), Spec: appsv1.DeploymentSpec{Template: template()}}},
			Pods:        []corev1.Pod{madeBy("ReplicaSet", "a-b", "")},
		}, []string{"Deployment a" + how, "Pod made of ReplicaSet a-b" + how}},
		"a StatefulSet": {doctor.Cluster{
			StatefulSets: []appsv1.StatefulSet{{ObjectMeta: named("a"), Spec: appsv1.StatefulSetSpec{Template: template()}}},
			Pods:         []corev1.Pod{madeBy("StatefulSet", "a", "")},
		}, []string{"StatefulSet a" + how}},
		"a DaemonSet": {doctor.Cluster{
			DaemonSets: []appsv1.DaemonSet{{ObjectMeta: named("a"), Spec: appsv1.DaemonSetSpec{Template: template()}}},
		}, []string{"DaemonSet a" + how}},
		"a CronJob between its runs": {doctor.Cluster{CronJobs: []batchv1.CronJob{{ObjectMeta: named("nightly"),
			Spec: batchv1.CronJobSpec{JobTemplate: batchv1.JobTemplateSpec{Spec: job(0)}}}}}, []string{"CronJob nightly" + how}},
		"a CronJob that runs": {doctor.Cluster{
			CronJobs: []batchv1.CronJob{{ObjectMeta: named("nightly"),
				Spec: batchv1.CronJobSpec{JobTemplate: batchv1.JobTemplateSpec{Spec: job(0)}}}},
			Jobs: []batchv1.Job{{ObjectMeta: ofCronJob, Spec: job(0)}},
			Pods: []corev1.Pod{madeBy("Job", "nightly-1", "")},
		}, []string{"CronJob nightly" + how}},
		"a Job":              {doctor.Cluster{Jobs: []batchv1.Job{{ObjectMeta: named("a"), Spec: job(0)}}}, []string{"Job a" + how}},
		"a Job that is over": {doctor.Cluster{Jobs: []batchv1.Job{{ObjectMeta: named("a"), Spec: job(0), Status: done}}}, nil},
		"a Job that failed":  {doctor.Cluster{Jobs: []batchv1.Job{{ObjectMeta: named("a"), Spec: job(0), Status: failed}}}, nil},
		"a Job of five minutes": {doctor.Cluster{Jobs: []batchv1.Job{{ObjectMeta: named("a"), Spec: job(300)}}},
			[]string{"Hint: Job a" + how}},
		"a longer Job":         {doctor.Cluster{Jobs: []batchv1.Job{{ObjectMeta: named("a"), Spec: job(301)}}}, []string{"Job a" + how}},
		"in another namespace": {doctor.Cluster{Jobs: []batchv1.Job{{ObjectMeta: elsewhere, Spec: job(0)}}}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var said []string
			for _, reader := range doctor.StaleReaders(aToken(), &row.cluster) {
				said = append(said, reader.String())
				g.Expect(reader.Advice()).NotTo(BeEmpty())
			}
			g.Expect(said).To(Equal(row.said))
		})
	}
}

func TestWhatReloaderRestartsAtEachRefreshIsNamedWithTheRemedy(t *testing.T) {
	const (
		auto     = "reloader.stakater.com/auto"
		byName   = "secret.reloader.stakater.com/reload"
		ofSecret = "secret.reloader.stakater.com/auto"
	)
	mounting := corev1.PodTemplateSpec{Spec: aPod("", mounted(secretVolume(target), corev1.VolumeMount{})).Spec}
	for name, row := range map[string]struct {
		own, ofPods map[string]string
		template    corev1.PodTemplateSpec
		isNamed     bool
	}{
		"no annotation":                {template: template()},
		"whatever it uses":             {own: map[string]string{auto: "true"}, template: template(), isNamed: true},
		"whatever Secrets it uses":     {own: map[string]string{ofSecret: "true"}, template: mounting, isNamed: true},
		"on its pods":                  {ofPods: map[string]string{auto: "true"}, template: mounting, isNamed: true},
		"projected":                    {own: map[string]string{auto: "true"}, isNamed: true, template: corev1.PodTemplateSpec{Spec: aPod("", mounted(projected(target), corev1.VolumeMount{})).Spec}},
		"envFrom":                      {own: map[string]string{auto: "true"}, isNamed: true, template: corev1.PodTemplateSpec{Spec: aPod("", withEnvFrom(secretEnv(target, nil))).Spec}},
		"it doesn't use the Secret":    {own: map[string]string{auto: "true"}, template: corev1.PodTemplateSpec{Spec: aPod("", withToken("other")).Spec}},
		"the Secret by its name":       {own: map[string]string{byName: "other, " + target}, isNamed: true},
		"other Secrets by their names": {own: map[string]string{byName: "other,more"}, template: template()},
		"turned off":                   {own: map[string]string{auto: "false"}, template: template()},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			row.template.Annotations = row.ofPods
			meta := named("a")
			meta.Annotations = row.own
			cluster := &doctor.Cluster{Deployments: []appsv1.Deployment{{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{Template: row.template}}}}
			token := aToken()
			found := doctor.Restarted(token, cluster)
			if !row.isNamed {
				g.Expect(found).To(BeEmpty())
				return
			}
			g.Expect(found).To(HaveLen(1))
			g.Expect(found[0].String()).To(And(HavePrefix("Deployment a: Reloader restarts it at each refresh of Secret "+target),
				ContainSubstring(`reloader.stakater.com/ignore: "true"`)))
			if token.Spec.Target.Template == nil {
				token.Spec.Target.Template = &v1alpha1.TargetTemplate{}
			}
			token.Spec.Target.Template.Metadata.Annotations = map[string]v1alpha1.AnnotationValue{"reloader.stakater.com/ignore": "true"}
			g.Expect(doctor.Restarted(token, cluster)).To(BeEmpty(), "the remedy")
		})
	}
}
