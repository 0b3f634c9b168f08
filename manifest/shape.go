package manifest

import (
	"fmt"
	"slices"
	"strings"
)

// key is one key of a file: its name, what it may hold, and what to tell the reader about it.
type key struct {
	name     string
	shape    shape
	required bool
	doc      string // a sentence or two for the reference and for editors
	fallback string // what holds where the key is left out, as written
	example  string // YAML of the value, in flow style
	set      func(p *parse, n *node)
}

// shape is what a value may be: a scalar, a list, a map with free keys, an object with known keys,
// or several of them. Parser, schema and reference all read it.
type shape struct {
	scalar  *scalar
	list    *shape // of each element
	entries *entries
	object  []key
	// oneOf names keys of object of which exactly one must be there.
	oneOf []string
	// empty says that nothing at all may stand there (`inventory:`), as it may for every list and map
	// (`calls:` with its entries commented out) that is not full.
	empty bool
	// full refuses a list or a map without elements; the text says what to write instead.
	full string
}

type entries struct {
	key   scalar
	value shape
}

// scalar is what a single value may be.
type scalar struct {
	want    string // in words: `a duration such as 300ms`
	accepts kinds
	enum    []string
	pattern string // for the schema: a regular expression that every good value matches
	min     int    // of a number, with max; both 0: unlimited
	max     int
	// check says what is wrong with a text and what would be right; both empty: it is good.
	check func(text string) (wrong, right string)
}

// kinds is a set of kinds of node.
type kinds uint8

const (
	null kinds = 1 << iota
	boolean
	number
	text
	list
	mapping
	anyScalar = boolean | number | text
)

// String names a kind as errors do.
func (k kinds) String() string {
	switch k {
	case null:
		return "empty"
	case boolean:
		return "a boolean"
	case number:
		return "a number"
	case text:
		return "text"
	case list:
		return "a list"
	}
	return "a map"
}

// want says in words what the shape takes.
func (s *shape) want() string {
	var all []string
	if s.scalar != nil {
		all = append(all, s.scalar.want)
	}
	if s.object != nil {
		all = append(all, "a map with "+quoteNames(s.object))
	}
	if s.entries != nil {
		all = append(all, "a map from "+s.entries.key.want+" to "+s.entries.value.want())
	}
	if s.list != nil {
		all = append(all, "a list, each "+s.list.want())
	}
	return strings.Join(all, ", or ")
}

func quoteNames(keys []key) string {
	names := keyNames(keys)
	for i := range names {
		names[i] = "`" + names[i] + "`"
	}
	if len(names) == 1 {
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}

func keyNames(keys []key) []string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	return names
}

func (s *shape) mayBeEmpty() bool {
	return s.empty || (s.list != nil || s.entries != nil) && s.full == ""
}

// fit checks n against s, noting every mistake, and reports whether n may be used. path is the dotted
// name of the value, for messages.
func (p *parse) fit(s *shape, n *node, path string) bool {
	switch {
	case n.kind == 0:
		return false
	case n.kind == null && s.mayBeEmpty():
		return true
	case n.kind == list && s.list != nil:
		return p.fitList(s, n, path)
	case n.kind == mapping && s.object != nil:
		return p.fitObject(s, n, path)
	case n.kind == mapping && s.entries != nil:
		return p.fitEntries(s, n, path)
	case n.kind&anyScalar != 0 && s.scalar != nil:
		return p.fitScalar(s, n, path)
	}
	p.fail(n.position, fmt.Sprintf("`%s` is %s", path, n.kind), "it takes "+s.want())
	return false
}

func (p *parse) fitList(s *shape, n *node, path string) bool {
	if len(n.items) == 0 && s.full != "" {
		p.fail(n.position, fmt.Sprintf("`%s` is an empty list", path), s.full)
		return false
	}
	ok := true
	for i, item := range n.items {
		if item.kind == mapping && s.entries != nil && s.list.scalar != nil {
			options := shape{entries: s.entries}
			p.fail(item.position, fmt.Sprintf("`%s[%d]` is a map", path, i), fmt.Sprintf("the list is of names; with options, `%s` takes %s", path, options.want()))
			ok = false
			continue
		}
		ok = p.fit(s.list, item, fmt.Sprintf("%s[%d]", path, i)) && ok
	}
	return ok
}

