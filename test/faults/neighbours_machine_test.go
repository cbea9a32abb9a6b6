package faults

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// machine knows how slow the machine was, and when: how long the least took that the operator does at once, with nobody
// in its way. That is done by this test itself, one after the other: an SFMCToken is changed, and a watcher of all of
// them is shown that; a Secret is read and written, and a watcher of all Secrets is shown that. What waits in the API
// server for its turn, the operator's requests and what it is shown, waits there for this test, too.
type machine struct {
	mu     sync.Mutex
	rounds []span // without a gap between them
	away   []span // when no operator ran
}

type span struct{ from, to time.Time }

// overlap is how long a span lies in another.
func (s span) overlap(of span) time.Duration {
	from, to := s.from, s.to
	if of.from.After(from) {
		from = of.from
	}
	if of.to.Before(to) {
		to = of.to
	}
	return max(0, to.Sub(from))
}

// run measures until ctx ends.
func (m *machine) run(ctx context.Context, namespace string) {
	token, secret := harness.Token(namespace, "machine", "nothing", account(0)), &corev1.Secret{}
	token.Spec.Suspend = true
	secret.Namespace, secret.Name = namespace, "machine-measures"
	for _, object := range []client.Object{token, secret} {
		if client.IgnoreAlreadyExists(admin.Create(ctx, object)) != nil {
			return // so that nothing is allowed
		}
	}
	tokens := shown(ctx, v1alpha1.GroupVersion.WithKind("SFMCTokenList"), client.ObjectKeyFromObject(token))
	secrets := shown(ctx, corev1.SchemeGroupVersion.WithKind("SecretList"), client.ObjectKeyFromObject(secret))
	last := time.Now()
	every(ctx, glance, func(time.Time) {
		if !touch(ctx, token, tokens) || admin.Get(ctx, client.ObjectKeyFromObject(secret), secret) != nil || !touch(ctx, secret, secrets) {
			return // what it took counts with the next one
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.rounds = append(m.rounds, span{last, time.Now()})
		last = time.Now()
	})
}

// shown watches the metadata of all objects of a kind, and tells which versions of one of them it was shown.
func shown(ctx context.Context, kind schema.GroupVersionKind, key client.ObjectKey) <-chan string {
	versions := make(chan string)
	look := func(object runtime.Object) error {
		if object, ok := object.(client.Object); ok && client.ObjectKeyFromObject(object) == key {
			select {
			case versions <- object.GetResourceVersion():
			case <-ctx.Done():
			}
		}
		return nil
	}
	newList := func() client.ObjectList {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(kind)
		return list
	}
	go follow(ctx, newList, func(list client.ObjectList) { _ = meta.EachListItem(list, look) },
		func(event watch.Event) { _ = look(event.Object) })
	return versions
}

// touch changes an object, and waits until a watcher was shown that.
func touch(ctx context.Context, object client.Object, versions <-chan string) bool {
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"touched":"%s"}}}`, time.Now().Format(time.RFC3339Nano))
	if admin.Patch(ctx, object, client.RawPatch("application/merge-patch+json", patch)) != nil {
		return false
	}
	for {
		select {
		case version := <-versions:
			if order, err := resourceversion.CompareResourceVersion(version, object.GetResourceVersion()); err == nil && order >= 0 {
				return true
			}
		case <-ctx.Done():
			return false
		}
	}
}

// excuse says that no operator ran since a time.
func (m *machine) excuse(since time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = append(m.away, span{since, time.Now()})
}

// allowance is what the machine is allowed for something that was to be done at once, and was done later: twice the
// slowest of the rounds meanwhile, and the time without an operator.
func (m *machine) allowance(during span) (allowed time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, round := range m.rounds {
		if round.overlap(during) > 0 {
			allowed = max(allowed, 2*(round.to.Sub(round.from)-glance))
		}
	}
	for _, away := range m.away {
		allowed += away.overlap(during)
	}
	return allowed
}
