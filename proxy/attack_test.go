package proxy_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// attacker is an HTTP/2 client that sends what it likes.
type attacker struct {
	*http2.Framer
	t     *testing.T
	nc    net.Conn
	enc   *hpack.Encoder
	block bytes.Buffer
	next  uint32
}

func (w *world) attacker(addr string, settings ...http2.Setting) *attacker {
	w.t.Helper()
	nc, _ := w.raw(addr)
	a := &attacker{Framer: http2.NewFramer(nc, nc), t: w.t, nc: nc, next: 1}
	a.enc = hpack.NewEncoder(&a.block)
	a.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	_, _ = io.WriteString(nc, http2.ClientPreface)
	_ = a.WriteSettings(settings...)
	return a
}

// ask sends the head of a request for a path, with more fields, and returns its stream.
func (a *attacker) ask(path string, end bool, more ...string) uint32 {
	id := a.next
	a.next += 2
	pairs := append([]string{":method", "POST", ":scheme", "http", ":path", path, ":authority", "inventory"}, more...)
	a.block.Reset()
	for ; len(pairs) > 0; pairs = pairs[2:] {
		_ = a.enc.WriteField(hpack.HeaderField{Name: pairs[0], Value: pairs[1]})
	}
	block := a.block.Bytes()
	first := block[:min(len(block), 16<<10)]
	_ = a.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndStream: end, EndHeaders: len(first) == len(block)})
	for block = block[len(first):]; len(block) > 0; {
		n := min(len(block), 16<<10)
		_ = a.WriteContinuation(id, n == len(block), block[:n])
		block = block[n:]
	}
	return id
}

// heard is what an attacker was told: an answer, a reset, or the connection's end.
type heard struct {
	status, grpcStatus string
	id, reason         string // X-Request-Id, Shoal-Reason
	body               string
	code               http2.ErrCode // of a reset or a GOAWAY
	away               bool          // it was a GOAWAY
}

// told reads to the end of what concerns a stream.
func (a *attacker) told(stream uint32) (got heard) {
	a.t.Helper()
	for {
		f, err := a.ReadFrame()
		if err != nil {
			a.t.Fatalf("nothing was said: %v; so far %+v", err, got)
		}
		if g, ok := f.(*http2.GoAwayFrame); ok && g.ErrCode != http2.ErrCodeNo {
			return heard{away: true, code: g.ErrCode, body: string(g.DebugData())}
		}
		if f.Header().StreamID != stream {
			continue
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			got.note(f)
		case *http2.DataFrame:
			got.body += string(f.Data())
		case *http2.RSTStreamFrame:
			got.code = f.ErrCode
			return got
		}
		if f.Header().Flags.Has(http2.FlagDataEndStream) {
			return got
		}
	}
}

func (t *heard) note(f *http2.MetaHeadersFrame) {
	for _, h := range f.Fields {
		switch h.Name {
		case ":status":
			t.status = h.Value
		case "grpc-status":
			t.grpcStatus = h.Value
		case "grpc-message":
			t.body = h.Value
		case "x-request-id":
			t.id = h.Value
		case "shoal-reason":
			t.reason = h.Value
		}
	}
}

// front is a world whose proxy has small limits, and the address at which it is attacked. The application
// reads what it is sent and answers `ok`.
func front(t *testing.T, c proxy.Config) (*world, string) {
	w := newWorld(t, c, inventory(), orders())
	w.attach("inventory-1", http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(rw, "ok")
	}))
	return w, w.named("inventory", 8080)
}

