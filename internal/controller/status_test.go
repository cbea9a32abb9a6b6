package controller

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"pgregory.net/rapid"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

func conditionOf(obj *v1alpha1.SFMCToken, kind string) *metav1.Condition {
	return meta.FindStatusCondition(obj.Status.Conditions, kind)
}

// attempted is a failed token request that is repeated in 7 s.
func attempted(kind sfmc.Kind, failures int) error {
	return fmt.Errorf("get a token: %w", &attemptError{err: &sfmc.Error{Kind: kind, StatusCode: 418, Description: "no"}, failures: failures, retryAt: noon.Add(7 * time.Second)})
}

// troubles are one error of each kind.
var troubles = map[string]struct {
	err                error
	condition, reason  string
	again              time.Duration
	failures           int32
	message            string
	whatTheQueueRepeat bool
}{
	"the target is somebody else's": {err: &targetConflictError{"a", "b"}, condition: "Stalled", reason: "TargetConflict", again: 2 * time.Minute, message: "is left untouched"},
	"no credentials Secret":         {err: &credentialsNotFoundError{types.NamespacedName{Name: "sfmc-package"}}, condition: "Reconciling", reason: "CredentialsNotFound", again: time.Second, message: "does not exist in namespace"},
	"no grant":                      {err: &accessDeniedError{namespace: "sales"}, condition: "Stalled", reason: "AccessDenied", again: 2 * time.Minute, message: `namespace "sales" is not granted`},
	"a template is wrong":           {err: &templateInvalidError{key: "authorization", line: 3, reason: "there is no field .Token"}, condition: "Stalled", reason: "TemplateInvalid", again: 2 * time.Minute, message: "spec.target.template.data, key authorization, line 3: there is no field .Token"},
	"a key is missing":              {err: &credentialsInvalidError{"sfmc-package", errors.New("key client_id is missing")}, condition: "Stalled", reason: "CredentialsInvalid", again: 2 * time.Minute, message: "key client_id is missing"},
	"a host that isn't allowed":     {err: &credentialsInvalidError{"sfmc-package", &sfmc.HostNotAllowedError{Problem: "its host"}}, condition: "Stalled", reason: "HostNotAllowed", again: 2 * time.Minute, message: "its host"},
	"refused":                       {err: attempted(sfmc.Refused, 3), condition: "Stalled", reason: "RequestRefused", again: 7 * time.Second, failures: 3, message: "status 418: no (next attempt at 2026-03-01T12:00:07Z, or as soon as the credentials Secret or this object changes)"},
	"throttled":                     {err: attempted(sfmc.Throttled, 4), condition: "Reconciling", reason: "Throttled", again: 7 * time.Second, failures: 4, message: "(next attempt at 2026-03-01T12:00:07Z)"},
	"unavailable":                   {err: attempted(sfmc.Unavailable, 5), condition: "Reconciling", reason: "EndpointUnavailable", again: 7 * time.Second, failures: 5, message: "(next attempt at 2026-03-01T12:00:07Z)"},
	"unreadable":                    {err: attempted(sfmc.Unreadable, 6), condition: "Reconciling", reason: "UnreadableAnswer", again: 7 * time.Second, failures: 6, message: "(next attempt at 2026-03-01T12:00:07Z)"},
	"suspended":                     {err: suspendedError{}, condition: "Reconciling", reason: "Suspended", again: 0, message: "spec.suspend is true"},
	"Kubernetes":                    {err: errors.New("etcd is gone"), condition: "Reconciling", reason: "KubernetesAPIError", whatTheQueueRepeat: true, message: "etcd is gone"},
}

