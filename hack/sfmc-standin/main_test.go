package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	. "github.com/onsi/gomega"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

func TestFlagsSayWhatIsServed(t *testing.T) {
	g := NewWithT(t)
	folder := t.TempDir()
	one, many := filepath.Join(folder, "one.json"), filepath.Join(folder, "many.json")
	g.Expect(os.WriteFile(one, []byte(`{"clientID":"one","clientSecret":"s","accountID":"510001000"}`), 0o600)).To(Succeed())
	g.Expect(os.WriteFile(many, []byte(` [{"clientID":"two","clientSecret":"s","accountID":"510001000"}]`), 0o600)).To(Succeed())
	options, caOut, err := readFlags([]string{
		"--listen", "127.0.0.1:8443", "--host", "a.example.com", "--host", "10.0.0.1", "--expires-in", "3m", "--life", "4m",
		"--kill-old-tokens", "--latency", "50ms", "--ca-out", "ca.pem", "--package", one, "--package", many, "--quiet",
		"--client-id", "three", "--client-secret", "s", "--account-id", "510001000", "--enabled-account-ids", "1,2", "--scopes", "a b,c",
	})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(caOut).To(Equal("ca.pem"))
	g.Expect(options).To(Equal(sfmctest.Options{
		Listen: "127.0.0.1:8443", Hosts: []string{"a.example.com", "10.0.0.1"},
		ExpiresIn: 3 * time.Minute, Life: 4 * time.Minute, KillOldTokens: true, Latency: 50 * time.Millisecond,
		Packages: []sfmctest.Package{
			{ClientID: "one", ClientSecret: "s", AccountID: "510001000"},
			{ClientID: "two", ClientSecret: "s", AccountID: "510001000"},
			{ClientID: "three", ClientSecret: "s", AccountID: "510001000", AccountIDs: []string{"1", "2"}, Scopes: []string{"a", "b", "c"}},
		},
	}))
}

func TestWrongFlagsAreRefused(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "broken.json")
	NewWithT(t).Expect(os.WriteFile(broken, []byte(`{"client_id":"misspelt"}`), 0o600)).To(Succeed())
	for _, args := range [][]string{{"extra"}, {"--package", "no-such-file"}, {"--package", broken}, {"--latency", "soon"}} {
		_, _, err := readFlags(args)
		NewWithT(t).Expect(err).To(HaveOccurred(), "%v", args)
	}
}

func TestALineIsLoggedForEachTokenRequest(t *testing.T) {
	var lines bytes.Buffer
	logTo(slog.New(slog.NewTextHandler(&lines, nil)))(sfmctest.TokenRequest{ClientID: "one", Status: 401, Refusal: sfmctest.InvalidClient})
	NewWithT(t).Expect(lines.String()).To(ContainSubstring(`msg="token request" client_id=one account_id="" scope="" status=401 refusal=invalid-client issued=false`))
}
