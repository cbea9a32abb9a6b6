package status

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/target"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// aToken is one that was issued for anSFMCToken at noon.
func aToken() *token.Token {
	return &token.Token{
		Token: sfmc.Token{
			AccessToken: "four.part.token.text", TokenType: "Bearer", GrantedScopes: "email_read journeys_read",
			RESTInstanceURL: "https://rest.example/", SOAPInstanceURL: "https://soap.example/",
			ExpiresIn: 1079 * time.Second,
		},
		IssuedFor: token.Identify(sfmc.TokenRequest{
			AuthHost: "auth.example", ClientID: "journeysclientid00000000", ClientSecret: "Zq7hushThisIsTheSecret99",
			AccountID: "510004567", Scopes: []string{"email_read", "journeys_read"},
		}),
		IssuedAt: noon.Add(123456789), ExpiresAt: noon.Add(123456789 + 1079*time.Second),
	}
}

func anSFMCToken() *v1alpha1.SFMCToken {
	return &v1alpha1.SFMCToken{
		ObjectMeta: metav1.ObjectMeta{Namespace: "marketing", Name: "journeys-emea", UID: "uid-1", Generation: 3},
		Spec: v1alpha1.SFMCTokenSpec{
			CredentialsSecretRef: v1alpha1.CredentialsSecretReference{Name: "sfmc-package"},
			AccountID:            "510004567",
			Scopes:               []v1alpha1.Scope{"journeys_read", "email_read"},
		},
	}
}

// report reports a token, and a problem that has just begun.
func report(obj *v1alpha1.SFMCToken, held *token.Token, err error, now time.Time) Outcome {
	return Report(obj, Result{Token: held, Err: err}, 0, now)
}

func conditionOf(obj *v1alpha1.SFMCToken, kind string) *metav1.Condition {
	return meta.FindStatusCondition(obj.Status.Conditions, kind)
}

func be(status metav1.ConditionStatus, reason string) OmegaMatcher {
	return HaveValue(And(HaveField("Status", status), HaveField("Reason", reason)))
}

// attempted is a failed token request that is repeated in 7 s.
func attempted(reason v1alpha1.ProblemReason, failures int) error {
	kind := map[v1alpha1.ProblemReason]sfmc.Kind{
		v1alpha1.ReasonRequestRefused:      sfmc.Refused,
		v1alpha1.ReasonThrottled:           sfmc.Throttled,
		v1alpha1.ReasonEndpointUnavailable: sfmc.Unavailable,
		v1alpha1.ReasonUnreadableAnswer:    sfmc.Unreadable,
	}[reason]
	failed := problem.New(reason, &sfmc.Error{Kind: kind, StatusCode: 418, Description: "no"})
	failed.Failures, failed.RetryAt = failures, noon.Add(7*time.Second)
	return fmt.Errorf("get a token: %w", failed)
}

// waiting is a token request that was asked for, and is worth telling from then on; now if that is zero.
func waiting(at time.Time) error {
	failed := problem.New(v1alpha1.ReasonWaitingForTurn, errors.New("many tokens are due at once"))
	failed.RetryAt, failed.IsWoken = at, true
	return failed
}

var (
	errEtcdIsGone = errors.New("etcd is gone")
	suspended     = problem.New(v1alpha1.ReasonSuspended, errors.New("spec.suspend is true: no token is asked for"))
	notFound      = problem.New(v1alpha1.ReasonCredentialsNotFound, errors.New("it does not exist"))
	conflict      = target.Conflict(&corev1.Secret{})
)

// trouble is an error, and what is made of it.
type trouble struct {
	err       error
	condition string
	reason    v1alpha1.ProblemReason
	again     time.Duration
	failures  int32
	message   string
}

// stalling is a problem that a person must mend.
func stalling(reason v1alpha1.ProblemReason, text string) trouble {
	return trouble{err: problem.New(reason, errors.New(text)), condition: "Stalled", reason: reason,
		again: 2 * time.Minute, message: text}
}

// failing is a failed token request.
func failing(condition string, reason v1alpha1.ProblemReason, failures int32, message string) trouble {
	return trouble{err: attempted(reason, int(failures)), condition: condition, reason: reason, again: 7 * time.Second,
		failures: failures, message: message}
}

