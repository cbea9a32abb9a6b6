package controller

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/credentials"
	"github.com/sfmctoken/sfmctoken-operator/internal/issuer"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/status"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// arena is where an operator and somebody else write the same target Secret.
type arena struct {
	*WithT
	r       *Reconciler
	server  *apiServer
	clock   *clocktesting.FakeClock
	obj     *v1alpha1.SFMCToken
	desired *token.Token
	version string // of the credentials
	managed []metav1.ManagedFieldsEntry
	lost    error // of each question who it was
	asked   int
	writes  []float64 // of the operator's own, in seconds
	alter   func(*corev1.Secret)
}

// List finds no grant.
func (a *arena) List(context.Context, client.ObjectList, ...client.ListOption) error { return nil }

// Get tells the metadata of the target Secret, as the API server has it.
func (a *arena) Get(_ context.Context, _ client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	a.asked++
	obj.SetManagedFields(a.managed)
	return a.lost
}

// write is the operator's, and what an admission webhook makes of it.
func (a *arena) write(ctx context.Context, obj client.Object) error {
	a.writes = append(a.writes, a.clock.Since(noon).Seconds())
	if a.alter != nil {
		a.alter(obj.(*corev1.Secret))
	}
	return a.server.write(ctx, obj)
}

func newArena(t *testing.T) *arena {
	a := &arena{WithT: NewWithT(t), clock: clocktesting.NewFakeClock(noon), obj: anSFMCToken(),
		desired: aToken("four.part.token.text"), version: "marketing/sfmc-package/uid-2/42"}
	o, server, cache := newObjects(a.WithT)
	a.server = server
	o.live = a
	o.client = arenaClient{Client: cache, arena: a}
	a.r = &Reconciler{objects: o, contests: &contests{}, clock: a.clock}
	return a
}

type arenaClient struct {
	client.Client
	arena *arena
}

func (c arenaClient) Create(ctx context.Context, obj client.Object, _ ...client.CreateOption) error {
	return c.arena.write(ctx, obj)
}

func (c arenaClient) Update(ctx context.Context, obj client.Object, _ ...client.UpdateOption) error {
	return c.arena.write(ctx, obj)
}

func (a *arena) secret() *corev1.Secret {
	found, _ := a.server.objects[nameOf(&corev1.Secret{}, emea)].(*corev1.Secret)
	if found == nil {
		return nil
	}
	return found.DeepCopy()
}

// change is somebody else's.
func (a *arena) change(edit func(*corev1.Secret)) {
	secret := a.secret()
	edit(secret)
	a.Expect(a.server.write(context.Background(), secret)).To(Succeed())
}

func spoil(secret *corev1.Secret) { secret.Data["access_token"] = []byte("garbage") }

func (a *arena) delete() { delete(a.server.objects, nameOf(&corev1.Secret{}, emea)) }

// look is what the operator does when it is woken. It returns when it wants to be woken again, and whether it waits
// without the token.
func (a *arena) look() (again time.Time, isWithout bool) {
	current := target.Target{}
	if secret := a.secret(); secret != nil {
		secret.ManagedFields = nil // as in the cache
		current = target.Of(secret)
	}
	try := &attempt{obj: a.obj, key: emea, current: current, notes: target.Notes{Credentials: a.version}, desired: a.desired}
	c := a.r.contests.of(emea)
	c.waiting = nil
	err := a.r.putRight(context.Background(), try, func(current target.Target) *corev1.Secret {
		return current.Filled(a.obj, a.desired, try.notes, nil)
	})
	failed := problem.Of(err)
	if reported := c.report(a.clock.Now()); reported != nil {
		again = reported.Again
	}
	if failed != nil && failed.Reason == v1alpha1.ReasonRepairDelayed {
		a.Expect(failed.RetryAt).To(Equal(again))
	} else {
		a.Expect(client.IgnoreNotFound(err)).NotTo(HaveOccurred())
	}
	return again, failed != nil
}

