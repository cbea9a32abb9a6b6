package issuer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/time/rate"
	"k8s.io/utils/clock"

	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// The defaults of cmd/main.go and of the API.
const (
	defaultRate          = 50 // --token-requests-per-second
	defaultBurst         = 10 // --token-requests-burst
	defaultMaxInFlight   = 64
	defaultRefreshBefore = 5 * time.Minute
	usualLatency         = 300 * time.Millisecond
)

// crowd is an issuer in a bubble of simulated time, the endpoint that it asks, and those who ask, who do what the
// controller does: they come back when they are woken, when a problem says so, and when their token is due.
type crowd struct {
	*Issuer
	Gomega
	// answer may take its time. Nil means a token after the usual latency.
	answer func(sfmc.TokenRequest) *sfmc.Error
	life   time.Duration

	mu      sync.Mutex
	members map[Asker]*member
	sent    []sending
	flying  map[string]int // requests that are under way, by what they count for
}

// sending is a request that was sent.
type sending struct {
	at time.Time
	sfmc.TokenRequest
}

func (s sending) String() string { return s.ClientID + "/" + s.AccountID }

// inBubble runs a test with a crowd whose limits are the default ones, unless they are changed. Between the parts of a
// test is a restart.
func inBubble(t *testing.T, change func(*Options), parts ...func(c *crowd)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		// A failure in another goroutine must not end that alone.
		fail := func(text string, _ ...int) { t.Error(text) }
		c := &crowd{Gomega: NewGomega(fail), members: map[Asker]*member{}, flying: map[string]int{}, life: usualLife}
		for _, part := range parts {
			c.restart(t, change, part)
		}
	})
}

// restart runs the issuer until a test is over.
func (c *crowd) restart(t *testing.T, change func(*Options), test func(c *crowd)) {
	options := Options{
		Client: c, Clock: clock.RealClock{}, Wake: c.wake,
		RequestRate: defaultRate, RequestBurst: defaultBurst, MaxInFlight: defaultMaxInFlight,
		Recall:  func(context.Context, string) ([]*token.Token, error) { return nil, nil },
		Observe: func(string, *sfmc.Error, time.Duration) {},
	}
	if change != nil {
		change(&options)
	}
	c.Issuer = New(options)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	defer func() {
		for _, m := range c.members {
			m.leave()
		}
		cancel()
		running.Wait()
		if !t.Failed() {
			c.Expect(c.flying).To(BeEmpty())
			c.Expect(c.InFlight()).To(BeZero())
		}
	}()
	test(c)
}

// elapse lets time pass in the bubble, and all that happens in it.
func elapse(by time.Duration) {
	time.Sleep(by)
	synctest.Wait()
}

// RequestToken implements Client.
func (c *crowd) RequestToken(_ context.Context, request sfmc.TokenRequest) (sfmc.Token, *sfmc.Error) {
	identity := token.Identify(request)
	counts := []string{identity.Identity, identity.Client() + request.ClientSecret, request.AuthHost}
	limits := []int{1, c.options.MaxInFlight / 2, c.options.MaxInFlight}
	c.mu.Lock()
	c.sent = append(c.sent, sending{time.Now(), request})
	for n, key := range counts {
		c.flying[key]++
		c.Expect(c.flying[key]).To(BeNumerically("<=", limits[n]))
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, key := range counts {
			if c.flying[key]--; c.flying[key] == 0 {
				delete(c.flying, key)
			}
		}
	}()
	if c.answer == nil {
		time.Sleep(usualLatency)
	} else if failed := c.answer(request); failed != nil {
		return sfmc.Token{}, failed
	}
	text := fmt.Sprint("token at ", time.Now().UnixNano())
	c.mu.Lock()
	life := c.life
	c.mu.Unlock()
	return sfmc.Token{AccessToken: text, TokenType: "Bearer", ExpiresIn: life}, nil
}

func (c *crowd) wake(askers []Asker, _ *token.Token) {
	for _, asker := range askers {
		c.mu.Lock()
		m := c.members[asker]
		c.mu.Unlock()
		if m != nil {
			m.reconcile()
		}
	}
}

// sentSince returns what was sent since a time.
func (c *crowd) sentSince(start time.Time) []sending {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []sending
	for _, s := range c.sent {
		if !s.at.Before(start) {
			found = append(found, s)
		}
	}
	return found
}

// expectRate expects that in no window of any length more was sent to a host than the burst and the rate allow.
func (c *crowd) expectRate() {
	lowest := map[string]float64{} // of the number sent before less what the rate allowed
	number := map[string]float64{}
	start := c.sent[0].at
	for _, s := range c.sent {
		number[s.AuthHost]++
		above := number[s.AuthHost] - 1 - float64(c.options.RequestRate)*s.at.Sub(start).Seconds()
		if least, isKnown := lowest[s.AuthHost]; !isKnown || above < least {
			lowest[s.AuthHost] = above
		}
		c.Expect(above-lowest[s.AuthHost]).To(BeNumerically("<=", float64(c.options.RequestBurst)-1+1e-6),
			"at %s to %s", s.at.Sub(start), s.AuthHost)
	}
}

