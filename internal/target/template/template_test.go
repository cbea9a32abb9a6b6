package template

import (
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"testing"
	texttemplate "text/template"
	"time"
	"unicode/utf8"

	. "github.com/onsi/gomega"
	"pgregory.net/rapid"
)

var (
	aToken = Fields{
		"AccessToken": "four.part.token.text", "TokenType": "Bearer", "ExpiresAt": "2026-03-01T12:17:59Z",
		"AccountID": "510004567",
		"Scope":     "email_read journeys_read", "Scopes": []string{"email_read", "journeys_read"},
		"RESTInstanceURL": "https://rest.example/", "SOAPInstanceURL": "https://soap.example/",
	}
	// specimen is about as large as a token is.
	specimen = Fields{
		"AccessToken": strings.Repeat("x", 2<<10), "TokenType": "Bearer", "ExpiresAt": "2006-01-02T15:04:05Z",
		"AccountID": "510000000", "Scope": strings.TrimSpace(strings.Repeat("data_extensions_write ", 100)),
		"Scopes":          slices.Repeat([]string{"data_extensions_write"}, 100),
		"RESTInstanceURL": "https://mc-x.rest.marketingcloudapis.com/",
		"SOAPInstanceURL": "https://mc-x.soap.marketingcloudapis.com/",
	}
	// nothing is a token that lacks all that it can lack, and more.
	nothing = Fields{
		"AccessToken": "", "TokenType": "", "ExpiresAt": "", "AccountID": "", "Scope": "", "Scopes": []string{},
		"RESTInstanceURL": "", "SOAPInstanceURL": "",
	}
	// canary is a token of which nothing may be seen in an error.
	canary = Fields{
		"AccessToken": "cAnArY.1", "TokenType": "cAnArY2", "ExpiresAt": "cAnArY3", "AccountID": "cAnArY4",
		"Scope": "cAnArY5 cAnArY6", "Scopes": []string{"cAnArY5", "cAnArY6"},
		"RESTInstanceURL": "https://cAnArY7/", "SOAPInstanceURL": "https://cAnArY8/",
	}
)

// with returns fields of which one is another.
func with(fields Fields, name string, value any) Fields {
	fields = maps.Clone(fields)
	fields[name] = value
	return fields
}

// rendered is the value of one template.
func rendered(text string, fields Fields) (string, error) {
	data, err := Render(map[string]string{"authorization": text}, fields)
	return string(data["authorization"]), err
}

// made are templates, and what they make of aToken.
var made = [][2]string{
	{`Bearer {{ .AccessToken }}`, "Bearer four.part.token.text"},
	{`{{ .TokenType }} {{ .ExpiresAt }}`, "Bearer 2026-03-01T12:17:59Z"},
	{`{{ .AccountID }}|{{ .Scope }}`, "510004567|email_read journeys_read"},
	{`{{ .RESTInstanceURL }} {{ .SOAPInstanceURL }}`, "https://rest.example/ https://soap.example/"},
	{``, ""},
	{"no action\n", "no action\n"},
	{`{{/* a comment */}}`, ""},
	{"a\n{{- `b` -}}\nc", "abc"},
	{`{{ $.AccessToken }}`, "four.part.token.text"},
	{`{{ b64enc .AccessToken }}`, "Zm91ci5wYXJ0LnRva2VuLnRleHQ="},
	{`{{ print "oauth:" .AccessToken | b64enc }}`, "b2F1dGg6Zm91ci5wYXJ0LnRva2VuLnRleHQ="},
	{`{{ join "," .Scopes }}`, "email_read,journeys_read"},
	{`{{ .Scopes | join " " | upper }}`, "EMAIL_READ JOURNEYS_READ"},
	{`{{ lower .TokenType }}`, "bearer"},
	{`{{ replace "_" "-" .Scope }}`, "email-read journeys-read"},
	{`{{ trimSuffix "/" .RESTInstanceURL }}`, "https://rest.example"},
	{`{{ trimPrefix "https://" .SOAPInstanceURL }}`, "soap.example/"},
	{`{{ urlquery .Scope }}`, "email_read+journeys_read"},
	{`{"token": {{ toJson .AccessToken }}}`, `{"token": "four.part.token.text"}`},
	{`{{ toJson .Scopes }}`, `["email_read","journeys_read"]`},
	{`{{ toJson "a\"\n" }}`, `"a\"\n"`},
	{`{{ range .Scopes }}- {{ . }} {{ $.AccountID }};{{ end }}`, "- email_read 510004567;- journeys_read 510004567;"},
	{`{{ range .Scopes }}{{ if eq . "email_read" }}yes{{ end }}{{ end }}`, "yes"},
	{`{{ with .AccountID }}MID {{ . }}{{ else }}none{{ end }}`, "MID 510004567"},
	{`{{ with .Scopes }}{{ join "+" . }}{{ end }}`, "email_read+journeys_read"},
	{`{{ if and .AccountID (ne .TokenType "Bearer") }}a{{ else if not .Scopes }}b{{ else }}c{{ end }}`, "c"},
	{`{{ or "" .AccountID "x" }}`, "510004567"},
	{`{{ trimPrefix "https://" .RESTInstanceURL | trimSuffix "/" }}`, "rest.example"},
	{`{{ eq .TokenType "Basic" "Bearer" }}`, "true"},
	{`{{ (print .AccountID) }}`, "510004567"},
}

