package sfmctest

import (
	"encoding/json"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
)

// tokenRequest is what a client sent, as far as it could be read.
type tokenRequest struct {
	grantType, clientID, clientSecret string
	accountID, accountIDType          string
	scope                             string
	scopeSent                         bool
	contentType                       string
	brokenOff                         bool
}

const (
	formType      = "application/x-www-form-urlencoded"
	requestLimit  = 64 << 10
	accountAbsent = "absent"
)

// readTokenRequest reads a request's body. Even when it refuses, it returns
// what it could read, so that the record names the client.
func readTokenRequest(r *http.Request) (*tokenRequest, Refusal) {
	read := &tokenRequest{contentType: r.Header.Get("Content-Type"), accountIDType: accountAbsent}
	// Read to the end even if it is refused: net/http notices that a client went
	// away only when nothing of its request is left to read.
	body, err := io.ReadAll(io.LimitReader(r.Body, requestLimit+1))
	read.brokenOff = err != nil
	if read.brokenOff || len(body) > requestLimit {
		return read, InvalidRequest
	}
	if r.Method != http.MethodPost {
		return read, methodNotAllowed
	}
	mediaType, _, err := mime.ParseMediaType(read.contentType)
	switch {
	case err == nil && mediaType == "application/json":
		return read, read.fromJSON(body)
	case err == nil && mediaType == formType:
		return read, read.fromForm(body)
	}
	return read, unsupportedMediaType
}

// fromJSON is strict about types: a number as client_id answers 400 (seen live).
func (t *tokenRequest) fromJSON(body []byte) Refusal {
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil || fields == nil {
		return InvalidRequest
	}
	ok := true
	for name, into := range map[string]*string{
		"grant_type": &t.grantType, "client_id": &t.clientID, "client_secret": &t.clientSecret, "scope": &t.scope,
	} {
		raw, sent := fields[name]
		if !sent {
			continue
		}
		if raw[0] != '"' || json.Unmarshal(raw, into) != nil {
			ok = false
			continue
		}
		if name == "scope" {
			t.scopeSent = true
		}
	}
	if raw, sent := fields["account_id"]; sent {
		t.accountIDType = jsonType(raw)
		switch t.accountIDType {
		case "string":
			ok = json.Unmarshal(raw, &t.accountID) == nil && isDigits(t.accountID) && ok
		case "number":
			t.accountID = string(raw)
			ok = isDigits(t.accountID) && ok
		default:
			ok = false
		}
	}
	if !ok {
		return InvalidRequest
	}
	return t.missing()
}

// fromForm reads the encoding of RFC 6749. JSON is the documented one, but forms
// are seen to work.
func (t *tokenRequest) fromForm(body []byte) Refusal {
	form, err := url.ParseQuery(string(body))
	if err != nil {
		return InvalidRequest
	}
	t.grantType, t.clientID, t.clientSecret = form.Get("grant_type"), form.Get("client_id"), form.Get("client_secret")
	t.scope, t.scopeSent = form.Get("scope"), form.Has("scope")
	if form.Has("account_id") {
		t.accountID, t.accountIDType = form.Get("account_id"), "form"
		if !isDigits(t.accountID) {
			return InvalidRequest
		}
	}
	return t.missing()
}

// missing refuses what lacks a required field.
func (t *tokenRequest) missing() Refusal {
	if t.grantType != "client_credentials" {
		return UnsupportedGrantType
	}
	if t.clientID == "" || t.clientSecret == "" {
		return InvalidRequest
	}
	return ""
}

// jsonType names the JSON type of a valid raw value.
func jsonType(raw json.RawMessage) string {
	switch raw[0] {
	case '"':
		return "string"
	case '{':
		return "object"
	case '[':
		return "array"
	case 't', 'f':
		return "boolean"
	case 'n':
		return "null"
	}
	return "number"
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
