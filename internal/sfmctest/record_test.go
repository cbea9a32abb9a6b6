package sfmctest_test

import (
	"encoding/json"
	"sync"
	"testing"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

func TestEveryTokenRequestIsRecordedAsSent(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	ask(t, s, good())
	ask(t, s, with(map[string]any{"scope": "", "account_id": "510004567"}))
	ask(t, s, with(map[string]any{"scope": "b a", "account_id": 510009999}))
	ask(t, s, with(map[string]any{"client_id": 5, "account_id": nil}))
	requests := s.Requests()
	g.Expect(requests).To(HaveLen(4))
	g.Expect(requests[0]).To(Equal(sfmctest.TokenRequest{
		Time: start, ClientID: journeys().ClientID, AccountIDType: "absent", GrantType: "client_credentials",
		ContentType: "application/json", UserAgent: "Go-http-client/2.0", Protocol: "HTTP/2.0", Status: 200, Issued: true,
	}))
	g.Expect(requests[1]).To(And(HaveField("ScopeSent", true), HaveField("Scope", ""), HaveField("AccountID", emea), HaveField("AccountIDType", "string")))
	g.Expect(requests[2]).To(And(HaveField("Scope", "b a"), HaveField("AccountIDType", "number"), HaveField("Status", 401)))
	g.Expect(requests[3]).To(And(HaveField("Status", 400), HaveField("GrantType", "client_credentials")))
	g.Expect(json.Marshal(requests)).NotTo(ContainSubstring("active-secret"))
}

func TestCountersGoByIdentity(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	ask(t, s, with(map[string]any{"scope": "email_send email_read"}))
	ask(t, s, with(map[string]any{"scope": "email_read email_send"}))
	ask(t, s, good())
	ask(t, s, with(map[string]any{"scope": ""}))
	ask(t, s, with(map[string]any{"client_secret": "wrong"}))
	ask(t, s, with(map[string]any{"account_id": 510004567}))

	g.Expect(s.Count()).To(Equal(6))
	g.Expect(s.Issued()).To(Equal(5))
	g.Expect(s.CountFor(journeys().ClientID, "")).To(Equal(5))
	g.Expect(s.CountFor(journeys().ClientID, emea)).To(Equal(1))
	counts := s.Counts()
	g.Expect(counts).To(HaveLen(5))
	g.Expect(counts).To(ContainElement(And(HaveField("Scopes", "email_read email_send"), HaveField("Requests", 2), HaveField("Issued", 2))))
	g.Expect(counts).To(ContainElement(And(HaveField("ClientSecret", "wrong"), HaveField("Requests", 1), HaveField("Issued", 0))))
	g.Expect(json.Marshal(counts)).NotTo(Or(ContainSubstring("active-secret"), ContainSubstring("wrong")))

	s.ResetRecord()
	g.Expect(s.Count()).To(BeZero())
	g.Expect(s.Requests()).To(BeEmpty())
	g.Expect(s.Counts()).To(BeEmpty())
}

func TestTheListOfRequestsIsBoundedAndTheCountersAreNot(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	const all = 10_500
	askMany(t, s, all)
	ask(t, s, with(map[string]any{"account_id": 510004567}))
	requests := s.Requests()
	g.Expect(requests).To(HaveLen(10_000))
	g.Expect(requests[len(requests)-1]).To(HaveField("AccountID", emea))
	g.Expect(s.Count()).To(Equal(all + 1))
	g.Expect(s.CountFor(journeys().ClientID, "")).To(Equal(all))
}

// askMany sends n good requests from a few clients at once.
func askMany(t testing.TB, s *sfmctest.Server, n int) {
	t.Helper()
	var clients sync.WaitGroup
	work := make(chan struct{}, n)
	for range n {
		work <- struct{}{}
	}
	close(work)
	for range 8 {
		clients.Go(func() {
			for range work {
				if got, err := try(t.Context(), s, good()); err != nil || got.status != 200 {
					t.Errorf("status %d, error %v", got.status, err)
				}
			}
		})
	}
	clients.Wait()
}

func BenchmarkTokenRequest(b *testing.B) {
	s := sfmctest.Start(b, sfmctest.Options{Packages: []sfmctest.Package{journeys()}})
	b.ReportAllocs()
	askMany(b, s, b.N)
}
