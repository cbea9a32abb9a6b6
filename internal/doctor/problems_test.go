package doctor_test

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/doctor"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(after time.Duration) *metav1.Time { return &metav1.Time{Time: noon.Add(after)} }

// says is a condition, written as "Ready=True TokenValid: a message".
func says(text string) metav1.Condition {
	what, message, _ := strings.Cut(text, ": ")
	condition, reason, _ := strings.Cut(what, " ")
	kind, status, _ := strings.Cut(condition, "=")
	return metav1.Condition{Type: kind, Status: metav1.ConditionStatus(status), Reason: reason, Message: message}
}

const valid = "Ready=True TokenValid: all is well"

var problems = map[string]struct {
	conditions []string
	change     func(*v1alpha1.SFMCToken)
	problems   []string
}{
	"all is well": {conditions: []string{valid}},
	"not looked at": {problems: []string{
		"Not looked at: the operator hasn't looked at it yet; is it running, and does it watch this namespace?",
	}},
	"not ready": {
		conditions: []string{"Ready=False RequestRefused: none: status 401", "Stalled=True RequestRefused: status 401"},
		problems:   []string{"Stalled, RequestRefused: status 401"},
	},
	"ready, but a person must act": {
		conditions: []string{valid, "Stalled=True AccessDenied: no grant"},
		problems:   []string{"Stalled, AccessDenied: no grant"},
	},
	"ready, but suspended": {
		conditions: []string{valid, "Suspended=True Suspended: true"},
		problems:   []string{"Suspended: true"},
	},
	"ready, but not refreshed": {
		conditions: []string{valid, "RefreshFailing=True Throttled: 429"},
		problems:   []string{"RefreshFailing, Throttled: 429"},
	},
	"ready, with less than was asked for": {
		conditions: []string{valid, "ScopesMissing=True ScopesNotGranted: email_read"},
		problems:   []string{"ScopesMissing, ScopesNotGranted: email_read"},
	},
	"not ready, and its turn will come": {
		conditions: []string{"Ready=False WaitingForTurn: none", "Reconciling=True WaitingForTurn: many are due"},
		problems:   []string{"Reconciling, WaitingForTurn: many are due"},
	},
	"no longer stalled": {conditions: []string{valid, "Stalled=False Fine: it was"}},
	"the client secret ends": {
		conditions: []string{valid, "CredentialsExpiring=True Expiring: on Friday"},
		problems:   []string{"CredentialsExpiring, Expiring: on Friday"},
	},
	"a date that can't be read": {
		conditions: []string{valid, "CredentialsExpiring=Unknown DateUnreadable: soon"},
		problems:   []string{"CredentialsExpiring, DateUnreadable: soon"},
	},
	"somebody else writes the Secret, too": {
		conditions: []string{valid, "TargetContested=True RepeatedChanges: by rogue"},
		problems:   []string{"TargetContested, RepeatedChanges: by rogue"},
	},
	"the client secret is good for long": {conditions: []string{valid, "CredentialsExpiring=False Expiring: in May"}},
	"expired under a dead operator": {
		conditions: []string{valid},
		change:     func(token *v1alpha1.SFMCToken) { token.Status.ExpiresAt = at(-3 * time.Minute) },
		problems:   []string{"Expired: the status says Ready, but the token ran out 3m ago; is the operator running?"},
	},
	"expired by a clock that is ahead": {
		conditions: []string{valid},
		change:     func(token *v1alpha1.SFMCToken) { token.Status.ExpiresAt = at(-30 * time.Second) },
	},
	"expired, and known": {
		conditions: []string{"Ready=False TokenExpired: over"},
		change:     func(token *v1alpha1.SFMCToken) { token.Status.ExpiresAt = at(-3 * time.Minute) },
		problems:   []string{"Not ready, TokenExpired: over"},
	},
	"changed since": {
		conditions: []string{valid},
		change:     func(token *v1alpha1.SFMCToken) { token.Generation = 2 },
		problems:   []string{"Changed: the operator hasn't looked at the spec as it is now; is it running?"},
	},
	"a message that plays with the terminal": {
		conditions: []string{"Ready=False TokenExpired: one\n\ttwo \x1b[31mthree\u202e four"},
		problems:   []string{"Not ready, TokenExpired: one two [31mthree four"},
	},
}

