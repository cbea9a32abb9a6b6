package test

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

const nextSecret = "the-next-client-secret"

// rotation is what people do during a rotation, each as one step.
type rotation struct {
	*world
	credentials *corev1.Secret
	// looks is how often the operator had looked at something before the last edit.
	looks *float64
}

func (r rotation) edit(edit func(data map[string][]byte)) {
	*r.looks = harness.Looks()
	change(r.world, r.credentials, func(s *corev1.Secret) { edit(s.Data) })
}

func (r rotation) addStaged() {
	r.edit(func(data map[string][]byte) { data["client_secret_staged"] = []byte(nextSecret) })
}

func (r rotation) activate() {
	r.Expect(r.sfmc.ActivateStagedSecret(r.pkg.ClientID)).To(Succeed())
}

func (r rotation) moveToActive() {
	r.edit(func(data map[string][]byte) { data["client_secret"] = []byte(nextSecret) })
}

func (r rotation) removeStaged() {
	r.edit(func(data map[string][]byte) { delete(data, "client_secret_staged") })
}

// refresh travels through one refresh.
func (r rotation) refresh() {
	was := r.held("journeys")
	r.travel(20*time.Minute, 10*time.Second, func() bool { return r.held("journeys") != was })
}

func TestARotationInEveryOrderLeavesNoGapAndNoNeedlessRequest(t *testing.T) {
	for story, told := range map[string]struct {
		steps func(rotation)
		// refused is how often the dead secret is tried: once, by whoever finds out.
		refused int
	}{
		"staged added, activated, refreshed, moved, removed": {func(r rotation) {
			r.addStaged()
			r.activate()
			r.refresh()
			r.Eventually(func() string { return r.get("journeys").Status.ClientSecretKey }).Should(Equal("client_secret_staged"))
			r.refresh() // it stays with the one that works
			r.moveToActive()
			r.removeStaged()
		}, 1},
		"staged added, activated, moved, removed, all between two refreshes": {func(r rotation) {
			r.addStaged()
			r.settle()
			r.activate()
			r.moveToActive()
			r.removeStaged()
		}, 0},
		"staged added, moved before it is activated": {func(r rotation) {
			r.addStaged()
			r.settle()
			r.edit(func(data map[string][]byte) {
				data["client_secret"], data["client_secret_staged"] = []byte(nextSecret), []byte(r.pkg.ClientSecret)
			})
			r.refresh() // Salesforce accepts both
			r.activate()
			r.refresh()
			r.removeStaged()
		}, 0},
		"activated before staged is added": {func(r rotation) {
			r.activate()
			r.addStaged()
			r.refresh()
			r.moveToActive()
			r.removeStaged()
		}, 1},
		"staged added, removed again, and added later": {func(r rotation) {
			r.addStaged()
			r.settle()
			r.removeStaged()
			r.settle()
			r.addStaged()
			r.settle()
			r.activate()
			r.refresh()
			r.moveToActive()
			r.removeStaged()
		}, 1},
		"both moved in one edit": {func(r rotation) {
			r.addStaged()
			r.settle()
			r.activate()
			r.edit(func(data map[string][]byte) {
				data["client_secret"] = []byte(nextSecret)
				delete(data, "client_secret_staged")
			})
		}, 0},
	} {
		t.Run(story, func(t *testing.T) {
			w := newWorld(t)
			w.token("journeys")
			w.token("sibling")
			w.ready("journeys")
			w.ready("sibling")
			w.Expect(w.sfmc.StageSecret(w.pkg.ClientID, nextSecret)).To(Succeed())
			w.step(5 * time.Minute) // from then on Salesforce accepts both
			r := rotation{world: w, credentials: w.secret("sfmc-package"), looks: new(float64)}
			told.steps(r)
			r.settle()
			w.refreshAfterwards(r)

			refused, issued := 0, 0
			var refusedAt time.Time
			for _, request := range w.sfmc.Requests() {
				if request.Issued {
					issued++
				} else {
					refused++
					refusedAt = request.Time
				}
				if request.Issued && !refusedAt.IsZero() {
					w.Expect(request.Time).To(BeTemporally("<=", refusedAt.Add(10*time.Second)), "the other client secret is tried at once, but for one step of the clock")
					refusedAt = time.Time{}
				}
			}
			w.Expect(refused).To(Equal(told.refused))
			w.Expect(w.get("journeys").Status.ClientSecretKey).To(Equal("client_secret"))
			// One request for each life that has begun, whatever was edited meanwhile.
			lives := 1 + int(w.clock.Since(w.began())/(719*time.Second))
			w.Expect(issued).To(BeNumerically("<=", lives))
			w.Expect(w.held("journeys")).To(Equal(w.held("sibling")))
		})
	}
}

// settle waits until the operator has seen the credentials as they are, with both SFMCTokens valid all the time.
func (r rotation) settle() {
	r.t.Helper()
	names, last := []string{"journeys", "sibling"}, 0.0
	r.Eventually(func() bool { // it has looked at both since, and has nothing left to look at
		before := last
		last = harness.Looks()
		return r.running.Idle() && last == before && last >= *r.looks+float64(len(names))
	}).WithPolling(200 * time.Millisecond).Should(BeTrue())
	for _, name := range names {
		r.ready(name)
		r.Expect(r.alive(r.held(name), "510004567")).To(BeTrue())
	}
}

