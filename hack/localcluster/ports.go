package localcluster

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
)

const loopback = "127.0.0.1"

// freePorts returns n different ports that nobody listens on. They lie below the
// range from which systems pick ports for outgoing connections: otherwise such a
// connection could take the API server's port while the API server is stopped.
func freePorts(n int) ([]string, error) {
	const lowest, highest = 20000, 30000
	var ports []string
	for range 1000 {
		if len(ports) == n {
			return ports, nil
		}
		port := strconv.Itoa(lowest + rand.IntN(highest-lowest))
		listener, err := net.Listen("tcp", net.JoinHostPort(loopback, port))
		if err != nil {
			continue
		}
		// Held until all are found, so that none is picked twice.
		defer listener.Close()
		ports = append(ports, port)
	}
	return nil, errors.New("too few free loopback ports between 20000 and 30000: end what listens there")
}
