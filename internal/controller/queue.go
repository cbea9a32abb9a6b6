package controller

import (
	"cmp"
	"container/heap"
	"sync"
	"time"

	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
)

// reconcileTimeout bounds one reconciliation, so that nothing occupies a worker for ever. Writes that were begun have
// writeTimeout beside it.
const reconcileTimeout = 30 * time.Second

type (
	queue       = workqueue.TypedRateLimitingInterface[reconcile.Request]
	rateLimiter = workqueue.TypedRateLimiter[reconcile.Request]
)

// fairly returns the options of a controller whose queue is fair between namespaces. The liveness probe fails if its
// workers get nowhere.
func fairly(mgr ctrl.Manager, name string, workers int, clock clock.WithTicker) (controller.Options, error) {
	fair := newFairQueue(workers, clock)
	return controller.Options{
		MaxConcurrentReconciles: workers,
		ReconciliationTimeout:   reconcileTimeout,
		RateLimiter:             queueDelay(),
		NewQueue:                fair.start,
	}, mgr.AddHealthzCheck(name+"-workers", fair.check)
}

// fairQueue is client-go's work queue, but that namespaces share the workers, and that one namespace occupies at most
// half of them: whatever a tenant does, others wait for little of it.
type fairQueue struct {
	*workqueue.Typed[reconcile.Request]
	clock clock.WithTicker

	// mu is locked before the queue within locks itself: it guards turns, too.
	mu    sync.Mutex
	ready *sync.Cond // somebody has a turn, or the queue is shutting down
	turns *turns
	pulse pulse
}

func newFairQueue(workers int, clock clock.WithTicker) *fairQueue {
	q := &fairQueue{clock: clock, turns: newTurns((workers + 1) / 2), pulse: pulse{clock: clock}}
	q.ready = sync.NewCond(&q.mu)
	return q
}

// start is controller.Options.NewQueue.
func (q *fairQueue) start(name string, limiter rateLimiter) queue {
	type (
		config   = workqueue.TypedQueueConfig[reconcile.Request]
		delaying = workqueue.TypedDelayingQueueConfig[reconcile.Request]
		limiting = workqueue.TypedRateLimitingQueueConfig[reconcile.Request]
	)
	q.Typed = workqueue.NewTypedWithConfig(config{Name: name, Clock: q.clock, Queue: q.turns})
	delayed := workqueue.NewTypedDelayingQueueWithConfig(delaying{Name: name, Clock: q.clock, Queue: q})
	return workqueue.NewTypedRateLimitingQueueWithConfig(limiter, limiting{DelayingQueue: delayed})
}

// Add implements workqueue.TypedInterface.
func (q *fairQueue) Add(item reconcile.Request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.turns.isIdle() {
		q.pulse.beat()
	}
	q.Typed.Add(item)
	q.wake()
}

// Get implements workqueue.TypedInterface.
func (q *fairQueue) Get() (reconcile.Request, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pulse.begin()
	for q.turns.next.Len() == 0 && (q.turns.Len() > 0 || !q.ShuttingDown()) {
		q.ready.Wait()
	}
	return q.Typed.Get() // at once
}

// Done implements workqueue.TypedInterface.
func (q *fairQueue) Done(item reconcile.Request) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.pulse.beat()
	q.Typed.Done(item)
	q.turns.done(item)
	q.wake()
}

// wake has one more worker go on, since one call of Add or Done gives a turn to one item at most.
func (q *fairQueue) wake() {
	if q.ShuttingDown() {
		q.ready.Broadcast() // those whom nothing is left for must end
	} else if q.turns.next.Len() > 0 {
		q.ready.Signal()
	}
}

// ShutDown implements workqueue.TypedInterface.
func (q *fairQueue) ShutDown() {
	q.Typed.ShutDown()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wake()
}

// ShutDownWithDrain implements workqueue.TypedInterface. Meanwhile each Done wakes all workers.
func (q *fairQueue) ShutDownWithDrain() {
	q.Typed.ShutDownWithDrain()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.wake()
}

