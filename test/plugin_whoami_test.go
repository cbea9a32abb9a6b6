package test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

// whoami asks the stand-in, as somebody who may read that SFMCToken and its target and nothing else.
func TestThePluginSaysWhomATokenActsFor(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	w.ready("journeys")
	w.token("everything", func(token *v1alpha1.SFMCToken) { token.Spec.AccountID = "" })
	w.ready("everything")
	readsTargets := rbacv1.PolicyRule{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"journeys", "everything"}}
	person := w.personWho(rights{w.ns: {may("get", own, "sfmctokens"), readsTargets}})
	ca := filepath.Join(t.TempDir(), "ca.crt")
	w.Expect(os.WriteFile(ca, w.sfmc.CACert(), 0o600)).To(Succeed())
	everything := ""
	whoami := func(name string, flags ...string) said {
		t.Helper()
		answer := w.pluginAs(person, append([]string{"whoami", name}, flags...)...)
		everything += answer.out + answer.err
		return answer
	}
	trusted := []string{"--allow-rest-host", w.sfmc.Host(), "--ca-file", ca}

	var acts said
	w.Eventually(func() int { acts = whoami("journeys", trusted...); return acts.code }).Should(Equal(0), "the rights have arrived")
	w.Expect(acts.out).To(HavePrefix("SFMCToken " + w.ns + "/journeys acts for\n"))
	w.Expect(acts.out).To(MatchRegexp(`(?m)^  Business unit +510004567 \(as spec.accountID says\)$`))
	w.Expect(acts.out).To(MatchRegexp(`(?m)^  Enterprise +510000001$`))
	w.Expect(acts.out).To(MatchRegexp(`(?m)^  User +720000001$`))
	w.Expect(acts.out).To(MatchRegexp(`(?m)^  Expires +in 1[5-7]m$`))
	w.Expect(whoami("everything", trusted...).out).To(ContainSubstring("510000001 (the one in which the package was made"))

	w.Expect(whoami("journeys").err).To(ContainSubstring("the token is sent nowhere: rest_instance_url"), "the stand-in is not Marketing Cloud")
	w.Expect(whoami("journeys", "--allow-rest-host", w.sfmc.Host()).err).To(ContainSubstring("--ca-file"))
	w.Expect(whoami("journeys", "--allow-rest-host", "https://gateway.example").err).To(ContainSubstring("--allow-rest-host"))
	w.Expect(whoami("journeys", "--ca-file", "no-such").err).To(ContainSubstring("read --ca-file"))

	w.stopOperator() // it would put right what follows
	sent := 0
	evil := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { sent++ }))
	defer evil.Close()
	edit := func(key, value string) {
		change(w, w.secret("journeys"), func(secret *corev1.Secret) { secret.Data[key] = []byte(value) })
	}
	edit("rest_instance_url", evil.URL+"/")
	stolen := whoami("journeys", trusted...)
	w.Expect(stolen.code).To(Equal(2))
	w.Expect(stolen.err).To(ContainSubstring("the token is sent nowhere"))
	w.Expect(sent).To(BeZero())

	edit("rest_instance_url", w.sfmc.URL())
	old := w.held("journeys")
	edit("access_token", w.held("everything"))
	other := whoami("journeys", trusted...)
	w.Expect(other.code).To(Equal(1))
	w.Expect(other.out).To(ContainSubstring("510000001 (but spec.accountID is 510004567)"))
	edit("access_token", "canary.of.a.dead.token")
	dead := whoami("journeys", trusted...)
	w.Expect(dead.code).To(Equal(1))
	w.Expect(dead.out).To(And(HavePrefix("Marketing Cloud doesn't accept the token"), ContainSubstring("kubectl sfmctoken refresh journeys -n "+w.ns)))
	edit("access_token", "")
	w.Expect(whoami("journeys", trusted...).code).To(Equal(1))

	for _, canary := range []string{old, w.held("everything"), "canary.of.a.dead.token", w.pkg.ClientSecret} {
		if strings.Contains(everything, canary) { // not with a matcher, whose failure would print it
			t.Errorf("a token that begins with %.6s was printed", canary)
		}
	}
	blind := w.pluginAs(w.personWho(rights{w.ns: {may("get", own, "sfmctokens")}}), "whoami", "journeys")
	w.Expect(blind.code).To(Equal(2), "it needs the right to read the Secret")
}