func TestATemplateMakesTextOfTheTokensFields(t *testing.T) {
	for _, row := range made {
		text, want := row[0], row[1]
		t.Run(text, func(t *testing.T) {
			g := NewWithT(t)
			g.Expect(rendered(text, aToken)).To(Equal(want))
		})
	}
}

func TestATemplateServesAlsoATokenThatLacksSomething(t *testing.T) {
	g := NewWithT(t)
	for _, row := range [][2]string{
		{`{{ .AccountID }}{{ range .Scopes }}{{ . }}{{ else }}no scope{{ end }}{{ join "," .Scopes }}`, "no scope"},
		{`{{ or .AccountID "the package's own" }}`, "the package's own"},
		{`{{ if .Scopes }}some{{ end }}{{ with .Scope }}some{{ end }}{{ toJson .Scopes }}`, "[]"},
	} {
		g.Expect(rendered(row[0], nothing)).To(Equal(row[1]))
	}
	g.Expect(Render(map[string]string{}, aToken)).To(BeEmpty())
}

// refused are templates, and what is said of them.
var refused = [][2]string{
	// What text/template can't read.
	{"Bearer {{ .AccessToken", "line 1: unclosed action"},
	{"one\ntwo {{ }}", "line 2: missing value for command"},
	{"{{ if .Scope }}\n\nx", "line 3: unexpected EOF"},
	{"\n{{ \"Bearer }}", "line 2: unterminated quoted string"},
	{"{{ $token }}", `line 1: undefined variable "$token"`},
	{"{{ end }}", "line 1: unexpected {{end}}"},
	{"{{ .AccessToken | \"x\" }}", "line 1: non executable command in pipeline stage 2"},
	{"{{ 0x" + strings.Repeat("z", 900) + " }}", "line 1: bad number syntax"},
	// What there isn't.
	{"a\n{{ .Token }}",
		"line 2: there is no field .Token; there are .AccessToken, .AccountID, .ExpiresAt, .RESTInstanceURL, " +
			".SOAPInstanceURL, .Scope, .Scopes, .TokenType"},
	{"{{ .accessToken }}", "line 1: there is no field .accessToken"},
	{"{{ .AccessToken.Len }}", "line 1: .AccessToken has no field Len"},
	{"{{ $.AccessToken.Len }}", "line 1: .AccessToken has no field Len"},
	{"{{ . }}", "line 1: . is the whole token; name a field of it: .AccessToken"},
	{"{{ toJson $ }}", "line 1: $ is the whole token; name a field of it: .AccessToken"},
	{"{{ range .Scopes }}\n{{ .AccessToken }}{{ end }}", "line 2: inside of range and with, write $.AccessToken"},
	{"{{ with .Scope }}{{ .Scope }}{{ end }}", "line 1: inside of range and with, write $.Scope"},
	{"{{ .AccessToken \"x\" }}", "line 1: at <.AccessToken>: AccessToken is not a method but has arguments"},
	{"{{ \"x\" | .AccessToken }}", "line 1: at <.AccessToken>: AccessToken is not a method but has arguments"},
	{"{{ b64dec .AccessToken }}",
		"line 1: there is no function b64dec; there are and, b64enc, eq, join, lower, ne, not, or, print, replace, " +
			"toJson, trimPrefix, trimSuffix, upper, urlquery"},
	{"{{ b64enc }}", "line 1: at <b64enc>: wrong number of args for b64enc: want 1 got 0"},
	{"{{ print b64enc }}", "line 1: at <b64enc>: wrong number of args for b64enc: want 1 got 0"},
	{"{{ .Scope | b64enc \"x\" }}", "line 1: at <b64enc>: wrong number of args for b64enc: want 1 got 2"},
	{"{{ eq .Scope }}", "line 1: at <eq>: wrong number of args for eq: want at least 2 got 1"},
	{"{{ print }}", "line 1: at <print>: wrong number of args for print: want at least 1 got 0"},
	{"{{ lower .Scopes }}", "line 1: at <.Scopes>: wrong type for value; expected string; got []string"},
	{"{{ join \",\" .Scope }}", "line 1: at <.Scope>: wrong type for value; expected []string; got string"},
	{"{{ .Scope | join \",\" }}", "line 1: at <\",\">: wrong type for value; expected []string; got string"},
	{"{{ toJson (not .Scope) }}", "line 1: toJson takes text or a list"},
	{"{{ or .Scope .Scopes }}", "line 1: what is of several types can't be written; use it in if"},
	{"{{ lower (and .Scope .Scopes) }}",
		"line 1: at <.Scopes>: wrong type for value; expected string; got template.mixed"},
	{"{{ with or .Scope .Scopes }}{{ toJson . }}{{ end }}", "line 1: toJson takes text or a list"},
	{"{{ .Scopes }}", "line 1: a list can't be written as it is; use join, toJson or range"},
	{"{{ range .Scope }}{{ end }}", "line 1: range takes a list"},
	// What could run long, reach something, or print a value into an error.
	{"{{ range 1000000000 }}x{{ end }}",
		"line 1: 1000000000 is not offered; there are texts in quotes, fields and functions"},
	{"{{ range .Scopes }}\n{{ range $.Scopes }}{{ end }}{{ end }}", "line 2: a range can't stand inside of a range"},
	{"{{ range .Scopes }}{{ break }}{{ end }}", "line 1: {{break}} is not offered; there are if, with and range"},
	{"{{ range .Scopes }}{{ continue }}{{ end }}", "line 1: {{continue}} is not offered; there are if, with and range"},
	{"{{ range $i, $scope := .Scopes }}{{ end }}", "line 1: variables are not offered"},
	{"{{ $t := .AccessToken }}{{ $t }}", "line 1: variables are not offered"},
	{"{{ define \"x\" }}{{ template \"x\" }}{{ end }}", "line 1: define and block are not offered"},
	{"{{ define \"authorization\" }}x{{ end }}", "line 1: define and block are not offered"},
	{"{{ block \"x\" . }}{{ end }}", "line 1: define and block are not offered"},
	{"{{ template \"authorization\" }}",
		"line 1: {{template \"authorization\"}} is not offered; there are if, with and range"},
	{"{{ printf \"%999999999d\" 1 }}", "line 1: there is no function printf; there are and, b64enc"},
	{"{{ printf \"%s\" .AccessToken }}", "line 1: there is no function printf"},
	{"{{ slice .AccessToken }}", "line 1: there is no function slice"},
	{"{{ index .Scopes }}", "line 1: there is no function index"},
	{"{{ call .AccessToken }}", "line 1: there is no function call"},
	{"{{ html .AccessToken }}", "line 1: there is no function html"},
	{"{{ env \"HOME\" }}", "line 1: there is no function env"},
	{"{{ (print .Scope).Len }}", "line 1: (print .Scope).Len is not offered"},
	{"{{ print nil }}", "line 1: nil is not offered"},
	{"{{ if true }}{{ end }}", "line 1: true is not offered"},
	{"{{ $ }}", "line 1: $ is the whole token"},
	{"{{ with . }}{{ .AccessToken }}{{ end }}", "line 1: . is the whole token"},
	{"{{ with $ }}{{ . }}{{ end }}", "line 1: $ is the whole token"},
	{"{{ range . }}{{ . }}{{ end }}", "line 1: . is the whole token"},
	{"{{ with .Scope }}{{ toJson $ }}{{ end }}", "line 1: $ is the whole token"},
	{"{{ with .Scope }}{{ else }}{{ . }}{{ end }}", "line 1: . is the whole token"},
	{"{{ range .Scopes }}{{ else }}{{ or . }}{{ end }}", "line 1: . is the whole token"},
	{"{{ given }}", "line 1: there is no function given"},
	{"{{ makes .Scope }}", "line 1: there is no function makes"},
	{"{{ (.Scope) \"x\" }}", "line 1: at <(.Scope) \"x\">: can't give argument to non-function .Scope"},
	{"{{ with .Scope }}\n{{ . | join (\nlower `a\nb`) }}{{ end }}", "line 3: at <`a b`>: wrong type"},
	{"{{ lower " + strings.Repeat("(", 5000) + " }}", "line 1: unclosed left paren"},
	{"{{ `a` | join `xx" + strings.Repeat("ä\n", 300) + "` }}", "line 1: at <`xxä ä"},
	{"{{ `a` `" + strings.Repeat("x", 300) + "ä` }}", "line 1: at"},
	// What the fields lead to, if they hold something else.
	{"{{ if eq .Scope `q` }}\n{{ lower .Scopes }}{{ end }}", "line 2: at <.Scopes>: wrong type"},
	{"{{ if .Scope }}{{ else if eq .Scope `q` }}{{ else }}\n{{ .Scopes }}{{ end }}", "line 2: a list can't be written"},
	{"{{ with eq .Scope `q` }}\n{{ lower . }}{{ end }}",
		"line 2: at <.>: wrong type for value; expected string; got bool"},
	{"{{ with .Scopes }}{{ else with `` }}\n{{ range . }}{{ end }}{{ end }}", "line 2: range takes a list"},
	{"{{ with .Scope }}{{ else }}\n{{ lower }}{{ end }}", "line 2: at <lower>: wrong number"},
	{"{{ range .Scopes }}\n{{ join . $.Scope }}{{ end }}", "line 2: at <$.Scope>: wrong type"},
	{"{{ range .Scopes }}{{ else }}\n{{ upper .Scopes }}{{ end }}", "line 2: at <.Scopes>: wrong type"},
	{"{{ range .Scopes }}{{ if . }}{{ else if eq . `q` }}\n{{ upper }}{{ end }}{{ end }}",
		"line 2: at <upper>: wrong number"},
	{"{{ if and (eq .Scope `q`) (lower .Scopes) }}{{ end }}", "line 1: at <.Scopes>: wrong type"},
	{"{{ if or .Scope (lower .Scopes) }}{{ end }}", "line 1: at <.Scopes>: wrong type"},
	{"{{ eq .TokenType `Bearer` .Scopes }}", "line 1: at <.Scopes>: wrong type"},
	{"{{ eq .Scopes .Scopes }}", "line 1: at <.Scopes>: wrong type"},
	{"{{ ne .Scope (not .Scope) }}", "line 1: at <.Scope>: wrong type for value; expected string; got bool"},
}

