package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// namespaces is how many namespaces the SFMCTokens are spread over.
const namespaces = 5

const credentialsName = "sfmc-package" //nolint:gosec // the name of a Secret

func namespaceName(i int) string { return fmt.Sprintf("bench-%d", i%namespaces) }

// keyOf is the name of the SFMCToken of this number.
func keyOf(i int) client.ObjectKey {
	return client.ObjectKey{Namespace: namespaceName(i), Name: tokenName(i)}
}

// theNamespaces are those of all SFMCTokens.
func theNamespaces() []string {
	var names []string
	for i := range namespaces {
		names = append(names, namespaceName(i))
	}
	return names
}

func (b *bench) createNamespaces(ctx context.Context, names []string) error {
	for _, name := range names {
		if err := b.createNamespace(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// createNamespace makes a namespace with the credentials Secret in it.
func (b *bench) createNamespace(ctx context.Context, name string) error {
	pkg := b.installedPackage()
	return errors.Join(
		b.admin.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}),
		b.admin.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: credentialsName},
			StringData: map[string]string{"client_id": pkg.ClientID, "client_secret": pkg.ClientSecret, "auth_base_uri": b.standIn.url},
		}),
	)
}

// createTokens makes the SFMCTokens from one number to another, of so many identities. Those of one identity are in
// all namespaces.
func (b *bench) createTokens(ctx context.Context, from, to, identities int) error {
	return inParallel(ctx, to-from, func(ctx context.Context, i int) error {
		i += from
		account := accountID(i / namespaces % identities)
		if identities > to/namespaces {
			account = accountID(i % identities)
		}
		return b.admin.Create(ctx, harness.Token(namespaceName(i), tokenName(i), credentialsName, account))
	})
}

func tokenName(i int) string { return fmt.Sprintf("token-%04d", i) }

// requestRefresh asks for a new token of an SFMCToken, as a person with kubectl annotate does.
func (b *bench) requestRefresh(ctx context.Context, key client.ObjectKey, value string) error {
	token := &v1alpha1.SFMCToken{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:%q}}}`, v1alpha1.RefreshRequestedAtAnnotation, value)
	return b.admin.Patch(ctx, token, client.RawPatch(types.MergePatchType, []byte(patch)))
}

// inParallel calls do with 0 to n-1, several at a time.
func inParallel(ctx context.Context, n int, do func(context.Context, int) error) error {
	const atOnce = 16
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var workers sync.WaitGroup
	for worker := range atOnce {
		workers.Go(func() {
			for i := worker; i < n && ctx.Err() == nil; i += atOnce {
				if err := do(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// deleteTokens deletes all target Secrets and SFMCTokens, and returns when they are gone. The Secrets go first, so
// that the garbage collector has nothing to do afterwards.
func (b *bench) deleteTokens(ctx context.Context, namespaces []string) error {
	written := client.MatchingLabels{target.ManagedByLabel: target.ManagedByValue}
	for _, name := range namespaces {
		in := client.InNamespace(name)
		if err := b.admin.DeleteAllOf(ctx, &corev1.Secret{}, in, written); err != nil {
			return err
		}
		if err := b.admin.DeleteAllOf(ctx, &v1alpha1.SFMCToken{}, in); err != nil {
			return err
		}
	}
	return poll(ctx, 200*time.Millisecond, func() (bool, error) {
		var secrets corev1.SecretList
		var tokens v1alpha1.SFMCTokenList
		err := errors.Join(b.admin.List(ctx, &secrets, written), b.admin.List(ctx, &tokens))
		return len(secrets.Items)+len(tokens.Items) == 0, err
	})
}

// tokenWatch sees all SFMCTokens as they change.
type tokenWatch struct {
	watch.Interface
	seen map[types.UID]*v1alpha1.SFMCToken
}

func (b *bench) watchTokens(ctx context.Context) (*tokenWatch, error) {
	var tokens v1alpha1.SFMCTokenList
	events, err := b.listAndWatch(ctx, &tokens)
	if err != nil {
		return nil, err
	}
	w := &tokenWatch{Interface: events, seen: map[types.UID]*v1alpha1.SFMCToken{}}
	for i := range tokens.Items {
		w.seen[tokens.Items[i].UID] = &tokens.Items[i]
	}
	return w, nil
}

// listAndWatch lists objects and watches them from then on.
func (b *bench) listAndWatch(ctx context.Context, list client.ObjectList, options ...client.ListOption) (watch.Interface, error) {
	if err := b.admin.List(ctx, list, options...); err != nil {
		return nil, err
	}
	from := &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.GetResourceVersion()}}
	return b.admin.Watch(ctx, list, append(options, from)...)
}

// until waits until a program has done n SFMCTokens and returns when the last one was.
func (w *tokenWatch) until(ctx context.Context, of *child, n int, done func(*v1alpha1.SFMCToken) bool) (time.Time, error) {
	defer w.Stop()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	finished := map[types.UID]bool{}
	for uid, token := range w.seen {
		if done(token) {
			finished[uid] = true
		}
	}
	for len(finished) < n {
		select {
		case <-ctx.Done():
			return time.Time{}, fmt.Errorf("%d of %d SFMCTokens done: %w", len(finished), n, context.Cause(ctx))
		case <-of.Exited():
			return time.Time{}, fmt.Errorf("%s ended with %d of %d SFMCTokens done:\n%s", of.name, len(finished), n, of.lastLog())
		case event, open := <-w.ResultChan():
			token, ok := event.Object.(*v1alpha1.SFMCToken)
			if !open || !ok {
				return time.Time{}, fmt.Errorf("the watch of SFMCTokens ended with %d of %d done: %v", len(finished), n, event.Object)
			}
			if done(token) {
				finished[token.UID] = true
			}
		}
	}
	return time.Now(), nil
}

// awaitTokens waits until a program has done so many SFMCTokens.
func (b *bench) awaitTokens(ctx context.Context, of *child, n int, done func(*v1alpha1.SFMCToken) bool) error {
	tokens, err := b.watchTokens(ctx)
	if err != nil {
		return err
	}
	_, err = tokens.until(ctx, of, n, done)
	return err
}

// holdsLong tells whether an SFMCToken has a token that won't be replaced during a run.
func holdsLong(token *v1alpha1.SFMCToken) bool {
	return token.Status.RefreshAt != nil && time.Until(token.Status.RefreshAt.Time) > longLife/3
}
