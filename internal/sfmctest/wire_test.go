package sfmctest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

// TestTransportFaults runs over both protocols, as they break in different ways.
func TestTransportFaults(t *testing.T) {
	for protocol, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2.0": true} {
		t.Run(protocol, func(t *testing.T) {
			t.Run("never answering waits until the client goes", func(t *testing.T) {
				g := NewWithT(t)
				answered := make(chan sfmctest.TokenRequest, 1)
				s, _ := startServer(t, sfmctest.Options{OnTokenRequest: func(r sfmctest.TokenRequest) { answered <- r }})
				s.AddFaults(sfmctest.Fault{Wire: sfmctest.NeverAnswer})
				ctx, cancel := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				client := clientOf(t, s, http2)
				go func() {
					response, err := post(ctx, client, s)
					if err == nil {
						_ = response.Body.Close()
					}
					ended <- err
				}()
				g.Eventually(s.Count).Should(Equal(1))
				g.Consistently(ended, 20*time.Millisecond).ShouldNot(Receive())
				cancel()
				g.Expect(<-ended).To(MatchError(context.Canceled))
				g.Expect(<-answered).To(And(HaveField("Status", 0), HaveField("Protocol", protocol)))
				g.Expect(s.Issued()).To(BeZero())
			})
			t.Run("a reset comes instead of an answer", func(t *testing.T) {
				g := NewWithT(t)
				s, _ := startServer(t, sfmctest.Options{})
				s.AddFaults(sfmctest.Fault{Wire: sfmctest.Reset, Times: sfmctest.Forever})
				response, err := post(t.Context(), clientOf(t, s, http2), s)
				if err == nil {
					_ = response.Body.Close()
				}
				g.Expect(err).To(Or(MatchError(syscall.ECONNRESET), MatchError(io.EOF), MatchError(io.ErrUnexpectedEOF), MatchError(ContainSubstring("connection"))))
				g.Expect(s.Issued()).To(BeZero())
				s.ClearFaults()
				ask(t, s, good()).token(t)
			})
			t.Run("a cut body is shorter than announced", func(t *testing.T) {
				g := NewWithT(t)
				s, _ := startServer(t, sfmctest.Options{})
				s.AddFaults(sfmctest.Fault{Wire: sfmctest.CutBody})
				response, err := post(t.Context(), clientOf(t, s, http2), s)
				g.Expect(err).NotTo(HaveOccurred())
				defer response.Body.Close()
				body, err := io.ReadAll(response.Body)
				g.Expect(err).To(HaveOccurred())
				g.Expect(response.Header.Get("Content-Length")).To(Equal(strconv.FormatInt(response.ContentLength, 10)))
				g.Expect(int64(len(body))).To(BeNumerically("<", response.ContentLength))
				g.Expect(s.Issued()).To(Equal(1), "it was issued, but never arrived")
			})
			t.Run("an endless body ends only with the client", func(t *testing.T) {
				g := NewWithT(t)
				s, _ := startServer(t, sfmctest.Options{})
				s.AddFaults(sfmctest.Fault{Wire: sfmctest.EndlessBody})
				response, err := post(t.Context(), clientOf(t, s, http2), s)
				g.Expect(err).NotTo(HaveOccurred())
				read, err := io.CopyN(io.Discard, response.Body, 3<<20)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(read).To(Equal(int64(3 << 20)))
				g.Expect(response.Body.Close()).To(Succeed())
			})
			t.Run("a slow body comes byte by byte and is whole", func(t *testing.T) {
				g := NewWithT(t)
				s, _ := startServer(t, sfmctest.Options{})
				s.AddFaults(sfmctest.Fault{Wire: sfmctest.SlowBody, Every: time.Microsecond, Body: `{"slow":true}`})
				response, err := post(t.Context(), clientOf(t, s, http2), s)
				g.Expect(err).NotTo(HaveOccurred())
				defer response.Body.Close()
				g.Expect(response.ContentLength).To(Equal(int64(-1)))
				g.Expect(readAll(t, response)).To(Equal(`{"slow":true}`))
			})
			t.Run("a slow body makes a client wait", func(t *testing.T) {
				g := NewWithT(t)
				s, _ := startServer(t, sfmctest.Options{})
				s.AddFaults(sfmctest.Fault{Wire: sfmctest.SlowBody, Every: time.Hour})
				ctx, cancel := context.WithCancel(t.Context())
				response, err := post(ctx, clientOf(t, s, http2), s)
				g.Expect(err).NotTo(HaveOccurred())
				defer response.Body.Close()
				first := make([]byte, 2)
				n, err := response.Body.Read(first)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(string(first[:n])).To(Equal("{"))
				cancel()
				_, err = io.ReadAll(response.Body)
				g.Expect(err).To(MatchError(context.Canceled))
			})
		})
	}
}

func clientOf(t *testing.T, s *sfmctest.Server, http2 bool) *http.Client {
	t.Helper()
	roots := x509.NewCertPool()
	NewWithT(t).Expect(roots.AppendCertsFromPEM(s.CACert())).To(BeTrue())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: http2}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

func post(ctx context.Context, client *http.Client, s *sfmctest.Server) (*http.Response, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL()+"v2/token",
		strings.NewReader(`{"grant_type":"client_credentials","client_id":"`+journeys().ClientID+`","client_secret":"active-secret"}`))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	return client.Do(request)
}

func TestTakingTheServerDownEndsRequestsThatWait(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	s.AddFaults(sfmctest.Fault{Wire: sfmctest.NeverAnswer})
	ended := make(chan error, 1)
	go func() {
		_, err := try(t.Context(), s, good())
		ended <- err
	}()
	g.Eventually(s.Count).Should(Equal(1))
	s.TakeDown()
	g.Eventually(ended).Should(Receive(HaveOccurred()))
}

func TestARequestThatIsBrokenOffIsRecordedAsSuch(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		g := NewWithT(t)
		s, _ := startServer(t, sfmctest.Options{})
		body, rest := io.Pipe()
		go func() {
			_, _ = rest.Write([]byte(`{"client_id":"`))
			rest.CloseWithError(errors.New("the client goes"))
		}()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL()+"v2/token", body)
		g.Expect(err).NotTo(HaveOccurred())
		_, err = clientOf(t, s, http2).Do(request)
		g.Expect(err).To(MatchError(ContainSubstring("the client goes")))
		g.Eventually(s.Requests).Should(ConsistOf(And(HaveField("BrokenOff", true), HaveField("ClientID", ""), HaveField("Issued", false))))

		ask(t, s, good())
		g.Expect(s.Requests()).To(ContainElement(And(HaveField("BrokenOff", false), HaveField("Issued", true))))
	}
}
