package test

import (
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
)

// furtherKeys gives an SFMCToken a template with these keys.
func furtherKeys(data map[string]v1alpha1.TemplateText) func(*v1alpha1.SFMCToken) {
	return func(token *v1alpha1.SFMCToken) {
		token.Spec.Target = &v1alpha1.Target{Template: &v1alpha1.TargetTemplate{Data: data}}
	}
}

var (
	authorization = furtherKeys(map[string]v1alpha1.TemplateText{"authorization": "Bearer {{ .AccessToken }}"})
	misspelt      = furtherKeys(map[string]v1alpha1.TemplateText{"authorization": "Bearer\n{{ .Token }}"})
)

// value is one key of a Secret.
func (w *world) value(name, key string) string {
	if secret := w.secret(name); secret != nil {
		return string(secret.Data[key])
	}
	return ""
}

func TestFurtherKeysAreRenderedFromTheToken(t *testing.T) {
	w := newWorld(t)
	w.token("journeys", furtherKeys(map[string]v1alpha1.TemplateText{
		"authorization": "{{ .TokenType }} {{ .AccessToken }}",
		"basic":         `{{ print "oauth:" .AccessToken | b64enc }}`,
		"config.json":   `{"url": {{ trimSuffix "/" .RESTInstanceURL | toJson }}, "soap": {{ toJson .SOAPInstanceURL }}, "mid": {{ toJson .AccountID }}, "until": {{ toJson .ExpiresAt }}, "scopes": {{ toJson .Scopes }}}`,
		"scopes.txt":    "{{ range .Scopes }}{{ . }}\n{{ end }}",
		"fixed":         "any text",
		"empty":         "{{ if not .AccountID }}the package's own business unit{{ end }}",
	}))
	w.ready("journeys")
	secret := w.secret("journeys")
	is := func(key string) string { return string(secret.Data[key]) }
	w.Expect(is("authorization")).To(Equal("Bearer " + is("access_token")))
	w.Expect(is("basic")).To(Equal(base64.StdEncoding.EncodeToString([]byte("oauth:" + is("access_token")))))
	w.Expect(is("config.json")).To(MatchJSON(fmt.Sprintf(`{"url": %q, "soap": %q, "mid": "510004567", "until": %q, "scopes": ["%s"]}`,
		strings.TrimSuffix(is("rest_instance_url"), "/"), is("soap_instance_url"), is("expires_at"), strings.ReplaceAll(is("scope"), " ", `","`))))
	w.Expect(is("scopes.txt")).To(Equal(strings.ReplaceAll(is("scope"), " ", "\n") + "\n"))
	w.Expect(is("fixed")).To(Equal("any text"))
	w.Expect(secret.Data).To(HaveKeyWithValue("empty", BeEmpty()))
	w.Expect(secret.Data).To(HaveLen(7 + 6))
	w.Expect(w.alive(strings.TrimPrefix(is("authorization"), "Bearer "), "510004567")).To(BeTrue())
}

func TestFurtherKeysAreReplacedInOneWriteWithTheToken(t *testing.T) {
	w := newWorld(t)
	w.token("journeys", authorization)
	w.ready("journeys")
	changes, err := admin.Watch(w.ctx, &corev1.SecretList{}, client.InNamespace(w.ns), client.MatchingLabels{"app.kubernetes.io/managed-by": "sfmctoken-operator"})
	w.Expect(err).NotTo(HaveOccurred())
	defer changes.Stop()
	seen := map[string]bool{}
	look := func() bool {
		select {
		case e := <-changes.ResultChan():
			secret := e.Object.(*corev1.Secret)
			w.Expect(string(secret.Data["authorization"]) == "Bearer "+string(secret.Data["access_token"])).To(BeTrue(), "one token in both, always")
			seen[string(secret.Data["access_token"])] = true
		default:
		}
		return len(seen) == 4
	}
	w.travel(time.Hour, time.Minute, look)
	w.Expect(w.sfmc.Count()).To(Equal(4))
}

