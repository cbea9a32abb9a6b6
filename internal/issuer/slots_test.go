package issuer

import (
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"golang.org/x/time/rate"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/internal/token"
)

// openSlowDesk is a desk that sends a request each ten seconds, after a burst.
func openSlowDesk(t *testing.T, burst int) *desk {
	t.Helper()
	d := openDesk(t)
	d.restart(rate.Every(10*time.Second), burst)
	return d
}

func TestWhoeverWaitsForASlotIsToldWhenItComesAndItIsKept(t *testing.T) {
	g := NewWithT(t)
	d := openSlowDesk(t, 1)
	first, second := d.candidate(emea, "a"), d.candidate(apac, "a")
	d.gets(d.candidate("", "a"))
	for range 3 {
		waiting, wait := d.fails(first)
		g.Expect(waiting.Reason).To(Equal(v1alpha1.ReasonWaitingForTurn))
		g.Expect(waiting.Failures).To(BeZero())
		g.Expect(wait).To(Equal(10 * time.Second))
		_, wait = d.fails(second)
		g.Expect(wait).To(Equal(20 * time.Second))
	}
	g.Expect(d.WaitForSlot(token.IssuedFor{AuthHost: "another host", Identity: "x"})).To(Succeed())
	g.Expect(d.WaitForSlot(first.IssuedFor)).NotTo(Succeed(), "it is the same slot")

	d.pass(10 * time.Second)
	g.Expect(d.WaitForSlot(first.IssuedFor)).To(Succeed())
	d.gets(first)
	_, wait := d.fails(second)
	g.Expect(wait).To(Equal(10 * time.Second))
	d.pass(10 * time.Second)
	d.gets(second)
	g.Expect(d.server.Count()).To(Equal(3))
	g.Expect(d.slots.at).NotTo(HaveKey(first.Identity), "one slot is for one request")
	g.Expect(d.slots.at).NotTo(HaveKey(second.Identity))
}

func TestWhoeverWaitsForASlotAfterFailuresIsToldHowMany(t *testing.T) {
	g := NewWithT(t)
	d := openSlowDesk(t, 1)
	d.server.AddFaults(sfmctest.Fault{Refusal: sfmctest.InternalError})
	candidate := d.candidate(emea, "a")
	_, wait := d.fails(candidate)
	d.pass(wait)
	waiting, left := d.fails(candidate)
	g.Expect(waiting.Reason).To(Equal(v1alpha1.ReasonWaitingForTurn))
	g.Expect(waiting.Failures).To(Equal(1))
	d.pass(left)
	d.gets(candidate)
}

func TestASlotThatNobodyTookIsForgotten(t *testing.T) {
	g := NewWithT(t)
	d := openSlowDesk(t, 2)
	d.gets(d.candidate("", "a"))
	gone := d.candidate(apac, "a").IssuedFor
	g.Expect(d.WaitForSlot(gone)).To(Succeed())
	d.pass(time.Minute)
	d.gets(d.candidateOf(otherID, "", "a"))
	g.Expect(d.slots.at).To(HaveKey(gone.Identity), "it may come yet")
	d.pass(time.Minute)
	d.gets(d.candidate(emea, "a"))
	g.Expect(d.slots.at).To(BeEmpty())
}
