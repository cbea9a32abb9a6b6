// Package sfmctest is a stand-in for the parts of Salesforce Marketing Cloud
// Engagement that a token client meets: the v2 token endpoint, the REST and
// SOAP calls that tell whether a token is alive, and everything that goes wrong
// between them. Salesforce gives nobody a sandbox, so the server is as true as
// what is documented ("documented" in the comments) or was observed in live
// answers ("seen live"); where neither exists, the comment says so.
//
// It is for tests, demos and benchmarks only: its control API has no
// authentication.
package sfmctest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/utils/clock"
)

// Options say how a Server starts. The zero value is a true-to-life server on
// a free loopback port.
type Options struct {
	// Listen is the address to listen on. Default: a free port of 127.0.0.1 that
	// stays free while the server is down.
	Listen string
	// Hosts are further names and addresses in the server's certificate, beside
	// 127.0.0.1, ::1, localhost and the address it listens on.
	Hosts []string
	// Clock decides about the life of tokens, rate limits and delayed changes of
	// packages. Default: the real clock. Latency is always real time.
	Clock clock.PassiveClock
	// ExpiresIn is the life that answers report. Default 1079 s (seen live).
	ExpiresIn time.Duration
	// Life is how long tokens really live. Default ExpiresIn + 2 min (documented).
	Life time.Duration
	// KillOldTokens, Latency: see Mode.
	KillOldTokens bool
	Latency       time.Duration
	// Packages are added before the first request can arrive.
	Packages []Package
	// OnTokenRequest is called once for each token request when its answer is
	// decided, or when the client went away unanswered. The answer waits for it.
	OnTokenRequest func(TokenRequest)
}

// Server is the stand-in. All methods are safe for concurrent use.
type Server struct {
	options     Options
	clock       clock.PassiveClock
	address     string
	host        string
	certificate certificate

	mode     atomic.Pointer[Mode]
	modeLock sync.Mutex
	packages packages
	tokens   tokens
	faults   faults
	throttle throttle
	record   record
	calls    calls

	lock   sync.Mutex // guards what follows
	http   *http.Server
	cancel context.CancelFunc
	served chan struct{}
	client *http.Client
}

// NewServer starts a server; Close ends it.
func NewServer(options Options) (*Server, error) {
	if options.Clock == nil {
		options.Clock = clock.RealClock{}
	}
	listenHost := loopback
	if options.Listen != "" {
		var err error
		if listenHost, _, err = net.SplitHostPort(options.Listen); err != nil {
			return nil, fmt.Errorf("listen address: %w", err)
		}
	}
	certificate, err := newCertificate(append([]string{loopback, "::1", "localhost", listenHost}, options.Hosts...))
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	s := &Server{options: options, clock: options.Clock, address: options.Listen, certificate: certificate}
	s.mode.Store(initialMode(options))
	s.tokens.init()
	for _, p := range options.Packages {
		if err := s.AddPackage(p); err != nil {
			return nil, err
		}
	}
	if err := s.BringUp(); err != nil {
		return nil, err
	}
	return s, nil
}

// Start starts a server that ends with the test.
func Start(t testing.TB, options Options) *Server {
	t.Helper()
	s, err := NewServer(options)
	if err != nil {
		t.Fatalf("start the Marketing Cloud stand-in: %v", err)
	}
	t.Cleanup(s.Close)
	return s
}

// URL is the server's Authentication Base URI, with the trailing slash that
// Setup > Installed Packages shows.
func (s *Server) URL() string { return "https://" + s.Host() + "/" }

// Host is the server's address as host:port. A server that listens on all
// addresses names itself by the first of Options.Hosts.
func (s *Server) Host() string {
	s.lock.Lock()
	defer s.lock.Unlock()
	return s.host
}

// CACert is the PEM certificate of the authority that signed the server's own.
func (s *Server) CACert() []byte { return s.certificate.authorityPEM }

// Client is an HTTP client that trusts the server and follows redirects.
func (s *Server) Client() *http.Client {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.client == nil {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(s.certificate.authorityPEM)
		s.client = &http.Client{Transport: &http.Transport{
			TLSClientConfig:     &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:   true,
			MaxIdleConnsPerHost: 64,
		}}
	}
	return s.client
}

// BringUp makes a server that was taken down listen again, at the same address
// and with everything it knew.
func (s *Server) BringUp() error {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.http != nil {
		return errors.New("the server is up already")
	}
	listener, err := listen(s.address)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	s.address = listener.Addr().String()
	s.host = publicHost(listener.Addr(), s.options.Hosts)
	ctx, cancel := context.WithCancel(context.Background())
	server := &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connectionKey{}, c)
		},
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{s.certificate.server},
			MinVersion:   tls.VersionTLS12,
		},
		// Clients that distrust the server, or go away, are what tests are about.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		// Serve returns when the listener is closed, which is the only way it ends.
		_ = server.ServeTLS(listener, "", "")
	}()
	s.http, s.cancel, s.served = server, cancel, served
	return nil
}

const loopback = "127.0.0.1"

// lastPort is the loopback port that was tried last, less lowestPort. No port
// comes twice in a process: a server at another's address would be that one to
// an operator that still sees its tokens.
var lastPort atomic.Uint32

func init() { lastPort.Store(rand.Uint32N(highestPort - lowestPort)) } //nolint:gosec // spreads, guards nothing

// Ports below those that systems give to outgoing connections: none takes one
// while its server is down.
const lowestPort, highestPort = 10000, 20000

// listen listens on an address, or on a loopback port if it is empty.
func listen(address string) (listener net.Listener, err error) {
	if address != "" {
		return net.Listen("tcp", address)
	}
	for range 1000 {
		port := strconv.Itoa(lowestPort + int(lastPort.Add(1)%(highestPort-lowestPort)))
		if listener, err = net.Listen("tcp", net.JoinHostPort(loopback, port)); err == nil {
			break
		}
	}
	return listener, err
}

// TakeDown cuts all connections and refuses new ones until BringUp.
func (s *Server) TakeDown() {
	s.lock.Lock()
	defer s.lock.Unlock()
	if s.http == nil {
		return
	}
	s.cancel()
	_ = s.http.Close()
	<-s.served
	s.http = nil
	if s.client != nil {
		s.client.CloseIdleConnections()
	}
}

// Close ends the server and cuts all connections.
func (s *Server) Close() { s.TakeDown() }

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/v2/token", s.serveToken)
	mux.HandleFunc("GET /platform/v1/tokenContext", s.serveTokenContext)
	mux.HandleFunc("POST /Service.asmx", s.serveSOAP)
	s.addControlRoutes(mux)
	return mux
}

// publicHost is the host:port under which clients are told to call the server.
func publicHost(address net.Addr, hosts []string) string {
	host, port, err := net.SplitHostPort(address.String())
	if err != nil {
		return address.String()
	}
	if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
		host = loopback
		if len(hosts) > 0 {
			host = hosts[0]
		}
	}
	return net.JoinHostPort(host, port)
}
