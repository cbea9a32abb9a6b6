package sfmc

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
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

// askApart sends a request from a process of its own, with these variables.
func askApart(t *testing.T, a asked, variables ...string) outcome {
	t.Helper()
	g := NewWithT(t)
	told, err := json.Marshal(a)
	g.Expect(err).NotTo(HaveOccurred())
	child := exec.CommandContext(t.Context(), os.Args[0]) //nolint:gosec // this very test
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); !strings.HasSuffix(strings.ToUpper(name), "_PROXY") {
			child.Env = append(child.Env, variable)
		}
	}
	child.Env = append(append(child.Env, askAs+"="+string(told)), variables...)
	child.Stderr = os.Stderr
	out, err := child.Output()
	g.Expect(err).NotTo(HaveOccurred())
	var result outcome
	g.Expect(json.Unmarshal(out, &result)).To(Succeed(), string(out))
	return result
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
		"a proxy that refuses": {refuse: http.StatusProxyAuthRequired, variables: "HTTPS_PROXY=",
			problem: "Proxy Authentication Required", tunnels: led},
		"NO_PROXY": {variables: "NO_PROXY=.marketingcloudapis.com HTTPS_PROXY=",
			problem: past + goodHost + ":443"},
		"HTTP_PROXY, for http alone": {variables: "HTTP_PROXY=", problem: past + goodHost + ":443"},
		"NO_PROXY, for another host": {variables: "NO_PROXY=marketingcloud.com HTTPS_PROXY=", tunnels: led},
		"an address nobody listens at": {variables: "HTTPS_PROXY=http://someone:pass-word@127.0.0.1:1 IGNORED=",
			problem: "proxyconnect tcp: " + past + "127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := NewWithT(t)
			proxy := &tunnel{to: server.Host(), refuse: row.refuse}
			address := startTunnel(t, proxy)
			told := asked{Roots: server.CACert(), Request: request, Proxy: address}
			got := askApart(t, told, strings.Fields(row.variables+"http://someone:pass-word@"+address)...)
			g.Expect(got.Error).NotTo(ContainSubstring("pass-word"))
			g.Expect(proxy.requests()).To(Equal(row.tunnels))
			if row.problem != "" {
				g.Expect(got.Kind).To(Equal(Unavailable))
				g.Expect(got.Error).To(Equal("Marketing Cloud's token endpoint is unavailable: " + row.problem))
				return
			}
			g.Expect(got.Error).To(BeEmpty())
			_, alive := server.Check(got.Token.AccessToken)
			g.Expect(alive).To(BeTrue())
		})
	}
}
