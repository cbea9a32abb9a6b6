package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
)

// refresh asks for a new token, waits for it, and prints until when it is valid.
func (p *plugin) refresh(ctx context.Context, names []string) error {
	name, tokens := names[0], p.tokens(p.namespace)
	token, err := tokens.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the SFMCToken: %w", err)
	}
	if token.Spec.Suspend {
		return p.noToken(token, errors.New("spec.suspend is true: no token is asked for until it is false"))
	}
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`,
		v1alpha1.RefreshRequestedAtAnnotation, p.clock.Now().UTC().Format(time.RFC3339Nano))
	options := metav1.PatchOptions{FieldManager: fieldManager}
	if token, err = tokens.Patch(ctx, name, types.MergePatchType, patch, options); err != nil {
		return fmt.Errorf("ask for a new token: %w", err)
	}
	if standing := doctor.Standing(token); standing != nil {
		fmt.Fprintf(p.ErrOut, "It was not well when asked. %v\n", standing)
	}
	if err := p.await(ctx, token); err != nil {
		return err
	}
	fmt.Fprintf(p.Out, "SFMCToken %s/%s has a new token, valid until %s (%s).\n", token.Namespace, name,
		token.Status.ExpiresAt.UTC().Format(time.RFC3339), doctor.When(token.Status.ExpiresAt, p.clock.Now()))
	return nil
}

// noToken prints why there is no new token.
func (p *plugin) noToken(token *v1alpha1.SFMCToken, why error) error {
	fmt.Fprintf(p.Out, "SFMCToken %s/%s has no new token. %v\n", token.Namespace, token.Name, why)
	return errFound
}

// await watches an SFMCToken, which it keeps up to date, until its request is answered.
func (p *plugin) await(ctx context.Context, token *v1alpha1.SFMCToken) error {
	limited, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	asked := token.DeepCopy()
	start := func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
		options.FieldSelector = "metadata.name=" + asked.Name
		return p.tokens(asked.Namespace).Watch(ctx, options)
	}
	watcher := &cache.ListWatch{WatchFuncWithContext: start}
	_, err := watchtools.Until(limited, asked.ResourceVersion, watcher, func(event watch.Event) (bool, error) {
		is, ok := event.Object.(*v1alpha1.SFMCToken)
		switch {
		case !ok:
			return false, apierrors.FromObject(event.Object)
		case event.Type == watch.Deleted:
			return false, p.noToken(token, errors.New("it was deleted"))
		}
		*token = *is
		answered, err := doctor.Answered(asked, is)
		if err != nil {
			return false, p.noToken(token, err)
		}
		return answered, nil
	})
	switch {
	case err == nil, errors.Is(err, errFound):
		return err
	case wait.Interrupted(err) && ctx.Err() != nil:
		return errors.New("interrupted; the request stands")
	case wait.Interrupted(err):
		why := cmp.Or(doctor.Standing(token), errors.New("is the operator running, and does it watch this namespace?"))
		return p.noToken(token, fmt.Errorf("no answer within %s: %w", p.timeout, why))
	}
	return fmt.Errorf("wait for the answer: %w", err)
}
