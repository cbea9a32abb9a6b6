package sfmc

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"testing"

	"go.uber.org/goleak"
	"k8s.io/utils/clock"
)

// askAs is set for a process that is to send one token request and write what came of it: net/http reads the proxy
// variables once in a process, so they are tested in one of their own.
const askAs = "SFMC_TEST_ASK"

// asked is what such a process is told, and outcome what it answers.
type asked struct {
	Roots   []byte
	Request TokenRequest
	Proxy   string // host:port, the only address that may be dialled
}

type outcome struct {
	Token Token
	Kind  Kind
	Error string
}

func TestMain(m *testing.M) {
	if told := os.Getenv(askAs); told != "" {
		os.Exit(ask(told))
	}
	goleak.VerifyTestMain(m)
}

func ask(told string) int {
	var a asked
	if err := json.Unmarshal([]byte(told), &a); err != nil {
		return 2
	}
	client, err := NewClient(a.Roots, clock.RealClock{})
	if err != nil {
		return 2
	}
	// No name server is asked, and nobody on the internet: what isn't led through the proxy ends here.
	dial := (&net.Dialer{}).DialContext
	transport := client.http.Transport.(*http.Transport)
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != a.Proxy {
			return nil, fmt.Errorf("went past the proxy to %s", address)
		}
		return dial(ctx, network, address)
	}
	got, failed := client.RequestToken(context.Background(), a.Request)
	result := outcome{Token: got}
	if failed != nil {
		result.Kind, result.Error = failed.Kind, failed.Error()
	}
	if json.NewEncoder(os.Stdout).Encode(result) != nil {
		return 2
	}
	return 0
}
