package controller

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/issuer"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

const hushSecret = "Zq7hushThisIsTheSecret99"

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// aToken is one that was issued for anSFMCToken, of this text.
func aToken(text string) *token.Token {
	held := &token.Token{
		Token: sfmc.Token{AccessToken: text, TokenType: "Bearer", ExpiresIn: 1079 * time.Second},
		IssuedFor: token.Identify(sfmc.TokenRequest{AuthHost: "auth.example", ClientID: "journeysclientid00000000",
			ClientSecret: hushSecret, AccountID: "510004567"}),
		IssuedAt: noon, ExpiresAt: noon.Add(1079 * time.Second),
	}
	held.Proof = held.Prove(hushSecret)
	return held
}

func anSFMCToken() *v1alpha1.SFMCToken {
	return &v1alpha1.SFMCToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: "marketing", Name: "journeys-emea", UID: "uid-1", Generation: 3},
		Spec: v1alpha1.SFMCTokenSpec{
			CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "sfmc-package"},
			AccountID:            "510004567",
		},
	}
}

// holding is the target Secret of an SFMCToken with a token.
func holding(namespace, name string, held *token.Token) corev1.Secret {
	obj := anSFMCToken()
	obj.Namespace, obj.Name = namespace, name
	return *target.Target{}.Filled(obj, held, target.Notes{}, nil)
}

// index is that of target Secrets by identity.
type index struct {
	client.Reader
	targets []corev1.Secret
	err     error
}

func (i index) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	list.(*corev1.SecretList).Items = i.targets
	return i.err
}

var (
	emea   = types.NamespacedName{Namespace: "marketing", Name: "journeys-emea"}
	apac   = types.NamespacedName{Namespace: "sales", Name: "journeys-apac"}
	asking = types.NamespacedName{Namespace: "marketing", Name: "asking"}
)

// someSharers are in whose index three Secrets hold a token, and one a token that replaces it. It returns their queue,
// too.
func someSharers() (*sharers, *token.Token, queue) {
	old, next := aToken("four.part.token.text"), aToken("the.next.token.text")
	s := &sharers{
		cache: index{targets: []corev1.Secret{
			holding(emea.Namespace, emea.Name, old),
			holding(apac.Namespace, apac.Name, old),
			holding("renewed", "journeys-emea", next),
			holding(asking.Namespace, asking.Name, old),
		}},
		memory: &memory{},
	}
	return s, next, s.newQueue(newFairQueue(2, clock.RealClock{}).start)("test", queueDelay())
}

// waiting are who waits in a queue, first come, first served.
func waiting(q queue) []types.NamespacedName {
	var keys []types.NamespacedName
	for q.Len() > 0 {
		request, _ := q.Get()
		keys = append(keys, request.NamespacedName)
		q.Done(request)
	}
	return keys
}

func TestANewTokenIsToldToAllWhoHoldAnotherOne(t *testing.T) {
	g := NewWithT(t)
	s, next, q := someSharers()
	s.answer([]issuer.Asker{askerOf(asking)}, next)
	told := waiting(q)
	g.Expect(told).To(ConsistOf(asking, emea, apac))
	for _, key := range told {
		g.Expect(s.memory.takeCall(key)).To(BeTrue(), "it knows why when it is woken")
	}
	g.Expect(s.memory.takeCall(types.NamespacedName{Namespace: "renewed", Name: "journeys-emea"})).To(BeFalse())
}

func TestWhoAskedAloneWritesItsSecretAndItsStatusInOneGo(t *testing.T) {
	g := NewWithT(t)
	s, next, q := someSharers()
	s.cache = index{}
	s.answer([]issuer.Asker{askerOf(asking)}, next)
	g.Expect(waiting(q)).To(Equal([]types.NamespacedName{asking}))
	g.Expect(s.memory.takeCall(asking)).To(BeFalse())
}

func TestAFailureIsToldToThoseWhoAskedAlone(t *testing.T) {
	g := NewWithT(t)
	s, _, q := someSharers()
	s.answer([]issuer.Asker{askerOf(asking), askerOf(emea)}, nil)
	g.Expect(waiting(q)).To(Equal([]types.NamespacedName{asking, emea}))
	g.Expect(s.memory.takeCall(asking)).To(BeFalse(), "there is no Secret to write")
}

func TestWhoseSecretWasEditedIsToldToo(t *testing.T) {
	g := NewWithT(t)
	s, next, q := someSharers()
	spoiled := holding(emea.Namespace, emea.Name, next)
	spoiled.Data["token_type"] = []byte("x")
	s.cache = index{targets: []corev1.Secret{spoiled}}
	s.answer(nil, next)
	g.Expect(waiting(q)).To(Equal([]types.NamespacedName{emea}))
}

func TestTellingDoesNotHoldUpAShutdown(t *testing.T) {
	g := NewWithT(t)
	s, next, q := someSharers()
	q.ShutDown()
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.answer(nil, next)
	}()
	g.Eventually(done).Should(BeClosed(), "else the token that was just issued is never written")
}

func TestAnIndexThatCantBeReadHoldsNobodyUp(t *testing.T) {
	g := NewWithT(t)
	s, next, _ := someSharers()
	s.cache = index{err: errors.New("the cache is gone")}
	s.answer(nil, next)
	_, err := s.recall(t.Context(), next.Identity)
	g.Expect(err).To(MatchError("list the target Secrets: the cache is gone"))
}