// turns are the items that wait, in the order in which they come: first a namespace of which fewest are worked on, of
// those the one that has waited longest, and within a namespace first in, first out. So what is shared is the workers'
// time: a namespace whose items take long gets no more of it than another one that has work. It is the part of
// client-go's queue that holds the items.
type turns struct {
	limit   int // how many items of one namespace may be worked on at once
	waiting int
	working int
	// namespaces are those with items that wait or are worked on.
	namespaces map[string]*namespaceItems
	// next has the namespaces with items that may be worked on now.
	next nextNamespaces
	// given counts the places in next.
	given int
}

type namespaceItems struct {
	waiting workqueue.Queue[reconcile.Request]
	working int
	// place is when it came into next, index where it is in it.
	place, index int
}

func newTurns(limit int) *turns {
	return &turns{limit: limit, namespaces: map[string]*namespaceItems{}}
}

// Touch implements workqueue.Queue: an item that is added again keeps its place.
func (t *turns) Touch(reconcile.Request) {}

// Len implements workqueue.Queue. It counts also items that may not be worked on yet.
func (t *turns) Len() int { return t.waiting }

func (t *turns) isIdle() bool { return t.waiting+t.working == 0 }

// Push implements workqueue.Queue.
func (t *turns) Push(item reconcile.Request) {
	of, found := t.namespaces[item.Namespace]
	if !found {
		of = &namespaceItems{waiting: workqueue.DefaultQueue[reconcile.Request]()}
		t.namespaces[item.Namespace] = of
	}
	of.waiting.Push(item)
	t.waiting++
	if of.waiting.Len() == 1 {
		t.mayGo(of)
	}
}

// Pop implements workqueue.Queue. Somebody must have a turn.
func (t *turns) Pop() reconcile.Request {
	of := heap.Pop(&t.next).(*namespaceItems) //nolint:forcetypeassert // nothing else is in it
	t.waiting--
	t.working++
	of.working++
	item := of.waiting.Pop()
	t.mayGo(of)
	return item
}

// mayGo gives a place to a namespace that has none, if one of its items may be worked on.
func (t *turns) mayGo(of *namespaceItems) {
	if of.waiting.Len() > 0 && of.working < t.limit {
		t.given++
		of.place = t.given
		heap.Push(&t.next, of)
	}
}

// done says that an item is not worked on any more.
func (t *turns) done(item reconcile.Request) {
	of := t.namespaces[item.Namespace]
	t.working--
	of.working--
	switch {
	case of.waiting.Len()+of.working == 0:
		delete(t.namespaces, item.Namespace)
	case of.working == t.limit-1:
		t.mayGo(of)
	case of.waiting.Len() > 0:
		heap.Fix(&t.next, of.index)
	}
}

// nextNamespaces implements heap.Interface.
type nextNamespaces []*namespaceItems

func (n nextNamespaces) Len() int { return len(n) }

func (n nextNamespaces) Less(i, j int) bool {
	return cmp.Or(cmp.Compare(n[i].working, n[j].working), cmp.Compare(n[i].place, n[j].place)) < 0
}

func (n nextNamespaces) Swap(i, j int) {
	n[i], n[j] = n[j], n[i]
	n[i].index, n[j].index = i, j
}

func (n *nextNamespaces) Push(of any) {
	last := of.(*namespaceItems) //nolint:forcetypeassert // nothing else is in it
	last.index = len(*n)
	*n = append(*n, last)
}

func (n *nextNamespaces) Pop() any {
	last := len(*n) - 1
	of := (*n)[last]
	(*n)[last] = nil
	*n = (*n)[:last]
	return of
}

// queueDelay is how long the queue waits after an error. The usual 1,000 s are almost a token's life.
func queueDelay() rateLimiter {
	const first, limit = problem.FirstRetry, problem.MaxRetry
	return jittered{workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](first, limit)}
}

type jittered struct{ rateLimiter }

// When implements workqueue.TypedRateLimiter.
func (j jittered) When(item reconcile.Request) time.Duration {
	return problem.Jitter(j.rateLimiter.When(item))
}
