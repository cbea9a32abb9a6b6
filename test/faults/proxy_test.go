package faults

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/sfmctoken/sfmctoken-operator/test/harness"
)

// proxy is between the operator and Marketing Cloud. It passes TLS through, and delays, cuts and resets.
type proxy struct {
	t *testing.T
	*toxiproxy.Proxy
}

func startProxy(t *testing.T, upstream string) *proxy {
	t.Helper()
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	address, err := harness.FreeAddress()
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t, toxiproxy.NewProxy(server, t.Name(), address, upstream)}
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
