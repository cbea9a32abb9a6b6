package sfmc

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode"
)

// Error is a token request that brought no token. Its text is for people and is safe to show: it has the status
// code, the OAuth error and a cut description, and never a token, a client secret or a whole body.
type Error struct {
	Kind Kind
	// StatusCode is the HTTP status, 0 if there was no answer.
	StatusCode int
	// Code is the OAuth error (invalid_client) or Marketing Cloud's errorcode (50200); empty if neither was read.
	Code string
	// Description says what is wrong, in Salesforce's words where it gave any.
	Description string
	// RetryAfter is how long the answer asks a throttled client to pause, 20 minutes at most; 0 if it does not say.
	RetryAfter time.Duration
}

// Kind says who can mend a failed request.
type Kind string

const (
	// Refused needs a person: wrong or expired secret, business unit not enabled, legacy package, bad request.
	Refused Kind = "refused"
	// Throttled passes with time, if this client sends nothing meanwhile.
	Throttled Kind = "throttled"
	// Unavailable passes with time: network, timeout, 5xx.
	Unavailable Kind = "unavailable"
	// Unreadable is an answer that is no token response; it is expected to pass with time.
	Unreadable Kind = "unreadable"
)

func (e *Error) Error() string {
	text := map[Kind]string{
		Refused:     "Marketing Cloud refused the token request",
		Throttled:   "Marketing Cloud throttles this client",
		Unavailable: "Marketing Cloud's token endpoint is unavailable",
		Unreadable:  "the token endpoint's answer is unreadable",
	}[e.Kind]
	if e.StatusCode != 0 {
		text += fmt.Sprintf(": status %d", e.StatusCode)
	}
	if e.Code != "" {
		text += ", " + e.Code
	}
	if e.Description != "" {
		text += ": " + e.Description
	}
	return text
}

// IsInvalidClient reports whether a token request was refused because of the client's id or secret.
func (e *Error) IsInvalidClient() bool { return e.Kind == Refused && e.Code == "invalid_client" }

const maxDescription = 256

// whyForbidden is what may be wrong where the client is good. Salesforce's words for a denied address aren't known.
const whyForbidden = "; is the business unit enabled for the package, and is the operator's address on its login IP " +
	"allow-list?"

// refusal reads both shapes in which Marketing Cloud says no: OAuth's (error, error_description) and its own
// (errorcode, message). What a proxy says in HTML is left out, the status code speaks for it.
func refusal(status int, retryAfter time.Duration, body []byte, request TokenRequest) *Error {
	var answer struct {
		Error            string          `json:"error"`
		ErrorDescription string          `json:"error_description"`
		Message          string          `json:"message"`
		ErrorCode        json.RawMessage `json:"errorcode"`
	}
	failed := &Error{StatusCode: status}
	// A body that is no JSON, or has other types, leaves the fields empty or partly read: the status decides.
	if err := json.Unmarshal(body, &answer); err != nil && answer.Error == "" && answer.Message == "" {
		failed.Description = "the answer was not Marketing Cloud's JSON (a proxy or gateway in between?)"
	}
	switch {
	case answer.Error != "":
		failed.Code = request.redact(answer.Error, 64)
		failed.Description = request.redact(answer.ErrorDescription, maxDescription)
	case answer.Message != "":
		failed.Description = request.redact(answer.Message, maxDescription)
		if code := string(answer.ErrorCode); code != "" && code != "0" && code != "null" {
			failed.Code = "errorcode " + request.redact(strings.Trim(code, `"`), 16)
		}
	}
	// Gateways answer 503 with Retry-After, too: only Marketing Cloud's own tells a client to pause.
	own := answer.Message != "" && len(answer.ErrorCode) > 0 && string(answer.ErrorCode) != "null"
	switch {
	case status == 429, status == 503 && retryAfter > 0 && own:
		failed.Kind = Throttled
		failed.RetryAfter = retryAfter
	case status >= 500, status == 408:
		failed.Kind = Unavailable
	case status >= 400, status == 200 && answer.Error != "":
		failed.Kind = Refused
		isForbidden := status == 401 || status == 403
		if isForbidden && failed.Code != "invalid_client" && (answer.Error != "" || answer.Message != "") {
			failed.Description = strings.TrimRight(failed.Description, ".") + whyForbidden
		}
	case status >= 300:
		failed.Kind = Unreadable
		failed.Description = "a redirect, which is not followed: " +
			"the client secret goes to the authentication host alone"
	default:
		failed.Kind = Unreadable
		failed.Description = "a token response has status 200"
	}
	return failed
}

// redact makes an endpoint's words safe to show: on one line, cut, and without this client's secret and id.
func (r TokenRequest) redact(text string, limit int) string {
	for _, secret := range []string{r.ClientSecret, r.ClientID} {
		if secret == "" {
			continue
		}
		for _, form := range []string{secret, url.QueryEscape(secret), url.PathEscape(secret)} {
			text = strings.ReplaceAll(text, form, "[redacted]")
		}
	}
	words := strings.FieldsFunc(text, func(c rune) bool { return unicode.IsSpace(c) || !unicode.IsPrint(c) })
	for i, word := range words {
		// No word of a description is this long; an echoed token is.
		if len(word) > 100 {
			words[i] = "[redacted]"
		}
	}
	text = strings.ToValidUTF8(strings.Join(words, " "), "")
	if runes := []rune(text); len(runes) > limit {
		text = string(runes[:limit]) + "…"
	}
	return text
}