func TestAChangeOfATemplateCostsNoTokenRequest(t *testing.T) {
	w := newWorld(t)
	token := w.token("journeys")
	w.ready("journeys")
	bare := w.secret("journeys").Data
	keys := func() map[string][]byte { return w.secret("journeys").Data }
	with := func(key, value string) map[string][]byte {
		all := map[string][]byte{key: []byte(value)}
		for key, value := range bare {
			all[key] = value
		}
		return all
	}
	change(w, token, authorization)
	w.Eventually(keys).Should(Equal(with("authorization", "Bearer "+w.held("journeys"))))
	change(w, token, furtherKeys(map[string]v1alpha1.TemplateText{"authorization": "OAuth {{ .AccessToken }}"}))
	w.Eventually(keys).Should(Equal(with("authorization", "OAuth "+w.held("journeys"))))
	change(w, token, furtherKeys(map[string]v1alpha1.TemplateText{"mid": "{{ .AccountID }}"}))
	w.Eventually(keys).Should(Equal(with("mid", "510004567")))
	// Also in an operator that has no token in memory.
	w.stopOperator()
	change(w, token, furtherKeys(nil))
	w.startOperator()
	w.Eventually(keys).Should(Equal(bare))
	w.ready("journeys")
	w.Expect(w.sfmc.Count()).To(Equal(1))
}

func TestAKeyFromATemplateThatIsEditedByHandIsPutRight(t *testing.T) {
	w := newWorld(t)
	w.token("journeys", authorization)
	w.ready("journeys")
	was := w.secret("journeys")
	right := func() map[string][]byte { return w.secret("journeys").Data }
	for _, edit := range []func(*corev1.Secret){
		func(s *corev1.Secret) { s.Data["authorization"] = []byte("Bearer of something else") },
		func(s *corev1.Secret) { delete(s.Data, "authorization") },
		func(s *corev1.Secret) { s.Data["another"] = []byte("x") },
	} {
		change(w, w.secret("journeys"), edit)
		w.Eventually(right).Should(Equal(was.Data))
		// Nor is the token lost if nobody who remembers it was there.
		w.stopOperator()
		change(w, w.secret("journeys"), edit)
		w.startOperator()
		w.Eventually(right).Should(Equal(was.Data))
	}
	w.ready("journeys")
	after := w.secret("journeys").ResourceVersion
	w.Consistently(func() string { return w.secret("journeys").ResourceVersion }, 300*time.Millisecond).Should(Equal(after), "no loop")
	w.Expect(w.sfmc.Count()).To(Equal(1))
}

func TestEachSharerRendersItsOwnTemplateFromTheSharedToken(t *testing.T) {
	w := newWorld(t)
	w.token("bare")
	w.token("one", authorization)
	w.token("other", furtherKeys(map[string]v1alpha1.TemplateText{"netrc": "password {{ .AccessToken }}"}))
	w.token("broken", misspelt)
	for range 3 {
		for _, name := range []string{"bare", "one", "other"} {
			w.ready(name)
		}
		held := w.held("bare")
		w.Eventually(func() string { return w.value("one", "authorization") }).Should(Equal("Bearer " + held))
		w.Eventually(func() string { return w.value("other", "netrc") }).Should(Equal("password " + held))
		w.Expect(w.secret("bare").Data).To(HaveLen(7))
		w.travel(20*time.Minute, time.Minute, func() bool { return w.held("bare") != held })
	}
	w.Expect(w.sfmc.Count()).To(Equal(4))
	w.says("broken", "Ready=False TemplateInvalid", "Stalled=True TemplateInvalid")
	w.Expect(w.secret("broken")).To(BeNil())
}

func TestABadTemplateIsStalledBeforeATokenIsAskedFor(t *testing.T) {
	w := newWorld(t)
	token := w.token("journeys", misspelt)
	w.says("journeys", "Ready=False TemplateInvalid", "Stalled=True TemplateInvalid", settled)
	w.Expect(w.message("journeys")).To(HavePrefix("spec.target.template.data, key authorization, line 2: there is no field .Token; there are .AccessToken, "))
	w.Eventually(func(g Gomega) {
		var events corev1.EventList
		g.Expect(admin.List(w.ctx, &events, client.InNamespace(w.ns))).To(Succeed())
		g.Expect(events.Items).To(ConsistOf(And(HaveField("Type", "Warning"), HaveField("Reason", "TemplateInvalid"), HaveField("Message", w.message("journeys")))))
	}).Should(Succeed())
	w.step(time.Hour)
	w.says("journeys", "Ready=False TemplateInvalid", "Stalled=True TemplateInvalid", settled)
	w.Expect(w.sfmc.Count()).To(BeZero())

	change(w, token, authorization)
	w.ready("journeys") // at once: the clock stands still
	w.Expect(w.value("journeys", "authorization")).To(Equal("Bearer " + w.held("journeys")))
	w.Expect(w.sfmc.Count()).To(Equal(1))
}

