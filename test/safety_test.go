package test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"github.com/prometheus/common/expfmt"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

func TestNoSecretIsSeenAnywhereButInTheSecrets(t *testing.T) {
	w := newWorld(t)
	canaries := map[string]bool{w.pkg.ClientSecret: true, w.pkg.ClientID: true}
	collect := func() {
		for _, name := range []string{"journeys", "other"} {
			if token := w.held(name); token != "" {
				canaries[token] = true
			}
		}
	}
	token := w.token("journeys")
	w.token("other", func(token *v1alpha1.SFMCToken) { token.Spec.AccountID = "510009999" })
	w.ready("journeys")
	w.ready("other")
	collect()

	// Everything that can go wrong, with an endpoint that echoes what it was sent.
	echo := func(status int, body string) sfmctest.Fault {
		return sfmctest.Fault{Status: status, Body: body, Times: sfmctest.Forever}
	}
	request := 0
	for _, fault := range []sfmctest.Fault{
		echo(401, `{"error":"invalid_client","error_description":"bad secret {{client_secret}} of {{client_id}}"}`),
		echo(400, `{"error":"{{client_secret}}","error_description":"{{client_id}} {{client_secret}}"}`),
		echo(500, `{"message":"{{client_secret}} {{client_id}}","errorcode":0}`),
		echo(200, `{"access_token":["{{client_secret}}"]}`),
		echo(200, `{{client_secret}}`),
		echo(429, `<html>{{client_secret}}</html>`),
		{Fields: map[string]string{"expires_in": `"{{client_secret}}"`}, Times: sfmctest.Forever},
		{Refusal: sfmctest.LegacyPackage, Times: sfmctest.Forever},
		{Wire: sfmctest.CutBody, Times: sfmctest.Forever},
		{Wire: sfmctest.Reset, Times: sfmctest.Forever},
	} {
		w.sfmc.ClearFaults()
		w.sfmc.AddFaults(fault)
		asked := w.sfmc.Count()
		request++
		change(w, token, func(token *v1alpha1.SFMCToken) {
			token.Annotations = map[string]string{v1alpha1.RefreshRequestedAtAnnotation: fmt.Sprint(request)}
		})
		w.travel(time.Hour, time.Minute, func() bool { return w.sfmc.Count() > asked })
		w.Eventually(func() string { return w.message("journeys") }).ShouldNot(BeEmpty())
	}
	w.sfmc.ClearFaults()
	w.travel(time.Hour, time.Minute, func() bool { return condition(w.get("journeys"), "Ready") == valid })
	collect()
	change(w, w.secret("sfmc-package"), func(s *corev1.Secret) {
		s.Data["auth_base_uri"] = []byte("https://" + w.pkg.ClientSecret) // pasted under the wrong key
	})
	w.says("journeys", "Stalled=True HostNotAllowed")
	foreign := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "taken"}, StringData: map[string]string{"k": "canary-of-a-foreign-secret"}}
	canaries["canary-of-a-foreign-secret"] = true
	w.create(foreign)
	change(w, token, func(token *v1alpha1.SFMCToken) { token.Spec.Target = &v1alpha1.Target{Name: "taken"} })
	w.says("journeys", "Stalled=True TargetConflict")
	w.stopOperator()
	w.startOperator()
	w.Expect(len(canaries)).To(BeNumerically(">=", 5))

	for where, text := range w.everythingThatPeopleSee() {
		if where != "log of the libraries" { // they may have nothing to say
			w.Expect(text).NotTo(BeEmpty(), where)
		}
		for canary := range canaries {
			for _, form := range []string{canary, url.QueryEscape(canary), base64.StdEncoding.EncodeToString([]byte(canary))} {
				// Not with a matcher, whose failure would print it.
				if strings.Contains(text, form) {
					t.Errorf("%s shows a secret that begins with %.6s", where, canary)
				}
			}
		}
	}
}

