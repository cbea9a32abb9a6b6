package controller

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"text/template"
	"time"
)

const (
	// maxTemplateBytes bounds the text that the templates of one Secret make in all, on the way or as values.
	maxTemplateBytes = 256 << 10
	// maxTemplateSteps bounds what they do in all: texts, fields, calls, and those in a range for each scope.
	maxTemplateSteps = 50_000
)

// templateFields are what a template can name. They have no methods and lead nowhere.
type templateFields struct {
	AccessToken, TokenType, ExpiresAt, AccountID, Scope string
	Scopes                                              []string
	RESTInstanceURL, SOAPInstanceURL                    string
}

// fieldsOf is what templates are told of a token: the same values as the Secret's own keys have.
func fieldsOf(token *issued) templateFields {
	return templateFields{
		AccessToken:     token.AccessToken,
		TokenType:       token.TokenType,
		ExpiresAt:       token.ExpiresAt.UTC().Format(time.RFC3339),
		AccountID:       token.AccountID,
		Scope:           token.Scope,
		Scopes:          strings.Fields(token.Scope),
		RESTInstanceURL: token.RESTInstanceURL,
		SOAPInstanceURL: token.SOAPInstanceURL,
	}
}

// specimen is about as large as a token is, to try templates on before one is asked for.
var specimen = templateFields{
	AccessToken: strings.Repeat("x", 2<<10),
	TokenType:   "Bearer",
	ExpiresAt:   "2006-01-02T15:04:05Z",
	AccountID:   "510000000",
	Scope:       strings.TrimSpace(strings.Repeat("data_extensions_write ", 100)),
	Scopes:      slices.Repeat([]string{"data_extensions_write"}, 100),

	RESTInstanceURL: "https://mc-xxxxxxxxxxxxxxxxxxxxxxxxxx.rest.marketingcloudapis.com/",
	SOAPInstanceURL: "https://mc-xxxxxxxxxxxxxxxxxxxxxxxxxx.soap.marketingcloudapis.com/",
}

// templateInvalidError means that a template can't be rendered. Its text is about the template alone: text/template's
// own errors can quote the values that a template works on.
type templateInvalidError struct {
	key    string
	line   int // 0 if no line is to blame
	reason string
}

func (e *templateInvalidError) Error() string {
	where := "key " + e.key
	if e.line > 0 {
		where += fmt.Sprintf(", line %d", e.line)
	}
	return fmt.Sprintf("spec.target.template.data, %s: %s", where, e.reason)
}

// errTooMuch ends templates that make too much text.
var errTooMuch = errors.New("too much text")

// renderTemplates makes a value from each template. What it takes in time and memory is bounded by what the checked
// templates can do at all, so it needs no deadline.
func renderTemplates[T ~string](templates map[string]T, of templateFields) (map[string][]byte, error) {
	if len(templates) == 0 {
		return nil, nil
	}
	left := allowance{bytes: maxTemplateBytes, steps: maxTemplateSteps}
	set := template.New("").Funcs(left.functions())
	data := make(map[string][]byte, len(templates))
	for _, key := range slices.Sorted(maps.Keys(templates)) {
		tree, err := parseTemplate(key, string(templates[key]), len(of.Scopes), &left)
		if err != nil {
			return nil, err
		}
		parsed, err := set.AddParseTree(key, tree)
		if err != nil {
			return nil, &templateInvalidError{key: key, reason: "it can't be used"}
		}
		value := limited{left: &left}
		switch err := parsed.Execute(&value, of); {
		case errors.Is(err, errTooMuch):
			return nil, &templateInvalidError{key: key, reason: fmt.Sprintf("the templates make more than %d KiB of text in all; make them shorter", maxTemplateBytes>>10)}
		case err != nil:
			return nil, &templateInvalidError{key: key, reason: "it can't be rendered"}
		}
		data[key] = value.text.Bytes()
	}
	return data, nil
}

// allowance is what the templates of one Secret may still do.
type allowance struct{ bytes, steps int }

// spend takes the lengths of these texts off the allowance.
func (a *allowance) spend(texts ...string) error {
	for _, text := range texts {
		if a.bytes -= len(text); a.bytes < 0 {
			return errTooMuch
		}
	}
	return nil
}

// limited is a value that is being made.
type limited struct {
	text bytes.Buffer
	left *allowance
}

func (l *limited) Write(text []byte) (int, error) {
	if l.left.bytes -= len(text); l.left.bytes < 0 {
		return 0, errTooMuch
	}
	return l.text.Write(text)
}

// functions are those that templates can call beside and, or, not, eq and ne; signatures says what they take. Each is
// pure and spends what it is given. What it makes is spent where it is used, and is not much longer, or is measured
// before it is made.
func (a *allowance) functions() template.FuncMap {
	return template.FuncMap{
		"b64enc": func(text string) (string, error) {
			return base64.StdEncoding.EncodeToString([]byte(text)), a.spend(text)
		},
		"join": func(separator string, list []string) (string, error) {
			if a.bytes -= len(list) * len(separator); a.bytes < 0 {
				return "", errTooMuch
			}
			return strings.Join(list, separator), a.spend(list...)
		},
		"lower": func(text string) (string, error) { return strings.ToLower(text), a.spend(text) },
		"print": func(texts ...string) (string, error) {
			if err := a.spend(texts...); err != nil {
				return "", err
			}
			return strings.Join(texts, ""), nil
		},
		"replace": func(old, with, text string) (string, error) {
			if a.bytes -= strings.Count(text, old) * len(with); a.bytes < 0 {
				return "", errTooMuch
			}
			return strings.ReplaceAll(text, old, with), a.spend(text)
		},
		"toJson": func(value any) (string, error) {
			encoded, err := json.Marshal(value)
			if err != nil {
				return "", err
			}
			return string(encoded), a.spend(string(encoded))
		},
		"trimPrefix": func(prefix, text string) (string, error) { return strings.TrimPrefix(text, prefix), a.spend(text) },
		"trimSuffix": func(suffix, text string) (string, error) { return strings.TrimSuffix(text, suffix), a.spend(text) },
		"upper":      func(text string) (string, error) { return strings.ToUpper(text), a.spend(text) },
		"urlquery":   func(text string) (string, error) { return url.QueryEscape(text), a.spend(text) },
	}
}
