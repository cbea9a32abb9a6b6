package controller

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/utils/clock"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/metrics"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

func item(namespace string, number int) reconcile.Request {
	request := reconcile.Request{}
	request.Namespace, request.Name = namespace, fmt.Sprint(number)
	return request
}

// started returns a queue for so many workers.
func started(workers int) (*fairQueue, queue) {
	fair := newFairQueue(workers, clock.RealClock{})
	return fair, fair.start("", queueDelay())
}

// takes returns the next items, which stay under way.
func takes(q queue, count int) []reconcile.Request {
	items := make([]reconcile.Request, count)
	for i := range items {
		items[i], _ = q.Get()
	}
	return items
}

// takeAll returns what a worker does that never has to wait, at least one item.
func takeAll(q queue, fair *fairQueue) []reconcile.Request {
	var items []reconcile.Request
	for fair.turns.next.Len() > 0 {
		items = append(items, takes(q, 1)...)
	}
	return items
}

func TestNamespacesShareTheWorkers(t *testing.T) {
	g := NewWithT(t)
	_, q := started(32)
	defer q.ShutDown()
	for i := range 16000 {
		q.Add(item("flood", i))
	}
	q.Add(item("small", 0))
	q.Add(item("other", 0))
	q.Add(item("other", 1))
	g.Expect(takes(q, 6)).To(Equal([]reconcile.Request{
		item("flood", 0), item("small", 0), item("other", 0), item("flood", 1), item("other", 1), item("flood", 2),
	}))
	for i := range 2 {
		q.Add(item("small", i+1))
	}
	g.Expect(takes(q, 3)).To(Equal([]reconcile.Request{item("small", 1), item("small", 2), item("flood", 3)}),
		"as many of each are worked on before it is the longer's turn")
	q.Done(item("flood", 0))
	q.Add(item("small", 3))
	g.Expect(takes(q, 2)).To(Equal([]reconcile.Request{item("flood", 4), item("small", 3)}), "each done makes room for one")
}

func TestANamespaceWhoseItemsTakeLongLeavesOthersTheirPace(t *testing.T) {
	g := NewWithT(t)
	_, q := started(8)
	defer q.ShutDown()
	for i := range 100 {
		for _, slow := range []string{"slow", "slower", "slowest"} {
			q.Add(item(slow, i))
		}
	}
	underWay := takes(q, 8)
	for i := range 40 {
		q.Add(item("quick", i))
	}
	q.Done(underWay[0])
	for i := range 40 {
		g.Expect(takes(q, 1)).To(Equal([]reconcile.Request{item("quick", i)}), "one worker is enough for it, and it has that")
		q.Done(item("quick", i))
	}
	g.Expect(takes(q, 1)).To(Equal([]reconcile.Request{item("slowest", 2)}), "who has fewest under way, and waited longest")
}

func TestOneNamespaceOccupiesHalfOfTheWorkers(t *testing.T) {
	for workers, most := range map[int]int{1: 1, 2: 1, 3: 2, 32: 16} {
		g := NewWithT(t)
		fair, q := started(workers)
		for i := range 100 {
			q.Add(item("flood", i))
		}
		stuck := takeAll(q, fair)
		g.Expect(stuck).To(HaveLen(most), "of %d workers", workers)
		for i := range 10 {
			q.Add(item("small", i))
			g.Expect(takes(q, 1)).To(Equal([]reconcile.Request{item("small", i)}), "although the flood was first")
			q.Done(item("small", i))
		}
		q.Add(stuck[0])
		q.Done(stuck[0])
		g.Expect(takeAll(q, fair)).To(Equal([]reconcile.Request{item("flood", most)}), "one ends, the next one comes")
		g.Expect(q.Len()).To(Equal(100-most), "all that wait, and the one that comes again")
		q.ShutDown()
	}
}

func TestIdleWorkersWakeWhenTheyMayWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		_, q := started(4)
		got := make(chan reconcile.Request, 10)
		ended := make(chan bool, 4)
		for range 4 {
			go func() {
				for {
					next, isDown := q.Get()
					if isDown {
						ended <- true
						return
					}
					got <- next
				}
			}()
		}
		synctest.Wait()
		for i := range 4 {
			q.Add(item("flood", i))
		}
		synctest.Wait()
		g.Expect(got).To(HaveLen(2), "two workers wait for others")
		q.Done(<-got)
		synctest.Wait()
		g.Expect(got).To(HaveLen(2), "one of them was woken")
		q.Add(item("small", 0))
		synctest.Wait()
		g.Expect(got).To(HaveLen(3))
		q.AddAfter(item("other", 0), time.Minute)
		time.Sleep(time.Minute)
		synctest.Wait()
		g.Expect(got).To(HaveLen(4))

		q.ShutDown()
		synctest.Wait()
		g.Expect(ended).To(BeEmpty(), "an item waits yet")
		q.Add(item("small", 1))
		for range 5 {
			q.Done(<-got)
			synctest.Wait()
		}
		g.Expect(got).To(BeEmpty())
		g.Expect(ended).To(HaveLen(4), "nobody is left behind")
	})
}

