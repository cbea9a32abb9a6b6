package controller

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// slow is a cache or an API server that answers late.
type slow struct {
	client.Client
	late  time.Duration
	reads int
}

func (s *slow) Get(ctx context.Context, _ client.ObjectKey, _ client.Object, _ ...client.GetOption) error {
	s.reads++
	select {
	case <-time.After(s.late):
		return nil
	case <-ctx.Done():
		return fmt.Errorf("failed to wait for cache to catch up: %w", ctx.Err())
	}
}

func TestACacheThatIsBehindIsReadPast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		cache, server := &slow{}, &slow{}
		now := clocktesting.NewFakeClock(time.Now())
		r := &Reconciler{Client: cache, Live: server, Clock: now}
		read := func() time.Duration {
			began := time.Now()
			g.Expect(r.get(t.Context(), types.NamespacedName{}, &corev1.Secret{})).To(Succeed())
			return time.Since(began)
		}
		g.Expect(read()).To(BeZero())
		g.Expect([]int{cache.reads, server.reads}).To(Equal([]int{1, 0}), "a cache that keeps up costs no request")

		cache.late = time.Minute
		g.Expect(read()).To(Equal(cacheWait))
		g.Expect(read()).To(BeZero(), "only the first read waits")
		g.Expect([]int{cache.reads, server.reads}).To(Equal([]int{2, 2}))

		now.Step(cacheDistrust)
		cache.late = cacheWait - 1
		g.Expect(read()).To(Equal(cache.late), "the cache is trusted again")
		g.Expect([]int{cache.reads, server.reads}).To(Equal([]int{3, 2}))
	})
}

func TestAReadThatAShutdownBreaksOffIsNotRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		server := &slow{}
		r := &Reconciler{Client: &slow{late: time.Minute}, Live: server, Clock: clock.RealClock{}}
		ctx, cancel := context.WithTimeout(t.Context(), cacheWait/2)
		defer cancel()
		g.Expect(r.get(ctx, types.NamespacedName{}, &corev1.Secret{})).NotTo(Succeed())
		g.Expect(server.reads).To(BeZero())
	})
}
