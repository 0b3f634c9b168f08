package manifest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"

	"github.com/shoalrun/shoal/fleet"
)

// Add inserts what was learned into the text of a shoal.yaml, and leaves everything else as it is:
// comments, order, style, line ends. What is learned of other services, and what the file already has, is
// skipped. The result is parsed again before it is returned; where the text cannot be edited safely (a
// section that is an alias, say) the error says what to add by hand. data itself must be valid.
func Add(data []byte, learned []fleet.Learned) ([]byte, error) {
	m, err := Parse(File, data)
	if err != nil {
		return nil, err
	}
	for _, l := range learned {
		if l.Service != m.Service || m.declares(l) {
			continue
		}
		if data, err = insert(data, l); err != nil {
			return nil, err
		}
		if m, err = Parse(File, data); err != nil || !m.declares(l) {
			return nil, byHand(l)
		}
	}
	return data, nil
}

func byHand(l fleet.Learned) error {
	return fmt.Errorf("`%s` of this manifest cannot be edited for you; add `%s` to it by hand", l.Section, l.Entry)
}

func (m *Manifest) declares(l fleet.Learned) bool {
	switch l.Section {
	case "calls":
		return slices.ContainsFunc(m.Calls, func(c fleet.Call) bool { return c.Service == l.Entry })
	case "publishes":
		return slices.Contains(m.Publishes, l.Entry)
	case "subscribes":
		return slices.ContainsFunc(m.Subscribes, func(s fleet.Subscription) bool { return s.Topic == l.Entry })
	case "egress":
		e, wrong, _ := parseEgress(l.Entry)
		return wrong == "" && slices.Contains(m.Egress, e)
	}
	return false
}

func insert(data []byte, l fleet.Learned) ([]byte, error) {
	if !slices.Contains([]string{"calls", "egress", "publishes", "subscribes"}, l.Section) {
		return nil, fmt.Errorf("nothing can be learned for `%s`; there are calls, egress, publishes and subscribes", l.Section)
	}
	s := string(data)
	end := "\n"
	if strings.Contains(s, "\r\n") {
		s, end = strings.ReplaceAll(s, "\r\n", "\n"), "\r\n"
	}
	bom := strings.HasPrefix(s, "\ufeff")
	e := &edit{lines: strings.Split(strings.TrimPrefix(s, "\ufeff"), "\n")}
	e.add(l)
	if e.failed {
		return nil, byHand(l)
	}
	s = strings.Join(e.lines, end)
	if bom {
		s = "\ufeff" + s
	}
	return []byte(s), nil
}

// edit is a text being edited by lines.
type edit struct {
	lines  []string
	failed bool
}

func (e *edit) add(l fleet.Learned) {
	// The library may panic on odd input; the text parsed before, so this is for what is read twice.
	defer func() {
		if recover() != nil {
			e.failed = true
		}
	}()
	file, err := parser.Parse(lexer.Tokenize(strings.Join(e.lines, "\n")), 0, parser.AllowDuplicateMapKey())
	if err != nil || len(file.Docs) == 0 {
		e.failed = true
		return
	}
	pair, root := topLevel(file, l.Section)
	switch {
	case root == nil || root.IsFlowStyle:
		e.failed = true
	case pair == nil:
		e.append(l)
	default:
		e.into(pair, l)
	}
}

// topLevel returns the pair of a top-level key, nil where there is none, and the mapping it is in.
func topLevel(file *ast.File, name string) (*ast.MappingValueNode, *ast.MappingNode) {
	for _, doc := range file.Docs {
		root, ok := doc.Body.(*ast.MappingNode)
		if !ok {
			continue
		}
		for _, pair := range root.Values {
			if k, ok := pair.Key.(*ast.StringNode); ok && k.Value == name {
				return pair, root
			}
		}
		return nil, root
	}
	return nil, nil
}

// learnedEntry is an entry as YAML.
type learnedEntry struct{ fleet.Learned }

func (l learnedEntry) mapped() string {
	if l.Section == "subscribes" {
		return l.Entry + ": " + pull
	}
	return l.Entry + ": {}"
}

// isMap reports whether a section that is new is a map, and not a list.
func (l learnedEntry) isMap() bool { return l.Section == "calls" || l.Section == "subscribes" }

// scalar writes the entry as YAML: plain where that is safe, else in quotes.
func (l learnedEntry) scalar() string {
	if strings.HasPrefix(l.Entry, "*") || strings.HasPrefix(l.Entry, "[") {
		return `"` + l.Entry + `"`
	}
	return l.Entry
}

