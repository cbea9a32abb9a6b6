package main

import (
	"context"
	"fmt"
	"strings"
	"text/tabwriter"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/controller"
	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
)

const (
	problemWidth = 60 // doctor has the whole of it
	mostSharers  = 3
)

// list prints a table of the SFMCTokens.
func (p *plugin) list(ctx context.Context) error {
	var tokens v1alpha1.SFMCTokenList
	narrow, err := p.listWidest(ctx, &tokens)
	if err != nil {
		return fmt.Errorf("list SFMCTokens: %w", err)
	}
	// As metadata: the record of a token is an annotation, and the token itself stays in the cluster.
	secrets := &metav1.PartialObjectMetadataList{}
	secrets.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("SecretList"))
	narrowSecrets, err := p.listWidest(ctx, secrets, client.MatchingLabels{controller.ManagedByLabel: controller.ManagedByValue})
	unknown := apierrors.IsForbidden(err)
	if err != nil && !unknown {
		return fmt.Errorf("list the metadata of Secrets: %w", err)
	}
	sharers := doctor.Sharers(tokens.Items, secrets.Items)

	table := tabwriter.NewWriter(p.out, 0, 0, 3, ' ', 0)
	rows := 0
	for i := range tokens.Items {
		token := &tokens.Items[i]
		if p.namespace != "" && token.Namespace != p.namespace {
			continue
		}
		if rows == 0 {
			fmt.Fprintln(table, p.cells("NAMESPACE", "NAME", "READY", "BU", "EXPIRES", "NEXT REFRESH", "SHARED WITH", "PROBLEM"))
		}
		rows++
		shared := "?"
		if !unknown {
			shared = p.names(token.Namespace, sharers[client.ObjectKeyFromObject(token)])
		}
		fmt.Fprintln(table, p.row(token, shared))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	switch {
	case rows == 0:
		fmt.Fprintln(p.errOut, p.nothingFound())
	case unknown:
		fmt.Fprintln(p.errOut, "SHARED WITH is unknown: you may not list Secrets.")
	case narrow || narrowSecrets:
		fmt.Fprintf(p.errOut, "SHARED WITH knows of namespace %s only: you may not list SFMCTokens and Secrets in all namespaces.\n", p.namespace)
	}
	return nil
}

// listWidest lists in all namespaces, because tokens are shared across them; if that is forbidden, in the one that is
// asked for.
func (p *plugin) listWidest(ctx context.Context, list client.ObjectList, options ...client.ListOption) (narrow bool, err error) {
	err = p.client.List(ctx, list, options...)
	if apierrors.IsForbidden(err) && p.namespace != "" {
		return true, p.client.List(ctx, list, append(options, client.InNamespace(p.namespace))...)
	}
	return false, err
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
	unit := token.Spec.AccountID
	if unit == "" {
		unit = "-"
	}
	return p.cells(token.Namespace, token.Name, ready, unit, doctor.When(token.Status.ExpiresAt, now), doctor.When(token.Status.RefreshAt, now), shared, problem)
}

// cells makes a row; the namespace is said only if there can be several.
func (p *plugin) cells(namespace string, others ...string) string {
	if p.namespace == "" {
		others = append([]string{namespace}, others...)
	}
	return strings.Join(others, "\t")
}

// names are those of SFMCTokens, with the namespace if it is another one.
func (p *plugin) names(namespace string, keys []types.NamespacedName) string {
	var names []string
	for _, key := range keys {
		if len(names) == mostSharers {
			names = append(names, fmt.Sprintf("+%d", len(keys)-mostSharers))
			break
		}
		if key.Namespace == namespace {
			names = append(names, key.Name)
		} else {
			names = append(names, key.String())
		}
	}
	if len(names) == 0 {
		return "-"
	}
	return strings.Join(names, ",")
}

func (p *plugin) nothingFound() string {
	if p.namespace == "" {
		return "No SFMCTokens found."
	}
	return fmt.Sprintf("No SFMCTokens found in namespace %s.", p.namespace)
}
