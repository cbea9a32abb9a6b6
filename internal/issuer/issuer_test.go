package issuer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/time/rate"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

const (
	tenantHost = "mcabcdefghij-0123456789k-lmn.auth.marketingcloudapis.com"
	hushID     = "journeysclientid00000000"
	hushSecret = "Zq7hushThisIsTheSecret99"
	otherID    = "otherclientid00000000000"
	ownUnit    = "510001000" // owns both packages
	emea       = "510004567"
	apac       = "510007777"
	usualLife  = 1079 * time.Second
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// desk is an issuer, the stand-in that it asks, and the one clock of both.
type desk struct {
	*Issuer
	t      *testing.T
	server *sfmctest.Server
	clock  *clocktesting.FakePassiveClock
	// announced counts the calls of Candidate.Issued.
	announced atomic.Int32
	// decided is called when an answer was decided, before it is sent.
	decided atomic.Pointer[func(sfmctest.TokenRequest)]

	// recorded is what is recorded outside of the process, or err is why that can't be read. recalled are the
	// identities that it was asked about.
	recorded []*token.Token
	err      error
	recalled []string

	mu       sync.Mutex
	observed []observation
}

// observation is what Observe is told of one request.
type observation struct {
	failed *sfmc.Error
	took   time.Duration
}

func openDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, clock: clocktesting.NewFakePassiveClock(noon)}
	installed := func(clientID string) sfmctest.Package {
		return sfmctest.Package{ClientID: clientID, ClientSecret: hushSecret, AccountID: ownUnit,
			AccountIDs: []string{emea, apac}, Scopes: []string{"email_read"}}
	}
	d.server = sfmctest.Start(t, sfmctest.Options{
		Clock:    d.clock,
		Packages: []sfmctest.Package{installed(hushID), installed(otherID)},
		OnTokenRequest: func(r sfmctest.TokenRequest) {
			if decided := d.decided.Load(); decided != nil {
				(*decided)(r)
			}
		},
	})
	d.restart(rate.Inf, 1)
	return d
}

// restart replaces the issuer by one that remembers nothing.
func (d *desk) restart(limit rate.Limit, burst int) {
	d.t.Helper()
	client, err := sfmc.NewClient(d.server.CACert(), d.clock)
	NewWithT(d.t).Expect(err).NotTo(HaveOccurred())
	d.t.Cleanup(client.CloseIdleConnections)
	d.Issuer = New(Options{
		Client: client, Clock: d.clock, RequestRate: limit, RequestBurst: burst,
		Recall: d.recallRecorded, Observe: d.observe,
	})
}

func (d *desk) recallRecorded(_ context.Context, identity string) ([]*token.Token, error) {
	d.recalled = append(d.recalled, identity)
	return d.recorded, d.err
}

func (d *desk) observe(failed *sfmc.Error, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.observed = append(d.observed, observation{failed, took})
}

func (d *desk) pass(by time.Duration) { d.clock.SetTime(d.clock.Now().Add(by)) }

// candidate is one for a business unit, by the object of that name.
func (d *desk) candidate(account, object string) *Candidate {
	return d.candidateOf(hushID, account, object)
}

func (d *desk) candidateOf(client, account, object string) *Candidate {
	return d.candidateWith(hushSecret, client, account, object)
}

func (d *desk) candidateWith(secret, client, account, object string) *Candidate {
	request := sfmc.TokenRequest{AuthHost: d.server.Host(), ClientID: client, ClientSecret: secret, AccountID: account}
	return &Candidate{
		IssuedFor: token.Identify(request), Request: request, RefreshBefore: 5 * time.Minute,
		Causes: map[string]string{"credentials": "1", "object " + object: "1"},
		Issued: func(context.Context, *token.Token) { d.announced.Add(1) },
	}
}

