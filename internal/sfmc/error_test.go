package sfmc

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

// expectSafe checks a text that is shown to people: one line, bounded, and without this client's secrets.
func expectSafe(t interface {
	Helper()
	Fatalf(string, ...any)
}, text string) {
	t.Helper()
	switch {
	case text == "":
		t.Fatalf("the text is empty")
	case strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }):
		t.Fatalf("not one printable line: %q", text)
	case len([]rune(text)) > 512:
		t.Fatalf("%d characters: %q", len([]rune(text)), text)
	case strings.Contains(text, secret), strings.Contains(text, clientID):
		t.Fatalf("it gives the client away: %q", text)
	}
}

func TestEveryDocumentedRefusalIsClassedAndShown(t *testing.T) {
	const (
		refused      = "Marketing Cloud refused the token request: "
		unauthorized = refused + "status 401, invalid_client: "
		badRequest   = refused + "status 400, "
		throttled    = "Marketing Cloud throttles this client: "
		unavailable  = "Marketing Cloud's token endpoint is unavailable: "
	)
	server, client, request := standIn(t, sfmctest.Options{})
	for refusal, row := range map[sfmctest.Refusal]struct {
		kind  Kind
		after time.Duration
		text  string
	}{
		sfmctest.InvalidClient: {Refused, 0, unauthorized + "Client authentication failed. Make sure that the " +
			"client ID and client secret are valid and that the package is installed and enabled."},
		sfmctest.UnknownClient: {Refused, 0, unauthorized + "Invalid client ID. " +
			"Use the client ID in Marketing Cloud Installed Packages."},
		sfmctest.LegacyPackage: {Refused, 0, unauthorized + "This integration is not eligible to use the " +
			"/v2/token endpoint because the integration was created in a legacy package."},
		sfmctest.AccountNotEnabled: {Refused, 0, unauthorized +
			"The package is not enabled for the business unit that account_id names."},
		sfmctest.AccountForbidden: {Refused, 0, refused + "status 403, access_denied: " +
			"The package is not enabled for the business unit that account_id names; is the business unit enabled for the " +
			"package, and is the operator's address on its login IP allow-list?"},
		sfmctest.UnsupportedGrantType: {Refused, 0, badRequest + "unsupported_grant_type: " +
			`Use "authorization_code" or "client_credentials" as the grant_type.`},
		sfmctest.InvalidRequest: {Refused, 0, badRequest + "invalid_request: " +
			"The request is missing a required parameter or a parameter has the wrong type."},
		sfmctest.InvalidScope: {Refused, 0, badRequest + "invalid_scope: " +
			"The requested scope is invalid, unknown, or not granted to the package."},
		sfmctest.RateLimited: {Throttled, 5 * time.Second, throttled +
			"status 429, errorcode 50100: Rate limit exceeded"},
		sfmctest.Blocked: {Throttled, 0, throttled +
			"status 429, errorcode 50200: Your requests are temporarily blocked."},
		sfmctest.InternalError: {Unavailable, 0, unavailable + "status 500: Internal Server Error"},
		sfmctest.Unavailable: {Throttled, 5 * time.Second, throttled +
			"status 503, errorcode 50300: Service Unavailable"},
	} {
		t.Run(string(refusal), func(t *testing.T) {
			g := NewWithT(t)
			server.AddFaults(sfmctest.Fault{Refusal: refusal})
			token, err := client.RequestToken(t.Context(), request)
			g.Expect(err).To(MatchError(row.text))
			g.Expect(err.Kind).To(Equal(row.kind))
			g.Expect(err.RetryAfter).To(Equal(row.after))
			g.Expect(err.IsInvalidClient()).To(Equal(strings.HasPrefix(row.text, unauthorized)))
			g.Expect(token).To(BeZero())
		})
	}
	NewWithT(t).Expect(server.Issued()).To(BeZero())
}

func TestTheStandInsOwnDecisionsAreClassedToo(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*sfmctest.Server, *TokenRequest)
		status int
	}{
		"a wrong secret":               {func(_ *sfmctest.Server, r *TokenRequest) { r.ClientSecret = "wrong" }, 401},
		"an unknown client":            {func(_ *sfmctest.Server, r *TokenRequest) { r.ClientID = "nobody" }, 401},
		"a business unit not enabled":  {func(_ *sfmctest.Server, r *TokenRequest) { r.AccountID = "510009999" }, 401},
		"the same, forbidden":          {forbidden, 403},
		"a disabled package":           {disabled, 401},
		"a secret that was superseded": {superseded, 401},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			server, client, request := standIn(t, sfmctest.Options{})
			row.change(server, &request)
			_, err := client.RequestToken(t.Context(), request)
			g.Expect(err).To(HaveOccurred())
			g.Expect(err.Kind).To(Equal(Refused))
			g.Expect(err.StatusCode).To(Equal(row.status))
			g.Expect(server.Issued()).To(BeZero())
		})
	}
}

