package sfmctest_test

import (
	"context"
	"net/http"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

func TestThrottlingAnswersAreAsDocumented(t *testing.T) {
	for name, row := range map[string]struct {
		fault      sfmctest.Fault
		status     int
		retryAfter string
		body       string
	}{
		"rate limit": {
			sfmctest.Fault{Refusal: sfmctest.RateLimited}, 429, "5",
			`{"message":"Rate limit exceeded","errorcode":50100,"retryAfter":5,"documentation":"` + docs + `"}`,
		},
		"rate limit, longer": {
			sfmctest.Fault{Refusal: sfmctest.RateLimited, RetryAfter: 90*time.Second + 1}, 429, "91",
			`{"message":"Rate limit exceeded","errorcode":50100,"retryAfter":91,"documentation":"` + docs + `"}`,
		},
		"blocked": {
			sfmctest.Fault{Refusal: sfmctest.Blocked}, 429, "",
			`{"message":"Your requests are temporarily blocked.","errorcode":50200,"documentation":"` + docs + `"}`,
		},
		"internal error": {
			sfmctest.Fault{Refusal: sfmctest.InternalError}, 500, "",
			`{"message":"Internal Server Error","errorcode":0,"documentation":"` + docs + `"}`,
		},
		"unavailable": {
			sfmctest.Fault{Refusal: sfmctest.Unavailable, RetryAfter: 10 * time.Second}, 503, "10",
			`{"message":"Service Unavailable","errorcode":50300,"documentation":"` + docs + `"}`,
		},
		"a date to retry after": {
			sfmctest.Fault{Refusal: sfmctest.Unavailable, Header: map[string]string{"Retry-After": "Sun, 01 Mar 2026 12:01:00 GMT"}},
			503, "Sun, 01 Mar 2026 12:01:00 GMT", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			s, _ := startServer(t, sfmctest.Options{})
			s.AddFaults(row.fault)
			got := ask(t, s, good())
			g.Expect(got.status).To(Equal(row.status))
			g.Expect(got.header.Get("Retry-After")).To(Equal(row.retryAfter))
			if row.body != "" {
				g.Expect(got.body).To(Equal(row.body))
			}
			g.Expect(ask(t, s, good()).status).To(Equal(http.StatusOK), "it happened once")
			g.Expect(s.Issued()).To(Equal(1))
		})
	}
}

func TestTheRateLimitCountsEachClientAndLastsUntilRequestsGetFewer(t *testing.T) {
	g := NewWithT(t)
	other := journeys()
	other.ClientID = "other"
	s, clock := startServer(t, sfmctest.Options{Packages: []sfmctest.Package{other}})
	s.ChangeMode(func(m *sfmctest.Mode) { m.RateLimit = sfmctest.RateLimit{Requests: 2, Window: time.Minute} })
	g.Expect(ask(t, s, good()).status).To(Equal(http.StatusOK))
	pass(clock, 10*time.Second)
	g.Expect(ask(t, s, good()).status).To(Equal(http.StatusOK))
	pass(clock, 20*time.Second)
	got := ask(t, s, good())
	g.Expect(got.status).To(Equal(http.StatusTooManyRequests))
	g.Expect(got.header.Get("Retry-After")).To(Equal("40"), "until the second request is a minute old")
	g.Expect(ask(t, s, with(map[string]any{"client_id": "other"})).status).To(Equal(http.StatusOK))
	g.Expect(ask(t, s, with(map[string]any{"client_id": "nobody"})).status).To(Equal(http.StatusUnauthorized))

	pass(clock, 35*time.Second)
	got = ask(t, s, good())
	g.Expect(got.status).To(Equal(http.StatusTooManyRequests), "asking again made it last longer")
	g.Expect(got.header.Get("Retry-After")).To(Equal("25"))
	pass(clock, 25*time.Second)
	g.Expect(ask(t, s, good()).status).To(Equal(http.StatusOK), "it waited as told")
}

func TestFieldsOfAGoodAnswerCanBeReplaced(t *testing.T) {
	for name, row := range map[string]struct {
		fields map[string]string
		want   string
	}{
		"numeric string": {map[string]string{"expires_in": `"1079"`}, `"expires_in":"1079"`},
		"zero":           {map[string]string{"expires_in": `0`}, `"expires_in":0`},
		"negative":       {map[string]string{"expires_in": `-1`}, `"expires_in":-1`},
		"huge":           {map[string]string{"expires_in": `1e300`}, `"expires_in":1e300`},
		"wrong type":     {map[string]string{"access_token": `{"a":1}`}, `{"access_token":{"a":1},`},
		"one more":       {map[string]string{"refresh_token": `"r"`}, `,"refresh_token":"r"}`},
		"absent":         {map[string]string{"expires_in": ""}, `"token_type":"Bearer","scope"`},
		"first absent":   {map[string]string{"access_token": ""}, `{"token_type":"Bearer"`},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := startServer(t, sfmctest.Options{})
			s.AddFaults(sfmctest.Fault{Fields: row.fields})
			NewWithT(t).Expect(ask(t, s, good()).body).To(ContainSubstring(row.want))
		})
	}
}