// gets asks for a token and expects one that is alive, in the right business unit.
func (d *desk) gets(candidate *Candidate) *token.Token {
	d.t.Helper()
	issued, err := d.obtain(d.t.Context(), candidate)
	NewWithT(d.t).Expect(err).NotTo(HaveOccurred())
	d.expectAlive(issued, candidate.AccountID)
	return issued
}

func (d *desk) expectAlive(issued *token.Token, account string) {
	d.t.Helper()
	g := NewWithT(d.t)
	of, alive := d.server.Check(issued.AccessToken)
	g.Expect(alive).To(BeTrue())
	if account != "" {
		g.Expect(of).To(Equal(account))
	}
}

// fails asks for a token, expects none, and returns how long to wait.
func (d *desk) fails(candidate *Candidate) (*problem.Problem, time.Duration) {
	d.t.Helper()
	g := NewWithT(d.t)
	issued, err := d.obtain(d.t.Context(), candidate)
	g.Expect(err).To(HaveOccurred(), "a token was issued or remembered")
	g.Expect(issued).To(BeNil())
	failed := d.problemOf(err)
	return failed, failed.RetryAt.Sub(d.clock.Now())
}

// problemOf is the problem that err is, whose reason is that of the failed request.
func (d *desk) problemOf(err error) *problem.Problem {
	d.t.Helper()
	g := NewWithT(d.t)
	var failed *problem.Problem
	g.Expect(errors.As(err, &failed)).To(BeTrue(), "%v", err)
	if kind := kindOf(err); kind != "" {
		g.Expect(failed.Reason).To(Equal(reasons[kind]))
	}
	return failed
}

// kindOf is the kind of the failed request that err is about, empty if it is about none.
func kindOf(err error) sfmc.Kind {
	var failed *sfmc.Error
	if errors.As(err, &failed) {
		return failed.Kind
	}
	return ""
}

// living is a token that was issued then, for so long.
func living(identity string, at time.Time, life time.Duration) *token.Token {
	return &token.Token{
		Token:     sfmc.Token{AccessToken: "token", TokenType: "Bearer", ExpiresIn: life},
		IssuedFor: token.IssuedFor{Identity: identity},
		IssuedAt:  at,
		ExpiresAt: at.Add(life),
	}
}

func TestAllWhoWantOneTokenShareOneRequest(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	var started, done sync.WaitGroup
	started.Add(50)
	hold := func(sfmctest.TokenRequest) { started.Wait() } // the answer waits for everyone
	d.decided.Store(&hold)
	tokens, errs := make([]*token.Token, 50), make([]error, 50)
	for i := range tokens {
		done.Go(func() {
			candidate := d.candidate(emea, fmt.Sprint(i))
			started.Done()
			tokens[i], errs[i] = d.obtain(t.Context(), candidate)
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
			candidate := d.candidate(emea, fmt.Sprint(i))
			started.Done()
			_, errs[i] = d.obtain(t.Context(), candidate)
		})
	}
	done.Wait()
	for _, err := range errs {
		g.Expect(kindOf(err)).To(Equal(sfmc.Refused))
		_ = d.problemOf(err)
	}
	g.Expect(d.server.Count()).To(Equal(1))
	g.Expect(d.announced.Load()).To(BeZero())
}

func TestATokenHasAllThatMustBeRememberedOfIt(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	slow := func(sfmctest.TokenRequest) { d.pass(20 * time.Second) } // the answer takes its time
	d.decided.Store(&slow)
	candidate := d.candidate(emea, "a")
	issued := d.gets(candidate)
	g.Expect(issued.IssuedAt).To(Equal(noon), "counted from when the request was sent")
	g.Expect(issued.ExpiresAt).To(Equal(noon.Add(usualLife)))
	g.Expect(issued.IssuedFor).To(Equal(candidate.IssuedFor))
	g.Expect(issued.Proof).To(Equal(issued.Prove(hushSecret)))
	g.Expect(d.Latest(candidate.Identity)).To(Equal(issued))
	g.Expect(d.Latest("another")).To(BeNil())
}

