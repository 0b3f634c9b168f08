package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// Limits of a file. The YAML library recurses with the depth of its input, and a Go stack that
// overflows cannot be recovered from; so depth is bounded before it sees anything.
const (
	maxSize  = 64 << 10 // bytes; the library takes the square of it for some
	maxDepth = 24       // levels of nesting; the formats need six
	maxNodes = 10_000   // values after aliases were followed
)

// parse is the reading of one file: what was found, and where.
type parse struct {
	file   string
	errors Errors
	at     map[string]position

	manifest  *Manifest  // one of the two is set
	workspace *Workspace //
}

func (p *parse) fail(at position, message, hint string) {
	p.errors = append(p.errors, &Error{File: p.file, Line: at.line, Column: at.column, Message: message, Hint: hint})
}

func (p *parse) mark(path string, at position) {
	if p.at == nil {
		p.at = map[string]position{}
	}
	p.at[path] = at
}

// read parses data, checks it against the keys, and hands every value that fits to its key.
func (p *parse) read(data []byte, keys []key) {
	root := p.tree(data)
	if root == nil {
		return
	}
	whole := shape{object: keys}
	if root.kind != mapping {
		p.fail(root.position, fmt.Sprintf("the file holds %s", root.kind), fmt.Sprintf("it takes keys such as `%s: %s`", keys[0].name, keys[0].example))
		return
	}
	bad := map[string]bool{}
	for i, k := range root.keys {
		before := len(p.errors)
		single := &node{kind: mapping, keys: root.keys[i : i+1], values: root.values[i : i+1]}
		p.fitObject(&shape{object: optional(keys)}, single, "")
		bad[k.text] = len(p.errors) > before
	}
	p.fitRequired(&whole, root, "")
	for _, k := range keys {
		if n := root.get(k.name); n != nil && !bad[k.name] {
			k.set(p, n)
		}
	}
}

// optional returns keys with none of them required.
func optional(keys []key) []key {
	all := make([]key, len(keys))
	for i, k := range keys {
		k.required = false
		all[i] = k
	}
	return all
}

// tree reads YAML into nodes, or notes why it cannot and returns nil.
func (p *parse) tree(data []byte) (root *node) {
	text, ok := p.text(data)
	if !ok {
		return nil
	}
	// The library has panicked on odd input before; a file must never end the process that reads it.
	defer func() {
		if recover() != nil {
			p.fail(position{1, 1}, "this is not YAML that can be read", "check its indentation and its quotes")
			root = nil
		}
	}()
	file := p.ast(text)
	if file == nil {
		return nil
	}
	body := p.only(file)
	if body == nil {
		return nil
	}
	b := &builder{p: p, anchors: map[string]*node{}}
	root = b.node(body, 0)
	if b.gaveUp {
		return nil
	}
	return root
}

