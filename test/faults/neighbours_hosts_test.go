package faults

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

// What the design says of token requests, in docs and not in the operator's code.
const (
	clientInFlight = 32 // requests of one client at a time
	toConnect      = 5 * time.Second
	toAnswer       = 30 * time.Second
)

// inVain is how many requests may be sent for a client whose requests all fail, each after a time.
func inVain(identities int, after time.Duration) func(time.Duration, int) int {
	return func(lasted time.Duration, starts int) int {
		atOnce := clientInFlight * (starts + int(lasted/after))
		return min(atOnce, identities*(starts-1+attemptsAllowed(lasted, 0)))
	}
}

// blackholedHost is 500 identities of 32 sharers each at an address that drops what comes.
func blackholedHost(h *neighbourhood) trouble {
	identities, sharers := scaled(500), 32
	namespace := h.guest()
	h.credentials(namespace, "blackhole", h.dead.address)
	before := h.dead.attempts()
	go every(h.during, glance, func(time.Time) { h.dead.look() })
	asked := func() int { return h.dead.attempts() - before }
	return trouble{
		what:   fmt.Sprintf("%d identities × %d SFMCTokens at a host that drops all packets", identities, sharers),
		tokens: h.fillGuest(namespace, identities, sharers),
		signs:  func() (string, bool) { return fmt.Sprintf("%d connections attempted in vain", asked()), asked() > 0 },
		asked:  asked, allowed: inVain(identities, toConnect),
	}
}

// silentHost accepts connections and requests, and never answers.
func silentHost(h *neighbourhood) trouble {
	identities := scaled(500)
	namespace := h.guest()
	_, pkg := h.credentials(namespace, "silence", h.silent.Listen)
	h.standIn.AddFaults(sfmctest.Fault{ClientID: pkg.ClientID, Wire: sfmctest.NeverAnswer, Times: sfmctest.Forever})
	asked := func() int { return h.sent(pkg.ClientID) }
	return trouble{
		what:   fmt.Sprintf("%d identities at a host that accepts and never answers", identities),
		tokens: h.fillGuest(namespace, identities, 1),
		signs:  func() (string, bool) { return fmt.Sprintf("%d requests hung", asked()), asked() > 0 },
		asked:  asked, allowed: inVain(identities, toAnswer),
	}
}

// blackhole is a loopback listener that never accepts and whose backlog is full: Linux drops further SYN packets.
type blackhole struct {
	address string
	remote  []byte // the address as /proc/net/tcp has it

	mu   sync.Mutex
	from map[string]bool // local addresses of attempts to connect
}

func digBlackhole(t *testing.T) *blackhole {
	t.Helper()
	g := NewWithT(t)
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() { _ = syscall.Close(fd) })
	loopback := [4]byte{127, 0, 0, 1}
	g.Expect(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: loopback})).To(Succeed())
	g.Expect(syscall.Listen(fd, 0)).To(Succeed())
	name, err := syscall.Getsockname(fd)
	g.Expect(err).NotTo(HaveOccurred())
	port := name.(*syscall.SockaddrInet4).Port
	b := &blackhole{address: fmt.Sprintf("127.0.0.1:%d", port), from: map[string]bool{}}
	b.remote = fmt.Appendf(nil, "%s:%04X", hexLoopback(loopback), port)
	g.Eventually(func() error { // until the backlog is full
		connection, err := net.DialTimeout("tcp", b.address, 100*time.Millisecond)
		if err == nil {
			t.Cleanup(func() { _ = connection.Close() })
		}
		return err
	}).Should(HaveOccurred())
	return b
}

// hexLoopback writes an address as Linux does: as a number, in the machine's byte order.
func hexLoopback(ip [4]byte) []byte {
	number := binary.BigEndian.AppendUint32(nil, binary.NativeEndian.Uint32(ip[:]))
	return bytes.ToUpper(hex.AppendEncode(nil, number))
}

// look notes who is trying to connect.
func (b *blackhole) look() {
	const synSent = "02"
	sockets, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for line := range bytes.Lines(sockets) {
		if fields := bytes.Fields(line); bytes.Equal(fields[2], b.remote) && string(fields[3]) == synSent {
			b.from[string(fields[1])] = true
		}
	}
}

func (b *blackhole) attempts() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.from)
}
