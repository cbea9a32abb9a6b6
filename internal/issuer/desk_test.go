package issuer

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/time/rate"
	"k8s.io/utils/clock"
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

// desk is an issuer, the stand-in that it asks, and the one clock of both. Nothing runs the issuer but the desk.
type desk struct {
	*Issuer
	t      *testing.T
	server *sfmctest.Server
	clock  *clocktesting.FakeClock
	wall   clock.Clock // what the issuer reads of it
	// decided is called when an answer was decided, before it is sent.
	decided atomic.Pointer[func(sfmctest.TokenRequest)]

	// recorded is what is recorded outside of the process, or err is why that can't be read. recalled are the
	// identities that it was asked about.
	recorded []*token.Token
	err      error
	recalled []string

	mu       sync.Mutex
	observed []observation
	wakes    []wake
}

// observation is what Observe is told of one request.
type observation struct {
	failed *sfmc.Error
	took   time.Duration
}

// wake is what Wake is told of one request.
type wake struct {
	askers []Asker
	issued *token.Token
	// latest is what was remembered then.
	latest *token.Token
}

func openDesk(t *testing.T) *desk {
	t.Helper()
	d := &desk{t: t, clock: clocktesting.NewFakeClock(noon)}
	d.wall = d.clock
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
		Client: client, Clock: d.wall, RequestRate: limit, RequestBurst: burst, MaxInFlight: 64,
		Recall: d.recallRecorded, Observe: d.observe, Wake: d.wake,
	})
}

func (d *desk) recallRecorded(_ context.Context, identity string) ([]*token.Token, error) {
	d.recalled = append(d.recalled, identity)
	return d.recorded, d.err
}

func (d *desk) observe(_ string, failed *sfmc.Error, took time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.observed = append(d.observed, observation{failed, took})
}

func (d *desk) wake(askers []Asker, issued *token.Token) {
	told := wake{askers: askers, issued: issued}
	if issued != nil {
		told.latest = d.Latest(issued.Identity)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wakes = append(d.wakes, told)
}

// woken are the wakes of an asker; issued are all tokens that any was told of.
func (d *desk) woken(asker Asker) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, w := range d.wakes {
		if slices.Contains(w.askers, asker) {
			n++
		}
	}
	return n
}

func (d *desk) issued() []*token.Token {
	d.mu.Lock()
	defer d.mu.Unlock()
	var issued []*token.Token
	for _, w := range d.wakes {
		if w.issued != nil {
			issued = append(issued, w.issued)
		}
	}
	return issued
}

// pass lets time pass, and has sent what is due then.
func (d *desk) pass(by time.Duration) { d.setTime(d.clock.Now().Add(by)) }

func (d *desk) setTime(now time.Time) {
	d.clock.SetTime(now)
	d.look()
}

// settle waits until nothing is under way.
func (d *desk) settle() {
	d.t.Helper()
	NewWithT(d.t).Eventually(d.InFlight, 10*time.Second, time.Millisecond).Should(BeZero())
}

// want is what the object of that name wants for a business unit.
func (d *desk) want(account, object string) *Want { return d.wantOf(hushID, account, object) }

func (d *desk) wantOf(client, account, object string) *Want {
	return d.wantWith(hushSecret, client, account, object)
}

func (d *desk) wantWith(secret, client, account, object string) *Want {
	request := sfmc.TokenRequest{AuthHost: d.server.Host(), ClientID: client, ClientSecret: secret, AccountID: account}
	return &Want{
		Asker:         Asker{Tenant: "marketing", Name: object + " " + account},
		Candidates:    []Candidate{{IssuedFor: token.Identify(request), Request: request}},
		RefreshBefore: 5 * time.Minute,
		Causes:        "1",
	}
}

func identity(want *Want) string { return want.Candidates[0].Identity }

// obtain asks, and once more when it is woken, until there is a token or nothing under way that may bring one.
func (d *desk) obtain(want *Want) (Obtained, error) {
	d.t.Helper()
	for {
		before := d.woken(want.Asker)
		why := d.WhyWaiting(want, len(want.Candidates))
		obtained, err := d.Ask(d.t.Context(), want)
		if !errors.Is(err, errUnderWay) {
			return obtained, err
		}
		NewWithT(d.t).Expect(kindOf(why)).NotTo(Equal(sfmc.Refused), "whoever is told to wait for that doesn't ask")
		NewWithT(d.t).Eventually(d.woken, 10*time.Second, time.Millisecond).WithArguments(want.Asker).
			Should(BeNumerically(">", before))
		d.settle()
	}
}

// gets asks for a token and expects one that is alive, in the right business unit.
func (d *desk) gets(want *Want) *token.Token {
	d.t.Helper()
	return d.obtains(want).Token
}

func (d *desk) obtains(want *Want) Obtained {
	d.t.Helper()
	obtained, err := d.obtain(want)
	NewWithT(d.t).Expect(err).NotTo(HaveOccurred())
	d.expectAlive(obtained.Token, want.Candidates[0].AccountID)
	return obtained
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
func (d *desk) fails(want *Want) (*problem.Problem, time.Duration) {
	d.t.Helper()
	g := NewWithT(d.t)
	obtained, err := d.obtain(want)
	g.Expect(err).To(HaveOccurred(), "a token was issued or remembered")
	g.Expect(obtained.Token).To(BeNil())
	failed := d.problemOf(err)
	return failed, failed.RetryAt.Sub(d.clock.Now())
}

// isHeld asks for a token, and expects to wait until somebody else gets through.
func (d *desk) isHeld(want *Want) *problem.Problem {
	d.t.Helper()
	g := NewWithT(d.t)
	failed, _ := d.fails(want)
	g.Expect(failed.IsWoken).To(BeTrue())
	g.Expect(failed.RetryAt).To(BeZero(), "it needn't come back by itself")
	g.Expect(failed).To(MatchError(ContainSubstring("this client's requests wait until ")))
	return failed
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
