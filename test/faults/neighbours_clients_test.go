package faults

import (
	"fmt"
	"time"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

// pausedClient is 10,000 identities of a client at the victim's host that is always throttled.
func pausedClient(h *neighbourhood) trouble {
	const retryAfter = 5 * time.Second
	identities, namespace := scaled(10_000), h.guest()
	_, pkg := h.credentials(namespace, "pause", h.proxy.Listen)
	h.standIn.AddFaults(sfmctest.Fault{ClientID: pkg.ClientID, Refusal: sfmctest.RateLimited, RetryAfter: retryAfter, Times: sfmctest.Forever})
	asked := func() int { return h.sent(pkg.ClientID) }
	return trouble{
		what:   fmt.Sprintf("%d identities of a client that gets 429 with Retry-After %s, at the victim's host", identities, retryAfter),
		tokens: h.fillGuest(namespace, identities, 1),
		signs:  func() (string, bool) { return fmt.Sprintf("%d requests throttled", asked()), asked() > 1 },
		asked:  asked,
		// Those that are under way when the first is refused, then one at the end of each pause.
		allowed: func(lasted time.Duration, starts int) int { return clientInFlight*starts + int(lasted/retryAfter) },
	}
}

// deadSecret is 1,000 identities of a client at the victim's host whose secret is refused, before a restart of the
// operator and after it.
func deadSecret(h *neighbourhood) trouble {
	const several, probe = 3, 30 * time.Second
	identities, namespace := scaled(1000), h.guest()
	_, pkg := h.credentials(namespace, "death", h.proxy.Listen) // the stand-in has no such package
	asked := func() int { return h.sent(pkg.ClientID) }
	before := 0
	return trouble{
		what:   fmt.Sprintf("%d identities of a client whose secret is refused, at the victim's host, and the operator killed", identities),
		tokens: h.fillGuest(namespace, identities, 1),
		signs: func() (string, bool) {
			return fmt.Sprintf("%d requests refused before a kill, %d after it", before, asked()-before), before > 0 && asked() > before
		},
		asked: asked,
		// The client is held after several refusals, to which those come that are under way. Then there is one probe at
		// a time, which as long as people change things isn't more often than every 30 s.
		allowed: func(lasted time.Duration, starts int) int {
			return (several+clientInFlight)*starts + int(lasted/probe)
		},
		middle: func() {
			before = asked()
			h.restartOperator()
		},
	}
}
