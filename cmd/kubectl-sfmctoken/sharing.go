package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
)

// unseen stands for what a person may not see.
const unseen = "?"

const maxSharers = 3

// sharing is who shares tokens with whom, as far as a person may see it.
type sharing struct {
	tokens    []v1alpha1.SFMCToken // of all namespaces, or of one
	sharers   map[types.NamespacedName][]types.NamespacedName
	isUnknown bool
	isNarrow  bool // others are known in one namespace only
}

// sharing finds out from the metadata of target Secrets who shares tokens.
func (p *plugin) sharing(ctx context.Context) (*sharing, error) {
	tokens, narrow, err := listWidest(ctx, metav1.ListOptions{}, p.tokens("").List, p.tokens(p.namespace).List)
	if err != nil {
		return nil, fmt.Errorf("list SFMCTokens: %w", err)
	}
	targets := metav1.ListOptions{LabelSelector: labels.Set{target.ManagedByLabel: target.ManagedByValue}.String()}
	secrets, narrowSecrets, err := listWidest(ctx, targets, p.secrets.List, p.secrets.Namespace(p.namespace).List)
	found := &sharing{tokens: tokens.Items, isNarrow: narrow || narrowSecrets}
	switch {
	case apierrors.IsForbidden(err):
		found.isUnknown = true
	case err != nil:
		return nil, fmt.Errorf("list the metadata of Secrets: %w", err)
	default:
		found.sharers = doctor.Sharers(tokens.Items, secrets.Items)
	}
	return found, nil
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

// cell returns with whom an SFMCToken shares its token, for a table.
func (s *sharing) cell(token *v1alpha1.SFMCToken) string {
	if s.isUnknown {
		return unseen
	}
	return names(token.Namespace, s.sharers[types.NamespacedName{Namespace: token.Namespace, Name: token.Name}])
}

// note returns what the cells don't show; empty if they show all.
func (s *sharing) note(namespace string) string {
	switch {
	case s.isUnknown:
		return "is unknown: you may not list Secrets"
	case s.isNarrow:
		return "is known in namespace " + namespace +
			" only: you may not list SFMCTokens and Secrets in all namespaces"
	default:
		return ""
	}
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
