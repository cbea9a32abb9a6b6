package sfmc

import (
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

func TestATokenSaysWhomItActsFor(t *testing.T) {
	g := NewWithT(t)
	server, client, request := standIn(t, sfmctest.Options{})
	request.AccountID = emea
	token, failed := client.RequestToken(t.Context(), request)
	g.Expect(failed).To(BeNil())
	context, err := client.RequestTokenContext(t.Context(), server.Host(), token.AccessToken)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(context.OrganizationID).To(Equal(emea))
	g.Expect(context.UserID).NotTo(BeEmpty())
	_, err = client.RequestTokenContext(t.Context(), server.Host(), "no-such-token")
	g.Expect(err).To(MatchError(ErrTokenNotAccepted))
}

// Whoever answers can make the plugin say no word of theirs, and send the token nowhere else.
func TestAnswersAboutATokenAreReadWithCare(t *testing.T) {
	const token = "canary.token.that-goes-nowhere"
	ids := func(organization string) string {
		return `{"enterprise":{"id":1},"organization":{"id":` + organization + `},"user":{"id":3}}`
	}
	for name, row := range map[string]struct {
		status     int
		body, says string
	}{
		"numbers":              {200, ids("510004567"), ""},
		"strings":              {200, ids(`"510004567"`), ""},
		"no user":              {200, `{"organization":{"id":510004567},"user":null}`, ""},
		"words":                {200, ids(`"evil words"`), "isn't Marketing Cloud's"},
		"the token":            {200, ids(`"` + token + `"`), "isn't Marketing Cloud's"},
		"no organization":      {200, `{}`, "isn't Marketing Cloud's"},
		"HTML":                 {200, "<html>" + token, "isn't Marketing Cloud's"},
		"endless":              {200, strings.Repeat(" ", maxAnswer) + ids("1"), "longer than 64 KiB"},
		"a redirect":           {302, token, "answered with status 302"},
		"a failure":            {500, token, "answered with status 500"},
		"no longer a token":    {401, token, "not accepted"},
		"forbidden by a proxy": {403, token, "answered with status 403"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var asked []string
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				asked = append(asked, r.Method+" "+r.URL.Path+" "+r.Header.Get("Authorization"))
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(row.status)
				_, _ = w.Write([]byte(row.body))
			}))
			defer server.Close()
			client := newClient(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
			context, err := client.RequestTokenContext(t.Context(), strings.TrimPrefix(server.URL, "https://"), token)
			g.Expect(asked).To(Equal([]string{"GET /platform/v1/tokenContext Bearer " + token}))
			if row.says == "" {
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(context.OrganizationID).To(Equal("510004567"))
				return
			}
			g.Expect(err).To(MatchError(ContainSubstring(row.says)))
			g.Expect(err.Error()).NotTo(Or(ContainSubstring("canary"), ContainSubstring("evil")))
			g.Expect(context).To(Equal(TokenContext{}))
		})
	}
}

func TestWithoutAnAnswerTheRemedyIsNamed(t *testing.T) {
	g := NewWithT(t)
	server, _, _ := standIn(t, sfmctest.Options{})
	_, err := newClient(t, nil).RequestTokenContext(t.Context(), server.Host(), "token")
	g.Expect(err).To(MatchError(ContainSubstring("--ca-file")))
	_, err = newClient(t, nil).RequestTokenContext(t.Context(), server.Host(), "two\nlines")
	g.Expect(err).To(MatchError("the request can't be built from the Secret"))
	server.TakeDown()
	_, err = newClient(t, server.CACert()).RequestTokenContext(t.Context(), server.Host(), "token")
	g.Expect(err).To(MatchError(HavePrefix("no answer from " + server.Host())))
}
