package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

func TestSuspendSaysHowLongTheTokenLasts(t *testing.T) {
	for left, says := range map[time.Duration]string{
		-time.Minute:                    "It has no valid token.",
		10*time.Minute + 30*time.Second: "Its token expires in 10m.",
	} {
		g := NewWithT(t)
		t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"apiVersion": "sfmctoken.dev/v1alpha1", "kind": "SFMCToken",
				"metadata": {"namespace": "marketing", "name": "journeys"}, "status": {"expiresAt": %q}}`,
				time.Now().Add(left).UTC().Format(time.RFC3339))
		}))
		defer server.Close()
		streams, _, out, errOut := genericiooptions.NewTestIOStreams()
		args := []string{"suspend", "journeys", "-n", "marketing", "--server", server.URL}
		g.Expect(run(t.Context(), args, streams)).To(Equal(0), errOut.String())
		g.Expect(out.String()).To(Equal("SFMCToken marketing/journeys is suspended. " + says + "\n"))
	}
}
