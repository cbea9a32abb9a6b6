package sfmctest_test

import (
	"net/http"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

func TestCallsAreCountedByUserAgent(t *testing.T) {
	g := NewWithT(t)
	s, clock := startServer(t, sfmctest.Options{})
	call := func(userAgent, token string) {
		mustSend(t, s, http.MethodGet, "platform/v1/tokenContext",
			http.Header{"Authorization": {"Bearer " + token}, "User-Agent": {userAgent}}, "")
	}
	first := ask(t, s, good()).token(t).AccessToken
	second := ask(t, s, good()).token(t).AccessToken
	call("reads each time", first)
	call("keeps it", first)
	call("keeps it", first)
	call("reads each time", second)
	mustSend(t, s, http.MethodPost, "Service.asmx", http.Header{"User-Agent": {"keeps it"}}, "no XML")
	pass(clock, time.Hour)
	call("keeps it", first)

	g.Expect(s.Calls()).To(Equal([]sfmctest.Calls{
		{UserAgent: "keeps it", API: "rest", Calls: 3, Refused: 1, Tokens: 1},
		{UserAgent: "keeps it", API: "soap", Calls: 1, Refused: 1},
		{UserAgent: "reads each time", API: "rest", Calls: 2, Tokens: 2},
	}))
	g.Expect(control(t, s, http.MethodGet, "calls", "").body).To(ContainSubstring(
		`{"userAgent":"keeps it","api":"rest","calls":3,"refused":1,"tokens":1}`))
	s.ResetRecord()
	g.Expect(s.Calls()).To(BeEmpty())
}