const (
	nextOfOperator = "status 418: no (next attempt at 2026-03-01T12:00:07Z)"
	nextOfPerson   = "status 418: no (next attempt at 2026-03-01T12:00:07Z, " +
		"or as soon as the credentials Secret or this object changes)"
)

// troubles are one error of each kind.
var troubles = map[string]trouble{
	"the target is somebody else's": {err: conflict, condition: "Stalled", reason: v1alpha1.ReasonTargetConflict,
		again: 2 * time.Minute, message: "is left untouched"},
	"no credentials Secret": {err: notFound, condition: "Reconciling", reason: v1alpha1.ReasonCredentialsNotFound,
		again: time.Second, message: "does not exist"},
	"no grant":                  stalling(v1alpha1.ReasonAccessDenied, `namespace "sales" is not granted`),
	"a template is wrong":       stalling(v1alpha1.ReasonTemplateInvalid, "key a, line 3: there is no field .Token"),
	"a key is missing":          stalling(v1alpha1.ReasonCredentialsInvalid, "key client_id is missing"),
	"a host that isn't allowed": stalling(v1alpha1.ReasonHostNotAllowed, "its host"),
	"refused":                   failing("Stalled", v1alpha1.ReasonRequestRefused, 3, nextOfPerson),
	"throttled":                 failing("Reconciling", v1alpha1.ReasonThrottled, 4, nextOfOperator),
	"unavailable":               failing("Reconciling", v1alpha1.ReasonEndpointUnavailable, 5, nextOfOperator),
	"unreadable":                failing("Reconciling", v1alpha1.ReasonUnreadableAnswer, 6, nextOfOperator),
	"Kubernetes": {err: errEtcdIsGone, condition: "Reconciling", reason: v1alpha1.ReasonKubernetesAPIError,
		again: time.Second, message: "etcd is gone"},
	"a write is refused": {err: problem.New(v1alpha1.ReasonWriteRefused, errors.New("exceeded quota")),
		condition: "Stalled", reason: v1alpha1.ReasonWriteRefused, again: 2 * time.Minute, failures: 1,
		message: "exceeded quota"},
}

// jitterOf is by how much the next look may come sooner or later.
func jitterOf(row trouble) time.Duration {
	if row.reason == v1alpha1.ReasonKubernetesAPIError {
		return row.again / 2
	}
	return 0
}

func TestEveryErrorSaysWhoCanMendIt(t *testing.T) {
	for name, row := range troubles {
		t.Run(name, func(t *testing.T) {
			for _, err := range []error{row.err, fmt.Errorf("wrapped: %w", row.err)} {
				g := NewWithT(t)
				obj := anSFMCToken()
				got := report(obj, nil, err, noon)
				g.Expect(obj.Status.Conditions).To(HaveLen(2))
				g.Expect(conditionOf(obj, row.condition)).To(And(
					be(metav1.ConditionTrue, string(row.reason)),
					HaveValue(And(HaveField("Message", And(ContainSubstring(row.message), HavePrefix(err.Error()))),
						HaveField("ObservedGeneration", int64(3))))))
				g.Expect(conditionOf(obj, "Ready")).To(And(be(metav1.ConditionFalse, string(row.reason)),
					HaveValue(HaveField("Message", Equal("Secret journeys-emea holds no token of this SFMCToken: "+err.Error())))))
				g.Expect(got.Again).To(BeNumerically("~", row.again, jitterOf(row)))
				g.Expect(obj.Status.ConsecutiveFailures).To(Equal(row.failures))
				g.Expect(obj.Status.ObservedGeneration).To(Equal(int64(3)))
				g.Expect(got.Silent).To(BeFalse())
			}
		})
	}
}

