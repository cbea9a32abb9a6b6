package controller

import (
	"fmt"
	"net/http"
	"time"

	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
)

// maxSilence is how long workers may have work without finishing any of it. Each reconciliation ends within
// reconcileTimeout and its writes, so something hangs that minds no time limit, and only a new process helps.
const maxSilence = 5 * time.Minute

// pulse is when the workers of a queue showed last that they live. A process reads the monotonic clock in it, so a leap
// of the wall clock makes no difference.
type pulse struct {
	clock clock.PassiveClock
	last  time.Time
	began bool
}

// begin says that a worker asks for work. Those of a replica that stands by don't.
func (p *pulse) begin() {
	if !p.began {
		p.began = true
		p.beat()
	}
}

// beat says that a worker has finished something, or that there is something to do for the first time.
func (p *pulse) beat() { p.last = p.clock.Now() }

func (p *pulse) isGone() bool { return p.began && p.clock.Since(p.last) > maxSilence }

// check is a healthz.Checker. Of one tenant's work that hangs it says nothing as long as other work is done: a restart
// would let that tenant stop all others.
func (q *fairQueue) check(*http.Request) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.turns.isIdle() || !q.pulse.isGone() {
		return nil
	}
	err := fmt.Errorf("no reconciliation has ended for %s; %d are under way, and %d wait",
		q.clock.Since(q.pulse.last).Truncate(time.Second), q.turns.working, q.turns.waiting)
	ctrl.Log.Error(err, "the liveness probe fails") // the answer to the probe doesn't say why
	return err
}