// expectSlots expects that slots are spent by what was sent alone.
func (c *crowd) expectSlots() {
	now := time.Now()
	burst, perSecond := float64(c.options.RequestBurst), float64(c.options.RequestRate)
	for name, h := range c.hosts {
		left, last := burst, c.sent[0].at
		for _, s := range c.sent {
			if s.AuthHost == name {
				left = min(burst, left+perSecond*s.at.Sub(last).Seconds()) - 1
				last = s.at
			}
		}
		left = min(burst, left+perSecond*now.Sub(last).Seconds())
		c.Expect(h.limiter.TokensAt(now)).To(BeNumerically("~", left, 1e-3))
	}
}

// member is one who asks.
type member struct {
	*crowd
	mu    sync.Mutex
	want  Want
	held  *token.Token
	why   error
	timer *time.Timer
	gone  bool
	// got are the tokens that it was given, lapses how often it had none that was valid.
	got, lapses int
}

// join has somebody of a tenant ask for a token of a business unit.
func (c *crowd) join(tenant, name, host, client, account string) *member {
	request := sfmc.TokenRequest{AuthHost: host, ClientID: client, ClientSecret: hushSecret, AccountID: account}
	m := &member{crowd: c, want: Want{
		Asker:         Asker{Tenant: tenant, Name: name},
		Candidates:    []Candidate{{IssuedFor: token.Identify(request), Request: request}},
		RefreshBefore: defaultRefreshBefore,
		Causes:        "1",
	}}
	c.mu.Lock()
	c.members[m.want.Asker] = m
	c.mu.Unlock()
	return m
}

// drop forgets a member that has left.
func (c *crowd) drop(m *member) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.members, m.want.Asker)
}

// joins is join of somebody who asks at once.
func (c *crowd) joins(tenant, name, host, client, account string) *member {
	m := c.join(tenant, name, host, client, account)
	m.reconcile()
	return m
}

// stage lets a token for the staged client secret do, too.
func (m *member) stage() {
	request := m.want.Candidates[0].Request
	request.ClientSecret = stagedSecret
	m.want.Candidates = append(m.want.Candidates, Candidate{IssuedFor: token.Identify(request), Request: request})
}

// holds has a member hold a token from before, that is due so much later.
func (m *member) holds(due time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = living(m.want.Candidates[0].Identity, time.Now().Add(due-usualLife+defaultRefreshBefore), usualLife)
	m.later(time.Now().Add(due))
}

func (m *member) later(at time.Time) {
	if m.timer != nil {
		m.timer.Stop()
	}
	m.timer = time.AfterFunc(time.Until(at), m.reconcile)
}

func (m *member) reconcile() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone {
		return
	}
	m.want.LifeLeft = 0
	if m.held != nil {
		m.want.LifeLeft = max(0, time.Until(m.held.ExpiresAt))
	}
	why := m.WhyWaiting(&m.want, len(m.want.Candidates))
	if why == nil {
		var obtained Obtained
		if obtained, why = m.Ask(context.Background(), &m.want); why == nil {
			m.take(obtained.Token)
			return
		}
	}
	m.why = why
	var failed *problem.Problem
	m.Expect(errors.As(why, &failed)).To(BeTrue())
	m.Expect(failed.IsWoken || failed.RetryAt.After(time.Now())).To(BeTrue(), "it is told when to come back: %s", why)
	if !failed.RetryAt.IsZero() {
		m.later(failed.RetryAt)
	}
}

func (m *member) take(issued *token.Token) {
	m.Expect(issued).NotTo(BeNil())
	if m.held != nil && !time.Now().Before(m.held.ExpiresAt) {
		m.lapses++
	}
	m.held, m.why, m.want.After = issued, nil, time.Time{}
	m.got++
	m.later(issued.RefreshAt(m.want.RefreshBefore))
}

// change has a person change something, or ask for a new token if one is held.
func (m *member) change() {
	m.mu.Lock()
	m.want.Causes += "+"
	if m.held != nil && m.want.After.IsZero() {
		m.want.After = m.held.IssuedAt
	}
	m.mu.Unlock()
	m.reconcile()
}

func (m *member) suspend() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.Leave(m.want.Asker)
	if m.timer != nil {
		m.timer.Stop()
	}
}

func (m *member) leave() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = true
	m.Forget(m.want.Asker)
	if m.timer != nil {
		m.timer.Stop()
	}
}

func refused() *sfmc.Error {
	return &sfmc.Error{Kind: sfmc.Refused, StatusCode: 401, Code: "invalid_client"}
}

func throttled(after time.Duration) *sfmc.Error {
	return &sfmc.Error{Kind: sfmc.Throttled, StatusCode: 429, RetryAfter: after}
}

func hangs() *sfmc.Error {
	time.Sleep(30 * time.Second)
	return &sfmc.Error{Kind: sfmc.Unavailable}
}

func unlimited(o *Options) { o.RequestRate = rate.Inf }
