package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// unquotedAccount is what the API server says of an accountID without quotes; no rule of the CRD is asked before that.
const unquotedAccount = `spec.accountID in body must be of type string: "integer"`

func TestTheAPIServerRefusesBadManifestsWithAMessage(t *testing.T) {
	NewWithT(t).Expect(readDocument(NewWithT(t), "docs/troubleshooting.md").Text).To(ContainSubstring("`" + unquotedAccount + "`"))
	long := strings.Repeat("x", 300)
	for _, bad := range []struct{ what, spec, says string }{
		{"no credentials", `{accountID: "1"}`, "spec.credentialsSecretRef: Required value"},
		{"no name of the credentials", `{credentialsSecretRef: {}}`, "spec.credentialsSecretRef.name: Required value"},
		{"an empty name", `{credentialsSecretRef: {name: ""}}`, "spec.credentialsSecretRef.name"},
		{"a name with capitals", `{credentialsSecretRef: {name: My_Package}}`, "must be the name of a Secret"},
		{"a name that is too long", `{credentialsSecretRef: {name: ` + long + `}}`, "Too long"},
		{"another namespace without an account", `{credentialsSecretRef: {name: p, namespace: elsewhere}}`, "a credentialsSecretRef with a namespace needs accountID"},
		{"a namespace with capitals", `{credentialsSecretRef: {name: p, namespace: Elsewhere}, accountID: "1"}`, "must be the name of a namespace"},
		{"an empty namespace", `{credentialsSecretRef: {name: p, namespace: ""}, accountID: "1"}`, "credentialsSecretRef.namespace"},
		{"an account that is a number", `{credentialsSecretRef: {name: p}, accountID: 510004567}`, unquotedAccount},
		{"an account in words", `{credentialsSecretRef: {name: p}, accountID: EMEA}`, "accountID is the business unit's MID: digits only"},
		{"an empty account", `{credentialsSecretRef: {name: p}, accountID: ""}`, "accountID"},
		{"a zero account", `{credentialsSecretRef: {name: p}, accountID: "0"}`, "not starting with 0"},
		{"an account that is too long", `{credentialsSecretRef: {name: p}, accountID: "1234567890123456789"}`, "Too long"},
		{"no scope at all", `{credentialsSecretRef: {name: p}, scopes: []}`, "scopes must not be an empty list"},
		{"all scopes in one word", `{credentialsSecretRef: {name: p}, scopes: ["email_read email_send"]}`, "write one scope per list item"},
		{"scopes with commas", `{credentialsSecretRef: {name: p}, scopes: ["email_read,email_send"]}`, "a scope has no comma"},
		{"an empty scope", `{credentialsSecretRef: {name: p}, scopes: [""]}`, "spec.scopes[0]"},
		{"a scope twice", `{credentialsSecretRef: {name: p}, scopes: [email_read, email_read]}`, "Duplicate value"},
		{"a scope with a quote", `{credentialsSecretRef: {name: p}, scopes: ['a"b']}`, "no spaces, quotes or backslashes"},
		{"scopes that are no list", `{credentialsSecretRef: {name: p}, scopes: email_read}`, "must be of type array"},
		{"a target name with capitals", `{credentialsSecretRef: {name: p}, target: {name: Token}}`, "must be a valid Secret name"},
		{"the credentials as target", `{credentialsSecretRef: {name: p}, target: {name: p}}`, "must not be the credentials Secret"},
		{"the credentials as target by default", `{credentialsSecretRef: {name: bad}}`, "must not be the credentials Secret"},
		{"another deletion policy", `{credentialsSecretRef: {name: p}, target: {deletionPolicy: Orphan}}`, `supported values: "Delete", "Retain"`},
		{"the operator's label", `{credentialsSecretRef: {name: p}, target: {template: {metadata: {labels: {app.kubernetes.io/managed-by: me}}}}}`, "are the operator's own"},
		{"the operator's annotation", `{credentialsSecretRef: {name: p}, target: {template: {metadata: {annotations: {sfmctoken.dev/issued: x}}}}}`, "is the operator's own"},
		{"a label value with a space", `{credentialsSecretRef: {name: p}, target: {template: {metadata: {labels: {a: "b c"}}}}}`, "labels: a value is at most 63"},
		{"a label key with a space", `{credentialsSecretRef: {name: p}, target: {template: {metadata: {labels: {"a b": c}}}}}`, "labels: a key is a name"},
		{"a refreshBefore without a unit", `{credentialsSecretRef: {name: p}, refreshBefore: "300"}`, "refreshBefore must be a duration from 1m to 24h"},
		{"a refreshBefore that is a number", `{credentialsSecretRef: {name: p}, refreshBefore: 300}`, "must be of type string"},
		{"a refreshBefore that is too short", `{credentialsSecretRef: {name: p}, refreshBefore: 30s}`, "refreshBefore must be a duration from 1m to 24h"},
		{"a refreshBefore that is too long", `{credentialsSecretRef: {name: p}, refreshBefore: 25h}`, "refreshBefore must be a duration from 1m to 24h"},
		{"a negative refreshBefore", `{credentialsSecretRef: {name: p}, refreshBefore: -5m}`, "refreshBefore must be a duration from 1m to 24h"},
		{"a suspend in words", `{credentialsSecretRef: {name: p}, suspend: "yes"}`, "must be of type boolean"},
	} {
		t.Run(bad.what, func(t *testing.T) {
			g := NewWithT(t)
			object := &unstructured.Unstructured{}
			manifest := "apiVersion: sfmctoken.dev/v1alpha1\nkind: SFMCToken\nmetadata: {name: bad, namespace: default}\nspec: " + bad.spec
			g.Expect(yaml.Unmarshal([]byte(manifest), object)).To(Succeed())
			err := admin.Create(t.Context(), object, client.DryRunAll)
			g.Expect(err).To(MatchError(ContainSubstring(bad.says)))
		})
	}
}

