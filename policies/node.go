package policies

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// A policy is small. The parser calls itself for each level of a document, so that is bounded before it runs.
const (
	maxSize  = 1 << 20 // bytes
	maxLine  = 4096
	maxDepth = 32
	maxWords = 20_000 // the parser's time grows with their square
)

// Position is a place in a policy.
type Position struct {
	File         string // as the user named it; of a built-in one "built-in NAME"
	Line, Column int    // from 1; the column counts characters
	width        int
	line         string // what stands there
}

// String is FILE:LINE:COLUMN.
func (p Position) String() string {
	return p.File + ":" + strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Column)
}

// Excerpt is the line that a position is in, and a mark below it.
func (p Position) Excerpt() []string {
	const widest = 100
	line, column := []rune(strings.ReplaceAll(p.line, "\t", " ")), p.Column-1
	if column > len(line) {
		column = len(line)
	}
	if len(line) > widest && column > widest/2 { // what the error is about stays in sight
		cut := min(column-widest/2, len(line)-1)
		line, column = append([]rune("… "), line[cut:]...), column-cut+2
	}
	if len(line) > widest {
		line = append(line[:widest], []rune(" …")...)
	}
	number := fmt.Sprintf("%5d | ", p.Line)
	mark := strings.Repeat("^", max(1, min(p.width, len(line)-column)))
	return []string{number + string(line), strings.Repeat(" ", len(number)+column) + mark}
}

// Error is a mistake in a policy.
type Error struct {
	Position
	Problem string
}

func (e *Error) Error() string { return e.Position.String() + ": " + e.Problem }

// source is the text of one policy.
type source struct {
	name  string
	lines []string
}

// at is a position in it.
func (s *source) at(line, column, width int) Position {
	p := Position{File: s.name, Line: max(line, 1), Column: max(column, 1), width: width}
	if i := p.Line - 1; i < len(s.lines) {
		p.line = strings.TrimSuffix(s.lines[i], "\r")
	}
	return p
}

type nodeKind int

const (
	scalarNode nodeKind = iota
	listNode
	mapNode
)

func (k nodeKind) String() string { return [...]string{"a value", "a list", "a mapping"}[k] }

// node is a part of a document.
type node struct {
	kind  nodeKind
	at    Position
	value string // of a scalar, as it was written but for its quotes
	null  bool
	items []*node // of a list, or the values of a mapping
	keys  []*node
}

func (n *node) fail(format string, args ...any) error {
	return &Error{Position: n.at, Problem: fmt.Sprintf(format, args...)}
}

// parse reads one document. It takes the part of YAML that reads the same to everybody: no anchors, aliases and tags,
// no key twice, no second document.
func parse(name string, text []byte) (*node, error) {
	src := &source{name: name}
	whole := src.at(1, 1, 1)
	switch {
	case len(text) > maxSize:
		return nil, &Error{whole, "is larger than 1 MiB"}
	case !utf8.Valid(text):
		return nil, &Error{whole, "is not UTF-8"}
	}
	src.lines = strings.Split(string(text), "\n")
	for i, l := range src.lines {
		if len(l) > maxLine {
			return nil, &Error{src.at(i+1, 1, 1), "has a line of more than 4096 bytes"}
		}
		l = strings.TrimSuffix(l, "\r")
		// To the parser a document ends there whatever follows; to others ...x is a word.
		if strings.HasPrefix(l, "...") || strings.HasPrefix(l, "---") && strings.Trim(l[3:], " \t") != "" && !strings.HasPrefix(strings.TrimLeft(l[3:], " \t"), "#") {
			return nil, &Error{src.at(i+1, 1, 3), "has the mark of a document's begin or end; a policy is one document"}
		}
		if j := strings.IndexFunc(l, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f || r == 0xfeff }); j >= 0 {
			return nil, &Error{src.at(i+1, utf8.RuneCountInString(l[:j])+1, 1), "has a control character"}
		}
		// The parser drops tabs within a value.
		if j := strings.IndexByte(strings.Trim(l, "\t "), '\t'); j >= 0 && strings.TrimLeft(l, "\t ")[0] != '#' {
			j += len(l) - len(strings.TrimLeft(l, "\t "))
			if strings.TrimLeft(l[j:], "\t ")[0] != '#' {
				return nil, &Error{src.at(i+1, utf8.RuneCountInString(l[:j])+1, 1), "has a tab between words; a policy has blanks"}
			}
		}
	}
	if err := bounded(src, string(text)); err != nil {
		return nil, err
	}
	file, err := parser.ParseBytes(text, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		return nil, src.syntax(err)
	}
	var root *node
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if _, comment := doc.Body.(*ast.CommentGroupNode); comment {
			continue
		}
		body, err := src.convert(doc.Body, 0)
		if err != nil {
			return nil, err
		}
		if root != nil {
			return nil, body.fail("is a second document; a policy is one")
		}
		root = body
	}
	if root == nil {
		return nil, &Error{src.at(1, 1, 1), "is empty; a policy begins with version: 1"}
	}
	return root, nil
}

