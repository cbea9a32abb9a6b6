package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/lru"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
)

// apiServer has objects, by their nameOf, and takes only writes to what is newest.
type apiServer struct {
	client.Reader
	objects map[string]client.Object
	version int
	reads   []string
	err     error // of each write
}

func (s *apiServer) Get(ctx context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	s.reads = append(s.reads, key.String())
	switch found := s.objects[nameOf(obj, key)]; {
	case ctx.Err() != nil:
		return ctx.Err()
	case found == nil:
		return notFound(key)
	default:
		return decode(found, obj)
	}
}

func notFound(key client.ObjectKey) error {
	return apierrors.NewNotFound(schema.GroupResource{Resource: "objects"}, key.Name)
}

// decode does what controller-runtime's client does: nothing of the object stays that is absent in the answer.
func decode(answer, into client.Object) error {
	encoded, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	reflect.ValueOf(into).Elem().SetZero()
	return json.Unmarshal(encoded, into)
}

// write takes an object, of the version that it has; of none if it isn't there yet.
func (s *apiServer) write(ctx context.Context, obj client.Object) error {
	key := client.ObjectKeyFromObject(obj)
	found, resource := s.objects[nameOf(obj, key)], schema.GroupResource{Resource: "objects"}
	switch {
	case ctx.Err() != nil || s.err != nil:
		return errors.Join(ctx.Err(), s.err)
	case found == nil && obj.GetResourceVersion() != "":
		return notFound(key)
	case found != nil && obj.GetResourceVersion() == "":
		return apierrors.NewAlreadyExists(resource, key.Name)
	case found != nil && found.GetResourceVersion() != obj.GetResourceVersion():
		return apierrors.NewConflict(resource, key.Name, errors.New("the object has been modified"))
	}
	s.version++
	obj.SetResourceVersion(strconv.Itoa(s.version))
	obj.SetManagedFields([]metav1.ManagedFieldsEntry{{Manager: "somebody"}})
	s.objects[nameOf(obj, key)] = obj.DeepCopyObject().(client.Object)
	return nil
}

// lagging is a client whose cache shows what is newest only when it is told to.
type lagging struct {
	client.Client
	server *apiServer
	cached map[string]client.Object
	err    error // of each read
}

func (l *lagging) Get(_ context.Context, key client.ObjectKey, obj client.Object, _ ...client.GetOption) error {
	switch found := l.cached[nameOf(obj, key)]; {
	case l.err != nil:
		return l.err
	case found == nil:
		return notFound(key)
	default:
		reflect.ValueOf(obj).Elem().Set(reflect.ValueOf(found.DeepCopyObject()).Elem())
		return nil
	}
}

func (l *lagging) Create(ctx context.Context, obj client.Object, _ ...client.CreateOption) error {
	return l.server.write(ctx, obj)
}

func (l *lagging) Update(ctx context.Context, obj client.Object, _ ...client.UpdateOption) error {
	return l.server.write(ctx, obj)
}

func (l *lagging) Status() client.SubResourceWriter { return statusWriter{server: l.server} }

type statusWriter struct {
	client.SubResourceWriter
	server *apiServer
}

func (w statusWriter) Patch(
	ctx context.Context, obj client.Object, _ client.Patch, _ ...client.SubResourcePatchOption,
) error {
	return w.server.write(ctx, obj)
}

// show has the cache come up with objects.
func (l *lagging) show(objs ...client.Object) {
	for _, obj := range objs {
		name := nameOf(obj, client.ObjectKeyFromObject(obj))
		delete(l.cached, name)
		if found := l.server.objects[name]; found != nil {
			shown := found.DeepCopyObject().(client.Object)
			_, _ = keep(shown)
			l.cached[name] = shown
		}
	}
}

