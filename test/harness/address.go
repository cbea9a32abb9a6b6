package harness

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

// FreeAddress is a loopback address that nobody listens on. Its port is below those that systems give to outgoing
// connections: none takes it before the server is there, nor while it is away.
func FreeAddress() (string, error) {
	const lowest, highest = 20000, 30000
	for range 1000 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(lowest+rand.IntN(highest-lowest))) //nolint:gosec // spreads, guards nothing
		listener, err := net.Listen("tcp", address)
		if err == nil {
			return address, listener.Close()
		}
	}
	return "", errors.New("no free loopback port between 20000 and 30000: end what listens there")
}
