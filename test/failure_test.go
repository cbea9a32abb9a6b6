package test

import (
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// message is what the condition of an SFMCToken says that tells why there is no new token.
func (w *world) message(name string) string {
	token := w.get(name)
	for _, kind := range []string{"Stalled", "Reconciling", "RefreshFailing", "Suspended"} {
		if found := meta.FindStatusCondition(token.Status.Conditions, kind); found != nil {
			return found.Message
		}
	}
	return ""
}

func TestAnEndpointDownForLongerThanALife(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	expires := w.ready("journeys").Status.ExpiresAt.Time
	w.sfmc.TakeDown()
	w.setTime(w.get("journeys").Status.RefreshAt.Add(time.Second))
	w.says("journeys", valid, "RefreshFailing=True EndpointUnavailable", fine)

	// Ready is True until the very moment of expiry.
	w.setTime(expires.Add(-time.Second))
	w.Consistently(func() []string { return w.conditions("journeys", valid) }, 300*time.Millisecond).Should(Equal([]string{valid}))
	w.setTime(expires)
	w.says("journeys", "Ready=False EndpointUnavailable", "Reconciling=True EndpointUnavailable")
	w.Expect(w.held("journeys")).NotTo(BeEmpty())

	w.travel(2*time.Hour, time.Minute, func() bool { return w.clock.Since(expires) >= 2*time.Hour })
	w.Expect(w.sfmc.BringUp()).To(Succeed())
	back := w.clock.Now()
	w.travel(91*time.Second, time.Second, func() bool { return condition(w.get("journeys"), "Ready") == valid })
	w.Expect(w.clock.Since(back)).To(BeNumerically("<=", 91*time.Second), "recovered within the cap of 60 s ± 50 %")
	w.Expect(w.ready("journeys").Status.ConsecutiveFailures).To(BeZero())
}

func TestAThrottledClientSendsNothingBeforeRetryAfter(t *testing.T) {
	w := newWorld(t)
	w.sfmc.AddFaults(sfmctest.Fault{Refusal: sfmctest.RateLimited, RetryAfter: 5 * time.Minute, Times: 3})
	w.token("journeys")
	w.says("journeys", "Ready=False Throttled", "Reconciling=True Throttled", fine)
	w.Expect(w.message("journeys")).To(ContainSubstring(w.clock.Now().Add(5 * time.Minute).UTC().Format(time.RFC3339)))
	// Another business unit gets the client no request.
	w.token("email", func(token *v1alpha1.SFMCToken) { token.Spec.AccountID = "510009999" })
	w.says("email", "Reconciling=True Throttled")
	w.Expect(w.sfmc.Count()).To(Equal(1))

	// An impatient person gets it one in 30 s.
	request := func(what string) {
		change(w, w.get("journeys"), func(token *v1alpha1.SFMCToken) {
			token.Annotations = map[string]string{v1alpha1.RefreshRequestedAtAnnotation: what}
		})
	}
	request("now")
	w.Eventually(w.sfmc.Count).Should(Equal(2))
	request("at once")
	w.step(29 * time.Second)
	w.Consistently(w.sfmc.Count, 300*time.Millisecond).Should(Equal(2))
	w.step(time.Second)
	w.Eventually(w.sfmc.Count).Should(Equal(3))

	w.step(299 * time.Second)
	w.Consistently(w.sfmc.Count, 300*time.Millisecond).Should(Equal(3))
	w.travel(10*time.Second, time.Second, func() bool { return w.sfmc.Count() == 5 })
	w.ready("journeys")
	w.ready("email")
}

func TestHoursOfRefusalsCostAHandfulOfRequestsAnHour(t *testing.T) {
	w := newWorld(t)
	w.Expect(w.sfmc.DisablePackage(w.pkg.ClientID, true)).To(Succeed())
	w.token("journeys")
	w.says("journeys", "Ready=False RequestRefused", "Stalled=True RequestRefused", "Reconciling absent")
	w.Expect(w.message("journeys")).To(And(ContainSubstring("401"), ContainSubstring("invalid_client"), ContainSubstring("package is installed and enabled")))
	start := w.clock.Now()
	w.travel(3*time.Hour, 30*time.Second, func() bool { return w.clock.Since(start) >= 3*time.Hour })
	w.Expect(w.sfmc.Count()).To(And(BeNumerically(">=", 12), BeNumerically("<=", 21)))
}

func TestCorrectedCredentialsAreUsedAtOnce(t *testing.T) {
	w := newWorld(t)
	credentials := w.secret("sfmc-package")
	change(w, credentials, func(s *corev1.Secret) { s.Data["client_secret"] = []byte("mistyped") })
	w.token("journeys")
	w.says("journeys", "Stalled=True RequestRefused")
	change(w, credentials, func(s *corev1.Secret) { s.Data["client_secret"] = []byte(w.pkg.ClientSecret) })
	w.ready("journeys") // the clock stands still: no retry has come due
	w.Expect(w.sfmc.Count()).To(Equal(2))
}

func TestARotatedSecretIsUsedAtOnceAndTheOldTokenStaysMeanwhile(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	w.ready("journeys")
	old := w.held("journeys")
	change(w, w.secret("sfmc-package"), func(s *corev1.Secret) { s.Data["client_secret"] = []byte("the-next-secret") })
	w.says("journeys", valid, "Stalled=True RequestRefused")
	w.Expect(w.held("journeys")).To(Equal(old))
	w.sfmc.ChangeMode(func(mode *sfmctest.Mode) { mode.StagedAfter = 0 })
	w.Expect(w.sfmc.StageSecret(w.pkg.ClientID, "the-next-secret")).To(Succeed())
	w.step(5 * time.Minute)
	w.Eventually(func() error { return w.sfmc.ActivateStagedSecret(w.pkg.ClientID) }).Should(Succeed())
	w.travel(15*time.Minute, 10*time.Second, func() bool { return w.held("journeys") != old })
	w.ready("journeys")
}

func TestCredentialsThatComeLaterAreWaitedFor(t *testing.T) {
	w := newWorld(t)
	w.token("journeys", func(token *v1alpha1.SFMCToken) { token.Spec.CredentialsSecretRef.Name = "later" })
	w.says("journeys", "Ready=False CredentialsNotFound", "Reconciling=True CredentialsNotFound", fine)
	w.Expect(w.sfmc.Count()).To(BeZero())
	w.create(harness.CredentialsSecret(w.ns, "later", w.sfmc, w.pkg))
	w.ready("journeys")
}

func TestEachBadKeyOfTheCredentialsIsNamedAndNothingIsSent(t *testing.T) {
	w := newWorld(t)
	w.token("journeys", func(token *v1alpha1.SFMCToken) { token.Spec.CredentialsSecretRef.Name = "bad" })
	w.says("journeys", "Reconciling=True CredentialsNotFound")
	w.create(&corev1.Secret{ObjectMeta: harness.CredentialsSecret(w.ns, "bad", w.sfmc, w.pkg).ObjectMeta})
	for _, bad := range []struct{ key, value, reason, says string }{
		{"client_id", "", "CredentialsInvalid", "client_id is empty"},
		{"client_id", "two words", "CredentialsInvalid", "client_id has a space"},
		{"client_secret", " \n", "CredentialsInvalid", "client_secret is empty"},
		{"client_secret", strings.Repeat("x", 2000), "CredentialsInvalid", "client_secret is longer than"},
		{"auth_base_uri", "mc.auth.marketingcloudapis.com", "HostNotAllowed", "https://"},
		{"auth_base_uri", "http://mc563885gzs27c5t9-63k636ttgm.auth.marketingcloudapis.com/", "HostNotAllowed", "must start with https"},
		{"auth_base_uri", "https://mc563885gzs27c5t9-63k636ttgm.rest.marketingcloudapis.com/", "HostNotAllowed", ".auth."},
		{"auth_base_uri", "https://evil.example.com/", "HostNotAllowed", "not a Marketing Cloud authentication host"},
		{"auth_base_uri", "https://mc563885gzs27c5t9-63k636ttgm.auth.marketingcloudapis.com/v2/token", "HostNotAllowed", "path"},
	} {
		good := harness.CredentialsSecret(w.ns, "bad", w.sfmc, w.pkg).StringData
		change(w, w.secret("bad"), func(s *corev1.Secret) { s.StringData = good; s.StringData[bad.key] = bad.value })
		w.Eventually(func() string { return w.message("journeys") }).Should(ContainSubstring(bad.says))
		w.says("journeys", "Ready=False "+bad.reason, "Stalled=True "+bad.reason, "Reconciling absent")
		if trimmed := strings.TrimSpace(bad.value); trimmed != "" {
			w.Expect(w.message("journeys")).NotTo(ContainSubstring(trimmed), "a value is never quoted")
		}
	}
	change(w, w.secret("bad"), func(s *corev1.Secret) { s.Data = map[string][]byte{} })
	w.Eventually(func() string { return w.message("journeys") }).Should(ContainSubstring("client_id is missing; key client_secret is missing; key auth_base_uri is missing"))
	w.Expect(w.sfmc.Count()).To(BeZero())
}

func TestEveryBadAnswerIsReportedAndSurvived(t *testing.T) {
	const unreadable, unavailable = "Reconciling=True UnreadableAnswer", "Reconciling=True EndpointUnavailable"
	field := func(name, value string) sfmctest.Fault { return sfmctest.Fault{Fields: map[string]string{name: value}} }
	for what, bad := range map[string]struct {
		fault sfmctest.Fault
		says  string
	}{
		"a proxy's page":                {sfmctest.ProxyPage(502), unavailable},
		"a page with status 200":        {sfmctest.ProxyPage(200), unreadable},
		"no JSON object":                {sfmctest.Fault{Status: 200, Body: `["token"]`}, unreadable},
		"an empty body":                 {sfmctest.Fault{Status: 204}, unreadable},
		"a cut body":                    {sfmctest.Fault{Wire: sfmctest.CutBody}, unavailable},
		"an endless body":               {sfmctest.Fault{Wire: sfmctest.EndlessBody}, unreadable},
		"a connection that is reset":    {sfmctest.Fault{Wire: sfmctest.Reset}, unavailable},
		"a huge body":                   {sfmctest.Fault{PadTo: 100 << 10}, unreadable},
		"a redirect":                    {sfmctest.Redirect("https://evil.example.com/v2/token"), unreadable},
		"an internal error":             {sfmctest.Fault{Refusal: sfmctest.InternalError}, unavailable},
		"no access token":               {field("access_token", ""), unreadable},
		"an access token of lines":      {field("access_token", `"one\ntwo"`), unreadable},
		"expires_in zero":               {field("expires_in", "0"), unreadable},
		"expires_in negative":           {field("expires_in", "-1"), unreadable},
		"expires_in of days":            {field("expires_in", "864000"), unreadable},
		"expires_in in words":           {field("expires_in", `"soon"`), unreadable},
		"an instance URL of plain http": {field("rest_instance_url", `"http://example.com"`), unreadable},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			bad.fault.Times = sfmctest.Forever
			w.sfmc.AddFaults(bad.fault)
			w.token("journeys")
			w.says("journeys", unready(bad.says), bad.says, fine)
			w.Consistently(w.sfmc.Count, 200*time.Millisecond).Should(Equal(1), "no hot loop: the clock stands still")
			w.sfmc.ClearFaults()
			w.travel(time.Minute, time.Second, func() bool { return condition(w.get("journeys"), "Ready") == valid })
			w.ready("journeys")
		})
	}
}

func TestTheWallClockLeaps(t *testing.T) {
	for what, leap := range map[string]time.Duration{"forward": 10 * time.Minute, "back": -10 * time.Minute} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			w.sfmc.ChangeMode(func(mode *sfmctest.Mode) { mode.Life = 3 * time.Hour }) // the stand-in's clock leaps too
			token := w.token("journeys")
			w.ready("journeys")
			old := w.held("journeys")
			w.step(5 * time.Minute)
			w.setTime(w.clock.Now().Add(leap))
			// The timer that was set before the leap is not moved by it; any event shows what the clock says now.
			change(w, token, func(token *v1alpha1.SFMCToken) {
				token.Spec.RefreshBefore = nil
				token.Spec.Target = &v1alpha1.Target{}
			})
			w.Eventually(func() string { return w.held("journeys") }).ShouldNot(Equal(old), "a token whose age can't be told is replaced")
			w.Eventually(func() time.Duration { return w.get("journeys").Status.ExpiresAt.Sub(w.clock.Now()) }).Should(BeNumerically("~", 1079*time.Second, time.Second))
			w.ready("journeys")
			w.Expect(w.sfmc.Count()).To(Equal(2))
		})
	}
}
