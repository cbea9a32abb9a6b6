package controller

import (
	"errors"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	. "github.com/onsi/gomega"
	"pgregory.net/rapid"
)

// aTokensFields are aToken's, with two scopes.
func aTokensFields() templateFields {
	token := aToken()
	token.Scope = "email_read journeys_read"
	return fieldsOf(token)
}

// rendered is the value of one template.
func rendered(text string, of templateFields) (string, error) {
	data, err := renderTemplates(map[string]string{"authorization": text}, of)
	return string(data["authorization"]), err
}

func TestATemplateMakesTextOfTheTokensFields(t *testing.T) {
	for text, want := range map[string]string{
		`Bearer {{ .AccessToken }}`:                     "Bearer four.part.token.text",
		`{{ .TokenType }} {{ .ExpiresAt }}`:             "Bearer 2026-03-01T12:17:59Z",
		`{{ .AccountID }}|{{ .Scope }}`:                 "510004567|email_read journeys_read",
		`{{ .RESTInstanceURL }} {{ .SOAPInstanceURL }}`: "https://rest.example/ https://soap.example/",
		``:                          "",
		"no action\n":               "no action\n",
		`{{/* a comment */}}`:       "",
		"a\n{{- `b` -}}\nc":         "abc",
		`{{ $.AccessToken }}`:       "four.part.token.text",
		`{{ b64enc .AccessToken }}`: "Zm91ci5wYXJ0LnRva2VuLnRleHQ=",
		`{{ print "oauth:" .AccessToken | b64enc }}`:                         "b2F1dGg6Zm91ci5wYXJ0LnRva2VuLnRleHQ=",
		`{{ join "," .Scopes }}`:                                             "email_read,journeys_read",
		`{{ .Scopes | join " " | upper }}`:                                   "EMAIL_READ JOURNEYS_READ",
		`{{ lower .TokenType }}`:                                             "bearer",
		`{{ replace "_" "-" .Scope }}`:                                       "email-read journeys-read",
		`{{ trimSuffix "/" .RESTInstanceURL }}`:                              "https://rest.example",
		`{{ trimPrefix "https://" .SOAPInstanceURL }}`:                       "soap.example/",
		`{{ urlquery .Scope }}`:                                              "email_read+journeys_read",
		`{"token": {{ toJson .AccessToken }}}`:                               `{"token": "four.part.token.text"}`,
		`{{ toJson .Scopes }}`:                                               `["email_read","journeys_read"]`,
		`{{ toJson "a\"\n" }}`:                                               `"a\"\n"`,
		`{{ range .Scopes }}- {{ . }} {{ $.AccountID }};{{ end }}`:           "- email_read 510004567;- journeys_read 510004567;",
		`{{ range .Scopes }}{{ if eq . "email_read" }}yes{{ end }}{{ end }}`: "yes",
		`{{ with .AccountID }}MID {{ . }}{{ else }}none{{ end }}`:            "MID 510004567",
		`{{ with .Scopes }}{{ join "+" . }}{{ end }}`:                        "email_read+journeys_read",
		`{{ if and .AccountID (ne .TokenType "Bearer") }}a{{ else if not .Scopes }}b{{ else }}c{{ end }}`: "c",
		`{{ or "" .AccountID "x" }}`:                                    "510004567",
		`{{ trimPrefix "https://" .RESTInstanceURL | trimSuffix "/" }}`: "rest.example",
		`{{ eq .TokenType "Basic" "Bearer" }}`:                          "true",
		`{{ (print .AccountID) }}`:                                      "510004567",
	} {
		t.Run(text, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(rendered(text, aTokensFields())).To(Equal(want))
		})
	}
}

func TestATemplateServesAlsoATokenThatLacksSomething(t *testing.T) {
	g := NewWithT(t)
	g.Expect(rendered(`{{ .AccountID }}{{ range .Scopes }}{{ . }}{{ else }}no scope{{ end }}{{ join "," .Scopes }}`, fieldsOf(&issued{}))).To(Equal("no scope"))
	g.Expect(rendered(`{{ or .AccountID "the package's own" }}`, fieldsOf(&issued{}))).To(Equal("the package's own"))
	g.Expect(renderTemplates(map[string]string{}, aTokensFields())).To(BeEmpty())
}

