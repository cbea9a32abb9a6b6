package controller

import (
	"container/heap"
	"errors"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/time/rate"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

// The defaults of cmd/main.go and of the API.
const (
	defaultRate          = 50 // --token-requests-per-second
	defaultBurst         = 10 // --token-requests-burst
	defaultRefreshBefore = 5 * time.Minute
	usualLife            = 1079 * time.Second
)

// looks are the times at which identities are looked at again, soonest first, as in the controller's queue.
type looks []look

type look struct {
	at       time.Time
	identity int
}

func (l looks) Len() int           { return len(l) }
func (l looks) Less(i, j int) bool { return l[i].at.Before(l[j].at) }
func (l looks) Swap(i, j int)      { l[i], l[j] = l[j], l[i] }
func (l *looks) Push(x any)        { *l = append(*l, x.(look)) }
func (l *looks) Pop() any {
	last := (*l)[len(*l)-1]
	*l = (*l)[:len(*l)-1]
	return last
}

// fleet is many identities of one host, and a clock that leaps from one look to the next.
type fleet struct {
	*issuer
	clock   *clocktesting.FakePassiveClock
	wanted  []issuedFor
	held    []*issued
	looks   looks
	sent    []time.Time
	expired int
	// tightest is the shortest life that was left when a token was replaced.
	tightest time.Duration
}

func newFleet(size int) *fleet {
	f := &fleet{clock: clocktesting.NewFakePassiveClock(noon), held: make([]*issued, size), tightest: usualLife}
	f.issuer = newIssuer(nil, f.clock, nil)
	f.pacer = newPacer(rate.Limit(defaultRate), defaultBurst)
	for i := range size {
		f.wanted = append(f.wanted, identify(sfmc.TokenRequest{AuthHost: "one-tenant", ClientID: fmt.Sprint(i), ClientSecret: hushSecret, AccountID: emea}))
		f.looks = append(f.looks, look{noon, i})
	}
	return f
}

// run looks at what is due until the end, and replaces tokens whose turn has come.
func (f *fleet) run(until time.Time) {
	for len(f.looks) > 0 && f.looks[0].at.Before(until) {
		next := heap.Pop(&f.looks).(look)
		if next.at.After(f.clock.Now()) {
			f.clock.SetTime(next.at)
		}
		next.at = f.lookAt(next.identity)
		heap.Push(&f.looks, next)
	}
}

// lookAt is what a reconciliation does with one identity; it returns when to look again.
func (f *fleet) lookAt(i int) time.Time {
	now, held := f.clock.Now(), f.held[i]
	if held != nil && held.stillGood(now, defaultRefreshBefore) {
		return held.refreshAt(defaultRefreshBefore)
	}
	var attempt *attemptError
	if errors.As(f.waitForTurn(f.wanted[i]), &attempt) {
		return attempt.retryAt
	}
	f.pacer.take(f.wanted[i].Identity)
	if held != nil {
		left := held.ExpiresAt.Sub(now)
		f.tightest = min(f.tightest, left)
		if left <= 0 {
			f.expired++
		}
	}
	f.sent = append(f.sent, now)
	f.held[i] = living(f.wanted[i].Identity, now, usualLife)
	return f.held[i].refreshAt(defaultRefreshBefore)
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
	g.Expect(f.sent[identities-1].Sub(noon)).To(BeNumerically("<=", 200*time.Second), "all have a token after 10,000 / 50 s")
	g.Expect(f.expired).To(BeZero())
	g.Expect(f.mostWithin(time.Second)).To(BeNumerically("<=", defaultRate+defaultBurst))
	// One request for each identity at once, and one for each time that a token has lived long enough.
	g.Expect(len(f.sent)).To(BeNumerically("<=", identities*(1+lives*usualLife/(usualLife*2/3-usualLife/20))))
	t.Logf("%d requests, at most %d in a second; at least %s of a life left", len(f.sent), f.mostWithin(time.Second), f.tightest)
}

// After a long outage, or a start with tokens of one age, all are due in the same moment.
func TestTenThousandIdentitiesThatAreDueAtOnceAreSpreadAndNoneExpires(t *testing.T) {
	const identities = 10_000
	g := NewWithT(t)
	f := newFleet(identities)
	for i := range f.held {
		f.held[i] = living(f.wanted[i].Identity, noon.Add(-usualLife*2/3-usualLife/15), usualLife) // due, whatever their jitter
		g.Expect(f.held[i].stillGood(noon, defaultRefreshBefore)).To(BeFalse())
	}
	f.run(noon.Add(usualLife))
	g.Expect(f.expired).To(BeZero())
	g.Expect(f.mostWithin(time.Second)).To(BeNumerically("<=", defaultRate+defaultBurst))
	g.Expect(f.sent[identities-1].Sub(noon)).To(And(BeNumerically(">=", 199*time.Second), BeNumerically("<=", 200*time.Second)), "one after another")
	g.Expect(f.tightest).To(BeNumerically(">", 80*time.Second))
}
