package sfmc

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

const (
	clientID = "journeysclientid00000000"
	secret   = "Zq7hushThisIsTheSecret99"
	ownUnit  = "510001000" // the business unit that owns the package
	emea     = "510004567" // enabled on it
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// standIn starts the Marketing Cloud stand-in with one package, and a client that trusts it. Its clock stands still.
func standIn(t *testing.T, options sfmctest.Options) (*sfmctest.Server, *Client, TokenRequest) {
	t.Helper()
	options.Clock = clocktesting.NewFakePassiveClock(noon)
	options.Packages = []sfmctest.Package{{
		ClientID: clientID, ClientSecret: secret, AccountID: ownUnit, AccountIDs: []string{emea},
		Scopes: []string{"email_read", "email_send", "journeys_read"},
	}}
	server := sfmctest.Start(t, options)
	request := TokenRequest{AuthHost: server.Host(), ClientID: clientID, ClientSecret: secret}
	return server, newClient(t, server.CACert()), request
}

func newClient(t *testing.T, roots []byte) *Client {
	t.Helper()
	client, err := NewClient(roots, clocktesting.NewFakePassiveClock(noon))
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// once is a client whose stand-in has the fault, and the request to send.
func once(t *testing.T, fault sfmctest.Fault) (*sfmctest.Server, *Client, TokenRequest) {
	t.Helper()
	server, client, request := standIn(t, sfmctest.Options{})
	server.AddFaults(fault)
	return server, client, request
}

func TestTheRequestIsTheDocumentedOne(t *testing.T) {
	const credentials = `"grant_type":"client_credentials",` +
		`"client_id":"` + clientID + `","client_secret":"` + secret + `"`
	for name, row := range map[string]struct {
		account string
		scopes  []string
		body    string
	}{
		"only the credentials":         {"", nil, `{` + credentials + `}`},
		"no scopes, as an empty list":  {"", []string{}, `{` + credentials + `}`},
		"a business unit, as a number": {emea, nil, `{` + credentials + `,"account_id":510004567}`},
		"the longest business unit": {"999999999999999999", nil,
			`{` + credentials + `,"account_id":999999999999999999}`},
		"scopes, in the order of the caller": {"", []string{"journeys_read", "email_read"},
			`{` + credentials + `,"scope":"journeys_read email_read"}`},
		"everything": {emea, []string{"z", "a", "m"},
			`{` + credentials + `,"account_id":510004567,"scope":"z a m"}`},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			var got *http.Request
			var body []byte
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				got = r
				body, _ = io.ReadAll(r.Body)
				_, _ = io.WriteString(w, `{"access_token":"token"}`)
			}))
			defer server.Close()
			client := newClient(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))

			_, err := client.RequestToken(t.Context(), TokenRequest{
				AuthHost: server.Listener.Addr().String(), ClientID: clientID, ClientSecret: secret,
				AccountID: row.account, Scopes: row.scopes,
			})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(string(body)).To(Equal(row.body))
			g.Expect(got.Method).To(Equal(http.MethodPost))
			g.Expect(got.RequestURI).To(Equal("/v2/token"))
			g.Expect(got.Header).To(HaveKeyWithValue("Content-Type", []string{"application/json"}))
			g.Expect(got.Header).To(HaveKeyWithValue("Accept", []string{"application/json"}))
			g.Expect(got.Header).To(HaveKeyWithValue("User-Agent", ConsistOf(HavePrefix("sfmctoken-operator/"))))
			g.Expect(got.Header).NotTo(HaveKey("Authorization"), "the secret is in the body alone")
		})
	}
}

func TestASecretWithCharactersThatJSONEscapesArrivesAsItIs(t *testing.T) {
	g := NewWithT(t)
	const odd = `a"b\c<d>&e/f'`
	post, err := TokenRequest{AuthHost: "host", ClientID: odd, ClientSecret: odd}.post(t.Context())
	g.Expect(err).NotTo(HaveOccurred())
	var body map[string]any
	g.Expect(json.NewDecoder(post.Body).Decode(&body)).To(Succeed())
	g.Expect(body).To(Equal(map[string]any{"grant_type": "client_credentials", "client_id": odd, "client_secret": odd}))
}