func TestAnAnswerCanBeAnything(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	s.AddFaults(
		sfmctest.ProxyPage(407),
		sfmctest.Fault{Status: 200},
		sfmctest.Fault{Body: "not JSON"},
		sfmctest.Fault{Status: 400, Body: `{"error":7}`},
		sfmctest.Redirect("https://elsewhere.example.com/v2/token"),
		sfmctest.Fault{Status: 401, Body: `{"error":"invalid_client","error_description":"{{client_id}} sent {{client_secret}}"}`},
	)
	got := ask(t, s, good())
	g.Expect(got.status).To(Equal(407))
	g.Expect(got.header.Get("Content-Type")).To(Equal("text/html"))
	g.Expect(got.body).To(HavePrefix("<!DOCTYPE html>"))
	g.Expect(ask(t, s, good()).statusAndBody()).To(Equal("200 "))
	g.Expect(ask(t, s, good()).statusAndBody()).To(Equal("200 not JSON"))
	g.Expect(ask(t, s, good()).statusAndBody()).To(Equal(`400 {"error":7}`))
	got = ask(t, s, good())
	g.Expect(got.status).To(Equal(http.StatusTemporaryRedirect))
	g.Expect(got.header.Get("Location")).To(Equal("https://elsewhere.example.com/v2/token"))
	g.Expect(ask(t, s, good()).body).To(ContainSubstring(journeys().ClientID + " sent active-secret"))
	g.Expect(s.Issued()).To(BeZero())
	g.Expect(s.Faults()).To(BeEmpty())
}

func TestATokenCanBeLongerThanDocumented(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	s.AddFaults(sfmctest.Fault{TokenLength: 2000})
	token := ask(t, s, good()).token(t).AccessToken
	g.Expect(token).To(HaveLen(2000))
	g.Expect(tokenContext(t, s, token).status).To(Equal(http.StatusOK))
}

func TestABodyCanBePaddedBeyondAnyLimit(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	s.AddFaults(sfmctest.Fault{PadTo: 100_000})
	got := ask(t, s, good())
	g.Expect(got.body).To(HaveLen(100_000))
	got.token(t)
}

func TestLatencyEndsWhenTheClientGoes(t *testing.T) {
	g := NewWithT(t)
	answered := make(chan sfmctest.TokenRequest, 2)
	s, _ := startServer(t, sfmctest.Options{OnTokenRequest: func(r sfmctest.TokenRequest) { answered <- r }})
	s.AddFaults(sfmctest.Fault{Latency: time.Millisecond}, sfmctest.Fault{Latency: time.Hour})
	ask(t, s, good()).token(t)
	g.Expect(<-answered).To(HaveField("Issued", true))
	giveUp(t, s)
	g.Expect(<-answered).To(And(HaveField("Status", 0), HaveField("Issued", false)))
}

// giveUp sends a request and goes away as soon as it has arrived.
func giveUp(t *testing.T, s *sfmctest.Server) {
	t.Helper()
	g := NewWithT(t)
	before := s.Count()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := try(ctx, s, good())
		ended <- err
	}()
	g.Eventually(s.Count).Should(Equal(before + 1))
	cancel()
	g.Expect(<-ended).To(MatchError(context.Canceled))
}

func TestFaultsAreLimitedToAClientABusinessUnitAndANumberOfTimes(t *testing.T) {
	g := NewWithT(t)
	other := journeys()
	other.ClientID = "other"
	s, _ := startServer(t, sfmctest.Options{Packages: []sfmctest.Package{other}})
	s.AddFaults(
		sfmctest.Fault{Status: 503, Times: sfmctest.Forever},
		sfmctest.Fault{Status: 500, ClientID: "other", Times: 2},
		sfmctest.Fault{Status: 502, AccountID: emea},
	)
	ofOther := with(map[string]any{"client_id": "other"})
	g.Expect(ask(t, s, ofOther).status).To(Equal(500), "limited faults come before standing ones")
	g.Expect(ask(t, s, good()).status).To(Equal(503))
	g.Expect(ask(t, s, with(map[string]any{"account_id": 510004567})).status).To(Equal(502))
	g.Expect(s.Faults()).To(HaveExactElements(
		And(HaveField("ClientID", "other"), HaveField("Times", 1)), HaveField("Times", sfmctest.Forever)))
	g.Expect(ask(t, s, ofOther).status).To(Equal(500))
	g.Expect(ask(t, s, ofOther).status).To(Equal(503))
	g.Expect(s.Issued()).To(BeZero())
	s.ClearFaults()
	g.Expect(ask(t, s, ofOther).status).To(Equal(200))
}

func TestAMisspeltFaultPanics(t *testing.T) {
	s, _ := startServer(t, sfmctest.Options{})
	for _, wrong := range []sfmctest.Fault{{Wire: "cut"}, {Refusal: "throttled"}, {Status: 42}} {
		NewWithT(t).Expect(func() { s.AddFaults(wrong) }).To(Panic())
	}
}
