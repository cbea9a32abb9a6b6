package faults

import (
	"context"
	"flag"
	"fmt"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/sfmctoken/sfmctoken-operator/api/v1alpha1"
	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

var scale = flag.Float64("neighbours", 0.25, "How large bad neighbours are, as a part of their full size, which is 1.")

// scaled is a part of a full size, at least 1.
func scaled(full int) int { return max(1, int(*scale*float64(full))) }

// neighbourhood is a victim, which does nothing wrong, and an operator that works for its neighbours, too.
type neighbourhood struct {
	*world
	machine *machine
	lender  string // a namespace whose credentials the victim uses
	silent  *proxy // another host than the victim's
	dead    *blackhole
	metrics string // the address of the operator's

	// Of the row that is measured now.
	row    int
	guests []string // the neighbours' namespaces
	during context.Context
}

// neighbour is somebody who misbehaves.
type neighbour struct {
	name  string
	begin func(*neighbourhood) trouble
}

// trouble is a neighbour at work.
type trouble struct {
	what   string
	tokens int // how many SFMCTokens it has
	// signs say what it was seen to do, and whether that is what it should.
	signs func() (string, bool)
	// asked counts the token requests that were sent for it; allowed is how many the design permits at most.
	asked   func() int
	allowed func(lasted time.Duration, starts int) int
	// middle is called in the middle of the row.
	middle func()
}

var neighbours = []neighbour{
	{"a blackholed host", blackholedHost},
	{"a silent host", silentHost},
	{"a paused client", pausedClient},
	{"a dead client secret", deadSecret},
	{"a contested namespace", contestedNamespace},
	{"forged records", forgedRecords},
	{"a flood of Secrets", floodOfSecrets},
}

func TestBadNeighboursDelayNobody(t *testing.T) {
	h := newNeighbourhood(t)
	t.Run("nobody", func(t *testing.T) { h.measure(t, "nobody") })
	for _, one := range neighbours {
		t.Run(one.name, func(t *testing.T) { h.measure(t, "", one) })
	}
	t.Run("all together", func(t *testing.T) { h.measure(t, "all of them together", neighbours...) })
}

// newNeighbourhood starts an operator with default flags that serves the victim.
func newNeighbourhood(t *testing.T) *neighbourhood {
	w := newWorld(t, shape{life: victimLife, namespaces: 1, packages: 1, accounts: victimTokens, everywhere: true})
	h := &neighbourhood{world: w, machine: &machine{}, silent: startProxy(t, w.standIn.Host()), dead: digBlackhole(t)}
	lender := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "lender-"}}
	h.create(lender)
	h.lender = lender.Name
	t.Cleanup(func() { removeNamespace(w.WithT, lender.Name) })
	var err error
	h.metrics, err = harness.FreeAddress()
	h.Expect(err).NotTo(HaveOccurred())
	h.startOperator("--allow-auth-host", h.dead.address, "--allow-auth-host", h.silent.Listen,
		"--metrics-bind-address", h.metrics, "--metrics-secure=false")
	h.settle()
	return h
}

// measure makes a row of the table.
func (h *neighbourhood) measure(t *testing.T, what string, neighbours ...neighbour) {
	g := NewWithT(t)
	g.SetDefaultEventuallyTimeout(patience)
	outer, outerT := h.WithT, h.t
	h.WithT, h.t = g, t // what fails fails this row
	var stop context.CancelFunc
	h.during, stop = context.WithCancel(h.ctx)
	defer func() {
		stop()
		h.clear()
		h.WithT, h.t = outer, outerT
	}()
	h.row++
	h.restartOperator() // its memory and counters are this row's alone
	h.served()
	h.observer.forget()
	began, starts, v := time.Now(), h.starts(), h.startVictim()
	var troubles []trouble
	for _, one := range neighbours {
		troubles = append(troubles, one.begin(h))
	}
	half := max(12*time.Second, time.Duration(*scale*float64(48*time.Second))) / 2
	h.pass(half)
	for _, trouble := range troubles {
		if trouble.middle != nil {
			trouble.middle()
		}
	}
	h.pass(half)
	row := v.end(began)
	row.who = what
	for _, trouble := range troubles {
		var seen string
		isWorking := func(context.Context) (working bool, err error) { seen, working = trouble.signs(); return working, nil }
		if wait.PollUntilContextTimeout(h.during, glance, patience, true, isWorking) != nil {
			row.broken = append(row.broken, trouble.what+": not seen at work, so the row shows nothing")
		}
		row.add(trouble, seen, time.Since(began), h.starts()-starts+1)
	}
	row.scrape(g, h.metrics)
	victims.add(t, row)
}

// restartOperator kills the operator and waits until it works again. What waited for it meanwhile is excused.
func (h *neighbourhood) restartOperator() {
	h.t.Helper()
	began, starts := time.Now(), h.starts()
	h.replicas[0].Kill()
	h.Eventually(h.starts).Should(BeNumerically(">", starts))
	h.Eventually(h.leader).ShouldNot(BeNil())
	h.machine.excuse(began)
}

// guest makes a namespace of a neighbour's, which goes with the row.
func (h *neighbourhood) guest() string {
	h.t.Helper()
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "guest-"}}
	h.create(namespace)
	h.guests = append(h.guests, namespace.Name)
	return namespace.Name
}

// credentials makes a neighbour's credentials Secret for a client at a host. The client is that of no other row.
func (h *neighbourhood) credentials(namespace, who, host string) (*corev1.Secret, sfmctest.Package) {
	h.t.Helper()
	pkg := harness.Package()
	pkg.ClientID = fmt.Sprintf("client-id-of-%s-%d", who, h.row)
	secret := harness.CredentialsSecret(namespace, "package", h.standIn, pkg)
	secret.StringData["auth_base_uri"] = "https://" + host + "/"
	h.create(secret)
	return secret, pkg
}

// account is one of as many business units as there need be.
func account(i int) string { return fmt.Sprintf("52%07d", i) }

// fillGuest makes SFMCTokens of many identities, each of which some share.
func (h *neighbourhood) fillGuest(namespace string, identities, sharers int) int {
	h.t.Helper()
	var work []func() error
	for i := range identities * sharers {
		token := harness.Token(namespace, fmt.Sprintf("token-%d", i), "package", account(i%identities))
		work = append(work, func() error { return admin.Create(h.ctx, token) })
	}
	h.Expect(concurrently(work)).To(Succeed())
	return len(work)
}

// sent counts the token requests of a client at the stand-in.
func (h *neighbourhood) sent(clientID string) (sum int) {
	for _, identity := range h.standIn.Counts() {
		if identity.ClientID == clientID {
			sum += identity.Requests
		}
	}
	return sum
}

// clear removes the neighbours, so that the next row has none of them.
func (h *neighbourhood) clear() {
	h.t.Helper()
	h.standIn.ClearFaults()
	for _, guest := range h.guests {
		for _, kind := range []client.Object{&v1alpha1.SFMCToken{}, &corev1.Secret{}} {
			// The API server may end a request before it has deleted thousands.
			h.Eventually(func() error { return admin.DeleteAllOf(h.ctx, kind, client.InNamespace(guest)) }).Should(Succeed())
		}
		removeNamespace(h.WithT, guest)
	}
	h.guests = nil
}