// text returns data as the library can take it: UTF-8 with line feeds.
func (p *parse) text(data []byte) (string, bool) {
	if len(data) > maxSize {
		p.fail(position{1, 1}, fmt.Sprintf("the file has %d bytes", len(data)), fmt.Sprintf("it may have %d", maxSize))
		return "", false
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	s := strings.ReplaceAll(strings.ReplaceAll(string(data), "\r\n", "\n"), "\r", "\n")
	for i, r := range s {
		control := r < ' ' && r != '\n' && r != '\t' || r == 0x7f
		if _, n := utf8.DecodeRuneInString(s[i:]); control || r == utf8.RuneError && n == 1 {
			p.fail(lineAndColumn(s[:i]), "the file is not text", "it takes UTF-8 without control characters")
			return "", false
		}
	}
	return s, true
}

func lineAndColumn(before string) position {
	last := strings.LastIndexByte(before, '\n')
	return position{strings.Count(before, "\n") + 1, utf8.RuneCountInString(before[last+1:]) + 1}
}

func (p *parse) ast(text string) *ast.File {
	tokens := lexer.Tokenize(text)
	if at, deep := tooDeep(tokens); deep {
		p.fail(at, "this nests too deep", fmt.Sprintf("at most %d levels are read", maxDepth))
		return nil
	}
	if len(tokens) > 4*maxNodes {
		p.fail(position{1, 1}, fmt.Sprintf("the file has %d words and marks", len(tokens)), fmt.Sprintf("it may have %d", 4*maxNodes))
		return nil
	}
	file, err := parser.Parse(tokens, 0, parser.AllowDuplicateMapKey())
	if err == nil {
		return file
	}
	at, what := position{1, 1}, "it cannot be read"
	var syntax *yaml.SyntaxError
	if errors.As(err, &syntax) { // its own Error prints the source, which takes long for long lines
		at = place(syntax.Token)
		what, _, _ = strings.Cut(syntax.Message, "\n")
	}
	p.fail(at, "YAML: "+what, syntaxHint(what, text, at))
	return nil
}

func syntaxHint(what, text string, at position) string {
	lines := strings.Split(text, "\n")
	if at.line <= len(lines) && strings.HasPrefix(strings.TrimLeft(lines[at.line-1], " "), "\t") || strings.Contains(what, `'\t'`) {
		return "YAML is indented with spaces, never with tabs"
	}
	return "check the indentation, the quotes and the brackets around here"
}

// only returns the body of the one document of the file.
func (p *parse) only(file *ast.File) ast.Node {
	var body ast.Node
	for _, doc := range file.Docs {
		if doc == nil || doc.Body == nil {
			continue
		}
		if body != nil {
			p.fail(start(doc.Body), "a second document begins here", "the file is one YAML document; remove the `---` and what follows it")
			return nil
		}
		body = doc.Body
	}
	if body == nil {
		p.fail(position{1, 1}, "the file is empty", p.emptyHint())
	}
	return body
}

func (p *parse) emptyHint() string {
	if p.workspace != nil {
		return "it takes at least `repos: [./orders]`"
	}
	return "it takes at least `service: NAME` and `run: COMMAND`; `shoal init` writes one"
}

func (p *parse) otherFile(name string) string {
	keys, file := manifestKeys(), File
	if p.manifest != nil {
		keys, file = workspaceKeys(), WorkspaceFile
	}
	for _, k := range keys {
		if k.name == name {
			return file
		}
	}
	return ""
}

// start is where a node begins; the library's own token of a map is its first colon.
func start(n ast.Node) position {
	pairs := []*ast.MappingValueNode(nil)
	switch n := n.(type) {
	case *ast.MappingNode:
		pairs = n.Values
	case *ast.MappingValueNode:
		pairs = append(pairs, n)
	}
	if len(pairs) > 0 && pairs[0].Key != nil {
		return place(pairs[0].Key.GetToken())
	}
	return place(n.GetToken())
}

func place(t *token.Token) position {
	if t == nil || t.Position == nil {
		return position{1, 1}
	}
	return position{max(t.Position.Line, 1), max(t.Position.Column, 1)}
}

// tooDeep bounds every way of nesting that YAML has: brackets, indentation, and marks in one line.
func tooDeep(tokens token.Tokens) (position, bool) {
	flow, marks, line := 0, 0, 0
	var indents []int
	for _, t := range tokens {
		if t.Position.Line != line {
			line, marks = t.Position.Line, 0
			for len(indents) > 0 && indents[len(indents)-1] >= t.Position.Column {
				indents = indents[:len(indents)-1]
			}
			indents = append(indents, t.Position.Column)
		}
		switch t.Type {
		case token.MappingStartType, token.SequenceStartType:
			flow++
		case token.MappingEndType, token.SequenceEndType:
			flow = max(flow-1, 0)
		case token.SequenceEntryType, token.MappingKeyType, token.AnchorType, token.TagType:
			marks++
		}
		if flow > maxDepth || marks > 2*maxDepth || len(indents) > maxDepth {
			return place(t), true
		}
	}
	return position{}, false
}
