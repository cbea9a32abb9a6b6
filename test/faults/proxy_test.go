package faults

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"testing"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// proxy is between the operator and Marketing Cloud. It passes TLS through, and delays, cuts and resets.
type proxy struct {
	t *testing.T
	*toxiproxy.Proxy
}

func startProxy(t *testing.T, upstream string) *proxy {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := &proxy{t, toxiproxy.NewProxy(server, t.Name(), freeAddress(t), upstream)}
	if err := p.Start(); err != nil {
		t.Fatalf("start the proxy: %v", err)
	}
	t.Cleanup(p.Stop)
	return p
}

// disturb adds a toxic, which heal removes.
func (p *proxy) disturb(kind, stream string, toxicity float32, attributes map[string]any) {
	p.t.Helper()
	toxic, err := json.Marshal(map[string]any{"type": kind, "stream": stream, "toxicity": toxicity, "attributes": attributes})
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := p.Toxics.AddToxicJson(strings.NewReader(string(toxic))); err != nil {
		p.t.Fatalf("add %s: %v", toxic, err)
	}
}

// heal removes all toxics and cuts the connections that suffered from them.
func (p *proxy) heal() {
	p.t.Helper()
	p.Toxics.ResetToxics(context.Background())
	p.cut()
}

// cut ends all connections; new ones are taken at once.
func (p *proxy) cut() {
	p.t.Helper()
	p.Stop()
	if err := p.Start(); err != nil {
		p.t.Fatalf("start the proxy again: %v", err)
	}
}

// freeAddress is a loopback address that nobody listens on, with a port below those that systems give to outgoing
// connections: none takes it while its server is down.
func freeAddress(t *testing.T) string {
	t.Helper()
	const lowest, highest = 10000, 20000
	for range 1000 {
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(lowest+rand.IntN(highest-lowest))) //nolint:gosec // picks a port, guards nothing
		listener, err := net.Listen("tcp", address)
		if err != nil {
			continue
		}
		if err := listener.Close(); err == nil {
			return address
		}
	}
	t.Fatalf("no free loopback port between %d and %d", lowest, highest)
	return ""
}