func TestAFailureDoesNotTakeReadyAwayWhileTheTokenLives(t *testing.T) {
	for name, row := range troubles {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			obj, held := anSFMCToken(), aToken()
			got := report(obj, held, row.err, held.ExpiresAt.Add(-1))
			failing := row.condition
			if failing == "Reconciling" {
				failing = "RefreshFailing"
			}
			g.Expect(conditionOf(obj, "Ready")).To(And(be(metav1.ConditionTrue, "TokenValid"),
				HaveValue(HaveField("Message", HaveSuffix(fmt.Sprintf("; it isn't refreshed now: see the condition %s (%s)", failing, row.reason))))))
			g.Expect(conditionOf(obj, failing)).To(be(metav1.ConditionTrue, string(row.reason)))
			g.Expect(obj.Status.Conditions).To(HaveLen(2))
			g.Expect(got.Again).To(And(BeNumerically(">", 0), BeNumerically("<=", time.Millisecond)),
				"reconciled again when it expires")
			report(obj, held, row.err, held.ExpiresAt)
			g.Expect(conditionOf(obj, "Ready")).To(And(be(metav1.ConditionFalse, string(row.reason)),
				HaveValue(HaveField("Message", Equal("Secret journeys-emea holds a token that has expired: "+row.err.Error())))))
			g.Expect(conditionOf(obj, row.condition)).To(be(metav1.ConditionTrue, string(row.reason)))
			g.Expect(obj.Status.Conditions).To(HaveLen(2))
		})
	}
}

func TestAGoodTokenIsReportedAndReconciledAgainWhenItIsToBeReplaced(t *testing.T) {
	g := NewWithT(t)
	obj, held := anSFMCToken(), aToken()
	obj.Annotations = map[string]string{v1alpha1.RefreshRequestedAtAnnotation: "now"}
	obj.Status.ConsecutiveFailures = 9
	now := held.IssuedAt.Add(time.Second)
	got := report(obj, held, nil, now)
	refreshAt := held.RefreshAt(5 * time.Minute)
	g.Expect(got).To(Equal(Outcome{Again: refreshAt.Sub(now)}))
	at := func(t time.Time) *metav1.Time { return &metav1.Time{Time: t.Truncate(time.Second)} }
	g.Expect(obj.Status).To(Equal(v1alpha1.SFMCTokenStatus{
		ObservedGeneration: 3,
		Conditions: []metav1.Condition{{
			Type: "Ready", Status: "True", ObservedGeneration: 3, Reason: "TokenValid", LastTransitionTime: *at(now),
			Message: "Secret journeys-emea holds a valid token for business unit 510004567",
		}},
		ExpiresAt: at(held.ExpiresAt), RefreshAt: at(refreshAt), LastRefreshAt: at(held.IssuedAt),
		TargetSecretName: "journeys-emea", AccountID: "510004567", GrantedScopes: []string{"email_read", "journeys_read"},
		RESTInstanceURL: "https://rest.example/", SOAPInstanceURL: "https://soap.example/",
		LastHandledRefreshRequest: "now",
	}))
}

func TestATokenForWhatTheSpecNamedBeforeIsNotReady(t *testing.T) {
	type spec = v1alpha1.SFMCTokenSpec
	for name, edit := range map[string]func(*spec){
		"other scopes":            func(s *spec) { s.Scopes = s.Scopes[:1] },
		"all scopes":              func(s *spec) { s.Scopes = nil },
		"another business unit":   func(s *spec) { s.AccountID = "1" },
		"the package's unit":      func(s *spec) { s.AccountID = "" },
		"scopes in another order": func(s *spec) { slices.Reverse(s.Scopes) },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			obj := anSFMCToken()
			edit(&obj.Spec)
			if name == "scopes in another order" {
				report(obj, aToken(), nil, noon.Add(time.Minute))
				g.Expect(conditionOf(obj, "Ready")).To(be(metav1.ConditionTrue, "TokenValid"))
				return
			}
			report(obj, aToken(), waiting(time.Time{}), noon.Add(time.Minute))
			g.Expect(conditionOf(obj, "Ready")).To(be(metav1.ConditionFalse, "TokenOutdated"), "nothing is wrong")
			report(obj, aToken(), attempted(v1alpha1.ReasonThrottled, 1), noon.Add(time.Minute))
			g.Expect(conditionOf(obj, "Ready")).To(be(metav1.ConditionFalse, "Throttled"))
		})
	}
}