// newObjects are on an API server and a cache that both have these.
func newObjects(g *WithT, objs ...client.Object) (*objects, *apiServer, *lagging) {
	server := &apiServer{objects: map[string]client.Object{}}
	cache := &lagging{server: server, cached: map[string]client.Object{}}
	for _, obj := range objs {
		g.Expect(server.write(context.Background(), obj)).To(Succeed())
		obj.SetManagedFields(nil)
	}
	cache.show(objs...)
	return &objects{client: cache, live: server, newer: lru.New(maxNewer)}, server, cache
}

// put writes a Secret of whose owner nothing is to be changed.
func (o *objects) put(ctx context.Context, current, desired *corev1.Secret) error {
	denied, err := o.writeSecret(ctx, current, desired)
	return errors.Join(denied, err)
}

func aSecret(name string) *corev1.Secret {
	record := map[string]string{"sfmctoken.dev/issued": `{"owner":"journeys","seal":"x"}`} // so it is kept whole
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "marketing", Name: name, Annotations: record},
		Type: corev1.SecretTypeOpaque, Data: map[string][]byte{"generation": []byte("0")}}
}

// edited is a Secret as somebody wants it.
func edited(secret *corev1.Secret, generation string) *corev1.Secret {
	edited := secret.DeepCopy()
	edited.Data["generation"] = []byte(generation)
	return edited
}

// read is a Secret as it is known.
func read(g *WithT, o *objects, secret *corev1.Secret) *corev1.Secret {
	got := &corev1.Secret{}
	g.Expect(o.get(context.Background(), client.ObjectKeyFromObject(secret), got)).To(Succeed())
	return got
}

// generation is what is known of a Secret.
func generation(g *WithT, o *objects, secret *corev1.Secret) string {
	return string(read(g, o, secret).Data["generation"])
}

func TestACacheThatKeepsUpCostsNoRequest(t *testing.T) {
	g := NewWithT(t)
	secret := aSecret("journeys")
	o, server, cache := newObjects(g, secret)
	g.Expect(read(g, o, secret)).To(Equal(secret))
	next := edited(secret, "1")
	g.Expect(o.put(t.Context(), secret, next)).To(Succeed())
	cache.show(secret)
	for range 3 {
		g.Expect(generation(g, o, secret)).To(Equal("1"))
	}
	g.Expect(o.get(t.Context(), client.ObjectKey{Name: "none"}, &corev1.Secret{})).To(
		MatchError(apierrors.IsNotFound, "NotFound"))
	g.Expect(server.reads).To(BeEmpty())
}

func TestWhatWasWrittenIsKnownBeforeTheCacheShowsIt(t *testing.T) {
	g := NewWithT(t)
	secret, obj := aSecret("journeys"), anSFMCToken()
	o, server, _ := newObjects(g, secret, obj)
	next := edited(secret, "1")
	g.Expect(o.put(t.Context(), secret, next)).To(Succeed())
	after := obj.DeepCopy()
	after.Status.AccountID = "510004567"
	g.Expect(o.patchStatus(t.Context(), obj, after)).To(Succeed())

	got := read(g, o, secret)
	next.ManagedFields = nil
	g.Expect(got).To(Equal(next), "without what the cache hasn't, either")
	got.Data["generation"] = []byte("spoiled")
	g.Expect(generation(g, o, secret)).To(Equal("1"), "each reader has a copy")
	var known v1alpha1.SFMCToken
	g.Expect(o.get(t.Context(), client.ObjectKeyFromObject(obj), &known)).To(Succeed())
	g.Expect(known.Status).To(Equal(after.Status))
	g.Expect(known.ResourceVersion).To(Equal(after.ResourceVersion))
	g.Expect(o.put(t.Context(), next, edited(read(g, o, secret), "2"))).To(Succeed(), "it can be written again")
	g.Expect(generation(g, o, secret)).To(Equal("2"))
	g.Expect(server.reads).To(BeEmpty())
}

