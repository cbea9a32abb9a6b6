package issuer

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/time/rate"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

// expectForgotten expects that nothing is remembered.
func (c *crowd) expectForgotten() {
	c.Issuer.mu.Lock()
	defer c.Issuer.mu.Unlock()
	c.Expect([]int{
		len(c.tokens), len(c.entries), len(c.asked), len(c.gates), len(c.hosts), len(c.inFlight), c.landing,
	}).To(Equal(make([]int, 7)))
}

// expectConsistent expects that what is kept twice agrees. Nothing may be under way that isn't asleep.
func (c *crowd) expectConsistent() {
	c.Issuer.mu.Lock()
	defer c.Issuer.mu.Unlock()
	entries, byGate, byTenant, inLines := map[*gate]int{}, map[*gate]int{}, map[string]int{}, map[*line]int{}
	for _, e := range c.entries {
		entries[e.gate]++
		for asker, held := range e.claims {
			c.Expect(c.Issuer.asked[asker]).To(ContainElement(BeIdenticalTo(e)))
			c.Expect(held.candidate == nil || e.isInFlight || len(e.lines) > 0).To(BeTrue(), "who waits stands in a line")
		}
		for _, l := range e.lines {
			inLines[l]++
			c.Expect(e.isInFlight).To(BeFalse())
			c.Expect(e.claimOf(l.tenant)).NotTo(BeNil())
		}
		if e.isInFlight {
			byGate[e.gate]++
		}
	}
	for _, g := range c.gates {
		c.Expect(g.entries).To(Equal(entries[g]))
		c.Expect(g.inFlight).To(Equal(byGate[g]))
		delete(entries, g)
	}
	c.Expect(entries).To(BeEmpty(), "no gate is forgotten while it is used")
	for _, h := range c.hosts {
		sum := 0
		for name, t := range h.tenants {
			sum += t.inFlight
			byTenant[name] += t.inFlight
		}
		c.Expect(h.inFlight).To(Equal(sum))
		c.Expect(sum).To(BeNumerically("<=", c.options.MaxInFlight))
		for l := range h.lines {
			c.Expect(l.entries).To(HaveLen(inLines[l]))
			c.Expect(l.gate.lines[l.tenant]).To(BeIdenticalTo(l))
		}
	}
	for name, n := range c.inFlight {
		c.Expect(n).To(Equal(byTenant[name]))
		c.Expect(n).To(BeNumerically("<=", c.options.MaxInFlight))
	}
}

// randomAnswers are those of an endpoint that fails in every way, until it is mended.
func (c *crowd) randomAnswers(seed uint64, isMended *atomic.Bool) func(sfmc.TokenRequest) *sfmc.Error {
	random := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // repeatable
	return func(sfmc.TokenRequest) *sfmc.Error {
		c.mu.Lock()
		kind, wait := random.IntN(10), time.Duration(random.IntN(3000))*time.Millisecond
		pause := time.Duration(random.IntN(3)) * time.Minute
		c.mu.Unlock()
		time.Sleep(wait)
		if isMended.Load() {
			return nil
		}
		switch kind {
		case 0:
			return hangs()
		case 1, 2:
			return refused()
		case 3:
			return &sfmc.Error{Kind: sfmc.Refused, StatusCode: 403, Code: "access_denied"}
		case 4:
			return throttled(pause)
		case 5:
			return &sfmc.Error{Kind: sfmc.Unreadable}
		}
		return nil
	}
}

// joinsAny has somebody ask for one of a few tokens, during a rotation or not.
func (c *crowd) joinsAny(random *rand.Rand, name string) *member {
	client := random.IntN(4)
	m := c.join(fmt.Sprint("tenant ", random.IntN(3)), name, fmt.Sprint("host ", client%2),
		fmt.Sprint("client ", client), fmt.Sprint(random.IntN(5)))
	if random.IntN(3) == 0 {
		m.stage()
	}
	m.reconcile()
	return m
}

func TestWhateverHappensLimitsHoldAndEveryoneIsServedInTheEnd(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			change := func(o *Options) {
				o.RequestRate, o.RequestBurst, o.MaxInFlight = rate.Limit(1+seed%5), 1+int(seed%3), 4+int(seed%8)
			}
			inBubble(t, change, func(c *crowd) {
				random := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // repeatable
				var isMended atomic.Bool
				c.answer = c.randomAnswers(seed, &isMended)
				c.life = time.Duration(1+random.IntN(1000)) * time.Second
				var all []*member
				for step := range 400 {
					switch n := random.IntN(10); {
					case n < 3 || len(all) == 0:
						all = append(all, c.joinsAny(random, fmt.Sprint(step)))
					case n == 3:
						gone := random.IntN(len(all))
						all[gone].leave()
						c.drop(all[gone])
						all = append(all[:gone], all[gone+1:]...)
					case n == 4:
						all[random.IntN(len(all))].suspend()
					case n < 7:
						all[random.IntN(len(all))].change()
					default:
						all[random.IntN(len(all))].reconcile()
					}
					elapse(time.Duration(random.IntN(5000)) * time.Millisecond)
					c.expectConsistent()
				}
				c.Expect(all).NotTo(BeEmpty())
				isMended.Store(true)
				c.mu.Lock()
				c.life = usualLife
				c.mu.Unlock()
				mended := time.Now()
				for _, m := range all {
					m.reconcile() // the suspended ones, too
				}
				elapse(30 * time.Minute)
				for _, m := range all {
					c.Expect(m.held).NotTo(BeNil(), "%s waits for %v", m.want.Name, m.why)
					c.Expect(m.held.IssuedAt).To(BeTemporally(">", mended), "%s waits for %v", m.want.Name, m.why)
				}
				for _, m := range all {
					m.leave()
				}
				elapse(time.Hour + 2*sweepEvery)
				c.expectConsistent()
				c.expectForgotten()
			})
		})
	}
}

func TestNothingIsRememberedOfThoseWhoComeAndGo(t *testing.T) {
	inBubble(t, nil, func(c *crowd) {
		c.answer = c.randomAnswers(1, &atomic.Bool{})
		for n := range 20_000 {
			m := c.joins("a", fmt.Sprint(n), fmt.Sprint("host ", n%7), fmt.Sprint("client ", n%100), fmt.Sprint(n))
			if n%10 != 0 { // the others find out
				m.leave()
			}
			elapse(50 * time.Millisecond)
			if n%10 == 0 {
				m.leave()
			}
			c.drop(m)
		}
		synctest.Wait()
		c.expectConsistent()
		c.Issuer.mu.Lock()
		entries := len(c.entries)
		c.Issuer.mu.Unlock()
		c.Expect(entries).To(BeNumerically("<=", maxEntries+1000))
		elapse(time.Hour + 2*sweepEvery)
		c.expectForgotten()
	})
}