func TestWhatTheSecretNoLongerHoldsIsNoLongerReported(t *testing.T) {
	g := NewWithT(t)
	obj := anSFMCToken()
	report(obj, aToken(), nil, noon)
	obj.Spec.AccountID = "1"
	report(obj, nil, attempted(v1alpha1.ReasonRequestRefused, 1), noon)
	conditions := obj.Status.Conditions
	obj.Status.Conditions = nil
	g.Expect(obj.Status).To(Equal(v1alpha1.SFMCTokenStatus{ObservedGeneration: 3, ConsecutiveFailures: 1}))
	g.Expect(conditions).To(HaveLen(2))
	report(obj, aToken(), nil, noon)
	report(obj, aToken(), suspended, noon)
	g.Expect(obj.Status.RefreshAt).NotTo(BeNil())
	obj.Spec.Suspend = true
	report(obj, aToken(), suspended, noon)
	g.Expect(obj.Status.RefreshAt).To(BeNil(), "no refresh is promised")
}

func TestTheTimeOfAConditionIsThatOfItsLastChange(t *testing.T) {
	g := NewWithT(t)
	obj, held := anSFMCToken(), aToken()
	transition := func(kind string) time.Time { return conditionOf(obj, kind).LastTransitionTime.UTC() }
	report(obj, nil, attempted(v1alpha1.ReasonRequestRefused, 1), noon)
	report(obj, nil, attempted(v1alpha1.ReasonRequestRefused, 2), noon.Add(2*time.Minute))
	g.Expect(transition("Stalled")).To(Equal(noon), "still the same")
	report(obj, nil, conflict, noon.Add(3*time.Minute))
	g.Expect(transition("Stalled")).To(Equal(noon), "another reason, the same status")
	report(obj, nil, attempted(v1alpha1.ReasonThrottled, 3), noon.Add(4*time.Minute))
	g.Expect(conditionOf(obj, "Stalled")).To(BeNil())
	g.Expect(transition("Reconciling")).To(Equal(noon.Add(4 * time.Minute)))
	g.Expect(transition("Ready")).To(Equal(noon))
	report(obj, held, nil, noon.Add(5*time.Minute+time.Millisecond))
	g.Expect(transition("Ready")).To(Equal(noon.Add(5*time.Minute)), "whole seconds, as the API keeps them")
	report(obj, held, nil, noon.Add(6*time.Minute))
	g.Expect(transition("Ready")).To(Equal(noon.Add(5 * time.Minute)))
	g.Expect(obj.Status.Conditions).To(HaveLen(1))
}

func TestWhatAPersonMustMendIsLookedAtLessAndLess(t *testing.T) {
	g := NewWithT(t)
	obj, now := anSFMCToken(), noon
	var waits []float64
	for range 7 {
		got := Report(obj, Result{Err: conflict}, now.Sub(noon), now)
		waits = append(waits, got.Again.Minutes())
		now = now.Add(got.Again)
	}
	g.Expect(waits).To(Equal([]float64{2, 4, 8, 10, 10, 10, 10}))
}

func TestLongMessagesAreCutInTheirMiddleBetweenCharacters(t *testing.T) {
	for _, padding := range []string{"", "x", "xx"} {
		g := NewWithT(t)
		obj := anSFMCToken()
		report(obj, nil, errors.New("beginning "+padding+strings.Repeat("→", 1000)+padding+" cause"), noon)
		for _, condition := range obj.Status.Conditions {
			message := condition.Message
			g.Expect(len(message)).To(And(BeNumerically("<=", 1024), BeNumerically(">", 1000)), "an event can have so much")
			g.Expect(utf8.ValidString(message)).To(BeTrue())
			g.Expect(message).To(And(ContainSubstring("beginning "+padding+"→"), HaveSuffix("→"+padding+" cause"),
				ContainSubstring("→ … →")))
		}
	}
}

func TestAFailureCountFitsTheStatus(t *testing.T) {
	g := NewWithT(t)
	obj := anSFMCToken()
	report(obj, nil, attempted(v1alpha1.ReasonEndpointUnavailable, 1<<40), noon)
	g.Expect(obj.Status.ConsecutiveFailures).To(Equal(int32(1 << 30)))
	report(obj, nil, errEtcdIsGone, noon)
	g.Expect(obj.Status.ConsecutiveFailures).To(Equal(int32(1<<30)), "no token was asked for")
}

