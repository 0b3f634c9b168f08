package hpack_test

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/wire/hpack"
	xnet "golang.org/x/net/http2/hpack"
)

var wide = hpack.Limits{Size: 1 << 30, Fields: 1 << 20}

// decode is what our decoder makes of a block, in fields that are kept.
func decode(d *hpack.Decoder, block []byte, limits hpack.Limits) ([]hpack.Field, error) {
	var l hpack.List
	err := d.Decode(&l, block, limits)
	return l.Fields, err
}

func theirs(fields []xnet.HeaderField) (all []hpack.Field) {
	for _, f := range fields {
		all = append(all, hpack.Field{Name: f.Name, Value: f.Value, Sensitive: f.Sensitive})
	}
	return all
}

// Every byte, in Huffman code by x/net's encoder, comes back.
func TestHuffmanOfEveryByte(t *testing.T) {
	for c := range 256 {
		for n := range 9 {
			want := strings.Repeat(string([]byte{byte(c)}), n) + "0"
			coded := xnet.AppendHuffmanString(nil, want)
			block := append([]byte{0, 1, 'n', 0x80 | byte(len(coded))}, coded...)
			if len(coded) > 126 {
				t.Fatal("longer than one byte tells")
			}
			got, err := decode(hpack.NewDecoder(4096, 1000), block, wide)
			if err != nil || len(got) != 1 || got[0].Value != want {
				t.Fatalf("%q comes back as %v, %v", want, got, err)
			}
		}
	}
}

func TestMalformedBlocks(t *testing.T) {
	for name, block := range map[string]string{
		"index 0":                       "\x80",
		"an index behind the tables":    "\xbe",
		"a name's index behind them":    "\x7f\x00\x01a",
		"a number without an end":       "\xff\x80\x80",
		"a number of 33 bits":           "\xff\xff\xff\xff\xff\x1f",
		"a number of many empty bytes":  "\xff\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00",
		"a string that is cut":          "\x00\x05abc",
		"a field without a value":       "\x00\x01a",
		"nothing behind a literal":      "\x40",
		"an update over the limit":      "\x3f\xe2\x1f",
		"an update behind a field":      "\x82\x20",
		"the end of string in Huffman":  "\x00\x01a\x84\xff\xff\xff\xff",
		"padding of eight bits":         "\x00\x01a\x82\x1f\xff",
		"padding that is not all ones":  "\x00\x01a\x81\x18",
		"a Huffman code of half a byte": "\x00\x01a\x81\xfe",
	} {
		if got, err := decode(hpack.NewDecoder(4096, 1000), []byte(block), wide); err == nil {
			t.Errorf("%s: decoded as %v", name, got)
		}
		if _, err := xnet.NewDecoder(4096, nil).DecodeFull([]byte(block)); err == nil && block != "\x82\x20" { // with an empty table it does not look
			t.Errorf("%s: x/net takes it", name)
		}
	}
	long := append([]byte{0, 1, 'a', 100}, make([]byte, 100)...)
	if _, err := decode(hpack.NewDecoder(4096, 99), long, wide); !errors.Is(err, hpack.ErrStringLength) {
		t.Errorf("a string over the limit: %v", err)
	}
}

// Beyond its limits a list has no more fields, takes no more memory, and the table goes on.
func TestListsOverTheirLimits(t *testing.T) {
	d := hpack.NewDecoder(4096, 1<<20)
	value := strings.Repeat("v", 1000)
	block := append(append([]byte{0x40, 1, 'n', 0x7f, 0xe9, 0x06}, value...), bytes.Repeat([]byte{0xbe}, 5000)...)
	for _, limits := range []hpack.Limits{{Size: 10_000, Fields: 100}, {Size: 1 << 30, Fields: 5}} {
		var l hpack.List
		if err := d.Decode(&l, block, limits); err != nil || !l.Over {
			t.Fatalf("over: %v, %v", l.Over, err)
		}
		if n := len(l.Fields); n > 9 || n == 0 {
			t.Errorf("%d fields", n)
		}
	}
	got, err := decode(d, []byte{0xbe, 0xbf}, wide)
	if want := (hpack.Field{Name: "n", Value: value}); err != nil || !slices.Equal(got, []hpack.Field{want, want}) {
		t.Errorf("the table has %d fields: %v", len(got), err)
	}
}

// What we encode, x/net's decoder and ours read back, whatever sizes the table has in between.
func TestTableThatChangesItsSize(t *testing.T) {
	enc := hpack.NewEncoder(1 << 14)
	ours, other := hpack.NewDecoder(1<<14, 1<<20), xnet.NewDecoder(1<<14, nil)
	for round, size := range []uint32{4096, 0, 4096, 100, 1 << 20, 1 << 13, 300, 1 << 14} {
		if round == 2 {
			enc.SetMaxSize(77) // told as the smallest in between
		}
		enc.SetMaxSize(size)
		for i := range 200 {
			enc.Begin()
			var block []byte
			var want []hpack.Field
			for j := range 8 {
				f := hpack.Field{Name: fmt.Sprint("name-", (i+j)%23), Value: strings.Repeat("v", (i*j)%50), Sensitive: j == 7}
				want = append(want, f)
				block = enc.Append(block, f.Name, f.Value, f.Sensitive)
			}
			read(t, block, want, ours, other)
		}
	}
}