func TestABadTemplateIsRefusedWithItsLineAndAReason(t *testing.T) {
	for _, row := range refused {
		text, says := row[0], row[1]
		t.Run(says, func(t *testing.T) {
			g := NewWithT(t)
			for _, fields := range []Fields{aToken, specimen, nothing} {
				data, err := Render(map[string]string{"authorization": text, "b": "fine"}, fields)
				g.Expect(err).To(MatchError(HavePrefix("spec.target.template.data, key authorization, " + says)))
				g.Expect(len(err.Error())).To(BeNumerically("<=", 500), "it goes into a condition")
				g.Expect(utf8.ValidString(err.Error())).To(BeTrue(), "the API takes nothing else")
				g.Expect(err.Error()).NotTo(ContainSubstring("\n"))
				g.Expect(data).To(BeNil())
			}
		})
	}
}

func TestOfSeveralBadTemplatesTheFirstIsNamed(t *testing.T) {
	g := NewWithT(t)
	for range 10 {
		_, err := Render(map[string]string{"c": "{{ .C }}", "a": "fine", "b": "{{ .B }}"}, specimen)
		g.Expect(err).To(MatchError(ContainSubstring("key b, line 1: there is no field .B;")),
			"an order of its own would make the status change at each look")
		_, err = rendered("\n{{ define `b` }}{{ end }}\n{{ define `a` }}{{ end }}{{ define `c` }}{{ end }}", specimen)
		g.Expect(err).To(MatchError(ContainSubstring("line 3: define and block are not offered")))
	}
}

