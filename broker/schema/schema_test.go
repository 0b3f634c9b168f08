package schema

import (
	"strings"
	"testing"
	"time"

	"github.com/hamba/avro/v2"
	"google.golang.org/protobuf/encoding/protowire"
)

const order = `{"type": "record", "name": "Order", "namespace": "shop", "fields": [
	{"name": "id", "type": "long"},
	{"name": "count", "type": "int"},
	{"name": "price", "type": "double"},
	{"name": "note", "type": ["null", "string"], "default": null},
	{"name": "state", "type": {"type": "enum", "name": "State", "symbols": ["NEW", "PAID"]}},
	{"name": "digest", "type": {"type": "fixed", "name": "Digest", "size": 2}},
	{"name": "raw", "type": "bytes"},
	{"name": "tags", "type": {"type": "array", "items": "string"}},
	{"name": "sizes", "type": {"type": "map", "values": "float"}},
	{"name": "gift", "type": "boolean"},
	{"name": "next", "type": ["null", "Order", "State"], "default": null}
]}`

const goodOrder = `{"id": 9007199254740993, "count": -1, "price": 1.5, "note": {"string": "ü"}, "state": "NEW", "digest": "\u0000\u00ff",
	"raw": "ab\u0080", "tags": ["a", "b"], "sizes": {"x": 1, "y": 2.5}, "gift": true, "next": null}`