func TestWhatTheCacheShowsIsRememberedNoMore(t *testing.T) {
	for _, later := range []bool{false, true} {
		t.Run(fmt.Sprintf("with a later write of somebody else: %v", later), func(t *testing.T) {
			g := NewWithT(t)
			secret := aSecret("journeys")
			o, server, cache := newObjects(g, secret)
			want := edited(secret, "1")
			g.Expect(o.put(t.Context(), secret, want)).To(Succeed())
			g.Expect(o.newer.Len()).To(Equal(1))
			if later {
				want = edited(want, "2")
				g.Expect(server.write(t.Context(), want)).To(Succeed())
			}
			cache.show(secret)
			g.Expect(generation(g, o, secret)).To(Equal(string(want.Data["generation"])))
			g.Expect(o.newer.Len()).To(BeZero())
			g.Expect(server.reads).To(BeEmpty())
		})
	}
}

func TestAVersionThatCantBeComparedLeavesTheCacheRight(t *testing.T) {
	g := NewWithT(t)
	secret := aSecret("journeys")
	o, server, cache := newObjects(g, secret)
	g.Expect(o.put(t.Context(), secret, edited(secret, "1"))).To(Succeed())
	cache.cached[nameOf(secret, client.ObjectKeyFromObject(secret))].SetResourceVersion("a")
	g.Expect(generation(g, o, secret)).To(Equal("0"))
	g.Expect(server.reads).To(BeEmpty())
}

func TestAfterARefusedWriteTheObjectIsReadOnceAndNoOtherIs(t *testing.T) {
	g := NewWithT(t)
	secret, other := aSecret("journeys"), aSecret("other")
	o, server, cache := newObjects(g, secret, other)
	g.Expect(server.write(t.Context(), edited(secret, "of somebody else"))).To(Succeed())

	err := o.put(t.Context(), secret, edited(secret, "1"))
	g.Expect(err).To(And(MatchError(HavePrefix(`write the target Secret "journeys": `)), beSuperseded(time.Second)))
	for range 3 {
		g.Expect(generation(g, o, secret)).To(Equal("of somebody else"))
		g.Expect(generation(g, o, other)).To(Equal("0"))
	}
	g.Expect(server.reads).To(Equal([]string{"marketing/journeys"}))
	again := edited(read(g, o, secret), "2")
	g.Expect(o.put(t.Context(), secret, again)).To(Succeed(), "the next write is of what is newest")
	cache.show(secret)
	g.Expect(generation(g, o, secret)).To(Equal("2"))
	g.Expect(server.reads).To(HaveLen(1))
	g.Expect(o.newer.Len()).To(BeZero())
}

// beSuperseded matches an error that says nothing of the object, after which it is reconciled again then.
func beSuperseded(after time.Duration) OmegaMatcher {
	return WithTransform(problem.Of, And(
		HaveField("Actor", problem.Nobody),
		WithTransform(func(p *problem.Problem) time.Duration { return p.StandingDelay(0) }, Equal(after))))
}

func TestWhatIsThereAlreadyAndNotInTheCacheIsReadAndNoOtherIs(t *testing.T) {
	g := NewWithT(t)
	secret, other := aSecret("journeys"), aSecret("other")
	o, server, cache := newObjects(g, other)
	g.Expect(server.write(t.Context(), edited(secret, "of somebody else"))).To(Succeed())
	g.Expect(o.put(t.Context(), nil, edited(secret, "1"))).To(beSuperseded(time.Second))
	g.Expect(generation(g, o, secret)).To(Equal("of somebody else"))
	g.Expect(generation(g, o, other)).To(Equal("0"))
	g.Expect(server.reads).To(HaveEach("marketing/journeys"))
	cache.show(secret)
	reads := len(server.reads)
	g.Expect(generation(g, o, secret)).To(Equal("of somebody else"))
	g.Expect(server.reads).To(HaveLen(reads))
}

