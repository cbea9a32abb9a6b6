package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
)

const (
	problemWidth = 60 // doctor has the whole of it
	maxSharers   = 3
)

// list prints a table of the SFMCTokens.
func (p *plugin) list(ctx context.Context, _ []string) error {
	tokens, narrow, err := listWidest(ctx, metav1.ListOptions{}, p.tokens("").List, p.tokens(p.namespace).List)
	if err != nil {
		return fmt.Errorf("list SFMCTokens: %w", err)
	}
	targets := metav1.ListOptions{LabelSelector: labels.Set{target.ManagedByLabel: target.ManagedByValue}.String()}
	secrets, narrowSecrets, err := listWidest(ctx, targets, p.secrets.List, p.secrets.Namespace(p.namespace).List)
	unknown := apierrors.IsForbidden(err)
	if unknown {
		secrets = &metav1.PartialObjectMetadataList{} // the client has returned nil
	} else if err != nil {
		return fmt.Errorf("list the metadata of Secrets: %w", err)
	}
	sharers := doctor.Sharers(tokens.Items, secrets.Items)
	shown := slices.DeleteFunc(tokens.Items, func(token v1alpha1.SFMCToken) bool {
		return p.namespace != "" && token.Namespace != p.namespace
	})
	if len(shown) == 0 {
		fmt.Fprintln(p.ErrOut, p.nothingFound())
		return nil
	}
	rows := tabwriter.NewWriter(p.Out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(rows, p.cells("NAMESPACE", "NAME", "READY", "BU", "EXPIRES", "NEXT REFRESH", "SHARED WITH", "PROBLEM"))
	for _, token := range shown {
		shared := "?"
		if !unknown {
			shared = names(token.Namespace, sharers[types.NamespacedName{Namespace: token.Namespace, Name: token.Name}])
		}
		fmt.Fprintln(rows, p.row(&token, shared))
	}
	if err := rows.Flush(); err != nil {
		return err
	}
	switch {
	case unknown:
		fmt.Fprintln(p.ErrOut, "SHARED WITH is unknown: you may not list Secrets.")
	case narrow || narrowSecrets:
		fmt.Fprintf(p.ErrOut, "SHARED WITH knows of namespace %s only: "+
			"you may not list SFMCTokens and Secrets in all namespaces.\n", p.namespace)
	}
	return nil
}

// listWidest returns what is in all namespaces, because tokens are shared across them; if that is forbidden, what is in
// the one that is asked for.
func listWidest[L any](
	ctx context.Context, options metav1.ListOptions, all, here func(context.Context, metav1.ListOptions) (L, error),
) (found L, narrow bool, err error) {
	found, err = all(ctx, options)
	if narrow = apierrors.IsForbidden(err); narrow {
		found, err = here(ctx, options)
	}
	return found, narrow, err
}

func (p *plugin) row(token *v1alpha1.SFMCToken, shared string) string {
	now := p.clock.Now()
	ready := string(metav1.ConditionUnknown)
	if c := meta.FindStatusCondition(token.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		ready = string(c.Status)
	}
	problem := "-"
	if problems := doctor.Problems(token, now); len(problems) > 0 {
		problem = doctor.Cut(problems[0].String(), problemWidth)
	}
	return p.cells(token.Namespace, token.Name, ready, cmp.Or(token.Spec.AccountID, "-"),
		doctor.When(token.Status.ExpiresAt, now), doctor.When(token.Status.RefreshAt, now), shared, problem)
}

// cells returns a row; the namespace is in it only if there can be several.
func (p *plugin) cells(namespace string, others ...string) string {
	if p.namespace == "" {
		others = append([]string{namespace}, others...)
	}
	return strings.Join(others, "\t")
}

// names returns those of SFMCTokens, with the namespace if it is another one.
func names(namespace string, keys []types.NamespacedName) string {
	var names []string
	for _, key := range keys[:min(len(keys), maxSharers)] {
		names = append(names, strings.TrimPrefix(key.String(), namespace+"/"))
	}
	if more := len(keys) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("+%d", more))
	}
	return cmp.Or(strings.Join(names, ","), "-")
}

func (p *plugin) nothingFound() string {
	if p.namespace == "" {
		return "No SFMCTokens found."
	}
	return fmt.Sprintf("No SFMCTokens found in namespace %s.", p.namespace)
}