func parse(t *testing.T, kind Type, text string) *Schema {
	t.Helper()
	s, err := Parse(kind, text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAvroJSON(t *testing.T) {
	s := parse(t, Avro, order)
	nested := strings.Replace(goodOrder, `"next": null`, `"next": {"shop.Order": `+goodOrder+`}`, 1)
	for _, good := range []string{goodOrder, nested, strings.Replace(goodOrder, `"next": null`, `"next": {"shop.State": "PAID"}`, 1)} {
		if err := s.Validate(JSON, []byte(good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, c := range []struct{ old, new, want string }{
		{`"count": -1`, `"count": 2147483648`, "count: an integer of 32 bits"},
		{`"count": -1`, `"count": 1.0`, "count: an integer"},
		{`"count": -1`, `"count": "1"`, `count: an integer of 32 bits is wanted, not "1"`},
		{`"count": -1, `, ``, "count: the field is missing"},
		{`"count": -1`, `"count": 1, "count": 1`, `"count", or has it once`},
		{`"count": -1`, `"count": 1, "other": 1`, `no field "other"`},
		{`"price": 1.5`, `"price": null`, "price: a number of type double is wanted, not null"},
		{`{"string": "ü"}`, `"ü"`, "note: null, or an object"},
		{`{"string": "ü"}`, `{"int": 1}`, `note: the union has no branch "int"`},
		{`{"string": "ü"}`, `{"null": null}`, `note: the union has no branch "null"`},
		{`{"string": "ü"}`, `{}`, "note: null, or an object"},
		{`{"string": "ü"}`, `{"string": 1}`, "note.string: a string is wanted, not 1"},
		{`{"string": "ü"}`, `{"string": "a", "string": "b"}`, "note: one branch of the union, not several"},
		{`"NEW"`, `"OLD"`, `state: one of the symbols of shop.State is wanted, not "OLD"`},
		{`"\u0000\u00ff"`, `"abc"`, "digest: 2 bytes"},
		{`"\u0000\u00ff"`, `"\u0100a"`, "digest: 2 bytes"},
		{`"ab\u0080"`, `"€"`, "raw: bytes"},
		{`["a", "b"]`, `["a", 2]`, "tags[1]: a string is wanted, not 2"},
		{`["a", "b"]`, `{}`, "tags: an array is wanted, not an object"},
		{`{"x": 1, "y": 2.5}`, `{"x": 1, "y": 1e39}`, `sizes["y"]: a number of type float`},
		{`{"x": 1, "y": 2.5}`, `[1]`, "sizes: an object"},
		{`"gift": true`, `"gift": 1`, "gift: true or false"},
		{`"next": null`, `"next": {"Order": null}`, `next: the union has no branch "Order"`},
		{`"next": null`, `"next": {"shop.Order": {}}`, "next.shop.Order.id: the field is missing"},
		{`"next": null}`, `"next": null} {}`, "something follows"},
		{`"next": null}`, `"next": null`, "ends too early"},
		{`"next": null}`, `"next": nil}`, "no JSON"},
		{`"a", "b"`, "\"a\", \"\xff\"", "UTF-8"},
	} {
		bad := strings.Replace(goodOrder, c.old, c.new, 1)
		if bad == goodOrder {
			t.Fatalf("%q is not in the message", c.old)
		}
		if err := s.Validate(JSON, []byte(bad)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.new, err, c.want)
		}
	}
	if err := s.Validate(JSON, nil); err == nil {
		t.Error("nothing is taken for a message")
	}
}

// encoded is a message as another implementation writes it.
func encoded(t *testing.T) []byte {
	t.Helper()
	inner := map[string]any{"id": int64(1) << 60, "count": -5, "price": 2.5, "note": "n", "state": "PAID", "digest": [2]byte{1, 2}, "raw": []byte{3},
		"tags": []any{"a", "b"}, "sizes": map[string]any{"x": float32(1)}, "gift": false, "next": nil}
	outer := map[string]any{"id": int64(-1), "count": 5, "price": 2.5, "note": nil, "state": "NEW", "digest": [2]byte{1, 2}, "raw": []byte{},
		"tags": []any{}, "sizes": map[string]any{}, "gift": true, "next": map[string]any{"shop.Order": inner}}
	data, err := avro.Marshal(avro.MustParse(order), outer)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestAvroBinary(t *testing.T) {
	s := parse(t, Avro, order)
	data := encoded(t)
	if err := s.Validate(Binary, data); err != nil {
		t.Fatal(err)
	}
	for n := range data {
		if err := s.Validate(Binary, data[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are taken for the whole", n, len(data))
		}
	}
	if err := s.Validate(Binary, append(data, 0)); err == nil || !strings.Contains(err.Error(), "1 bytes follow") {
		t.Errorf("a byte too many: %v", err)
	}
	for _, c := range []struct{ schema, data, want string }{
		{`"int"`, "\x80\x80\x80\x80\x20", "more than 32 bits"},
		{`"long"`, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "more than 64 bits"},
		{`"boolean"`, "\x02", "0 or 1"},
		{`"string"`, "\x02\xff", "UTF-8"},
		{`"string"`, "\x01", "negative"},
		{`"bytes"`, "\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", "too early"},
		{`{"type": "enum", "name": "E", "symbols": ["A"]}`, "\x02", "no symbol 1"},
		{`{"type": "record", "name": "R", "fields": [{"name": "u", "type": ["null", "int"]}]}`, "\x04", "u: the union has no branch 2"},
		{`{"type": "array", "items": "boolean"}`, "\x04\x01\x05\x00", "[1]: a boolean"},
	} {
		if err := parse(t, Avro, c.schema).Validate(Binary, []byte(c.data)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, %x: %v, want %q", c.schema, c.data, err, c.want)
		}
	}
	// A block with its size: two items in two bytes.
	if err := parse(t, Avro, `{"type": "array", "items": "boolean"}`).Validate(Binary, []byte("\x03\x04\x01\x00\x00")); err != nil {
		t.Error(err)
	}
}

// What a message announces costs nothing, and neither does its depth.
func TestHostileMessagesEndSoon(t *testing.T) {
	list := `{"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]}`
	endless := `{"type": "record", "name": "R", "fields": [{"name": "r", "type": "R"}]}`
	tree := `syntax = "proto3"; message T { repeated T t = 1; }`
	var deep []byte
	for range 20000 {
		deep = protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), deep)
	}
	for name, c := range map[string]struct {
		kind         Type
		schema, data string
		encoding     Encoding
	}{
		"2^62 nulls":       {Avro, `{"type": "array", "items": "null"}`, "\xfe\xff\xff\xff\xff\xff\xff\xff\x7f\x00", Binary},
		"deep binary":      {Avro, list, strings.Repeat("\x02", 10<<20), Binary},
		"deep JSON":        {Avro, list, strings.Repeat(`{"next": {"L": `, 100_000), JSON},
		"endless record":   {Avro, endless, "", Binary},
		"deep protobuf":    {Protobuf, tree, string(deep), Binary},
		"deep protojson":   {Protobuf, tree, strings.Repeat(`{"t":[`, 100_000), JSON},
		"brackets":         {Avro, `{"type": "array", "items": "null"}`, strings.Repeat("[", 10<<20), JSON},
		"half of a number": {Avro, `"double"`, "1e", JSON},
	} {
		start := time.Now()
		if err := parse(t, c.kind, c.schema).Validate(c.encoding, []byte(c.data)); err == nil {
			t.Errorf("%s: accepted", name)
		}
		t.Logf("%s: %v", name, time.Since(start))
	}
}

const shipment = `syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
message Shipment {
  string id = 1;
  repeated Item items = 2;
  google.protobuf.Timestamp at = 3;
  map<string, int32> weights = 4;
  oneof way { string road = 5; int64 air = 6; }
  State state = 7;
  message Item { int32 sku = 1; }
  enum State { UNKNOWN = 0; SENT = 1; }
}`

func TestProtobuf(t *testing.T) {
	s := parse(t, Protobuf, shipment)
	good := `{"id": "1", "items": [{"sku": 5}], "at": "2026-01-02T03:04:05Z", "weights": {"a": 1}, "air": "7", "state": "SENT"}`
	if err := s.Validate(JSON, []byte(good)); err != nil {
		t.Error(err)
	}
	for _, c := range []struct{ old, new, want string }{
		{`"id": "1"`, `"id": 1`, "string"},
		{`"id": "1"`, `"other": 1`, "unknown field"},
		{`"SENT"`, `"LOST"`, "enum"},
		{`"air": "7"`, `"air": "7", "road": "x"`, "oneof"},
		{`"2026-01-02T03:04:05Z"`, `"yesterday"`, "Timestamp"},
		{`[{"sku": 5}]`, `[{"sku": 4294967296}]`, "int32"},
		{`"state": "SENT"}`, `"state": "SENT"`, "unexpected"},
	} {
		bad := strings.Replace(good, c.old, c.new, 1)
		if err := s.Validate(JSON, []byte(bad)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.new, err, c.want)
		}
	}

	field := func(n protowire.Number, data []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), data)
	}
	number := func(n protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
	}
	for _, c := range []struct {
		data []byte
		want string
	}{
		{nil, ""},
		{append(field(1, []byte("x")), field(2, number(1, 5))...), ""},
		{number(9, 1), "message shop.Shipment does not"},
		{field(2, number(9, 1)), "items: it has fields that message shop.Shipment.Item does not"},
		{field(1, []byte("\xff")), "UTF-8"},
		{[]byte("hello, world"), "cannot parse"},
		{field(1, []byte("x"))[:2], "cannot parse"},
	} {
		err := s.Validate(Binary, c.data)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%x: %v, want %q", c.data, err, c.want)
		}
	}
	required := parse(t, Protobuf, `syntax = "proto2"; message M { required string id = 1; }`)
	if err := required.Validate(Binary, nil); err == nil || !strings.Contains(err.Error(), "required") {
		t.Errorf("without its required field: %v", err)
	}
}

