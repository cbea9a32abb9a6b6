package consumers

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// startProxy starts a proxy that leads the names of Marketing Cloud to the stand-in, and nothing else anywhere. So all
// programs use the real names: sfmc-sdk takes no other ones. It returns the proxy's host and port.
func startProxy(t *testing.T, standIn string) string {
	t.Helper()
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || !strings.HasSuffix(r.Host, ".marketingcloudapis.com:443") {
			t.Errorf("somebody wants to go to %s %s", r.Method, r.Host)
			http.Error(w, "this proxy leads to Marketing Cloud alone", http.StatusForbidden)
			return
		}
		if err := tunnel(w, standIn); err != nil {
			t.Logf("the proxy: %v", err)
		}
	}))
	t.Cleanup(proxy.Close)
	return proxy.Listener.Addr().String()
}

// tunnel connects a client that asked for it.
func tunnel(w http.ResponseWriter, to string) error {
	server, err := net.Dial("tcp", to)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return err
	}
	client, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return server.Close()
	}
	if _, err := io.WriteString(client, "HTTP/1.1 200 Connection established\r\n\r\n"); err != nil {
		_, _ = client.Close(), server.Close()
		return err
	}
	relay := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // whoever ends it ends both
		_, _ = to.Close(), from.Close()
	}
	go relay(server, client)
	go relay(client, server)
	return nil
}
