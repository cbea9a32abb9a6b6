package sfmc

import (
	"encoding/json"
	"errors"
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
	// RetryAfter is how long to pause as the answer asks; 0 if it does not say.
	RetryAfter time.Duration
}

// Kind says who can mend a failed request.
type Kind int

const (
	// Refused needs a person: wrong or expired secret, business unit not enabled, legacy package, bad request.
	Refused Kind = iota + 1
	// Throttled passes with time, if this client sends nothing meanwhile.
	Throttled
	// Unavailable passes with time: network, timeout, 5xx.
	Unavailable
	// Unreadable is an answer that is no token response; it is expected to pass with time.
	Unreadable
)

func (e *Error) Error() string {
	var text strings.Builder
	text.WriteString(map[Kind]string{
		Refused:     "Marketing Cloud refused the token request",
		Throttled:   "Marketing Cloud throttles this client",
		Unavailable: "Marketing Cloud's token endpoint is unavailable",
		Unreadable:  "the token endpoint's answer is unreadable",
	}[e.Kind])
	if e.StatusCode != 0 {
		fmt.Fprintf(&text, ": status %d", e.StatusCode)
	}
	if e.Code != "" {
		fmt.Fprintf(&text, ", %s", e.Code)
	}
	if e.Description != "" {
		fmt.Fprintf(&text, ": %s", e.Description)
	}
	return text.String()
}

// KindOf is the kind of a failed token request, or 0 if err is something else.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return 0
}

// IsInvalidClient tells whether a token request was refused because of the client's id or secret.
func IsInvalidClient(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == Refused && e.Code == "invalid_client"
}

// RetryAfter is how long a failed token request's answer asks to pause; 0 if it does not say.
func RetryAfter(err error) time.Duration {
	var e *Error
	if errors.As(err, &e) {
		return e.RetryAfter
	}
	return 0
}

const maxDescription = 256

// refusal reads both shapes in which Marketing Cloud says no: OAuth's (error, error_description) and its own
// (errorcode, message). What a proxy says in HTML is left out, the status code speaks for it.
func refusal(status int, retryAfter time.Duration, body []byte, request TokenRequest) *Error {
	var answer struct {
		Error            string          `json:"error"`
		ErrorDescription string          `json:"error_description"`
		Message          string          `json:"message"`
		ErrorCode        json.RawMessage `json:"errorcode"`
	}
	failed := &Error{StatusCode: status, RetryAfter: retryAfter}
	// A body that is no JSON, or has other types, leaves the fields empty or partly read: the status decides.
	if err := json.Unmarshal(body, &answer); err != nil && answer.Error == "" && answer.Message == "" {
		failed.Description = "the answer was not Marketing Cloud's JSON (a proxy or gateway in between?)"
	}
	switch {
	case answer.Error != "":
		failed.Code, failed.Description = request.redact(answer.Error, 64), request.redact(answer.ErrorDescription, maxDescription)
	case answer.Message != "":
		failed.Description = request.redact(answer.Message, maxDescription)
		if code := string(answer.ErrorCode); code != "" && code != "0" && code != "null" {
			failed.Code = "errorcode " + request.redact(strings.Trim(code, `"`), 16)
		}
	}
	switch {
	case status == 429, status == 503 && retryAfter > 0:
		failed.Kind = Throttled
	case status >= 500, status == 408:
		failed.Kind = Unavailable
	case status >= 400:
		failed.Kind = Refused
	case status >= 300:
		failed.Kind = Unreadable
		failed.Description = "a redirect, which is not followed: the client secret goes to the authentication host alone"
	default:
		failed.Kind = Unreadable
		failed.Description = "a token response has status 200"
	}
	return failed
}

// redact makes an endpoint's words safe to show: without this client's secret and id, should the endpoint echo
// them, on one line, and cut.
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