func (a *arena) contest() *status.Contest { return a.r.contests.of(emea).report(a.clock.Now()) }

// fight has somebody spoil the target Secret as soon as it is right, looking so often, for so long.
func (a *arena) fight(every, lasts time.Duration, spoil func()) {
	again, _ := a.look()
	for end := a.clock.Now().Add(lasts); a.clock.Now().Before(end); {
		if secret := a.secret(); secret != nil && string(secret.Data["access_token"]) == a.desired.AccessToken {
			spoil()
			again, _ = a.look()
		}
		next := a.clock.Now().Add(every)
		if again.After(a.clock.Now()) && !again.After(next) {
			a.clock.SetTime(again)
			again, _ = a.look()
		}
		a.clock.SetTime(next)
	}
}

func TestAThousandChangesAMinuteAreAnsweredEverMoreSlowly(t *testing.T) {
	for name, spoilt := range map[string]func(*arena) func(){
		"edited":  func(a *arena) func() { return func() { a.change(spoil) } },
		"deleted": func(a *arena) func() { return a.delete },
	} {
		t.Run(name, func(t *testing.T) {
			a := newArena(t)
			a.look()
			a.Expect(a.writes).To(HaveLen(1))
			a.writes = nil
			a.fight(60*time.Millisecond, 5*time.Minute, spoilt(a))
			// Three at once, and then 1, 2, 4, 8, 16, 32, 60, 60 … seconds after the last.
			a.Expect(a.writes).To(HaveExactElements(0., .06, .12, 1.12, 3.12, 7.12, 15.12, 31.12, 63.12, 123.12, 183.12, 243.12))
		})
	}
}

func TestAWriterWhoComesSeldomIsAnsweredAtOnceButNamed(t *testing.T) {
	a := newArena(t)
	a.look()
	a.writes = nil
	a.fight(3*time.Minute, 30*time.Minute, func() { a.change(spoil) })
	a.Expect(a.writes).To(HaveLen(10))
	a.Expect(a.contest()).NotTo(BeNil())
}

func TestChangesAreForgottenAfterTenQuietMinutes(t *testing.T) {
	a := newArena(t)
	a.look()
	spoilt := func() { a.change(spoil) }
	for range 5 {
		for i := range 3 {
			a.writes = nil
			spoilt()
			a.look()
			a.Expect(a.writes).To(HaveLen(1), "change %d", i)
			a.Expect(a.contest()).To(BeNil(), "a person may edit three times")
		}
		a.clock.SetTime(a.clock.Now().Add(quiet))
	}
	a.fight(time.Second, 10*time.Second, spoilt)
	a.Expect(a.contest()).NotTo(BeNil())
	last := a.r.contests.of(emea).changed
	again, _ := a.look()
	for again.Before(last.Add(quiet)) {
		a.clock.SetTime(again)
		again, _ = a.look() // it is put right for the last time
	}
	a.Expect(again).To(Equal(last.Add(quiet)), "it is looked at when the condition is to go")
	a.clock.SetTime(again.Add(-time.Nanosecond))
	a.Expect(a.contest()).NotTo(BeNil())
	a.clock.SetTime(again)
	a.Expect(a.contest()).To(BeNil())
	a.writes = nil
	spoilt()
	a.look()
	a.Expect(a.writes).To(HaveLen(1))
	a.Expect(a.contest()).To(BeNil())
}

func TestWhatTheOperatorItselfHasToWriteNeverWaits(t *testing.T) {
	for name, news := range map[string]func(*arena){
		"a new token":               func(a *arena) { a.desired = aToken(a.desired.AccessToken + "x") },
		"another spec":              func(a *arena) { a.obj.Generation++ },
		"an SFMCToken of that name": func(a *arena) { a.obj.UID += "9" },
	} {
		t.Run(name, func(t *testing.T) {
			a := newArena(t)
			a.look()
			a.fight(time.Second, time.Minute, func() { a.change(spoil) })
			_, isWithout := a.look()
			a.Expect(isWithout).To(BeTrue())
			for range 20 {
				news(a)
				a.writes = nil
				_, isWithout := a.look()
				a.Expect(isWithout).To(BeFalse())
				a.Expect(a.writes).To(HaveLen(1))
				a.change(spoil)
			}
			again, _ := a.look()
			a.Expect(again).To(BeTemporally(">", a.clock.Now()), "it is no way around")
		})
	}
}

