package faults

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
)

// glance is how often the observer looks at all Secrets.
const glance = 50 * time.Millisecond

// Reasons why no token can be had, or none written.
const (
	endpointAway   = "the endpoint is away"
	kubernetesAway = "the API server is away"
	operatorAway   = "no operator is running"
)

// observer sees every target Secret through a fault: whether it holds a living token of the right business unit, and,
// if not, whether one could have been had.
type observer struct {
	t       *testing.T
	standIn *sfmctest.Server
	life    time.Duration
	stop    context.CancelFunc
	done    sync.WaitGroup

	mu          sync.Mutex
	began       time.Time
	targets     map[client.ObjectKey]*seen
	impediments map[string]bool
	// since when there is an impediment, or none; and what was among the last ones.
	impededSince, ableSince time.Time
	withoutKubernetes       bool
	withoutEndpoint         bool
	faults                  []time.Duration // how long each lasted of those in which requests failed
	failures                map[string]int  // by identity: most in a row in the last fault
	asked                   []sfmctest.TokenRequest
	probes                  []time.Duration // how long the last writes of this test itself took

	worstOutage, worstGap, worstSlack time.Duration
	broken                            []string
	calls, refused                    int // by readers
}

// seen is a target Secret as it was seen last.
type seen struct {
	identity, account string
	token             string
	served            bool
	badSince          time.Time
	excused           bool // was bad already when the last fault ended
	sawNew            func(token string)
}

func newObserver(t *testing.T, life time.Duration) *observer {
	now := time.Now()
	return &observer{t: t, life: life, began: now, impededSince: now, targets: map[client.ObjectKey]*seen{},
		impediments: map[string]bool{operatorAway: true}, failures: map[string]int{}}
}

// answered is told of each token request.
func (o *observer) answered(request sfmctest.TokenRequest) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = append(o.asked, request)
}

// start begins to watch these namespaces.
func (o *observer) start(ctx context.Context, namespaces []string) {
	ctx, o.stop = context.WithCancel(ctx)
	managed := client.MatchingLabels{target.ManagedByLabel: target.ManagedByValue}
	ours := func(object client.Object) bool { return slices.Contains(namespaces, object.GetNamespace()) }
	o.done.Go(func() {
		follow(ctx, func() client.ObjectList { return &corev1.SecretList{} }, o.listed, func(event watch.Event) {
			if secret, ok := event.Object.(*corev1.Secret); ok && ours(secret) {
				o.saw(secret, event.Type == watch.Deleted)
			}
		}, managed)
	})
	o.done.Go(func() {
		saw := func(object runtime.Object) error {
			if token, ok := object.(*v1alpha1.SFMCToken); ok && ours(token) {
				o.sawStatus(token)
			}
			return nil
		}
		// The API server ends a watch that can't keep up: what it would have shown is in the next list.
		listed := func(list client.ObjectList) { _ = meta.EachListItem(list, saw) }
		follow(ctx, func() client.ObjectList { return &v1alpha1.SFMCTokenList{} }, listed, func(event watch.Event) { _ = saw(event.Object) })
	})
	o.done.Go(func() { every(ctx, glance, o.look) })
	o.done.Go(func() { o.probe(ctx, namespaces[0]) })
	for i := range 4 {
		o.done.Go(func() { o.read(ctx, i) })
	}
}

// end stops the observer.
func (o *observer) end() {
	o.stop()
	o.done.Wait()
}

// every calls a function at an interval until ctx ends.
func every(ctx context.Context, interval time.Duration, call func(now time.Time)) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			call(time.Now())
		}
	}
}

// follow lists and watches until ctx ends, also across times without an API server.
func follow(ctx context.Context, newList func() client.ObjectList, listed func(client.ObjectList), changed func(watch.Event), options ...client.ListOption) {
	every(ctx, 100*time.Millisecond, func(time.Time) {
		list := newList()
		if err := admin.List(ctx, list, options...); err != nil {
			return
		}
		listed(list)
		from := &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: list.GetResourceVersion()}}
		events, err := admin.Watch(ctx, newList(), append(slices.Clone(options), from)...)
		if err != nil {
			return
		}
		defer events.Stop()
		for event := range events.ResultChan() {
			if event.Type == watch.Error {
				return
			}
			changed(event)
		}
	})
}

func (o *observer) listed(list client.ObjectList) {
	secrets, ok := list.(*corev1.SecretList)
	if !ok {
		return
	}
	found := map[client.ObjectKey]bool{}
	for i := range secrets.Items {
		found[client.ObjectKeyFromObject(&secrets.Items[i])] = true
		o.saw(&secrets.Items[i], false)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for key, target := range o.targets {
		if !found[key] {
			target.token = ""
		}
	}
}

func (o *observer) saw(secret *corev1.Secret, gone bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	target := o.targets[client.ObjectKeyFromObject(secret)]
	if target == nil {
		return
	}
	token := string(secret.Data["access_token"])
	if gone {
		token = ""
	}
	if token != target.token && target.sawNew != nil {
		target.sawNew(token)
	}
	target.token = token
}

func (o *observer) sawStatus(token *v1alpha1.SFMCToken) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for key, target := range o.targets {
		if key.Namespace == token.Namespace && key.Name == token.TargetSecretName() {
			o.failures[target.identity] = max(o.failures[target.identity], int(token.Status.ConsecutiveFailures))
		}
	}
}

