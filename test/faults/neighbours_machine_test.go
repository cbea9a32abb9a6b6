package faults

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// machine knows how slow the machine was, and when: how long small writes of this test's own took. What the operator
// does at once is a request or two, on the same machine and to the same API server.
type machine struct {
	mu     sync.Mutex
	writes []span // without a gap between them
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
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, GenerateName: "machine-"}}
	if admin.Create(ctx, object) != nil {
		return
	}
	last := time.Now()
	every(ctx, glance, func(now time.Time) {
		patch := fmt.Appendf(nil, `{"data":{"at":"%s"}}`, now.Format(time.RFC3339Nano))
		if admin.Patch(ctx, object, client.RawPatch("application/merge-patch+json", patch)) != nil {
			return // what it took counts with the next one
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.writes = append(m.writes, span{last, time.Now()})
		last = time.Now()
	})
}

// excuse says that no operator ran since a time.
func (m *machine) excuse(since time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.away = append(m.away, span{since, time.Now()})
}

// allowance is what the machine is allowed for something that was to be done at once, and was done later: twice the
// slowest of the writes meanwhile, and the time without an operator.
func (m *machine) allowance(during span) (allowed time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, write := range m.writes {
		if write.overlap(during) > 0 {
			allowed = max(allowed, 2*(write.to.Sub(write.from)-glance))
		}
	}
	for _, away := range m.away {
		allowed += away.overlap(during)
	}
	return allowed
}