func disabled(s *sfmctest.Server, _ *TokenRequest) { _ = s.DisablePackage(clientID, true) }

func forbidden(s *sfmctest.Server, r *TokenRequest) {
	s.ChangeMode(func(m *sfmctest.Mode) { m.ForbidDisabledAccounts = true })
	r.AccountID = "510009999"
}

func superseded(s *sfmctest.Server, _ *TokenRequest) {
	s.ChangeMode(func(m *sfmctest.Mode) { m.StagedAfter = 0 })
	_ = s.StageSecret(clientID, "the-next-one")
	_ = s.ActivateStagedSecret(clientID)
}

func TestTheStatusDecidesWhateverTheBodySays(t *testing.T) {
	bodies := []string{
		`{"error":"invalid_client","error_description":"Client authentication failed."}`,
		`{"error":"invalid_client","error_description":7}`,
		`{"message":"Internal Server Error","errorcode":0}`, `{"message":"m","errorcode":"50200"}`,
		`{"errorcode":50200}`,
		`{}`, `null`, `[]`, `"text"`, `{`, ``, `{"error":null,"message":null}`, "<html>no</html>", "\xff\xfe",
	}
	for status, kind := range map[int]Kind{
		400: Refused, 401: Refused, 402: Refused, 403: Refused, 404: Refused, 405: Refused, 407: Refused, 415: Refused,
		451: Refused, 408: Unavailable, 429: Throttled, 500: Unavailable, 501: Unavailable, 502: Unavailable,
		503: Unavailable, 504: Unavailable, 599: Unavailable,
		201: Unreadable, 204: Unreadable, 301: Unreadable, 304: Unreadable,
	} {
		for _, body := range bodies {
			g := NewWithT(t)
			failed := refusal(status, 0, []byte(body), TokenRequest{ClientID: clientID, ClientSecret: secret})
			g.Expect(failed.Kind).To(Equal(kind), "%d %s", status, body)
			isInvalidClient := kind == Refused && strings.Contains(body, "invalid_client")
			g.Expect(failed.IsInvalidClient()).To(Equal(isInvalidClient), "%d %s", status, body)
			g.Expect(failed.Error()).To(ContainSubstring("status %d", status))
			expectSafe(t, failed.Error())
		}
	}
}

func TestBothShapesAreReadAlsoWhenTypesAreOff(t *testing.T) {
	const noJSON = ": the answer was not Marketing Cloud's JSON (a proxy or gateway in between?)"
	for body, want := range map[string]string{
		`{"error":"invalid_client","error_description":7}`:                ", invalid_client",
		`{"error":"invalid_client"}`:                                      ", invalid_client",
		`{"message":"blocked","errorcode":"50200"}`:                       ", errorcode 50200: blocked",
		`{"message":"blocked","errorcode":50200.0}`:                       ", errorcode 50200.0: blocked",
		`{"message":"blocked","errorcode":0}`:                             ": blocked",
		`{"message":"blocked"}`:                                           ": blocked",
		`{"message":"blocked","errorcode":null}`:                          ": blocked",
		`{"error":"a","error_description":"b","message":"c"}`:             ", a: b",
		`{"error":{"code":1}}`:                                            noJSON,
		`{"error":"a\nb","error_description":"c\r\n\td\u0000e\u2028f g"}`: ", a b: c d e f g",
		`{}`: "",
	} {
		g := NewWithT(t)
		failed := refusal(400, 0, []byte(body), TokenRequest{ClientID: clientID, ClientSecret: secret})
		g.Expect(failed.Error()).To(Equal("Marketing Cloud refused the token request: status 400"+want), body)
	}
}