func TestWhoAlsoTouchesTheCredentialsAndAsksForTokensIsAnsweredNoSooner(t *testing.T) {
	a := newArena(t)
	a.look()
	a.writes = nil
	a.fight(20*time.Millisecond, time.Minute, func() {
		a.version += "1"
		a.obj.Annotations = map[string]string{v1alpha1.RefreshRequestedAtAnnotation: a.obj.RefreshRequest() + "x"}
		a.change(spoil)
	})
	a.Expect(len(a.writes)).To(BeNumerically("<=", atOnce+6), "1, 2, 4, 8, 16 and 32 s apart")
}

func TestWhatOthersAddIsNoContest(t *testing.T) {
	a := newArena(t)
	a.look()
	for i := range 100 {
		a.change(func(s *corev1.Secret) { s.Annotations["reloader"], s.Labels["cost"] = fmt.Sprint(i), fmt.Sprint(i) })
		a.look()
	}
	a.Expect(a.writes).To(HaveLen(1))
	a.Expect(a.contest()).To(BeNil())
}

func TestATokenThatIsInTheSecretIsReadyWhateverElseWaits(t *testing.T) {
	a := newArena(t)
	a.look()
	for range 3 {
		a.change(func(s *corev1.Secret) { s.Data["extra"] = []byte("x") })
		a.look()
	}
	a.change(func(s *corev1.Secret) { s.Data["extra"] = []byte("x") })
	again, isWithout := a.look()
	a.Expect(again).To(Equal(noon.Add(time.Second)))
	a.Expect(isWithout).To(BeFalse())
	a.change(spoil)
	again, isWithout = a.look()
	a.Expect(again).To(Equal(noon.Add(time.Second)), "it is the same change still")
	a.Expect(isWithout).To(BeTrue())
}

func TestAWriteThatFailsIsNoChange(t *testing.T) {
	a := newArena(t)
	a.look()
	a.change(spoil)
	a.server.err = errors.New("the API server is away")
	for range 10 {
		current := target.Of(a.secret())
		try := &attempt{obj: a.obj, key: emea, current: current, notes: target.Notes{Credentials: a.version}, desired: a.desired}
		a.Expect(a.r.putRight(t.Context(), try, func(current target.Target) *corev1.Secret {
			return current.Filled(a.obj, a.desired, try.notes, nil)
		})).To(MatchError(ContainSubstring("the API server is away")))
	}
	a.Expect(a.contest()).To(BeNil())
	a.server.err = nil
	a.look()
	a.Expect(a.r.contests.of(emea).changes).To(Equal(1))
}

func TestAnAdmissionWebhookThatChangesEveryWriteIsNamed(t *testing.T) {
	a := newArena(t)
	n := 0
	a.alter = func(s *corev1.Secret) { n++; s.Data["injected"] = fmt.Append(nil, n) }
	again, isWithout := a.look()
	a.Expect(isWithout).To(BeFalse(), "the token is in it")
	a.Expect(a.writes).To(HaveLen(1+3), "at once")
	for range 4 {
		a.clock.SetTime(again)
		again, _ = a.look()
	}
	a.Expect(a.writes[4:]).To(Equal([]float64{1, 3, 7, 15}))
	a.Expect(a.contest().Message).To(ContainSubstring(
		`data key "injected" by an admission webhook or policy that changes what this operator writes;`))
	a.Expect(a.asked).To(BeZero(), "the version tells")

	b := newArena(t)
	b.alter = spoil
	_, isWithout = b.look()
	b.Expect(isWithout).To(BeTrue(), "never Ready with a token that isn't there")
}

