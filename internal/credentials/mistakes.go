package credentials

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxLength bounds a value in bytes; real ones have less than 100.
const maxLength = 1024

// invisible are characters that nobody sees and that come along when people copy.
var invisible = map[rune]string{
	'\u00a0': "a no-break space",
	'\u00ad': "a soft hyphen",
	'\u200b': "a zero-width space",
	'\u200c': "a zero-width non-joiner",
	'\u200d': "a zero-width joiner",
	'\u200e': "a left-to-right mark",
	'\u200f': "a right-to-left mark",
	'\u2060': "a word joiner",
	'\ufeff': "a byte order mark",
}

// quotes are pairs that people put around values.
var quotes = []string{`""`, `''`, "``", "“”", "„“", "‘’", "«»"}

// mistakeIn returns what is wrong about a value, without quoting it; nothing if it can be used. White space around it
// was taken away.
func mistakeIn(value string, found bool) string {
	switch {
	case !found:
		return "is missing"
	case value == "":
		return "is empty"
	case len(value) > maxLength:
		return fmt.Sprintf("is longer than %d bytes", maxLength)
	case strings.Contains(value, "\x00"):
		return "is no text, or one that was saved as UTF-16: save it as UTF-8"
	case isQuoted(value):
		return "has quotes around it: take them away"
	}
	if mistake := strangeCharacterIn(value); mistake != "" {
		return mistake
	}
	if isEncoded(value) {
		return "was encoded twice in Base64: under data it is encoded once, under stringData not at all"
	}
	return ""
}

func isQuoted(value string) bool {
	return slices.ContainsFunc(quotes, func(pair string) bool {
		first, size := utf8.DecodeRuneInString(pair)
		last := pair[size:]
		return len(value) > len(pair) && strings.HasPrefix(value, string(first)) && strings.HasSuffix(value, last)
	})
}

// strangeCharacterIn names the first character that no value has, and its place.
func strangeCharacterIn(value string) string {
	place := 0
	for at, c := range value {
		place++
		name := ""
		switch {
		case c > ' ' && c <= '~':
			continue
		case invisible[c] != "":
			name = fmt.Sprintf("%s (U+%04X), which can't be seen,", invisible[c], c)
		case c == utf8.RuneError && value[at] != "\ufffd"[0]:
			name = "a byte that is no UTF-8"
		case c == '\n' || c == '\r':
			name = "a line break"
		case c == ' ' || c == '\t' || unicode.IsSpace(c):
			name = "a space"
		case !unicode.IsPrint(c):
			name = fmt.Sprintf("a character that can't be seen (U+%04X)", c)
		default:
			name = "a character that is not ASCII"
		}
		return fmt.Sprintf("has %s as character %d of %d", name, place, utf8.RuneCountInString(value))
	}
	return ""
}

// isEncoded reports whether a value is the Base64 of something that could be one. By chance, one of 16 characters and
// more is less often than once in ten million times.
func isEncoded(value string) bool {
	decoded, err := base64.StdEncoding.DecodeString(value)
	text := strings.TrimSpace(string(decoded))
	return err == nil && len(text) >= 16 && strangeCharacterIn(text) == ""
}

// otherKeys says which keys are there beside the known ones, where one is missing; nothing if none is.
func otherKeys(data map[string][]byte) string {
	const most = 10
	var others []string
	isMissing := false
	for _, key := range []string{keyClientID, keyClientSecret, keyAuthBaseURI} {
		_, found := data[key]
		isMissing = isMissing || !found
	}
	for _, key := range slices.Sorted(maps.Keys(data)) {
		if !slices.Contains(knownKeys, key) {
			others = append(others, key)
		}
	}
	switch {
	case !isMissing:
		return ""
	case len(data) == 0:
		return "; there are no keys at all"
	case len(others) == 0:
		return ""
	case len(others) > most:
		others = append(others[:most-1], fmt.Sprintf("%s and %d more", others[most-1], len(others)-most))
	}
	return "; keys with other names are " + strings.Join(others, ", ")
}
