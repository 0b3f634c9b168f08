package manifest

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/shoalrun/shoal/fleet"
)

// node is a YAML value with its place; aliases are followed and merge keys are merged.
type node struct {
	position
	kind   kinds   // 0: it could not be read, and that was said
	text   string  // of a scalar
	items  []*node // of a list
	keys   []*node // of a mapping, with values
	values []*node
}

// get returns the value of a key of a mapping, or nil.
func (n *node) get(name string) *node {
	for i, k := range n.keys {
		if k.text == name {
			return n.values[i]
		}
	}
	return nil
}

// word returns the text of a key of a mapping, or the empty string.
func (n *node) word(name string) string {
	if v := n.get(name); v != nil {
		return v.text
	}
	return ""
}

// words returns the texts of a list under a key of a mapping.
func (n *node) words(name string) []string {
	v := n.get(name)
	if v == nil {
		return nil
	}
	var all []string
	for _, item := range v.items {
		all = append(all, item.text)
	}
	return all
}

// texts returns the items of a list of scalars.
func (n *node) texts() []string {
	all := make([]string, 0, len(n.items))
	for _, v := range n.items {
		all = append(all, v.text)
	}
	return all
}

func (n *node) integer() (int, bool) {
	v, err := strconv.Atoi(n.text)
	return v, err == nil && n.kind&(number|text) != 0
}

func (n *node) port() uint16 {
	v, _ := n.integer()
	return uint16(v)
}

func (n *node) truth() bool { return n != nil && strings.EqualFold(n.text, "true") }

func (n *node) duration() fleet.Duration {
	if n == nil {
		return 0
	}
	d, _ := time.ParseDuration(n.text)
	return fleet.Duration(d)
}

// builder turns the library's tree into nodes. An alias shares the node of its anchor, and every use
// counts against a budget, so that aliases of aliases cannot grow without bound.
type builder struct {
	p       *parse
	anchors map[string]*node
	nodes   int
	gaveUp  bool
}

func (b *builder) node(n ast.Node, depth int) *node {
	b.nodes++
	if depth > maxDepth || b.nodes > maxNodes {
		b.giveUp(n)
	}
	if b.gaveUp || n == nil {
		return &node{kind: null, position: position{1, 1}}
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		return b.mapping(n, n.Values, depth)
	case *ast.MappingValueNode:
		return b.mapping(n, []*ast.MappingValueNode{n}, depth)
	case *ast.SequenceNode:
		return b.list(n, depth)
	case *ast.AnchorNode:
		v := b.node(n.Value, depth+1)
		if n.Name != nil && n.Name.GetToken() != nil {
			b.anchors[n.Name.GetToken().Value] = v
		}
		return v
	case *ast.AliasNode:
		return b.alias(n)
	case *ast.TagNode:
		return b.tag(n, depth)
	}
	return b.scalar(n)
}

func (b *builder) giveUp(n ast.Node) {
	if b.gaveUp {
		return
	}
	b.gaveUp = true
	at := position{1, 1}
	if n != nil {
		at = place(n.GetToken())
	}
	b.p.fail(at, "the file is too large or nests too deep", fmt.Sprintf("at most %d values in %d levels are read", maxNodes, maxDepth))
}

func (b *builder) scalar(n ast.Node) *node {
	v := &node{position: place(n.GetToken()), kind: text}
	switch n := n.(type) {
	case *ast.StringNode:
		v.text = n.Value
	case *ast.LiteralNode:
		if n.Value != nil {
			v.text = n.Value.Value
		}
	case *ast.NullNode:
		v.kind = null
	case *ast.BoolNode:
		v.kind, v.text = boolean, n.GetToken().Value
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		v.kind, v.text = number, n.GetToken().Value
	default:
		b.p.fail(v.position, "this YAML cannot be read here", "write plain values, lists and maps")
		v.kind = 0
	}
	return v
}