func TestWaitingForATurnIsToldOnlyIfItMatters(t *testing.T) {
	expired := aToken().ExpiresAt
	for name, row := range map[string]struct {
		held   *token.Token
		before time.Time // of the report before, if any
		now    time.Time
		tell   time.Duration // from now; 0 if that is over
		again  time.Duration
		silent bool
	}{
		"the token is valid": {held: aToken(), now: noon.Add(time.Minute), again: wokenAnyway, silent: true},
		"the token is valid for a while": {held: aToken(), now: expired.Add(-time.Second), tell: 7 * time.Second,
			again: time.Second, silent: true},
		"no token, and a short wait": {now: noon, tell: 1, again: time.Millisecond, silent: true},
		"no token, and a long wait":  {now: noon, again: wokenAnyway},
		"the token has just expired": {held: aToken(), before: noon, now: expired, tell: 7 * time.Second,
			again: 7 * time.Second},
		"that it expired is told already": {held: aToken(), before: expired, now: expired.Add(time.Minute),
			tell: 7 * time.Second, again: 7 * time.Second, silent: true},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			obj := anSFMCToken()
			if !row.before.IsZero() {
				report(obj, row.held, nil, row.before)
			}
			var tell time.Time
			if row.tell > 0 {
				tell = row.now.Add(row.tell)
			}
			got := report(obj, row.held, waiting(tell), row.now)
			g.Expect(got).To(Equal(Outcome{Again: row.again, Silent: row.silent}))
			if !row.silent {
				reason := "WaitingForTurn"
				if row.held != nil {
					reason = "TokenExpired"
				}
				g.Expect(conditionOf(obj, "Ready")).To(be(metav1.ConditionFalse, reason), "nothing is wrong")
				g.Expect(conditionOf(obj, "Reconciling")).To(be(metav1.ConditionTrue, "WaitingForTurn"))
				g.Expect(conditionOf(obj, "Reconciling").Message).To(Equal("many tokens are due at once"))
			}
		})
	}
}

func TestAFailureStandsUntilTheNextAnswer(t *testing.T) {
	g := NewWithT(t)
	obj, held := anSFMCToken(), aToken()
	report(obj, held, nil, noon)
	failed := attempted(v1alpha1.ReasonEndpointUnavailable, 3)
	report(obj, held, failed, held.ExpiresAt.Add(-time.Minute))
	again := waiting(time.Time{})
	problem.Of(again).Standing = problem.Of(failed)

	before := obj.DeepCopy()
	got := report(obj, held, again, held.ExpiresAt.Add(-time.Second))
	g.Expect(got).To(Equal(Outcome{Again: time.Second, Silent: true}))
	g.Expect(obj).To(Equal(before), "it waits for an answer, and has nothing new to say")

	got = report(obj, held, again, held.ExpiresAt)
	g.Expect(got).To(Equal(Outcome{Again: wokenAnyway}))
	g.Expect(conditionOf(obj, "Ready")).To(be(metav1.ConditionFalse, "EndpointUnavailable"), "the cause, as far as it is known")
	g.Expect(conditionOf(obj, "Reconciling")).To(be(metav1.ConditionTrue, "EndpointUnavailable"))
	g.Expect(obj.Status.ConsecutiveFailures).To(Equal(int32(3)))
	g.Expect(report(obj, held, again, held.ExpiresAt.Add(time.Minute)).Silent).To(BeTrue())
}

func TestWhoWaitsBehindAThrottledClientIsToldWhyAndNoTime(t *testing.T) {
	g := NewWithT(t)
	obj := anSFMCToken()
	held := problem.New(v1alpha1.ReasonThrottled, errors.New("Marketing Cloud throttles this client"))
	held.IsWoken = true
	g.Expect(report(obj, nil, held, noon)).To(Equal(Outcome{Again: wokenAnyway}))
	g.Expect(conditionOf(obj, "Reconciling")).To(be(metav1.ConditionTrue, "Throttled"))
	g.Expect(conditionOf(obj, "Reconciling").Message).To(Equal("Marketing Cloud throttles this client"))
}

