package issuer

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/time/rate"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

// openSlowDesk is a desk that sends a request each ten seconds, after a burst.
func openSlowDesk(t *testing.T, burst int) *desk {
	t.Helper()
	d := openDesk(t)
	d.restart(rate.Every(10*time.Second), burst)
	return d
}

func TestWhoeverWaitsForASlotIsWokenAndSaysSoAfter10Seconds(t *testing.T) {
	g := NewWithT(t)
	d := openSlowDesk(t, 1)
	first, second := d.want(emea, "a"), d.want(apac, "a")
	d.gets(d.want("", "a"))
	for _, want := range []*Want{first, second} {
		waiting, wait := d.fails(want)
		g.Expect(waiting.Reason).To(Equal(v1alpha1.ReasonWaitingForTurn))
		g.Expect(waiting.Failures).To(BeZero())
		g.Expect(waiting.IsWoken).To(BeTrue())
		g.Expect(wait).To(Equal(worthTelling))
	}
	d.pass(10 * time.Second)
	d.settle()
	g.Expect(d.woken(first.Asker)).To(Equal(1))
	d.gets(first)
	waiting, _ := d.fails(second)
	g.Expect(waiting.IsWoken).To(BeTrue())
	g.Expect(waiting.RetryAt).To(BeZero(), "it has been told")
	d.pass(10 * time.Second)
	d.settle()
	g.Expect(d.woken(second.Asker)).To(Equal(1))
	d.gets(second)
	g.Expect(d.server.Count()).To(Equal(3))
}

func TestWhoeverWaitsForASlotAfterFailuresIsToldHowMany(t *testing.T) {
	g := NewWithT(t)
	d := openSlowDesk(t, 1)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.InternalError})
	want := d.want(emea, "a")
	_, wait := d.fails(want)
	d.pass(wait)
	waiting, _ := d.fails(want)
	g.Expect(waiting.Reason).To(Equal(v1alpha1.ReasonWaitingForTurn))
	g.Expect(waiting.Failures).To(Equal(1))
	d.pass(10 * time.Second)
	d.settle()
	d.gets(want)
}

func TestASlotThatNobodyWaitsForAnyMoreIsNotTaken(t *testing.T) {
	g := NewWithT(t)
	d := openSlowDesk(t, 1)
	d.gets(d.want("", "a"))
	left, gone, waits := d.want(emea, "left"), d.want(apac, "gone"), d.wantOf(otherID, emea, "waits")
	for _, want := range []*Want{left, gone, waits} {
		_, err := d.Ask(t.Context(), want)
		g.Expect(err).To(MatchError(errNoSlot))
	}
	d.Leave(left.Asker)
	d.Forget(gone.Asker)
	d.pass(10 * time.Second)
	d.settle()
	d.gets(waits)
	g.Expect(d.server.Count()).To(Equal(2))
	d.pass(10 * time.Second)
	d.gets(left)
	g.Expect(d.server.Count()).To(Equal(3))
}
