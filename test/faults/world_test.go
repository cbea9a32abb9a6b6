package faults

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// patience bounds every wait; it decides nothing, since what is waited for has to come.
const patience = 3 * time.Minute

// shape is how large a world is.
type shape struct {
	life       time.Duration
	namespaces int
	packages   int // each with accounts business units
	accounts   int
	each       int // SFMCTokens of one identity in one namespace
	mode       func(*sfmctest.Mode)
	everywhere bool // the operator works in all namespaces, not the world's alone
}

// tens is 36 SFMCTokens of 6 identities in 3 namespaces, whose tokens live ten seconds.
var tens = shape{life: 10 * time.Second, namespaces: 3, packages: 2, accounts: 3, each: 2}

// identities is how many tokens there are.
func (s shape) identities() int { return s.packages * s.accounts }

// world is one test's tenant, proxy, namespaces, observer and operator.
type world struct {
	*WithT
	t     *testing.T
	ctx   context.Context
	shape shape

	standIn    *sfmctest.Server
	proxy      *proxy
	packages   []sfmctest.Package
	namespaces []string
	foreign    map[client.ObjectKey]string // resource versions of Secrets that aren't the operator's
	observer   *observer
	log        *harness.Log
	kubernetes *rest.Config // by which the operator reaches the API server

	mu       sync.Mutex
	replicas []*harness.Supervisor
	working  []bool
}

// newWorld makes all but the operator.
func newWorld(t *testing.T, shape shape) *world {
	w := &world{WithT: NewWithT(t), t: t, ctx: t.Context(), shape: shape, foreign: map[client.ObjectKey]string{}, log: &harness.Log{}, kubernetes: operator}
	w.SetDefaultEventuallyTimeout(patience)
	w.SetDefaultEventuallyPollingInterval(50 * time.Millisecond)
	for i := range shape.packages {
		pkg := harness.Package()
		pkg.ClientID = fmt.Sprintf("client-id-of-package-%d", i)
		pkg.AccountIDs = nil
		for j := range shape.accounts {
			pkg.AccountIDs = append(pkg.AccountIDs, fmt.Sprintf("5100%05d", j+1))
		}
		w.packages = append(w.packages, pkg)
	}
	w.observer = newObserver(t, shape.life)
	w.standIn = sfmctest.Start(t, sfmctest.Options{
		ExpiresIn: shape.life, Life: shape.life, Packages: w.packages, OnTokenRequest: w.observer.answered,
	})
	if shape.mode != nil {
		w.standIn.ChangeMode(shape.mode)
	}
	w.observer.standIn = w.standIn
	w.proxy = startProxy(t, w.standIn.Host())
	t.Cleanup(w.end)
	for range shape.namespaces {
		w.addNamespace()
	}
	w.fill()
	w.observer.start(context.Background(), w.namespaces)
	return w
}

func (w *world) create(object client.Object) {
	w.t.Helper()
	w.Expect(admin.Create(w.ctx, object)).To(Succeed())
}

// addNamespace makes a namespace with credentials and with Secrets that are none of the operator's business: a person's
// at a name that an SFMCToken wants, one that poses as the operator's, and one that another object owns.
func (w *world) addNamespace() {
	w.t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "marketing-"}}
	w.create(namespace)
	w.namespaces = append(w.namespaces, namespace.Name)
	for i, pkg := range w.packages {
		credentials := harness.CredentialsSecret(namespace.Name, fmt.Sprintf("package-%d", i), w.standIn, pkg)
		credentials.StringData["auth_base_uri"] = "https://" + w.proxy.Listen + "/"
		w.create(credentials)
	}
	owner := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: "owner"}}
	w.create(owner)
	secret := func(name string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace.Name, Name: name}, StringData: map[string]string{"access_token": "of somebody else"}}
	}
	posing, owned := secret("posing"), secret("owned")
	posing.Labels = map[string]string{target.ManagedByLabel: target.ManagedByValue}
	owned.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ConfigMap", Name: owner.Name, UID: owner.UID}}
	for _, foreign := range []*corev1.Secret{secret("wanted"), posing, owned} {
		w.create(foreign)
		w.foreign[client.ObjectKeyFromObject(foreign)] = foreign.ResourceVersion
	}
	w.create(harness.Token(namespace.Name, "wanted", "package-0", w.packages[0].AccountIDs[0]))
}

// fill makes the SFMCTokens.
func (w *world) fill() {
	w.t.Helper()
	var work []func() error
	for _, namespace := range w.namespaces {
		for p, pkg := range w.packages {
			for _, account := range pkg.AccountIDs {
				for i := range w.shape.each {
					token := harness.Token(namespace, fmt.Sprintf("token-%d-%s-%d", p, account, i), fmt.Sprintf("package-%d", p), account)
					w.observer.targets[client.ObjectKeyFromObject(token)] = &seen{identity: pkg.ClientID + "/" + account, account: account}
					work = append(work, func() error { return admin.Create(w.ctx, token) })
				}
			}
		}
	}
	w.Expect(concurrently(work)).To(Succeed())
}

// concurrently does work with 16 goroutines.
func concurrently(work []func() error) error {
	queue := make(chan func() error, len(work))
	for _, do := range work {
		queue <- do
	}
	close(queue)
	var workers sync.WaitGroup
	failed := make(chan error, len(work))
	for range 16 {
		workers.Go(func() {
			for do := range queue {
				if err := do(); err != nil {
					failed <- err
				}
			}
		})
	}
	workers.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return nil
	}
}

// startOperator starts the operator's binary. Called again, it starts another replica.
func (w *world) startOperator(flags ...string) *harness.Supervisor {
	w.t.Helper()
	return w.startReplica(w.log, flags...)
}