func TestGoodManifestsAreTakenAsTheyAre(t *testing.T) {
	g := NewWithT(t)
	for _, spec := range []string{
		`{credentialsSecretRef: {name: p}}`,
		`{credentialsSecretRef: {name: p}, accountID: "510004567", scopes: [journeys_read, "urn:some/other-scope.v2"], refreshBefore: 1m30s}`,
		`{credentialsSecretRef: {name: my.package}, target: {name: a.b-c, deletionPolicy: Retain, template: {metadata: {labels: {example.com/team: emea, empty: ""}, annotations: {a: "any text, \" too"}}}}, suspend: true}`,
	} {
		object := &unstructured.Unstructured{}
		g.Expect(yaml.Unmarshal([]byte("apiVersion: sfmctoken.dev/v1alpha1\nkind: SFMCToken\nmetadata: {name: good, namespace: default}\nspec: "+spec), object)).To(Succeed())
		asked := object.DeepCopy()
		g.Expect(admin.Create(t.Context(), object, client.DryRunAll)).To(Succeed())
		// Defaults in the spec would be a difference for GitOps tools.
		g.Expect(object.Object["spec"]).To(Equal(asked.Object["spec"]))
		g.Expect(object.Object["status"]).To(Equal(map[string]any{"observedGeneration": int64(-1)}))
	}
}

