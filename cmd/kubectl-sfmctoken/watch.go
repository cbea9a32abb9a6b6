package main

import (
	"context"
	"fmt"
	"io"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

// watch prints the table, and then a line for each change until it is interrupted.
func (p *plugin) watch(ctx context.Context) error {
	options := metav1.ListOptions{LabelSelector: p.listing.selector}
	tokens, err := p.tokens(p.namespace).List(ctx, options)
	if err != nil {
		return fmt.Errorf("list SFMCTokens: %w", err)
	}
	rows := printers.GetNewTabWriter(p.Out) // it remembers how wide columns were
	if !p.listing.noHeaders {
		fmt.Fprintln(rows, p.header())
	}
	for i := range tokens.Items {
		fmt.Fprintln(rows, p.row(&tokens.Items[i], ""))
	}
	if err := rows.Flush(); err != nil {
		return err
	}
	start := func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
		options.LabelSelector = p.listing.selector
		return p.tokens(p.namespace).Watch(ctx, options)
	}
	watcher := &cache.ListWatch{WatchFuncWithContext: start}
	_, ended := watchtools.Until(ctx, tokens.ResourceVersion, watcher, func(event watch.Event) (bool, error) {
		return false, p.printChange(rows, event)
	})
	if ctx.Err() == nil { // else, whoever watches has seen enough
		return fmt.Errorf("watch SFMCTokens: %w", ended)
	}
	return nil
}

// table is what aligns the columns of rows.
type table interface {
	io.Writer
	Flush() error
}

func (p *plugin) printChange(rows table, event watch.Event) error {
	token, ok := event.Object.(*v1alpha1.SFMCToken)
	switch {
	case !ok:
		return apierrors.FromObject(event.Object)
	case event.Type == watch.Deleted:
		fmt.Fprintln(rows, p.row(token, "")+" (deleted)")
	default:
		fmt.Fprintln(rows, p.row(token, ""))
	}
	return rows.Flush()
}
