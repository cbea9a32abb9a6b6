// Package sfmc asks Salesforce Marketing Cloud for access tokens. It knows nothing of Kubernetes.
package sfmc

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	_ "golang.org/x/crypto/x509roots/fallback" // the image has no files but the binary
	"k8s.io/utils/clock"

	"github.com/sfmctoken/sfmctoken-operator/internal/version"
)

const (
	// requestTimeout bounds a token request from connecting to the last byte of the answer.
	requestTimeout = 30 * time.Second
	// maxAnswer is the size in bytes over which an answer is refused; a real one has about 3 KiB.
	maxAnswer = 64 << 10
	// defaultLife is the expires_in of every answer seen from Marketing Cloud: twenty minutes less the two that
	// Salesforce holds back on purpose. It stands in for an absent expires_in.
	defaultLife = 1079 * time.Second
	// maxLife is the longest believable expires_in.
	maxLife = 24 * time.Hour
	// maxPause is the longest Retry-After that is kept: about a token's life. A longer one is a mistake, and would
	// leave every token of the client to expire.
	maxPause = 20 * time.Minute
)

// TokenRequest is what a token is asked for; it is also what makes two tokens the same one.
type TokenRequest struct {
	// AuthHost is the tenant's authentication host, with a port if it has one.
	AuthHost string
	// ClientID and ClientSecret are those of a server-to-server package.
	ClientID, ClientSecret string
	// AccountID is the MID of the business unit; empty for the one in which the package was made.
	AccountID string
	// Scopes are the permissions to ask for; none for all that the package has.
	Scopes []string
}

// Token is Marketing Cloud's answer to a token request.
type Token struct {
	AccessToken string
	TokenType   string
	// GrantedScopes lists what Salesforce granted of the requested scopes, separated by spaces.
	GrantedScopes string
	// RESTInstanceURL and SOAPInstanceURL have a scheme and a trailing slash; empty if the answer lacks them.
	RESTInstanceURL, SOAPInstanceURL string
	// ExpiresIn is the token's life, counted from the moment the request was sent.
	ExpiresIn time.Duration
}

// Client sends token requests.
type Client struct {
	clock       clock.PassiveClock
	roots       *x509.CertPool
	proxy       func(*http.Request) (*url.URL, error)
	dial        func(ctx context.Context, network, address string) (net.Conn, error)
	connections connections
}

// NewClient returns a client that trusts the system's root certificates, or Mozilla's where the system has none, and
// those in extraRoots (PEM).
// It honours HTTPS_PROXY and NO_PROXY. The clock reads a Retry-After that is a date.
func NewClient(extraRoots []byte, clock clock.PassiveClock) (*Client, error) {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if len(extraRoots) > 0 && !roots.AppendCertsFromPEM(extraRoots) {
		return nil, errors.New("no certificate found in --ca-file: expected PEM blocks of type CERTIFICATE")
	}
	proxy, err := proxyFromEnvironment()
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: backgroundTimeout}
	client := &Client{clock: clock, roots: roots, proxy: proxy, dial: dialer.DialContext}
	client.connections = connections{
		clock: clock, transport: client.newTransport, hosts: map[string]*hostConnections{},
	}
	return client, nil
}

// CloseIdleConnections closes the connections that are kept for later requests.
func (c *Client) CloseIdleConnections() { c.connections.closeIdle() }

// RequestToken asks for a token with one POST.
func (c *Client) RequestToken(ctx context.Context, request TokenRequest) (Token, *Error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ctx, cancelConnecting := withConnectLimit(ctx)
	defer cancelConnecting()
	post, err := request.post(ctx)
	if err != nil {
		return Token{}, &Error{Kind: Refused, Description: "the request can't be built from the credentials"}
	}
	transport := c.connections.of(request.AuthHost)
	// No redirect is followed: it would take the client secret to another host.
	response, err := transport.RoundTrip(post)
	if err != nil {
		leave(transport)
		return Token{}, &Error{Kind: Unavailable, Description: request.networkProblem(err)}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		leave(transport)
	}
	status := response.StatusCode
	if status != http.StatusOK {
		return Token{}, refusal(status, retryAfter(response.Header, c.clock.Now()), body, request)
	}
	switch {
	case err != nil:
		brokeOff := "the answer broke off: " + request.networkProblem(err)
		return Token{}, &Error{Kind: Unavailable, StatusCode: status, Description: brokeOff}
	case len(body) > maxAnswer:
		return Token{}, &Error{Kind: Unreadable, StatusCode: status, Description: "it is longer than 64 KiB"}
	}
	token, err := parseToken(body)
	if err != nil {
		if failed := refusal(status, 0, body, request); failed.Kind == Refused {
			return Token{}, failed
		}
		return Token{}, &Error{Kind: Unreadable, StatusCode: status, Description: err.Error()}
	}
	return token, nil
}

// leave closes the idle connections to a host after a failure: they may have gone silent, too, and only HTTP/2 has
// pings to find out. It also ends the attempt to connect that the failed request has left behind.
func leave(transport *http.Transport) { transport.CloseIdleConnections() }

var userAgent = version.Get().UserAgent("sfmctoken-operator")