func TestABadTemplateIsRefusedWithItsLineAndAReason(t *testing.T) {
	for text, says := range map[string]string{
		// What text/template can't read.
		"Bearer {{ .AccessToken":                   "line 1: unclosed action",
		"one\ntwo {{ }}":                           "line 2: missing value for command",
		"{{ if .Scope }}\n\nx":                     "line 3: unexpected EOF",
		"\n{{ \"Bearer }}":                         "line 2: unterminated quoted string",
		"{{ $token }}":                             `line 1: undefined variable "$token"`,
		"{{ end }}":                                "line 1: unexpected {{end}}",
		"{{ .AccessToken | \"x\" }}":               "line 1: non executable command in pipeline stage 2",
		"{{ 0x" + strings.Repeat("z", 900) + " }}": "line 1: bad number syntax",
		// What there isn't.
		"a\n{{ .Token }}":         "line 2: there is no field .Token; there are .AccessToken, .TokenType, .ExpiresAt, .AccountID, .Scope, .Scopes, .RESTInstanceURL, .SOAPInstanceURL",
		"{{ .accessToken }}":      "line 1: there is no field .accessToken",
		"{{ .AccessToken.Len }}":  "line 1: .AccessToken has no field Len",
		"{{ $.AccessToken.Len }}": "line 1: .AccessToken has no field Len",
		"{{ . }}":                 "line 1: . is the whole token; name a field of it: .AccessToken",
		"{{ toJson $ }}":          "line 1: $ is the whole token; name a field of it: .AccessToken",
		"{{ range .Scopes }}\n{{ .AccessToken }}{{ end }}":    "line 2: inside of range and with, the token's fields are $.AccessToken and so on; .AccessToken is none",
		"{{ with .Scope }}{{ .Scope }}{{ end }}":              "line 1: inside of range and with, the token's fields are $.AccessToken and so on; .Scope is none",
		"{{ .AccessToken \"x\" }}":                            "line 1: .AccessToken is no function, so it takes no argument",
		"{{ \"x\" | .AccessToken }}":                          "line 1: .AccessToken is no function, so it takes no argument",
		"{{ b64dec .AccessToken }}":                           "line 1: there is no function b64dec; there are and, b64enc, eq, join, lower, ne, not, or, print, replace, toJson, trimPrefix, trimSuffix, upper, urlquery",
		"{{ b64enc }}":                                        "line 1: b64enc takes 1 argument, not 0",
		"{{ print b64enc }}":                                  "line 1: b64enc takes 1 argument, not 0",
		"{{ .Scope | b64enc \"x\" }}":                         "line 1: b64enc takes 1 argument, not 2",
		"{{ eq .Scope }}":                                     "line 1: eq takes at least 2 arguments, not 1",
		"{{ print }}":                                         "line 1: print takes at least 1 argument, not 0",
		"{{ lower .Scopes }}":                                 "line 1: argument 1 of lower must be text, not a list",
		"{{ join \",\" .Scope }}":                             "line 1: argument 2 of join must be a list, not text",
		"{{ .Scope | join \",\" }}":                           "line 1: argument 2 of join must be a list, not text",
		"{{ toJson (not .Scope) }}":                           "line 1: argument 1 of toJson must be text or a list, not true or false",
		"{{ or .Scope .Scopes }}":                             "line 1: what is of several kinds can't be written; use it in if",
		"{{ lower (and .Scope .Scopes) }}":                    "line 1: argument 1 of lower must be text, not of several kinds",
		"{{ with or .Scope .Scopes }}{{ toJson . }}{{ end }}": "line 1: argument 1 of toJson must be text or a list, not of several kinds",
		"{{ .Scopes }}":                                       "line 1: a list can't be written as it is; use join, toJson or range",
		"{{ range .Scope }}{{ end }}":                         "line 1: range takes a list, such as .Scopes, not text",
		// What could run long, reach something, or print a value into an error.
		"{{ range 1000000000 }}x{{ end }}":                            "line 1: a number is not offered; there are texts in quotes, fields and functions",
		"{{ range .Scopes }}\n{{ range $.Scopes }}{{ end }}{{ end }}": "line 2: a range can't stand inside of a range",
		"{{ range .Scopes }}{{ break }}{{ end }}":                     "line 1: break is not offered; there are if, with and range",
		"{{ range .Scopes }}{{ continue }}{{ end }}":                  "line 1: continue is not offered; there are if, with and range",
		"{{ range $i, $scope := .Scopes }}{{ end }}":                  "line 1: variables are not offered",
		"{{ $t := .AccessToken }}{{ $t }}":                            "line 1: variables are not offered",
		"{{ define \"x\" }}{{ template \"x\" }}{{ end }}":             "line 1: define and block are not offered",
		"{{ define \"authorization\" }}x{{ end }}":                    "line 1: define and block are not offered",
		"{{ block \"x\" . }}{{ end }}":                                "line 1: define and block are not offered",
		"{{ template \"authorization\" }}":                            "line 1: template is not offered; there are if, with and range",
		"{{ printf \"%999999999d\" 1 }}":                              "line 1: a number is not offered; there are texts in quotes, fields and functions",
		"{{ printf \"%s\" .AccessToken }}":                            "line 1: there is no function printf",
		"{{ slice .AccessToken }}":                                    "line 1: there is no function slice",
		"{{ index .Scopes }}":                                         "line 1: there is no function index",
		"{{ call .AccessToken }}":                                     "line 1: there is no function call",
		"{{ html .AccessToken }}":                                     "line 1: there is no function html",
		"{{ env \"HOME\" }}":                                          "line 1: there is no function env",
		"{{ (print .Scope).Len }}":                                    "line 1: a field of something in parentheses is not offered",
		"{{ print nil }}":                                             "line 1: nil is not offered",
		"{{ if true }}{{ end }}":                                      "line 1: true or false is not offered",
		"{{ $ }}":                                                     "line 1: $ is the whole token",
	} {
		t.Run(says, func(t *testing.T) {
			g := NewWithT(t)
			for _, fields := range []templateFields{aTokensFields(), specimen, {}} {
				data, err := renderTemplates(map[string]string{"authorization": text, "b": "fine"}, fields)
				g.Expect(err).To(MatchError(HavePrefix("spec.target.template.data, key authorization, " + says)))
				g.Expect(len(err.Error())).To(BeNumerically("<=", 500), "it goes into a condition")
				g.Expect(data).To(BeNil())
			}
		})
	}
}

