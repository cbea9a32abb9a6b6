package token

import (
	"slices"
	"strings"
	"time"

	"github.com/sfmctoken/sfmctoken-operator/internal/sfmc"
)

// Key is one key of the target Secret. Every key is sealed, proved, reserved and a field of templates.
type Key struct {
	Name  string
	Field string // in templates
	// ListField is the name of a second field, with the words of the value as a list; empty for none.
	ListField string
	// Changes is true if each token has another value.
	Changes bool
	// EvenEmpty is true if the key is there although its value is empty.
	EvenEmpty bool
	// Answer is where a token has the value, if it came with Marketing Cloud's answer. It is proved as it is.
	Answer func(*Token) *string
	// Derived is the value, if it follows from what the token was issued for and when. That is proved.
	Derived func(*Token) string
}

// Keys are all keys that the operator writes of a token. Their order is part of the proof: new ones go to the end.
var Keys = []Key{
	{Name: "access_token", Field: "AccessToken", Changes: true,
		Answer: func(t *Token) *string { return &t.AccessToken }},
	{Name: "token_type", Field: "TokenType", Answer: func(t *Token) *string { return &t.TokenType }},
	{Name: "scope", Field: "Scope", ListField: "Scopes", EvenEmpty: true,
		Answer: func(t *Token) *string { return &t.GrantedScopes }},
	{Name: "rest_instance_url", Field: "RESTInstanceURL", Answer: func(t *Token) *string { return &t.RESTInstanceURL }},
	{Name: "soap_instance_url", Field: "SOAPInstanceURL", Answer: func(t *Token) *string { return &t.SOAPInstanceURL }},
	{Name: "expires_at", Field: "ExpiresAt", Changes: true,
		Derived: func(t *Token) string { return t.ExpiresAt.UTC().Format(time.RFC3339) }},
	{Name: "account_id", Field: "AccountID", Derived: func(t *Token) string { return t.AccountID }},
}

func (k Key) value(t *Token) string {
	if k.Answer != nil {
		return *k.Answer(t)
	}
	return k.Derived(t)
}

// Data returns what the target Secret has of a token; nothing for no token.
func (t *Token) Data() map[string][]byte {
	data := map[string][]byte{}
	if t == nil {
		return data
	}
	for _, key := range Keys {
		if value := key.value(t); value != "" || key.EvenEmpty {
			data[key.Name] = []byte(value)
		}
	}
	return data
}

// ReadData takes over what Marketing Cloud answered from the data of a target Secret. It reports whether the other keys
// have the values that follow from the token.
func (t *Token) ReadData(data map[string][]byte) bool {
	for _, key := range Keys {
		if key.Answer != nil {
			*key.Answer(t) = string(data[key.Name])
		}
	}
	return !slices.ContainsFunc(Keys, func(key Key) bool {
		value, found := data[key.Name] // a version that didn't know the key has written none
		return found && key.value(t) != string(value)
	})
}

// Fields returns what a template can name of a token: texts and lists.
func (t *Token) Fields() map[string]any {
	fields := map[string]any{}
	for _, key := range Keys {
		fields[key.Field] = key.value(t)
		if key.ListField != "" {
			fields[key.ListField] = strings.Fields(key.value(t))
		}
	}
	return fields
}

// Specimen is a token about as large as a real one, to try templates on before one is asked for.
var Specimen = &Token{
	Token: sfmc.Token{
		AccessToken:     strings.Repeat("x", 2<<10),
		TokenType:       "Bearer",
		GrantedScopes:   strings.TrimSpace(strings.Repeat("data_extensions_write ", 100)),
		RESTInstanceURL: "https://mc-xxxxxxxxxxxxxxxxxxxxxxxxxx.rest.marketingcloudapis.com/",
		SOAPInstanceURL: "https://mc-xxxxxxxxxxxxxxxxxxxxxxxxxx.soap.marketingcloudapis.com/",
	},
	IssuedFor: IssuedFor{AccountID: "510000000"},
	ExpiresAt: time.Date(2006, 1, 2, 15, 4, 5, 0, time.UTC),
}
