package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
)

// accessWatch sees all SFMCTokens and target Secrets as they change.
type accessWatch struct {
	secrets, tokens watch.Interface
	full            map[client.ObjectKey]bool // Secrets with a token in them
	ready           map[client.ObjectKey]bool // SFMCTokens that say that all is well
}

func (b *bench) watchAccess(ctx context.Context) (*accessWatch, error) {
	var secrets corev1.SecretList
	var tokens v1alpha1.SFMCTokenList
	w := &accessWatch{full: map[client.ObjectKey]bool{}, ready: map[client.ObjectKey]bool{}}
	var err error
	if w.secrets, err = b.listAndWatch(ctx, &secrets, client.MatchingLabels{target.ManagedByLabel: target.ManagedByValue}); err != nil {
		return nil, err
	}
	if w.tokens, err = b.listAndWatch(ctx, &tokens); err != nil {
		w.secrets.Stop()
		return nil, err
	}
	for i := range secrets.Items {
		w.note(&secrets.Items[i])
	}
	for i := range tokens.Items {
		w.note(&tokens.Items[i])
	}
	return w, nil
}

func (w *accessWatch) stop() {
	w.secrets.Stop()
	w.tokens.Stop()
}

func (w *accessWatch) note(obj any) {
	switch obj := obj.(type) {
	case *corev1.Secret:
		w.full[client.ObjectKeyFromObject(obj)] = len(obj.Data) > 0
	case *v1alpha1.SFMCToken:
		w.ready[client.ObjectKeyFromObject(obj)] = meta.IsStatusConditionTrue(obj.Status.Conditions, v1alpha1.ConditionReady)
	}
}

// await waits until a side has followed a change of access: the target Secrets of all that are affected are full and
// their SFMCTokens Ready, or neither. It returns when the last was Ready, or the last Secret empty.
func (w *accessWatch) await(ctx context.Context, side *child, affected []client.ObjectKey, given bool) (at time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	decisive := w.full
	if given {
		decisive = w.ready
	}
	for {
		if at.IsZero() && allAre(given, decisive, affected) {
			at = time.Now()
		}
		if allAre(given, w.full, affected) && allAre(given, w.ready, affected) {
			return at, nil
		}
		var event watch.Event
		select {
		case <-ctx.Done():
			return at, context.Cause(ctx)
		case <-side.Exited():
			return at, fmt.Errorf("%s ended:\n%s", side.name, side.lastLog())
		case event = <-w.secrets.ResultChan():
		case event = <-w.tokens.ResultChan():
		}
		if event.Type != watch.Added && event.Type != watch.Modified {
			return at, errors.New("a watch ended, or saw something deleted")
		}
		w.note(event.Object)
	}
}

func allAre(wanted bool, are map[client.ObjectKey]bool, keys []client.ObjectKey) bool {
	for _, key := range keys {
		if are[key] != wanted {
			return false
		}
	}
	return true
}