func TestWhateverHappensTheConditionsMakeSenseAndTheNextLookIsSure(t *testing.T) {
	names := slices.Sorted(maps.Keys(troubles))
	within := func(most time.Duration) *rapid.Generator[time.Duration] {
		return rapid.Map(rapid.Int64Range(0, int64(most)), func(d int64) time.Duration { return time.Duration(d) })
	}
	rapid.Check(t, func(t *rapid.T) {
		obj, now := anSFMCToken(), noon
		for range rapid.IntRange(1, 12).Draw(t, "looks") {
			now = now.Add(within(10*time.Minute).Draw(t, "later"))
			var result Result
			if rapid.Bool().Draw(t, "held") {
				result.Token = aToken()
				result.Token.IssuedAt = now.Add(-within(40*time.Minute).Draw(t, "age"))
				result.Token.ExpiresAt = result.Token.IssuedAt.Add(1079 * time.Second)
			}
			if result.Token == nil || rapid.Bool().Draw(t, "failed") {
				result.Err = troubles[rapid.SampledFrom(names).Draw(t, "trouble")].err
			}
			got := Report(obj, result, within(time.Hour).Draw(t, "stood"), now)
			check(t, obj, result, now, got)
		}
	})
}

// check tells what holds after every look.
func check(t *rapid.T, obj *v1alpha1.SFMCToken, result Result, now time.Time, got Outcome) {
	conditions, held, err := obj.Status.Conditions, result.Token, result.Err
	var why []string
	for _, condition := range []string{"Stalled", "Reconciling", "RefreshFailing"} {
		if meta.IsStatusConditionTrue(conditions, condition) {
			why = append(why, condition)
		}
	}
	alive := held != nil && now.Before(held.ExpiresAt)
	switch {
	case len(why) > 1 || (err != nil) != (len(why) == 1):
		t.Fatalf("after %v: %+v", err, conditions)
	case slices.Contains(why, "Reconciling") && alive, slices.Contains(why, "RefreshFailing") && !alive:
		t.Fatalf("%v, and the token is alive: %t", why, alive)
	case len(conditions) > 3:
		t.Fatalf("%d conditions: %+v", len(conditions), conditions)
	case meta.IsStatusConditionTrue(conditions, "Ready") != alive:
		t.Fatalf("Ready is not %v: %+v", alive, conditions)
	case err == nil && obj.Status.ConsecutiveFailures != 0:
		t.Fatal("failures counted after a success")
	case got.Silent:
		t.Fatal("nothing is said of it")
	case got.Again <= 0:
		t.Fatalf("again in %s", got.Again)
	case alive && got.Again > held.ExpiresAt.Sub(now):
		t.Fatalf("reconciled again %s after it expires", got.Again-held.ExpiresAt.Sub(now))
	}
}

func TestEventsAreOfChangesAlone(t *testing.T) {
	g := NewWithT(t)
	obj := anSFMCToken()
	look := func(held *token.Token, err error, now time.Time) []string {
		before := obj.DeepCopy()
		report(obj, held, err, now)
		var told []string
		Events(before, obj, func(eventType, reason, message string) {
			told = append(told, strings.Join([]string{eventType, reason, message}, " "))
		})
		return told
	}
	g.Expect(look(nil, attempted(v1alpha1.ReasonRequestRefused, 1), noon)).To(
		ConsistOf(HavePrefix("Warning RequestRefused get a token: Marketing Cloud refused")))
	g.Expect(look(nil, attempted(v1alpha1.ReasonRequestRefused, 2), noon)).To(BeEmpty())
	g.Expect(look(nil, conflict, noon)).To(ConsistOf(HavePrefix("Warning TargetConflict ")), "another reason")
	g.Expect(look(aToken(), nil, noon)).To(ConsistOf(HavePrefix("Normal TokenValid ")))
	for i := range 10 {
		next := aToken()
		next.AccessToken += fmt.Sprint(i)
		g.Expect(look(next, nil, noon.Add(time.Duration(i)*time.Second))).To(BeEmpty(), "a refresh is no news")
	}
	refused := attempted(v1alpha1.ReasonRequestRefused, 1)
	g.Expect(look(aToken(), refused, noon)).To(ConsistOf(HavePrefix("Warning RequestRefused get a token: ")))
	g.Expect(look(aToken(), refused, noon.Add(time.Hour))).To(ConsistOf(
		HavePrefix("Warning RequestRefused Secret journeys-emea holds a token that has expired: get a token: ")))
	g.Expect(look(aToken(), nil, noon)).To(ConsistOf(HavePrefix("Normal TokenValid ")))
	g.Expect(look(nil, refused, noon)).To(ConsistOf(HavePrefix("Warning RequestRefused get a token: ")), "one is enough")
	obj.Spec.Suspend = true
	g.Expect(look(aToken(), suspended, noon)).To(ConsistOf(HavePrefix("Normal Suspended "), HavePrefix("Normal TokenValid ")))
	g.Expect(look(aToken(), suspended, noon.Add(time.Hour))).To(ConsistOf(HavePrefix("Warning Suspended ")))
	obj.Spec.Suspend = false
	g.Expect(look(nil, notFound, noon)).To(BeEmpty(), "it is often yet to come")
}