// A request over a limit of heads is told which, with its id and a reason, in each protocol.
func TestHeadsOverTheirLimit(t *testing.T) {
	w, addr := front(t, proxy.Config{MaxHead: 8 << 10, MaxFields: 40})
	many := make([]string, 0, 100)
	for i := range 50 {
		many = append(many, fmt.Sprintf("x-%d", i), "a")
	}
	for limit, fields := range map[string][]string{"head": {"x-long", strings.Repeat("a", 9<<10)}, "fields": many} {
		t.Run(limit+" in HTTP/2", func(t *testing.T) {
			a := w.attacker(addr)
			got := a.told(a.ask("/a", true, append([]string{"x-request-id", "mine-" + limit}, fields...)...))
			if got.status != "431" || got.id != "mine-"+limit || got.reason != "too-large" {
				t.Errorf("%+v", got)
			}
			contains(t, got.body, "limits: {"+limit+": …}", "shoal.work")
			if o := w.observed(got.id); o.Reason != "too-large" || o.Status != 431 || o.Path != "/a" || o.Method != "POST" {
				t.Errorf("recorded as %+v", o)
			}
			if got := a.told(a.ask("/b", true)); got.status != "200" {
				t.Errorf("the connection should go on: %+v", got)
			}
		})
		t.Run(limit+" in gRPC", func(t *testing.T) {
			a := w.attacker(addr)
			got := a.told(a.ask("/a.B/C", true, append([]string{"content-type", "application/grpc"}, fields...)...))
			if got.status != "200" || got.grpcStatus != "8" || got.reason != "too-large" || got.id == "" {
				t.Errorf("%+v", got)
			}
			contains(t, got.body, "limits: {"+limit+":")
		})
		t.Run(limit+" in HTTP/1.1", func(t *testing.T) {
			var head strings.Builder
			head.WriteString("GET / HTTP/1.1\r\nHost: inventory\r\n")
			for i := 0; i < len(fields); i += 2 {
				fmt.Fprintf(&head, "%s: %s\r\n", fields[i], fields[i+1])
			}
			res, body := w.exchangeRaw(addr, head.String()+"\r\n")
			if res.StatusCode != 431 || res.Header.Get("Shoal-Reason") != "too-large" || res.Header.Get("X-Request-Id") == "" || !res.Close {
				t.Error(res.Status, res.Header)
			}
			contains(t, body, "limits: {"+limit+": …}")
		})
	}
}

// A head that comes drop by drop ends at its time, not when the attacker likes.
func TestSlowHeads(t *testing.T) {
	const limit = 100 * time.Millisecond
	w, addr := front(t, proxy.Config{HeadTime: limit, Park: 20 * time.Millisecond})
	t.Run("HTTP/1.1", func(t *testing.T) {
		c, in := w.raw(addr)
		go drip(c, "GET / HTTP/1.1\r\nHost: inventory\r\nX: "+strings.Repeat("a", 10_000))
		res, body := w.readResponse(in, "GET")
		if res.StatusCode != 408 || res.Header.Get("Shoal-Reason") != "too-slow" || res.Header.Get("X-Request-Id") == "" {
			t.Error(res.Status, res.Header)
		}
		contains(t, body, "limits: {head-time: …}", limit.String())
		if o := w.observed(res.Header.Get("X-Request-Id")); fleet.Reason(o.Reason) != fleet.ReasonTooSlow {
			t.Errorf("%+v", o)
		}
	})
	t.Run("preface", func(t *testing.T) {
		c, in := w.raw(addr)
		_, _ = io.WriteString(c, http2.ClientPreface[:20])
		if res, _ := w.readResponse(in, "GET"); res.StatusCode != 408 {
			t.Error(res.Status)
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		a := w.attacker(addr)
		_ = a.WriteHeaders(http2.HeadersFrameParam{StreamID: 1})
		go func() {
			for a.WriteContinuation(1, false, []byte{0x82}) == nil {
				time.Sleep(5 * time.Millisecond)
			}
		}()
		if got := a.told(1); !got.away || got.code != http2.ErrCodeEnhanceYourCalm || !strings.Contains(got.body, "limits: head-time") {
			t.Errorf("%+v", got)
		}
	})
}

// drip writes byte by byte, until nobody takes them.
func drip(c net.Conn, text string) {
	for i := range len(text) {
		if _, err := c.Write([]byte{text[i]}); err != nil {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}
