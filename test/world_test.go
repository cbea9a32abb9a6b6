package test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// world is one test's namespace, tenant, clock and operator.
type world struct {
	*WithT
	t       *testing.T
	ctx     context.Context
	ns      string
	pkg     sfmctest.Package
	sfmc    *sfmctest.Server
	clock   *clocktesting.FakeClock
	running *harness.Operator
	logs    *logs
}

// logs is what the operator logged.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// patience bounds every wait; it decides nothing, since what is waited for has to come.
const patience = 3 * time.Minute

// newWorld makes a namespace with the credentials Secret "sfmc-package", and starts an operator.
func newWorld(t *testing.T, changes ...func(*sfmctest.Options)) *world {
	w := (&world{pkg: harness.Package(), logs: &logs{}}).in(t)
	w.clock = clocktesting.NewFakeClock(time.Now().Truncate(time.Second))
	options := sfmctest.Options{Clock: w.clock, Packages: []sfmctest.Package{w.pkg}}
	for _, change := range changes {
		change(&options)
	}
	w.sfmc = sfmctest.Start(t, options)
	w.ns = w.namespace()
	w.create(harness.CredentialsSecret(w.ns, "sfmc-package", w.sfmc, w.pkg))
	w.startOperator()
	t.Cleanup(func() {
		w.stopOperator()
		if t.Failed() {
			t.Logf("the operator's log:\n%s", w.logs)
		}
	})
	return w
}

// in is the same world for a subtest.
func (w *world) in(t *testing.T) *world {
	within := *w
	within.WithT, within.t, within.ctx = NewWithT(t), t, t.Context()
	within.SetDefaultEventuallyTimeout(patience)
	within.SetDefaultEventuallyPollingInterval(20 * time.Millisecond)
	return &within
}

// namespace makes a namespace that is gone, as far as the next test is concerned, when this one ends.
func (w *world) namespace() string {
	w.t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "marketing-"}}
	w.Expect(admin.Create(w.ctx, namespace)).To(Succeed())
	w.t.Cleanup(func() {
		ctx := context.Background()
		w.Expect(admin.DeleteAllOf(ctx, &v1alpha1.SFMCToken{}, client.InNamespace(namespace.Name))).To(Succeed())
		w.Expect(client.IgnoreNotFound(admin.Delete(ctx, namespace))).To(Succeed()) // one test deletes it itself
	})
	return namespace.Name
}

func (w *world) startOperator() {
	w.t.Helper()
	running, err := harness.StartOperator(operator, w.clock, w.sfmc, w.logs)
	w.Expect(err).NotTo(HaveOccurred())
	w.running = running
}

func (w *world) stopOperator() {
	w.t.Helper()
	w.Expect(w.running.Stop()).To(Succeed())
}

func (w *world) create(objects ...client.Object) {
	w.t.Helper()
	for _, object := range objects {
		w.Expect(admin.Create(w.ctx, object)).To(Succeed())
	}
}

// token creates an SFMCToken for business unit 510004567, changed by the functions.
func (w *world) token(name string, changes ...func(*v1alpha1.SFMCToken)) *v1alpha1.SFMCToken {
	w.t.Helper()
	token := harness.Token(w.ns, name, "sfmc-package", "510004567")
	for _, change := range changes {
		change(token)
	}
	w.create(token)
	return token
}

// change updates an object as a person with kubectl edit does.
func change[T client.Object](w *world, object T, edit func(T)) {
	w.t.Helper()
	w.Eventually(func() error {
		if err := admin.Get(w.ctx, client.ObjectKeyFromObject(object), object); err != nil {
			return err
		}
		edit(object)
		return admin.Update(w.ctx, object)
	}).Should(Succeed())
}

func (w *world) get(name string) *v1alpha1.SFMCToken {
	token := &v1alpha1.SFMCToken{}
	if err := admin.Get(w.ctx, client.ObjectKey{Namespace: w.ns, Name: name}, token); err != nil {
		w.t.Fatalf("read SFMCToken %s: %v", name, err)
	}
	return token
}

// secret reads a Secret; nil if there is none.
func (w *world) secret(name string) *corev1.Secret {
	secret := &corev1.Secret{}
	err := admin.Get(w.ctx, client.ObjectKey{Namespace: w.ns, Name: name}, secret)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		w.t.Fatalf("read Secret %s: %v", name, err)
	}
	return secret
}

// held is the access token in a Secret.
func (w *world) held(name string) string {
	if secret := w.secret(name); secret != nil {
		return string(secret.Data["access_token"])
	}
	return ""
}

// condition is a condition as "Ready=True TokenValid", with "absent" for none.
func condition(token *v1alpha1.SFMCToken, kind string) string {
	found := meta.FindStatusCondition(token.Status.Conditions, kind)
	if found == nil {
		return kind + " absent"
	}
	return fmt.Sprintf("%s=%s %s", kind, found.Status, found.Reason)
}

// says waits until an SFMCToken's conditions are these.
func (w *world) says(name string, conditions ...string) {
	w.t.Helper()
	w.Eventually(func() []string { return w.conditions(name, conditions...) }).Should(Equal(conditions))
}

// conditions reads those conditions of an SFMCToken that are asked for.
func (w *world) conditions(name string, asked ...string) []string {
	token := w.get(name)
	var found []string
	for _, text := range asked {
		kind, _, _ := bytes.Cut([]byte(text), []byte("="))
		kind, _, _ = bytes.Cut(kind, []byte(" "))
		found = append(found, condition(token, string(kind)))
	}
	return found
}

const (
	valid   = "Ready=True TokenValid"
	settled = "Reconciling absent"
	fine    = "Stalled absent"
)

// ready waits until an SFMCToken is Ready and nothing is under way, and returns it.
func (w *world) ready(name string) *v1alpha1.SFMCToken {
	w.t.Helper()
	w.says(name, valid, settled, fine, "RefreshFailing absent", "Suspended absent")
	return w.get(name)
}

// unready is the Ready condition beside one that says why there is no valid token.
func unready(why string) string {
	_, reason, _ := strings.Cut(why, " ")
	return "Ready=False " + reason
}

// setTime sets the clock, once the operator is idle: a look that is under way would take the time of its next one from
// before the leap.
func (w *world) setTime(to time.Time) {
	w.t.Helper()
	w.Eventually(w.running.Idle).Should(BeTrue())
	w.clock.SetTime(to)
}

func (w *world) step(by time.Duration) {
	w.t.Helper()
	w.setTime(w.clock.Now().Add(by))
}

// travel moves the clock in steps until done, at most as far as it may.
func (w *world) travel(atMost, step time.Duration, done func() bool) {
	w.t.Helper()
	w.Eventually(w.running.Travel(w.clock, atMost, step, done)).Should(BeTrue(), "not within %s on the clock", atMost)
}

// alive tells whether Marketing Cloud takes a token for this business unit.
func (w *world) alive(token, accountID string) bool {
	account, alive := w.sfmc.Check(token)
	return alive && account == accountID
}
