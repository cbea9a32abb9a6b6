package sfmc

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	. "github.com/onsi/gomega"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

// endpoint is a token endpoint on a network in memory, which knows only the time of the test's bubble.
type endpoint struct {
	*httptest.Server
	wire   chan net.Conn
	handle http.HandlerFunc // nil for a token at once
	dials  atomic.Int32
	drop   atomic.Int32 // how many of the connections, from the first, drop all packets without being closed
}

func startEndpoint(t *testing.T, http2 bool) (*endpoint, *Client) {
	t.Helper()
	e := &endpoint{wire: make(chan net.Conn)}
	e.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // only then the server notices that a client goes
		if e.handle != nil {
			e.handle(w, r)
		}
		_, _ = io.WriteString(w, `{"access_token":"token"}`)
	}))
	_ = e.Listener.Close()
	e.Listener = &pipes{accept: e.wire, closed: make(chan struct{})}
	e.EnableHTTP2 = http2
	e.StartTLS()
	t.Cleanup(e.Close)
	client := newClient(t, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: e.Certificate().Raw}))
	client.dial = e.dial
	return e, client
}

func (e *endpoint) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	e.wire <- there
	return &line{Conn: here, number: e.dials.Add(1), drop: &e.drop}, nil
}

// goSilent drops all packets of the connections that there are, and none of those to come.
func (e *endpoint) goSilent() { e.drop.Store(e.dials.Load()) }

// line is the client's end of a connection.
type line struct {
	net.Conn
	number int32
	drop   *atomic.Int32
}

func (l *line) Write(packet []byte) (int, error) {
	if l.number <= l.drop.Load() {
		return len(packet), nil
	}
	return l.Conn.Write(packet)
}

func (l *line) Read(packet []byte) (int, error) {
	for {
		n, err := l.Conn.Read(packet)
		if err != nil || l.number > l.drop.Load() {
			return n, err
		}
	}
}

// pipes is a listener in memory.
type pipes struct {
	accept chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case connection := <-p.accept:
		return connection, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

var toExample = TokenRequest{AuthHost: "example.com", ClientID: clientID, ClientSecret: secret}

func TestAConnectionThatWentSilentIsLeft(t *testing.T) {
	for name, row := range map[string]struct {
		http2       bool
		connections int32
		patience    time.Duration // the caller's
		noticed     time.Duration
	}{
		"HTTP/1.1":                           {false, 8, time.Hour, 30 * time.Second},
		"HTTP/1.1, and others would last on": {false, 8, 3 * time.Second, 3 * time.Second},
		"HTTP/2":                             {true, 1, time.Hour, 10 * time.Second}, // a ping after 5 s has 5 s
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewWithT(t)
				endpoint, client := startEndpoint(t, row.http2)
				endpoint.handle = func(http.ResponseWriter, *http.Request) { time.Sleep(time.Second) }
				_, err := client.RequestToken(t.Context(), toExample)
				g.Expect(err).NotTo(HaveOccurred())
				var requests sync.WaitGroup
				for range 8 { // at once, so that there are as many idle connections as can be
					requests.Go(func() { _, _ = client.RequestToken(t.Context(), toExample) })
				}
				requests.Wait()
				g.Expect(endpoint.dials.Load()).To(Equal(row.connections))

				endpoint.goSilent()
				start, failures := time.Now(), 0
				for range 8 {
					ctx, cancel := context.WithTimeout(t.Context(), row.patience)
					_, err := client.RequestToken(ctx, toExample)
					cancel()
					if err == nil {
						break
					}
					failures++
				}
				g.Expect(failures).To(Equal(1))
				g.Expect(time.Since(start)).To(Equal(row.noticed + time.Second))
			})
		})
	}
}

func TestASilentHTTP2ConnectionIsLeftAlthoughItIsNeverIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		endpoint, client := startEndpoint(t, true)
		_, err := client.RequestToken(t.Context(), toExample)
		g.Expect(err).NotTo(HaveOccurred())
		endpoint.goSilent()
		var failures atomic.Int32
		var requests sync.WaitGroup
		time.Sleep(time.Second / 2)
		for range 20 { // one a second
			requests.Go(func() {
				if _, err := client.RequestToken(t.Context(), toExample); err != nil {
					failures.Add(1)
				}
			})
			time.Sleep(time.Second)
		}
		requests.Wait()
		g.Expect(failures.Load()).To(BeEquivalentTo(10), "those of the ten seconds until it is noticed")
		g.Expect(endpoint.dials.Load()).To(BeEquivalentTo(2))
	})
}

func TestAHostThatFailsCostsAnotherNoConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewWithT(t)
		endpoint, client := startEndpoint(t, false)
		client.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if strings.HasPrefix(address, "dead") {
				return nil, errors.New("connection refused")
			}
			return endpoint.dial(ctx, network, address)
		}
		dead := toExample
		dead.AuthHost = "dead.example.com"
		for range 3 {
			_, err := client.RequestToken(t.Context(), toExample)
			g.Expect(err).NotTo(HaveOccurred())
			_, err = client.RequestToken(t.Context(), dead)
			g.Expect(err).To(HaveOccurred())
		}
		g.Expect(endpoint.dials.Load()).To(BeEquivalentTo(1))
	})
}

func TestConnectingTakesFiveSecondsAtMost(t *testing.T) {
	const proxy = "http://someone:pass-word@proxy.example:3128"
	for name, row := range map[string]struct {
		proxy   string
		dialled time.Duration
	}{
		"the name or TCP": {"", time.Hour},
		"TLS":             {"", 0},
		"both in part":    {"", 3 * time.Second},
		"CONNECT":         {proxy, 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("HTTPS_PROXY", row.proxy)
			synctest.Test(t, func(t *testing.T) {
				g := NewWithT(t)
				client := newClient(t, nil)
				var open atomic.Int32
				client.dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
					select {
					case <-time.After(row.dialled):
						here, there := net.Pipe()
						open.Add(1)
						go func() { // it listens, and never says a word
							_, _ = io.Copy(io.Discard, there)
							open.Add(-1)
						}()
						return here, nil
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}
				start := time.Now()
				_, err := client.RequestToken(t.Context(), toExample)
				g.Expect(time.Since(start)).To(Equal(5 * time.Second))
				g.Expect(err).To(MatchError("Marketing Cloud's token endpoint is unavailable: " +
					"could not connect to example.com within 5s"))
				g.Expect(err.Kind).To(Equal(Unavailable))
				synctest.Wait()
				g.Expect(open.Load()).To(BeZero(), "what nobody waits for is not left behind")
			})
		})
	}
}

func TestAnAnswerMayTakeThirtySecondsInAll(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run("HTTP/2 "+strconv.FormatBool(http2), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewWithT(t)
				endpoint, client := startEndpoint(t, http2)
				slow := 29 * time.Second
				endpoint.handle = func(_ http.ResponseWriter, r *http.Request) {
					select {
					case <-time.After(slow):
					case <-r.Context().Done():
					}
				}
				for range 2 { // with a new connection, and with a used one
					_, err := client.RequestToken(t.Context(), toExample)
					g.Expect(err).NotTo(HaveOccurred())
				}
				slow = time.Hour
				start := time.Now()
				_, err := client.RequestToken(t.Context(), toExample)
				g.Expect(time.Since(start)).To(Equal(30 * time.Second))
				g.Expect(err).To(MatchError("Marketing Cloud's token endpoint is unavailable: " +
					"no complete answer from example.com within 30s"))
			})
		})
	}
}

func TestIdleConnectionsAreClosedAfterThirtySeconds(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run("HTTP/2 "+strconv.FormatBool(http2), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := NewWithT(t)
				endpoint, client := startEndpoint(t, http2)
				for _, row := range []struct {
					idle  time.Duration
					dials int32
				}{{0, 1}, {29 * time.Second, 1}, {31 * time.Second, 2}} {
					time.Sleep(row.idle)
					_, err := client.RequestToken(t.Context(), toExample)
					g.Expect(err).NotTo(HaveOccurred())
					synctest.Wait()
					g.Expect(endpoint.dials.Load()).To(Equal(row.dials), row.idle.String())
				}
			})
		})
	}
}

func TestHostsThatNobodyAsksAnyMoreAreForgotten(t *testing.T) {
	g := NewWithT(t)
	server, _, request := standIn(t, sfmctest.Options{})
	clock := clocktesting.NewFakeClock(noon)
	client, err := NewClient(server.CACert(), clock)
	g.Expect(err).NotTo(HaveOccurred())
	defer client.CloseIdleConnections()
	client.dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no route") }
	for i := range 1000 {
		_, failed := client.RequestToken(t.Context(), TokenRequest{AuthHost: "host-" + strconv.Itoa(i)})
		g.Expect(failed).To(HaveOccurred())
	}
	clock.Step(time.Minute)
	_, _ = client.RequestToken(t.Context(), request)
	g.Expect(client.connections.hosts).To(HaveLen(1))
	g.Expect(client.connections.hosts).To(HaveKey(request.AuthHost))
}