// tooMuch are templates that would make too much, twenty times, and what is said of them.
var tooMuch = []struct{ what, text, says string }{
	{"written again and again", strings.Repeat("{{.Scope}}", 400), "more than 256 KiB"},
	{"doubled", strings.Repeat("{{with print . .}}", 150) + "{{.}}" + strings.Repeat("{{end}}", 150),
		"is the whole token"},
	{"doubled text",
		"{{with .Scope}}" + strings.Repeat("{{with print . .}}", 150) + "{{.}}" + strings.Repeat("{{end}}", 151),
		"more than 256 KiB"},
	{"encoded on and on", "{{.Scope" + strings.Repeat("|b64enc", 500) + "}}", "more than 256 KiB"},
	{"quoted on and on", "{{`\"`" + strings.Repeat("|toJson", 500) + "}}", "more than 256 KiB"},
	{"escaped on and on", "{{`%`" + strings.Repeat("|urlquery", 400) + "}}", "more than 256 KiB"},
	{"replaced by more", "{{.AccessToken" + strings.Repeat("|replace `` `"+strings.Repeat("x", 300)+"`", 10) + "}}",
		"more than 256 KiB"},
	{"replaced by itself",
		"{{with replace `` `" + strings.Repeat("x", 15) + "` .AccessToken}}{{replace `` . .}}{{end}}",
		"more than 256 KiB"},
	{"joined by much", "{{join `" + strings.Repeat("x", 4000) + "` .Scopes}}", "more than 256 KiB"},
	{"a range over many", "{{range .Scopes}}" + strings.Repeat("{{``}}", 600) + "{{end}}", "more than 50000 steps"},
	{"a range over texts", "{{range .Scopes}}" + strings.Repeat("a{{/**/}}", 30) + "{{end}}", "more than 50000 steps"},
	{"a range that decides", "{{range .Scopes}}" + strings.Repeat("{{if eq . ``}}{{end}}", 180) + "{{end}}",
		"more than 50000 steps"},
}

