package sfmc

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/utils/clock"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

func TestAnUnknownAuthorityIsNotTrusted(t *testing.T) {
	g := NewWithT(t)
	server, _, request := standIn(t, sfmctest.Options{})
	other := sfmctest.Start(t, sfmctest.Options{})
	for _, roots := range [][]byte{nil, other.CACert()} {
		_, err := newClient(t, roots).RequestToken(t.Context(), request)
		g.Expect(err).To(MatchError(ContainSubstring("certificate signed by unknown authority")))
		g.Expect(err.Kind).To(Equal(Unavailable))
		expectSafe(t, err.Error())
	}
	g.Expect(server.Count()).To(BeZero(), "no secret left before the server had shown who it is")

	both := append(append([]byte{}, other.CACert()...), server.CACert()...)
	_, err := newClient(t, both).RequestToken(t.Context(), request)
	g.Expect(err).NotTo(HaveOccurred())
}

// TestWithoutFilesOfTheSystemTheUsualAuthoritiesAreTrusted runs itself again where there are none, as in the image.
func TestWithoutFilesOfTheSystemTheUsualAuthoritiesAreTrusted(t *testing.T) {
	g := NewWithT(t)
	const variable = "SSL_CERT_FILE"
	nowhere := filepath.Join(os.TempDir(), "no-such-file")
	if os.Getenv(variable) != nowhere {
		again := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v") //nolint:gosec // this test
		again.Env = append(os.Environ(), variable+"="+nowhere, "SSL_CERT_DIR="+nowhere)
		out, err := again.CombinedOutput()
		g.Expect(err).NotTo(HaveOccurred(), "%s", out)
		g.Expect(string(out)).To(ContainSubstring("--- PASS: " + t.Name()))
		return
	}
	client, err := NewClient(nil, clock.RealClock{})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(client.roots.Equal(x509.NewCertPool())).To(BeFalse(), "there would be nobody to trust")
}

func TestACertificateForAnotherHostIsNotTrusted(t *testing.T) {
	g := NewWithT(t)
	server, client, request := standIn(t, sfmctest.Options{Hosts: []string{"auth.example"}})
	_, port, err := net.SplitHostPort(request.AuthHost)
	g.Expect(err).NotTo(HaveOccurred())
	request.AuthHost = "127.0.0.2:" + port
	_, failed := client.RequestToken(t.Context(), request)
	g.Expect(failed).To(HaveOccurred())
	g.Expect(failed.Kind).To(Equal(Unavailable))
	g.Expect(server.Count()).To(BeZero())
}

func TestRootsWithoutACertificateAreRefused(t *testing.T) {
	for _, roots := range []string{"not PEM", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		g := NewWithT(t)
		_, err := NewClient([]byte(roots), clock.RealClock{})
		g.Expect(err).To(MatchError(ContainSubstring("expected PEM blocks of type CERTIFICATE")))
		g.Expect(err.Error()).NotTo(ContainSubstring("AAAA"))
	}
	_, err := NewClient(nil, clock.RealClock{})
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
}

// tunnel is an HTTP proxy that leads every CONNECT to one address, as a corporate proxy would to the host asked for.
type tunnel struct {
	to     string
	refuse int // the status to answer CONNECT with, if not 0

	mu    sync.Mutex
	asked []string // host:port of each CONNECT
}

func startTunnel(t *testing.T, proxy *tunnel) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	server := &http.Server{Handler: proxy, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener)
	}()
	t.Cleanup(func() {
		_ = server.Close()
		<-done
	})
	return listener.Addr().String()
}

func (p *tunnel) requests() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

func (p *tunnel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, r.Method+" "+r.Host)
	p.mu.Unlock()
	if p.refuse != 0 {
		w.WriteHeader(p.refuse)
		_, _ = io.WriteString(w, "<html>the proxy's page</html>")
		return
	}
	there, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", p.to)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer there.Close()
	here, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer here.Close()
	_, _ = io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(here, there)
		_ = here.Close()
	}()
	_, _ = io.Copy(there, here)
	_ = there.Close()
	<-back
}

// through makes a client reach nobody but the proxy: no name server is asked, and nobody on the internet.
func through(proxy string, client *Client) {
	dial := client.dial
	client.dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != proxy {
			return nil, fmt.Errorf("went past the proxy to %s", address)
		}
		return dial(ctx, network, address)
	}
}

