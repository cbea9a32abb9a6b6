package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
)

// diagnosis is how findings are printed.
type diagnosis struct{ format string }

func (d *diagnosis) addFlags(command *cobra.Command) {
	command.Flags().StringVarP(&d.format, "output", "o", "", "json for what is found as one object, for a pipeline")
	command.PreRunE = func(*cobra.Command, []string) error {
		if d.format != "" && d.format != formatJSON {
			return fmt.Errorf("--output must be %s, or left out", formatJSON)
		}
		return nil
	}
}

const formatJSON = "json"

// doctor prints the SFMCTokens that have problems, and what misses their refreshes.
func (p *plugin) doctor(ctx context.Context, _ []string) error {
	findings, err := p.examine(ctx)
	switch {
	case p.diagnosis.format == formatJSON:
		if err := p.printJSON(findings); err != nil {
			return err
		}
	case findings.Looked.SFMCTokens > 0:
		p.explain(findings)
	}
	if err != nil { // what is known has been said
		return err
	}
	looked := count(findings.Looked.SFMCTokens, "SFMCToken") + " and " + count(findings.Looked.Pods, "Pod")
	switch {
	case p.diagnosis.format == formatJSON: // it has been said
	case findings.Looked.SFMCTokens == 0:
		fmt.Fprintln(p.ErrOut, p.nothingFound())
	case findings.Problems == 0:
		fmt.Fprintf(p.Out, "No problem found with %s.\n", looked)
	default:
		fmt.Fprintf(p.Out, "%s found with %s.\n", count(findings.Problems, "problem"), looked)
	}
	if findings.Problems > 0 {
		return errFound
	}
	return nil
}

// examine returns what there is to say of the SFMCTokens, as far as they and what reads their targets may be seen; what
// may not is named by the error.
func (p *plugin) examine(ctx context.Context) (doctor.Findings, error) {
	tokens, err := p.tokens(p.namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		err = fmt.Errorf("list SFMCTokens: %w", err)
		findings := doctor.Examine(nil, &doctor.Cluster{}, p.clock.Now())
		findings.Unknown = append(findings.Unknown, err.Error())
		return findings, err
	}
	cluster, failed := &doctor.Cluster{}, []error(nil)
	if len(tokens.Items) > 0 {
		cluster, failed = p.cluster(ctx)
	}
	findings := doctor.Examine(tokens.Items, cluster, p.clock.Now())
	for _, err := range failed {
		findings.Unknown = append(findings.Unknown, err.Error())
	}
	if len(failed) > 0 {
		return findings, fmt.Errorf("look for what misses refreshes: %w", errors.Join(failed...))
	}
	return findings, nil
}

func (p *plugin) printJSON(value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(p.Out, string(text))
	return err
}

// cluster lists what may read target Secrets. What can't be listed is left out, and named by the errors.
func (p *plugin) cluster(ctx context.Context) (*doctor.Cluster, []error) {
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
		Pods: listed(ctx, &failed, "Pods", p.core.Pods(ns).List,
			func(l *corev1.PodList) []corev1.Pod { return l.Items }),
	}
	return cluster, failed
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

// explain prints findings for a person.
func (p *plugin) explain(findings doctor.Findings) {
	for _, token := range findings.SFMCTokens {
		fmt.Fprintf(p.Out, "SFMCToken %s/%s\n", token.Namespace, token.Name)
		for _, problem := range token.Problems {
			fmt.Fprintf(p.Out, "  %s\n", problem)
		}
		for i, reader := range token.Readers {
			fmt.Fprintf(p.Out, "  %s\n", reader)
			if i+1 == len(token.Readers) || token.Readers[i+1].Advice != reader.Advice {
				fmt.Fprintf(p.Out, "    %s\n", reader.Advice)
			}
		}
		fmt.Fprintln(p.Out)
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
