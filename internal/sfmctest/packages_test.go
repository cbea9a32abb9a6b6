package sfmctest_test

import (
	"net/http"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

func statusWith(t *testing.T, s *sfmctest.Server, secret string) int {
	t.Helper()
	return ask(t, s, with(map[string]any{"client_secret": secret})).status
}

func TestAStagedSecretIsAcceptedAfterFiveMinutesBesideTheActiveOne(t *testing.T) {
	g := NewWithT(t)
	s, clock := startServer(t, sfmctest.Options{})
	g.Expect(s.StageSecret(journeys().ClientID, "staged-secret")).To(Succeed())
	g.Expect(statusWith(t, s, "staged-secret")).To(Equal(http.StatusUnauthorized))
	g.Expect(s.ActivateStagedSecret(journeys().ClientID)).To(MatchError(ContainSubstring("no staged secret that is accepted yet")))

	pass(clock, 5*time.Minute)
	g.Expect(statusWith(t, s, "staged-secret")).To(Equal(http.StatusOK))
	g.Expect(statusWith(t, s, "active-secret")).To(Equal(http.StatusOK))
}

func TestOnActivationTheFormerlyActiveSecretIsDeadAtOnce(t *testing.T) {
	g := NewWithT(t)
	staged := journeys()
	staged.StagedSecret = "staged-secret"
	s, _ := startServer(t, sfmctest.Options{})
	g.Expect(s.AddPackage(staged)).To(Succeed())
	g.Expect(statusWith(t, s, "staged-secret")).To(Equal(http.StatusOK), "staged long ago")

	g.Expect(s.ActivateStagedSecret(journeys().ClientID)).To(Succeed())
	g.Expect(statusWith(t, s, "active-secret")).To(Equal(http.StatusUnauthorized))
	g.Expect(statusWith(t, s, "staged-secret")).To(Equal(http.StatusOK))
	g.Expect(statusWith(t, s, "")).To(Equal(http.StatusBadRequest), "no staged secret is left to match")
}

func TestTheDelayOfAStagedSecretCanBeSet(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	s.ChangeMode(func(m *sfmctest.Mode) { m.StagedAfter = 0 })
	g.Expect(s.StageSecret(journeys().ClientID, "staged-secret")).To(Succeed())
	g.Expect(statusWith(t, s, "staged-secret")).To(Equal(http.StatusOK))
}

func TestABusinessUnitCanBeEnabledAndDisabled(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	inForeign := with(map[string]any{"account_id": foreign})
	g.Expect(s.EnableAccount(journeys().ClientID, foreign, true)).To(Succeed())
	g.Expect(ask(t, s, inForeign).status).To(Equal(http.StatusOK))
	g.Expect(s.EnableAccount(journeys().ClientID, foreign, false)).To(Succeed())
	g.Expect(ask(t, s, inForeign).status).To(Equal(http.StatusUnauthorized))
	g.Expect(s.EnableAccount(journeys().ClientID, owner, false)).To(Succeed())
	g.Expect(ask(t, s, good()).status).To(Equal(http.StatusUnauthorized), "even the owner")
}

func TestNewTokensHaveTheScopesThatThePackageHasByThen(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	g.Expect(ask(t, s, good()).token(t).Scope).To(Equal("email_read email_send journeys_read"))
	g.Expect(s.SetScopes(journeys().ClientID, "webhooks_read")).To(Succeed())
	g.Expect(ask(t, s, good()).token(t).Scope).To(Equal("webhooks_read"))
}

func TestADisabledPackageCanBeEnabledAgain(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	g.Expect(s.DisablePackage(journeys().ClientID, true)).To(Succeed())
	g.Expect(ask(t, s, good()).status).To(Equal(http.StatusUnauthorized))
	g.Expect(s.DisablePackage(journeys().ClientID, false)).To(Succeed())
	g.Expect(ask(t, s, good()).status).To(Equal(http.StatusOK))
}

func TestPackagesAreChecked(t *testing.T) {
	g := NewWithT(t)
	s, _ := startServer(t, sfmctest.Options{})
	for _, broken := range []sfmctest.Package{
		{ClientSecret: "s", AccountID: owner},
		{ClientID: "c", AccountID: owner},
		{ClientID: "c", ClientSecret: "s"},
		{ClientID: "c", ClientSecret: "s", AccountID: "EMEA"},
		{ClientID: "c", ClientSecret: "s", AccountID: owner, AccountIDs: []string{"007"}},
	} {
		g.Expect(s.AddPackage(broken)).NotTo(Succeed())
	}
	g.Expect(s.Packages()).To(HaveLen(1))
	for _, err := range []error{
		s.StageSecret("nobody", "s"), s.ActivateStagedSecret("nobody"), s.SetScopes("nobody"),
		s.EnableAccount("nobody", owner, true), s.DisablePackage("nobody", true),
	} {
		g.Expect(err).To(MatchError(`no package has the client id "nobody"`))
	}
	g.Expect(s.EnableAccount(journeys().ClientID, "EMEA", true)).NotTo(Succeed())
	_, err := sfmctest.NewServer(sfmctest.Options{Packages: []sfmctest.Package{{}}})
	g.Expect(err).To(HaveOccurred())
}