func TestABadTemplateLeavesTheSecretAsItIsUntilItIsMended(t *testing.T) {
	w := newWorld(t)
	token := w.token("journeys", authorization)
	expiry := w.ready("journeys").Status.ExpiresAt.Time
	was := w.secret("journeys")
	change(w, token, misspelt)
	w.says("journeys", valid, "Stalled=True TemplateInvalid", settled)
	w.setTime(expiry.Add(-time.Second)) // a new token has been due for minutes
	w.Consistently(func() []string { return w.conditions("journeys", valid, "Stalled=") }, 300*time.Millisecond).
		Should(Equal([]string{valid, "Stalled=True TemplateInvalid"}))
	w.setTime(expiry)
	w.says("journeys", "Ready=False TemplateInvalid", "Stalled=True TemplateInvalid", settled)
	w.Expect(w.secret("journeys")).To(Equal(was), "authorization is never of another token than access_token")
	w.Expect(w.sfmc.Count()).To(Equal(1))

	change(w, token, authorization)
	w.ready("journeys")
	w.Expect(w.held("journeys")).NotTo(Equal(string(was.Data["access_token"])))
	w.Expect(w.value("journeys", "authorization")).To(Equal("Bearer " + w.held("journeys")))
	w.Expect(w.sfmc.Count()).To(Equal(2))
}

func TestABadTemplateKeepsNoTokenForWhatTheSpecNamedBefore(t *testing.T) {
	for what, edit := range map[string]func(*world, *v1alpha1.SFMCToken){
		"another business unit": func(w *world, token *v1alpha1.SFMCToken) {
			change(w, token, func(token *v1alpha1.SFMCToken) { token.Spec.AccountID = "510009999" })
		},
		"another client": func(w *world, _ *v1alpha1.SFMCToken) {
			change(w, w.secret("sfmc-package"), func(s *corev1.Secret) { s.Data["client_id"] = []byte("another-client") })
		},
	} {
		t.Run(what, func(t *testing.T) {
			w := newWorld(t)
			token := w.token("journeys", authorization)
			w.ready("journeys")
			change(w, token, misspelt)
			w.says("journeys", valid, "Stalled=True TemplateInvalid")
			edit(w, token)
			w.says("journeys", "Ready=False TemplateInvalid", "Stalled=True TemplateInvalid")
			w.Expect(w.secret("journeys").Data).To(BeEmpty(), "neither access_token nor authorization")
			w.Expect(w.sfmc.Count()).To(Equal(1))
		})
	}
}

func TestNoMessageAboutATemplateShowsTheToken(t *testing.T) {
	w := newWorld(t)
	token := w.token("journeys")
	w.ready("journeys")
	held := w.held("journeys")
	for _, text := range []string{
		"{{ eq .Scopes .AccessToken }}", // text/template would say which values it can't compare
		"{{ index .Scopes .AccessToken }}",
		"{{ .AccessToken.Len }}",
		"{{ range .AccessToken }}{{ end }}",
		"{{ with .AccessToken }}{{ .Len }}{{ end }}",
		"{{ call .AccessToken }}",
		"{{ template .AccessToken }}",
		"{{ .AccessToken" + strings.Repeat(" | b64enc", 400) + " }}",
		strings.Repeat("{{ .AccessToken }}", 100) + "{{ with .Scope }}" + strings.Repeat("{{ with print . . }}", 20) + strings.Repeat("{{ end }}", 21),
	} {
		generation := w.get("journeys").Generation
		change(w, token, furtherKeys(map[string]v1alpha1.TemplateText{"bad": v1alpha1.TemplateText(text)}))
		w.Eventually(func() int64 { return w.get("journeys").Status.ObservedGeneration }).Should(BeNumerically(">", generation))
		w.says("journeys", valid, "Stalled=True TemplateInvalid")
	}
	w.Expect(w.held("journeys") == held).To(BeTrue())
	seen := w.everythingThatPeopleSee()
	w.Expect(seen["log"]).To(ContainSubstring("more than 256 KiB"))
	w.Expect(seen["events"]).To(ContainSubstring("TemplateInvalid"))
	for where, text := range seen {
		for _, form := range []string{held, base64.StdEncoding.EncodeToString([]byte(held)), held[:len(held)/2]} {
			// Not with a matcher, whose failure would print it.
			if strings.Contains(text, form) {
				t.Errorf("%s shows the token", where)
			}
		}
	}
}