func (r TokenRequest) post(ctx context.Context) (*http.Request, error) {
	body := struct {
		GrantType    string      `json:"grant_type"`
		ClientID     string      `json:"client_id"`
		ClientSecret string      `json:"client_secret"`
		AccountID    json.Number `json:"account_id,omitempty"` // documented as a number
		Scope        string      `json:"scope,omitempty"`      // an empty one would ask for no permission at all
	}{"client_credentials", r.ClientID, r.ClientSecret, json.Number(r.AccountID), strings.Join(r.Scopes, " ")}
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	address := "https://" + r.AuthHost + "/v2/token"
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(encoded))
	if err != nil {
		return nil, err
	}
	post.Header.Set("Content-Type", "application/json")
	post.Header.Set("Accept", "application/json")
	post.Header.Set("User-Agent", userAgent)
	return post, nil
}

// networkProblem says why no answer came, and the remedy where the cause is known.
func (r TokenRequest) networkProblem(err error) string {
	var (
		unknownAuthority x509.UnknownAuthorityError
		operation        *net.OpError
		lookup           *net.DNSError
	)
	switch {
	case errors.Is(err, errNotConnected):
		return fmt.Sprintf("could not connect to %s within %s", r.AuthHost, connectTimeout)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("no complete answer from %s within %s", r.AuthHost, requestTimeout)
	case errors.As(err, &unknownAuthority):
		return fmt.Sprintf("%s: certificate signed by unknown authority: if a proxy or gateway inspects TLS, "+
			"give its root certificate to the operator with --ca-file", r.AuthHost)
	case errors.As(err, &operation) && operation.Op == "proxyconnect":
		return "no connection to the proxy that HTTPS_PROXY names: " + r.redact(operation.Err.Error(), maxDescription)
	case errors.As(err, &lookup) && lookup.IsNotFound:
		return fmt.Sprintf("%s: no such host: is auth_base_uri right?", r.AuthHost)
	}
	return r.redact(err.Error(), maxDescription)
}

// retryAfter reads the header in both forms, seconds and date; 0 if absent, unreadable or past.
func retryAfter(header http.Header, now time.Time) time.Duration {
	value := strings.TrimSpace(header.Get("Retry-After"))
	var wait time.Duration
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if errors.Is(err, strconv.ErrRange) {
		wait = maxPause
	} else if date, err := http.ParseTime(value); err == nil {
		wait = date.Sub(now)
	}
	return min(max(wait, 0), maxPause)
}

// parseToken reads the body of a 200 answer. Its errors quote nothing of the body.
func parseToken(body []byte) (Token, error) {
	var answer struct {
		AccessToken     string          `json:"access_token"`
		TokenType       string          `json:"token_type"`
		ExpiresIn       json.RawMessage `json:"expires_in"`
		Scope           string          `json:"scope"`
		RESTInstanceURL string          `json:"rest_instance_url"`
		SOAPInstanceURL string          `json:"soap_instance_url"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		var wrongType *json.UnmarshalTypeError
		if errors.As(err, &wrongType) && wrongType.Field != "" {
			return Token{}, fmt.Errorf("%s has the wrong type", wrongType.Field)
		}
		return Token{}, errors.New("it is not the JSON object of a token response")
	}
	if answer.AccessToken == "" {
		return Token{}, errors.New("it has no access_token")
	}
	if !oneWord(answer.AccessToken) || (answer.TokenType != "" && !oneWord(answer.TokenType)) {
		return Token{}, errors.New("access_token or token_type has characters that can't stand in a header")
	}
	token := Token{AccessToken: answer.AccessToken, TokenType: answer.TokenType}
	token.GrantedScopes = strings.Join(strings.Fields(answer.Scope), " ")
	if token.TokenType == "" {
		token.TokenType = "Bearer"
	}
	var err error
	if token.ExpiresIn, err = parseExpiresIn(answer.ExpiresIn); err != nil {
		return Token{}, err
	}
	if token.RESTInstanceURL, err = normalInstanceURL(answer.RESTInstanceURL); err != nil {
		return Token{}, fmt.Errorf("rest_instance_url %w", err)
	}
	if token.SOAPInstanceURL, err = normalInstanceURL(answer.SOAPInstanceURL); err != nil {
		return Token{}, fmt.Errorf("soap_instance_url %w", err)
	}
	return token, nil
}

// oneWord reports whether text is printable ASCII without spaces.
func oneWord(text string) bool {
	return !slices.ContainsFunc([]byte(text), func(c byte) bool { return c <= ' ' || c > '~' })
}

func parseExpiresIn(raw json.RawMessage) (time.Duration, error) {
	if len(raw) == 0 || string(raw) == "null" {
		return defaultLife, nil
	}
	seconds, err := strconv.ParseFloat(strings.Trim(string(raw), `"`), 64)
	if err != nil {
		return 0, errors.New("expires_in is not a number of seconds")
	}
	// Compared as a float, so that a huge number can't overflow into a believable one.
	if !(seconds >= 1 && seconds <= maxLife.Seconds()) {
		return 0, errors.New("expires_in is not between one second and 24 hours")
	}
	return time.Duration(seconds * float64(time.Second)).Truncate(time.Second), nil
}

// normalInstanceURL gives an instance URL a scheme and a trailing slash; the documentation's example has neither,
// live answers have both.
func normalInstanceURL(value string) (string, error) {
	if value == "" {
		return "", nil
	}
	if !strings.Contains(value, "://") {
		value = "https://" + value
	}
	parsed, err := url.Parse(value)
	if err != nil || parsed.Scheme != "https" || parsed.Hostname() == "" || parsed.User != nil ||
		strings.ContainsAny(value, "?#") || !oneWord(value) {
		return "", errors.New("is not an https URL")
	}
	if !strings.HasSuffix(value, "/") {
		value += "/"
	}
	return value, nil
}