func entry(manager, second, fields string) metav1.ManagedFieldsEntry {
	at, _ := time.Parse(time.RFC3339, "2026-03-01T12:00:"+second+"Z")
	made := metav1.ManagedFieldsEntry{Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, FieldsV1: &metav1.FieldsV1{}}
	made.FieldsV1.SetRawString(fields)
	if second != "" {
		made.Time = &metav1.Time{Time: at}
	}
	return made
}

func TestWhoChangesWhatIsNamedOnce(t *testing.T) {
	const (
		token = `{"f:data":{".":{},"f:access_token":{}}}`
		label = `{"f:metadata":{"f:labels":{"f:team":{}}}}`
	)
	for name, row := range map[string]struct {
		managed []metav1.ManagedFieldsEntry
		spoil   func(*corev1.Secret) // nil: deleted
		says    string
	}{
		"who owns the key":                {[]metav1.ManagedFieldsEntry{entry("a", "30", label), entry("b", "01", token)}, spoil, `data key "access_token" by the field manager "b";`},
		"the last of several":             {[]metav1.ManagedFieldsEntry{entry("a", "02", token), entry("b", "03", token), entry("c", "01", token), entry("d", "", token)}, spoil, `by the field manager "b";`},
		"rather than the operator":        {[]metav1.ManagedFieldsEntry{entry("a", "01", token), entry(fieldOwner, "09", token)}, spoil, `by the field manager "a";`},
		"rather than the operator before": {[]metav1.ManagedFieldsEntry{entry(fieldOwner, "09", token), entry("a", "01", token)}, spoil, `by the field manager "a";`},
		"another operator":                {[]metav1.ManagedFieldsEntry{entry(fieldOwner, "01", token)}, spoil, `by another sfmctoken-operator, or an admission webhook or policy;`},
		"nobody who is recorded":          {[]metav1.ManagedFieldsEntry{entry("a", "01", label), {Manager: "b"}, entry("c", "01", `{"f:data":[]}`)}, spoil, `by somebody whom only Kubernetes' audit log can name;`},
		"a key that was added":            {[]metav1.ManagedFieldsEntry{entry("a", "01", `{"f:data":{"f:extra":{}}}`)}, func(s *corev1.Secret) { s.Data["extra"] = []byte("hush") }, `data key "extra" by the field manager "a";`},
		"a label":                         {[]metav1.ManagedFieldsEntry{entry("a", "01", `{"f:metadata":{"f:labels":{"f:app.kubernetes.io/managed-by":{}}}}`)}, func(s *corev1.Secret) { s.Labels[target.ManagedByLabel] = "Helm" }, `label "app.kubernetes.io/managed-by" by the field manager "a";`},
		"owner references":                {[]metav1.ManagedFieldsEntry{entry("a", "01", `{"f:metadata":{"f:ownerReferences":{"k:{\"uid\":\"x\"}":{}}}}`)}, func(s *corev1.Secret) { s.OwnerReferences[0].Name = "x" }, `owner references by the field manager "a";`},
		"everything":                      {nil, func(s *corev1.Secret) { s.Data = nil }, `data key "access_token", data key "account_id", data key "expires_at", 2 more by somebody`},
		"deleted":                         {nil, nil, `it is deleted, Kubernetes' audit log can tell by whom;`},
	} {
		t.Run(name, func(t *testing.T) {
			a := newArena(t)
			a.look()
			a.managed = row.managed
			for range 4 {
				if row.spoil == nil {
					a.delete()
				} else {
					a.change(row.spoil)
				}
				a.look()
			}
			a.Expect(a.contest().Message).To(HavePrefix("Secret journeys-emea is changed again and again: "))
			a.Expect(a.contest().Message).To(ContainSubstring(row.says))
			a.Expect(a.contest().Message).NotTo(Or(ContainSubstring("garbage"), ContainSubstring("hush"), ContainSubstring("four.part")))
			a.look()
			a.Expect(a.asked).To(BeNumerically("<=", 1))
		})
	}
}

