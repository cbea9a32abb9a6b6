package sfmctest_test

import (
	"encoding/base64"
	"net/http"
	"net/url"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

func TestAGoodRequestIsAnsweredAsLiveOnesAre(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	got := ask(t, s, good())
	token := got.token(t)
	g.Expect(got.header.Get("Content-Type")).To(Equal("application/json;charset=utf-8"))
	g.Expect(got.body).To(MatchRegexp(`^\{"access_token":"[^"]+","token_type":"Bearer","expires_in":1079,"scope":"[^"]+","soap_instance_url":"[^"]+","rest_instance_url":"[^"]+"\}$`))
	g.Expect(token.Scope).To(Equal("email_read email_send journeys_read"))
	g.Expect(token.RESTInstanceURL).To(Equal(s.URL()))
	g.Expect(token.SOAPInstanceURL).To(Equal(s.URL()))
}

func TestATokenHasFourPartsAnd512CharactersAndEmbedsTheClientID(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	first, second := ask(t, s, good()).token(t).AccessToken, ask(t, s, good()).token(t).AccessToken
	g.Expect(first).NotTo(Equal(second))
	g.Expect(first).To(HaveLen(512))
	parts := strings.Split(first, ".")
	g.Expect(parts).To(HaveLen(4))
	header, err := base64.RawURLEncoding.DecodeString(parts[0])
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(header).To(MatchJSON(`{"alg":"HS256","kid":"4","ver":"1","typ":"JWT"}`))
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(string(claims)).To(And(ContainSubstring(journeys().ClientID), Not(ContainSubstring(`"exp"`))))
}

// The error_uri and documentation of all refusals, as seen in the first one.
const docs = "https://developer.salesforce.com/docs"

func TestRefusalsHaveTheRecordedStatusAndBody(t *testing.T) {
	disabled := journeys()
	disabled.ClientID, disabled.Disabled = "disabled", true
	s, _ := startServer(t, sfmctest.Options{Packages: []sfmctest.Package{disabled}})
	s.AddFaults(sfmctest.Fault{ClientID: "legacy", Refusal: sfmctest.LegacyPackage})
	invalidClient := `{"error":"invalid_client","error_description":"Client authentication failed. Make sure that the client ID and client secret are valid and that the package is installed and enabled.","error_uri":"` + docs + `"}`

	for name, row := range map[string]struct {
		changes map[string]any
		status  int
		body    string
		refusal sfmctest.Refusal
	}{
		"wrong secret":         {map[string]any{"client_secret": "wrong"}, 401, invalidClient, sfmctest.InvalidClient},
		"disabled package":     {map[string]any{"client_id": "disabled"}, 401, invalidClient, sfmctest.InvalidClient},
		"unknown id":           {map[string]any{"client_id": "nobody"}, 401, `{"error":"invalid_client","error_description":"Invalid client ID. Use the client ID in Marketing Cloud Installed Packages.","error_uri":"` + docs + `"}`, sfmctest.UnknownClient},
		"legacy package":       {map[string]any{"client_id": "legacy"}, 401, `{"error":"invalid_client","error_description":"This integration is not eligible to use the /v2/token endpoint because the integration was created in a legacy package.","error_uri":"` + docs + `"}`, sfmctest.LegacyPackage},
		"BU not enabled":       {map[string]any{"account_id": 510009999}, 401, "", sfmctest.AccountNotEnabled},
		"other grant":          {map[string]any{"grant_type": "password"}, 400, "", sfmctest.UnsupportedGrantType},
		"no grant":             {map[string]any{"grant_type": nil}, 400, "", sfmctest.UnsupportedGrantType},
		"number as client_id":  {map[string]any{"client_id": 12345}, 400, "", sfmctest.InvalidRequest},
		"boolean as secret":    {map[string]any{"client_secret": true}, 400, "", sfmctest.InvalidRequest},
		"list as scope":        {map[string]any{"scope": []string{"email_read"}}, 400, "", sfmctest.InvalidRequest},
		"no client_id":         {map[string]any{"client_id": nil}, 400, "", sfmctest.InvalidRequest},
		"no client_secret":     {map[string]any{"client_secret": nil}, 400, "", sfmctest.InvalidRequest},
		"words as account_id":  {map[string]any{"account_id": "EMEA"}, 400, "", sfmctest.InvalidRequest},
		"empty account_id":     {map[string]any{"account_id": ""}, 400, "", sfmctest.InvalidRequest},
		"fraction":             {map[string]any{"account_id": 5.5}, 400, "", sfmctest.InvalidRequest},
		"object as account_id": {map[string]any{"account_id": map[string]any{}}, 400, "", sfmctest.InvalidRequest},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			before := s.Issued()
			got := ask(t, s, with(row.changes))
			g.Expect(got.status).To(Equal(row.status), got.body)
			g.Expect(got.header.Get("Content-Type")).To(HavePrefix("application/json"))
			if row.body != "" {
				g.Expect(got.body).To(Equal(row.body))
			} else {
				g.Expect(got.body).To(MatchRegexp(`^\{"error":"[a-z_]+","error_description":".+","error_uri":"` + docs + `"\}$`))
			}
			requests := s.Requests()
			g.Expect(requests[len(requests)-1].Refusal).To(Equal(row.refusal))
			g.Expect(s.Issued()).To(Equal(before))
		})
	}
}

