package proxy_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/proxy"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// held is a world whose application lets no request go before the test ends.
func held(t *testing.T, c proxy.Config) (*world, string) {
	w := newWorld(t, c, inventory(), orders())
	hang := make(chan struct{})
	w.attachHTTP2("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/hang" {
			_, _ = io.WriteString(rw, "ok")
			return
		}
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(hang) })
	return w, w.named("inventory", 8080)
}

// A flood of what costs its sender little ends its own connection, which is told the limit; others go on.
func TestFloods(t *testing.T) {
	w, addr := held(t, proxy.Config{MaxControl: 100, MaxResets: 50})
	floods := map[string]struct {
		limit string
		send  func(a *attacker, id uint32) error
	}{
		"PING":             {"control", func(a *attacker, _ uint32) error { return a.WritePing(false, [8]byte{}) }},
		"PING answers":     {"control", func(a *attacker, _ uint32) error { return a.WritePing(true, [8]byte{}) }},
		"SETTINGS":         {"control", func(a *attacker, _ uint32) error { return a.WriteSettings() }},
		"SETTINGS answers": {"control", func(a *attacker, _ uint32) error { return a.WriteSettingsAck() }},
		"SETTINGS of the table": {"control", func(a *attacker, _ uint32) error {
			return a.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize})
		}},
		"PRIORITY":              {"control", func(a *attacker, _ uint32) error { return a.WritePriority(99, http2.PriorityParam{}) }},
		"empty DATA":            {"control", func(a *attacker, id uint32) error { return a.WriteData(id, false, nil) }},
		"padded empty DATA":     {"control", func(a *attacker, id uint32) error { return a.WriteDataPadded(id, false, nil, make([]byte, 10)) }},
		"WINDOW_UPDATE":         {"control", func(a *attacker, _ uint32) error { return a.WriteWindowUpdate(0, 1) }},
		"WINDOW_UPDATE, stream": {"control", func(a *attacker, id uint32) error { return a.WriteWindowUpdate(id, 1) }},
		"unknown frames":        {"control", func(a *attacker, _ uint32) error { return a.WriteRawFrame(0xbe, 0, 0, []byte("x")) }},
		"GOAWAY":                {"control", func(a *attacker, _ uint32) error { return a.WriteGoAway(0, http2.ErrCodeNo, nil) }},
		"refused streams":       {"control", func(a *attacker, _ uint32) error { a.ask("/hang", true); return nil }},
		"rapid reset":           {"resets", func(a *attacker, _ uint32) error { return a.WriteRSTStream(a.ask("/hang", true), http2.ErrCodeCancel) }},
		"rapid reset by us": {"resets", func(a *attacker, _ uint32) error {
			return a.WriteRawFrame(http2.FrameWindowUpdate, 0, a.ask("/hang", true), make([]byte, 4))
		}},
		"CONTINUATION":        {"head", endless(8000)},
		"CONTINUATION, empty": {"control", endless(0)},
		"CONTINUATION, drops": {"control", endless(1)},
	}
	for name, flood := range floods {
		t.Run(name, func(t *testing.T) {
			a := (&world{t: t}).attacker(addr)
			id := a.ask("/hang", false)
			go func() {
				for range 100_000 {
					if flood.send(a, id) != nil {
						return
					}
				}
			}()
			got := a.goneWith()
			if got.code != http2.ErrCodeEnhanceYourCalm || !strings.Contains(got.body, "limits: "+flood.limit) {
				t.Errorf("%v %q", got.code, got.body)
			}
			if res, body, err := ask(w.client(), "GET", "http://"+addr+"/"); err != nil || body != "ok" {
				t.Error("another caller:", err, res)
			}
		})
	}
}

// goneWith reads to the GOAWAY.
func (a *attacker) goneWith() heard {
	a.t.Helper()
	for {
		f, err := a.ReadFrame()
		if err != nil {
			a.t.Fatal("no GOAWAY: ", err)
		}
		if g, ok := f.(*http2.GoAwayFrame); ok && g.ErrCode != http2.ErrCodeNo {
			return heard{away: true, code: g.ErrCode, body: string(g.DebugData())}
		}
	}
}