func read(t *testing.T, block []byte, want []hpack.Field, ours *hpack.Decoder, other *xnet.Decoder) {
	t.Helper()
	got, err := decode(ours, block, wide)
	if err != nil || !slices.Equal(got, want) {
		t.Fatalf("decoded as %v, %v; want %v", got, err, want)
	}
	fields, err := other.DecodeFull(block)
	if err != nil || !slices.Equal(theirs(fields), want) {
		t.Fatalf("x/net decodes it as %v, %v; want %v", fields, err, want)
	}
}

// A head whose fields came before is a byte for each, and what changes is one literal behind a known name.
func TestWhatRepeatsIsShort(t *testing.T) {
	enc := hpack.NewEncoder(4096)
	head := func(id string) (block []byte) {
		block = enc.Append(block, ":method", "GET", false)
		block = enc.Append(block, ":path", "/orders", false)
		block = enc.Append(block, "user-agent", "test/1.0", false)
		return enc.Append(block, "x-request-id", id, false)
	}
	head("1")
	head("2")
	if n := len(head("3")); n > 1+1+1+4 {
		t.Errorf("%d bytes", n)
	}
	secret := enc.Append(nil, "authorization", "Bearer 1", true)
	for range 3 {
		if again := enc.Append(nil, "authorization", "Bearer 1", true); !bytes.Equal(again, secret) || again[0]&0xf0 != 0x10 {
			t.Errorf("a secret is written as %x, then %x", secret, again)
		}
	}
}

func TestSteadyStateAllocatesNothing(t *testing.T) {
	enc, dec := hpack.NewEncoder(4096), hpack.NewDecoder(4096, 1<<16)
	var l hpack.List
	var block, id []byte
	n := 0
	call := func() {
		n++
		id = fmt.Append(id[:0], n)
		block = enc.Append(block[:0], ":method", "GET", false)
		block = enc.Append(block, "user-agent", "test/1.0", false)
		block = enc.Append(block, "x-request-id", string(id), false)
		l.Reset()
		if err := dec.Decode(&l, block, wide); err != nil || l.Fields[2].Value != string(id) {
			t.Fatal(err, l.Fields)
		}
	}
	for range 100 {
		call()
	}
	if got := testing.AllocsPerRun(1000, call); got > 2 { // of the test: a number, and its text
		t.Errorf("%v allocations", got)
	}
}

func said(err error, what string) bool { return err != nil && strings.Contains(err.Error(), what) }

// FuzzDecoder compares two blocks, which share a table, with what x/net makes of them.
func FuzzDecoder(f *testing.F) {
	f.Add([]byte("\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff"), []byte("\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf"))
	f.Add([]byte("\x3f\xe1\x1f\x40\x01a\x01b\x40\x01c\x01d"), []byte("\x20\x3f\x01\xbe\xbf\x7e\x01x"))
	f.Add([]byte("\x10\x01a\x01b\x00\x81\x1f\x00"), []byte("\xff\x00"))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		ours, other := hpack.NewDecoder(4096, 1<<16), xnet.NewDecoder(4096, nil)
		other.SetMaxStringLength(1 << 16)
		for _, block := range [][]byte{first, second} {
			got, err := decode(ours, block, wide)
			fields, theirErr := other.DecodeFull(block)
			if said(err, "size update after") || said(theirErr, "size update MUST") {
				return // x/net looks at how much is in the table, and RFC 7541 at where the update stands
			}
			if (err == nil) != (theirErr == nil) {
				t.Fatalf("%x: %v; x/net says %v", block, err, theirErr)
			}
			if err != nil {
				return
			}
			if !slices.Equal(got, theirs(fields)) {
				t.Fatalf("%x: %v; x/net says %v", block, got, fields)
			}
		}
	})
}

// FuzzEncoder has both decoders read what we encode of fields with a table of some size.
func FuzzEncoder(f *testing.F) {
	f.Add("a b c d a b a b :path / :path /x cookie x", uint16(100), uint16(4096))
	f.Fuzz(func(t *testing.T, text string, before, after uint16) {
		enc := hpack.NewEncoder(1 << 15)
		ours, other := hpack.NewDecoder(1<<16, 1<<16), xnet.NewDecoder(1<<16, nil)
		parts := strings.Split(text, " ")
		for _, size := range []uint16{before, after, after} {
			enc.SetMaxSize(uint32(size))
			enc.Begin()
			var block []byte
			var want []hpack.Field
			for i := 0; i+1 < len(parts); i += 2 {
				f := hpack.Field{Name: parts[i], Value: parts[i+1], Sensitive: parts[i] == "authorization"}
				want = append(want, f)
				block = enc.Append(block, f.Name, f.Value, f.Sensitive)
			}
			read(t, block, want, ours, other)
		}
	})
}

// BenchmarkHead writes a request's head and reads it.
func BenchmarkHead(b *testing.B) {
	enc, dec := hpack.NewEncoder(4096), hpack.NewDecoder(4096, 1<<16)
	var l hpack.List
	var block []byte
	b.ReportAllocs()
	for b.Loop() {
		block = head(enc, block[:0])
		l.Reset()
		if err := dec.Decode(&l, block, wide); err != nil {
			b.Fatal(err)
		}
	}
}

func head(enc *hpack.Encoder, p []byte) []byte {
	enc.Begin()
	for _, f := range [...]hpack.Field{
		{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/orders/42"}, {Name: ":authority", Value: "orders"},
		{Name: "user-agent", Value: "bench/1.0"}, {Name: "accept", Value: "*/*"},
		{Name: "x-request-id", Value: "01JD8Z6Q4M6T1V5D5Y6J4Z3K2N"}, {Name: "traceparent", Value: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
	} {
		p = enc.Append(p, f.Name, f.Value, false)
	}
	return p
}
