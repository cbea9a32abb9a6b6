package v1alpha1

import (
	"strings"
	"testing"
)

func TestOfARefreshRequestOnlyTheBeginningCountsInWholeCharacters(t *testing.T) {
	for name, row := range map[string]struct{ annotation, counts string }{
		"short":                    {"2026-11-24T10:00:00Z", "2026-11-24T10:00:00Z"},
		"as long as it may be":     {strings.Repeat("x", 256), strings.Repeat("x", 256)},
		"long":                     {strings.Repeat("x", 200<<10), strings.Repeat("x", 256)},
		"long, a character across": {strings.Repeat("x", 255) + "é", strings.Repeat("x", 255)},
		"long, a character before": {strings.Repeat("x", 254) + "éé", strings.Repeat("x", 254) + "é"},
		"long, of wide characters": {strings.Repeat("語", 100), strings.Repeat("語", 85)},
		"none":                     {},
	} {
		token := &SFMCToken{}
		token.Annotations = map[string]string{RefreshRequestedAtAnnotation: row.annotation}
		if got := token.RefreshRequest(); got != row.counts {
			t.Errorf("%s: got %d bytes %q, want %d", name, len(got), got, len(row.counts))
		}
	}
}