func TestTemplatesThatWouldMakeTooMuchAreEnded(t *testing.T) {
	// The most scopes that an answer of 64 KiB has room for.
	for _, fields := range []Fields{specimen, with(specimen, "Scopes", slices.Repeat([]string{"s"}, 32<<10))} {
		for _, row := range tooMuch {
			t.Run(row.what, func(t *testing.T) {
				g := NewWithT(t)
				templates := map[string]string{}
				for i := range 20 {
					templates[strings.Repeat("k", i+1)] = row.text
				}
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				start := time.Now()
				data, err := Render(templates, fields)
				g.Expect(err).To(MatchError(ContainSubstring(row.says)))
				g.Expect(data).To(BeNil())
				g.Expect(time.Since(start)).To(BeNumerically("<", 5*time.Second), "milliseconds, unless it isn't ended")
				runtime.ReadMemStats(&after)
				g.Expect(after.TotalAlloc-before.TotalAlloc).To(BeNumerically("<", 64<<20), "most is free again")
			})
		}
	}
}

func TestTwentyOrdinaryTemplatesAreNotTooMuch(t *testing.T) {
	g := NewWithT(t)
	templates := map[string]string{}
	for i := range 20 {
		templates[strings.Repeat("k", i+1)] = `{"token": {{ print .AccessToken | b64enc | toJson }},` +
			` "scopes": [{{ range .Scopes }}"{{ . }}",{{ end }}""]}`
	}
	data, err := Render(templates, specimen)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(data).To(HaveLen(20))
}

func TestABranchThatIsNotTakenCostsNoText(t *testing.T) {
	g := NewWithT(t)
	text := "{{ if eq .TokenType `Basic` }}" + strings.Repeat("{{ lower .AccessToken }}", 160) + "{{ end }}"
	g.Expect(rendered(text, specimen)).To(BeEmpty())
}