func TestWhatIsGoneWhenItIsWrittenIsReconciledAgain(t *testing.T) {
	g := NewWithT(t)
	secret := aSecret("journeys")
	o, server, cache := newObjects(g, secret)
	delete(server.objects, nameOf(secret, client.ObjectKeyFromObject(secret)))
	g.Expect(o.put(t.Context(), secret, edited(secret, "1"))).To(beSuperseded(time.Second))
	g.Expect(server.reads).To(HaveLen(1))
	cache.show(secret)
	g.Expect(o.get(t.Context(), client.ObjectKeyFromObject(secret), &corev1.Secret{})).NotTo(Succeed())
	g.Expect(server.reads).To(HaveLen(1))
	g.Expect(o.newer.Len()).To(BeZero())
}

func TestAStatusThatWasRefusedIsNotTakenForWritten(t *testing.T) {
	g := NewWithT(t)
	obj := anSFMCToken()
	o, server, _ := newObjects(g, obj)
	newer := obj.DeepCopy()
	newer.Spec.AccountID = "510009999"
	g.Expect(server.write(t.Context(), newer)).To(Succeed())

	after := obj.DeepCopy()
	after.Status.AccountID = "510004567"
	after.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: metav1.ConditionTrue}}
	after.Annotations = map[string]string{"only": "here"}
	err := o.patchStatus(t.Context(), obj, after)
	g.Expect(err).To(And(MatchError(HavePrefix("write the status: ")), beSuperseded(time.Second)))

	var known v1alpha1.SFMCToken
	g.Expect(o.get(t.Context(), client.ObjectKeyFromObject(obj), &known)).To(Succeed())
	g.Expect(server.reads).To(HaveLen(1))
	g.Expect(known.Spec.AccountID).To(Equal("510009999"))
	g.Expect(known.Status).To(BeZero(), "else it is never written")
	g.Expect(known.Annotations).To(BeEmpty())
}

func TestWhatIsGoneIsNotTakenForThereBecauseItWasWritten(t *testing.T) {
	g := NewWithT(t)
	secret := aSecret("journeys")
	o, server, cache := newObjects(g, secret)
	key := client.ObjectKeyFromObject(secret)
	g.Expect(o.put(t.Context(), secret, edited(secret, "1"))).To(Succeed())
	delete(server.objects, nameOf(secret, key))
	cache.show(secret)
	for range 3 {
		g.Expect(o.get(t.Context(), key, &corev1.Secret{})).To(MatchError(apierrors.IsNotFound, "NotFound"))
	}
	g.Expect(server.reads).To(HaveLen(1), "the API server is asked, and then nobody")
}

func TestANewObjectIsThereBeforeTheCacheShowsIt(t *testing.T) {
	g := NewWithT(t)
	o, server, cache := newObjects(g)
	secret := aSecret("journeys")
	g.Expect(o.put(t.Context(), nil, secret)).To(Succeed())
	g.Expect(generation(g, o, secret)).To(Equal("0"))
	g.Expect(server.reads).To(HaveLen(1), "the cache says that it is gone")
	g.Expect(o.put(t.Context(), secret, edited(secret, "1"))).To(Succeed())
	g.Expect(generation(g, o, secret)).To(Equal("1"))
	cache.show(secret)
	reads := len(server.reads)
	g.Expect(generation(g, o, secret)).To(Equal("1"))
	g.Expect(server.reads).To(HaveLen(reads))
}

func TestOnlySoMuchIsRememberedBesideTheCache(t *testing.T) {
	g := NewWithT(t)
	o, server, _ := newObjects(g)
	var all []*corev1.Secret
	for i := range maxNewer + 10 {
		secret := aSecret(fmt.Sprintf("journeys-%d", i))
		g.Expect(o.put(t.Context(), nil, secret)).To(Succeed())
		all = append(all, secret)
	}
	g.Expect(o.newer.Len()).To(Equal(maxNewer))
	g.Expect(o.get(t.Context(), client.ObjectKeyFromObject(all[9]), &corev1.Secret{})).NotTo(Succeed())
	g.Expect(server.reads).To(BeEmpty(), "what is forgotten is as the cache has it")
	g.Expect(generation(g, o, all[10])).To(Equal("0"))
}

