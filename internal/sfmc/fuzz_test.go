package sfmc

import (
	"errors"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

// parseTokenProblems are all texts that an unreadable answer can cause: nothing of the answer is in them.
var parseTokenProblems = regexp.MustCompile(`^(` + strings.Join([]string{
	`it is not the JSON object of a token response`,
	`it has no access_token`,
	`access_token or token_type has characters that can't stand in a header`,
	`expires_in is not a number of seconds`,
	`expires_in is not between one second and 24 hours`,
	`(rest|soap)_instance_url is not an https URL`,
	`(access_token|token_type|expires_in|scope|rest_instance_url|soap_instance_url) has the wrong type`,
}, "|") + `)$`)

func FuzzParseToken(f *testing.F) {
	for _, body := range []string{
		`{"access_token":"eyJhbGciOiJIUzI1NiJ9.eyJhIjoxfQ.c2ln.cGFk","token_type":"Bearer","expires_in":1079,` +
			`"scope":"email_read email_send",` +
			`"soap_instance_url":"https://mc563885gzs27c5t9-63k636ttgm.soap.marketingcloudapis.com/",` +
			`"rest_instance_url":"https://mc563885gzs27c5t9-63k636ttgm.rest.marketingcloudapis.com/"}`,
		`{"access_token":"a","expires_in":"1079",` +
			`"rest_instance_url":"mc563885gzs27c5t9-63k636ttgm.rest.marketingcloudapis.com"}`,
		`{"access_token":"a","expires_in":-1}`,
		`{"access_token":"a","expires_in":1e300}`,
		`{"access_token":"a","expires_in":"NaN"}`,
		`{"access_token":"a","rest_instance_url":"https://host?"}`,
		`{"access_token":"a","soap_instance_url":"https://host#"}`,
		`{"access_token":"a b"}`,
		`{"access_token":1}`,
		`{"error":"invalid_client","error_description":"Client authentication failed. Make sure that ` +
			`the client ID and client secret are valid and that the package is installed and enabled.",` +
			`"error_uri":"https://developer.salesforce.com/docs"}`,
		`{"message":"Rate limit exceeded","errorcode":50100,"retryAfter":5,` +
			`"documentation":"https://developer.salesforce.com/docs"}`,
		"<!DOCTYPE html>\n<html></html>",
		``, `null`, `[]`, `{`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		token, err := parseToken(body)
		if err != nil {
			if !parseTokenProblems.MatchString(err.Error()) {
				t.Fatalf("an error that may quote the answer: %q", err)
			}
			if token != (Token{}) {
				t.Fatalf("a token beside an error: %+v", token)
			}
			return
		}
		if token.ExpiresIn < time.Second || token.ExpiresIn > 24*time.Hour || token.ExpiresIn%time.Second != 0 {
			t.Fatalf("a life of %s", token.ExpiresIn)
		}
		words := token.AccessToken + token.TokenType
		isOneWord := len(strings.Fields(words)) == 1 && !strings.ContainsAny(words, "\r\n\x00")
		if token.AccessToken == "" || token.TokenType == "" || !isOneWord {
			t.Fatalf("not one word each: %q %q", token.TokenType, token.AccessToken)
		}
		if token.GrantedScopes != strings.Join(strings.Fields(token.GrantedScopes), " ") {
			t.Fatalf("scopes not separated by single spaces: %q", token.GrantedScopes)
		}
		for _, instance := range []string{token.RESTInstanceURL, token.SOAPInstanceURL} {
			if instance == "" {
				continue
			}
			parsed, err := url.Parse(instance + "platform/v1/tokenContext")
			switch {
			case err != nil:
				t.Fatalf("%q: %v", instance, err)
			case !strings.HasSuffix(instance, "/"), !strings.HasSuffix(parsed.Path, "/platform/v1/tokenContext"):
				t.Fatalf("no path can be appended to %q", instance)
			case parsed.Scheme != "https", parsed.Hostname() == "", parsed.User != nil:
				t.Fatalf("%q is not an https URL of a host", instance)
			}
		}
	})
}

func FuzzParseAuthBaseURI(f *testing.F) {
	var texts strings.Builder
	for uri := range mistyped {
		f.Add(uri)
		if _, err := ParseAuthBaseURI(uri, nil); err != nil {
			texts.WriteString(err.Error() + "\n")
		}
	}
	f.Add("https://" + goodHost + "/")
	f.Add("https://gateway.example:8443")
	allowed := []string{"gateway.example:8443"}
	f.Fuzz(func(t *testing.T, uri string) {
		host, err := ParseAuthBaseURI(uri, allowed)
		if err != nil {
			var refused *HostNotAllowedError
			if !errors.As(err, &refused) || host != "" {
				t.Fatalf("%q, %v", host, err)
			}
			if !strings.Contains(texts.String(), err.Error()+"\n") {
				t.Fatalf("a text that was never seen, and may quote %q: %s", uri, err)
			}
			return
		}
		if host != allowed[0] && !tenantAuthHost.MatchString(host) {
			t.Fatalf("%q was accepted as %q", uri, host)
		}
		// The secret goes where the accepted value says, and nowhere else.
		parsed, err := url.Parse("https://" + host + "/v2/token")
		if err != nil || parsed.Host != host || parsed.Path != "/v2/token" {
			t.Fatalf("%q leads to %v, %v", host, parsed, err)
		}
	})
}
