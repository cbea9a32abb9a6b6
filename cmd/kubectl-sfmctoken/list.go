package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
)

const (
	problemWidth = 60 // doctor has the whole of it
	maxSharers   = 3
)

// listing is how the list is printed.
type listing struct {
	selector  string
	noHeaders bool
	format    *genericclioptions.PrintFlags
}

// Formats beside those that PrintFlags alone knows.
const (
	formatName = "name"
	formatWide = "wide" // the table with more columns
)

func (l *listing) addFlags(command *cobra.Command) {
	l.format = genericclioptions.NewPrintFlags("")
	l.format.AddFlags(command)
	output := command.Flags().Lookup("output")
	output.Usage = "wide for more columns, or the SFMCTokens themselves: " +
		strings.Join(l.format.AllowedFormats(), ", ")
	command.Flags().StringVarP(&l.selector, "selector", "l", "", "Show those that a label query selects")
	command.Flags().BoolVar(&l.noHeaders, "no-headers", false, "Print the table without its first line")
}

// printer returns what prints the SFMCTokens themselves, nil for a table.
func (l *listing) printer() (printers.ResourcePrinter, error) {
	switch *l.format.OutputFormat {
	case "", formatWide:
		return nil, nil //nolint:nilnil // see above
	}
	printer, err := l.format.ToPrinter()
	if err != nil {
		return nil, fmt.Errorf("--output: %w, or %s", err, formatWide)
	}
	return printer, nil
}

// list prints a table of the SFMCTokens, or the SFMCTokens themselves.
func (p *plugin) list(ctx context.Context, _ []string) error {
	selected, err := labels.Parse(p.listing.selector)
	if err != nil {
		return fmt.Errorf("--selector: %w", err)
	}
	printer, err := p.listing.printer()
	if err != nil {
		return err
	}
	if printer != nil {
		return p.print(ctx, printer)
	}
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
		return p.namespace != "" && token.Namespace != p.namespace || !selected.Matches(labels.Set(token.Labels))
	})
	if len(shown) == 0 {
		fmt.Fprintln(p.ErrOut, p.nothingFound())
		return nil
	}
	shared := func(token *v1alpha1.SFMCToken) string {
		if unknown {
			return "?"
		}
		return names(token.Namespace, sharers[types.NamespacedName{Namespace: token.Namespace, Name: token.Name}])
	}
	if err := p.table(shown, shared); err != nil {
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

// print prints the SFMCTokens as they are in the API.
func (p *plugin) print(ctx context.Context, printer printers.ResourcePrinter) error {
	tokens, err := p.tokens(p.namespace).List(ctx, metav1.ListOptions{LabelSelector: p.listing.selector})
	if err != nil {
		return fmt.Errorf("list SFMCTokens: %w", err)
	}
	tokens.SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("SFMCTokenList"))
	byName := *p.listing.format.OutputFormat == formatName
	for i := range tokens.Items {
		tokens.Items[i].SetGroupVersionKind(v1alpha1.GroupVersion.WithKind("SFMCToken"))
		if byName {
			if err := printer.PrintObj(&tokens.Items[i], p.Out); err != nil {
				return err
			}
		}
	}
	if byName { // its printer takes no lists
		return nil
	}
	return printer.PrintObj(tokens, p.Out)
}

func (p *plugin) table(tokens []v1alpha1.SFMCToken, shared func(*v1alpha1.SFMCToken) string) error {
	rows := tabwriter.NewWriter(p.Out, 0, 0, 3, ' ', 0)
	if !p.listing.noHeaders {
		fmt.Fprintln(rows, p.cells("NAMESPACE", "NAME", "READY", "BU", "EXPIRES", "NEXT REFRESH", "SHARED WITH",
			"PROBLEM", "CREDENTIALS", "TARGET"))
	}
	for i := range tokens {
		fmt.Fprintln(rows, p.row(&tokens[i], shared(&tokens[i])))
	}
	return rows.Flush()
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
		doctor.When(token.Status.ExpiresAt, now), doctor.When(token.Status.RefreshAt, now), shared, problem,
		cmp.Or(token.Spec.CredentialsSecretRef.Namespace, token.Namespace)+"/"+token.Spec.CredentialsSecretRef.Name,
		token.TargetSecretName())
}

// wideColumns are the last ones, which only the wide table has.
const wideColumns = 2

// cells returns a row; the namespace is in it only if there can be several.
func (p *plugin) cells(namespace string, others ...string) string {
	if *p.listing.format.OutputFormat != formatWide {
		others = others[:len(others)-wideColumns]
	}
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
	found := "No SFMCTokens found"
	if p.namespace != "" {
		found += " in namespace " + p.namespace
	}
	if p.listing.selector != "" {
		found += " that the label query selects"
	}
	return found + "."
}
