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
)

func TestThePluginShowsTheStatusOfAnSFMCTokenToWhomMaySeeIt(t *testing.T) {
	w := newWorldWithLegacyPod(t)
	w.pod("modern", readsByFile("journeys", ""))
	w.label(w.ns, "region", "emea")
	platform := w.platform()
	w.grant(platform, "for-emea", selecting(map[string]string{"region": "emea"}))
	w.token("granted", from(platform, "package"), func(token *v1alpha1.SFMCToken) { token.Spec.Scopes = []v1alpha1.Scope{"email_read"} })
	w.ready("granted")

	all := w.personWho(rights{
		w.ns: append(listsReaders, may("get", own, "sfmctokens"), may("list", own, "sfmctokens"), may("list", "", "secrets", "events"),
			may("get", "", "namespaces")),
		platform: {may("list", own, "sfmcaccessgrants")},
	})
	var said said
	w.Eventually(func() string { said = w.pluginAs(all, "status", "journeys"); return said.out }).ShouldNot(ContainSubstring("?"), "the rights have arrived")
	w.Expect(said.code).To(Equal(0))
	w.Expect(said.err).To(Equal("Not all is known: who shares the token is known in namespace " + w.ns +
		" only: you may not list SFMCTokens and Secrets in all namespaces\n"))
	w.Expect(said.out).To(HavePrefix("SFMCToken " + w.ns + "/journeys\n"))
	for _, line := range []string{
		`Credentials +Secret sfmc-package`, `Business unit +510004567`, `Scopes +all that the package has`, `Target +Secret journeys`,
		`Ready +True, TokenValid, for \S+: .+`, `Expires +in 1[5-7]m \(\S+Z\)`, `Next refresh +in \d+m.*`, `Refresh request +-`,
		`Shared with +reports`,
		`Pod modern, container app: volume at /sfmc/token`,
		`Pod legacy, container app: environment variable SFMC_TOKEN \(read once, when it starts: it misses every refresh\)`,
		`\S+ ago +Normal +TokenValid +.+`,
	} {
		w.Expect(said.out).To(MatchRegexp(`(?m)^  ` + line + `$`))
	}
	w.Expect(said.out).NotTo(ContainSubstring("Granted by"), "its credentials are in its own namespace")
	granted := w.pluginAs(all, "status", "granted")
	w.Expect(granted.code).To(Equal(0))
	w.Expect(granted.out).To(MatchRegexp(`(?m)^  Granted by +SFMCAccessGrant %s/for-emea$`, platform))
	w.Expect(granted.out).To(MatchRegexp(`(?m)^  Credentials +Secret %s/package$`, platform))
	w.Expect(granted.out).To(ContainSubstring("Readers\n  -\n"))

	least := w.personWho(rights{w.ns: {may("get", own, "sfmctokens")}})
	w.Eventually(func() int { said = w.pluginAs(least, "status", "granted"); return said.code }).Should(Equal(0), "the right has arrived")
	w.Expect(said.out).To(MatchRegexp(`(?m)^  Ready +True`))
	for _, line := range []string{`  Shared with +\?`, `  Granted by +\?`, `Readers\n  \?`, `Events\n  \?`} {
		w.Expect(said.out).To(MatchRegexp(`(?m)^` + line + `$`))
	}
	w.Expect(said.err).To(And(ContainSubstring("list SFMCAccessGrants in namespace "+platform), ContainSubstring("list Events"), ContainSubstring("list Pods")))

	blind := w.personWho(rights{w.ns: {may("get", own, "sfmctokens")}, platform: {may("list", own, "sfmcaccessgrants")}})
	w.Eventually(func() string { return w.pluginAs(blind, "status", "granted").err }).Should(ContainSubstring("read the labels of namespace " + w.ns))
	nobody := w.pluginAs(w.personWho(nil), "status", "granted")
	w.Expect(nobody.code).To(Equal(2))
	w.Expect(nobody.err).To(ContainSubstring("read the SFMCToken: "))
}

func TestThePluginShowsWhyAnSFMCTokenIsNotReady(t *testing.T) {
	w := newWorld(t)
	w.sfmc.AddFaults(sfmctest.Fault{Refusal: sfmctest.InvalidClient, Times: sfmctest.Forever})
	w.token("email")
	w.says("email", "Stalled=True RequestRefused")
	ill := w.kubectlSFMCToken("status", "email", "-n", w.ns)
	w.Expect(ill.code).To(Equal(1))
	w.Expect(ill.out).To(MatchRegexp(`(?s)  Ready +False, RequestRefused, .*  Stalled +True, RequestRefused, `), "Ready first")
	w.Expect(strings.Count(ill.out, w.message("email"))).To(BeNumerically(">=", 2), "a condition and an event")
	w.Expect(ill.out).To(MatchRegexp(`(?m)^  \S+ ago +Warning +RequestRefused +`))
	w.Expect(ill.out).To(MatchRegexp(`(?m)^  Target +Secret email \(holds no token\)$`))

	forged := &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.ns, Name: "forged"}, Type: "Normal", Reason: "Fine\x1b[31m", Message: "trust\nme",
		InvolvedObject: corev1.ObjectReference{APIVersion: "sfmctoken.dev/v1alpha1", Kind: "SFMCToken", Namespace: w.ns, Name: "email", UID: w.get("email").UID},
		LastTimestamp:  metav1.NewTime(time.Now().Add(-time.Hour)),
	}
	w.create(forged)
	both := w.kubectlSFMCToken("status", "email", "-n", w.ns).out
	w.Expect(both).To(MatchRegexp(`(?s)\n  60m ago +Normal +Fine \[31m +trust me\n  .*Warning +RequestRefused`), "newest last, and nothing speaks to the terminal")

	platform := w.platform()
	w.token("denied", from(platform, "package"))
	w.says("denied", denied...)
	none := w.kubectlSFMCToken("status", "denied", "-n", w.ns)
	w.Expect(none.code).To(Equal(1))
	w.Expect(none.out).To(MatchRegexp(`(?m)^  Granted by +no SFMCAccessGrant in namespace %s covers it$`, platform))
	w.Expect(w.kubectlSFMCToken("status", "no-such", "-n", w.ns).code).To(Equal(2))
}
