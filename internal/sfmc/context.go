package sfmc

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
)

// TokenContext is for whom a token acts.
type TokenContext struct {
	// EnterpriseID is the account at the top, OrganizationID the business unit, UserID the package's API user. Empty if
	// the answer lacks it.
	EnterpriseID, OrganizationID, UserID string
}

// ErrTokenNotAccepted says that Marketing Cloud knows no such token, or not any more.
var ErrTokenNotAccepted = errors.New("the token is not accepted: status 401")

// RequestTokenContext asks a REST host for whom a token acts. The host must be one that ParseRESTInstanceURL returns.
// The errors have neither the token nor what the answer says.
func (c *Client) RequestTokenContext(ctx context.Context, host, accessToken string) (TokenContext, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	ctx, cancelConnecting := withConnectLimit(ctx)
	defer cancelConnecting()
	get, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/platform/v1/tokenContext", nil)
	if err != nil || !oneWord(accessToken) {
		return TokenContext{}, errors.New("the request can't be built from the Secret")
	}
	get.Header.Set("Authorization", "Bearer "+accessToken)
	get.Header.Set("Accept", "application/json")
	get.Header.Set("User-Agent", userAgent)
	transport := c.connections.of(host)
	// No redirect is followed: it would take the token to another host.
	response, err := transport.RoundTrip(get)
	if err != nil {
		leave(transport)
		return TokenContext{}, noAnswer(ctx, host, accessToken, err)
	}
	defer response.Body.Close()
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized:
		return TokenContext{}, ErrTokenNotAccepted
	default:
		return TokenContext{}, fmt.Errorf("%s answered with status %d", host, response.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		leave(transport)
		return TokenContext{}, noAnswer(ctx, host, accessToken, err)
	case len(body) > maxAnswer:
		return TokenContext{}, fmt.Errorf("the answer of %s is longer than 64 KiB", host)
	}
	return parseTokenContext(body)
}

// noAnswer says why no answer came, and the remedy where the cause is known.
func noAnswer(ctx context.Context, host, accessToken string, err error) error {
	var unknownAuthority x509.UnknownAuthorityError
	switch {
	case errors.Is(err, errNotConnected), errors.Is(context.Cause(ctx), errNotConnected):
		return fmt.Errorf("could not connect to %s within %s", host, connectTimeout)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("no complete answer from %s in time", host)
	case errors.As(err, &unknownAuthority):
		return fmt.Errorf("%s: certificate signed by unknown authority: if a proxy or gateway inspects TLS, give its "+
			"root certificate with --ca-file", host)
	}
	redacted := TokenRequest{ClientSecret: accessToken}.redact(err.Error(), maxDescription)
	return fmt.Errorf("no answer from %s: %s", host, redacted)
}

// numericID is an account's or a user's; an endpoint's words go no further than that.
var numericID = regexp.MustCompile(`^[0-9]{1,20}$`)

func parseTokenContext(body []byte) (TokenContext, error) {
	type holder struct {
		ID json.RawMessage `json:"id"`
	}
	var answer struct{ Enterprise, Organization, User holder }
	unreadable := errors.New("the answer isn't Marketing Cloud's (a proxy or gateway in between?)")
	if err := json.Unmarshal(body, &answer); err != nil {
		return TokenContext{}, unreadable
	}
	found := TokenContext{}
	for id, from := range map[*string]holder{
		&found.EnterpriseID: answer.Enterprise, &found.OrganizationID: answer.Organization, &found.UserID: answer.User,
	} {
		text := strings.Trim(string(from.ID), `"`)
		if text != "" && text != "null" && !numericID.MatchString(text) {
			return TokenContext{}, unreadable
		}
		*id = strings.TrimPrefix(text, "null")
	}
	if found.OrganizationID == "" {
		return TokenContext{}, unreadable
	}
	return found, nil
}
