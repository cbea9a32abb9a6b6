package sfmc

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

func TestExpiresInIsReadInEveryFormThatOccurs(t *testing.T) {
	const badNumber = "expires_in is not a number of seconds"
	const badRange = "expires_in is not between one second and 24 hours"
	server, client, request := standIn(t, sfmctest.Options{})
	for raw, want := range map[string]any{
		`1079`:    1079 * time.Second,
		`"1079"`:  1079 * time.Second,
		``:        1079 * time.Second, // absent
		`null`:    1079 * time.Second,
		`1`:       time.Second,
		`"60"`:    time.Minute,
		`1079.9`:  1079 * time.Second,
		`1.079e3`: 1079 * time.Second,
		`86400`:   24 * time.Hour,

		`0`:                      badRange,
		`"0"`:                    badRange,
		`0.5`:                    badRange,
		`-1`:                     badRange,
		`"-1079"`:                badRange,
		`86401`:                  badRange,
		`86400.1`:                badRange,
		`18446744073709552695`:   badRange, // 2^64 + 1079
		`9223372036.854775807e9`: badRange,
		`1e300`:                  badRange,
		`"NaN"`:                  badRange,
		`"Inf"`:                  badRange,
		`1e999`:                  badNumber,
		`true`:                   badNumber,
		`""`:                     badNumber,
		`"soon"`:                 badNumber,
		`"20m"`:                  badNumber,
		`[1079]`:                 badNumber,
		`{"s":1079}`:             badNumber,
	} {
		t.Run(raw, func(t *testing.T) {
			g := NewWithT(t)
			server.AddFaults(sfmctest.Fault{Fields: map[string]string{"expires_in": raw}})
			token, err := client.RequestToken(t.Context(), request)
			if life, ok := want.(time.Duration); ok {
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(token.ExpiresIn).To(Equal(life))
				return
			}
			g.Expect(err).To(MatchError("the token endpoint's answer is unreadable: status 200: " + want.(string)))
			g.Expect(err.Kind).To(Equal(Unreadable))
			g.Expect(token).To(BeZero())
		})
	}
}

func TestInstanceURLsGetOneNormalForm(t *testing.T) {
	const normal = "https://mc563885gzs27c5t9-63k636ttgm.rest.marketingcloudapis.com/"
	for value, want := range map[string]string{
		normal: normal,
		"https://mc563885gzs27c5t9-63k636ttgm.rest.marketingcloudapis.com": normal,
		"mc563885gzs27c5t9-63k636ttgm.rest.marketingcloudapis.com/":        normal,
		"mc563885gzs27c5t9-63k636ttgm.rest.marketingcloudapis.com":         normal,
		"127.0.0.1:8443":          "https://127.0.0.1:8443/",
		"https://gateway/rest/v1": "https://gateway/rest/v1/",
		"":                        "",
	} {
		g := NewWithT(t)
		got, err := normalInstanceURL(value)
		g.Expect(err).NotTo(HaveOccurred(), value)
		g.Expect(got).To(Equal(want))
	}
	for _, value := range []string{
		"http://plain/", "ftp://host/", "https://", "https:///path", "https://:443/", "https://user:word@host/",
		"user@host", "https://host/?a=b", "https://host/#part", "https://host name/", "https://host/\n",
		"https://hôst/", "://", "https://ho%zz/",
		"https://host?", "https://host#", "https://host/?", "https://host/#",
	} {
		g := NewWithT(t)
		got, err := normalInstanceURL(value)
		g.Expect(err).To(MatchError("is not an https URL"), "%q became %q", value, got)
	}
}

func TestTheDocumentationsBareInstanceURLsAreCompleted(t *testing.T) {
	g := NewWithT(t)
	server, client, request := standIn(t, sfmctest.Options{})
	server.ChangeMode(func(m *sfmctest.Mode) { m.BareInstanceURLs = true })
	token, err := client.RequestToken(t.Context(), request)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(token.RESTInstanceURL).To(Equal(server.URL()))
	g.Expect(token.SOAPInstanceURL).To(Equal(server.URL()))
}

