package controller

import (
	"context"
	"errors"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

const (
	// cacheWait is how long a read waits for the cache to show this process's own writes. It takes milliseconds, unless
	// the watches are broken: after an outage of the API server client-go renews them up to a minute late.
	cacheWait = 500 * time.Millisecond
	// cacheDistrust is how long the API server is read instead after that.
	cacheDistrust = 10 * time.Second
)

// get reads an object as this process wrote it last: from the cache, or from the API server while the cache is behind.
func (r *Reconciler) get(ctx context.Context, key types.NamespacedName, obj client.Object) error {
	if behind := r.behind.Load(); behind != nil && r.Clock.Since(*behind) < cacheDistrust {
		return r.Live.Get(ctx, key, obj)
	}
	waiting, cancel := context.WithTimeout(ctx, cacheWait)
	defer cancel()
	err := r.Client.Get(waiting, key, obj)
	if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		r.distrustCache()
		return r.Live.Get(ctx, key, obj)
	}
	return err
}

// distrustCache has objects read from the API server for a while. A write that the API server refused, because the object
// had changed, shows that the cache is behind too: with caches for several namespaces a read doesn't wait for the one whose
// watch is broken, and would find the same old object until that is renewed.
func (r *Reconciler) distrustCache() {
	now := r.Clock.Now()
	r.behind.Store(&now)
}