func TestObjectsOfOneNameAndSeveralKindsAreKeptApart(t *testing.T) {
	g := NewWithT(t)
	secret, obj := aSecret("journeys-emea"), anSFMCToken()
	o, _, _ := newObjects(g, secret, obj)
	g.Expect(o.put(t.Context(), secret, edited(secret, "1"))).To(Succeed())
	var known v1alpha1.SFMCToken
	g.Expect(o.get(t.Context(), client.ObjectKeyFromObject(obj), &known)).To(Succeed())
	g.Expect(&known).To(Equal(obj))
}

func TestAReadThatAShutdownBreaksOffIsNotRepeated(t *testing.T) {
	g := NewWithT(t)
	secret := aSecret("journeys")
	o, server, cache := newObjects(g, secret)
	g.Expect(o.put(t.Context(), secret, edited(secret, "1"))).To(Succeed())
	cache.err = context.Canceled
	g.Expect(o.get(t.Context(), client.ObjectKeyFromObject(secret), &corev1.Secret{})).To(MatchError(context.Canceled))
	g.Expect(server.reads).To(BeEmpty())
}

func TestAWriteThatWasBegunIsFinishedDuringAShutdown(t *testing.T) {
	g := NewWithT(t)
	secret, obj := aSecret("journeys"), anSFMCToken()
	o, server, _ := newObjects(g, secret, obj)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g.Expect(o.put(ctx, secret, edited(secret, "1"))).To(Succeed(), "the token in it has been paid for")
	g.Expect(o.patchStatus(ctx, obj, obj.DeepCopy())).To(Succeed())
	g.Expect(generation(g, o, secret)).To(Equal("1"))
	g.Expect(server.version).To(Equal(4))
}

func TestASecretThatIsAsItShouldBeIsLeftAlone(t *testing.T) {
	g := NewWithT(t)
	secret := aSecret("journeys")
	o, server, _ := newObjects(g, secret)
	g.Expect(o.put(t.Context(), secret, secret.DeepCopy())).To(Succeed())
	g.Expect(server.version).To(Equal(1))
}

func TestARefusalOfAWriteMeansWhatTheAPIServerSays(t *testing.T) {
	g := NewWithT(t)
	secret := aSecret("journeys")
	o, server, _ := newObjects(g, secret)
	going := apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "journeys", errors.New("it is going"))
	going.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
	server.err = going
	g.Expect(o.put(t.Context(), nil, aSecret("another"))).To(beSuperseded(0), "there is nothing to wait for")

	server.err = errors.New("etcd is gone")
	err := o.put(t.Context(), secret, edited(secret, "1"))
	g.Expect(problem.Of(err).Reason).To(Equal(v1alpha1.ReasonKubernetesAPIError))
	g.Expect(err).To(MatchError(server.err))
	g.Expect(generation(g, o, secret)).To(Equal("0"), "it may have been written or not: the cache will show it")
	g.Expect(server.reads).To(BeEmpty())
}

// guarded is an API server where nobody changes the owner of an object who may not delete it.
type guarded struct{ *lagging }

func (l guarded) Update(ctx context.Context, obj client.Object, _ ...client.UpdateOption) error {
	found := l.server.objects[nameOf(obj, client.ObjectKeyFromObject(obj))]
	if !equality.Semantic.DeepEqual(found.GetOwnerReferences(), obj.GetOwnerReferences()) {
		return apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, obj.GetName(),
			errors.New("cannot set an ownerRef on a resource you can't delete: , <nil>"))
	}
	return l.server.write(ctx, obj)
}