func TestAnUnsupportedGrantTypeIsNamed(t *testing.T) {
	s, _ := startServer(t, sfmctest.Options{})
	NewWithT(t).Expect(ask(t, s, with(map[string]any{"grant_type": "password"})).body).
		To(HavePrefix(`{"error":"unsupported_grant_type","error_description":"Use \"authorization_code\" or `))
}

func TestABusinessUnitThatIsNotEnabledCanBeAnsweredWith403Too(t *testing.T) {
	s, _ := startServer(t, sfmctest.Options{})
	s.ChangeMode(func(m *sfmctest.Mode) { m.ForbidDisabledAccounts = true })
	NewWithT(t).Expect(ask(t, s, with(map[string]any{"account_id": foreign})).status).To(Equal(http.StatusForbidden))
}

func TestScopes(t *testing.T) {
	for name, row := range map[string]struct {
		scope   any
		granted string
	}{
		"absent: all of the package's":          {nil, "email_read email_send journeys_read"},
		"empty: no permission at all":           {"", ""},
		"requested ones that the package has":   {"journeys_read email_read webhooks_read", "email_read journeys_read"},
		"one twice":                             {"email_read email_read", "email_read"},
		"none that the package has":             {"webhooks_read", ""},
		"a package scope's prefix is not scope": {"email", ""},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := startServer(t, sfmctest.Options{})
			token := ask(t, s, with(map[string]any{"scope": row.scope})).token(t)
			NewWithT(t).Expect(token.Scope).To(Equal(row.granted))
		})
	}
}

func TestAccountIDMayBeANumberOrANumericString(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	for _, accountID := range []any{510004567, "510004567"} {
		token := ask(t, s, with(map[string]any{"account_id": accountID})).token(t)
		account, alive := s.Check(token.AccessToken)
		g.Expect(account).To(Equal(emea))
		g.Expect(alive).To(BeTrue())
	}
	g.Expect(s.Requests()).To(HaveExactElements(
		HaveField("AccountIDType", "number"), HaveField("AccountIDType", "string")))
}

func TestFormEncodingWorksToo(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	form := url.Values{
		"grant_type": {"client_credentials"}, "client_id": {journeys().ClientID}, "client_secret": {journeys().ClientSecret},
		"account_id": {emea}, "scope": {"email_read"},
	}
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	token := mustSend(t, s, http.MethodPost, "v2/token", header, form.Encode()).token(t)
	g.Expect(token.Scope).To(Equal("email_read"))
	g.Expect(s.Requests()).To(HaveExactElements(HaveField("AccountIDType", "form")))

	form.Set("account_id", "EMEA")
	g.Expect(mustSend(t, s, http.MethodPost, "v2/token", header, form.Encode()).status).To(Equal(http.StatusBadRequest))
	g.Expect(mustSend(t, s, http.MethodPost, "v2/token", header, "%zz").status).To(Equal(http.StatusBadRequest))
}

func TestRequestsOfAnotherKindAreRefused(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	inJSON := http.Header{"Content-Type": {"application/json; charset=utf-8"}}
	for name, row := range map[string]struct {
		method, path string
		header       http.Header
		body         string
		status       int
	}{
		"GET":              {http.MethodGet, "v2/token", inJSON, "", 405},
		"another path":     {http.MethodPost, "v1/requestToken", inJSON, "{}", 404},
		"no content type":  {http.MethodPost, "v2/token", nil, "{}", 415},
		"XML":              {http.MethodPost, "v2/token", http.Header{"Content-Type": {"application/xml"}}, "<a/>", 415},
		"no JSON":          {http.MethodPost, "v2/token", inJSON, "{", 400},
		"null":             {http.MethodPost, "v2/token", inJSON, "null", 400},
		"an array":         {http.MethodPost, "v2/token", inJSON, "[]", 400},
		"a body too large": {http.MethodPost, "v2/token", inJSON, `{"scope":"` + strings.Repeat("a", 64<<10) + `"}`, 400},
	} {
		got := mustSend(t, s, row.method, row.path, row.header, row.body)
		g.Expect(got.status).To(Equal(row.status), name)
	}
	g.Expect(s.Issued()).To(BeZero())
}

func TestInstanceURLsFollowTheNameByWhichTheServerWasCalled(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	header := http.Header{"Content-Type": {"application/json"}}
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+"v2/token",
		strings.NewReader(`{"grant_type":"client_credentials","client_id":"`+journeys().ClientID+`","client_secret":"active-secret"}`))
	g.Expect(err).NotTo(HaveOccurred())
	request.Header, request.Host = header, "mc563885gzs27c5t9-63k636ttgm.auth.marketingcloudapis.com"
	response, err := s.Client().Do(request)
	g.Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close()
	g.Expect(readAll(t, response)).To(And(
		ContainSubstring(`"soap_instance_url":"https://mc563885gzs27c5t9-63k636ttgm.soap.marketingcloudapis.com/"`),
		ContainSubstring(`"rest_instance_url":"https://mc563885gzs27c5t9-63k636ttgm.rest.marketingcloudapis.com/"`)))
}

func TestInstanceURLsCanBeBareAsInTheDocumentation(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	s.ChangeMode(func(m *sfmctest.Mode) { m.BareInstanceURLs = true })
	token := ask(t, s, good()).token(t)
	g.Expect(token.RESTInstanceURL).To(Equal(s.Host()))
	g.Expect(token.SOAPInstanceURL).To(Equal(s.Host()))
}
