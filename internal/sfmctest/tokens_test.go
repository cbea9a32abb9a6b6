package sfmctest_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

func readAll(t *testing.T, response *http.Response) string {
	t.Helper()
	body, err := io.ReadAll(response.Body)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return string(body)
}

func TestATokenActsInTheBusinessUnitItWasAskedFor(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	ofOwner := ask(t, s, good()).token(t).AccessToken
	ofEMEA := ask(t, s, with(map[string]any{"account_id": 510004567})).token(t).AccessToken
	g.Expect(tokenContext(t, s, ofOwner).body).To(Equal(`{"enterprise":{"id":510000001},"organization":{"id":510001000},"user":{"id":720000001}}`))
	g.Expect(tokenContext(t, s, ofEMEA).body).To(Equal(`{"enterprise":{"id":510000001},"organization":{"id":510004567},"user":{"id":720000001}}`))
}

func TestATokenReallyLivesTwoMinutesLongerThanReported(t *testing.T) {
	g := NewWithT(t)
	s, clock := startServer(t, sfmctest.Options{})
	token := ask(t, s, good()).token(t).AccessToken
	pass(clock, 1199*time.Second-time.Nanosecond)
	g.Expect(tokenContext(t, s, token).status).To(Equal(http.StatusOK))
	g.Expect(s.IssuedTokens()).To(HaveLen(1))

	pass(clock, time.Nanosecond)
	got := tokenContext(t, s, token)
	g.Expect(got.status).To(Equal(http.StatusUnauthorized))
	g.Expect(got.body).To(Equal(`{"documentation":"` + docs + `","errorcode":0,"message":"Not Authorized"}`))
	g.Expect(s.IssuedTokens()).To(BeEmpty())
	_, alive := s.Check(token)
	g.Expect(alive).To(BeFalse())
}

func TestLifeAndReportedLifeCanBeSet(t *testing.T) {
	g := NewWithT(t)
	s, clock := startServer(t, sfmctest.Options{ExpiresIn: 30 * time.Second, Life: 40 * time.Second})
	token := ask(t, s, good()).token(t)
	g.Expect(token.ExpiresIn).To(Equal(30))
	pass(clock, 40*time.Second)
	g.Expect(tokenContext(t, s, token.AccessToken).status).To(Equal(http.StatusUnauthorized))

	s.ChangeMode(func(m *sfmctest.Mode) { m.ExpiresIn, m.Life = 50*time.Second, 0 })
	token = ask(t, s, good()).token(t)
	g.Expect(token.ExpiresIn).To(Equal(50))
	g.Expect(s.IssuedTokens()).To(HaveExactElements(HaveField("ExpiresAt", clock.Now().Add(170*time.Second))))
}

func TestTokensThatWereNeverIssuedAreRefused(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	other, _ := startServer(t, sfmctest.Options{})
	token := ask(t, s, good()).token(t).AccessToken
	ask(t, other, good()).token(t)
	for name, forged := range map[string]string{
		"empty": "", "words": "no token", "cut": token[:511], "longer": token + "x", "altered": token[:len(token)-1] + "!",
		"four parts": "a.b.c.d", "no base64": "a.%.c.d", "no number": "a." + strings.Repeat("Z", 60) + ".c.d",
	} {
		g.Expect(tokenContext(t, s, forged).status).To(Equal(http.StatusUnauthorized), name)
	}
	g.Expect(tokenContext(t, other, token).status).To(Equal(http.StatusUnauthorized), "another server's token")
	g.Expect(mustSend(t, s, http.MethodGet, "platform/v1/tokenContext", nil, "").status).To(Equal(http.StatusUnauthorized))
}