func TestWhereTheOwnerMayNotBeChangedAllTheRestIsWritten(t *testing.T) {
	g := NewWithT(t)
	secret := aSecret("journeys")
	o, server, cache := newObjects(g, secret)
	o.client = guarded{cache}
	want := edited(secret, "1")
	want.OwnerReferences = []metav1.OwnerReference{{Name: "another"}}
	denied, err := o.writeSecret(t.Context(), secret, want)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(denied).To(MatchError(ContainSubstring("the verb delete on Secrets")))
	is := server.objects[nameOf(secret, client.ObjectKeyFromObject(secret))].(*corev1.Secret)
	g.Expect(is.Data).To(HaveKeyWithValue("generation", []byte("1")))
	g.Expect(is.OwnerReferences).To(BeEmpty())
	g.Expect(want.ResourceVersion).To(Equal(is.ResourceVersion), "it is as it came back")

	version := is.ResourceVersion
	again := want.DeepCopy()
	again.OwnerReferences = []metav1.OwnerReference{{Name: "another"}}
	denied, err = o.writeSecret(t.Context(), want, again)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(denied).To(HaveOccurred())
	is = server.objects[nameOf(secret, client.ObjectKeyFromObject(secret))].(*corev1.Secret)
	g.Expect(is.ResourceVersion).To(Equal(version), "there is nothing else to write")
}

func TestARefusalForGoodIsForAPersonToMendAndNamesTheRemedy(t *testing.T) {
	secrets := schema.GroupResource{Resource: "secrets"}
	invalid := func(detail string) error {
		return apierrors.NewInvalid(schema.GroupKind{Kind: "Secret"}, "journeys",
			field.ErrorList{field.Invalid(field.NewPath("data"), "", detail)})
	}
	for name, row := range map[string]struct {
		err    error
		remedy string // empty if it passes by itself
	}{
		"a quota":        {apierrors.NewForbidden(secrets, "journeys", errors.New("exceeded quota: small, used: count/secrets=1")), "raise this ResourceQuota"},
		"immutable":      {invalid("field is immutable when `immutable` is set"), "delete this Secret"},
		"too large":      {apierrors.NewRequestEntityTooLargeError("limit is 3145728"), "make what spec.target.template adds smaller"},
		"too long":       {apierrors.NewInvalid(schema.GroupKind{Kind: "Secret"}, "journeys", field.ErrorList{field.TooLong(field.NewPath("data"), "", 1048576)}), "make what spec.target.template adds smaller"},
		"a policy":       {apierrors.NewForbidden(secrets, "journeys", errors.New("ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no")), "have the ValidatingAdmissionPolicy allow it"},
		"a webhook":      {apierrors.NewBadRequest(`admission webhook "w" denied the request: no`), "have the admission webhook allow it"},
		"a right":        {apierrors.NewForbidden(secrets, "journeys", errors.New(`User "system:serviceaccount:a:b" cannot update resource "secrets"`)), "give the operator's ServiceAccount this right"},
		"an absent hook": {apierrors.NewInternalError(errors.New(`failed calling webhook "w"`)), ""},
		"too many":       {apierrors.NewTooManyRequests("later", 1), ""},
		"a timeout":      {apierrors.NewTimeoutError("later", 1), ""},
		"no answer":      {errors.New("connection refused"), ""},
		"gone":           {apierrors.NewUnauthorized("who?"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			err := refused(fmt.Errorf("write it: %w", row.err))
			if row.remedy == "" {
				g.Expect(problem.Of(err)).To(HaveField("Reason", v1alpha1.ReasonKubernetesAPIError))
				return
			}
			g.Expect(problem.Of(err)).To(And(HaveField("Reason", v1alpha1.ReasonWriteRefused), HaveField("Actor", problem.Person)))
			g.Expect(err).To(MatchError(And(HavePrefix("write it: "), ContainSubstring("; "+row.remedy))))
		})
	}
}
