package h2_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/wire/h2"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// peer is a client that sends what it likes.
type peer struct {
	*http2.Framer
	t    *testing.T
	nc   net.Conn
	enc  *hpack.Encoder
	buf  bytes.Buffer
	next uint32
}

func newPeer(t *testing.T, cfg h2.Config, handle func(*h2.Stream, *h2.Batch)) *peer {
	l := listen(t)
	serve(t, l, cfg, handle)
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	p := &peer{Framer: http2.NewFramer(nc, nc), t: t, nc: nc, next: 1}
	p.enc = hpack.NewEncoder(&p.buf)
	p.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, _ = io.WriteString(nc, http2.ClientPreface)
	_ = p.WriteSettings()
	return p
}

// block encodes pairs of names and values.
func (p *peer) block(pairs ...string) []byte {
	p.buf.Reset()
	for i := 0; i < len(pairs); i += 2 {
		_ = p.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return bytes.Clone(p.buf.Bytes())
}

func (p *peer) get(more ...string) uint32 {
	id := p.next
	p.next += 2
	pairs := append([]string{":method", "GET", ":scheme", "http", ":path", "/", ":authority", "a"}, more...)
	_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: p.block(pairs...), EndStream: true, EndHeaders: true})
	return id
}

// open begins a request that has a body.
func (p *peer) open() uint32 {
	id := p.next
	p.next += 2
	block := p.block(":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a")
	_ = p.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block, EndHeaders: true})
	return id
}

// goAway reads to the GOAWAY and returns it.
func (p *peer) goAway() (http2.ErrCode, string) {
	p.t.Helper()
	for {
		f, err := p.ReadFrame()
		if err != nil {
			p.t.Fatal("no GOAWAY: ", err)
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			return g.ErrCode, string(g.DebugData())
		}
	}
}

// answer reads the stream's head, or its reset.
func (p *peer) answer(id uint32) (status string, code http2.ErrCode) {
	p.t.Helper()
	for {
		f, err := p.ReadFrame()
		if err != nil {
			p.t.Fatal(err)
		}
		if f.Header().StreamID != id {
			continue
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			return f.PseudoValue("status"), 0
		case *http2.RSTStreamFrame:
			return "", f.ErrCode
		}
	}
}

func never(*h2.Stream, *h2.Batch) {}

func TestFloodsEndTheConnection(t *testing.T) {
	floods := map[string]struct {
		limit string
		send  func(p *peer) error
	}{
		"ping":               {"control", func(p *peer) error { return p.WritePing(false, [8]byte{}) }},
		"settings":           {"control", func(p *peer) error { return p.WriteSettings() }},
		"empty data":         {"control", func(p *peer) error { return p.WriteData(1, false, nil) }},
		"unknown":            {"control", func(p *peer) error { return p.WriteRawFrame(0x42, 0, 0, []byte("x")) }},
		"priority":           {"control", func(p *peer) error { return p.WritePriority(3, http2.PriorityParam{}) }},
		"rapid reset":        {"resets", func(p *peer) error { return p.WriteRSTStream(p.get(), http2.ErrCodeCancel) }},
		"refused":            {"control", func(p *peer) error { p.get(); return nil }},
		"continuation":       {"head", continuation(8000)},
		"window, connection": {"control", func(p *peer) error { return p.WriteWindowUpdate(0, 1) }},
		"window, stream":     {"control", func(p *peer) error { return p.WriteWindowUpdate(1, 1) }},
		"ping answers":       {"control", func(p *peer) error { return p.WritePing(true, [8]byte{}) }},
		"settings answers":   {"control", func(p *peer) error { return p.WriteSettingsAck() }},
		"drip":               {"control", continuation(0)},
	}
	for name, flood := range floods {
		t.Run(name, func(t *testing.T) {
			p := newPeer(t, h2.Config{MaxStreams: 10}, never)
			if name == "window, stream" || name == "empty data" {
				p.open()
			}
			go func() {
				for range 20_000 {
					if flood.send(p) != nil {
						return
					}
				}
			}()
			code, why := p.goAway()
			if code != http2.ErrCodeEnhanceYourCalm || !strings.Contains(why, "limits: "+flood.limit) {
				t.Fatal(code, why)
			}
		})
	}
}