func TestOfSeveralBadTemplatesTheFirstIsNamed(t *testing.T) {
	g := NewWithT(t)
	for range 10 {
		_, err := renderTemplates(map[string]string{"c": "{{ .C }}", "a": "fine", "b": "{{ .B }}"}, specimen)
		g.Expect(err).To(MatchError(ContainSubstring("key b, line 1: there is no field .B;")), "an order of its own would make the status change at each look")
	}
}

func TestTemplatesThatWouldMakeTooMuchAreEnded(t *testing.T) {
	twenty := func(text string) map[string]string {
		templates := map[string]string{}
		for i := range 20 {
			templates[strings.Repeat("k", i+1)] = text
		}
		return templates
	}
	many := aTokensFields()
	many.Scopes = slices.Repeat([]string{"s"}, 32<<10) // the most that an answer of 64 KiB has room for
	for what, row := range map[string]struct {
		templates map[string]string
		of        templateFields
		says      string
	}{
		"written again and again": {twenty(strings.Repeat("{{.Scope}}", 400)), specimen, "more than 256 KiB"},
		"doubled":                 {twenty(strings.Repeat(`{{with print . .}}`, 150) + "{{.}}" + strings.Repeat("{{end}}", 150)), specimen, "is the whole token"},
		"doubled text":            {twenty(`{{with .Scope}}` + strings.Repeat(`{{with print . .}}`, 150) + "{{.}}" + strings.Repeat("{{end}}", 151)), specimen, "more than 256 KiB"},
		"encoded on and on":       {twenty("{{.Scope" + strings.Repeat("|b64enc", 500) + "}}"), specimen, "more than 256 KiB"},
		"quoted on and on":        {twenty("{{`\"`" + strings.Repeat("|toJson", 500) + "}}"), specimen, "more than 256 KiB"},
		"escaped on and on":       {twenty("{{`%`" + strings.Repeat("|urlquery", 400) + "}}"), specimen, "more than 256 KiB"},
		"replaced by more":        {twenty(`{{.AccessToken` + strings.Repeat(`|replace "" "`+strings.Repeat("x", 300)+`"`, 10) + `}}`), specimen, "more than 256 KiB"},
		"replaced by itself":      {twenty(`{{with replace "" "` + strings.Repeat("x", 15) + `" .AccessToken}}{{replace "" . .}}{{end}}`), specimen, "more than 256 KiB"},
		"joined by much":          {twenty("{{join `" + strings.Repeat("x", 4000) + "` .Scopes}}"), many, "more than 256 KiB"},
		"a range over many":       {twenty("{{range .Scopes}}" + strings.Repeat("{{``}}", 600) + "{{end}}"), many, "more than 50000 steps"},
		"a range that decides":    {twenty("{{range .Scopes}}" + strings.Repeat("{{if eq . ``}}{{end}}", 180) + "{{end}}"), specimen, "more than 50000 steps"},
	} {
		t.Run(what, func(t *testing.T) {
			g := NewWithT(t)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			data, err := renderTemplates(row.templates, row.of)
			g.Expect(err).To(MatchError(ContainSubstring(row.says)))
			g.Expect(data).To(BeNil())
			g.Expect(time.Since(start)).To(BeNumerically("<", 5*time.Second), "it takes milliseconds, unless it isn't ended")
			runtime.ReadMemStats(&after)
			g.Expect(after.TotalAlloc-before.TotalAlloc).To(BeNumerically("<", 64<<20), "bytes of memory, of which most are free again")
		})
	}
}