func TestEveryErrorSaysWhoCanMendIt(t *testing.T) {
	for name, row := range troubles {
		t.Run(name, func(t *testing.T) {
			for _, err := range []error{row.err, fmt.Errorf("wrapped: %w", row.err)} {
				g := NewWithT(t)
				obj := anSFMCToken()
				got := report(obj, nil, err, noon)
				g.Expect(obj.Status.Conditions).To(HaveLen(2))
				g.Expect(conditionOf(obj, row.condition)).To(HaveValue(And(
					HaveField("Status", metav1.ConditionTrue), HaveField("Reason", row.reason),
					HaveField("Message", ContainSubstring(row.message)), HaveField("ObservedGeneration", int64(3)))))
				g.Expect(conditionOf(obj, "Ready")).To(HaveValue(And(HaveField("Status", metav1.ConditionFalse), HaveField("Reason", "NoToken"))))
				g.Expect(got.again).To(Equal(row.again))
				g.Expect(obj.Status.ConsecutiveFailures).To(Equal(row.failures))
				g.Expect(obj.Status.ObservedGeneration).To(Equal(int64(3)))
				if row.whatTheQueueRepeat {
					g.Expect(got.retry).To(MatchError(err))
				} else {
					g.Expect(got.retry).NotTo(HaveOccurred())
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
			g.Expect(conditionOf(obj, "Ready")).To(HaveValue(And(HaveField("Status", metav1.ConditionTrue), HaveField("Reason", "TokenValid"))))
			if !row.whatTheQueueRepeat {
				g.Expect(got.again).To(And(BeNumerically(">", 0), BeNumerically("<=", time.Millisecond)), "looked at again when it expires")
			}
			report(obj, held, row.err, held.ExpiresAt)
			g.Expect(conditionOf(obj, "Ready")).To(HaveValue(And(HaveField("Status", metav1.ConditionFalse), HaveField("Reason", "TokenExpired"))))
			g.Expect(conditionOf(obj, row.condition)).NotTo(BeNil())
		})
	}
}

func TestAGoodTokenIsReportedAndLookedAtAgainWhenItIsToBeReplaced(t *testing.T) {
	g := NewWithT(t)
	obj, held := anSFMCToken(), aToken()
	obj.Annotations = map[string]string{v1alpha1.RefreshRequestedAtAnnotation: "now"}
	obj.Status.ConsecutiveFailures = 9
	now := held.IssuedAt.Add(time.Second)
	got := report(obj, held, nil, now)
	refreshAt := held.refreshAt(5 * time.Minute)
	g.Expect(got).To(Equal(outcome{again: refreshAt.Sub(now)}))
	at := func(t time.Time) *metav1.Time { return &metav1.Time{Time: t.Truncate(time.Second)} }
	g.Expect(obj.Status).To(Equal(v1alpha1.SFMCTokenStatus{
		ObservedGeneration: 3,
		Conditions: []metav1.Condition{{Type: "Ready", Status: "True", ObservedGeneration: 3, Reason: "TokenValid", LastTransitionTime: *at(now),
			Message: "Secret journeys-emea holds a valid token for business unit 510004567"}},
		ExpiresAt: at(held.ExpiresAt), RefreshAt: at(refreshAt), LastRefreshAt: at(held.IssuedAt),
		TargetSecretName: "journeys-emea", AccountID: "510004567", GrantedScopes: []string{"email_read"},
		RESTInstanceURL: "https://rest.example/", SOAPInstanceURL: "https://soap.example/", LastHandledRefreshRequest: "now",
	}))
}

func TestATokenForWhatTheSpecNamedBeforeIsNotReady(t *testing.T) {
	for name, edit := range map[string]func(*v1alpha1.SFMCTokenSpec){
		"other scopes":            func(s *v1alpha1.SFMCTokenSpec) { s.Scopes = s.Scopes[:1] },
		"all scopes":              func(s *v1alpha1.SFMCTokenSpec) { s.Scopes = nil },
		"another business unit":   func(s *v1alpha1.SFMCTokenSpec) { s.AccountID = "1" },
		"the package's unit":      func(s *v1alpha1.SFMCTokenSpec) { s.AccountID = "" },
		"scopes in another order": func(s *v1alpha1.SFMCTokenSpec) { s.Scopes[0], s.Scopes[1] = s.Scopes[1], s.Scopes[0] },
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			obj := anSFMCToken()
			edit(&obj.Spec)
			report(obj, aToken(), attempted(sfmc.Unavailable, 1), noon.Add(time.Minute))
			ready := conditionOf(obj, "Ready")
			if name == "scopes in another order" {
				g.Expect(ready.Reason).To(Equal("TokenValid"))
				return
			}
			g.Expect(ready).To(HaveValue(And(HaveField("Status", metav1.ConditionFalse), HaveField("Reason", "TokenOutdated"))))
		})
	}
}

func TestWhatTheSecretNoLongerHoldsIsNoLongerReported(t *testing.T) {
	g := NewWithT(t)
	obj := anSFMCToken()
	report(obj, aToken(), nil, noon)
	obj.Spec.AccountID = "1"
	report(obj, nil, attempted(sfmc.Refused, 1), noon)
	conditions := obj.Status.Conditions
	obj.Status.Conditions = nil
	g.Expect(obj.Status).To(Equal(v1alpha1.SFMCTokenStatus{ObservedGeneration: 3, ConsecutiveFailures: 1}))
	g.Expect(conditions).To(HaveLen(2))
}