func TestTheProxyOfTheEnvironmentIsUsed(t *testing.T) {
	server, _, request := standIn(t, sfmctest.Options{Hosts: []string{goodHost}})
	request.AuthHost = goodHost
	led := []string{"CONNECT " + goodHost + ":443"}
	const past = "went past the proxy to "
	for name, row := range map[string]struct {
		refuse    int
		variables string
		problem   string
		tunnels   []string
	}{
		"HTTPS_PROXY": {variables: "HTTPS_PROXY=", tunnels: led},
		"https_proxy": {variables: "https_proxy=", tunnels: led},
		"a proxy that wants a password": {refuse: http.StatusProxyAuthRequired, variables: "HTTPS_PROXY=",
			problem: "the proxy answered with status 407: " +
				"it needs a user name and password in HTTPS_PROXY, or refuses those that are there", tunnels: led},
		"a proxy that refuses": {refuse: http.StatusForbidden, variables: "HTTPS_PROXY=",
			problem: "the proxy that HTTPS_PROXY names refuses to connect: status 403", tunnels: led},
		"NO_PROXY": {variables: "NO_PROXY=.marketingcloudapis.com HTTPS_PROXY=",
			problem: past + goodHost + ":443"},
		"HTTP_PROXY, for http alone": {variables: "HTTP_PROXY=", problem: past + goodHost + ":443"},
		"NO_PROXY, for another host": {variables: "NO_PROXY=marketingcloud.com HTTPS_PROXY=", tunnels: led},
		"an address nobody listens at": {variables: "HTTPS_PROXY=http://someone:pass-word@127.0.0.1:1 IGNORED=",
			problem: "no connection to the proxy that HTTPS_PROXY names: " + past + "127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			g := NewWithT(t)
			proxy := &tunnel{to: server.Host(), refuse: row.refuse}
			address := startTunnel(t, proxy)
			for _, variable := range strings.Fields(row.variables + "http://someone:pass-word@" + address) {
				key, value, _ := strings.Cut(variable, "=")
				t.Setenv(key, value)
			}
			client := newClient(t, server.CACert())
			through(address, client)
			token, failed := client.RequestToken(t.Context(), request)
			g.Expect(proxy.requests()).To(Equal(row.tunnels))
			if row.problem != "" {
				g.Expect(failed).To(MatchError("Marketing Cloud's token endpoint is unavailable: " + row.problem))
				g.Expect(failed.Kind).To(Equal(Unavailable))
				return
			}
			g.Expect(failed).NotTo(HaveOccurred())
			_, alive := server.Check(token.AccessToken)
			g.Expect(alive).To(BeTrue())
		})
	}
}

func TestAMalformedProxyIsRefusedWithItsNameAndWithoutItsValue(t *testing.T) {
	for _, variable := range []string{"HTTPS_PROXY", "https_proxy"} {
		for _, value := range []string{
			"http://someone:hush%zz@proxy.example:3128", "http://someone:hush#1@proxy.example:3128",
			"http://12:34#hush@proxy.example", "http://proxy.example:hush", "http://proxy.example:70000",
			"http://hush hush.example:3128", "http://proxy.example:3128?hush", "http://[::1:3128",
			"http://proxy.example/hush", "http://", "http://:3128", "://hush", "\x7f", " ",
			"ftp://hush.example:21", "htps://hush.example:21",
		} {
			t.Run(variable+"="+strconv.Quote(value), func(t *testing.T) {
				g := NewWithT(t)
				t.Setenv(variable, value)
				_, err := NewClient(nil, clock.RealClock{})
				g.Expect(err).To(MatchError(HavePrefix(variable + " is not the address of a proxy: expected http://")))
				g.Expect(err.Error()).NotTo(Or(ContainSubstring("hush"), ContainSubstring("proxy.example")))
			})
		}
	}
	for _, value := range []string{
		"proxy.example", "proxy.example:3128", "http://proxy.example", "http://proxy.example:3128/",
		"https://someone:hush%23@proxy.example", "socks5://10.1.2.3:1080", "socks5h://[::1]:1080", "10.1.2.3:3128",
	} {
		t.Run(value, func(t *testing.T) {
			t.Setenv("HTTPS_PROXY", value)
			_, err := NewClient(nil, clock.RealClock{})
			NewWithT(t).Expect(err).NotTo(HaveOccurred())
		})
	}
}

func TestAWrongSubdomainAndTLSInspectionAreNamedWithTheRemedy(t *testing.T) {
	g := NewWithT(t)
	server, _, request := standIn(t, sfmctest.Options{})
	_, failed := newClient(t, nil).RequestToken(t.Context(), request)
	g.Expect(failed).To(MatchError("Marketing Cloud's token endpoint is unavailable: " + server.Host() +
		": certificate signed by unknown authority: if a proxy or gateway inspects TLS, " +
		"give its root certificate to the operator with --ca-file"))
	g.Expect(failed.Kind).To(Equal(Unavailable))

	client := newClient(t, nil)
	client.dial = func(context.Context, string, string) (net.Conn, error) {
		missing := &net.DNSError{Err: "no such host", Name: goodHost, Server: "10.0.0.10:53", IsNotFound: true}
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: missing}
	}
	request.AuthHost = goodHost
	_, failed = client.RequestToken(t.Context(), request)
	g.Expect(failed).To(MatchError("Marketing Cloud's token endpoint is unavailable: " + goodHost +
		": no such host: is auth_base_uri right?"))
	g.Expect(failed.Kind).To(Equal(Unavailable))
}
