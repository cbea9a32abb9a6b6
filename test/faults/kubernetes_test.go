package faults

import (
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

func elect(namespace string) []string {
	return []string{"--leader-elect", "--leader-election-namespace", namespace}
}

// stopAPIServer is a fault of all worlds at once.
func stopAPIServer(lasting time.Duration, worlds ...*world) {
	for _, w := range worlds {
		w.observer.impede(kubernetesAway)
	}
	cluster.StopAPIServer()
	worlds[0].pass(lasting)
	worlds[0].Expect(cluster.StartAPIServer(worlds[0].ctx)).To(Succeed())
	for _, w := range worlds {
		w.observer.relieve(kubernetesAway)
	}
}

func TestTheOperatorRecoversFromAnAPIServerThatWasAwayForLongerThanALife(t *testing.T) {
	alone, elected := newWorld(t, tens), newWorld(t, tens)
	alone.startOperator()
	elected.startOperator(elect(harness.SystemNamespace)...)
	alone.served()
	elected.served()
	stopAPIServer(15*time.Second, alone, elected)
	alone.aboutALife()
	elected.aboutALife()
	alone.verdict("API server away for longer than a life", "15 s", "")
	elected.verdict("the same with leader election", "15 s", fmt.Sprintf("the process ended and was restarted %d times", elected.starts()-1))
}

func TestASecondReplicaTakesOverFromAKilledLeaderInTime(t *testing.T) {
	t.Parallel()
	shape := tens
	shape.life = 90 * time.Second // the lease lasts 15 s, and the tries to get it take some more
	w := newWorld(t, shape)
	flags := elect(harness.SystemNamespace)
	w.startOperator(flags...)
	w.served()
	other := &harness.Log{}
	w.startReplica(other, flags...)
	w.Eventually(other.String).Should(ContainSubstring("Attempting to acquire leader lease"))
	began := time.Now()
	// Just before the tokens are due, so that the takeover is all the time there is.
	w.pass(time.Until(w.observer.began.Add(time.Duration(soonest*float64(shape.life)) - time.Second)))
	leader := w.leader()
	w.Expect(leader).NotTo(BeNil())
	leader.Kill()
	killed := time.Now()
	w.Eventually(w.leader).Should(BeNil())
	w.Eventually(w.leader).ShouldNot(BeNil())
	took := time.Since(killed)
	w.pass(time.Until(began.Add(shape.life + 5*time.Second)))
	outage, _, _, _ := w.observer.outcome()
	w.Expect(outage).To(BeZero(), "no token expired while the leader changed")
	w.verdict("leader killed, second replica takes over", "1", fmt.Sprintf("a new leader after %.1f s", took.Seconds()))
}
