package main

import (
	"context"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
)

// suspend ends the refreshes of SFMCTokens. Their tokens stay valid until they expire.
func (p *plugin) suspend(ctx context.Context, names []string) error {
	return p.setSuspend(ctx, names, true)
}

// resume has SFMCTokens refreshed again.
func (p *plugin) resume(ctx context.Context, names []string) error {
	return p.setSuspend(ctx, names, false)
}

// setSuspend changes each that it can, and returns an error of those that it can't.
func (p *plugin) setSuspend(ctx context.Context, names []string, suspend bool) error {
	var failed []error
	patch := fmt.Appendf(nil, `{"spec":{"suspend":%t}}`, suspend)
	for _, name := range names {
		token, err := p.tokens(p.namespace).Patch(ctx, name, types.MergePatchType, patch,
			metav1.PatchOptions{FieldManager: fieldManager})
		if err != nil {
			failed = append(failed, fmt.Errorf("change SFMCToken %s: %w", name, err))
			continue
		}
		says := "is refreshed again."
		switch {
		case suspend && (token.Status.ExpiresAt == nil || !token.Status.ExpiresAt.After(p.clock.Now())):
			says = "is suspended. It has no valid token."
		case suspend:
			says = "is suspended. Its token expires " + doctor.When(token.Status.ExpiresAt, p.clock.Now()) + "."
		}
		fmt.Fprintf(p.Out, "SFMCToken %s/%s %s\n", token.Namespace, name, says)
	}
	return errors.Join(failed...)
}