func TestTheTimeOfAConditionIsThatOfItsLastChange(t *testing.T) {
	g := NewWithT(t)
	obj, held := anSFMCToken(), aToken()
	transition := func(kind string) time.Time { return conditionOf(obj, kind).LastTransitionTime.UTC() }
	report(obj, nil, attempted(sfmc.Refused, 1), noon)
	report(obj, nil, attempted(sfmc.Refused, 2), noon.Add(2*time.Minute))
	g.Expect(transition("Stalled")).To(Equal(noon), "still the same")
	report(obj, nil, &targetConflictError{"a", "b"}, noon.Add(3*time.Minute))
	g.Expect(transition("Stalled")).To(Equal(noon), "another reason, the same status")
	report(obj, nil, attempted(sfmc.Throttled, 3), noon.Add(4*time.Minute))
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
		got := report(obj, nil, &targetConflictError{"a", "b"}, now)
		waits = append(waits, got.again.Minutes())
		now = now.Add(got.again)
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
	report(obj, nil, attempted(sfmc.Unavailable, 1<<40), noon)
	g.Expect(obj.Status.ConsecutiveFailures).To(Equal(int32(1 << 30)))
	report(obj, nil, errors.New("etcd is gone"), noon)
	g.Expect(obj.Status.ConsecutiveFailures).To(Equal(int32(1<<30)), "no token was asked for")
}

func TestWhateverHappensTheConditionsMakeSenseAndTheNextLookIsSure(t *testing.T) {
	names := make([]string, 0, len(troubles))
	for name := range troubles {
		names = append(names, name)
	}
	rapid.Check(t, func(t *rapid.T) {
		obj, now := anSFMCToken(), noon
		for range rapid.IntRange(1, 12).Draw(t, "looks") {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(10*time.Minute)).Draw(t, "later")))
			var held *issued
			if rapid.Bool().Draw(t, "held") {
				held = aToken()
				held.IssuedAt = now.Add(-time.Duration(rapid.Int64Range(0, int64(40*time.Minute)).Draw(t, "age")))
				held.ExpiresAt = held.IssuedAt.Add(1079 * time.Second)
			}
			var err error
			if held == nil || rapid.Bool().Draw(t, "failed") {
				err = troubles[rapid.SampledFrom(names).Draw(t, "trouble")].err
			}
			got := report(obj, held, err, now)
			check(t, obj, held, err, now, got)
		}
	})
}

// check tells what holds after every look.
func check(t *rapid.T, obj *v1alpha1.SFMCToken, held *issued, err error, now time.Time, got outcome) {
	conditions := obj.Status.Conditions
	stalled, reconciling := meta.IsStatusConditionTrue(conditions, "Stalled"), meta.IsStatusConditionTrue(conditions, "Reconciling")
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
	case (err == nil) != (obj.Status.ConsecutiveFailures == 0) && err == nil:
		t.Fatal("failures counted after a success")
	case got.again < 0:
		t.Fatalf("again in %s", got.again)
	case got.retry != nil:
		return // the queue decides
	case got.again == 0 && (alive || !errors.As(err, new(suspendedError))):
		t.Fatalf("never looked at again after %v", err)
	case alive && got.again > held.ExpiresAt.Sub(now):
		t.Fatalf("looked at again %s after it expires", got.again-held.ExpiresAt.Sub(now))
	}
}

func TestEventsAreOfChangesAlone(t *testing.T) {
	g := NewWithT(t)
	recorder := events.NewFakeRecorder(10)
	r := &Reconciler{Events: recorder}
	obj := anSFMCToken()
	look := func(held *issued, err error, now time.Time) []string {
		before := obj.DeepCopy()
		report(obj, held, err, now)
		r.announce(t.Context(), before, obj, held, err)
		var told []string
		for len(recorder.Events) > 0 {
			told = append(told, <-recorder.Events)
		}
		return told
	}
	g.Expect(look(nil, attempted(sfmc.Refused, 1), noon)).To(ConsistOf(HavePrefix("Warning RequestRefused get a token: Marketing Cloud refused")))
	g.Expect(look(nil, attempted(sfmc.Refused, 2), noon)).To(BeEmpty())
	g.Expect(look(aToken(), nil, noon)).To(ConsistOf(HavePrefix("Normal TokenValid ")))
	for i := range 10 {
		next := aToken()
		next.AccessToken += fmt.Sprint(i)
		g.Expect(look(next, nil, noon.Add(time.Duration(i)*time.Second))).To(BeEmpty(), "a refresh is no news")
	}
	g.Expect(look(aToken(), suspendedError{}, noon)).To(ConsistOf(HavePrefix("Normal Suspended ")))
	g.Expect(look(aToken(), suspendedError{}, noon.Add(time.Hour))).To(ConsistOf(HavePrefix("Warning TokenExpired ")))
}