func TestTheAPIServerRefusesBadGrantsWithAMessage(t *testing.T) {
	for _, bad := range []struct{ what, spec, says string }{
		{"no credentials", `{from: [{namespace: a}], accountIDs: ["1"]}`, "spec.credentialsSecretRef: Required value"},
		{"an empty name", `{credentialsSecretRef: {name: ""}, from: [{namespace: a}], accountIDs: ["1"]}`, "must be the name of a Secret"},
		{"credentials in another namespace", `{credentialsSecretRef: {name: p, namespace: b}, from: [{namespace: a}], accountIDs: ["1"]}`, `unknown field "spec.credentialsSecretRef.namespace"`},
		{"nobody", `{credentialsSecretRef: {name: p}, accountIDs: ["1"]}`, "spec.from: Required value"},
		{"an empty from", `{credentialsSecretRef: {name: p}, from: [], accountIDs: ["1"]}`, "spec.from"},
		{"an empty entry", `{credentialsSecretRef: {name: p}, from: [{}], accountIDs: ["1"]}`, "either namespace or namespaceSelector"},
		{"both in one entry", `{credentialsSecretRef: {name: p}, from: [{namespace: a, namespaceSelector: {}}], accountIDs: ["1"]}`, "either namespace or namespaceSelector"},
		{"an empty namespace", `{credentialsSecretRef: {name: p}, from: [{namespace: ""}], accountIDs: ["1"]}`, "from.namespace must be the name of a namespace"},
		{"all namespaces by a star", `{credentialsSecretRef: {name: p}, from: [{namespace: "*"}], accountIDs: ["1"]}`, "from.namespace must be the name of a namespace"},
		{"no account", `{credentialsSecretRef: {name: p}, from: [{namespace: a}]}`, "spec.accountIDs: Required value"},
		{"an empty list of accounts", `{credentialsSecretRef: {name: p}, from: [{namespace: a}], accountIDs: []}`, "spec.accountIDs"},
		{"an account that is a number", `{credentialsSecretRef: {name: p}, from: [{namespace: a}], accountIDs: [510004567]}`, "must be of type string"},
		{"an account in words", `{credentialsSecretRef: {name: p}, from: [{namespace: a}], accountIDs: ["*"]}`, "digits only"},
		{"an account twice", `{credentialsSecretRef: {name: p}, from: [{namespace: a}], accountIDs: ["1", "1"]}`, "Duplicate value"},
		{"no scope at all", `{credentialsSecretRef: {name: p}, from: [{namespace: a}], accountIDs: ["1"], scopes: []}`, "scopes must not be an empty list"},
		{"all scopes in one word", `{credentialsSecretRef: {name: p}, from: [{namespace: a}], accountIDs: ["1"], scopes: ["a b"]}`, "write one scope per list item"},
	} {
		t.Run(bad.what, func(t *testing.T) {
			g := NewWithT(t)
			manifest := "apiVersion: sfmctoken.dev/v1alpha1\nkind: SFMCAccessGrant\nmetadata: {name: bad, namespace: default}\nspec: " + bad.spec
			_, err := cluster.KubectlInput(t.Context(), strings.NewReader(manifest), "apply", "--dry-run=server", "-f", "-")
			g.Expect(err).To(MatchError(ContainSubstring(bad.says)))
		})
	}
}

func TestTheSamplesApply(t *testing.T) {
	g := NewWithT(t)
	out, err := cluster.Kubectl(t.Context(), "apply", "--dry-run=server", "-n", "default", "-k", harness.Path("config", "samples"))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(out).To(ContainSubstring("sfmctoken.dev"))
}

func TestKustomizesHashIsPutIntoReferencesAsWell(t *testing.T) {
	g := NewWithT(t)
	dir := t.TempDir()
	configuration, err := os.ReadFile(harness.Path("config", "kustomize", "name-reference.yaml"))
	g.Expect(err).NotTo(HaveOccurred())
	for name, text := range map[string]string{
		"name-reference.yaml": string(configuration),
		"kustomization.yaml": `
configurations: [name-reference.yaml]
resources: [token.yaml]
secretGenerator:
- {name: sfmc, literals: [client_id=a, client_secret=b, auth_base_uri=c]}
`,
		"token.yaml": `
apiVersion: sfmctoken.dev/v1alpha1
kind: SFMCToken
metadata: {name: journeys}
spec: {credentialsSecretRef: {name: sfmc}, accountID: "1"}
---
apiVersion: sfmctoken.dev/v1alpha1
kind: SFMCAccessGrant
metadata: {name: grant}
spec: {credentialsSecretRef: {name: sfmc}, from: [{namespace: a}], accountIDs: ["1"]}
`,
	} {
		g.Expect(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600)).To(Succeed())
	}
	out, err := cluster.Kubectl(t.Context(), "kustomize", dir)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(regexp.MustCompile(`name: sfmc-[a-z0-9]{10}\n`).FindAllString(out, -1)).To(HaveLen(3), "the Secret, and both references to it: %s", out)
}

