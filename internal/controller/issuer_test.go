package controller

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/apimachinery/pkg/types"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

const (
	ownUnit = "510001000" // owns both packages
	emea    = "510004567"
	apac    = "510007777"
	otherID = "otherclientid00000000000"
)

// desk is an issuer, the stand-in that it asks, and the one clock of both.
type desk struct {
	*issuer
	t         *testing.T
	server    *sfmctest.Server
	clock     *clocktesting.FakePassiveClock
	announced atomic.Int32
	// decided is called when an answer was decided, before it is sent.
	decided atomic.Pointer[func(sfmctest.TokenRequest)]
}

func openDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, clock: clocktesting.NewFakePassiveClock(noon)}
	units := []string{emea, apac}
	d.server = sfmctest.Start(t, sfmctest.Options{
		Clock: d.clock,
		Packages: []sfmctest.Package{
			{ClientID: hushID, ClientSecret: hushSecret, AccountID: ownUnit, AccountIDs: units, Scopes: []string{"email_read"}},
			{ClientID: otherID, ClientSecret: hushSecret, AccountID: ownUnit, AccountIDs: units, Scopes: []string{"email_read"}},
		},
		OnTokenRequest: func(r sfmctest.TokenRequest) {
			if decided := d.decided.Load(); decided != nil {
				(*decided)(r)
			}
		},
	})
	client, err := sfmc.NewClient(d.server.CACert(), d.clock)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	t.Cleanup(client.CloseIdleConnections)
	d.issuer = newIssuer(client, d.clock, func(context.Context, *issued, types.NamespacedName) { d.announced.Add(1) })
	return d
}

func (d *desk) pass(by time.Duration) { d.clock.SetTime(d.clock.Now().Add(by)) }

// want is a want for a business unit, by the object of that name.
func (d *desk) want(account, object string) want { return d.wantOf(hushID, account, object) }

func (d *desk) wantOf(client, account, object string) want {
	request := sfmc.TokenRequest{AuthHost: d.server.Host(), ClientID: client, ClientSecret: hushSecret, AccountID: account}
	return want{
		issuedFor: identify(request), request: request, refreshBefore: 5 * time.Minute,
		causes: map[string]string{"credentials": "1", "object " + object: "1"},
	}
}

// gets asks for a token and expects one that is alive, in the right business unit.
func (d *desk) gets(w want) *issued {
	d.t.Helper()
	g := NewWithT(d.t)
	token, err := d.token(d.t.Context(), w)
	g.Expect(err).NotTo(HaveOccurred())
	account, alive := d.server.Check(token.AccessToken)
	g.Expect(alive).To(BeTrue())
	if w.AccountID != "" {
		g.Expect(account).To(Equal(w.AccountID))
	}
	return token
}

// fails asks for a token, expects none, and returns how long to wait.
func (d *desk) fails(w want) (*attemptError, time.Duration) {
	d.t.Helper()
	g := NewWithT(d.t)
	token, err := d.token(d.t.Context(), w)
	g.Expect(err).To(HaveOccurred(), "a token was issued or remembered")
	g.Expect(token).To(BeNil())
	var attempt *attemptError
	g.Expect(errors.As(err, &attempt)).To(BeTrue(), "%v", err)
	return attempt, attempt.retryAt.Sub(d.clock.Now())
}

func TestAllWhoWantOneTokenShareOneRequest(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	var started, done sync.WaitGroup
	started.Add(50)
	hold := func(sfmctest.TokenRequest) { started.Wait() } // the answer waits for everyone
	d.decided.Store(&hold)
	tokens, errs := make([]*issued, 50), make([]error, 50)
	for i := range tokens {
		done.Go(func() {
			w := d.want(emea, fmt.Sprint(i))
			started.Done()
			tokens[i], errs[i] = d.token(t.Context(), w)
		})
	}
	done.Wait()
	for i := range tokens {
		g.Expect(errs[i]).NotTo(HaveOccurred())
		g.Expect(tokens[i].AccessToken).To(Equal(tokens[0].AccessToken))
	}
	g.Expect(d.server.Count()).To(Equal(1))
	g.Expect(d.announced.Load()).To(BeEquivalentTo(1))
}

func TestAllWhoWantOneTokenShareOneRefusal(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.InvalidClient, Times: sfmctest.Forever})
	var started, done sync.WaitGroup
	started.Add(50)
	hold := func(sfmctest.TokenRequest) { started.Wait() }
	d.decided.Store(&hold)
	errs := make([]error, 50)
	for i := range errs {
		done.Go(func() {
			w := d.want(emea, fmt.Sprint(i))
			started.Done()
			_, errs[i] = d.token(t.Context(), w)
		})
	}
	done.Wait()
	for _, err := range errs {
		g.Expect(sfmc.KindOf(err)).To(Equal(sfmc.Refused))
	}
	g.Expect(d.server.Count()).To(Equal(1))
	g.Expect(d.announced.Load()).To(BeZero())
}