func TestTwentyOrdinaryTemplatesAreNotTooMuch(t *testing.T) {
	g := NewWithT(t)
	templates := map[string]string{}
	for i := range 20 {
		templates[strings.Repeat("k", i+1)] = `{"token": {{ print .AccessToken | b64enc | toJson }}, "scopes": [{{ range .Scopes }}"{{ . }}",{{ end }}""]}`
	}
	data, err := renderTemplates(templates, specimen)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(data).To(HaveLen(20))
}

func TestEveryFunctionHasASignatureAndAnImplementation(t *testing.T) {
	g := NewWithT(t)
	implemented := slices.Collect(maps.Keys((&allowance{}).functions()))
	builtin := []string{"and", "eq", "ne", "not", "or"} // as they come with text/template
	g.Expect(slices.Collect(maps.Keys(signatures))).To(ConsistOf(append(implemented, builtin...)))
}

// canary is a token of which nothing may be seen in an error.
func canary() templateFields {
	return templateFields{AccessToken: "cAnArY.1", TokenType: "cAnArY2", ExpiresAt: "cAnArY3", AccountID: "cAnArY4", Scope: "cAnArY5 cAnArY6",
		Scopes: []string{"cAnArY5", "cAnArY6"}, RESTInstanceURL: "https://cAnArY7/", SOAPInstanceURL: "https://cAnArY8/"}
}

func FuzzTemplate(f *testing.F) {
	for _, text := range []string{
		"Bearer {{ .AccessToken }}",
		"{\"a\": {{ toJson .Scopes }}, \"b\": {{ .Scope | toJson }}}\n",
		"{{- range .Scopes }}\n- {{ . | upper | replace \"_\" `-` }}{{ $.AccountID }}\n{{- else }}none{{ end -}}",
		`{{ with .AccountID }}{{ . }}{{ else with .Scope }}{{ . }}{{ end }}{{/* c */}}`,
		`{{ if and (eq .TokenType "Bearer" "x") (not .Scopes) }}{{ print "a" .AccessToken | b64enc }}{{ else if or .Scope "" }}{{ ne .Scope "" }}{{ end }}`,
		`{{ trimSuffix "/" .RESTInstanceURL | trimPrefix "https://" | urlquery | lower }}{{ join "," .Scopes }}`,
		`{{ define "x" }}{{ template "x" . }}{{ end }}{{ block "y" . }}{{ end }}`,
		`{{ range $i, $e := .Scopes }}{{ break }}{{ end }}{{ $x := 1 }}{{ $x = 2 }}`,
		`{{ printf "%999999999d" 1 }}{{ index .Scopes 1 }}{{ slice .AccessToken 1 }}{{ len .Scope }}{{ call .AccessToken }}{{ html . }}`,
		`{{ eq .Scopes .Scopes }}{{ if or .Scope .Scopes (not .Scope) }}{{ end }}{{ or .Scope .Scopes }}{{ eq . $ }}{{ lt 'a' 0x1p-2 1i }}{{ (print).X }}{{ nil }}`,
		"{{ .AccessToken.X }}{{ \"",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		value, err := rendered(text, canary())
		if err == nil {
			if len(value) > maxTemplateBytes {
				t.Fatalf("%d bytes", len(value))
			}
			if again, err := rendered(text, canary()); err != nil || again != value {
				t.Fatalf("two values: %q and %q, %v", value, again, err)
			}
			return
		}
		var invalid *templateInvalidError
		switch said := err.Error(); {
		case value != "":
			t.Fatalf("a value beside an error: %q", value)
		case strings.Contains(said, "cAnArY") && !strings.Contains(text, "cAnArY"):
			t.Fatalf("the error quotes the token: %s", said)
		case !errors.As(err, &invalid) || invalid.key != "authorization":
			t.Fatalf("an error of another kind: %v", err)
		case slices.Contains([]string{"it can't be used", "it can't be rendered", "it is no Go template"}, invalid.reason):
			t.Fatalf("the check let something through, or can't say what: %s", said)
		case strings.Contains(invalid.reason, " in all; "):
			return // what is too much depends on the token
		case invalid.line < 1 || invalid.line > 1+strings.Count(text, "\n"):
			t.Fatalf("line %d of %q", invalid.line, text)
		case utf8.ValidString(text) && !utf8.ValidString(said):
			t.Fatalf("cut inside of a character: %q", said)
		}
		if _, before := rendered(text, specimen); before == nil || before.Error() != err.Error() {
			t.Fatalf("before there was a token: %v, and then: %v", before, err)
		}
	})
}

