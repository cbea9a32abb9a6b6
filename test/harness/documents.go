package harness

import (
	"fmt"
	"os"
	"strings"
)

// Document is a Markdown file of this repository.
type Document struct {
	Path   string // from the repository's root
	Text   string
	Blocks []Block
	Prose  string // what is outside of blocks
}

// FirstDocuments lead a newcomer from an empty cluster to a pod that has its token. The README, which is read first, sends
// them to the page on installation for an image.
var FirstDocuments = []string{
	"docs/install.md", "README.md", "docs/credentials.md", "docs/tokens.md", "docs/grants.md",
}

// Block is a fenced block.
type Block struct{ Lang, Text string }

// FirstLine names a block.
func (b Block) FirstLine() string {
	line, _, _ := strings.Cut(b.Text, "\n")
	return line
}

// ReadDocument reads a file by its path from the repository's root.
func ReadDocument(path string) (Document, error) {
	raw, err := os.ReadFile(Path(path))
	if err != nil {
		return Document{}, err
	}
	doc := Document{Path: path, Text: string(raw)}
	var open *Block
	for line := range strings.Lines(doc.Text) {
		lang, fence := strings.CutPrefix(strings.TrimRight(line, "\n"), "```")
		switch {
		case fence && open == nil:
			open = &Block{Lang: lang}
		case fence:
			doc.Blocks = append(doc.Blocks, *open)
			open = nil
		case open != nil:
			open.Text += line
		default:
			doc.Prose += line
		}
	}
	if open != nil {
		return Document{}, fmt.Errorf("%s: a block is not closed", path)
	}
	return doc, nil
}