func TestAnAnswerThatIsNoTokenResponseIsUnreadable(t *testing.T) {
	const (
		noObject  = "it is not the JSON object of a token response"
		noToken   = "it has no access_token"
		noHeader  = "access_token or token_type has characters that can't stand in a header"
		not200    = "a token response has status 200"
		twoTokens = `{"access_token":"abc"}{"access_token":"abc"}`
	)
	server, client, request := standIn(t, sfmctest.Options{})
	body := func(text string) sfmctest.Fault { return sfmctest.Fault{Body: text} }
	field := func(name, raw string) sfmctest.Fault { return sfmctest.Fault{Fields: map[string]string{name: raw}} }
	for name, row := range map[string]struct {
		fault   sfmctest.Fault
		problem string
	}{
		"a proxy's page":            {sfmctest.ProxyPage(http.StatusOK), noObject},
		"an array":                  {body(`[{"access_token":"abc"}]`), noObject},
		"two answers":               {body(twoTokens), noObject},
		"an empty object":           {body(`{}`), noToken},
		"null":                      {body(`null`), noToken},
		"an empty token":            {field("access_token", `""`), noToken},
		"a number as token":         {field("access_token", `17`), "access_token has the wrong type"},
		"an object as scope":        {field("scope", `{"a":1}`), "scope has the wrong type"},
		"a line break in the token": {field("access_token", `"a\r\nX-Evil: b"`), noHeader},
		"a space in the token type": {field("token_type", `"Bearer x"`), noHeader},
		"a plain http REST URL": {field("rest_instance_url", `"http://x/"`),
			"rest_instance_url is not an https URL"},
		"a SOAP URL with a query": {field("soap_instance_url", `"https://x/?a"`),
			"soap_instance_url is not an https URL"},
		"another status than 200": {sfmctest.Fault{Status: http.StatusCreated, Body: `{"access_token":"abc"}`}, not200},
		"no content":              {sfmctest.Fault{Status: http.StatusNoContent}, not200},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			server.AddFaults(row.fault)
			token, err := client.RequestToken(t.Context(), request)
			g.Expect(err).To(MatchError(HaveSuffix(": " + row.problem)))
			g.Expect(err.Kind).To(Equal(Unreadable))
			g.Expect(token).To(BeZero())
		})
	}
}

func TestWhatAnAnswerLeavesOutIsLeftEmpty(t *testing.T) {
	g := NewWithT(t)
	_, client, request := once(t, sfmctest.Fault{Body: `{"access_token":"abc"}`})
	token, err := client.RequestToken(t.Context(), request)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(token).To(Equal(Token{AccessToken: "abc", TokenType: "Bearer", ExpiresIn: 1079 * time.Second}))
}

func TestGrantedScopesAreSeparatedByOneSpace(t *testing.T) {
	g := NewWithT(t)
	fault := sfmctest.Fault{Fields: map[string]string{"scope": `" email_read\n\temail_send  "`}}
	_, client, request := once(t, fault)
	token, err := client.RequestToken(t.Context(), request)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(token.GrantedScopes).To(Equal("email_read email_send"))
}

func TestAnAnswerOver64KiBIsRefused(t *testing.T) {
	longScope := `"` + strings.Repeat("email_read ", 150) + `"`
	for name, row := range map[string]struct {
		fault   sfmctest.Fault
		problem string
	}{
		"just 64 KiB":  {sfmctest.Fault{PadTo: 64 << 10}, ""},
		"a byte more":  {sfmctest.Fault{PadTo: 64<<10 + 1}, "it is longer than 64 KiB"},
		"a megabyte":   {sfmctest.Fault{TokenLength: 1 << 20}, "it is longer than 64 KiB"},
		"without end":  {sfmctest.Fault{Wire: sfmctest.EndlessBody}, "it is longer than 64 KiB"},
		"a long scope": {sfmctest.Fault{Fields: map[string]string{"scope": longScope}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			server, client, request := once(t, row.fault)
			_, err := client.RequestToken(t.Context(), request)
			g.Expect(server.Count()).To(Equal(1))
			if row.problem == "" {
				g.Expect(err).NotTo(HaveOccurred())
				return
			}
			g.Expect(err).To(MatchError(HaveSuffix(": " + row.problem)))
			g.Expect(err.Kind).To(Equal(Unreadable))
		})
	}
}