func TestStepsAreCountedWithTheTokensOwnList(t *testing.T) {
	g := NewWithT(t)
	text := "{{ range .Scopes }}{{ . }},{{ end }}"
	_, err := rendered(text, specimen)
	g.Expect(err).NotTo(HaveOccurred())
	_, err = rendered(text, with(canary, "Scopes", slices.Repeat([]string{"cAnArY"}, 32<<10)))
	g.Expect(err).To(MatchError("spec.target.template.data, key authorization: " +
		"the templates take more than 50000 steps in all; make them shorter"))
}

func TestOnlyTextsAndListsAreOffered(t *testing.T) {
	g := NewWithT(t)
	_, err := rendered("{{ .Count }}", Fields{"Count": 1, "Name": ""})
	g.Expect(err).To(MatchError(HaveSuffix("there is no field .Count; there are .Name")))
}

func TestTheFunctionsAreThoseThatAreDocumented(t *testing.T) {
	g := NewWithT(t)
	g.Expect(newCheck(aToken).functions).To(HaveExactElements("and", "b64enc", "eq", "join", "lower", "ne", "not", "or",
		"print", "replace", "toJson", "trimPrefix", "trimSuffix", "upper", "urlquery"))
}

func TestAnErrorWithTheTokenNamesKeyAndLineAlone(t *testing.T) {
	g := NewWithT(t)
	// No template that passes the check ends like this.
	unchecked := texttemplate.Must(texttemplate.New("").Parse("\n{{ eq .Scopes .Scopes }}"))
	err := unchecked.Execute(&strings.Builder{}, canary)
	g.Expect(err).To(MatchError(ContainSubstring("cAnArY")))
	g.Expect(problemOf(err, false)).To(Equal(&Error{Line: 2, Reason: "it can't be rendered"}))
	g.Expect(problemOf(err, true).Reason).To(Equal("non-comparable type [cAnArY5 cAnArY6]: []string"))
	g.Expect(problemOf(errors.New("cAnArY"), true)).To(Equal(&Error{Reason: "it can't be rendered"}))
}

var seeds = []string{
	"Bearer {{ .AccessToken }}",
	"{\"a\": {{ toJson .Scopes }}, \"b\": {{ .Scope | toJson }}}\n",
	"{{- range .Scopes }}\n- {{ . | upper | replace \"_\" `-` }}{{ $.AccountID }}\n{{- else }}none{{ end -}}",
	`{{ with .AccountID }}{{ . }}{{ else with .Scope }}{{ . }}{{ end }}{{/* c */}}`,
	`{{ if and (eq .TokenType "Bearer" "x") (not .Scopes) }}{{ print "a" .AccessToken | b64enc }}` +
		`{{ else if or .Scope "" }}{{ ne .Scope "" }}{{ end }}`,
	`{{ trimSuffix "/" .RESTInstanceURL | trimPrefix "https://" | urlquery | lower }}{{ join "," .Scopes }}`,
	`{{ define "x" }}{{ template "x" . }}{{ end }}{{ block "y" . }}{{ end }}`,
	`{{ range $i, $e := .Scopes }}{{ break }}{{ end }}{{ $x := 1 }}{{ $x = 2 }}`,
	`{{ printf "%999999999d" 1 }}{{ index .Scopes 1 }}{{ slice .AccessToken 1 }}` +
		`{{ len .Scope }}{{ call .AccessToken }}{{ html . }}`,
	`{{ eq .Scopes .Scopes }}{{ if or .Scope .Scopes (not .Scope) }}{{ end }}{{ or .Scope .Scopes }}` +
		`{{ eq . $ }}{{ lt 'a' 0x1p-2 1i }}{{ (print).X }}{{ nil }}`,
	"{{ .AccessToken.X }}{{ \"",
}

func FuzzTemplate(f *testing.F) {
	for _, text := range seeds {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		value, err := rendered(text, canary)
		if err != nil {
			judge(t, text, value, err)
		} else if len(value) > maxBytes {
			t.Fatalf("%d bytes", len(value))
		} else if again, err := rendered(text, canary); err != nil || again != value {
			t.Fatalf("two values: %q and %q, %v", value, again, err)
		}
		for _, fields := range []Fields{specimen, nothing} {
			_, before := rendered(text, fields)
			if !dependsOnTheToken(before) && !dependsOnTheToken(err) && fmt.Sprint(before) != fmt.Sprint(err) {
				t.Fatalf("before there was a token: %v, and then: %v", before, err)
			}
		}
	})
}