func TestDefinitionsThatAreRefused(t *testing.T) {
	for _, c := range []struct {
		kind       Type
		text, want string
	}{
		{Avro, `{"type": "record"`, "JSON"},
		{Avro, `{"type": "record", "name": "R"}`, "fields"},
		{Avro, `{"type": "nothing"}`, "nothing"},
		{Avro, `["int", "string"]`, "union"},
		{Avro, `{"type": "record", "name": "R", "fields": [{"name": "a", "type": "Other"}]}`, "Other"},
		{Avro, ``, "JSON"},
		{Protobuf, `syntax = "proto3"; message A {} message B {}`, "one top-level type"},
		{Protobuf, `syntax = "proto3"; enum E { A = 0; }`, "one top-level type"},
		{Protobuf, `syntax = "proto3"; import "other.proto"; message A {}`, "other.proto"},
		{Protobuf, `syntax = "proto3"; message A { string a = 1; string b = 1; }`, "definition:1"},
		{Protobuf, `not a proto`, "definition:1:1"},
		{Protobuf, `syntax = "proto3"; message A {} //` + strings.Repeat("x", MaxBytes), "at most 307200"},
		{"xml", `<a/>`, `"xml" is no type`},
	} {
		if _, err := Parse(c.kind, c.text); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60s: %v, want %q", c.text, err, c.want)
		}
	}
	if err := parse(t, Avro, `"int"`).Validate("xml", nil); err == nil {
		t.Error("an encoding that does not exist is accepted")
	}
}