// bounded refuses what is too long, or nested too deeply in brackets. What is nested by its place in the line is bounded
// by maxLine.
func bounded(src *source, text string) error {
	depth := 0
	for i, t := range lexer.Tokenize(text) {
		if i == maxWords {
			return &Error{src.position(t), "is too long: a policy has 20000 words and signs at the most"}
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			if depth++; depth > maxDepth {
				return &Error{src.position(t), "is nested too deeply"}
			}
		case token.MappingEndType, token.SequenceEndType:
			depth--
		default:
		}
	}
	return nil
}

func (s *source) position(t *token.Token) Position {
	if t == nil || t.Position == nil {
		return s.at(1, 1, 1)
	}
	return s.at(t.Position.Line, t.Position.Column, utf8.RuneCountInString(strings.TrimSpace(t.Origin)))
}

// syntax makes an Error of the parser's.
func (s *source) syntax(err error) error {
	var e interface {
		GetToken() *token.Token
		GetMessage() string
	}
	if errors.As(err, &e) {
		if strings.HasPrefix(e.GetMessage(), "'@'") {
			return &Error{s.position(e.GetToken()), "begins with @, which YAML keeps for itself: a group stands in quotes, as \"@mount\""}
		}
		return &Error{s.position(e.GetToken()), "is not YAML: " + e.GetMessage()}
	}
	return &Error{s.at(1, 1, 1), "is not YAML: " + strings.SplitN(err.Error(), "\n", 2)[0]}
}

func (s *source) convert(from ast.Node, depth int) (*node, error) {
	n := &node{at: s.position(from.GetToken())}
	if depth > maxDepth {
		return nil, n.fail("is nested too deeply")
	}
	switch v := from.(type) {
	case *ast.AnchorNode, *ast.AliasNode, *ast.MergeKeyNode:
		return nil, n.fail("anchors and aliases are not used in a policy; write it out, or use extends")
	case *ast.TagNode:
		return nil, n.fail("tags are not used in a policy")
	case *ast.MappingNode:
		n.kind = mapNode
		seen := make(map[string]int, len(v.Values))
		for _, pair := range v.Values {
			if err := s.pair(n, pair, seen, depth); err != nil {
				return nil, err
			}
		}
	case *ast.MappingValueNode:
		n.kind = mapNode
		return n, s.pair(n, v, map[string]int{}, depth)
	case *ast.SequenceNode:
		n.kind = listNode
		for _, item := range v.Values {
			child, err := s.convert(item, depth+1)
			if err != nil {
				return nil, err
			}
			if !v.IsFlowStyle && !child.null && child.at.Column <= n.at.Column { // to others it belongs to what the list is in
				return nil, child.fail("has to stand deeper than the dash that it belongs to")
			}
			n.items = append(n.items, child)
		}
	case *ast.NullNode:
		n.null = true
	case *ast.LiteralNode:
		return nil, n.fail("is a block; a value stands in one line")
	case ast.ScalarNode:
		t := from.GetToken()
		if strings.Contains(strings.TrimSpace(t.Origin), "\n") { // where it ends is a matter of indentation
			return nil, n.fail("is written in more than one line")
		}
		if t.Value == "?" && t.Indicator != token.QuotedScalarIndicator { // to others it begins a key
			return nil, n.fail(`is a lone "?"; as a value it stands in quotes`)
		}
		n.value = t.Value
	default:
		return nil, n.fail("is not understood")
	}
	if strings.ContainsRune(n.value, 0) { // which no flag can have
		return nil, n.fail("has a NUL byte")
	}
	return n, nil
}

// pair adds a key and its value; seen has the lines of the keys before it.
func (s *source) pair(n *node, pair *ast.MappingValueNode, seen map[string]int, depth int) error {
	key, err := s.convert(pair.Key, depth+1)
	if err != nil {
		return err
	}
	if key.kind != scalarNode || key.null {
		return key.fail("is not a key")
	}
	if colon := s.position(pair.Start); pair.Key.GetToken().Indicator != token.QuotedScalarIndicator {
		// To others name:value is one word.
		if behind := []rune(colon.line); len(behind) > colon.Column && behind[colon.Column-1] == ':' && !strings.ContainsRune(" \t", behind[colon.Column]) {
			return key.fail("%q has no blank behind its colon", key.value)
		}
	}
	if len(n.keys) == 0 {
		n.at = key.at // the parser gives the colon
	}
	if line, twice := seen[key.value]; twice {
		return key.fail("%q is given a second time; the first is in line %d", key.value, line)
	}
	seen[key.value] = key.at.Line
	value, err := s.convert(pair.Value, depth+1)
	if err != nil {
		return err
	}
	if value.null { // the parser gives the colon, or the next line
		value.at = key.at
	}
	// The parser takes what stands to the left of its key, too.
	if left := key.at.Column - value.at.Column; value.at.Line != key.at.Line && (left > 0 || left == 0 && value.kind != listNode) {
		return value.fail("is not indented more than its key %q", key.value)
	}
	n.keys, n.items = append(n.keys, key), append(n.items, value)
	return nil
}
