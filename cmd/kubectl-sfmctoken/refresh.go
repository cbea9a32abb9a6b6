package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
)

// noTokenError says why there is no new token.
type noTokenError struct{ error }

// refresh asks for a new token, waits for it, and prints until when it is valid.
func (p *plugin) refresh(ctx context.Context, name string, timeout time.Duration) error {
	asked, err := p.ask(ctx, name)
	var is *v1alpha1.SFMCToken
	if err == nil {
		is, err = p.await(ctx, asked, timeout)
	}
	var none noTokenError
	switch {
	case errors.As(err, &none):
		fmt.Fprintf(p.out, "SFMCToken %s/%s has no new token. %v\n", p.namespace, name, err)
		return errFound
	case err != nil:
		return err
	}
	fmt.Fprintf(p.out, "SFMCToken %s/%s has a new token, valid until %s (%s).\n", p.namespace, name,
		is.Status.ExpiresAt.UTC().Format(time.RFC3339), doctor.When(is.Status.ExpiresAt, p.clock.Now()))
	return nil
}

// ask writes the request, and returns the SFMCToken as it is then.
func (p *plugin) ask(ctx context.Context, name string) (*v1alpha1.SFMCToken, error) {
	token := &v1alpha1.SFMCToken{}
	if err := p.client.Get(ctx, client.ObjectKey{Namespace: p.namespace, Name: name}, token); err != nil {
		return nil, fmt.Errorf("read the SFMCToken: %w", err)
	}
	if token.Spec.Suspend {
		return nil, noTokenError{errors.New("spec.suspend is true: no token is asked for until it is false")}
	}
	value := p.clock.Now().UTC().Format(time.RFC3339Nano)
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"annotations": map[string]string{v1alpha1.RefreshRequestedAtAnnotation: value},
	}})
	if err != nil {
		return nil, err
	}
	if err := p.client.Patch(ctx, token, client.RawPatch(types.MergePatchType, patch), client.FieldOwner("kubectl-sfmctoken")); err != nil {
		return nil, fmt.Errorf("ask for a new token: %w", err)
	}
	if standing := doctor.Standing(token); standing != nil {
		fmt.Fprintf(p.errOut, "It was not well when asked. %v\n", standing)
	}
	return token, nil
}

// await watches an SFMCToken until its request is answered, and returns it as it is then.
func (p *plugin) await(ctx context.Context, asked *v1alpha1.SFMCToken, timeout time.Duration) (*v1alpha1.SFMCToken, error) {
	limited, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	is := asked
	watcher := &cache.ListWatch{WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
		return p.client.Watch(ctx, &v1alpha1.SFMCTokenList{}, &client.ListOptions{
			Namespace:     asked.Namespace,
			FieldSelector: fields.OneTermEqualSelector("metadata.name", asked.Name),
			Raw:           &options,
		})
	}}
	_, err := watchtools.Until(limited, asked.ResourceVersion, watcher, func(event watch.Event) (bool, error) {
		token, ok := event.Object.(*v1alpha1.SFMCToken)
		switch {
		case !ok:
			return false, apierrors.FromObject(event.Object)
		case event.Type == watch.Deleted:
			return false, noTokenError{errors.New("it was deleted")}
		}
		is = token
		answered, err := doctor.Answered(asked, is)
		if err != nil {
			return false, noTokenError{err}
		}
		return answered, nil
	})
	var none noTokenError
	switch {
	case errors.As(err, &none):
		return nil, none
	case wait.Interrupted(err) && ctx.Err() != nil:
		return nil, errors.New("interrupted; the request stands")
	case wait.Interrupted(err):
		return nil, noTokenError{fmt.Errorf("no answer within %s: %w", timeout, because(is))}
	case err != nil:
		return nil, fmt.Errorf("wait for the answer: %w", err)
	}
	return is, nil
}

// because says what may be the matter with an SFMCToken that gives no answer.
func because(token *v1alpha1.SFMCToken) error {
	if standing := doctor.Standing(token); standing != nil {
		return standing
	}
	return errors.New("is the operator running, and does it watch this namespace?")
}
