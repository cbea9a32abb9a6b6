package issuer

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/time/rate"

	"github.com/sfmctoken/sfmctoken-operator/internal/problem"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

func TestAHostThatNeverAnswersHoldsUpNobodyElse(t *testing.T) {
	for name, row := range map[string]struct{ tenant, host, client string }{
		"another host for the same namespace":              {"a", "good", "client 0"},
		"another client of the same namespace at its host": {"a", "bad", "good"},
		"another namespace at its host":                    {"b", "bad", "good"},
		"another namespace with a client at another host":  {"b", "good", "client 0"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, unlimited, func(c *crowd) {
				hanging := false
				c.answer = func(r sfmc.TokenRequest) *sfmc.Error {
					if hanging && r.AuthHost == "bad" && r.ClientID != "good" {
						return hangs()
					}
					time.Sleep(usualLatency)
					return nil
				}
				clients := 50
				if row.tenant == "a" && row.host == "bad" {
					clients = 1
				}
				for n := range clients { // they have been good so far
					c.joins("a", fmt.Sprint("first ", n), "bad", fmt.Sprint("client ", n), "first")
				}
				elapse(time.Second)
				hanging = true
				for n := range 1000 {
					client := fmt.Sprint("client ", n%clients)
					c.joins("a", fmt.Sprint(n), "bad", client, fmt.Sprint(n))
				}
				for n := range 600 {
					asked := time.Now()
					c.joins(row.tenant, fmt.Sprint("good ", n), row.host, row.client, fmt.Sprint("good ", n))
					elapse(time.Second)
					sent := c.sentSince(asked)
					c.Expect(sent).To(ContainElement(HaveField("AccountID", fmt.Sprint("good ", n))), "within a second")
				}
			})
		})
	}
}

func TestAPausedClientWithTenThousandIdentitiesDelaysNoOther(t *testing.T) {
	inBubble(t, nil, func(c *crowd) {
		c.answer = func(r sfmc.TokenRequest) *sfmc.Error {
			time.Sleep(usualLatency)
			if r.ClientID == "paused" {
				return throttled(time.Hour)
			}
			return nil
		}
		for n := range 10_000 {
			c.joins("a", fmt.Sprint("paused ", n), "host", "paused", fmt.Sprint(n))
		}
		elapse(10 * time.Second)
		c.Expect(len(c.sent)).To(BeNumerically("<=", failsAsAWhole))
		asked := time.Now()
		for n := range 500 {
			c.joins([]string{"a", "b"}[n%2], fmt.Sprint(n), "host", fmt.Sprint("good ", n), "first")
		}
		elapse(15 * time.Second)
		sent := c.sentSince(asked)
		c.Expect(sent).To(HaveLen(500))
		for n, s := range sent {
			due := time.Duration(max(0, n+1-defaultBurst)) * time.Second / defaultRate
			c.Expect(s.at.Sub(asked)).To(BeNumerically("~", due, time.Microsecond), "all slots are theirs")
		}
		c.expectSlots()
	})
}

func TestTheRateHoldsAtEveryMomentAlsoAtTheEndOfAPause(t *testing.T) {
	inBubble(t, nil, func(c *crowd) {
		start := time.Now()
		c.answer = func(sfmc.TokenRequest) *sfmc.Error {
			time.Sleep(usualLatency)
			if time.Since(start) < time.Minute {
				return throttled(5 * time.Minute)
			}
			return nil
		}
		for n := range 10_000 {
			c.joins("a", fmt.Sprint(n), "host", fmt.Sprint("client ", n%5), fmt.Sprint(n))
		}
		elapse(5*time.Minute + 3*time.Minute + 30*time.Second)
		for _, m := range c.members {
			c.Expect(m.got).To(BeNumerically(">=", 1))
		}
		c.expectRate()
		c.expectSlots()
	})
}

