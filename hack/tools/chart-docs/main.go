// Command chart-docs writes the comments of a chart's values.yaml into its README.md, as a table, and into its
// values.schema.json, as descriptions.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// marker is the line of the README below which all is written here.
const marker = "<!-- make generate writes what follows, from values.yaml -->\n"

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: chart-docs CHART")
		os.Exit(2)
	}
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "chart-docs:", err)
		os.Exit(1)
	}
}

func run(chart string) error {
	valuesPath := filepath.Join(chart, "values.yaml")
	schemaPath := filepath.Join(chart, "values.schema.json")
	readmePath := filepath.Join(chart, "README.md")

	var values yaml.Node
	if err := read(valuesPath, func(raw []byte) error { return yaml.Unmarshal(raw, &values) }); err != nil {
		return err
	}
	var schema map[string]any
	if err := read(schemaPath, func(raw []byte) error { return json.Unmarshal(raw, &schema) }); err != nil {
		return err
	}
	readme, err := os.ReadFile(readmePath) //nolint:gosec // the chart's own file
	if err != nil {
		return err
	}
	head, _, found := strings.Cut(string(readme), marker)
	if !found {
		return fmt.Errorf("%s lacks the line %s", readmePath, marker)
	}

	table := &strings.Builder{}
	fmt.Fprintf(table, "\n| Value | Default | Meaning |\n| --- | --- | --- |\n")
	if err := describe(values.Content[0], "", schema, table); err != nil {
		return err
	}
	text, err := encode(schema, "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(schemaPath, text, 0o644); err != nil { //nolint:gosec // as git has it
		return err
	}
	return os.WriteFile(readmePath, []byte(head+marker+table.String()), 0o644) //nolint:gosec // as git has it
}

func read(path string, decode func([]byte) error) error {
	raw, err := os.ReadFile(path) //nolint:gosec // the chart's own file
	if err != nil {
		return err
	}
	if err := decode(raw); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// describe adds the comments of a mapping's values to the schema's properties and to the table.
func describe(mapping *yaml.Node, prefix string, schema map[string]any, table *strings.Builder) error {
	properties, _ := schema["properties"].(map[string]any)
	for i := 0; i < len(mapping.Content); i += 2 {
		key, value := mapping.Content[i], mapping.Content[i+1]
		name, comment := prefix+key.Value, text(key.HeadComment)
		property, ok := properties[key.Value].(map[string]any)
		if comment == "" || !ok {
			return fmt.Errorf("%s needs a comment in values.yaml and a property in values.schema.json", name)
		}
		property["description"] = comment
		if isGroup(value) {
			if err := describe(value, name+".", property, table); err != nil {
				return err
			}
			continue
		}
		var decoded any
		if err := value.Decode(&decoded); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		shown, err := encode(decoded, "")
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		fmt.Fprintf(table, "| `%s` | `%s` | %s |\n", name, bytes.TrimSpace(shown), comment)
	}
	return nil
}

// isGroup reports whether the values in a mapping have comments of their own.
func isGroup(value *yaml.Node) bool {
	return value.Kind == yaml.MappingNode && len(value.Content) > 0 && value.Content[0].HeadComment != ""
}

// text returns a comment as one line.
func text(comment string) string {
	var words []string
	for line := range strings.Lines(comment) {
		words = append(words, strings.Fields(strings.TrimPrefix(line, "#"))...)
	}
	return strings.Join(words, " ")
}

func encode(value any, indent string) ([]byte, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", indent)
	err := encoder.Encode(value)
	return text.Bytes(), err
}
