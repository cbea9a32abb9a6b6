package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

// measureRestarts restarts the operator with many valid tokens, as compareRefresh left them, and with more.
func (b *bench) measureRestarts(ctx context.Context) error {
	if err := b.measureRestart(ctx, b.tokens); err != nil {
		return err
	}
	say("creating %d tokens more", b.restartTokens-b.tokens)
	if err := b.growTo(ctx, b.restartTokens); err != nil {
		return err
	}
	return b.measureRestart(ctx, b.restartTokens)
}

// growTo leaves so many valid tokens.
func (b *bench) growTo(ctx context.Context, n int) error {
	if err := b.createTokens(ctx, b.tokens, n, n); err != nil {
		return err
	}
	operator, err := b.startServing(ctx, n, unpaced...)
	if err != nil {
		return err
	}
	return operator.stop()
}

// measureRestart starts the operator with n valid tokens and changes an SFMCToken at once, in a way that needs no new
// token.
func (b *bench) measureRestart(ctx context.Context, n int) (err error) {
	say("restarting with %d valid tokens", n)
	m, err := b.startMeter(ctx, nil)
	if err != nil {
		return err
	}
	tokens, err := b.watchTokens(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	operator, err := b.startOperator()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, operator.stop()) }()
	changed, err := b.changeTemplate(ctx, keyOf(n-1), fmt.Sprintf("restart-%d", n))
	if err != nil {
		return err
	}
	served, err := tokens.until(ctx, operator, 1, func(token *v1alpha1.SFMCToken) bool {
		return token.UID == changed.UID && token.Status.ObservedGeneration == changed.Generation
	})
	if err != nil {
		return err
	}
	r, err := m.read(ctx, operator, served)
	if err != nil {
		return err
	}
	r.tokens, r.served = n, served.Sub(start)
	b.promise(r.requests == 0, "no token request at a restart with %d valid tokens: %d", n, r.requests)
	b.promise(r.calls == calls{updateSecrets: 1, patchStatuses: 1},
		"nothing but the two writes of one change at a restart with %d valid tokens: %+v", n, r.calls)
	b.addRow(fmt.Sprintf("restart with %d valid tokens", n), r)
	return nil
}

func (b *bench) changeTemplate(ctx context.Context, key client.ObjectKey, value string) (*v1alpha1.SFMCToken, error) {
	token := &v1alpha1.SFMCToken{}
	token.Namespace, token.Name = key.Namespace, key.Name
	patch := fmt.Sprintf(`{"spec":{"target":{"template":{"metadata":{"labels":{"bench":%q}}}}}}`, value)
	return token, b.admin.Patch(ctx, token, client.RawPatch(types.MergePatchType, []byte(patch)))
}