func TestWhoeverAskedForATokenIsToldOfItOnceEveryoneFindsIt(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	var told, found []*token.Token
	asks := func() *Candidate {
		candidate := d.candidate(emea, "a")
		candidate.Issued = func(ctx context.Context, issued *token.Token) {
			g.Expect(ctx).To(Equal(t.Context()))
			told, found = append(told, issued), append(found, d.Latest(candidate.Identity))
		}
		return candidate
	}
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.InternalError})
	_, wait := d.fails(asks())
	g.Expect(told).To(BeEmpty(), "there was none")
	d.pass(wait)
	first := d.gets(asks())
	g.Expect(d.gets(asks())).To(Equal(first))
	g.Expect(told).To(Equal([]*token.Token{first}))
	g.Expect(found).To(Equal(told))
}

func TestEachRequestIsObservedAndNothingElse(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	slow := func(sfmctest.TokenRequest) { d.pass(3 * time.Second) }
	d.decided.Store(&slow)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.InvalidClient})
	candidate := d.candidate(emea, "a")
	_, _ = d.fails(candidate)
	_, _ = d.fails(candidate)
	d.pass(2 * time.Minute)
	d.gets(candidate)
	d.gets(candidate)
	g.Expect(d.server.Count()).To(Equal(2))
	g.Expect(d.observed).To(HaveLen(2))
	g.Expect(d.observed[0].failed).To(HaveField("Kind", sfmc.Refused))
	g.Expect(d.observed[1].failed == nil).To(BeTrue())
	for _, request := range d.observed {
		g.Expect(request.took).To(Equal(3 * time.Second))
	}
}

func TestARememberedTokenIsServedUntilItIsToBeReplaced(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	candidate := d.candidate(emea, "a")
	first := d.gets(candidate)
	at := first.RefreshAt(candidate.RefreshBefore)
	d.clock.SetTime(at.Add(-1))
	g.Expect(d.gets(d.candidate(emea, "b"))).To(Equal(first))
	g.Expect(d.server.Count()).To(Equal(1))
	d.clock.SetTime(at)
	second := d.gets(candidate)
	g.Expect(second.AccessToken).NotTo(Equal(first.AccessToken))
	g.Expect(d.gets(d.candidate(emea, "b"))).To(Equal(second))
	g.Expect(d.server.Count()).To(Equal(2))
	g.Expect(d.announced.Load()).To(BeEquivalentTo(2))
}

func TestEachIdentityHasATokenOfItsOwn(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	seen := map[string]bool{}
	for _, candidate := range []*Candidate{
		d.candidate(emea, "a"), d.candidate(apac, "a"), d.candidate("", "a"), d.candidateOf(otherID, emea, "a"),
	} {
		seen[d.gets(candidate).AccessToken] = true
	}
	g.Expect(seen).To(HaveLen(4))
	g.Expect(d.server.Count()).To(Equal(4))
}

func TestATokenThatWontDoAnyMoreIsReplacedOnceForAll(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	first := d.gets(d.candidate(emea, "a"))
	again := d.candidate(emea, "a")
	again.Rejected = first.AccessToken
	second := d.gets(again)
	g.Expect(second.AccessToken).NotTo(Equal(first.AccessToken))
	another := d.candidate(emea, "b")
	another.Rejected, another.Causes = first.AccessToken, map[string]string{"object b": "2"}
	g.Expect(d.gets(another)).To(Equal(second), "another who saw the first one fail")
	g.Expect(d.gets(d.candidate(emea, "c"))).To(Equal(second))
	g.Expect(d.server.Count()).To(Equal(2))
}

