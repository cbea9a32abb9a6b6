package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/access"
	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
)

// status prints all that there is to know of an SFMCToken. What a person may not see is a question mark, with the
// reason on stderr.
func (p *plugin) status(ctx context.Context, names []string) error {
	token, err := p.tokens(p.namespace).Get(ctx, names[0], metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the SFMCToken: %w", err)
	}
	fmt.Fprintf(p.Out, "SFMCToken %s/%s\n", token.Namespace, token.Name)
	p.printSpec(token)
	p.printConditions(token)
	p.printTimes(token)
	for _, err := range []error{
		p.printSharers(ctx, token), p.printGrant(ctx, token), p.printReaders(ctx, token), p.printEvents(ctx, token),
	} {
		if err != nil {
			fmt.Fprintf(p.ErrOut, "Not all is known: %v\n", err)
		}
	}
	if !meta.IsStatusConditionTrue(token.Status.Conditions, v1alpha1.ConditionReady) {
		return errFound
	}
	return nil
}

// field prints a line: what it is about, and that.
func (p *plugin) field(name, value string) { fmt.Fprintf(p.Out, "  %-19s  %s\n", name, value) }

func orDash(text string) string { return cmp.Or(text, "-") }

func (p *plugin) printSpec(token *v1alpha1.SFMCToken) {
	credentials := credentialsOf(token)
	p.field("Credentials", "Secret "+strings.TrimPrefix(credentials.String(), token.Namespace+"/"))
	p.field("Business unit", cmp.Or(token.Spec.AccountID, "the one in which the package was made"))
	p.field("Scopes", cmp.Or(strings.Join(token.RequestedScopes(), " "), "all that the package has"))
	target := "Secret " + token.TargetSecretName()
	switch held := token.Status.TargetSecretName; held {
	case token.TargetSecretName():
	case "":
		target += " (holds no token)"
	default:
		target += " (the token is still in " + held + ")"
	}
	p.field("Target", target)
}

// printConditions prints Ready first, then what else is said.
func (p *plugin) printConditions(token *v1alpha1.SFMCToken) {
	conditions := slices.Clone(token.Status.Conditions)
	slices.SortStableFunc(conditions, func(a, b metav1.Condition) int {
		return cmp.Compare(rank(a), rank(b))
	})
	if len(conditions) == 0 {
		p.field(v1alpha1.ConditionReady, doctor.Problems(token, p.clock.Now())[0].String())
	}
	for _, c := range conditions {
		since := duration.HumanDuration(max(p.clock.Now().Sub(c.LastTransitionTime.Time), 0))
		p.field(c.Type, fmt.Sprintf("%s, %s, for %s: %s", c.Status, c.Reason, since, doctor.OneLine(c.Message)))
	}
	if token.Status.ObservedGeneration != token.Generation && len(conditions) > 0 {
		p.field("", "The operator hasn't looked at the spec as it is now.")
	}
}

func rank(c metav1.Condition) int {
	if c.Type == v1alpha1.ConditionReady {
		return 0
	}
	return 1
}

func (p *plugin) printTimes(token *v1alpha1.SFMCToken) {
	now := p.clock.Now()
	p.field("Expires", p.at(token.Status.ExpiresAt))
	next := p.at(token.Status.RefreshAt)
	if token.Spec.Suspend {
		next = "none while spec.suspend is true"
	}
	p.field("Next refresh", next)
	handled := token.Status.LastHandledRefreshRequest
	request := orDash(doctor.OneLine(handled))
	if asked := token.RefreshRequest(); asked != handled && asked != "" {
		request = doctor.OneLine(asked) + " (not answered yet)"
	}
	if at, err := time.Parse(time.RFC3339, handled); err == nil && token.RefreshRequest() == handled {
		request += " (" + doctor.When(&metav1.Time{Time: at}, now) + ")"
	}
	p.field("Refresh request", request)
}

func (p *plugin) at(at *metav1.Time) string {
	if at.IsZero() {
		return "-"
	}
	return fmt.Sprintf("%s (%s)", doctor.When(at, p.clock.Now()), at.UTC().Format(time.RFC3339))
}

func (p *plugin) printSharers(ctx context.Context, token *v1alpha1.SFMCToken) error {
	shared, err := p.sharing(ctx)
	if err != nil {
		p.field("Shared with", unseen)
		return err
	}
	p.field("Shared with", shared.cell(token))
	if note := shared.note(p.namespace); note != "" {
		return fmt.Errorf("who shares the token %s", note)
	}
	return nil
}

// printGrant prints which grant lets an SFMCToken use credentials of another namespace, as far as that may be seen.
func (p *plugin) printGrant(ctx context.Context, token *v1alpha1.SFMCToken) error {
	credentials := credentialsOf(token)
	if credentials.Namespace == token.Namespace {
		return nil
	}
	const field = "Granted by"
	grants, err := p.grants(credentials.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		p.field(field, unseen)
		return fmt.Errorf("list SFMCAccessGrants in namespace %s: %w", credentials.Namespace, err)
	}
	namespaceOf := func() (*metav1.PartialObjectMetadata, error) {
		namespace, err := p.namespaces.Get(ctx, token.Namespace, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil, nil //nolint:nilnil // there is none
		}
		return namespace, err
	}
	var unknown error
	for i := range grants.Items {
		grant := &grants.Items[i]
		labels := namespaceOf
		if readsNoLabels(grant) {
			labels = nil
		}
		covers, err := access.Covers(grant, token, labels)
		if covers {
			p.field(field, "SFMCAccessGrant "+grant.Namespace+"/"+grant.Name)
			return nil
		}
		unknown = cmp.Or(unknown, err)
	}
	if unknown != nil {
		p.field(field, unseen)
		return fmt.Errorf("read the labels of namespace %s: %w", token.Namespace, unknown)
	}
	p.field(field, "no SFMCAccessGrant in namespace "+credentials.Namespace+" covers it")
	return nil
}

// readsNoLabels reports whether the operator may not read namespaces' labels, as a grant says.
func readsNoLabels(grant *v1alpha1.SFMCAccessGrant) bool {
	c := meta.FindStatusCondition(grant.Status.Conditions, v1alpha1.ConditionStalled)
	return c != nil && c.Status == metav1.ConditionTrue && c.Reason == v1alpha1.ReasonSelectorUnavailable
}

// printReaders prints which containers get the target Secret, and how: those that miss refreshes last.
func (p *plugin) printReaders(ctx context.Context, token *v1alpha1.SFMCToken) error {
	cluster, failed := p.cluster(ctx)
	fresh, stale := doctor.FreshReaders(token, cluster), doctor.StaleReaders(token, cluster)
	fmt.Fprintln(p.Out, "Readers")
	for _, reader := range fresh {
		fmt.Fprintf(p.Out, "  %s: %s\n", reader.Who(), reader.How)
	}
	for _, reader := range stale {
		says := "read once, when it starts: it misses every refresh"
		if reader.IsBrief {
			says = "read once, and it ends in time"
		}
		fmt.Fprintf(p.Out, "  %s: %s (%s)\n", reader.Who(), reader.How, says)
	}
	switch {
	case len(failed) > 0:
		fmt.Fprintln(p.Out, "  "+unseen)
	case len(fresh)+len(stale) == 0:
		fmt.Fprintln(p.Out, "  -")
	}
	return errors.Join(failed...)
}