// anyExpression draws an expression that is of this kind, if the dot is text.
func anyExpression(t *rapid.T, is kind, depth int) string {
	if depth == 0 || is == kindList || rapid.Bool().Draw(t, "leaf") {
		switch is {
		case kindList:
			return "$.Scopes"
		case kindTruth:
			return "not ."
		}
		return rapid.SampledFrom([]string{".", `"a"`, "``", "$.Scope", "$.AccessToken", "$.AccountID"}).Draw(t, "text")
	}
	call := rapid.SampledFrom(slices.Sorted(maps.Keys(signatures))).Draw(t, "function")
	function := signatures[call]
	for function.makes != is && function.makes != kindAny {
		call = rapid.SampledFrom(slices.Sorted(maps.Keys(signatures))).Draw(t, "function")
		function = signatures[call]
	}
	if function.more {
		function.takes = append(slices.Clone(function.takes), slices.Repeat(function.takes[:1], rapid.IntRange(0, 2).Draw(t, "more"))...)
	}
	for i, takes := range function.takes {
		switch {
		case takes == kindAny && function.makes == kindAny && rapid.IntRange(0, 4).Draw(t, "mixed") > 0:
			takes = is
		case takes == kindAny:
			takes = rapid.SampledFrom([]kind{kindText, kindList, kindTruth}).Draw(t, "any")
		case takes == kindData:
			takes = rapid.SampledFrom([]kind{kindText, kindList}).Draw(t, "data")
		}
		arg := "(" + anyExpression(t, takes, depth-1) + ")"
		if i == len(function.takes)-1 && rapid.IntRange(0, 3).Draw(t, "piped") == 0 {
			return arg + " | " + call
		}
		call += " " + arg
	}
	return call
}

func anyTemplate(t *rapid.T, depth int) string {
	text := ""
	for range rapid.IntRange(1, 2).Draw(t, "actions") {
		what := rapid.SampledFrom([]string{"", "", "if ", "with ", "range "}).Draw(t, "action")
		is := rapid.SampledFrom([]kind{kindText, kindText, kindTruth, kindList}).Draw(t, "kind")
		switch what {
		case "":
			is = kindText
		case "range ":
			is = kindList
		}
		text += "{{ " + what + anyExpression(t, is, 3) + " }}"
		if what != "" && depth > 0 {
			text += anyTemplate(t, depth-1) + "{{ else }}" + anyTemplate(t, depth-1)
		}
		if what != "" {
			text += "{{ end }}"
		}
	}
	return text
}

func TestWhatPassesTheCheckIsRenderedWithAnyToken(t *testing.T) {
	passed := 0
	rapid.Check(t, func(t *rapid.T) {
		text := "{{ with .AccessToken }}" + anyTemplate(t, rapid.IntRange(0, 2).Draw(t, "depth")) + "{{ end }}"
		_, err := parseTemplate("authorization", text, 2, &allowance{steps: maxTemplateSteps})
		if err != nil {
			return
		}
		passed++
		for _, fields := range []templateFields{canary(), {AccessToken: "x"}} {
			if value, err := rendered(text, fields); err != nil {
				t.Fatalf("%s: %q, %v", text, value, err)
			}
		}
	})
	if passed < 10 {
		t.Fatalf("only %d templates passed the check", passed)
	}
}