func TestSOAPAnswersRetrieveAndSaysTokenExpired(t *testing.T) {
	g := NewWithT(t)
	s, clock := startServer(t, sfmctest.Options{})
	token := ask(t, s, with(map[string]any{"account_id": emea})).token(t).AccessToken
	call := func(body string) reply {
		return mustSend(t, s, http.MethodPost, "Service.asmx", http.Header{"Content-Type": {"text/xml"}},
			`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Header><fueloauth xmlns="http://exacttarget.com">`+token+`</fueloauth></s:Header><s:Body>`+body+`</s:Body></s:Envelope>`)
	}
	retrieve := func(objectType string) string {
		return `<RetrieveRequestMsg xmlns="http://exacttarget.com/wsdl/partnerAPI"><RetrieveRequest><ObjectType>` + objectType + `</ObjectType></RetrieveRequest></RetrieveRequestMsg>`
	}
	got := call(retrieve("BusinessUnit"))
	g.Expect(got.status).To(Equal(http.StatusOK))
	g.Expect(got.body).To(And(ContainSubstring("<OverallStatus>OK</OverallStatus>"), ContainSubstring("<ID>"+emea+"</ID>")))
	got = call(retrieve("A&amp;B"))
	g.Expect(got.status).To(Equal(http.StatusOK))
	g.Expect(got.body).To(ContainSubstring("Unable to find a handler for object type: A&amp;B."))
	got = call("<CreateRequest/>")
	g.Expect(got.status).To(Equal(http.StatusInternalServerError))
	g.Expect(got.body).To(ContainSubstring("answers Retrieve alone"))
	pass(clock, time.Hour)
	got = call(retrieve("BusinessUnit"))
	g.Expect(got.status).To(Equal(http.StatusInternalServerError))
	g.Expect(got.body).To(ContainSubstring("<faultstring>Token Expired</faultstring>"))
	g.Expect(mustSend(t, s, http.MethodPost, "Service.asmx", nil, "no XML").status).To(Equal(http.StatusInternalServerError))
}

func TestOldTokensLiveOnWhenANewOneIsIssued(t *testing.T) {
	s, _ := startServer(t, sfmctest.Options{})
	first := ask(t, s, good()).token(t).AccessToken
	ask(t, s, good()).token(t)
	NewWithT(t).Expect(tokenContext(t, s, first).status).To(Equal(http.StatusOK))
}

func TestInKillModeANewTokenEndsTheOlderOnesOfItsClientAndBusinessUnit(t *testing.T) {
	g := NewWithT(t)
	other := journeys()
	other.ClientID = "other"
	s, _ := startServer(t, sfmctest.Options{KillOldTokens: true, Packages: []sfmctest.Package{other}})
	first := ask(t, s, good()).token(t).AccessToken
	ofEMEA := ask(t, s, with(map[string]any{"account_id": 510004567})).token(t).AccessToken
	ofOther := ask(t, s, with(map[string]any{"client_id": "other"})).token(t).AccessToken
	g.Expect(tokenContext(t, s, first).status).To(Equal(http.StatusOK))

	// The owner's MID is the same business unit as none; other scopes don't help.
	second := ask(t, s, with(map[string]any{"account_id": 510001000, "scope": "email_read"})).token(t).AccessToken
	g.Expect(tokenContext(t, s, first).status).To(Equal(http.StatusUnauthorized))
	for _, token := range []string{second, ofEMEA, ofOther} {
		g.Expect(tokenContext(t, s, token).status).To(Equal(http.StatusOK))
	}
	g.Expect(s.IssuedTokens()).To(HaveLen(3))
}

func TestTokensCanBeKilledBeforeTheirTime(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	killed := ask(t, s, good()).token(t).AccessToken
	kept := ask(t, s, with(map[string]any{"account_id": emea})).token(t).AccessToken
	s.KillTokens(journeys().ClientID, owner)
	g.Expect(tokenContext(t, s, killed).status).To(Equal(http.StatusUnauthorized))
	g.Expect(tokenContext(t, s, kept).status).To(Equal(http.StatusOK))
	g.Expect(tokenContext(t, s, ask(t, s, good()).token(t).AccessToken).status).To(Equal(http.StatusOK))
}

func TestDeadTokensAreForgottenAndLiveOnesAreNot(t *testing.T) {
	g := NewWithT(t)
	s, clock := startServer(t, sfmctest.Options{})
	for range 1100 {
		ask(t, s, good())
	}
	pass(clock, time.Hour)
	live := ask(t, s, good()).token(t).AccessToken
	for range 1100 {
		ask(t, s, good())
	}
	g.Expect(tokenContext(t, s, live).status).To(Equal(http.StatusOK))
	g.Expect(s.IssuedTokens()).To(HaveLen(1101))
	g.Expect(s.Issued()).To(Equal(2201))
}