func TestAQueueIsDrainedOfWhatIsUnderWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		_, q := started(4)
		for i := range 3 {
			q.Add(item("flood", i))
		}
		underWay := takes(q, 2)
		isDrained, isDown := false, false
		go func() {
			q.ShutDownWithDrain()
			isDrained = true
		}()
		synctest.Wait()
		q.Done(underWay[0])
		last, _ := q.Get()
		g.Expect(last).To(Equal(item("flood", 2)), "what waits is worked on")
		go func() { _, isDown = q.Get() }()
		synctest.Wait()
		g.Expect([]bool{isDrained, isDown}).To(Equal([]bool{false, true}))
		q.Done(underWay[1])
		synctest.Wait()
		g.Expect(isDrained).To(BeFalse())
		q.Done(last)
		synctest.Wait()
		g.Expect(isDrained).To(BeTrue())
		q.ShutDown()
	})
}

// A model of the queue: what waits in each namespace, what is under way, and what of that comes again.
func TestTheQueueKeepsItsRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := NewWithT(t)
		workers := rapid.IntRange(1, 6).Draw(t, "workers")
		fair, q := started(workers)
		defer q.ShutDown()
		waiting, again := map[string][]reconcile.Request{}, map[reconcile.Request]bool{}
		var underWay []reconcile.Request
		passed := map[string]int{} // turns of others since a namespace of which no more are under way could have had one
		ofNamespace := func(namespace string) int {
			count := 0
			for _, one := range underWay {
				if one.Namespace == namespace {
					count++
				}
			}
			return count
		}
		mayGo := func(namespace string) bool {
			return len(waiting[namespace]) > 0 && ofNamespace(namespace) < (workers+1)/2
		}
		namespaces := []string{"a", "b", "c"}
		anyItem := rapid.Custom(func(t *rapid.T) reconcile.Request {
			return item(rapid.SampledFrom(namespaces).Draw(t, "namespace"), rapid.IntRange(0, 4).Draw(t, "number"))
		})
		get := func() {
			next, isDown := q.Get()
			g.Expect(isDown).To(BeFalse())
			g.Expect(mayGo(next.Namespace)).To(BeTrue())
			g.Expect(next).To(Equal(waiting[next.Namespace][0]), "first in, first out")
			for _, namespace := range namespaces {
				switch {
				case namespace == next.Namespace || !mayGo(namespace):
					passed[namespace] = 0
				case ofNamespace(namespace) == ofNamespace(next.Namespace):
					passed[namespace]++
				default:
					g.Expect(ofNamespace(next.Namespace)).To(BeNumerically("<", ofNamespace(namespace)), "who has fewest goes first")
				}
				g.Expect(passed[namespace]).To(BeNumerically("<", len(namespaces)), "every namespace has its turn")
			}
			waiting[next.Namespace] = waiting[next.Namespace][1:]
			g.Expect(underWay).NotTo(ContainElement(next), "an item is worked on once at a time")
			underWay = append(underWay, next)
		}
		done := func(i int) {
			ended := underWay[i]
			underWay = slices.Delete(underWay, i, i+1)
			q.Done(ended)
			if again[ended] {
				delete(again, ended)
				waiting[ended.Namespace] = append(waiting[ended.Namespace], ended)
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				added := anyItem.Draw(t, "item")
				q.Add(added)
				if slices.Contains(underWay, added) {
					again[added] = true
				} else if !slices.Contains(waiting[added.Namespace], added) {
					waiting[added.Namespace] = append(waiting[added.Namespace], added)
				}
			},
			"get": func(*rapid.T) {
				if !slices.ContainsFunc(namespaces, mayGo) || len(underWay) == workers {
					return // a worker would have to wait
				}
				get()
			},
			"done": func(t *rapid.T) {
				if len(underWay) == 0 {
					return // nothing is under way
				}
				done(rapid.IntRange(0, len(underWay)-1).Draw(t, "which"))
			},
			"": func(*rapid.T) {
				count, busy := 0, 0
				for _, namespace := range namespaces {
					count += len(waiting[namespace])
					if len(waiting[namespace])+ofNamespace(namespace) > 0 {
						busy++
					}
				}
				g.Expect(q.Len()).To(Equal(count))
				g.Expect(fair.turns.next.Len() > 0).To(Equal(slices.ContainsFunc(namespaces, mayGo)))
				g.Expect(fair.turns.namespaces).To(HaveLen(busy), "nothing is kept of a namespace without items")
				g.Expect(fair.turns.isIdle()).To(Equal(busy == 0))
			},
		})
		for len(underWay)+q.Len() > 0 { // all of it comes through
			if slices.ContainsFunc(namespaces, mayGo) {
				get()
			} else {
				done(0)
			}
		}
		g.Expect(fair.turns.namespaces).To(BeEmpty())
	})
}

func TestTheDepthCountsAllThatWait(t *testing.T) {
	g := NewWithT(t)
	fair := newFairQueue(4, clock.RealClock{})
	q := fair.start("depth", queueDelay())
	defer q.ShutDown()
	depth := func() (sum float64) {
		families, err := metrics.Registry.Gather()
		g.Expect(err).NotTo(HaveOccurred())
		for _, family := range families {
			for _, metric := range family.GetMetric() {
				if family.GetName() == "workqueue_depth" && metric.GetLabel()[0].GetValue() == "depth" {
					sum += metric.GetGauge().GetValue()
				}
			}
		}
		return sum
	}
	for i := range 10 {
		q.Add(item("flood", i))
	}
	g.Expect(depth()).To(Equal(10.))
	underWay := takeAll(q, fair)
	g.Expect(underWay).To(HaveLen(2))
	g.Expect(depth()).To(Equal(8.), "also those that may not be worked on yet")
	q.Add(underWay[0])
	g.Expect(depth()).To(Equal(9.), "and what comes again")
}