// endless sends a header block without an end, in frames of a size.
func endless(size int) func(a *attacker, _ uint32) error {
	begun := uint32(0)
	return func(a *attacker, _ uint32) error {
		if begun != 0 {
			return a.WriteContinuation(begun, false, make([]byte, size))
		}
		begun = a.next
		return a.WriteHeaders(http2.HeadersFrameParam{StreamID: begun})
	}
}

// One stream too many is refused, so that its caller may send it again elsewhere, and the others go on.
func TestStreamsOverTheirLimit(t *testing.T) {
	w, addr := held(t, proxy.Config{MaxStreams: 3})
	a := w.attacker(addr)
	for range 3 {
		a.ask("/hang", true)
	}
	if got := a.told(a.ask("/", true)); got.code != http2.ErrCodeRefusedStream {
		t.Errorf("%+v", got)
	}
	_ = a.WriteRSTStream(1, http2.ErrCodeCancel)
	if got := a.told(a.ask("/", true)); got.status != "200" || got.body != "ok" {
		t.Errorf("once there is room again: %+v", got)
	}
}

// bombs are header blocks that are small, and large once they are read.
func bombs() map[string]struct {
	block []byte
	want  heard // what is said; the connection goes on where it is an answer
} {
	entry := func(size int) []byte {
		var b bytes.Buffer
		enc := hpack.NewEncoder(&b)
		for _, f := range []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "http"}, {Name: ":path", Value: "/"}, {Name: "x", Value: strings.Repeat("0", size)}} {
			_ = enc.WriteField(f)
		}
		return b.Bytes()
	}
	long := func(length ...byte) []byte {
		return append(append([]byte{0x82, 0x86, 0x84, 0x00, 0x01, 'x'}, length...), "abc"...)
	}
	return map[string]struct {
		block []byte
		want  heard
	}{
		"one entry, 10,000 times": {append(entry(3500), bytes.Repeat([]byte{0xbe}, 10_000)...), heard{status: "431", reason: "too-large"}},
		"table over its size":     {[]byte{0x3f, 0xe1, 0xff, 0x03, 0x82, 0x86, 0x84}, heard{away: true, code: http2.ErrCodeCompression}},
		"a value of a gigabyte":   {long(0x7f, 0x81, 0xff, 0xff, 0xff, 0x03), heard{away: true, code: http2.ErrCodeEnhanceYourCalm, body: "limits: head"}},
		"a length without an end": {long(0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), heard{away: true, code: http2.ErrCodeCompression}},
		"an entry that is not":    {[]byte{0x82, 0x86, 0x84, 0xff, 0x80, 0x01}, heard{away: true, code: http2.ErrCodeCompression}},
		"table, many times":       {append(bytes.Repeat([]byte{0x20, 0x3f, 0xe1, 0x1f}, 2000), 0x82, 0x86, 0x84), heard{status: "200"}},
		"Huffman, padded long":    {[]byte{0x82, 0x86, 0x84, 0x00, 0x01, 'x', 0x84, 0xff, 0xff, 0xff, 0xff}, heard{away: true, code: http2.ErrCodeCompression}},
	}
}

func TestHeaderBombs(t *testing.T) {
	_, addr := held(t, proxy.Config{})
	for name, bomb := range bombs() {
		t.Run(name, func(t *testing.T) {
			a := (&world{t: t}).attacker(addr)
			for range 3 {
				id := a.next
				a.next += 2
				_ = a.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: bomb.block, EndStream: true, EndHeaders: true})
				if bomb.want.away {
					if got := a.goneWith(); got.code != bomb.want.code || !strings.Contains(got.body, bomb.want.body) {
						t.Errorf("%v %q", got.code, got.body)
					}
					return
				}
				if got := a.told(id); got.status != bomb.want.status || got.reason != bomb.want.reason {
					t.Errorf("%+v", got)
				}
			}
		})
	}
}