// refreshAfterwards shows that the rotation's end state brings new tokens.
func (w *world) refreshAfterwards(r rotation) {
	r.refresh()
	r.Eventually(func() bool { return r.held("journeys") == r.held("sibling") }).Should(BeTrue())
	r.ready("journeys")
}

// began is when the first token was asked for.
func (w *world) began() time.Time { return w.sfmc.Requests()[0].Time }

func TestOfManyTokensOneFindsOutThatTheActiveSecretIsDead(t *testing.T) {
	w := newWorld(t)
	for i, unit := range []string{"510000001", "510004567", "510009999"} {
		w.token("bu-"+unit, func(token *v1alpha1.SFMCToken) {
			token.Spec.AccountID = unit
			token.Spec.RefreshBefore = &metav1.Duration{Duration: time.Duration(5-2*i) * time.Minute} // one after another
		})
		w.ready("bu-" + unit)
	}
	w.Expect(w.sfmc.StageSecret(w.pkg.ClientID, nextSecret)).To(Succeed())
	w.step(5 * time.Minute)
	r := rotation{world: w, credentials: w.secret("sfmc-package"), looks: new(float64)}
	r.addStaged()
	r.activate()
	w.travel(20*time.Minute, 5*time.Second, func() bool { return w.sfmc.Issued() == 6 })
	w.Expect(w.sfmc.Count()).To(Equal(7), "the dead secret was tried once")
	for _, unit := range []string{"510000001", "510004567", "510009999"} {
		w.ready("bu-" + unit)
	}
}

func TestAnExpiringClientSecretIsAnnouncedOnce(t *testing.T) {
	w := newWorld(t)
	credentials := w.secret("sfmc-package")
	expires := func(text string) {
		change(w, credentials, func(s *corev1.Secret) { s.Data["client_secret_expires_at"] = []byte(text) })
	}
	in := func(days int) string { return w.clock.Now().UTC().AddDate(0, 0, days).Format(time.DateOnly) }
	expires(in(31))
	w.token("journeys")
	w.says("journeys", valid, "CredentialsExpiring absent")
	w.Eventually(func() bool { return w.get("journeys").Status.ClientSecretExpiresAt != nil }).Should(BeTrue())
	w.Expect(w.everythingThatPeopleSee()["metrics"]).To(ContainSubstring("sfmctoken_client_secret_expiry_timestamp_seconds{name=\"journeys\""))

	expires(in(20))
	w.says("journeys", valid, "CredentialsExpiring=True Expiring")
	w.Expect(w.get("journeys").Status.Conditions).To(ContainElement(HaveField("Message", ContainSubstring(in(21)))), "a date's day is its last")
	for range 2 {
		asked := w.sfmc.Count()
		w.travel(20*time.Minute, time.Minute, func() bool { return w.sfmc.Count() > asked })
		w.ready("journeys")
	}
	w.Eventually(func() int { return strings.Count(w.everythingThatPeopleSee()["events"], `"reason":"Expiring"`) }).Should(Equal(1))

	expires("next summer")
	w.says("journeys", valid, "CredentialsExpiring=Unknown DateUnreadable")

	// A past date is said beside a refusal, and stops nobody.
	expires(in(-2))
	w.says("journeys", valid, "CredentialsExpiring=True Expired")
	w.Expect(w.sfmc.DisablePackage(w.pkg.ClientID, true)).To(Succeed())
	w.travel(20*time.Minute, time.Minute, func() bool { return condition(w.get("journeys"), "Stalled") == "Stalled=True RequestRefused" })
	w.Expect(w.message("journeys")).To(ContainSubstring("client_secret_expires_at says that the secret expired on " + in(-1)))
}

func TestAPausedClientsObjectsSayUntilWhenAndWriteNothingMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.sfmc.AddFaults(sfmctest.Fault{Refusal: sfmctest.Unavailable, RetryAfter: 10 * time.Minute})
	w.token("journeys")
	w.says("journeys", "Reconciling=True Throttled")
	until := w.clock.Now().Add(10 * time.Minute).UTC().Format(time.RFC3339)
	w.token("other", func(token *v1alpha1.SFMCToken) { token.Spec.AccountID = "510009999" })
	w.says("other", "Reconciling=True Throttled")
	w.Expect(w.message("other")).To(ContainSubstring(until))
	version := w.get("other").ResourceVersion
	start := w.clock.Now()
	w.travel(9*time.Minute, 10*time.Second, func() bool { return w.clock.Since(start) >= 9*time.Minute })
	w.Expect(w.get("other").ResourceVersion).To(Equal(version))
	w.Expect(w.sfmc.Count()).To(Equal(1))
	w.travel(2*time.Minute, 10*time.Second, func() bool { return w.sfmc.Issued() == 2 })
}
