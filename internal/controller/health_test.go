package controller

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/events"
	"k8s.io/utils/clock"
	clocktesting "k8s.io/utils/clock/testing"
	"k8s.io/utils/lru"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/credentials"
	"github.com/sfmctoken/sfmctoken-operator/internal/issuer"
)

func TestWorkersThatGetNowhereAreNoticed(t *testing.T) {
	g := NewWithT(t)
	fake := clocktesting.NewFakeClock(noon)
	fair := newFairQueue(2, fake)
	check := func() error { return fair.check(nil) }
	g.Expect(check()).To(Succeed(), "before it is started")
	q := fair.start("", queueDelay())
	defer q.ShutDown()
	q.Add(item("marketing", 0))
	q.Add(item("marketing", 1))
	fake.Step(time.Hour)
	g.Expect(check()).To(Succeed(), "a replica that stands by has no workers")

	underWay := takes(q, 1)[0]
	fake.Step(maxSilence)
	g.Expect(check()).To(Succeed())
	fake.Step(time.Second)
	g.Expect(check()).To(MatchError("no reconciliation has ended for 5m1s; 1 are under way, and 1 wait"))
	q.Done(underWay)
	g.Expect(check()).To(Succeed())

	underWay = takes(q, 1)[0]
	fake.Step(maxSilence + time.Second)
	g.Expect(check()).NotTo(Succeed(), "what hangs is noticed although nothing waits behind it")
	q.Add(item("sales", 0))
	g.Expect(check()).NotTo(Succeed(), "to have more to do is no progress")
	sales := takes(q, 1)[0]
	g.Expect(check()).NotTo(Succeed(), "nor is to begin something")
	q.Done(sales)
	g.Expect(check()).To(Succeed(), "others get on")
	q.Done(underWay)

	fake.Step(24 * time.Hour)
	g.Expect(check()).To(Succeed(), "there was nothing to do")
	q.Add(item("marketing", 0))
	g.Expect(check()).To(Succeed(), "there is something to do only now")
}

// probed is a manager that knows which checks the liveness probe has.
type probed struct {
	ctrl.Manager
	checks map[string]healthz.Checker
}

func (p probed) AddHealthzCheck(name string, check healthz.Checker) error {
	p.checks[name] = check
	return nil
}

// hanging is a client that has one SFMCToken, and answers reads of its target Secret, or all, when the reader gives up.
type hanging struct {
	client.Client
	obj      *v1alpha1.SFMCToken
	hangsAll bool
	hung     atomic.Int32
}

func (h *hanging) Get(ctx context.Context, _ client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	if into, ok := obj.(*v1alpha1.SFMCToken); ok && !h.hangsAll {
		h.obj.DeepCopyInto(into)
		return nil
	}
	h.hung.Add(1)
	<-ctx.Done()
	return ctx.Err()
}

func (h *hanging) List(context.Context, client.ObjectList, ...client.ListOption) error { return nil }

func (h *hanging) Status() client.SubResourceWriter { return told{obj: h.obj} }

// told takes a status.
type told struct {
	client.SubResourceWriter
	obj *v1alpha1.SFMCToken
}

func (s told) Patch(ctx context.Context, obj client.Object, _ client.Patch, _ ...client.SubResourcePatchOption) error {
	obj.(*v1alpha1.SFMCToken).DeepCopyInto(s.obj)
	return ctx.Err()
}

func TestAReconciliationThatExceedsItsLimitIsRepeated(t *testing.T) {
	for name, hangsAll := range map[string]bool{"before anything is known": true, "on its way": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewWithT(t)
				server := &hanging{obj: anSFMCToken(), hangsAll: hangsAll}
				mgr := probed{checks: map[string]healthz.Checker{}}
				options, err := fairly(mgr, "repeated", 2, clock.RealClock{})
				g.Expect(err).NotTo(HaveOccurred())
				start := options.NewQueue
				options.NewQueue = func(name string, limiter rateLimiter) queue {
					q := start(name, limiter)
					q.Add(reconcile.Request{NamespacedName: emea})
					return q
				}
				options.SkipNameValidation = ptr.To(true)
				options.Reconciler = &Reconciler{
					objects:     &objects{client: server, newer: lru.New(1)},
					credentials: &credentials.Store{Namespaces: []string{emea.Namespace}},
					issuer:      issuer.New(issuer.Options{Clock: clock.RealClock{}}),
					memory:      &memory{},
					contests:    &contests{},
					clock:       clock.RealClock{},
					events:      events.NewFakeRecorder(10),
				}
				hasHung, err := controller.NewUnmanaged("repeated", options)
				g.Expect(err).NotTo(HaveOccurred())
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- hasHung.Start(ctx) }()
				time.Sleep(reconcileTimeout - time.Second)
				synctest.Wait()
				g.Expect(int(server.hung.Load())).To(Equal(1))
				time.Sleep(3 * time.Second)
				synctest.Wait()
				g.Expect(int(server.hung.Load())).To(Equal(2), "after one second, give or take a half")
				time.Sleep(time.Hour)
				synctest.Wait()
				g.Expect(int(server.hung.Load())).To(BeNumerically("~", 45, 15), "again and again")
				g.Expect(mgr.checks["repeated-workers"](nil)).To(Succeed(), "what is given up doesn't hang")

				before := int(server.hung.Load())
				stop()
				g.Expect(<-ended).To(Succeed())
				g.Expect(int(server.hung.Load())).To(Equal(before), "being stopped is no reason to try again")
				said := meta.FindStatusCondition(server.obj.Status.Conditions, v1alpha1.ConditionReconciling)
				g.Expect(said == nil).To(Equal(hangsAll), "people are told what can be told")
			})
		})
	}
}