func TestWhoItIsIsAskedAgainIfItCouldNotBe(t *testing.T) {
	a := newArena(t)
	a.look()
	a.lost = errors.New("the API server is away")
	a.managed = []metav1.ManagedFieldsEntry{entry("a", "01", `{"f:data":{"f:access_token":{}}}`)}
	a.fight(time.Second, 10*time.Second, func() { a.change(spoil) })
	a.Expect(a.contest().Message).To(ContainSubstring("by somebody whom only"))
	a.lost = nil
	a.fight(time.Second, 10*time.Second, func() { a.change(spoil) })
	a.Expect(a.contest().Message).To(ContainSubstring(`by the field manager "a"`))
}

func TestOfContestsNothingIsKeptOfSFMCTokensThatAreGone(t *testing.T) {
	a := newArena(t)
	a.look()
	a.fight(time.Millisecond, time.Minute, func() { a.change(spoil) })
	kept := 0
	count := func(any, any) bool { kept++; return true }
	a.r.contests.byName.Range(count)
	a.Expect(kept).To(Equal(1), "one for each SFMCToken, however often its target was changed")
	a.r.contests.forget(emea)
	a.r.contests.byName.Range(count)
	a.Expect(kept).To(Equal(1))
	a.Expect(a.contest()).To(BeNil())
}

func TestWhatWaitsToBePutRightIsNotReadAgainUnlessThereIsMoreToDo(t *testing.T) {
	var a *arena
	const without, with = true, false // the token in the Secret
	later := func(by time.Duration) func() { return func() { a.clock.SetTime(a.clock.Now().Add(by)) } }
	for name, row := range map[string]struct {
		isWithout bool
		happens   func()
		waits     bool
	}{
		"another change":                     {without, func() { a.change(spoil) }, true},
		"another change soon":                {with, later(restLook - 1), true},
		"another change, which may spoil it": {with, later(restLook), false},
		"shortly before its time":            {without, later(2*time.Second - 1), true},
		"its time":                           {without, later(2 * time.Second), false},
		"another spec":                       {without, func() { a.obj.Generation++ }, false},
		"a refresh request":                  {without, func() { a.obj.Annotations = map[string]string{v1alpha1.RefreshRequestedAtAnnotation: "now"} }, false},
		"no credentials":                     {without, func() { a.lost = notFound(emea) }, false},
		"no access":                          {without, func() { a.obj.Spec.CredentialsSecretRef.Namespace = "foreign" }, false},
		"a token that is due":                {without, func() { a.desired.ExpiresAt = a.desired.IssuedAt.Add(time.Second) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			a = newArena(t)
			a.r.credentials = &credentials.Store{Live: a, Metadata: a, Cache: a}
			a.r.issuer = issuer.New(issuer.Options{Clock: a.clock})
			version, err := a.r.credentials.Of(a.obj).Version(t.Context())
			a.Expect(err).NotTo(HaveOccurred())
			a.version = version
			a.look()
			spoilt := spoil
			if !row.isWithout {
				spoilt = func(s *corev1.Secret) { s.Data["extra"] = []byte("x") }
			}
			for range 5 {
				a.change(spoilt)
				again, _ := a.look()
				if a.r.contests.of(emea).changes == 4 {
					a.clock.SetTime(again)
					a.look()
				}
			}
			c := a.r.contests.of(emea)
			c.waiting.credentials = version
			a.Expect(c.waiting.until).To(Equal(noon.Add(3 * time.Second)))
			if row.isWithout {
				c.waiting.result.Err = errors.New("the token is gone")
			}
			row.happens()
			a.Expect(a.r.isWaiting(t.Context(), a.obj, c, a.clock.Now())).To(Equal(row.waits))
			if row.waits {
				a.Expect(a.r.ensure(t.Context(), a.obj)).To(Equal(c.waiting.result))
			}
		})
	}
}
