package policies

import (
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// flat is a document in one line.
func flat(n *node) string {
	var b strings.Builder
	switch n.kind {
	case scalarNode:
		if n.null || n.value == "" { // neither is a value
			return "null"
		}
		return fmt.Sprintf("%q", n.value)
	case listNode:
		for _, item := range n.items {
			b.WriteString(flat(item) + ",")
		}
		return "[" + b.String() + "]"
	}
	for i, item := range n.items {
		b.WriteString(flat(n.keys[i]) + ":" + flat(item) + ",")
	}
	return "{" + b.String() + "}"
}

// flatOther is the same of another library's document.
func flatOther(n *yaml.Node) string {
	var b strings.Builder
	switch n.Kind {
	case yaml.DocumentNode:
		return flatOther(n.Content[0])
	case yaml.ScalarNode:
		if n.Tag == "!!null" || n.Value == "" {
			return "null"
		}
		return fmt.Sprintf("%q", n.Value)
	case yaml.SequenceNode:
		for _, item := range n.Content {
			b.WriteString(flatOther(item) + ",")
		}
		return "[" + b.String() + "]"
	case yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			b.WriteString(flatOther(n.Content[i]) + ":" + flatOther(n.Content[i+1]) + ",")
		}
		return "{" + b.String() + "}"
	}
	return "?"
}

// readsTheSame checks that what the reader takes says the same to others: an editor, a reviewer's tool.
func readsTheSame(t *testing.T, text string) {
	t.Helper()
	root, err := parse("x", []byte(text))
	if err != nil {
		return
	}
	var other yaml.Node
	if root.kind != mapNode || yaml.Unmarshal([]byte(text), &other) != nil || other.Kind == 0 || other.Content[0].Kind != yaml.MappingNode {
		return // the parser is laxer there
	}
	if got, want := flat(root), flatOther(&other); got != want {
		t.Errorf("%q is read as %s, elsewhere as %s", text, got, want)
	}
}

// TestReadsTheSame has the corners of YAML. The parser drops tabs in a value, and has its own mind about where a value
// of several lines ends: those are refused.
func TestReadsTheSame(t *testing.T) {
	for _, text := range []string{
		"a: b # c\n", "a: b\n  c\n", "a: |\n  x\n", "a: >-\n  x\n  y\n", "a:\r\n  b: c\r\n", "'a b': \"c\\u00e9\"\n", "a: 'it''s'\n",
		"a: [b, c: d]\n", "? a\n: b\n", "a: [0x1F, 1_000, 010, 1e3, .5, 12:30:45, 2020-01-01, yes, ~, null, Null, +1, .inf]\n", "a:\n- b\n-\n  c: d\n- - e\n",
		"a: {b: c, d: [e, f]}\n", "a: \"x\\\n  y\"\n", "a: x#y\n", "a: x #y\n", "{a: b}\n", "a: ''\n", "a: x,y\nb: [x,y]\n", "a: [x:y, z]\n",
		"a: http://x:80/y\n", "a: ./**/*.key\n", "a: ~/x\n", "a: ${X}/y\n", "a: [~/, ~/x]\n", "a: x:\n", "a: :x\n", "a: b\tc\n", "a: [b\tc]\n", "a: \"b\tc\"\n",
		"{\n\t\"a\": 1,\n\t\"b\": {\n\t\t\"c\": \"d\"\n\t}\n}\n", "a: b\t# c\td\n", "#\tx\ty\na: b\n", "a: -\r--0\n", "a: 'b\n  c'\n", "a: b\n\n  c\n",
		"a: \"b\" # c\n", "\"a\": 1\n\"a\\x20\": 2\n", "a: [\n  b, # c\n  d,\n]\n", "a: b  \n", "a:    b\n", "a: [ b , c ]\n", "a: {b: }\n", "a: {b:c}\n", "a: {\"b\":c}\n", "a: {b:}\n", "a: \"\\t\"\n", "0:\n?", "a: ?\n", "a: [?]\n", "a: [?, b]\n", "a: {?: b}\n", "a: '?'\n", "- ?\n", "a: ?b\n", "a:\n -\n b:", "a:\n-\nb: c\n", "a:\n  -\n    b: c\n", "a:\n- b:\n  c: d\n- e: f\n",
	} {
		readsTheSame(t, text)
	}
	if _, err := parse("x", []byte("{\n\t\"version\": 1,\n\t\"borders\": {\"name\": \"a\"}\n}\n")); err != nil {
		t.Errorf("JSON with tabs: %v", err)
	}
}