func TestReconcilingLeavesNoDifferenceForGitOps(t *testing.T) {
	w := newWorld(t)
	manifest := filepath.Join(t.TempDir(), "token.yaml")
	w.Expect(os.WriteFile(manifest, []byte(`
apiVersion: sfmctoken.dev/v1alpha1
kind: SFMCToken
metadata: {name: journeys, namespace: `+w.ns+`}
spec:
  credentialsSecretRef: {name: sfmc-package}
  accountID: "510004567"
  scopes: [journeys_read]
  target: {template: {metadata: {labels: {team: emea}}}}
`), 0o600)).To(Succeed())
	for _, way := range []string{"--server-side=true", "--server-side=false"} {
		_, err := cluster.Kubectl(w.ctx, "apply", way, "--force-conflicts="+strings.TrimPrefix(way, "--server-side="), "-f", manifest)
		w.Expect(err).NotTo(HaveOccurred())
		w.ready("journeys")
		out, err := cluster.Kubectl(w.ctx, "diff", way, "-f", manifest)
		w.Expect(err).NotTo(HaveOccurred(), "kubectl diff exits with 1 on a difference")
		w.Expect(out).To(BeEmpty())
		generation := w.get("journeys").Generation
		w.Expect(generation).To(Equal(w.get("journeys").Status.ObservedGeneration))
	}
}

func TestWhatAPersonSees(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	w.ready("journeys")
	out, err := cluster.Kubectl(w.ctx, "get", "sfmct", "-n", w.ns)
	w.Expect(err).NotTo(HaveOccurred())
	lines := strings.Split(strings.TrimSpace(out), "\n")
	w.Expect(strings.Fields(lines[0])).To(Equal([]string{"NAME", "READY", "REASON", "BU", "SECRET", "EXPIRES", "AGE"}))
	w.Expect(strings.Fields(lines[1])[:5]).To(Equal([]string{"journeys", "True", "TokenValid", "510004567", "journeys"}))
	w.Expect(out).NotTo(ContainSubstring("<invalid>"))

	for _, selector := range []string{"spec.accountID=510004567", "spec.credentialsSecretRef.name=sfmc-package"} {
		out, err = cluster.Kubectl(w.ctx, "get", "sfmctokens", "-n", w.ns, "--field-selector", selector, "-o", "name")
		w.Expect(err).NotTo(HaveOccurred())
		w.Expect(out).To(ContainSubstring("journeys"))
	}
	out, err = cluster.Kubectl(w.ctx, "explain", "sfmctoken.spec.refreshBefore")
	w.Expect(err).NotTo(HaveOccurred())
	w.Expect(out).To(ContainSubstring("how long before its expiry the token is replaced"))
}

func TestSteadyStateIsSilent(t *testing.T) {
	w := newWorld(t)
	w.token("journeys")
	w.ready("journeys")
	events := func() []string {
		var list corev1.EventList
		w.Expect(admin.List(w.ctx, &list, client.InNamespace(w.ns))).To(Succeed())
		var reasons []string
		for _, e := range list.Items {
			reasons = append(reasons, e.Reason)
		}
		return reasons
	}
	w.Eventually(events).Should(Equal([]string{"TokenValid"}))
	for range 3 {
		asked := w.sfmc.Count()
		transition := w.get("journeys").Status.Conditions[0].LastTransitionTime
		w.travel(20*time.Minute, time.Minute, func() bool { return w.sfmc.Count() > asked })
		w.Eventually(func() bool {
			token := w.get("journeys")
			return token.Status.LastRefreshAt.After(transition.Time)
		}).Should(BeTrue())
		w.Expect(w.get("journeys").Status.Conditions).To(HaveLen(1))
		w.Expect(w.get("journeys").Status.Conditions[0].LastTransitionTime).To(Equal(transition))
	}
	w.Expect(events()).To(Equal([]string{"TokenValid"}))
}