func TestARefreshWithATemplateCostsNoMoreThanOneWithout(t *testing.T) {
	w := newWorld(t)
	w.token("journeys", furtherKeys(map[string]v1alpha1.TemplateText{"authorization": "Bearer {{ .AccessToken }}", "empty": ""}))
	seen := w.ready("journeys")
	w.quiet()
	changes, err := admin.Watch(w.ctx, &v1alpha1.SFMCTokenList{}, client.InNamespace(w.ns))
	w.Expect(err).NotTo(HaveOccurred())
	defer changes.Stop()
	before := w.apiRequests()
	due := seen.Status.RefreshAt.Time
	w.setTime(due.Add(time.Second))
	next(w, changes, func(token *v1alpha1.SFMCToken) bool { return token.Status.RefreshAt.After(due) })
	w.hasCost(before, map[string]int{"GET secrets": 1, "PUT secrets": 1, "PATCH sfmctokens/status": 1})
	w.costsNothingToLookAt("journeys")
	w.Expect(w.sfmc.Count()).To(Equal(2))
}

func TestTheAPIServerRefusesBadFurtherKeysWithAMessage(t *testing.T) {
	many := func(count int) string {
		var keys []string
		for i := range count {
			keys = append(keys, fmt.Sprintf("key-%d: x", i))
		}
		return strings.Join(keys, ", ")
	}
	type row struct{ what, data, says string }
	rows := []row{
		{"a key with a space", `"a b": x`, "data: a key is at most 253 letters, digits, '-', '_' and '.'"},
		{"a key with a slash", `a/b: x`, "data: a key is at most 253"},
		{"an empty key", `"": x`, "data: a key is at most 253"},
		{"a key that is a dot", `.: x`, "data: a key is at most 253"},
		{"a key that begins with two dots", `..data: x`, "does not begin with '..'; write for example authorization or config.json"},
		{"a key that is too long", strings.Repeat("k", 254) + `: x`, "data: a key is at most 253"},
		{"too many keys", many(21), "must have at most 20 items"},
		{"a value that is too long", `a: ` + strings.Repeat("x", 4097), "Too long: may not be more than 4096"},
		{"a value that is a number", `a: 1`, "must be of type string"},
		{"a list", `a: [x]`, "must be of type string"},
	}
	for _, key := range []string{"access_token", "token_type", "expires_at", "account_id", "scope", "rest_instance_url", "soap_instance_url"} {
		rows = append(rows, row{"the operator's own " + key, key + `: x`, "are the operator's own keys; use another key"})
	}
	try := func(data string) error {
		object := &unstructured.Unstructured{}
		manifest := "apiVersion: sfmctoken.dev/v1alpha1\nkind: SFMCToken\nmetadata: {name: bad, namespace: default}\nspec: {credentialsSecretRef: {name: p}, target: {template: {data: {" + data + "}}}}"
		if err := yaml.Unmarshal([]byte(manifest), object); err != nil {
			t.Fatal(err)
		}
		return admin.Create(t.Context(), object, client.DryRunAll)
	}
	for _, bad := range rows {
		t.Run(bad.what, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(try(bad.data)).To(MatchError(ContainSubstring(bad.says)))
		})
	}
	g := NewWithT(t)
	for _, good := range []string{``, many(20), `.netrc: x`, `Access_Token: x`, `a.b-c_D: ""`, strings.Repeat("k", 253) + `: ` + strings.Repeat("x", 4096)} {
		g.Expect(try(good)).To(Succeed(), good)
	}
}

func TestDocsTemplatesAreThoseOfTheCode(t *testing.T) {
	w := newWorld(t)
	// What the operator says that there is.
	offered := func(name string, text v1alpha1.TemplateText) []string {
		w.token(name, furtherKeys(map[string]v1alpha1.TemplateText{"bad": text}))
		w.says(name, "Stalled=True TemplateInvalid")
		_, list, found := strings.Cut(w.message(name), "; there are ")
		w.Expect(found).To(BeTrue())
		return strings.Split(list, ", ")
	}
	fields, functions := offered("field", "{{ .Nothing }}"), offered("function", "{{ nothing }}")

	shown := map[string][]string{}
	for _, heading := range []string{"Template field", "Template function"} {
		for _, row := range table(w.WithT, readDocument(w.WithT, "docs/templates.md"), heading) {
			for _, code := range codeIn(row[0]) {
				shown[heading] = append(shown[heading], strings.Fields(code)[0])
			}
		}
	}
	w.Expect(shown["Template field"]).To(ConsistOf(fields))
	w.Expect(shown["Template function"]).To(ConsistOf(functions))

	explained, err := cluster.Kubectl(w.ctx, "explain", "sfmctoken.spec.target.template.data")
	w.Expect(err).NotTo(HaveOccurred())
	for _, name := range append(fields, functions...) {
		w.Expect(explained).To(MatchRegexp(`(^|\W)`+regexp.QuoteMeta(name)+`\b`), "kubectl explain")
	}
}