// everythingThatPeopleSee is all that is written beside the data of Secrets, at the highest log level.
func (w *world) everythingThatPeopleSee() map[string]string {
	seen := map[string]string{"log": w.logs.String(), "log of the libraries": globalLogs.String()}
	dump := func(where string, list client.ObjectList) {
		w.Expect(admin.List(w.ctx, list, client.InNamespace(w.ns))).To(Succeed())
		encoded, err := json.Marshal(list)
		w.Expect(err).NotTo(HaveOccurred())
		seen[where] = string(encoded)
	}
	dump("events", &corev1.EventList{})
	dump("SFMCTokens", &v1alpha1.SFMCTokenList{})
	var secrets corev1.SecretList
	w.Expect(admin.List(w.ctx, &secrets, client.InNamespace(w.ns))).To(Succeed())
	for _, secret := range secrets.Items {
		metadata, err := json.Marshal(secret.ObjectMeta)
		w.Expect(err).NotTo(HaveOccurred())
		seen["metadata of Secret "+secret.Name] = string(metadata)
	}
	families, err := metrics.Registry.Gather()
	w.Expect(err).NotTo(HaveOccurred())
	var text bytes.Buffer
	for _, family := range families {
		_, err := expfmt.MetricFamilyToText(&text, family)
		w.Expect(err).NotTo(HaveOccurred())
	}
	seen["metrics"] = text.String()
	return seen
}

func TestMetricsShowEachTokenAndForgetDeletedOnes(t *testing.T) {
	w := newWorld(t)
	token := w.token("journeys")
	seen := w.ready("journeys")
	labels := fmt.Sprintf(`{name="journeys",namespace=%q}`, w.ns)
	text := func() string { return w.everythingThatPeopleSee()["metrics"] }
	w.Eventually(text).Should(ContainSubstring("sfmctoken_ready" + labels + " 1"))
	w.Expect(text()).To(And(
		ContainSubstring(fmt.Sprintf("sfmctoken_token_expiry_timestamp_seconds%s %v", labels, float64(seen.Status.ExpiresAt.Unix()))),
		ContainSubstring(fmt.Sprintf(`sfmctoken_token_requests_total{auth_host=%q,result="issued"} 1`, w.sfmc.Host())),
		ContainSubstring("sfmctoken_refresh_overdue_seconds"+labels+" 0\n"),
		ContainSubstring("sfmctoken_suspended"+labels+" 0\n"),
		ContainSubstring("sfmctoken_target_contested"+labels+" 0\n"),
		ContainSubstring(`sfmctoken_token_request_duration_seconds_count`),
	))
	w.Expect(admin.Delete(w.ctx, token)).To(Succeed())
	w.Eventually(text).ShouldNot(ContainSubstring(w.ns))
}

func TestMetricsTellWhatWaitsAtAHostAndHowLateItIs(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	due := w.ready("journeys").Status.RefreshAt.Time
	text := func() string { return w.everythingThatPeopleSee()["metrics"] }
	shows := func(overdue, waiting string) {
		t.Helper()
		w.Eventually(func() string { return w.gauge("sfmctoken_refresh_overdue_seconds", "journeys") }).Should(Equal(overdue))
		for _, metric := range []string{"sfmctoken_token_requests_waiting", "sfmctoken_clients_paused"} {
			w.Expect(text()).To(ContainSubstring(fmt.Sprintf("\n%s{auth_host=%q} %s\n", metric, w.sfmc.Host(), waiting)))
		}
	}
	shows("0", "0")
	w.sfmc.AddFaults(sfmctest.Fault{Refusal: sfmctest.RateLimited, RetryAfter: time.Minute})
	w.setTime(due.Add(time.Second))
	w.says("journeys", valid, "RefreshFailing=True Throttled")
	w.step(30 * time.Second)
	shows("31", "1")
	w.step(time.Minute)
	w.Eventually(w.sfmc.Issued).Should(Equal(2))
	w.ready("journeys")
	shows("0", "0")
}