func TestTheTokensOfAnIdentityAreRecalledFromSoundSecrets(t *testing.T) {
	g := NewWithT(t)
	s, next, _ := someSharers()
	spoiled := holding("marketing", "spoiled", aToken("a.planted.token.text"))
	spoiled.Data["access_token"] = []byte("another")
	emptied := *target.Target{}.Emptied(anSFMCToken())
	s.cache = index{targets: []corev1.Secret{spoiled, emptied, holding(emea.Namespace, emea.Name, next)}}
	recalled, err := s.recall(t.Context(), next.Identity)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(recalled).To(Equal([]*token.Token{next}))
}

func TestTheDelayDoublesAsLongAsTheSameActorHasToMendIt(t *testing.T) {
	g := NewWithT(t)
	var m memory
	now := noon
	waits := func(reasons ...v1alpha1.ProblemReason) []float64 {
		var waits []float64
		for _, reason := range reasons {
			failed := problem.New(reason, errors.New("something is wrong"))
			delay := failed.StandingDelay(m.stood(emea, failed, now))
			waits = append(waits, delay.Minutes())
			now = now.Add(delay)
		}
		return waits
	}
	const conflict, denied = v1alpha1.ReasonTargetConflict, v1alpha1.ReasonAccessDenied
	g.Expect(waits(conflict, conflict, denied, denied, conflict, conflict)).To(
		Equal([]float64{2, 4, 8, 10, 10, 10}), "another reason, the same person")
	const missing = v1alpha1.ReasonCredentialsNotFound
	g.Expect(waits(missing, missing, missing)).To(HaveExactElements(
		BeNumerically("~", 1./60), BeNumerically("~", 2./60), BeNumerically("~", 4./60)))
	g.Expect(waits(conflict, conflict)).To(Equal([]float64{2, 4}), "somebody else had to act meanwhile")
	g.Expect(m.stood(emea, nil, now)).To(BeZero())
	g.Expect(waits(conflict, conflict)).To(Equal([]float64{2, 4}), "all was well meanwhile")
	g.Expect(m.stood(apac, problem.New(conflict, errors.New("x")), now)).To(BeZero(), "each has its own time")
	m.forget(emea)
	g.Expect(waits(conflict)).To(Equal([]float64{2}))
}

func TestCredentialsAreKnownOnlyForTheSpecAndTheVersionThatTheyWereReadFor(t *testing.T) {
	g := NewWithT(t)
	var m memory
	obj := anSFMCToken()
	const version = "marketing/sfmc-package/uid-2/42"
	g.Expect(m.readingOf(emea, obj, version)).To(BeNil())
	read := &reading{uid: obj.UID, generation: obj.Generation, version: version}
	m.readings.Store(emea, read)
	g.Expect(m.readingOf(emea, obj, version)).To(BeIdenticalTo(read))
	g.Expect(m.readingOf(apac, obj, version)).To(BeNil())
	g.Expect(m.readingOf(emea, obj, "marketing/sfmc-package/uid-2/43")).To(BeNil(), "credentials that have changed")
	for name, edit := range map[string]func(*v1alpha1.SFMCToken){
		"an SFMCToken that was made anew": func(obj *v1alpha1.SFMCToken) { obj.UID = "uid-9" },
		"another spec":                    func(obj *v1alpha1.SFMCToken) { obj.Generation++ },
	} {
		other := anSFMCToken()
		edit(other)
		g.Expect(m.readingOf(emea, other, version)).To(BeNil(), name)
	}
	m.forget(emea)
	g.Expect(m.readingOf(emea, obj, version)).To(BeNil())
}

func TestAnotherOperatorIsToldOfOnceAMinute(t *testing.T) {
	g := NewWithT(t)
	var m memory
	g.Expect(m.tells(noon)).To(BeTrue())
	g.Expect(m.tells(noon.Add(time.Minute - 1))).To(BeFalse())
	g.Expect(m.tells(noon.Add(time.Minute))).To(BeTrue())
}

func TestACallIsAnsweredOnce(t *testing.T) {
	g := NewWithT(t)
	var m memory
	g.Expect(m.takeCall(emea)).To(BeFalse())
	m.call(emea)
	m.call(emea)
	g.Expect(m.takeCall(apac)).To(BeFalse())
	g.Expect(m.takeCall(emea)).To(BeTrue())
	g.Expect(m.takeCall(emea)).To(BeFalse())
	m.call(emea)
	m.forget(emea)
	g.Expect(m.takeCall(emea)).To(BeFalse())
}

func TestOfAnSFMCTokenThatIsGoneNothingIsRemembered(t *testing.T) {
	g := NewWithT(t)
	var m memory
	m.readings.Store(emea, &reading{})
	m.call(emea)
	m.stood(emea, problem.New(v1alpha1.ReasonTargetConflict, errors.New("x")), noon)
	m.call(apac)
	m.forget(emea)
	left := map[any]bool{}
	for _, of := range []*sync.Map{&m.readings, &m.calls, &m.standing} {
		of.Range(func(key, _ any) bool {
			left[key] = true
			return true
		})
	}
	g.Expect(slices.Collect(maps.Keys(left))).To(ConsistOf(apac))
}