func TestRevisions(t *testing.T) {
	record := func(fields string) string {
		return `{"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}` + fields + `]}`
	}
	message := func(fields string) string {
		return `syntax = "proto3"; message M { string a = 1; ` + fields + ` message N { string x = 1; M up = 2; } }`
	}
	for name, c := range map[string]struct {
		kind     Type
		old, new string
		want     string
	}{
		"avro, field with a default":       {Avro, record(``), record(`, {"name": "b", "type": "int", "default": 1}`), ""},
		"avro, field without":              {Avro, record(``), record(`, {"name": "b", "type": "int"}`), "cannot read"},
		"avro, field gone":                 {Avro, record(`, {"name": "b", "type": "int"}`), record(``), "old revision cannot read"},
		"avro, wider type":                 {Avro, `"int"`, `"long"`, "old revision cannot read"},
		"avro, other name":                 {Avro, record(``), strings.Replace(record(``), `"R"`, `"S"`, 1), "cannot read"},
		"protobuf, field":                  {Protobuf, message(``), message(`int32 b = 2;`), ""},
		"protobuf, field gone":             {Protobuf, message(`int32 b = 2;`), message(``), ""},
		"protobuf, type":                   {Protobuf, message(`int32 b = 2;`), message(`int64 b = 2;`), "M.b is not what it was"},
		"protobuf, name":                   {Protobuf, message(`int32 b = 2;`), message(`int32 c = 2;`), "M.c is not what it was"},
		"protobuf, repeated":               {Protobuf, message(`int32 b = 2;`), message(`repeated int32 b = 2;`), "M.b is not"},
		"protobuf, into a oneof":           {Protobuf, message(`int32 b = 2;`), message(`oneof o { int32 b = 2; }`), "M.b is not"},
		"protobuf, nested":                 {Protobuf, message(`N n = 2;`), strings.Replace(message(`N n = 2;`), "string x", "bytes x", 1), "M.N.x is not"},
		"protobuf, enum value":             {Protobuf, message(`E e = 2; enum E { A = 0; B = 1; }`), message(`E e = 2; enum E { A = 0; }`), "value B = 1"},
		"protobuf, message name":           {Protobuf, message(``), `syntax = "proto3"; message O { string a = 1; }`, "names stay"},
		"protobuf, required added":         {Protobuf, `syntax = "proto2"; message M {}`, `syntax = "proto2"; message M { required int32 a = 1; }`, "new and required"},
		"protobuf, required gone":          {Protobuf, `syntax = "proto2"; message M { required int32 a = 1; }`, `syntax = "proto2"; message M {}`, "required and gone"},
		"protobuf, recursive and the same": {Protobuf, message(`N n = 2;`), message(`N n = 2;`), ""},
	} {
		err := parse(t, c.kind, c.new).Compatible(parse(t, c.kind, c.old))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if err := parse(t, Avro, `"int"`).Compatible(parse(t, Protobuf, message(``))); err == nil {
		t.Error("avro may follow protobuf")
	}
}

// What we take for an Avro message another implementation can read.
func FuzzAvroBinary(f *testing.F) {
	f.Add([]byte("\x02\x04\x02"))
	schema := `{"type": "record", "name": "R", "fields": [{"name": "a", "type": {"type": "array", "items": ["null", "string", "long"]}},
		{"name": "m", "type": {"type": "map", "values": "bytes"}}, {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}},
		{"name": "d", "type": "double"}, {"name": "i", "type": "int"}]}`
	other := avro.MustParse(schema)
	ours, err := Parse(Avro, schema)
	if err != nil {
		f.Fatal(err)
	}
	seed, err := avro.Marshal(other, map[string]any{"a": []any{nil, "x", int64(5)}, "m": map[string]any{"k": []byte{1}}, "e": "B", "d": 1.5, "i": 7})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, data []byte) {
		if ours.Validate(Binary, data) != nil {
			return
		}
		var out any
		if err := avro.Unmarshal(other, data, &out); err != nil {
			t.Fatalf("%x is accepted; another reader says: %v", data, err)
		}
	})
}

// No definition makes the parsers fall over, whatever is then validated.
func FuzzParse(f *testing.F) {
	f.Add(order, "avro", []byte(goodOrder))
	f.Add(shipment, "protobuf", []byte(`{"id": "1"}`))
	f.Fuzz(func(t *testing.T, text, kind string, data []byte) {
		s, err := Parse(Type(kind), text)
		if err != nil {
			return
		}
		_ = s.Validate(JSON, data)
		_ = s.Validate(Binary, data)
		if err := s.Compatible(s); err != nil && strings.Contains(err.Error(), "names stay") {
			t.Fatal(err)
		}
	})
}