func TestAProxysPageIsNotShown(t *testing.T) {
	for status, kind := range map[int]Kind{
		http.StatusOK: Unreadable, http.StatusForbidden: Refused, http.StatusProxyAuthRequired: Refused,
		http.StatusBadGateway: Unavailable, http.StatusServiceUnavailable: Unavailable,
		http.StatusGatewayTimeout: Unavailable,
	} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			g := NewWithT(t)
			_, client, request := once(t, sfmctest.ProxyPage(status))
			_, err := client.RequestToken(t.Context(), request)
			g.Expect(err).To(HaveOccurred())
			g.Expect(err.Kind).To(Equal(kind))
			g.Expect(err.Error()).To(ContainSubstring("status %d", status))
			g.Expect(err.Error()).NotTo(ContainSubstring("<"))
			g.Expect(err.Error()).NotTo(ContainSubstring("organisation"))
			if status != http.StatusOK {
				g.Expect(err).To(MatchError(HaveSuffix("not Marketing Cloud's JSON (a proxy or gateway in between?)")))
			}
		})
	}
}

func TestRetryAfterIsReadAsSecondsAndAsDate(t *testing.T) {
	server, client, request := standIn(t, sfmctest.Options{})
	for header, want := range map[string]time.Duration{
		"5":                               5 * time.Second,
		"90":                              90 * time.Second,
		" 7 ":                             7 * time.Second,
		"0":                               0,
		"-5":                              0,
		"":                                0,
		"soon":                            0,
		"1200":                            20 * time.Minute,
		"1201":                            20 * time.Minute, // at most
		"57600":                           20 * time.Minute,
		"2000000000":                      20 * time.Minute,
		"99999999999999999999":            20 * time.Minute,
		"Sun, 01 Mar 2026 12:01:00 GMT":   time.Minute,
		"Sunday, 01-Mar-26 12:00:30 GMT":  30 * time.Second,
		"Sun Mar  1 12:00:10 2026":        10 * time.Second,
		"Sun, 01 Mar 2026 11:59:00 GMT":   0, // past
		"Mon, 01 Mar 2027 12:00:00 GMT":   20 * time.Minute,
		"Sun, 01 Mar 2026 12:01:00 +0100": 0, // not a date of HTTP
	} {
		for _, status := range []int{429, 503} {
			t.Run(fmt.Sprintf("%d %s", status, header), func(t *testing.T) {
				g := NewWithT(t)
				headers := map[string]string{"Retry-After": header}
				server.AddFaults(sfmctest.Fault{Status: status, Body: `{"message":"no","errorcode":50300}`, Header: headers})
				_, err := client.RequestToken(t.Context(), request)
				g.Expect(err).To(HaveOccurred())
				g.Expect(err.RetryAfter).To(Equal(want))
				if status == 429 || want > 0 {
					g.Expect(err.Kind).To(Equal(Throttled))
				} else {
					g.Expect(err.Kind).To(Equal(Unavailable))
				}
			})
		}
	}
}

func TestAGatewaysRetryAfterOfHoursDoesNotSilenceAClient(t *testing.T) {
	page := sfmctest.ProxyPage(http.StatusServiceUnavailable).Body
	for _, body := range []string{
		page, ``, `{}`, `{"message":"no"}`, `{"message":"no","errorcode":null}`, `{"errorcode":50300}`,
		`{"error":"temporarily_unavailable","errorcode":50300}`, `[]`,
	} {
		g := NewWithT(t)
		headers := map[string]string{"Retry-After": "57600"}
		_, client, request := once(t, sfmctest.Fault{Status: 503, Body: body, Header: headers})
		_, err := client.RequestToken(t.Context(), request)
		g.Expect(err).To(HaveOccurred())
		g.Expect(err.Kind).To(Equal(Unavailable), body)
		g.Expect(err.RetryAfter).To(BeZero(), body)
	}
}

func TestAnOAuthErrorInA200IsARefusal(t *testing.T) {
	for body, row := range map[string]struct {
		text      string
		isInvalid bool
	}{
		`{"error":"invalid_client","error_description":"Client authentication failed."}`: {
			"invalid_client: Client authentication failed.", true},
		`{"error":"invalid_scope"}`: {"invalid_scope", false},
		`{"access_token":null,"error":"access_denied","error_description":"no {{client_secret}}"}`: {
			"access_denied: no [redacted]", false},
	} {
		g := NewWithT(t)
		_, client, request := once(t, sfmctest.Fault{Body: body})
		token, err := client.RequestToken(t.Context(), request)
		g.Expect(err).To(MatchError("Marketing Cloud refused the token request: status 200, " + row.text))
		g.Expect(err.Kind).To(Equal(Refused))
		g.Expect(err.IsInvalidClient()).To(Equal(row.isInvalid))
		g.Expect(token).To(BeZero())
	}
}