func TestASlotIsSpentOnlyByARequestThatIsSent(t *testing.T) {
	inBubble(t, func(o *Options) { o.RequestRate, o.RequestBurst = rate.Every(time.Minute), 3 }, func(c *crowd) {
		for n := range 10 {
			c.joins("a", fmt.Sprint(n), "host", fmt.Sprint("client ", n), "first")
		}
		elapse(time.Second)
		c.Expect(c.sent).To(HaveLen(3))
		for n := range 7 { // these were due first
			if m := c.members[Asker{"a", fmt.Sprint(n)}]; n%2 == 0 {
				m.suspend()
			} else {
				m.leave()
			}
		}
		elapse(3 * time.Minute)
		c.Expect(c.sent).To(HaveLen(6))
		for n := 7; n < 10; n++ {
			c.Expect(c.members[Asker{"a", fmt.Sprint(n)}].got).To(Equal(1))
		}
		elapse(2 * time.Minute)
		c.Expect(c.sent).To(HaveLen(6))
		asked := time.Now()
		c.joins("b", "b", "host", "client", "1")
		c.joins("b", "c", "host", "client", "2")
		synctest.Wait()
		c.Expect(c.sentSince(asked)).To(HaveLen(2), "nobody took the slots meanwhile")
		c.expectSlots()
	})
}

func TestADeadClientSecretOfManyIdentitiesCostsAFewRefusalsAnHour(t *testing.T) {
	const identities = 1000
	// Of the three that close the gate, and of probes 2, 4, 8 and then 10 minutes later.
	const firstHour, nextHours = 3 + 7, 6
	hours := func(c *crowd, first int) {
		for hour := range 4 {
			start := time.Now()
			elapse(time.Hour)
			most := nextHours
			if hour == 0 {
				most = first
			}
			c.Expect(len(c.sentSince(start))).To(BeNumerically("<=", most), "in hour %d", hour)
			c.Expect(len(c.sentSince(start))).To(BeNumerically(">=", nextHours-1), "in hour %d", hour)
		}
	}
	dead := func(sfmc.TokenRequest) *sfmc.Error { time.Sleep(usualLatency); return refused() }
	t.Run("all are due at once, also after a restart", func(t *testing.T) {
		inBubble(t, nil, func(c *crowd) {
			c.answer = dead
			for n := range identities {
				c.joins("a", fmt.Sprint(n), "host", "client", fmt.Sprint(n))
			}
			hours(c, firstHour)
		}, func(c *crowd) {
			for _, m := range c.members {
				m.gone = false
				m.reconcile()
			}
			hours(c, firstHour)
		})
	})
	t.Run("one after another is due", func(t *testing.T) {
		inBubble(t, nil, func(c *crowd) {
			c.answer = dead
			const cycle = usualLife - defaultRefreshBefore
			for n := range identities {
				c.join("a", fmt.Sprint(n), "host", "client", fmt.Sprint(n)).holds(cycle * time.Duration(n) / identities)
			}
			// While new ones fall due, one may go first in a quarter of the life that it has left.
			hours(c, firstHour+int(cycle/(defaultRefreshBefore/4)))
		})
	})
}

func TestFailuresOfTheEndpointLeaveEachIdentityItsOwnDelay(t *testing.T) {
	const identities = 20
	inBubble(t, nil, func(c *crowd) {
		var isMended atomic.Bool
		c.answer = func(sfmc.TokenRequest) *sfmc.Error {
			time.Sleep(usualLatency)
			if isMended.Load() {
				return nil
			}
			return &sfmc.Error{Kind: sfmc.Unavailable, StatusCode: 500}
		}
		start, all := time.Now(), []*member{}
		for n := range identities {
			all = append(all, c.joins("a", fmt.Sprint(n), "host", "client", fmt.Sprint(n)))
		}
		elapse(15 * time.Second)
		asked := map[string]int{}
		for _, s := range c.sentSince(start) {
			asked[s.AccountID]++
		}
		latest := time.Now()
		for n, m := range all {
			c.Expect(asked[fmt.Sprint(n)]).To(BeNumerically(">=", 3), "after 1 and 2 s, give or take a half")
			m.mu.Lock()
			var failed *problem.Problem
			if errors.As(m.why, &failed) && failed.RetryAt.After(latest) {
				latest = failed.RetryAt
			}
			m.mu.Unlock()
		}
		isMended.Store(true)
		elapse(time.Until(latest) + 3*time.Second) // as few are under way until one succeeds
		for _, m := range all {
			m.mu.Lock()
			c.Expect(m.got).To(Equal(1), "%s waits for %v", m.want.Name, m.why)
			m.mu.Unlock()
		}
	})
}