// dependsOnTheToken reports whether an error is of the size of what is made.
func dependsOnTheToken(err error) bool {
	return err != nil && strings.Contains(err.Error(), " in all; ")
}

// judge fails the test if an error isn't as it should be.
func judge(t *testing.T, text, value string, err error) {
	var invalid *Error
	switch said := err.Error(); {
	case value != "":
		t.Fatalf("a value beside an error: %q", value)
	case strings.Contains(said, "cAnArY") && !strings.Contains(text, "cAnArY"):
		t.Fatalf("the error quotes the token: %s", said)
	case !errors.As(err, &invalid) || invalid.Key != "authorization":
		t.Fatalf("an error of another kind: %v", err)
	case invalid.Reason == "it can't be rendered":
		t.Fatalf("the check let something through, or can't say what: %s", said)
	case !utf8.ValidString(said) || strings.Contains(said, "\n") || len(said) > 500:
		t.Fatalf("no message for a condition: %q", said)
	case dependsOnTheToken(err):
		if invalid.Line != 0 {
			t.Fatalf("a line for what all templates make: %s", said)
		}
	case invalid.Line < 1 || invalid.Line > 1+strings.Count(text, "\n"):
		t.Fatalf("line %d of %q", invalid.Line, text)
	}
}

// anyExpression draws an expression. Most are of the wrong types.
func anyExpression(t *rapid.T, depth int) string {
	if depth == 0 || rapid.IntRange(0, 2).Draw(t, "leaf") > 0 {
		return rapid.SampledFrom([]string{".", "`a`", "``", "$.Scope", "$.AccountID", "$.Scopes"}).Draw(t, "operand")
	}
	call := rapid.SampledFrom(newCheck(aToken).functions).Draw(t, "function")
	arguments := map[string]int{"eq": 2, "join": 2, "ne": 2, "replace": 3, "trimPrefix": 2, "trimSuffix": 2}[call]
	if slices.Contains([]string{"and", "or", "eq", "print"}, call) {
		arguments += rapid.IntRange(1, 2).Draw(t, "more")
	}
	for i := range max(arguments, 1) {
		arg := "(" + anyExpression(t, depth-1) + ")"
		if i == arguments-1 && rapid.Bool().Draw(t, "piped") {
			return arg + " | " + call
		}
		call += " " + arg
	}
	return call
}

func anyTemplate(t *rapid.T, depth int) string {
	text := "{{ " + anyExpression(t, 2) + " }}"
	if what := rapid.SampledFrom([]string{"", "if", "with", "range"}).Draw(t, "action"); what != "" {
		pipe := "$.Scopes"
		if what != "range" {
			pipe = anyExpression(t, 2)
		}
		text = fmt.Sprintf("{{ %s %s }}", what, pipe)
		if depth > 0 {
			text += anyTemplate(t, depth-1) + "{{ else }}" + anyTemplate(t, depth-1)
		}
		text += "{{ end }}"
	}
	return text
}

func TestWhetherATemplateIsRenderedDoesNotDependOnTheToken(t *testing.T) {
	passed, failed := 0, 0
	check := func(t *rapid.T) {
		text := "{{ with or .AccessToken `x` }}" + anyTemplate(t, rapid.IntRange(0, 2).Draw(t, "depth")) + "{{ end }}"
		_, before := rendered(text, canary)
		others := []Fields{nothing, with(aToken, "AccountID", ""), with(aToken, "Scope", "a"),
			with(aToken, "Scopes", []string{"a", ""})}
		for _, fields := range others {
			if _, err := rendered(text, fields); fmt.Sprint(err) != fmt.Sprint(before) {
				t.Fatalf("%s: %v, and then %v", text, before, err)
			}
		}
		if before == nil {
			passed++
		} else {
			failed++
		}
	}
	rapid.Check(t, check)
	if passed < 10 || failed < 10 {
		t.Fatalf("only %d templates were rendered, and %d refused", passed, failed)
	}
}
