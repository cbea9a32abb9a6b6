package sfmctest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

const (
	owner   = "510001000" // the business unit that owns the package
	emea    = "510004567" // enabled on it
	foreign = "510009999" // not enabled
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func journeys() sfmctest.Package {
	return sfmctest.Package{
		ClientID:     "journeysclientid00000000",
		ClientSecret: "active-secret",
		AccountID:    owner,
		AccountIDs:   []string{emea},
		EnterpriseID: "510000001",
		Scopes:       []string{"email_read", "email_send", "journeys_read"},
	}
}

// startServer starts a server with one package and a clock that stands still.
func startServer(t *testing.T, options sfmctest.Options) (*sfmctest.Server, *clocktesting.FakePassiveClock) {
	t.Helper()
	clock := clocktesting.NewFakePassiveClock(start)
	options.Clock = clock
	options.Packages = append(options.Packages, journeys())
	return sfmctest.Start(t, options), clock
}

func pass(clock *clocktesting.FakePassiveClock, d time.Duration) {
	clock.SetTime(clock.Now().Add(d))
}

// good is a request that gets a token.
func good() map[string]any {
	return map[string]any{
		"grant_type":    "client_credentials",
		"client_id":     journeys().ClientID,
		"client_secret": journeys().ClientSecret,
	}
}

// with is a good request with some fields changed; nil leaves a field out.
func with(changes map[string]any) map[string]any {
	request := good()
	for name, value := range changes {
		if value == nil {
			delete(request, name)
		} else {
			request[name] = value
		}
	}
	return request
}

type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) statusAndBody() string { return strconv.Itoa(r.status) + " " + r.body }

type tokenBody struct {
	AccessToken     string `json:"access_token"`
	TokenType       string `json:"token_type"`
	ExpiresIn       int    `json:"expires_in"`
	Scope           string `json:"scope"`
	SOAPInstanceURL string `json:"soap_instance_url"`
	RESTInstanceURL string `json:"rest_instance_url"`
}

func (r reply) token(t *testing.T) tokenBody {
	t.Helper()
	g := NewWithT(t)
	g.Expect(r.status).To(Equal(http.StatusOK), r.body)
	var body tokenBody
	g.Expect(json.Unmarshal([]byte(r.body), &body)).To(Succeed())
	return body
}

// ask posts a token request and expects an answer, whatever it says.
func ask(t *testing.T, s *sfmctest.Server, request map[string]any) reply {
	t.Helper()
	got, err := try(t.Context(), s, request)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return got
}

// try posts a token request without following redirects.
func try(ctx context.Context, s *sfmctest.Server, request map[string]any) (reply, error) {
	body, err := json.Marshal(request)
	if err != nil {
		return reply{}, err
	}
	return send(ctx, s, http.MethodPost, "v2/token", http.Header{"Content-Type": {"application/json"}}, string(body))
}

func send(ctx context.Context, s *sfmctest.Server, method, path string, header http.Header, body string) (reply, error) {
	request, err := http.NewRequestWithContext(ctx, method, s.URL()+path, strings.NewReader(body))
	if err != nil {
		return reply{}, err
	}
	for name, values := range header {
		request.Header[name] = values
	}
	client := *s.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	response, err := client.Do(request)
	if err != nil {
		return reply{}, err
	}
	defer response.Body.Close()
	read, err := io.ReadAll(response.Body)
	return reply{response.StatusCode, response.Header, string(read)}, err
}

func mustSend(t *testing.T, s *sfmctest.Server, method, path string, header http.Header, body string) reply {
	t.Helper()
	got, err := send(t.Context(), s, method, path, header, body)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return got
}

func TestItsCertificateIsGoodForLoopbackAndTheGivenHosts(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{Hosts: []string{"sfmc-standin.demo.svc", "*.auth.marketingcloudapis.com", "10.1.2.3"}})
	response, err := s.Client().Get(s.URL())
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(response.Body.Close()).To(Succeed())
	for _, host := range []string{"127.0.0.1", "::1", "localhost", "sfmc-standin.demo.svc", "mc1.auth.marketingcloudapis.com", "10.1.2.3"} {
		g.Expect(response.TLS.PeerCertificates[0].VerifyHostname(host)).To(Succeed(), host)
	}
	g.Expect(response.TLS.PeerCertificates[0].VerifyHostname("example.com")).NotTo(Succeed())
	g.Expect(response.Proto).To(Equal("HTTP/2.0"))
	g.Expect(bytes.Count(s.CACert(), []byte("BEGIN CERTIFICATE"))).To(Equal(1))
}

func TestAClientThatDoesNotKnowTheAuthorityDistrustsIt(t *testing.T) {
	s, _ := startServer(t, sfmctest.Options{})
	stranger := &http.Client{Transport: &http.Transport{}}
	_, err := stranger.Get(s.URL())
	NewWithT(t).Expect(err).To(MatchError(ContainSubstring("certificate signed by unknown authority")))
}

func TestAServerTakenDownComesBackAtItsAddressWithItsTokens(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	token := ask(t, s, good()).token(t)
	url := s.URL()

	s.TakeDown()
	_, err := try(t.Context(), s, good())
	g.Expect(err).To(MatchError(ContainSubstring("connection refused")))
	g.Expect(s.Count()).To(Equal(1))

	g.Expect(s.BringUp()).To(Succeed())
	g.Expect(s.BringUp()).NotTo(Succeed(), "it is up already")
	g.Expect(s.URL()).To(Equal(url))
	g.Expect(tokenContext(t, s, token.AccessToken).status).To(Equal(http.StatusOK))
	ask(t, s, good()).token(t)
}

func TestAServerThatListensEverywhereNamesItselfByItsFirstHost(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{Listen: "0.0.0.0:0", Hosts: []string{"localhost"}})
	g.Expect(s.URL()).To(MatchRegexp(`^https://localhost:\d+/$`))
	ask(t, s, good()).token(t)
}

func TestAnAddressThatIsNoneIsRefused(t *testing.T) {
	g := NewWithT(t)
	_, err := sfmctest.NewServer(sfmctest.Options{Listen: "nowhere"})
	g.Expect(err).To(MatchError(ContainSubstring("listen address")))
	s, _ := startServer(t, sfmctest.Options{})
	_, err = sfmctest.NewServer(sfmctest.Options{Listen: s.Host()})
	g.Expect(err).To(MatchError(ContainSubstring("address already in use")))
}

func tokenContext(t *testing.T, s *sfmctest.Server, token string) reply {
	t.Helper()
	return mustSend(t, s, http.MethodGet, "platform/v1/tokenContext", http.Header{"Authorization": {"Bearer " + token}}, "")
}
