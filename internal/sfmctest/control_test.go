package sfmctest_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

func control(t *testing.T, s *sfmctest.Server, method, path, body string) reply {
	t.Helper()
	return mustSend(t, s, method, "_control/"+path, nil, body)
}

func TestTheAuthoritysCertificateIsReadOverHTTP(t *testing.T) {
	s, _ := startServer(t, sfmctest.Options{})
	NewWithT(t).Expect(control(t, s, http.MethodGet, "ca", "").body).To(Equal(string(s.CACert())))
}

func TestPackagesAreAddedAndChangedOverHTTP(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	g.Expect(control(t, s, http.MethodGet, "health", "").status).To(Equal(204))
	g.Expect(control(t, s, http.MethodPut, "packages", `[{"clientID":"new","clientSecret":"one","accountID":"510001000","scopes":["a","b"]}]`).status).To(Equal(204))
	g.Expect(control(t, s, http.MethodPut, "packages", `{"clientID":"newer","clientSecret":"one","accountID":"510001000"}`).status).To(Equal(204))
	g.Expect(control(t, s, http.MethodPatch, "mode", `{"stagedAfter":0}`).status).To(Equal(204))
	change := func(body string) {
		g.Expect(control(t, s, http.MethodPatch, "packages/new", body).status).To(Equal(204), body)
	}
	request := func(secret string) map[string]any {
		return with(map[string]any{"client_id": "new", "client_secret": secret, "account_id": emea})
	}
	change(`{"enableAccounts":["510004567"],"stageSecret":"two","scopes":["a"]}`)
	g.Expect(ask(t, s, request("one")).token(t).Scope).To(Equal("a"))
	g.Expect(ask(t, s, request("two")).status).To(Equal(200))
	change(`{"activateStaged":true}`)
	g.Expect(ask(t, s, request("one")).status).To(Equal(401))
	g.Expect(ask(t, s, request("two")).status).To(Equal(200))
	change(`{"disableAccounts":["510004567"]}`)
	g.Expect(ask(t, s, request("two")).status).To(Equal(401))
	change(`{"disabled":true,"enableAccounts":["510004567"]}`)
	g.Expect(ask(t, s, request("two")).status).To(Equal(401))

	listed := control(t, s, http.MethodGet, "packages", "").body
	g.Expect(listed).To(And(ContainSubstring(`"new"`), ContainSubstring(`"disabled":true`), Not(ContainSubstring(`two`))))
}

func TestFaultsAreScriptedOverHTTP(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	g.Expect(control(t, s, http.MethodPost, "faults", `[{"refusal":"rate-limited","retryAfter":"7s","times":-1},{"status":502,"body":"x","latency":0.001}]`).status).To(Equal(204))
	g.Expect(control(t, s, http.MethodPost, "faults", `{"wire":"cut-body","clientID":"nobody","every":"1ms"}`).status).To(Equal(204))
	g.Expect(control(t, s, http.MethodGet, "faults", "").body).To(MatchJSON(`[
		{"status":502,"body":"x","latency":"1ms","times":1},
		{"wire":"cut-body","clientID":"nobody","every":"1ms","times":1},
		{"refusal":"rate-limited","retryAfter":"7s","times":-1}]`))
	g.Expect(ask(t, s, good()).status).To(Equal(502))
	g.Expect(ask(t, s, good()).header.Get("Retry-After")).To(Equal("7"))
	g.Expect(control(t, s, http.MethodDelete, "faults", "").status).To(Equal(204))
	g.Expect(ask(t, s, good()).status).To(Equal(200))
}