func TestThoseOfAClientThatAreAlwaysRefusedLetNoHealthyTokenExpire(t *testing.T) {
	for name, tenants := range map[string][2]string{"one namespace": {"a", "a"}, "another namespace": {"a", "b"}} {
		for _, spread := range []time.Duration{0, 12 * time.Minute} {
			t.Run(fmt.Sprintf("%s, spread over %s", name, spread), func(t *testing.T) {
				inBubble(t, nil, func(c *crowd) {
					c.answer = func(r sfmc.TokenRequest) *sfmc.Error {
						time.Sleep(usualLatency)
						if r.AccountID[:3] == "bad" {
							return refused()
						}
						return nil
					}
					for n := range 20 {
						m := c.join(tenants[1], fmt.Sprint(n), "host", "client", fmt.Sprint("good", n))
						m.holds(spread * time.Duration(n) / 20)
					}
					for n := range 3 {
						c.joins(tenants[0], fmt.Sprint("bad", n), "host", "client", fmt.Sprint("bad", n))
					}
					start := time.Now()
					elapse(6 * time.Hour)
					for _, m := range c.members {
						c.Expect(m.lapses).To(BeZero(), m.want.Name)
						if m.want.Candidates[0].AccountID[:3] != "bad" {
							c.Expect(m.held.ExpiresAt).To(BeTemporally(">", time.Now()), m.want.Name)
						}
					}
					bad := 0
					for _, s := range c.sentSince(start) {
						if s.AccountID[:3] == "bad" {
							bad++
						}
					}
					c.Expect(bad).To(BeNumerically("<=", 6*3*7), "each identity by its own delay")
				})
			})
		}
	}
}

func TestTwoPeopleWhoAskForRefreshesOfOneTokenAllTheTimeGetOneIn30Seconds(t *testing.T) {
	inBubble(t, nil, func(c *crowd) {
		a, b := c.joins("a", "a", "host", "client", "1"), c.joins("b", "b", "host", "client", "1")
		elapse(time.Second)
		c.Expect(c.sent).To(HaveLen(1))
		start := time.Now()
		for range 600 {
			elapse(500 * time.Millisecond)
			a.change()
			elapse(500 * time.Millisecond)
			b.change()
		}
		sent := c.sentSince(start)
		for n := range sent[1:] {
			c.Expect(sent[n+1].at.Sub(sent[n].at)).To(Equal(demandFloor))
		}
		c.Expect(len(sent)).To(Equal(20))
		c.Expect(a.got).To(BeNumerically(">=", 20))
		c.Expect(b.got).To(BeNumerically(">=", 20))
	})
}

// The newcomers of one who floods take turns with the others behind the gate that they close.
func TestNewcomersThatAreRefusedDoNotKeepTheirClientClosedForOthers(t *testing.T) {
	inBubble(t, nil, func(c *crowd) {
		c.answer = func(r sfmc.TokenRequest) *sfmc.Error {
			time.Sleep(usualLatency)
			if r.AccountID[:3] == "bad" {
				return refused()
			}
			return nil
		}
		good := c.join("b", "good", "host", "client", "good")
		good.holds(time.Minute)
		for n := range 3600 {
			c.joins("a", fmt.Sprint(n), "host", "client", fmt.Sprint("bad", n))
			elapse(time.Second)
		}
		c.Expect(good.lapses).To(BeZero())
		c.Expect(good.held.ExpiresAt).To(BeTemporally(">", time.Now()))
		c.Expect(len(c.sent)).To(BeNumerically("<=", 3600/30+6*defaultMaxInFlight/2))
	})
}

func TestTenantsAndTheirClientsTakeTurns(t *testing.T) {
	inBubble(t, func(o *Options) { o.RequestRate, o.RequestBurst = 1, 1 }, func(c *crowd) {
		for n := range 100 {
			c.joins("a", fmt.Sprint("flood ", n), "host", "flood", fmt.Sprint(n))
		}
		for n := range 3 {
			c.joins("a", fmt.Sprint("calm ", n), "host", "calm", fmt.Sprint(n))
			c.joins("b", fmt.Sprint("b ", n), "host", "calm", fmt.Sprint("b", n))
		}
		elapse(12 * time.Second)
		var sent []string
		for _, s := range c.sent[1:] {
			sent = append(sent, s.String())
		}
		c.Expect(sent[:10]).To(Equal([]string{
			"flood/1", "calm/b0", "calm/0", "calm/b1", "flood/2", "calm/b2", "calm/1", "flood/3", "calm/2", "flood/4",
		}))
	})
}