// continuation sends a header block without an end, in frames of a size.
func continuation(size int) func(p *peer) error {
	begun := false
	return func(p *peer) error {
		if begun {
			return p.WriteContinuation(1, false, make([]byte, size))
		}
		begun = true
		return p.WriteHeaders(http2.HeadersFrameParam{StreamID: 1})
	}
}

func TestHeaderListOverItsLimit(t *testing.T) {
	p := newPeer(t, h2.Config{MaxHeaderList: 4096}, echo)
	if status, _ := p.answer(p.get("x-long", strings.Repeat("a", 5000))); status != "431" {
		t.Fatal("status", status)
	}
	if status, _ := p.answer(p.get("x-short", "a")); status != "200" {
		t.Fatal("the connection should go on; status", status)
	}
}

func TestStreamsOverTheirLimit(t *testing.T) {
	p := newPeer(t, h2.Config{MaxStreams: 2}, never)
	p.get()
	p.get()
	if _, code := p.answer(p.get()); code != http2.ErrCodeRefusedStream {
		t.Fatal(code)
	}
}

func TestMalformedRequests(t *testing.T) {
	p := newPeer(t, h2.Config{}, echo)
	cases := map[string][]string{
		"upper case":     {"X-A", "1"},
		"connection":     {"connection", "close"},
		"upgrade":        {"upgrade", "websocket"},
		"te":             {"te", "gzip"},
		"late pseudo":    {"x-a", "1", ":path", "/"},
		"unknown pseudo": {":what", "1"},
		"two paths":      {":path", "/2"},
		"newline":        {"x-a", "1\r\nx-b: 2"},
		"nul":            {"x-a", "1\x00"},
		"space":          {"x-a", " 1"},
		"name":           {"x a", "1"},
		"no name":        {"", "1"},
		"length":         {"content-length", "5"},
		"two lengths":    {"content-length", "0", "content-length", "1"},
		"plus length":    {"content-length", "+0"},
	}
	for name, fields := range cases {
		if status, code := p.answer(p.get(fields...)); code != http2.ErrCodeProtocol {
			t.Errorf("%s: status %q, code %v", name, status, code)
		}
	}
	if status, code := p.answer(p.get("te", "trailers", "content-length", "0")); status != "200" {
		t.Error(status, code)
	}
}

// A response is held to the same rules.
func TestMalformedResponses(t *testing.T) {
	for name, fields := range map[string][]h2.Field{
		"connection": {{Name: "connection", Value: "close"}},
		"upper case": {{Name: "X-A", Value: "b"}},
		"length":     {{Name: "content-length", Value: "7"}},
	} {
		l := listen(t)
		serve(t, l, h2.Config{}, func(s *h2.Stream, b *h2.Batch) {
			_ = s.SendHead(b, &h2.Head{Status: 200, Fields: fields}, true)
		})
		c := dial(t, l.Addr().String(), h2.Config{})
		s, err := c.Open(nil, &h2.Head{Method: "GET", Scheme: "http", Path: "/", Authority: "a"}, true, nil)
		if err != nil {
			t.Fatal(err)
		}
		var se *h2.StreamError
		if _, err := s.ReadHead(t.Context()); !errors.As(err, &se) || se.Code != h2.ProtocolError {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The windows of streams follow every change of SETTINGS_INITIAL_WINDOW_SIZE, below zero too.
func TestInitialWindowChanges(t *testing.T) {
	p := newPeer(t, h2.Config{}, func(s *h2.Stream, _ *h2.Batch) {
		go func() {
			_ = s.SendHead(nil, &h2.Head{Status: 200}, false)
			_, _ = s.Write(make([]byte, 100))
			_ = s.CloseWrite(nil)
		}()
	})
	window := func(n uint32) {
		_ = p.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: n})
	}
	data := func() int {
		for {
			f, err := p.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if d, ok := f.(*http2.DataFrame); ok {
				return len(d.Data())
			}
		}
	}
	window(10)
	id := p.get()
	if n := data(); n != 10 {
		t.Fatal("first", n)
	}
	window(4) // -6
	window(13)
	if n := data(); n != 3 {
		t.Fatal("second", n)
	}
	window(0) // -13
	_ = p.WriteWindowUpdate(id, 20)
	if n := data(); n != 7 {
		t.Fatal("third", n)
	}
	window(1000)
	if n := data(); n != 80 {
		t.Fatal("rest", n)
	}
}
