package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"text/tabwriter"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
)

const maxEvents = 10

// printEvents prints what the operator said last of an SFMCToken, newest last.
func (p *plugin) printEvents(ctx context.Context, token *v1alpha1.SFMCToken) error {
	fmt.Fprintln(p.Out, "Events")
	events, err := p.eventsOf(ctx, token.Namespace, fields.Set{
		"involvedObject.kind": "SFMCToken", "involvedObject.name": token.Name, "involvedObject.uid": string(token.UID),
	})
	switch {
	case err != nil:
		fmt.Fprintln(p.Out, "  "+unseen)
		return err
	case len(events) == 0:
		fmt.Fprintln(p.Out, "  -")
		return nil
	}
	rows := tabwriter.NewWriter(p.Out, 0, 0, 3, ' ', 0)
	events = events[max(0, len(events)-maxEvents):]
	for i := range events {
		event := &events[i]
		last := lastSeen(event)
		fmt.Fprintf(rows, "  %s\t%s\t%s\t%s\n", doctor.When(&last, p.clock.Now()), doctor.OneLine(event.Type),
			doctor.OneLine(event.Reason), doctor.OneLine(event.Message)) // anybody may have written it
	}
	return rows.Flush()
}

// eventsOf returns events, newest last.
func (p *plugin) eventsOf(ctx context.Context, namespace string, about fields.Set) ([]corev1.Event, error) {
	events, err := p.core.Events(namespace).List(ctx, metav1.ListOptions{FieldSelector: about.String()})
	if err != nil {
		return nil, fmt.Errorf("list Events: %w", err)
	}
	slices.SortStableFunc(events.Items, func(a, b corev1.Event) int {
		return lastSeen(&a).Compare(lastSeen(&b).Time)
	})
	return events.Items, nil
}

// lastSeen returns when an event came last. Which field has that depends on the API through which it was written.
func lastSeen(event *corev1.Event) metav1.Time {
	series := metav1.MicroTime{}
	if event.Series != nil {
		series = event.Series.LastObservedTime
	}
	return metav1.Time{Time: cmp.Or(series.Time, event.LastTimestamp.Time, event.EventTime.Time,
		event.CreationTimestamp.Time)}
}