func TestAnEndpointThatAlwaysIssuesTheSameTokenIsNotAskedInALoop(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	d.server.AddFaults(sfmctest.Fault{
		Fields: map[string]string{"access_token": `"always-the-same"`}, Times: sfmctest.Forever,
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	enough := func(sfmctest.TokenRequest) {
		if d.server.Count() > 5 {
			cancel()
		}
	}
	d.decided.Store(&enough)
	candidate := d.candidate(emea, "a")
	_, err := d.obtain(ctx, candidate)
	g.Expect(err).NotTo(HaveOccurred())
	candidate.Rejected = "always-the-same"
	_, err = d.obtain(ctx, candidate)
	g.Expect(d.server.Count()).To(Equal(2), "one request for the refresh that was asked for")
	g.Expect(err).NotTo(HaveOccurred())
}

func TestAShutdownLosesNoTokenThatWasAskedFor(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	ctx, cancel := context.WithCancel(t.Context())
	stop := func(sfmctest.TokenRequest) { cancel() }
	d.decided.Store(&stop)
	issued, err := d.obtain(ctx, d.candidate(emea, "a"))
	g.Expect(err).NotTo(HaveOccurred())
	d.expectAlive(issued, emea)

	_, err = d.obtain(ctx, d.candidate(apac, "a"))
	g.Expect(err).To(MatchError(context.Canceled))
	g.Expect(d.server.Count()).To(Equal(1), "none is asked for after it")
}

func TestATokenThatIsLearntIsServedUnlessANewerOneIsKnown(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	candidate := d.candidate(emea, "a")
	issuedAt := func(at time.Time, text string) *token.Token {
		held := living(candidate.Identity, at, usualLife)
		held.AccessToken = text
		return held
	}
	d.learn(issuedAt(noon.Add(-time.Minute), "older"))
	d.learn(issuedAt(noon, "newest"))
	d.learn(issuedAt(noon.Add(-2*time.Minute), "oldest"))
	served, err := d.obtain(t.Context(), candidate)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(served.AccessToken).To(Equal("newest"))
	g.Expect(d.server.Count()).To(BeZero())
}

func TestAHeldTokenIsTheNewestUntilALaterOneIsKnownForItsIdentities(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	g.Expect(d.Newest(nil, []string{"alias"})).To(BeNil())
	called := func(text, identity string, at time.Time) *token.Token {
		named := living(identity, at, usualLife)
		named.AccessToken = text
		return named
	}
	held := called("held", "own", noon)
	newest := func() *token.Token { return d.Newest(held, []string{"alias"}) }
	g.Expect(newest()).To(BeIdenticalTo(held), "none is known at all")

	same := called("held", "own", noon)
	d.learn(same)
	g.Expect(newest()).To(BeIdenticalTo(same), "the same one, with the monotonic clock if it was issued here")

	d.learn(called("earlier", "alias", noon.Add(-1)))
	d.learn(called("foreign", "foreign", noon.Add(time.Minute)))
	g.Expect(newest()).To(BeIdenticalTo(same))
	byAlias := called("by alias", "alias", noon.Add(1))
	d.learn(byAlias)
	g.Expect(newest()).To(BeIdenticalTo(byAlias), "one was issued to the other client secret since")
	g.Expect(d.Newest(held, nil)).To(BeIdenticalTo(same), "which isn't one of the package any more")
	next := called("next", "own", noon.Add(2))
	d.learn(next)
	g.Expect(newest()).To(BeIdenticalTo(next))
}

func TestATokenThatWasIssuedAfterTheWallClockWasSetBackIsTheNewestAllTheSame(t *testing.T) {
	g := NewWithT(t)
	d := openDesk(t)
	candidate := d.candidate(emea, "a")
	held := d.gets(candidate)
	d.pass(-20 * time.Second) // less than another replica's clock may differ by
	candidate.Rejected = held.AccessToken
	next := d.gets(candidate)
	g.Expect(next.AccessToken).NotTo(Equal(held.AccessToken))
	g.Expect(d.Newest(held, nil)).To(BeIdenticalTo(next), "else whoever shares it keeps one that may be invalid")
}
