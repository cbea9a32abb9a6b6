// Command consumer does what programs do that use a token: it reads it from a file for each call, several times a second,
// and counts how the calls end. It serves the totals as JSON.
package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/sfmctoken/sfmctoken-operator/test/e2e/totals"
)

func main() {
	dir := flag.String("token-dir", "/sfmc", "folder that the Secret is mounted at")
	account := flag.String("account-id", "", "MID that the token must act for")
	caFile := flag.String("ca-file", "", "PEM file of the root certificate")
	listen := flag.String("listen", ":8080", "address to serve the totals at")
	every := flag.Duration("every", 250*time.Millisecond, "time between calls")
	flag.Parse()
	if err := run(*dir, *account, *caFile, *listen, *every); err != nil {
		fmt.Fprintln(os.Stderr, "consumer:", err)
		os.Exit(1)
	}
}

func run(dir, account, caFile, listen string, every time.Duration) error {
	pem, err := os.ReadFile(caFile) //nolint:gosec // its own flag
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	c := &consumer{dir: dir, account: account, client: &http.Client{
		Timeout:   time.Minute, // the machine may be slow; what is counted is answers
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}},
	}}
	go c.watch(20 * time.Millisecond)
	go func() {
		for range time.Tick(every) {
			c.count(c.call())
		}
	}()
	server := &http.Server{Addr: listen, Handler: c, ReadHeaderTimeout: 5 * time.Second}
	return server.ListenAndServe()
}

type consumer struct {
	dir, account string
	client       *http.Client

	mu     sync.Mutex
	totals totals.Totals
}

// ServeHTTP implements http.Handler.
func (c *consumer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.totals.Now = time.Now()
	_ = json.NewEncoder(w).Encode(c.totals) // what fails is the connection
}

// watch notes when the file changes, more often than calls are made.
func (c *consumer) watch(every time.Duration) {
	var last string
	for range time.Tick(every) {
		token, err := os.ReadFile(filepath.Join(c.dir, "access_token"))
		if err != nil || string(token) == last {
			continue
		}
		last = string(token)
		c.mu.Lock()
		c.totals.Seen = append(c.totals.Seen, totals.Sighting{Token: fingerprint(token), At: time.Now()})
		c.mu.Unlock()
	}
}

func fingerprint(token []byte) string {
	sum := sha256.Sum256(token)
	return hex.EncodeToString(sum[:8])
}

var errDead, errWrong = errors.New("the token is dead"), errors.New("the token acts for another business unit")

// call makes the cheapest call that tells whom a token acts for.
func (c *consumer) call() error {
	token, err := os.ReadFile(filepath.Join(c.dir, "access_token"))
	if err != nil {
		return err
	}
	url, err := os.ReadFile(filepath.Join(c.dir, "rest_instance_url"))
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, string(url)+"platform/v1/tokenContext", nil)
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+string(token))
	response, err := c.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return err
	case response.StatusCode == http.StatusUnauthorized:
		return errDead
	case response.StatusCode != http.StatusOK:
		return errors.New(response.Status)
	}
	var answer struct {
		Organization struct {
			ID int64 `json:"id"`
		} `json:"organization"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return err
	}
	if strconv.FormatInt(answer.Organization.ID, 10) != c.account {
		return errWrong
	}
	return nil
}

func (c *consumer) count(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.totals.Calls++
	switch {
	case err == nil:
		return
	case errors.Is(err, errDead):
		c.totals.Dead++
	case errors.Is(err, errWrong):
		c.totals.Wrong++
	default:
		c.totals.Failed++
	}
	c.totals.LastError = err.Error()
	fmt.Fprintln(os.Stderr, time.Now().Format(time.RFC3339Nano), err)
}
