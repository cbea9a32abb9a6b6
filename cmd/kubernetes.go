package main

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/utils/clock"
)

// silence is how long an API server may say nothing when it is connected to. Half of a connection's handshake may be
// lost in an outage; what is lost first is sent again only after 1, 3, 7 and 15 s.
const silence = 3 * time.Second

// noticeSilence has connections to the API server given up within five seconds after they went silent, as they do when
// its node dies. client-go would wait for 45 s.
func noticeSilence(config *rest.Config) error {
	config.Dial = dialKubernetes
	return errors.Join(
		// The names are client-go's. A connection on which nothing came is asked for a sign of life.
		setDefault("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "2"),
		setDefault("HTTP2_PING_TIMEOUT_SECONDS", "3"),
	)
}

func setDefault(variable, value string) error {
	if _, isSet := os.LookupEnv(variable); isSet {
		return nil
	}
	return os.Setenv(variable, value)
}

// dialKubernetes is for connections of TLS over TCP, in which the client speaks first and is answered at once.
func dialKubernetes(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{Timeout: 30 * time.Second}
	if host, _, err := net.SplitHostPort(address); err == nil && net.ParseIP(host) != nil {
		dialer.Timeout = silence // a name may take longer: the first of several name servers may be away
	}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	if err := conn.SetReadDeadline(clock.RealClock{}.Now().Add(silence)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &unanswered{Conn: conn}, nil
}

// unanswered is a connection that fails if its first answer doesn't come.
type unanswered struct {
	net.Conn
	answered atomic.Bool
}

// Read implements net.Conn.
func (c *unanswered) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && !c.answered.Swap(true) {
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			return n, err
		}
	}
	return n, err
}
