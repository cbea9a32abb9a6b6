package issuer

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
)

// After a long outage, or a start with tokens of one age, all are due in the same moment.
func TestTenThousandIdentitiesThatAreDueAtOnceAreSpreadAndNoneExpires(t *testing.T) {
	const identities = 10_000
	for name, clients := range map[string]int{"of one client": 1, "of ten thousand clients": identities} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(c *crowd) {
				start := time.Now()
				for n := range identities {
					m := c.join("a", fmt.Sprint(n), "host", fmt.Sprint("client ", n%clients), fmt.Sprint(n))
					m.holds(0)
				}
				elapse(usualLife)
				tightest := usualLife
				for _, m := range c.members {
					c.Expect(m.got).To(BeNumerically(">=", 1))
					c.Expect(m.lapses).To(BeZero())
					c.Expect(m.held.ExpiresAt).To(BeTemporally(">", time.Now()))
					tightest = min(tightest, time.Until(m.held.ExpiresAt))
				}
				all := c.sent[identities-1].at.Sub(start)
				c.Expect(all).To(BeNumerically("<=", (identities-defaultBurst)/defaultRate*time.Second+2*time.Second))
				// Each once at once, and once when its token has lived long enough.
				c.Expect(len(c.sent)).To(BeNumerically("<=", 2*identities))
				c.expectRate()
				c.expectSlots()
				t.Logf("all are served after %s; the tightest has %s left", all, tightest)
			})
		})
	}
}
