package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
)

const problemWidth = 60 // doctor has the whole of it

// listing is how the list is printed.
type listing struct {
	selector  string
	noHeaders bool
	watches   bool
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
	command.Flags().BoolVarP(&l.watches, "watch", "w", false, "Print the table, and then a line for each change")
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
	switch {
	case p.listing.watches && printer != nil:
		return errors.New("--watch prints the table: leave out --output, or say " + formatWide)
	case p.listing.watches:
		return p.watch(ctx)
	case printer != nil:
		return p.print(ctx, printer)
	}
	shared, err := p.sharing(ctx)
	if err != nil {
		return err
	}
	shown := slices.DeleteFunc(shared.tokens, func(token v1alpha1.SFMCToken) bool {
		return p.namespace != "" && token.Namespace != p.namespace || !selected.Matches(labels.Set(token.Labels))
	})
	if len(shown) == 0 {
		fmt.Fprintln(p.ErrOut, p.nothingFound())
		return nil
	}
	if err := p.table(shown, shared.cell); err != nil {
		return err
	}
	if note := shared.note(p.namespace); note != "" {
		fmt.Fprintf(p.ErrOut, "SHARED WITH %s.\n", note)
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
		fmt.Fprintln(rows, p.header())
	}
	for i := range tokens {
		fmt.Fprintln(rows, p.row(&tokens[i], shared(&tokens[i])))
	}
	return rows.Flush()
}

func (p *plugin) header() string {
	return p.cells("NAMESPACE", "NAME", "READY", "BU", "EXPIRES", "NEXT REFRESH", "SHARED WITH", "PROBLEM",
		"CREDENTIALS", "TARGET")
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
		credentialsOf(token).String(), token.TargetSecretName())
}

const (
	wideColumns  = 2 // the last ones, which only the wide table has
	sharedColumn = 5 // behind the namespace
)

// credentialsOf returns the name of the credentials Secret that an SFMCToken refers to.
func credentialsOf(token *v1alpha1.SFMCToken) types.NamespacedName {
	ref := token.Spec.CredentialsSecretRef
	return types.NamespacedName{Namespace: cmp.Or(ref.Namespace, token.Namespace), Name: ref.Name}
}

// cells returns a row; the namespace is in it only if there can be several, and who shares a token only if it is known
// of all: a watch sees one SFMCToken after the other.
func (p *plugin) cells(namespace string, others ...string) string {
	if p.listing.watches {
		others = slices.Delete(others, sharedColumn, sharedColumn+1)
	}
	if *p.listing.format.OutputFormat != formatWide {
		others = others[:len(others)-wideColumns]
	}
	if p.namespace == "" {
		others = append([]string{namespace}, others...)
	}
	return strings.Join(others, "\t")
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
