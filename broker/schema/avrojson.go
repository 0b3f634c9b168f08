package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/hamba/avro/v2"
)

// jsonReader walks a message and its schema together, so that nothing is built that a hostile message could make large.
type jsonReader struct {
	*json.Decoder
	depth int
}

func validateAvroJSON(s avro.Schema, data []byte) error {
	if !utf8.Valid(data) {
		return wrong("it is not valid UTF-8")
	}
	r := &jsonReader{Decoder: json.NewDecoder(bytes.NewReader(data))}
	r.UseNumber()
	if err := r.value(s); err != nil {
		return err
	}
	if _, err := r.Token(); !errors.Is(err, io.EOF) {
		return wrong("something follows the end of the message")
	}
	return nil
}

func (r *jsonReader) value(s avro.Schema) error {
	if r.depth++; r.depth > maxDepth {
		return wrong("values lie in each other more than %d deep", maxDepth)
	}
	defer func() { r.depth-- }()
	t, err := r.token()
	if err != nil {
		return err
	}
	switch s := resolve(s).(type) {
	case *avro.NullSchema:
		return expect(t == nil, "null", t)
	case *avro.PrimitiveSchema:
		return primitive(s.Type(), t)
	case *avro.EnumSchema:
		symbol, ok := t.(string)
		return expect(ok && slices.Contains(s.Symbols(), symbol), "one of the symbols of "+s.FullName(), t)
	case *avro.FixedSchema:
		text, ok := t.(string)
		return expect(ok && isBytes(text) && utf8.RuneCountInString(text) == s.Size(), strconv.Itoa(s.Size())+" bytes, one character each", t)
	case *avro.RecordSchema:
		return r.record(s, t)
	case *avro.ArraySchema:
		return r.array(s.Items(), t)
	case *avro.MapSchema:
		return r.mapping(s.Values(), t)
	case *avro.UnionSchema:
		return r.union(s, t)
	}
	return wrong("the schema has a type that is not known: %s", s.Type())
}

func (r *jsonReader) token() (json.Token, error) {
	t, err := r.Token()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, wrong("the message ends too early")
	}
	if err != nil {
		return nil, wrong("no JSON: %v", err)
	}
	return t, nil
}

func primitive(t avro.Type, v json.Token) error {
	switch t {
	case avro.Boolean:
		_, ok := v.(bool)
		return expect(ok, "true or false", v)
	case avro.Int, avro.Long:
		bits := 64
		if t == avro.Int {
			bits = 32
		}
		n, ok := v.(json.Number)
		_, err := strconv.ParseInt(n.String(), 10, bits)
		return expect(ok && err == nil, "an integer of "+strconv.Itoa(bits)+" bits", v)
	case avro.Float, avro.Double:
		n, ok := v.(json.Number)
		f, err := n.Float64()
		fits := t == avro.Double || math.Abs(f) <= math.MaxFloat32
		return expect(ok && err == nil && fits, "a number of type "+string(t), v)
	case avro.Bytes:
		text, ok := v.(string)
		return expect(ok && isBytes(text), `bytes, one character of \u0000 to \u00ff each`, v)
	}
	_, ok := v.(string)
	return expect(ok, "a string", v)
}

// isBytes reports whether text holds bytes as the JSON encoding does: each as the code point of its value.
func isBytes(text string) bool {
	for _, c := range text {
		if c > 0xff {
			return false
		}
	}
	return true
}

func (r *jsonReader) record(s *avro.RecordSchema, t json.Token) error {
	if err := expect(t == json.Delim('{'), "an object, of record "+s.FullName(), t); err != nil {
		return err
	}
	seen := make(map[string]bool, len(s.Fields()))
	for r.More() {
		name, err := r.key()
		if err != nil {
			return err
		}
		i := slices.IndexFunc(s.Fields(), func(f *avro.Field) bool { return f.Name() == name })
		if i < 0 || seen[name] {
			return wrong("record %s has no field %q, or has it once", s.FullName(), name)
		}
		seen[name] = true
		if err := r.value(s.Fields()[i].Type()); err != nil {
			return within(name, err)
		}
	}
	for _, f := range s.Fields() {
		if !seen[f.Name()] {
			return within(f.Name(), wrong("the field is missing"))
		}
	}
	_, err := r.token()
	return err
}

func (r *jsonReader) key() (string, error) {
	t, err := r.token()
	name, _ := t.(string) // the decoder takes nothing else for a key
	return name, err
}

func (r *jsonReader) array(items avro.Schema, t json.Token) error {
	if err := expect(t == json.Delim('['), "an array", t); err != nil {
		return err
	}
	for i := 0; r.More(); i++ {
		if err := r.value(items); err != nil {
			return within("["+strconv.Itoa(i)+"]", err)
		}
	}
	_, err := r.token()
	return err
}

func (r *jsonReader) mapping(values avro.Schema, t json.Token) error {
	if err := expect(t == json.Delim('{'), "an object, of a map", t); err != nil {
		return err
	}
	for r.More() {
		name, err := r.key()
		if err != nil {
			return err
		}
		if err := r.value(values); err != nil {
			return within("["+strconv.Quote(name)+"]", err)
		}
	}
	_, err := r.token()
	return err
}

// union reads null, or an object whose one member is named after the branch.
func (r *jsonReader) union(s *avro.UnionSchema, t json.Token) error {
	const form = `null, or an object such as {"string": …} that names the branch of the union`
	if t == nil {
		return expect(s.Contains(avro.Null), "a branch of the union, which has no null", t)
	}
	if err := expect(t == json.Delim('{') && r.More(), form, t); err != nil {
		return err
	}
	name, err := r.key()
	if err != nil {
		return err
	}
	i := slices.IndexFunc(s.Types(), func(b avro.Schema) bool { return b.Type() != avro.Null && branchName(b) == name })
	if i < 0 {
		return wrong("the union has no branch %q", name)
	}
	if err := r.value(s.Types()[i]); err != nil {
		return within(name, err)
	}
	t, err = r.token()
	if err != nil {
		return err
	}
	return expect(t == json.Delim('}'), "one branch of the union, not several", t)
}

func expect(ok bool, wanted string, got json.Token) error {
	if ok {
		return nil
	}
	return wrong("%s is wanted, not %s", wanted, describe(got))
}

// describe names a token for people.
func describe(t json.Token) string {
	switch t := t.(type) {
	case nil:
		return "null"
	case json.Delim:
		return map[json.Delim]string{'{': "an object", '[': "an array"}[t]
	case string:
		if len(t) > 40 {
			return "a string of " + strconv.Itoa(len(t)) + " bytes"
		}
		return strconv.Quote(t)
	case json.Number:
		return t.String()
	case bool:
		return strconv.FormatBool(t)
	}
	return "that"
}
