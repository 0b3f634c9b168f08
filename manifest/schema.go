package manifest

import (
	"encoding/json"
	"fmt"
)

// Schemas names the kinds that [Schema] knows.
func Schemas() []string { return []string{"manifest", "workspace"} }

// Schema returns the JSON Schema (draft 2020-12) of shoal.yaml (kind `manifest`) or shoal.work (kind
// `workspace`), for editors. It is made of the same table as the parser. What a schema cannot say (that
// a name is reserved, that a time is in range) only the parser checks.
func Schema(kind string) ([]byte, error) {
	keys, title := manifestKeys(), File
	switch kind {
	case "manifest":
	case "workspace":
		keys, title = workspaceKeys(), WorkspaceFile
	default:
		return nil, fmt.Errorf("no schema is called %q; there are manifest and workspace", kind)
	}
	whole := shape{object: keys}
	s := whole.schema()
	s["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	s["title"] = title
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write the schema of %s: %w", title, err)
	}
	return append(text, '\n'), nil
}

type schema map[string]any

func (s *shape) schema() schema {
	var forms []schema
	if s.scalar != nil {
		forms = append(forms, s.scalar.schema())
	}
	if s.object != nil {
		forms = append(forms, s.objectSchema())
	}
	if s.entries != nil {
		forms = append(forms, s.entriesSchema())
	}
	if s.list != nil {
		forms = append(forms, s.listSchema())
	}
	if s.mayBeEmpty() {
		forms = append(forms, schema{"type": "null"})
	}
	if len(forms) == 1 {
		return forms[0]
	}
	return schema{"anyOf": forms}
}

func (want *scalar) schema() schema {
	s := schema{}
	var types []string
	for _, t := range []struct {
		kind kinds
		name string
	}{{text, "string"}, {number, "number"}, {boolean, "boolean"}} {
		if want.accepts&t.kind != 0 {
			types = append(types, t.name)
		}
	}
	if want.max > 0 {
		types = []string{"integer"}
		s["minimum"], s["maximum"] = want.min, want.max
	}
	if s["type"] = types; len(types) == 1 {
		s["type"] = types[0]
	}
	if want.pattern != "" {
		s["pattern"] = want.pattern
	}
	if want.enum != nil {
		s["enum"] = want.enum
	}
	return s
}

func (s *shape) objectSchema() schema {
	properties := schema{}
	var required []string
	for _, k := range s.object {
		properties[k.name] = k.schema()
		if k.required {
			required = append(required, k.name)
		}
	}
	o := schema{"type": "object", "properties": properties, "additionalProperties": false}
	if required != nil {
		o["required"] = required
	}
	if s.oneOf != nil {
		var one []schema
		for _, name := range s.oneOf {
			one = append(one, schema{"required": []string{name}})
		}
		o["oneOf"] = one
	}
	return o
}

func (k *key) schema() schema {
	s := k.shape.schema()
	s["description"] = k.description()
	if value, err := plainYAML(k.example); err == nil {
		s["examples"] = []any{value}
	}
	return s
}

func (k *key) description() string {
	if k.fallback == "" {
		return k.doc
	}
	return k.doc + " Without it: " + k.fallback + "."
}

func (s *shape) entriesSchema() schema {
	names := schema{}
	if s.entries.key.pattern != "" {
		names["pattern"] = s.entries.key.pattern
	}
	o := schema{"type": "object", "propertyNames": names, "additionalProperties": s.entries.value.schema()}
	if s.full != "" {
		o["minProperties"] = 1
	}
	return o
}

func (s *shape) listSchema() schema {
	l := schema{"type": "array", "items": s.list.schema()}
	if s.full != "" {
		l["minItems"] = 1
	}
	return l
}

// plainYAML reads an example into what JSON can hold.
func plainYAML(example string) (any, error) {
	p := &parse{}
	n := p.tree([]byte(example))
	if err := p.errors.sorted(); err != nil || n == nil {
		return nil, err
	}
	return n.plain(), nil
}

func (n *node) plain() any {
	switch n.kind {
	case null:
		return nil
	case boolean:
		return n.truth()
	case number:
		return json.Number(n.text)
	case list:
		all := []any{}
		for _, item := range n.items {
			all = append(all, item.plain())
		}
		return all
	case mapping:
		all := map[string]any{}
		for i, k := range n.keys {
			all[k.text] = n.values[i].plain()
		}
		return all
	}
	return n.text
}