func TestProblemsOfASFMCTokenAreNamed(t *testing.T) {
	for name, row := range problems {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			token := aToken()
			for _, text := range row.conditions {
				token.Status.Conditions = append(token.Status.Conditions, says(text))
			}
			if row.change != nil {
				row.change(token)
			}
			var found []string
			for _, problem := range doctor.Problems(token, noon) {
				found = append(found, problem.String())
			}
			g.Expect(found).To(Equal(row.problems))
		})
	}
}

func TestTimesAreSaidAsPeopleSayThem(t *testing.T) {
	g := NewWithT(t)
	for said, when := range map[string]*metav1.Time{
		"-":        nil,
		"in 17m":   at(17*time.Minute + 30*time.Second),
		"in 4m30s": at(270 * time.Second),
		"in 0s":    at(0),
		"1s ago":   at(-time.Second),
		"25m ago":  at(-25 * time.Minute),
	} {
		g.Expect(doctor.When(when, noon)).To(Equal(said))
	}
	g.Expect(doctor.When(&metav1.Time{}, noon)).To(Equal("-"))
}

func TestALongTextIsCutBetweenCharacters(t *testing.T) {
	g := NewWithT(t)
	g.Expect(doctor.Cut("äöü", 3)).To(Equal("äöü"))
	g.Expect(doctor.Cut("äöüß", 3)).To(Equal("äö…"))
	g.Expect(doctor.Cut("ä öüß", 3)).To(Equal("ä…"))
}

const (
	refused      = "Stalled=True RequestRefused: 401"
	refusedAgain = "Stalled=True RequestRefused: 401 again"
)

var answers = map[string]struct {
	annotation, handled string
	before, after       []string
	answered            bool
	why                 string
}{
	"not yet": {
		annotation: "now", handled: "before",
		before: []string{valid}, after: []string{valid},
	},
	"with a token": {
		annotation: "now", handled: "now",
		before: []string{valid}, after: []string{valid},
		answered: true,
	},
	"with a token for a later request": {
		annotation: "later", handled: "later",
		before: []string{valid}, after: []string{valid},
		answered: true,
	},
	"not by what was said of an older one": {
		annotation: "now", handled: "before",
		before: []string{refused}, after: []string{refused},
	},
	"by another refusal": {
		annotation: "now", handled: "before",
		before: []string{refused}, after: []string{refusedAgain},
		why: "Stalled, RequestRefused: 401 again",
	},
	"by a refusal": {
		annotation: "now", handled: "before",
		before: []string{valid}, after: []string{valid, refused},
		why: "Stalled, RequestRefused: 401",
	},
	"by a failure that will be tried again": {
		annotation: "now", handled: "before",
		before: []string{valid}, after: []string{valid, "RefreshFailing=True Throttled: 429"},
		why: "RefreshFailing, Throttled: 429",
	},
	"not while it waits for its turn": {
		annotation: "now", handled: "before",
		before: []string{valid},
		after:  []string{"Ready=False TokenExpired: over", "Reconciling=True WaitingForTurn: soon"},
	},
	"not if somebody took it back": {
		before: []string{valid}, after: []string{valid},
	},
}

func TestARefreshRequestIsAnswered(t *testing.T) {
	for name, row := range answers {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			asked, is := aToken(), aToken()
			asked.Status.LastHandledRefreshRequest, is.Status.LastHandledRefreshRequest = "before", row.handled
			if row.handled == "" {
				asked.Status.LastHandledRefreshRequest = ""
			}
			is.Annotations = map[string]string{v1alpha1.RefreshRequestedAtAnnotation: row.annotation}
			for _, text := range row.before {
				asked.Status.Conditions = append(asked.Status.Conditions, says(text))
			}
			for _, text := range row.after {
				is.Status.Conditions = append(is.Status.Conditions, says(text))
			}
			answered, err := doctor.Answered(asked, is)
			g.Expect(answered).To(Equal(row.answered))
			if row.why == "" {
				g.Expect(err).NotTo(HaveOccurred())
			} else {
				g.Expect(err).To(MatchError(row.why))
			}
		})
	}
}
