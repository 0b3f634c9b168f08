package schema

import (
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/hamba/avro/v2"
)

// binaryReader walks a message in Avro's binary encoding
// (https://avro.apache.org/docs/1.12.0/specification/#binary-encoding) without building anything.
type binaryReader struct {
	data   []byte
	depth  int
	values int // that may still come: null and empty records take no bytes, so a few bytes can announce 2^63 of them
}

func validateAvroBinary(s avro.Schema, data []byte) error {
	r := &binaryReader{data: data, values: 1<<16 + 64*len(data)}
	if err := r.value(s); err != nil {
		return err
	}
	if len(r.data) > 0 {
		return wrong("%d bytes follow the end of the message", len(r.data))
	}
	return nil
}

func (r *binaryReader) value(s avro.Schema) error {
	if r.depth++; r.depth > maxDepth {
		return wrong("values lie in each other more than %d deep", maxDepth)
	}
	defer func() { r.depth-- }()
	if r.values--; r.values < 0 {
		return wrong("it has more values than a message of its size can have")
	}
	switch s := resolve(s).(type) {
	case *avro.NullSchema:
		return nil
	case *avro.PrimitiveSchema:
		return r.primitive(s.Type())
	case *avro.EnumSchema:
		i, err := r.long(32)
		if err == nil && (i < 0 || i >= int64(len(s.Symbols()))) {
			err = wrong("%s has no symbol %d", s.FullName(), i)
		}
		return err
	case *avro.FixedSchema:
		_, err := r.take(int64(s.Size()))
		return err
	case *avro.RecordSchema:
		for _, f := range s.Fields() {
			if err := r.value(f.Type()); err != nil {
				return within(f.Name(), err)
			}
		}
		return nil
	case *avro.ArraySchema:
		return r.blocks(func() error { return r.value(s.Items()) })
	case *avro.MapSchema:
		return r.blocks(func() error {
			if err := r.primitive(avro.String); err != nil {
				return err
			}
			return r.value(s.Values())
		})
	case *avro.UnionSchema:
		i, err := r.long(64)
		if err != nil {
			return err
		}
		if i < 0 || i >= int64(len(s.Types())) {
			return wrong("the union has no branch %d", i)
		}
		return r.value(s.Types()[i])
	}
	return wrong("the schema has a type that is not known: %s", s.Type())
}

func (r *binaryReader) primitive(t avro.Type) (err error) {
	switch t {
	case avro.Boolean:
		var b []byte
		if b, err = r.take(1); err == nil && b[0] > 1 {
			err = wrong("a boolean is 0 or 1, not %d", b[0])
		}
	case avro.Int:
		_, err = r.long(32)
	case avro.Long:
		_, err = r.long(64)
	case avro.Float:
		_, err = r.take(4)
	case avro.Double:
		_, err = r.take(8)
	default: // bytes, string
		var n int64
		if n, err = r.long(64); err != nil {
			return err
		}
		var b []byte
		if b, err = r.take(n); err == nil && t == avro.String && !utf8.Valid(b) {
			err = wrong("a string is not valid UTF-8")
		}
	}
	return err
}

// blocks reads an array or a map: blocks with a count each, up to an empty one. A negative count is followed by the
// block's size in bytes.
func (r *binaryReader) blocks(item func() error) error {
	for i := 0; ; {
		count, err := r.long(64)
		if err != nil || count == 0 {
			return err
		}
		if count == math.MinInt64 {
			return wrong("a block of %d items", count)
		}
		if count < 0 {
			count = -count
			if _, err := r.long(64); err != nil {
				return err
			}
		}
		for ; count > 0; count-- {
			if err := item(); err != nil {
				return within("["+strconv.Itoa(i)+"]", err)
			}
			i++
		}
	}
}

func (r *binaryReader) long(bits int) (int64, error) {
	v, n := binary.Varint(r.data)
	if n == 0 {
		return 0, errShort()
	}
	if n < 0 || bits == 32 && (n > 5 || int64(int32(v)) != v) {
		return 0, wrong("an integer has more than %d bits", bits)
	}
	r.data = r.data[n:]
	return v, nil
}

func (r *binaryReader) take(n int64) ([]byte, error) {
	if n < 0 {
		return nil, wrong("a length is negative: %d", n)
	}
	if n > int64(len(r.data)) {
		return nil, errShort()
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b, nil
}

func errShort() error { return wrong("the message ends too early") }