func TestAContestIsSaidOnceUntilItIsOver(t *testing.T) {
	g := NewWithT(t)
	obj, delayed := anSFMCToken(), problem.New(v1alpha1.ReasonRepairDelayed, errors.New("the token is gone"))
	var told []string
	look := func(result Result, now time.Time) Outcome {
		before := obj.DeepCopy()
		outcome := Report(obj, result, 0, now)
		Events(before, obj, func(eventType, reason, message string) {
			told = append(told, strings.Join([]string{eventType, reason, message}, " "))
		})
		return outcome
	}
	look(Result{Token: aToken()}, noon)
	g.Expect(conditionOf(obj, "TargetContested")).To(BeNil())
	told = nil
	for i := range 10 {
		now := noon.Add(time.Duration(i) * 20 * time.Second)
		contest := &Contest{Message: "by rogue", Again: now.Add(10 * time.Second)}
		delayed.RetryAt = contest.Again
		g.Expect(look(Result{Err: delayed, Contest: contest}, now)).To(Equal(Outcome{Again: 10 * time.Second}))
		g.Expect(conditionOf(obj, "TargetContested")).To(HaveValue(And(HaveField("Status", metav1.ConditionTrue),
			HaveField("Reason", "RepeatedChanges"), HaveField("Message", "by rogue"))))
		g.Expect(conditionOf(obj, "Ready").Status).To(Equal(metav1.ConditionFalse))
		g.Expect(conditionOf(obj, "Reconciling").Reason).To(Equal("RepairDelayed"))
		g.Expect(look(Result{Token: aToken(), Contest: contest}, now.Add(5*time.Second)).Again).To(Equal(5 * time.Second))
		g.Expect(conditionOf(obj, "Ready").Status).To(Equal(metav1.ConditionTrue))
		g.Expect(conditionOf(obj, "Reconciling")).To(BeNil())
	}
	g.Expect(told).To(Equal([]string{"Warning RepeatedChanges by rogue"}))
	look(Result{Token: aToken()}, noon.Add(10*time.Minute))
	g.Expect(conditionOf(obj, "TargetContested")).To(BeNil())
}

func TestWhatIsSuspendedSaysSoWhateverElse(t *testing.T) {
	g := NewWithT(t)
	obj := anSFMCToken()
	obj.Spec.Suspend = true
	look := func(held *token.Token, err error, now time.Time) []string {
		report(obj, held, err, now)
		var said []string
		for _, c := range obj.Status.Conditions {
			said = append(said, fmt.Sprint(c.Type, "=", c.Status, " ", c.Reason))
		}
		slices.Sort(said)
		return said
	}
	g.Expect(look(aToken(), suspended, noon)).To(Equal([]string{"Ready=True TokenValid", "Suspended=True Suspended"}))
	g.Expect(look(aToken(), suspended, noon.Add(time.Hour))).To(Equal([]string{"Ready=False Suspended", "Suspended=True Suspended"}))
	g.Expect(look(nil, conflict, noon)).To(Equal([]string{
		"Ready=False TargetConflict", "Stalled=True TargetConflict", "Suspended=True Suspended"}))
	obj.Spec.Suspend = false
	g.Expect(look(aToken(), nil, noon)).To(Equal([]string{"Ready=True TokenValid"}))
}

