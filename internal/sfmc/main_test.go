package sfmc

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

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
	Limit   time.Duration
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
	ctx, cancel := context.WithTimeout(context.Background(), a.Limit)
	defer cancel()
	result := outcome{}
	if result.Token, err = client.RequestToken(ctx, a.Request); err != nil {
		result.Kind, result.Error = KindOf(err), err.Error()
	}
	if json.NewEncoder(os.Stdout).Encode(result) != nil {
		return 2
	}
	return 0
}