func TestHeadersOver64KiBAreRefusedToo(t *testing.T) {
	g := NewWithT(t)
	fault := sfmctest.Fault{Header: map[string]string{"X-Long": strings.Repeat("x", 256<<10)}}
	server, client, request := once(t, fault)
	_, err := client.RequestToken(t.Context(), request)
	g.Expect(err).To(HaveOccurred())
	g.Expect(err.Kind).To(Equal(Unavailable))
	expectSafe(t, err.Error())
	g.Expect(server.Count()).To(Equal(1))
}

func TestAnAnswerThatBreaksOffIsUnavailable(t *testing.T) {
	for name, row := range map[string]struct {
		fault  sfmctest.Fault
		status int
	}{
		"half of it came":    {sfmctest.Fault{Wire: sfmctest.CutBody}, http.StatusOK},
		"the line was reset": {sfmctest.Fault{Wire: sfmctest.Reset}, 0},
		"half of a bad reply": {sfmctest.Fault{Refusal: sfmctest.InternalError, Wire: sfmctest.CutBody},
			http.StatusInternalServerError},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			server, client, request := once(t, row.fault)
			_, err := client.RequestToken(t.Context(), request)
			g.Expect(err).To(HaveOccurred())
			g.Expect(err.Kind).To(Equal(Unavailable))
			g.Expect(err.StatusCode).To(Equal(row.status))
			expectSafe(t, err.Error())
			g.Expect(server.Count()).To(Equal(1), "the work queue is the retry loop")

			_, err = client.RequestToken(t.Context(), request)
			g.Expect(err).NotTo(HaveOccurred(), "it happened once")
		})
	}
}

func TestARefusalIsKnownByItsStatusHoweverItsBodyEnds(t *testing.T) {
	for _, wire := range []sfmctest.Wire{sfmctest.CutBody, sfmctest.EndlessBody} {
		t.Run(string(wire), func(t *testing.T) {
			g := NewWithT(t)
			_, client, request := once(t, sfmctest.Fault{Refusal: sfmctest.InvalidClient, Wire: wire})
			_, err := client.RequestToken(t.Context(), request)
			g.Expect(err).To(HaveOccurred())
			g.Expect(err.Kind).To(Equal(Refused))
			g.Expect(err.StatusCode).To(Equal(http.StatusUnauthorized))
		})
	}
}

func TestNoRedirectIsFollowed(t *testing.T) {
	for _, status := range []int{301, 302, 303, 307, 308} {
		t.Run(strconv.Itoa(status), func(t *testing.T) {
			g := NewWithT(t)
			elsewhere := sfmctest.Start(t, sfmctest.Options{})
			fault := sfmctest.Redirect(elsewhere.URL() + "v2/token")
			fault.Status = status
			server, client, request := once(t, fault)
			_, err := client.RequestToken(t.Context(), request)
			shown := "status " + strconv.Itoa(status) + ": a redirect, which is not followed"
			g.Expect(err).To(MatchError(ContainSubstring(shown)))
			g.Expect(err.Kind).To(Equal(Unreadable))
			g.Expect(err.Error()).NotTo(ContainSubstring(elsewhere.Host()))
			g.Expect(server.Count()).To(Equal(1))
			g.Expect(elsewhere.Count()).To(BeZero(), "nobody else got the client secret")
		})
	}
}

func TestALifeNeverOverflows(t *testing.T) {
	g := NewWithT(t)
	for _, seconds := range []float64{math.MaxInt64, math.MaxInt64 / 1e9, math.MaxFloat64, 9223372037} {
		life, err := parseExpiresIn([]byte(strconv.FormatFloat(seconds, 'f', -1, 64)))
		g.Expect(err).To(HaveOccurred())
		g.Expect(life).To(BeZero())
	}
}