func TestScopesThatSalesforceDidNotGrantAreListed(t *testing.T) {
	g := NewWithT(t)
	obj, held := anSFMCToken(), aToken()
	missing := func() *metav1.Condition {
		report(obj, held, nil, noon)
		return conditionOf(obj, "ScopesMissing")
	}
	held.GrantedScopes = "email_read"
	g.Expect(missing()).To(And(be(metav1.ConditionTrue, "ScopesNotGranted"),
		HaveValue(HaveField("Message", HavePrefix("Salesforce did not grant journeys_read: add this to the package")))))
	g.Expect(conditionOf(obj, "Ready")).To(be(metav1.ConditionTrue, "TokenValid"))
	held.GrantedScopes = "a journeys_read email_read"
	g.Expect(missing()).To(BeNil())
	held.GrantedScopes = ""
	g.Expect(missing()).To(BeNil(), "it isn't known")
	held.GrantedScopes, obj.Spec.Scopes = "email_read", nil
	held.RequestedScopes = nil
	g.Expect(missing()).To(BeNil(), "all that the package has was asked for")
}

func TestOfATargetThatCantBeReadIsSaidWhatWasKnownUntilItsTokenExpires(t *testing.T) {
	g := NewWithT(t)
	obj, held := anSFMCToken(), aToken()
	unread := Result{IsUnread: true, Err: errEtcdIsGone}
	Report(obj, unread, 0, noon)
	g.Expect(conditionOf(obj, "Ready")).To(be(metav1.ConditionFalse, "KubernetesAPIError"), "nothing was known")
	Report(obj, Result{Token: held, Notes: expiring("2026-03-10T00:00:00Z")}, 0, noon)
	known := obj.DeepCopy()
	got := Report(obj, unread, 0, obj.Status.ExpiresAt.Add(-100*time.Millisecond))
	g.Expect(got.Again).To(BeNumerically("<=", 100*time.Millisecond), "it is looked at when it expires")
	g.Expect(conditionOf(obj, "Ready")).To(Equal(conditionOf(known, "Ready")))
	g.Expect(conditionOf(obj, "RefreshFailing")).To(be(metav1.ConditionTrue, "KubernetesAPIError"))
	g.Expect(conditionOf(obj, "CredentialsExpiring")).To(Equal(conditionOf(known, "CredentialsExpiring")))
	obj.Status.Conditions = known.Status.Conditions
	g.Expect(obj.Status).To(Equal(known.Status), "and all the rest")
	got = Report(obj, unread, 0, held.ExpiresAt)
	g.Expect(conditionOf(obj, "Ready")).To(be(metav1.ConditionFalse, "KubernetesAPIError"))
	g.Expect(conditionOf(obj, "Reconciling")).To(be(metav1.ConditionTrue, "KubernetesAPIError"))
	g.Expect(got.Again).To(And(BeNumerically(">", 0), BeNumerically("<=", 2*time.Second)))

	obj.Status.ExpiresAt, obj.Status.Conditions = nil, known.Status.Conditions // somebody wrote that
	Report(obj, unread, 0, noon)
	g.Expect(conditionOf(obj, "Ready")).To(be(metav1.ConditionFalse, "KubernetesAPIError"))
}

func TestAnOwnerThatCouldNotBeChangedIsToldAndTheTokenIsAsGoodAsItIs(t *testing.T) {
	g := NewWithT(t)
	obj := anSFMCToken()
	Report(obj, Result{Token: aToken(), OwnerDenied: errors.New("it may not")}, 0, noon)
	g.Expect(conditionOf(obj, "Ready")).To(be(metav1.ConditionTrue, "TokenValid"))
	g.Expect(conditionOf(obj, "OwnerOutdated")).To(And(be(metav1.ConditionTrue, "OwnerChangeDenied"), HaveValue(HaveField("Message", "it may not"))))
	g.Expect(obj.Status.Conditions).To(HaveLen(2))
	Report(obj, Result{Token: aToken()}, 0, noon)
	g.Expect(conditionOf(obj, "OwnerOutdated")).To(BeNil())
}