func (w *world) startReplica(log *harness.Log, flags ...string) *harness.Supervisor {
	w.t.Helper()
	w.mu.Lock()
	replica := len(w.working)
	w.working = append(w.working, false)
	w.mu.Unlock()
	if !w.shape.everywhere {
		flags = append([]string{"--watch-namespaces", strings.Join(w.namespaces, ",")}, flags...)
	}
	supervisor, err := harness.Supervise(harness.ProcessOptions{
		Config: w.kubernetes, Dir: w.t.TempDir(), AuthHosts: []string{w.proxy.Listen}, CA: w.standIn.CACert(), Log: log,
		Flags: flags,
	}, func(working bool) { w.replicaWorks(replica, working) })
	w.Expect(err).NotTo(HaveOccurred())
	w.replicas = append(w.replicas, supervisor)
	return supervisor
}

func (w *world) replicaWorks(replica int, working bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.working[replica] = working
	if slices.Contains(w.working, true) {
		w.observer.relieve(operatorAway)
	} else {
		w.observer.impede(operatorAway)
	}
}

// leader is the replica that works; nil if none does.
func (w *world) leader() *harness.Supervisor {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, working := range w.working {
		if working {
			return w.replicas[i]
		}
	}
	return nil
}

// served waits until all Secrets hold living tokens.
func (w *world) served() {
	w.t.Helper()
	w.Eventually(w.observer.waiting).Should(BeEmpty())
}

// pass lets real time pass, for a fault to do its work.
func (w *world) pass(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.ctx.Done():
	}
}

// fault lets something be wrong for a while.
func (w *world) fault(why string, begin func(), lasting time.Duration, end func()) {
	w.t.Helper()
	w.observer.impede(why)
	begin()
	w.pass(lasting)
	end()
	w.observer.relieve(why)
}

// end takes the world down. The operator goes first, so that nothing it does disturbs the next test.
func (w *world) end() {
	if w.observer.stop != nil {
		w.observer.end()
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, replica := range w.replicas {
		w.Expect(replica.Stop(ctx)).To(Succeed())
	}
	if w.t.Failed() {
		w.t.Logf("the operator's last lines:\n%s", w.log)
	}
	for _, namespace := range w.namespaces {
		removeNamespace(w.WithT, namespace)
	}
}

// removeNamespace waits only for the SFMCTokens: an operator of the next test must not find them.
func removeNamespace(g *WithT, name string) {
	ctx := context.Background()
	in := client.InNamespace(name)
	g.Expect(client.IgnoreNotFound(admin.Delete(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}))).To(Succeed())
	g.Expect(client.IgnoreNotFound(admin.DeleteAllOf(ctx, &v1alpha1.SFMCToken{}, in))).To(Succeed())
}

// verdict checks the invariants and adds the test's row to the table.
func (w *world) verdict(fault, times, remark string) {
	w.t.Helper()
	w.served() // nothing is left broken
	outage, gap, slack, broken := w.observer.outcome()
	w.t.Logf("worst gap %s beyond the schedule while the machine was allowed %s", gap, slack)
	asked, allowed, tooMany := w.requests()
	broken = slices.Concat(broken, tooMany, w.changedForeign())
	for _, text := range broken {
		w.t.Error(text)
	}
	w.observer.mu.Lock()
	if remark != "" {
		remark += "; "
	}
	remark += fmt.Sprintf("%d of %d calls of readers refused", w.observer.refused, w.observer.calls)
	w.observer.mu.Unlock()
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }
	table.add(w.t, row{fault: fault, times: times, outage: seconds(outage), gap: seconds(gap), asked: asked, allowed: allowed, remark: remark, broken: len(broken) > 0})
}

// changedForeign names the Secrets of others that were changed.
func (w *world) changedForeign() (changed []string) {
	w.t.Helper()
	for key, version := range w.foreign {
		var secret corev1.Secret
		w.Expect(admin.Get(w.ctx, key, &secret)).To(Succeed())
		if secret.ResourceVersion != version {
			changed = append(changed, fmt.Sprintf("Secret %s, which is not the operator's, was changed", key))
		}
	}
	return changed
}

// starts is how often the operator was started.
func (w *world) starts() int {
	sum := 0
	for _, replica := range w.replicas {
		sum += replica.Starts()
	}
	return sum
}

// requests counts what was asked for and what the design allows, for each identity and altogether: refreshes, the
// attempts that the backoff schedule permits in each fault, and one for each start of the operator, which may have been
// killed while a request was under way.
func (w *world) requests() (asked, allowed int, tooMany []string) {
	o := w.observer
	o.mu.Lock()
	defer o.mu.Unlock()
	each := refreshesAllowed(time.Since(o.began), w.shape.life) + w.starts()
	for _, lasted := range o.faults {
		each += attemptsAllowed(lasted, w.shape.life)
	}
	by := map[string]int{}
	for _, request := range o.asked {
		if request.BrokenOff {
			asked++ // by a reset or a kill: it isn't known for whom
			continue
		}
		by[request.ClientID+"/"+request.AccountID]++
	}
	if len(by) != w.shape.identities() {
		tooMany = append(tooMany, fmt.Sprintf("tokens were asked for %d identities instead of %d: %q", len(by), w.shape.identities(), slices.Sorted(maps.Keys(by))))
	}
	for identity, count := range by {
		if count > each {
			tooMany = append(tooMany, fmt.Sprintf("identity %s: %d requests, allowed are %d", identity, count, each))
		}
		asked += count
	}
	if allowed = each * w.shape.identities(); asked > allowed {
		tooMany = append(tooMany, fmt.Sprintf("%d requests altogether, allowed are %d", asked, allowed))
	}
	return asked, allowed, tooMany
}