func TestATokenHasAllThatMustBeRememberedOfIt(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	slow := func(sfmctest.TokenRequest) { d.pass(20 * time.Second) } // the answer takes its time
	d.decided.Store(&slow)
	w := d.want(emea, "a")
	token := d.gets(w)
	g.Expect(token.IssuedAt).To(Equal(noon), "counted from when the request was sent")
	g.Expect(token.ExpiresAt).To(Equal(noon.Add(1079 * time.Second)))
	g.Expect(token.issuedFor).To(Equal(w.issuedFor))
	g.Expect(token.Proof).To(Equal(token.prove(hushSecret)))
	g.Expect(d.latest(w.Identity)).To(Equal(token))
	g.Expect(d.latest("another")).To(BeNil())
}

func TestARememberedTokenIsServedUntilItIsToBeReplaced(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	w := d.want(emea, "a")
	first := d.gets(w)
	at := first.refreshAt(w.refreshBefore)
	d.clock.SetTime(at.Add(-1))
	g.Expect(d.gets(d.want(emea, "b"))).To(Equal(first))
	g.Expect(d.server.Count()).To(Equal(1))
	d.clock.SetTime(at)
	second := d.gets(w)
	g.Expect(second.AccessToken).NotTo(Equal(first.AccessToken))
	g.Expect(d.gets(d.want(emea, "b"))).To(Equal(second))
	g.Expect(d.server.Count()).To(Equal(2))
	g.Expect(d.announced.Load()).To(BeEquivalentTo(2))
}

func TestEachIdentityHasATokenOfItsOwn(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	seen := map[string]bool{}
	for _, w := range []want{d.want(emea, "a"), d.want(apac, "a"), d.want("", "a"), d.wantOf(otherID, emea, "a")} {
		seen[d.gets(w).AccessToken] = true
	}
	g.Expect(seen).To(HaveLen(4))
	g.Expect(d.server.Count()).To(Equal(4))
}

func TestATokenThatWontDoAnyMoreIsReplacedOnceForAll(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	first := d.gets(d.want(emea, "a"))
	again := d.want(emea, "a")
	again.not = first.AccessToken
	second := d.gets(again)
	g.Expect(second.AccessToken).NotTo(Equal(first.AccessToken))
	again.causes = map[string]string{"object b": "2"}
	g.Expect(d.gets(again)).To(Equal(second), "another who saw the first one fail")
	g.Expect(d.gets(d.want(emea, "c"))).To(Equal(second))
	g.Expect(d.server.Count()).To(Equal(2))
}

func TestAnEndpointThatAlwaysIssuesTheSameTokenIsNotAskedInALoop(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{Fields: map[string]string{"access_token": `"always-the-same"`}, Times: sfmctest.Forever})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	enough := func(sfmctest.TokenRequest) {
		if d.server.Count() > 5 {
			cancel()
		}
	}
	d.decided.Store(&enough)
	w := d.want(emea, "a")
	_, err := d.token(ctx, w)
	g.Expect(err).NotTo(HaveOccurred())
	w.not = "always-the-same"
	_, err = d.token(ctx, w)
	g.Expect(d.server.Count()).To(Equal(2), "one request for the refresh that was asked for")
	g.Expect(err).NotTo(HaveOccurred())
}

func TestAShutdownLosesNoTokenThatWasAskedFor(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	ctx, cancel := context.WithCancel(t.Context())
	stop := func(sfmctest.TokenRequest) { cancel() }
	d.decided.Store(&stop)
	token, err := d.token(ctx, d.want(emea, "a"))
	g.Expect(err).NotTo(HaveOccurred())
	_, alive := d.server.Check(token.AccessToken)
	g.Expect(alive).To(BeTrue())

	_, err = d.token(ctx, d.want(apac, "a"))
	g.Expect(err).To(MatchError(context.Canceled))
	g.Expect(d.server.Count()).To(Equal(1), "none is asked for after it")
}

func TestATokenLearntFromASecretIsServedUnlessANewerOneIsKnown(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	w := d.want(emea, "a")
	issuedAt := func(at time.Time, text string) *issued {
		token := living(w.Identity, at, 1079*time.Second)
		token.AccessToken = text
		return token
	}
	d.learn(issuedAt(noon.Add(-time.Minute), "older"))
	d.learn(issuedAt(noon, "newest"))
	d.learn(issuedAt(noon.Add(-2*time.Minute), "oldest"))
	token, err := d.token(t.Context(), w)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(token.AccessToken).To(Equal("newest"))
	g.Expect(d.server.Count()).To(BeZero())
}
