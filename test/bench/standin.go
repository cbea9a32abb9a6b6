package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmctest"
)

const standInProgram = "sfmc-standin"

// firstAccount is the business unit of the first SFMCToken.
const firstAccount = 510000001

// longLife is what Marketing Cloud reports in every answer.
const longLife = 1079 * time.Second

// standIn is Marketing Cloud, in a process of its own: what it costs is nobody's CPU time.
type standIn struct {
	*child
	url    string
	caFile string
	http   *http.Client
}

// installedPackage is a package that serves as many business units as there are SFMCTokens.
func (b *bench) installedPackage() sfmctest.Package {
	pkg := sfmctest.Package{
		ClientID:     "client-id-of-the-package",
		ClientSecret: "client-secret-of-the-package",
		AccountID:    accountID(0),
		Scopes:       []string{"email_read", "email_send", "journeys_read", "data_extensions_write"},
	}
	for i := range b.restartTokens {
		pkg.AccountIDs = append(pkg.AccountIDs, accountID(i))
	}
	return pkg
}

func accountID(i int) string { return strconv.Itoa(firstAccount + i) }

func (b *bench) startStandIn(ctx context.Context) (*standIn, error) {
	s := &standIn{caFile: b.file("standin-ca.pem")}
	pkg, err := json.Marshal(b.installedPackage())
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(b.file("package.json"), pkg, 0o600); err != nil {
		return nil, err
	}
	if s.child, err = startChild(standInProgram, b.file(standInProgram), b.file("standin.log"), nil,
		[]string{"--quiet", "--ca-out=" + s.caFile, "--package=" + b.file("package.json")}); err != nil {
		return nil, err
	}
	if s.url, err = s.readLine(ctx); err != nil {
		return s, err
	}
	s.http, err = newHTTPClient(s.caFile)
	return s, err
}

// newHTTPClient makes a client that trusts the stand-in, and speaks HTTP/2 as the operator's does.
func newHTTPClient(caFile string) (*http.Client, error) {
	ca, err := os.ReadFile(caFile) //nolint:gosec // written here
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	return &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true,
	}}, nil
}

// host is the stand-in's address.
func (s *standIn) host() string { return strings.Trim(strings.TrimPrefix(s.url, "https://"), "/") }

// setLife changes expires_in for requests from now on.
func (s *standIn) setLife(ctx context.Context, life time.Duration) error {
	return s.control(ctx, http.MethodPatch, "mode", map[string]string{"expiresIn": life.String()}, nil)
}

// forgetRequests sets the counters to zero.
func (s *standIn) forgetRequests(ctx context.Context) error {
	return s.control(ctx, http.MethodDelete, "requests", nil, nil)
}

// countRequests is how many token requests arrived since forgetRequests, and for how many identities.
func (s *standIn) countRequests(ctx context.Context) (requests, identities int, err error) {
	var counts struct {
		Requests   int
		Identities []json.RawMessage
	}
	err = s.control(ctx, http.MethodGet, "counts", nil, &counts)
	return counts.Requests, len(counts.Identities), err
}

// firstRequest is when the first of them arrived. The stand-in remembers the latest 10,000.
func (s *standIn) firstRequest(ctx context.Context) (time.Time, error) {
	var requests []struct{ Time time.Time }
	if err := s.control(ctx, http.MethodGet, "requests", nil, &requests); err != nil || len(requests) == 0 {
		return time.Time{}, err
	}
	return requests[0].Time, nil
}

func (s *standIn) control(ctx context.Context, method, path string, body, answer any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, s.url+"_control/"+path, bytes.NewReader(encoded))
	if err != nil {
		return err
	}
	response, err := s.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("%s %s of the stand-in: %s", method, path, response.Status)
	}
	if answer == nil {
		return nil
	}
	return json.NewDecoder(response.Body).Decode(answer)
}