func TestMetricsTellWhoIsSuspendedAndWhoseTargetIsContested(t *testing.T) {
	w := newWorld(t)
	suspended(w)
	w.token("contested")
	w.ready("contested")
	w.rival("contested", "access_token")
	w.says("contested", contested)
	for _, row := range []struct{ name, suspended, contested string }{{"journeys", "1", "0"}, {"contested", "0", "1"}} {
		w.Eventually(func() string { return w.gauge("sfmctoken_suspended", row.name) }).Should(Equal(row.suspended))
		w.Eventually(func() string { return w.gauge("sfmctoken_target_contested", row.name) }).Should(Equal(row.contested))
	}
	w.step(time.Hour)
	w.Expect(w.gauge("sfmctoken_refresh_overdue_seconds", "journeys")).To(Equal("–"), "while suspended nothing is due")
}

// TestTheRoleIsEnoughAndNoMore: that it is enough is shown by every test here, since the operator runs with it.
func TestTheRoleIsEnoughAndNoMore(t *testing.T) {
	g := NewWithT(t)
	var roles rbacv1.ClusterRoleList
	g.Expect(admin.List(t.Context(), &roles, client.MatchingLabels{"app.kubernetes.io/name": "sfmctoken-operator"})).To(Succeed())
	g.Expect(roles.Items).NotTo(BeEmpty())
	for _, role := range roles.Items {
		for _, rule := range role.Rules {
			for _, list := range [][]string{rule.Verbs, rule.Resources, rule.APIGroups} {
				g.Expect(list).NotTo(ContainElement("*"), role.Name)
			}
		}
	}
	mine, err := client.New(operator, client.Options{Scheme: harness.Scheme})
	g.Expect(err).NotTo(HaveOccurred())
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "any"}}
	token := harness.Token("default", "any", "package", "")
	forbidden := MatchError(ContainSubstring("forbidden"))
	mayDelete := admin.Get(t.Context(), client.ObjectKey{Name: "sfmctoken-operator-owner-references"}, &rbacv1.ClusterRole{}) == nil
	g.Expect(apierrors.IsForbidden(mine.Delete(t.Context(), secret))).To(Equal(!mayDelete), "where owners are guarded it may")
	g.Expect(mine.DeleteAllOf(t.Context(), secret, client.InNamespace("default"))).To(forbidden)
	g.Expect(mine.Create(t.Context(), token)).To(forbidden)
	g.Expect(mine.Delete(t.Context(), token)).To(forbidden)
	g.Expect(mine.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "any"}, &corev1.ConfigMap{})).To(forbidden)
	g.Expect(mine.List(t.Context(), &corev1.PodList{})).To(forbidden)
	g.Expect(mine.Get(t.Context(), client.ObjectKey{Namespace: "default", Name: "any"}, &v1alpha1.SFMCAccessGrant{})).To(forbidden)
}

func targetsOfAnotherTypeAreNeverTakenOver(t *testing.T) {
	w := newWorld(t)
	// Kubernetes fills a Secret of this type with a ServiceAccount's token: writing to one would hand it out.
	minted := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: w.ns, Name: "journeys",
			Labels:      map[string]string{"app.kubernetes.io/managed-by": "sfmctoken-operator"},
			Annotations: map[string]string{"kubernetes.io/service-account.name": "default", "sfmctoken.dev/issued": `{"owner":"journeys"}`},
		},
		Type: corev1.SecretTypeServiceAccountToken,
	}
	w.Eventually(func() error { return admin.Create(w.ctx, minted) }).Should(Succeed()) // once the ServiceAccount is there
	w.token("journeys")
	w.says("journeys", "Ready=False TargetConflict", "Stalled=True TargetConflict")
	w.Expect(w.sfmc.Count()).To(BeZero())
}