func (p *parse) fitEntries(s *shape, n *node, path string) bool {
	if len(n.keys) == 0 && s.full != "" {
		p.fail(n.position, fmt.Sprintf("`%s` is an empty map", path), s.full)
		return false
	}
	ok := true
	for i, k := range n.keys {
		below := path + "." + k.text
		p.mark(below, k.position)
		keyShape := shape{scalar: &s.entries.key}
		ok = p.fitScalar(&keyShape, k, path) && ok
		ok = p.fit(&s.entries.value, n.values[i], below) && ok
	}
	return ok
}

func (p *parse) fitObject(s *shape, n *node, path string) bool {
	ok := true
	for i, k := range n.keys {
		at := slices.IndexFunc(s.object, func(known key) bool { return known.name == k.text })
		if at < 0 {
			p.unknownKey(k, path, s.object)
			ok = false
			continue
		}
		below := dotted(path, k.text)
		p.mark(below, k.position)
		ok = p.fit(&s.object[at].shape, n.values[i], below) && ok
	}
	return p.fitRequired(s, n, path) && ok
}

func (p *parse) fitRequired(s *shape, n *node, path string) bool {
	ok := true
	for _, k := range s.object {
		if k.required && n.get(k.name) == nil {
			p.fail(n.position, fmt.Sprintf("`%s` is missing", dotted(path, k.name)), fmt.Sprintf("add `%s: %s`", k.name, k.example))
			ok = false
		}
	}
	if s.oneOf == nil {
		return ok
	}
	have := slices.DeleteFunc(slices.Clone(s.oneOf), func(name string) bool { return n.get(name) == nil })
	if len(have) == 1 {
		return ok
	}
	p.fail(n.position, fmt.Sprintf("`%s` has %d of `%s`", path, len(have), strings.Join(s.oneOf, "`, `")), "it takes exactly one of them")
	return false
}

func (p *parse) fitScalar(s *shape, n *node, path string) bool {
	want := s.scalar
	if n.kind&want.accepts == 0 {
		wrong, right := want.misfit(s, n)
		p.fail(n.position, fmt.Sprintf("`%s`%s", path, wrong), right)
		return false
	}
	wrong, right := want.problem(n)
	if wrong == "" && right == "" {
		return true
	}
	p.fail(n.position, fmt.Sprintf("`%s`: %s", path, wrong), right)
	return false
}

// misfit says what is wrong with a value of another kind: what would be wrong with it as text, too, or
// else its kind alone.
func (want *scalar) misfit(s *shape, n *node) (wrong, right string) {
	if want.accepts&anyScalar == text && n.kind != null {
		if wrong, right = want.problem(n); wrong != "" {
			return ": " + wrong, right
		}
		return fmt.Sprintf(" is %s (%s)", n.kind, shorten(n.text)), fmt.Sprintf("it takes %s; as text it is written %q", s.want(), n.text)
	}
	return fmt.Sprintf(" is %s (%s)", n.kind, shorten(n.text)), "it takes " + s.want()
}

// problem says what is wrong with the value of n and what would be right.
func (want *scalar) problem(n *node) (wrong, right string) {
	if want.enum != nil && !slices.Contains(want.enum, n.text) {
		return fmt.Sprintf("%s is not known", quoted(n.text)), didYouMean(n.text, want.enum, "it takes "+want.want)
	}
	if want.max > 0 {
		v, ok := n.integer()
		if !ok || v < want.min || v > want.max {
			return fmt.Sprintf("%s is out of range", shorten(n.text)), "it takes " + want.want
		}
	}
	if want.check != nil {
		return want.check(n.text)
	}
	return "", ""
}

func (p *parse) unknownKey(k *node, path string, known []key) {
	names := keyNames(known)
	right := didYouMean(k.text, names, "known keys are "+strings.Join(names, ", "))
	if other := p.otherFile(k.text); path == "" && other != "" && nearest(k.text, names) == "" {
		right = fmt.Sprintf("it is a key of %s", other)
	}
	where := ""
	if path != "" {
		where = fmt.Sprintf(" in `%s`", path)
	}
	p.fail(k.position, fmt.Sprintf("unknown key %s%s", quoted(k.text), where), right)
}

func dotted(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// quoted puts a user's words into backquotes, shortened, on one line.
func quoted(s string) string { return "`" + shorten(s) + "`" }

func shorten(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	if r := []rune(s); len(r) > 60 {
		return string(r[:57]) + "..."
	}
	return s
}
