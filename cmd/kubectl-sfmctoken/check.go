package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/utils/ptr"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
	"github.com/sfmctoken/sfmctoken-operator/internal/version"
)

// verdict is how something is that was looked at.
type verdict string

const (
	isOK      verdict = "ok"
	isProblem verdict = "problem"
	isUnknown verdict = "unknown"
	isDenied  verdict = "denied" // a command that a person may not use
)

type checked struct {
	verdict    verdict
	what, says string
}

// check tells whether the operator is installed and runs, and what a person may do.
func (p *plugin) check(ctx context.Context, _ []string) error {
	all := p.checks(ctx)
	if err := printChecks(p.Out, all); err != nil {
		return err
	}
	has := func(verdict verdict) bool {
		return slices.ContainsFunc(all, func(c checked) bool { return c.verdict == verdict })
	}
	switch {
	case has(isProblem):
		return errFound
	case has(isUnknown):
		return errors.New("not all could be looked at")
	}
	return nil
}

func printChecks(out io.Writer, all []checked) error {
	rows := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	for _, c := range all {
		fmt.Fprintf(rows, "%s\t%s\t%s\n", c.verdict, c.what, doctor.OneLine(c.says))
	}
	return rows.Flush()
}

func (p *plugin) checks(ctx context.Context) []checked {
	all := []checked{p.checkKinds(ctx)}
	deployments, err := p.deployments(ctx)
	switch {
	case err != nil:
		all = append(all, checked{isUnknown, "operator", err.Error()})
	case len(deployments) == 0:
		all = append(all, checked{isProblem, "operator",
			fmt.Sprintf("no Deployment in namespace %s; is it another one? See --operator-namespace", p.home)})
	}
	for i := range deployments {
		all = append(all, checkDeployment(&deployments[i]), checkVersion(version.Get().Version, &deployments[i]),
			p.checkMetrics(ctx, &deployments[i]))
	}
	all = append(all, p.checkLeader(ctx))
	return append(all, p.checkPermissions(ctx)...)
}

// checkKinds asks whether the API server serves the kinds.
func (p *plugin) checkKinds(ctx context.Context) checked {
	const what = "kinds"
	served, err := p.discovery.ServerResourcesForGroupVersionWithContext(ctx, v1alpha1.GroupVersion.String())
	if apierrors.IsNotFound(err) {
		return checked{isProblem, what, v1alpha1.GroupVersion.String() + " is not served: install the CRDs"}
	}
	if err != nil {
		return checked{isUnknown, what, err.Error()}
	}
	for _, name := range []string{"sfmctokens", "sfmcaccessgrants"} {
		if !slices.ContainsFunc(served.APIResources, func(r metav1.APIResource) bool { return r.Name == name }) {
			return checked{isProblem, what, name + " are not served: install the CRD"}
		}
	}
	return checked{isOK, what, v1alpha1.GroupVersion.String() + " serves SFMCTokens and SFMCAccessGrants"}
}

func checkDeployment(deployment *appsv1.Deployment) checked {
	verdict, replicas := isOK, ptr.Deref(deployment.Spec.Replicas, 1)
	if deployment.Status.AvailableReplicas == 0 {
		verdict = isProblem
	}
	return checked{verdict, "operator", fmt.Sprintf("Deployment %s/%s: %d of %d replicas available",
		deployment.Namespace, deployment.Name, deployment.Status.AvailableReplicas, replicas)}
}

// checkVersion compares releases; before 1.0, a minor one may change what the plugin relies on.
func checkVersion(own string, deployment *appsv1.Deployment) checked {
	image := managerOf(&deployment.Spec.Template.Spec).Image
	says := fmt.Sprintf("plugin %s, operator %s", own, image)
	plugin, operator := releaseOf(own), releaseOf(tagOf(image))
	switch {
	case plugin == nil || operator == nil:
		return checked{isOK, "version", says + " (not both are releases: not compared)"}
	case plugin.Major() != operator.Major() || plugin.Minor() != operator.Minor():
		return checked{isProblem, "version", says + ": use the plugin of the operator's release"}
	}
	return checked{isOK, "version", says}
}

// checkMetrics looks for the Service through which the operator's metrics are read, if it has any.
func (p *plugin) checkMetrics(ctx context.Context, deployment *appsv1.Deployment) checked {
	const what = "metrics"
	if !hasFlag(deployment, "metrics-bind-address") {
		return checked{isOK, what, "turned off"}
	}
	services, err := p.core.Services(p.home).List(ctx, metav1.ListOptions{})
	if err != nil {
		return checked{isUnknown, what, fmt.Sprintf("list Services in namespace %s: %v", p.home, err)}
	}
	for i := range services.Items {
		if services.Items[i].Spec.Selector[nameLabel] == operatorName {
			return checked{isOK, what, "Service " + p.home + "/" + services.Items[i].Name}
		}
	}
	return checked{isProblem, what, "no Service in namespace " + p.home + " selects the operator's pods"}
}

// checkLeader looks at the Lease: whoever holds it works, the other replicas wait.
func (p *plugin) checkLeader(ctx context.Context) checked {
	const what = "leader"
	lease, err := p.coordination.Leases(p.home).Get(ctx, operatorName, metav1.GetOptions{})
	name := "Lease " + p.home + "/" + operatorName
	switch {
	case apierrors.IsNotFound(err):
		return checked{isProblem, what, "no " + name + ": no operator has led there"}
	case err != nil:
		return checked{isUnknown, what, fmt.Sprintf("read %s: %v", name, err)}
	}
	holder, renewed := ptr.Deref(lease.Spec.HolderIdentity, ""), ptr.Deref(lease.Spec.RenewTime, metav1.MicroTime{})
	if holder == "" {
		return checked{isProblem, what, name + " is held by nobody"}
	}
	pod, _, _ := strings.Cut(holder, "_")
	age := max(p.clock.Now().Sub(renewed.Time), 0)
	says := fmt.Sprintf("%s, by %s, renewed %s ago", name, pod, duration.HumanDuration(age))
	lasts := time.Duration(ptr.Deref(lease.Spec.LeaseDurationSeconds, 0)) * time.Second
	if age > lasts+doctor.ClockSkew {
		return checked{isProblem, what, says + ": it has ended; is the operator running?"}
	}
	return checked{isOK, what, says}
}
