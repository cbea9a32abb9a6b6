package faults

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

func TestAHundredKillsLoseNoTokenAndCostAtMostOneEach(t *testing.T) {
	const kills = 100
	shape := tens
	shape.life = 12 * time.Second
	w := newWorld(t, shape)
	// Answers take a moment, so that some of the kills meet a request under way.
	w.standIn.ChangeMode(func(mode *sfmctest.Mode) { mode.Latency = 300 * time.Millisecond })
	replica := w.startOperator()
	w.served()
	source := random(t.Name())
	for i := range kills {
		// One of four comes while the operator starts, the others when it works.
		if source.IntN(4) > 0 {
			w.Eventually(w.leader).ShouldNot(BeNil())
		}
		w.pass(time.Duration(source.Int64N(int64(1500 * time.Millisecond))))
		starts := replica.Starts()
		replica.Kill()
		w.Eventually(replica.Starts).Should(BeNumerically(">", starts), "kill %d", i)
	}
	w.Eventually(w.leader).ShouldNot(BeNil())
	w.aboutALife()
	early := w.earlyRequests()
	for identity, count := range early {
		w.Expect(count).To(BeNumerically("<=", kills), "requests for %s before its token was due", identity)
	}
	sum := 0
	for _, count := range early {
		sum += count
	}
	w.verdict("operator killed with SIGKILL", fmt.Sprint(kills), fmt.Sprintf("%d tokens were lost in a kill and asked for again", sum))
}

// earlyRequests counts, by identity, the requests that came before the last issued token had lived half of its life.
func (w *world) earlyRequests() map[string]int {
	w.observer.mu.Lock()
	defer w.observer.mu.Unlock()
	issued, early := map[string]time.Time{}, map[string]int{}
	for _, request := range w.observer.asked {
		identity := request.ClientID + "/" + request.AccountID
		if last, found := issued[identity]; found && request.Time.Sub(last) < w.shape.life/2 {
			early[identity]++
		}
		if request.Issued {
			issued[identity] = request.Time
		}
	}
	return early
}