func TestATokenIsIssuedForTheBusinessUnitAndTheScopesThatWereAskedFor(t *testing.T) {
	g := NewWithT(t)
	server, client, request := standIn(t, sfmctest.Options{})
	request.AccountID, request.Scopes = emea, []string{"journeys_read", "email_read", "not_in_the_package"}

	token, err := client.RequestToken(t.Context(), request)
	g.Expect(err).NotTo(HaveOccurred())
	account, alive := server.Check(token.AccessToken)
	g.Expect(alive).To(BeTrue())
	g.Expect(account).To(Equal(emea))
	token.AccessToken = ""
	g.Expect(token).To(Equal(Token{
		TokenType: "Bearer", GrantedScopes: "email_read journeys_read", ExpiresIn: 1079 * time.Second,
		RESTInstanceURL: server.URL(), SOAPInstanceURL: server.URL(),
	}))
	g.Expect(server.Requests()).To(ConsistOf(And(
		HaveField("AccountIDType", "number"),
		HaveField("Scope", "journeys_read email_read not_in_the_package"),
		HaveField("ContentType", "application/json"),
		HaveField("GrantType", "client_credentials"),
	)))
}

func TestWithoutScopesAllScopesOfThePackageAreGranted(t *testing.T) {
	g := NewWithT(t)
	server, client, request := standIn(t, sfmctest.Options{})
	token, err := client.RequestToken(t.Context(), request)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(token.GrantedScopes).To(Equal("email_read email_send journeys_read"))
	account, _ := server.Check(token.AccessToken)
	g.Expect(account).To(Equal(ownUnit))
	g.Expect(server.Requests()).To(ConsistOf(And(HaveField("ScopeSent", false), HaveField("AccountIDType", "absent"))))
}

func TestABusinessUnitThatIsNoNumberIsNotSent(t *testing.T) {
	for _, account := range []string{"emea", "0123", "1;2", "-", `1,"scope":""`} {
		t.Run(account, func(t *testing.T) {
			g := NewWithT(t)
			server, client, request := standIn(t, sfmctest.Options{})
			request.AccountID = account
			_, err := client.RequestToken(t.Context(), request)
			g.Expect(err).To(MatchError(ContainSubstring("can't be built")))
			g.Expect(err.Kind).To(Equal(Refused))
			g.Expect(server.Count()).To(BeZero())
		})
	}
}

func TestADeadlineOfTheCallerIsKept(t *testing.T) {
	for name, fault := range map[string]sfmctest.Fault{
		"nothing comes":        {Wire: sfmctest.NeverAnswer},
		"one byte in the hour": {Wire: sfmctest.SlowBody, Every: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			server, client, request := once(t, fault)
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := client.RequestToken(ctx, request)
			g.Expect(err).To(MatchError(ContainSubstring("no complete answer from " + server.Host())))
			g.Expect(err.Kind).To(Equal(Unavailable))
		})
	}
}

func TestACallerThatGoesAwayEndsTheRequest(t *testing.T) {
	for name, fault := range map[string]sfmctest.Fault{
		"nothing comes":        {Wire: sfmctest.NeverAnswer},
		"one byte in the hour": {Wire: sfmctest.SlowBody, Every: time.Hour},
		"a slow refusal":       {Refusal: sfmctest.InvalidClient, Latency: time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			server, client, request := once(t, fault)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			failed := make(chan *Error)
			go func() {
				_, err := client.RequestToken(ctx, request)
				failed <- err
			}()
			g.Eventually(server.Count).Should(Equal(1))
			cancel()
			var err *Error
			g.Eventually(failed).Should(Receive(&err))
			g.Expect(err).To(MatchError(ContainSubstring("context canceled")))
			g.Expect(err.Kind).To(Equal(Unavailable))
			g.Expect(err.Error()).NotTo(ContainSubstring("/v2/token"), "the URL says nothing new")
		})
	}
}

func TestNobodyListensIsUnavailable(t *testing.T) {
	g := NewWithT(t)
	server, client, request := standIn(t, sfmctest.Options{})
	server.TakeDown()
	_, err := client.RequestToken(t.Context(), request)
	g.Expect(err).To(MatchError(ContainSubstring("connection refused")))
	g.Expect(err.Kind).To(Equal(Unavailable))
	g.Expect(err.StatusCode).To(BeZero())

	g.Expect(server.BringUp()).To(Succeed())
	_, err = client.RequestToken(t.Context(), request)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(server.Count()).To(Equal(1))
}
