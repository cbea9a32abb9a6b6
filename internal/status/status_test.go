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
			AccessToken: "four.part.token.text", TokenType: "Bearer", GrantedScopes: "email_read",
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
	// isQueued is true if the queue decides when to reconcile again.
	isQueued bool
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
	"suspended": {err: suspended, condition: "Reconciling", reason: v1alpha1.ReasonSuspended,
		again: 0, message: "spec.suspend is true"},
	"Kubernetes": {err: errEtcdIsGone, condition: "Reconciling", reason: v1alpha1.ReasonKubernetesAPIError,
		isQueued: true, message: "etcd is gone"},
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
				g.Expect(conditionOf(obj, "Ready")).To(be(metav1.ConditionFalse, "NoToken"))
				g.Expect(got.Again).To(Equal(row.again))
				g.Expect(obj.Status.ConsecutiveFailures).To(Equal(row.failures))
				g.Expect(obj.Status.ObservedGeneration).To(Equal(int64(3)))
				g.Expect(got.Silent).To(BeFalse())
				if row.isQueued {
					g.Expect(got.Retry).To(MatchError(err))
				} else {
					g.Expect(got.Retry).NotTo(HaveOccurred())
				}
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
			g.Expect(conditionOf(obj, "Ready")).To(be(metav1.ConditionTrue, "TokenValid"))
			if !row.isQueued {
				g.Expect(got.Again).To(And(BeNumerically(">", 0), BeNumerically("<=", time.Millisecond)),
					"reconciled again when it expires")
			}
			report(obj, held, row.err, held.ExpiresAt)
			g.Expect(conditionOf(obj, "Ready")).To(be(metav1.ConditionFalse, "TokenExpired"))
			g.Expect(conditionOf(obj, row.condition)).NotTo(BeNil())
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
		TargetSecretName: "journeys-emea", AccountID: "510004567", GrantedScopes: []string{"email_read"},
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
			report(obj, aToken(), attempted(v1alpha1.ReasonEndpointUnavailable, 1), noon.Add(time.Minute))
			ready := conditionOf(obj, "Ready")
			if name == "scopes in another order" {
				g.Expect(ready.Reason).To(Equal("TokenValid"))
				return
			}
			g.Expect(ready).To(be(metav1.ConditionFalse, "TokenOutdated"))
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

func TestLongMessagesAreCutBetweenCharacters(t *testing.T) {
	for _, padding := range []string{"", "x", "xx"} {
		g := NewWithT(t)
		obj := anSFMCToken()
		report(obj, nil, errors.New(padding+strings.Repeat("→", 1000)), noon)
		message := conditionOf(obj, "Reconciling").Message
		g.Expect(len(message)).To(BeNumerically("<=", 1024+len("…")))
		g.Expect(len(message)).To(BeNumerically(">", 1000))
		g.Expect(utf8.ValidString(message)).To(BeTrue())
		g.Expect(message).To(HaveSuffix("→…"))
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
				g.Expect(conditionOf(obj, "Reconciling")).To(be(metav1.ConditionTrue, "WaitingForTurn"))
				g.Expect(conditionOf(obj, "Reconciling").Message).To(Equal("many tokens are due at once"))
			}
		})
	}
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
	stalled := meta.IsStatusConditionTrue(conditions, "Stalled")
	reconciling := meta.IsStatusConditionTrue(conditions, "Reconciling")
	alive := held != nil && now.Before(held.ExpiresAt)
	switch {
	case stalled && reconciling:
		t.Fatalf("Stalled and Reconciling: %+v", conditions)
	case (err != nil) != (stalled || reconciling):
		t.Fatalf("after %v: %+v", err, conditions)
	case len(conditions) > 2:
		t.Fatalf("%d conditions: %+v", len(conditions), conditions)
	case meta.IsStatusConditionTrue(conditions, "Ready") != alive:
		t.Fatalf("Ready is not %v: %+v", alive, conditions)
	case err == nil && obj.Status.ConsecutiveFailures != 0:
		t.Fatal("failures counted after a success")
	case got.Silent:
		t.Fatal("nothing is said of it")
	case got.Again < 0:
		t.Fatalf("again in %s", got.Again)
	case got.Retry != nil:
		return // the queue decides
	case got.Again == 0 && (alive || !errors.Is(err, suspended)):
		t.Fatalf("never reconciled again after %v", err)
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
	g.Expect(look(aToken(), suspended, noon)).To(ConsistOf(HavePrefix("Normal Suspended ")))
	g.Expect(look(aToken(), suspended, noon.Add(time.Hour))).To(ConsistOf(HavePrefix("Warning TokenExpired ")))
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
	g.Expect(look(Result{Err: errors.New("the API server is away"), Contest: &Contest{}}, noon).Again).To(BeZero(), "the queue says")
	look(Result{Token: aToken()}, noon.Add(10*time.Minute))
	g.Expect(conditionOf(obj, "TargetContested")).To(BeNil())
}
