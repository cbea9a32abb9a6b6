package sfmctest

import (
	"sync"
	"time"
)

// throttle counts the token requests of each client.
type throttle struct {
	lock    sync.Mutex
	clients map[string]*lastRequests
}

// lastRequests are the times of a client's last requests, refused ones too, as
// many as the limit allows: if the oldest is still in the window, the next one
// is too much.
type lastRequests struct {
	times []time.Time // a ring
	next  int
}

// tooMany counts a request, and tells whether it is over the limit and when one
// would not be if the client kept quiet until then.
func (t *throttle) tooMany(clientID string, now time.Time, limit RateLimit) (time.Duration, bool) {
	if limit.Requests <= 0 || limit.Window <= 0 {
		return 0, false
	}
	t.lock.Lock()
	defer t.lock.Unlock()
	if t.clients == nil {
		t.clients = map[string]*lastRequests{}
	}
	last := t.clients[clientID]
	if last == nil || len(last.times) != limit.Requests {
		last = &lastRequests{times: make([]time.Time, limit.Requests)}
		t.clients[clientID] = last
	}
	oldest := last.times[last.next]
	last.times[last.next] = now
	last.next = (last.next + 1) % len(last.times)
	if now.Sub(oldest) >= limit.Window {
		return 0, false
	}
	return last.times[last.next].Add(limit.Window).Sub(now), true
}

// has tells whether a client id is installed, so that requests with made-up ones
// leave nothing behind.
func (p *packages) has(clientID string) bool {
	p.lock.Lock()
	defer p.lock.Unlock()
	return p.byID[clientID] != nil
}