func TestTheModeIsChangedOverHTTP(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	g.Expect(control(t, s, http.MethodPatch, "mode", `{"killOldTokens":true,"expiresIn":180,"rateLimit":{"requests":3,"window":"1m"}}`).status).To(Equal(204))
	g.Expect(s.Mode()).To(Equal(sfmctest.Mode{
		KillOldTokens: true, ExpiresIn: 3 * time.Minute, StagedAfter: 5 * time.Minute,
		RateLimit: sfmctest.RateLimit{Requests: 3, Window: time.Minute},
	}))
	g.Expect(control(t, s, http.MethodGet, "mode", "").body).To(MatchJSON(`{
		"expiresIn":"3m0s","life":"0s","killOldTokens":true,"bareInstanceURLs":false,"latency":"0s",
		"rateLimit":{"requests":3,"window":"1m0s"},"stagedAfter":"5m0s","forbidDisabledAccounts":false}`))
	g.Expect(control(t, s, http.MethodPatch, "mode", `{"killOldTokens":false,"latency":"soon"}`).status).To(Equal(400))
	g.Expect(s.Mode().KillOldTokens).To(BeTrue(), "a refused change changes nothing")
}

func TestRequestsAndTokensAreReadOverHTTP(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	token := ask(t, s, good()).token(t).AccessToken
	var requests []sfmctest.TokenRequest
	g.Expect(json.Unmarshal([]byte(control(t, s, http.MethodGet, "requests", "").body), &requests)).To(Succeed())
	g.Expect(requests).To(Equal(s.Requests()))
	g.Expect(control(t, s, http.MethodGet, "counts", "").body).To(MatchJSON(`{"requests":1,"issued":1,"identities":[
		{"clientID":"journeysclientid00000000","accountID":"","scopes":"","scopeSent":false,"requests":1,"issued":1}]}`))
	g.Expect(control(t, s, http.MethodGet, "tokens", "").body).To(And(
		ContainSubstring(`"accountID":"510001000"`), Not(ContainSubstring(token))))

	check := `{"token":"` + token + `"}`
	g.Expect(control(t, s, http.MethodPost, "check", check).body).To(MatchJSON(`{"accountID":"510001000","alive":true}`))
	g.Expect(control(t, s, http.MethodDelete, "tokens", "").status).To(Equal(400))
	g.Expect(control(t, s, http.MethodDelete, "tokens?client_id="+journeys().ClientID+"&account_id="+owner, "").status).To(Equal(204))
	g.Expect(control(t, s, http.MethodPost, "check", check).body).To(MatchJSON(`{"accountID":"510001000","alive":false}`))

	g.Expect(control(t, s, http.MethodDelete, "requests", "").status).To(Equal(204))
	g.Expect(s.Count()).To(BeZero())
}

func TestMistakesInScriptsAreToldAndChangeNothing(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	before := s.Mode()
	for _, row := range [][3]string{
		{http.MethodPut, "packages", `{"client_id":"x","clientSecret":"s","accountID":"510001000"}`},
		{http.MethodPut, "packages", `{"clientID":"x","clientSecret":"s","accountID":"EMEA"}`},
		{http.MethodPut, "packages", ``},
		{http.MethodPatch, "packages/nobody", `{"disabled":true}`},
		{http.MethodPatch, "packages/journeysclientid00000000", `{"scope":["a"]}`},
		{http.MethodPost, "faults", `{"wire":"cut"}`},
		{http.MethodPost, "faults", `{"wires":"cut-body"}`},
		{http.MethodPost, "faults", `[{"latency":[]}]`},
		{http.MethodPatch, "mode", `{"killTokens":true}`},
		{http.MethodPatch, "mode", `{`},
		{http.MethodPost, "check", `{"tokens":""}`},
	} {
		got := control(t, s, row[0], row[1], row[2])
		g.Expect(got.status).To(Equal(400), "%v", row)
		g.Expect(got.body).NotTo(BeEmpty())
	}
	g.Expect(control(t, s, http.MethodPost, "mode", "{}").status).To(Equal(405))
	g.Expect(s.Mode()).To(Equal(before))
	g.Expect(s.Faults()).To(BeEmpty())
	g.Expect(s.Packages()).To(HaveLen(1))
}