// impede says that from now on no token can be had or written.
func (o *observer) impede(why string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.impediments) == 0 {
		o.impededSince, o.withoutKubernetes, o.withoutEndpoint = time.Now(), false, false
		clear(o.failures)
	}
	o.withoutKubernetes = o.withoutKubernetes || why == kubernetesAway
	o.withoutEndpoint = o.withoutEndpoint || why != kubernetesAway && why != operatorAway
	o.impediments[why] = true
}

// relieve says that this impediment is over.
func (o *observer) relieve(why string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.impediments[why] {
		return
	}
	delete(o.impediments, why)
	if len(o.impediments) > 0 {
		return
	}
	o.ableSince = time.Now()
	if o.withoutEndpoint {
		o.faults = append(o.faults, o.ableSince.Sub(o.impededSince))
	}
	for _, target := range o.targets {
		target.excused = !target.badSince.IsZero()
	}
}

// look measures how long each Secret has been without a living token of its business unit.
func (o *observer) look(now time.Time) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for key, target := range o.targets {
		account, alive := o.standIn.Check(target.token)
		good := alive && account == target.account
		if good {
			target.served, target.badSince, target.excused = true, time.Time{}, false
			continue
		}
		if !target.served {
			continue // it waits for its first token
		}
		if target.badSince.IsZero() {
			target.badSince = now
		}
		o.worstOutage = max(o.worstOutage, now.Sub(target.badSince))
		if len(o.impediments) == 0 {
			o.measure(key, target, now)
		}
	}
}

// measure is for a Secret that is without a token while one could be had: a gap is what goes beyond the time that the
// design allows until the next attempt.
func (o *observer) measure(key client.ObjectKey, target *seen, now time.Time) {
	allowed := retryWithinLife(o.life)
	switch {
	case o.withoutKubernetes:
		// What Kubernetes refused is tried again by the queue, and how often that was isn't known.
		allowed = retryWithinAfter(o.ableSince.Sub(o.impededSince))
	case target.excused:
		allowed = retryWithin(o.failures[target.identity])
	}
	from := o.ableSince.Add(allowed)
	if target.badSince.After(from) {
		from = target.badSince
	}
	gap, slack := now.Sub(from), o.slack()
	if gap <= 0 {
		return
	}
	if o.worstGap = max(o.worstGap, gap); gap == o.worstGap {
		o.worstSlack = slack
	}
	if gap > slack && len(o.broken) < 10 {
		o.broken = append(o.broken, fmt.Sprintf("%s: %s has had no living token for %s, though one could be had for %s; allowed are %s, and %s for the machine",
			now.Format(time.TimeOnly), key, now.Sub(target.badSince), now.Sub(o.ableSince), allowed, slack))
	}
}

// slack is what the machine needs, not the operator: a second, or a multiple of what a write of this test's own took
// at worst in the last seconds.
func (o *observer) slack() time.Duration {
	return max(time.Second, 8*slices.Max(append(o.probes, 0)))
}

// probe writes an object of its own twice a second, to know how slow the machine is.
func (o *observer) probe(ctx context.Context, namespace string) {
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "probe"}}
	patch := client.RawPatch("application/merge-patch+json", []byte(`{}`))
	if admin.Create(ctx, object) != nil {
		return
	}
	every(ctx, 500*time.Millisecond, func(began time.Time) {
		patch = client.RawPatch(patch.Type(), fmt.Appendf(nil, `{"data":{"at":"%s"}}`, began.Format(time.RFC3339Nano)))
		if admin.Patch(ctx, object, patch) != nil {
			return // the API server is away
		}
		o.mu.Lock()
		defer o.mu.Unlock()
		o.probes = append(o.probes, time.Since(began))
		o.probes = o.probes[max(0, len(o.probes)-40):]
	})
}

// forget forgets what was seen of outages.
func (o *observer) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.worstOutage, o.worstGap, o.broken = 0, 0, nil
}

// outcome is what was seen.
func (o *observer) outcome() (outage, gap, slack time.Duration, broken []string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.worstOutage, o.worstGap, o.worstSlack, slices.Clone(o.broken)
}

// waiting names the Secrets that hold no living token of their business unit now.
func (o *observer) waiting() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	var names []string
	for key, target := range o.targets {
		if account, alive := o.standIn.Check(target.token); !alive || account != target.account {
			names = append(names, key.String())
		}
	}
	slices.Sort(names)
	return names
}
