package main

import (
	"context"
	"errors"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
)

// doctor prints the SFMCTokens that have problems, and what misses their refreshes.
func (p *plugin) doctor(ctx context.Context, _ []string) error {
	tokens, err := p.tokens(p.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("list SFMCTokens: %w", err)
	}
	if len(tokens.Items) == 0 {
		fmt.Fprintln(p.ErrOut, p.nothingFound())
		return nil
	}
	cluster, clusterErr := p.cluster(ctx)
	found := 0
	for i := range tokens.Items {
		found += p.diagnose(&tokens.Items[i], cluster)
	}
	if clusterErr != nil { // what is known has been said
		return fmt.Errorf("look for what misses refreshes: %w", clusterErr)
	}
	looked := fmt.Sprintf("%s and %s", count(len(tokens.Items), "SFMCToken"), count(len(cluster.Pods), "Pod"))
	if found == 0 {
		fmt.Fprintf(p.Out, "No problem found with %s.\n", looked)
		return nil
	}
	fmt.Fprintf(p.Out, "%s found with %s.\n", count(found, "problem"), looked)
	return errFound
}

// cluster lists what may read target Secrets. What can't be listed is left out, and named by the error.
func (p *plugin) cluster(ctx context.Context) (*doctor.Cluster, error) {
	var failed []error
	ns := p.namespace
	cluster := &doctor.Cluster{
		Deployments: listed(ctx, &failed, "Deployments", p.apps.Deployments(ns).List,
			func(l *appsv1.DeploymentList) []appsv1.Deployment { return l.Items }),
		StatefulSets: listed(ctx, &failed, "StatefulSets", p.apps.StatefulSets(ns).List,
			func(l *appsv1.StatefulSetList) []appsv1.StatefulSet { return l.Items }),
		DaemonSets: listed(ctx, &failed, "DaemonSets", p.apps.DaemonSets(ns).List,
			func(l *appsv1.DaemonSetList) []appsv1.DaemonSet { return l.Items }),
		Jobs: listed(ctx, &failed, "Jobs", p.batch.Jobs(ns).List,
			func(l *batchv1.JobList) []batchv1.Job { return l.Items }),
		CronJobs: listed(ctx, &failed, "CronJobs", p.batch.CronJobs(ns).List,
			func(l *batchv1.CronJobList) []batchv1.CronJob { return l.Items }),
		Pods: listed(ctx, &failed, "Pods", p.pods.Pods(ns).List,
			func(l *corev1.PodList) []corev1.Pod { return l.Items }),
	}
	return cluster, errors.Join(failed...)
}

// listed returns the objects of one kind; none, with the error beside those before, if they can't be listed.
func listed[L, T any](
	ctx context.Context, failed *[]error, kind string, list func(context.Context, metav1.ListOptions) (L, error),
	items func(L) []T,
) []T {
	found, err := list(ctx, metav1.ListOptions{})
	if err != nil {
		*failed = append(*failed, fmt.Errorf("list %s: %w", kind, err))
		return nil
	}
	return items(found)
}

// diagnose prints what is wrong about one SFMCToken, and returns how much that is. Hints don't count.
func (p *plugin) diagnose(token *v1alpha1.SFMCToken, cluster *doctor.Cluster) int {
	problems := append(doctor.Problems(token, p.clock.Now()), doctor.Restarted(token, cluster)...)
	readers := doctor.StaleReaders(token, cluster)
	if len(problems)+len(readers) == 0 {
		return 0
	}
	found := len(problems)
	fmt.Fprintf(p.Out, "SFMCToken %s/%s\n", token.Namespace, token.Name)
	for _, problem := range problems {
		fmt.Fprintf(p.Out, "  %s\n", problem)
	}
	for i, reader := range readers {
		if !reader.IsBrief {
			found++
		}
		fmt.Fprintf(p.Out, "  %s\n", reader)
		if i+1 == len(readers) || readers[i+1].Advice() != reader.Advice() {
			fmt.Fprintf(p.Out, "    %s\n", reader.Advice())
		}
	}
	fmt.Fprintln(p.Out)
	return found
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