func (b *builder) tag(n *ast.TagNode, depth int) *node {
	v := b.node(n.Value, depth+1)
	tag := n.GetToken().Value
	switch tag {
	case "!!str":
		if v.kind&anyScalar != 0 {
			return &node{position: v.position, kind: text, text: v.text}
		}
	case "!!int", "!!bool", "!!map", "!!seq", "!!null", "!!float":
	default:
		b.p.fail(place(n.GetToken()), fmt.Sprintf("the tag %s means nothing here", quoted(tag)), "remove it")
	}
	return v
}

func (b *builder) alias(n *ast.AliasNode) *node {
	name := ""
	if n.Value != nil && n.Value.GetToken() != nil {
		name = n.Value.GetToken().Value
	}
	v, ok := b.anchors[name]
	if !ok {
		b.p.fail(place(n.GetToken()), fmt.Sprintf("the alias %s has no anchor before it", quoted("*"+name)), fmt.Sprintf("put `&%s` before the value that it stands for, or quote it if it is text", shorten(name)))
		return &node{position: place(n.GetToken())}
	}
	if b.nodes += v.size(maxNodes); b.nodes > maxNodes {
		b.giveUp(n)
	}
	return v
}

// size counts the nodes below n, and stops counting at limit.
func (n *node) size(limit int) int {
	total := 1
	for _, all := range [][]*node{n.items, n.keys, n.values} {
		for _, below := range all {
			if total >= limit {
				return limit
			}
			total += below.size(limit - total)
		}
	}
	return total
}

func (b *builder) list(n *ast.SequenceNode, depth int) *node {
	v := &node{kind: list, position: place(n.Start)}
	for _, item := range n.Values {
		v.items = append(v.items, b.node(item, depth+1))
	}
	return v
}

func (b *builder) mapping(n ast.Node, pairs []*ast.MappingValueNode, depth int) *node {
	v := &node{kind: mapping, position: start(n)}
	var merged []*node
	for _, pair := range pairs {
		if b.gaveUp {
			break
		}
		if pair.Key != nil && pair.Key.IsMergeKey() {
			merged = append(merged, b.merge(pair, depth)...)
			continue
		}
		b.pair(v, pair, depth)
	}
	for _, m := range merged {
		v.fill(m)
	}
	return v
}

func (b *builder) pair(v *node, pair *ast.MappingValueNode, depth int) {
	k := b.key(pair.Key, depth+1)
	value := b.node(pair.Value, depth+1)
	if k == nil || b.gaveUp {
		return
	}
	if first := v.key(k.text); first != nil {
		b.p.fail(k.position, fmt.Sprintf("the key %s is there twice", quoted(k.text)), fmt.Sprintf("the first is in line %d; keep one", first.line))
		return
	}
	if value.kind == null && value.line == 1 && k.line > 1 {
		value.position = k.position
	}
	v.keys, v.values = append(v.keys, k), append(v.values, value)
}

func (b *builder) key(n ast.MapKeyNode, depth int) *node {
	if n == nil {
		return nil
	}
	var of ast.Node = n
	if explicit, ok := n.(*ast.MappingKeyNode); ok {
		of = explicit.Value
	}
	k := b.node(of, depth)
	if !b.gaveUp && k.kind != 0 && k.kind&anyScalar == 0 {
		b.p.fail(place(n.GetToken()), fmt.Sprintf("a key is %s", k.kind), "keys are single words or numbers")
		return nil
	}
	if k.kind == 0 {
		return nil
	}
	return k
}

func (b *builder) merge(pair *ast.MappingValueNode, depth int) []*node {
	v := b.node(pair.Value, depth+1)
	from := []*node{v}
	if v.kind == list {
		from = v.items
	}
	for _, m := range from {
		if m.kind == 0 {
			return nil
		}
		if m.kind != mapping {
			b.p.fail(place(pair.Key.GetToken()), "`<<` merges what is not a map", "give it the alias of a map, or a list of such aliases")
			return nil
		}
	}
	return from
}

// fill adds the pairs of m whose keys n lacks.
func (n *node) fill(m *node) {
	for i, k := range m.keys {
		if n.key(k.text) == nil {
			n.keys, n.values = append(n.keys, k), append(n.values, m.values[i])
		}
	}
}

func (n *node) key(name string) *node {
	for _, k := range n.keys {
		if k.text == name {
			return k
		}
	}
	return nil
}
