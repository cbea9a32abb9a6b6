package sfmc

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/http/httpproxy"
	"k8s.io/utils/clock"
)

const (
	// connectTimeout bounds how long a request waits for a connection: name, TCP, proxy and TLS together.
	connectTimeout = 5 * time.Second
	// backgroundTimeout ends each step of a connection that no request waits for any more.
	backgroundTimeout = 2 * connectTimeout
	// pingTimeout is how long an HTTP/2 connection may be silent before a ping, and then until the ping's answer.
	pingTimeout = 5 * time.Second
	// idleTimeout closes a connection that had no request for so long.
	idleTimeout = 30 * time.Second
	// forgetAfter is when a host that is not asked any more has no connection left.
	forgetAfter = requestTimeout + idleTimeout
)

var errNotConnected = errors.New("not connected in time")

// connections keeps a transport for each host: when a request fails, the idle connections of its host are left, and
// those of others stay.
type connections struct {
	clock     clock.PassiveClock
	transport func() *http.Transport

	mu    sync.Mutex
	hosts map[string]*hostConnections
	swept time.Time
}

type hostConnections struct {
	*http.Transport
	used time.Time
}

// of returns the transport of a host, and drops those of hosts that were not asked for a while.
func (c *connections) of(host string) *http.Transport {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.clock.Now()
	if now.Sub(c.swept) >= forgetAfter {
		c.swept = now
		for name, kept := range c.hosts {
			if now.Sub(kept.used) >= forgetAfter {
				kept.CloseIdleConnections()
				delete(c.hosts, name)
			}
		}
	}
	kept := c.hosts[host]
	if kept == nil {
		kept = &hostConnections{Transport: c.transport()}
		c.hosts[host] = kept
	}
	kept.used = now
	return kept.Transport
}

func (c *connections) closeIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, kept := range c.hosts {
		kept.CloseIdleConnections()
	}
}

// newTransport returns the transport of one host.
func (c *Client) newTransport() *http.Transport {
	return &http.Transport{
		Proxy:               c.proxy,
		DialContext:         c.dial,
		TLSClientConfig:     &tls.Config{RootCAs: c.roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: backgroundTimeout,
		ForceAttemptHTTP2:   true,
		HTTP2: &http.HTTP2Config{
			SendPingTimeout: pingTimeout, PingTimeout: pingTimeout, WriteByteTimeout: pingTimeout,
		},
		IdleConnTimeout:        idleTimeout,
		MaxIdleConnsPerHost:    10,
		MaxResponseHeaderBytes: maxAnswer,
		OnProxyConnectResponse: proxyProblem,
	}
}

// withConnectLimit returns a context in which a request is given up, with errNotConnected, when it has waited for a
// connection for connectTimeout. The transport bounds the steps to a connection one by one only.
func withConnectLimit(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, giveUp := context.WithCancelCause(ctx)
	var connected func() // nil while no connection is waited for
	trace := &httptrace.ClientTrace{
		GetConn: func(string) {
			if connected != nil {
				return
			}
			limit, end := context.WithTimeoutCause(ctx, connectTimeout, errNotConnected)
			stop := context.AfterFunc(limit, func() { giveUp(context.Cause(limit)) })
			connected = func() {
				stop()
				end()
				connected = nil
			}
		},
		// HTTP/2 may call it without GetConn, when requests share a connection that has just been made.
		GotConn: func(httptrace.GotConnInfo) {
			if connected != nil {
				connected()
			}
		},
	}
	return httptrace.WithClientTrace(ctx, trace), func() { giveUp(nil) }
}

// proxyFromEnvironment returns who leads to a host, from HTTPS_PROXY and NO_PROXY. A malformed HTTPS_PROXY is an error,
// where net/http would go past it; the error does not show the value, which may have a password.
func proxyFromEnvironment() (func(*http.Request) (*url.URL, error), error) {
	config := httpproxy.FromEnvironment()
	all := httpproxy.Config{HTTPSProxy: config.HTTPSProxy}
	proxy, err := all.ProxyFunc()(&url.URL{Scheme: "https", Host: "auth.example"})
	if config.HTTPSProxy != "" && (err != nil || !isProxy(proxy)) {
		name := "HTTPS_PROXY"
		if os.Getenv("https_proxy") != "" {
			name = "https_proxy" // it goes first
		}
		return nil, fmt.Errorf("%s is not the address of a proxy: expected http://HOST:PORT (or https, socks5), with "+
			"percent-encoding where a user name or password has special characters", name)
	}
	choose := config.ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return choose(r.URL) }, nil
}

// isProxy reports whether all of a URL is the address of a proxy. What is malformed often leaves a part of itself in
// the path or the query.
func isProxy(proxy *url.URL) bool {
	if proxy == nil || proxy.Hostname() == "" || (proxy.Path != "" && proxy.Path != "/") ||
		proxy.RawQuery != "" || proxy.Fragment != "" {
		return false
	}
	if port := proxy.Port(); port != "" {
		if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			return false
		}
	}
	switch proxy.Scheme {
	case "http", "https", "socks5", "socks5h":
		return true
	default:
		return false
	}
}

// proxyProblem says why a proxy does not lead to the host.
func proxyProblem(_ context.Context, _ *url.URL, _ *http.Request, answer *http.Response) error {
	switch answer.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusProxyAuthRequired:
		return errors.New("the proxy answered with status 407: " +
			"it needs a user name and password in HTTPS_PROXY, or refuses those that are there")
	default:
		return fmt.Errorf("the proxy that HTTPS_PROXY names refuses to connect: status %d", answer.StatusCode)
	}
}
