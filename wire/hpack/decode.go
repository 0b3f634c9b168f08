package hpack

import (
	"errors"
	"fmt"
	"unsafe"
)

// Errors of [Decoder.Decode]. Any of them leaves the decoder unusable.
var (
	ErrStringLength = errors.New("a string of a header field over its limit")
	errCut          = errors.New("the header block ends within a field")
	errNumber       = errors.New("a number of more than 32 bits")
	errHuffman      = errors.New("a string that is no Huffman code")
	errUpdate       = errors.New("a dynamic table size update after the first field")
)

// Decoder reads header blocks, one whole block after the other.
type Decoder struct {
	table     table
	limit     uint32 // of the table
	maxString int
}

// NewDecoder returns a decoder for a peer that was told it may use tables of so many bytes. A string of
// more than maxString bytes is an error.
func NewDecoder(limit uint32, maxString int) *Decoder {
	return &Decoder{table: table{max: initialTable}, limit: max(limit, initialTable), maxString: maxString}
}

// List is a header list, decoded. Its strings lie in one piece of memory that Reset gives to the next one:
// they are valid until then.
type List struct {
	Fields []Field
	// Over says that the list was over a limit: the fields from there on are not there.
	Over bool

	text []byte
	size int
}

// Size is how large the whole list is, also what is over a limit, as RFC 9113 section 6.5.2 counts.
func (l *List) Size() int { return l.size }

// keepText is the largest text buffer that a list keeps.
const keepText = 16 << 10

// Reset empties the list.
func (l *List) Reset() {
	clear(l.Fields)
	if cap(l.text) > keepText {
		l.text = nil
	}
	*l = List{Fields: l.Fields[:0], text: l.text[:0]}
}

// Limits of a header list.
type Limits struct {
	Size   int // in bytes, counted as RFC 9113 section 6.5.2 does
	Fields int
}

// Decode reads a header block into l, which is empty. Beyond the limits fields are read for the table's
// sake alone.
func (d *Decoder) Decode(l *List, block []byte, limits Limits) error {
	in := input{p: block}
	for began := false; len(in.p) > 0; {
		b := in.p[0]
		if b&0xe0 == 0x20 {
			if began {
				return errUpdate
			}
			if err := d.update(&in); err != nil {
				return err
			}
			continue
		}
		began = true
		mark := len(l.text)
		f, err := d.field(l, &in, b)
		if err != nil {
			return err
		}
		l.take(f, mark, limits)
	}
	return nil
}

// take adds a field whose text begins at mark.
func (l *List) take(f Field, mark int, limits Limits) {
	l.size += size(len(f.Name), len(f.Value))
	if l.Over = l.Over || l.size > limits.Size || len(l.Fields) == limits.Fields; l.Over {
		l.text = l.text[:mark]
		return
	}
	l.Fields = append(l.Fields, f)
}

// update is a dynamic table size update (RFC 7541 section 6.3).
func (d *Decoder) update(in *input) error {
	n, err := in.number(5)
	if err != nil {
		return err
	}
	if n > d.limit {
		return fmt.Errorf("a dynamic table size update to %d, over the limit of %d", n, d.limit)
	}
	d.table.resize(int(n))
	return nil
}

// field reads a field that begins with b (RFC 7541 sections 6.1 and 6.2).
func (d *Decoder) field(l *List, in *input, b byte) (f Field, err error) {
	if b&0x80 != 0 {
		i, err := in.number(7)
		if err != nil {
			return f, err
		}
		return d.indexed(l, i, true)
	}
	bits := 4
	if b&0x40 != 0 {
		bits = 6
	}
	i, err := in.number(bits)
	if err != nil {
		return f, err
	}
	if i > 0 {
		f, err = d.indexed(l, i, false)
	} else {
		f.Name, err = d.text(l, in)
	}
	if err != nil {
		return f, err
	}
	if f.Value, err = d.text(l, in); err != nil {
		return f, err
	}
	if b&0x40 != 0 {
		d.table.add(f.Name, f.Value)
	}
	f.Sensitive = b&0xf0 == 0x10
	return f, nil
}

// indexed is a field of the tables; only its name, unless the value is wanted, too.
func (d *Decoder) indexed(l *List, i uint32, value bool) (f Field, err error) {
	switch at := int64(i) - int64(len(static)); {
	case i == 0 || at > int64(d.table.len()):
		return f, fmt.Errorf("index %d, which no table has", i)
	case at <= 0:
		f = static[i-1]
		if !value {
			f.Value = ""
		}
		return f, nil
	default:
		n, v := d.table.get(int(at))
		f.Name = l.keep(n)
		if value {
			f.Value = l.keep(v)
		}
		return f, nil
	}
}

// keep copies p into the list's text.
func (l *List) keep(p []byte) string {
	at := len(l.text)
	l.text = append(l.text, p...)
	return view(l.text[at:])
}

// text reads a string (RFC 7541 section 5.2).
func (d *Decoder) text(l *List, in *input) (string, error) {
	if len(in.p) == 0 {
		return "", errCut
	}
	coded := in.p[0]&0x80 != 0
	n, err := in.number(7)
	switch {
	case err != nil:
		return "", err
	case int64(n) > int64(d.maxString):
		return "", ErrStringLength
	case int(n) > len(in.p):
		return "", errCut
	}
	p := in.p[:n]
	in.p = in.p[n:]
	if !coded {
		return l.keep(p), nil
	}
	at, ok := len(l.text), false
	if l.text, ok = appendHuffman(l.text, p); !ok {
		return "", errHuffman
	}
	if len(l.text)-at > d.maxString {
		return "", ErrStringLength
	}
	return view(l.text[at:]), nil
}

// view returns p as a string without a copy.
func view(p []byte) string { return unsafe.String(unsafe.SliceData(p), len(p)) }

// input is what is left of a header block.
type input struct{ p []byte }

// number reads a number with a prefix of so many bits (RFC 7541 section 5.1).
func (in *input) number(bits int) (uint32, error) {
	first := in.p[0] & (1<<bits - 1)
	in.p = in.p[1:]
	if first < 1<<bits-1 {
		return uint32(first), nil
	}
	n := uint64(first)
	for shift := 0; shift < 63; shift += 7 {
		if len(in.p) == 0 {
			return 0, errCut
		}
		b := in.p[0]
		in.p = in.p[1:]
		n += uint64(b&0x7f) << shift
		if b&0x80 == 0 && n <= 1<<32-1 {
			return uint32(n), nil
		}
		if b&0x80 == 0 {
			break
		}
	}
	return 0, errNumber
}