func (e *edit) append(l fleet.Learned) {
	entry := learnedEntry{l}
	added := []string{l.Section + ":", "  - " + entry.scalar()}
	if entry.isMap() {
		added[1] = "  " + entry.mapped()
	}
	last := len(e.lines)
	for last > 0 && strings.TrimSpace(e.lines[last-1]) == "" {
		last--
	}
	e.insertAfter(last, added...)
}

// into adds to the section that is there, in its own style.
func (e *edit) into(pair *ast.MappingValueNode, l fleet.Learned) {
	entry := learnedEntry{l}
	switch v := pair.Value.(type) {
	case *ast.NullNode:
		e.fill(pair, entry)
	case *ast.MappingNode:
		if v.IsFlowStyle {
			e.flow(v.End, len(v.Values) > 0, entry.mapped())
			return
		}
		e.insertAfter(e.sectionEnd(pair), indent(v.Values[0].Key.GetToken())+entry.mapped())
	case *ast.SequenceNode:
		if v.IsFlowStyle {
			e.flow(v.End, len(v.Values) > 0, entry.scalar())
			return
		}
		e.insertAfter(e.sectionEnd(pair), indent(v.Start)+"- "+entry.scalar())
	default:
		e.failed = true
	}
}

func indent(t *token.Token) string { return strings.Repeat(" ", t.Position.Column-1) }

// fill gives a key that has nothing its first entry.
func (e *edit) fill(pair *ast.MappingValueNode, entry learnedEntry) {
	at := pair.Key.GetToken().Position.Line
	line := e.lines[at-1]
	code, _, _ := strings.Cut(line, " #")
	if !strings.HasSuffix(strings.TrimRight(code, " "), ":") {
		e.failed = true
		return
	}
	first := "  - " + entry.scalar()
	if entry.isMap() {
		first = "  " + entry.mapped()
	}
	e.insertAfter(at, first)
}

// flow puts an entry before the bracket that closes a list or a map.
func (e *edit) flow(end *token.Token, more bool, entry string) {
	line, column := end.Position.Line-1, end.Position.Column-1
	runes := []rune(e.lines[line])
	if column >= len(runes) || runes[column] != '}' && runes[column] != ']' {
		e.failed = true
		return
	}
	before, after := string(runes[:column]), string(runes[column:])
	trimmed := strings.TrimRight(before, " ")
	switch {
	case !more || strings.HasSuffix(trimmed, ","):
		entry = trimmed + pad(trimmed) + entry
	case trimmed == "":
		e.multiline(line, before, after, entry)
		return
	default:
		entry = trimmed + ", " + entry
	}
	e.lines[line] = entry + before[len(trimmed):] + after
}

func pad(before string) string {
	if strings.HasSuffix(before, ",") {
		return " "
	}
	return ""
}

// multiline adds to a flow collection whose closing bracket stands on a line of its own.
func (e *edit) multiline(line int, before, after, entry string) {
	last := line - 1
	for last >= 0 && (strings.TrimSpace(e.lines[last]) == "" || strings.HasPrefix(strings.TrimSpace(e.lines[last]), "#")) {
		last--
	}
	if last < 0 {
		e.failed = true
		return
	}
	code, comment, commented := strings.Cut(e.lines[last], " #")
	trimmed := strings.TrimRight(code, " ")
	if !strings.HasSuffix(trimmed, ",") {
		e.lines[last] = trimmed + "," + code[len(trimmed):]
		if commented {
			e.lines[last] += " #" + comment
		}
	}
	e.lines[line] = before + after
	own := e.lines[last][:len(e.lines[last])-len(strings.TrimLeft(e.lines[last], " "))]
	e.insertAfter(last+1, own+entry)
}

func (e *edit) insertAfter(line int, added ...string) {
	line = min(line, len(e.lines))
	e.lines = slices.Insert(e.lines, line, added...)
	if line+len(added) == len(e.lines) {
		e.lines = append(e.lines, "")
	}
}

// sectionEnd is the last line of a top-level key, counted from 1: blank lines and comments after it are
// not part of it, a list that begins in the key's own column is.
func (e *edit) sectionEnd(pair *ast.MappingValueNode) int {
	at := pair.Key.GetToken().Position
	own, last := at.Column-1, at.Line
	for i := at.Line; i < len(e.lines); i++ {
		rest := strings.TrimLeft(e.lines[i], " ")
		depth := len(e.lines[i]) - len(rest)
		if rest == "" || strings.HasPrefix(rest, "#") {
			continue
		}
		if depth < own || depth == own && !strings.HasPrefix(rest, "-") {
			break
		}
		last = i + 1
	}
	return last
}
