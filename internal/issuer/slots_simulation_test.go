package issuer

import (
	"container/heap"
	"errors"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// The defaults of cmd/main.go and of the API.
const (
	defaultRate          = 50 // --token-requests-per-second
	defaultBurst         = 10 // --token-requests-burst
	defaultRefreshBefore = 5 * time.Minute
)

// turns are the times at which identities are reconciled again, soonest first, as in the controller's queue.
type turns []turn

type turn struct {
	at       time.Time
	identity int
}

func (t turns) Len() int           { return len(t) }
func (t turns) Less(i, j int) bool { return t[i].at.Before(t[j].at) }
func (t turns) Swap(i, j int)      { t[i], t[j] = t[j], t[i] }
func (t *turns) Push(x any)        { *t = append(*t, x.(turn)) }
func (t *turns) Pop() any {
	last := (*t)[len(*t)-1]
	*t = (*t)[:len(*t)-1]
	return last
}

// fleet is many identities of one host, and a clock that leaps from one turn to the next.
type fleet struct {
	*Issuer
	clock   *clocktesting.FakePassiveClock
	wanted  []token.IssuedFor
	held    []*token.Token
	turns   turns
	sent    []time.Time
	expired int
	// tightest is the shortest life that was left when a token was replaced.
	tightest time.Duration
}

func newFleet(size int) *fleet {
	f := &fleet{clock: clocktesting.NewFakePassiveClock(noon), held: make([]*token.Token, size), tightest: usualLife}
	f.Issuer = New(Options{Clock: f.clock, RequestRate: defaultRate, RequestBurst: defaultBurst})
	for i := range size {
		f.wanted = append(f.wanted, token.Identify(sfmc.TokenRequest{
			AuthHost: "one-tenant", ClientID: fmt.Sprint(i), ClientSecret: hushSecret, AccountID: emea,
		}))
		f.turns = append(f.turns, turn{noon, i})
	}
	return f
}

// run reconciles what is due until the end, and replaces tokens whose slot has come.
func (f *fleet) run(until time.Time) {
	for len(f.turns) > 0 && f.turns[0].at.Before(until) {
		next := heap.Pop(&f.turns).(turn)
		if next.at.After(f.clock.Now()) {
			f.clock.SetTime(next.at)
		}
		next.at = f.reconcile(next.identity)
		heap.Push(&f.turns, next)
	}
}

// reconcile is what a reconciliation does with one identity; it returns when the next one is due.
func (f *fleet) reconcile(i int) time.Time {
	now, held := f.clock.Now(), f.held[i]
	if held != nil && held.IsFresh(now, defaultRefreshBefore) {
		return held.RefreshAt(defaultRefreshBefore)
	}
	var waiting *problem.Problem
	if errors.As(f.WaitForSlot(f.wanted[i]), &waiting) {
		return waiting.RetryAt
	}
	f.slots.take(f.wanted[i].Identity)
	if held != nil {
		left := held.ExpiresAt.Sub(now)
		f.tightest = min(f.tightest, left)
		if left <= 0 {
			f.expired++
		}
	}
	f.sent = append(f.sent, now)
	f.held[i] = living(f.wanted[i].Identity, now, usualLife)
	return f.held[i].RefreshAt(defaultRefreshBefore)
}

// mostWithin is the largest number of requests in any window.
func (f *fleet) mostWithin(window time.Duration) int {
	most, first := 0, 0
	for last := range f.sent {
		for f.sent[last].Sub(f.sent[first]) >= window {
			first++
		}
		most = max(most, last-first+1)
	}
	return most
}

func TestTenThousandIdentitiesFitTheDefaultRate(t *testing.T) {
	const identities, lives = 10_000, 5
	g := NewWithT(t)
	f := newFleet(identities)
	f.run(noon.Add(lives * usualLife))
	all := f.sent[identities-1].Sub(noon)
	g.Expect(all).To(BeNumerically("<=", 200*time.Second), "all have a token after 10,000 / 50 s")
	g.Expect(f.expired).To(BeZero())
	g.Expect(f.mostWithin(time.Second)).To(BeNumerically("<=", defaultRate+defaultBurst))
	// One request for each identity at once, and one for each time that a token has lived long enough.
	most := identities * (1 + lives*usualLife/(usualLife*2/3-usualLife/20))
	g.Expect(len(f.sent)).To(BeNumerically("<=", most))
	t.Logf("%d requests, at most %d in a second; at least %s of a life left",
		len(f.sent), f.mostWithin(time.Second), f.tightest)
}

// After a long outage, or a start with tokens of one age, all are due in the same moment.
func TestTenThousandIdentitiesThatAreDueAtOnceAreSpreadAndNoneExpires(t *testing.T) {
	const identities = 10_000
	g := NewWithT(t)
	f := newFleet(identities)
	for i := range f.held {
		// Due, whatever their jitter.
		f.held[i] = living(f.wanted[i].Identity, noon.Add(-usualLife*2/3-usualLife/15), usualLife)
		g.Expect(f.held[i].IsFresh(noon, defaultRefreshBefore)).To(BeFalse())
	}
	f.run(noon.Add(usualLife))
	g.Expect(f.expired).To(BeZero())
	g.Expect(f.mostWithin(time.Second)).To(BeNumerically("<=", defaultRate+defaultBurst))
	all := f.sent[identities-1].Sub(noon)
	g.Expect(all).To(BeNumerically(">=", 199*time.Second), "one after another")
	g.Expect(all).To(BeNumerically("<=", 200*time.Second), "one after another")
	g.Expect(f.tightest).To(BeNumerically(">", 80*time.Second))
}
