package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
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
	return a.begin(end, append([]string{":method", "POST", ":scheme", "http", ":path", path, ":authority", "inventory"}, more...)...)
}

// begin sends a header list of names and values, on a stream of its own.
func (a *attacker) begin(end bool, pairs ...string) uint32 {
	id := a.next
	a.next += 2
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

// twoFronts are a proxy before an application, and one before that, on another node; with what is attacked.
func twoFronts(t *testing.T, application string, c proxy.Config, timeout time.Duration) map[string]string {
	slow := func(s *fleet.Service) { s.Manifest.Calls[0].Timeout = fleet.Duration(timeout) }
	app := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(rw, "ok")
	})
	near := newWorld(t, c, inventory(), orders(slow))
	s := httptest.NewUnstartedServer(app)
	s.Config.Protocols = speaking(application)
	s.Start()
	t.Cleanup(s.Close)
	near.p.Attach("inventory-1", dialTo(s.Listener.Addr().String()))
	return map[string]string{"one hop": near.named("inventory", 8080), "two nodes": near.behindAnother(c, slow)}
}

// behindAnother returns the address of a proxy on another node that calls inventory on this one.
func (w *world) behindAnother(c proxy.Config, edit func(*fleet.Service)) string {
	peers := w.listen()
	c.Node, c.Peer = "far", func(ctx context.Context, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", peers.Addr().String())
	}
	caller := orders(edit)
	caller.Endpoints[0].Node = "far"
	far := newWorld(w.t, c, inventory(), caller)
	w.install(inventory(), caller)
	w.background(func(ctx context.Context) error { return w.p.ServePeer(ctx, peers) })
	return far.named("inventory", 8080)
}

// A body that does not come whole in time ends with its call, and the caller is told that it was the slow one;
// it says nothing against the application.
func TestSlowBodies(t *testing.T) {
	for name, addr := range twoFronts(t, "HTTP/1.1", proxy.Config{}, time.Second) { // enough for all but the body
		t.Run("HTTP/1.1, "+name, func(t *testing.T) {
			w := &world{t: t}
			res, body := w.exchangeRaw(addr, "POST / HTTP/1.1\r\nHost: inventory\r\nContent-Length: 100000\r\n\r\nabc")
			if res.StatusCode != 408 || res.Header.Get("Shoal-Reason") != "too-slow" || !res.Close {
				t.Error(res.Status, res.Header)
			}
			contains(t, body, "the request's body did not come whole within 1s", "timeout: …")
		})
		t.Run("HTTP/2, "+name, func(t *testing.T) {
			w := &world{t: t}
			a := w.attacker(addr)
			id := a.ask("/", false)
			_ = a.WriteData(id, false, []byte("abc"))
			if got := a.told(id); got.status != "408" || got.reason != "too-slow" {
				t.Errorf("%+v", got)
			}
		})
	}
}

// A body that stops ends at `idle`, before the call's own time.
func TestSilentBodies(t *testing.T) {
	for name, addr := range twoFronts(t, "HTTP/1.1", proxy.Config{Idle: 100 * time.Millisecond}, time.Minute) {
		t.Run("HTTP/1.1, "+name, func(t *testing.T) {
			w := &world{t: t}
			res, body := w.exchangeRaw(addr, "POST / HTTP/1.1\r\nHost: inventory\r\nContent-Length: 100000\r\n\r\nabc")
			if res.StatusCode != 408 || res.Header.Get("Shoal-Reason") != "too-slow" {
				t.Error(res.Status, res.Header)
			}
			contains(t, body, "limits: {idle: …}", "100ms")
		})
	}
	for _, application := range []string{"HTTP/1.1", "HTTP/2"} {
		for name, addr := range twoFronts(t, application, proxy.Config{Idle: 300 * time.Millisecond, MaxReplay: 10_000}, time.Minute) {
			t.Run("HTTP/2 to "+application+", "+name, func(t *testing.T) {
				w := &world{t: t}
				for _, piece := range []string{"", "abc", strings.Repeat("a", 16_000)} { // the last is too long to be kept
					a := w.attacker(addr) // an idle connection ends as soon
					id := a.ask("/", false)
					_ = a.WriteData(id, false, []byte(piece))
					got := a.told(id)
					if got.status != "408" || got.reason != "too-slow" {
						t.Errorf("%+v", got)
					}
					contains(t, got.body, "limits: {idle: …}", "300ms")
				}
			})
		}
	}
}

// A body that goes on is no silent one, however long it takes in all.
func TestSlowBodyThatGoesOn(t *testing.T) {
	const idle = 2 * time.Second
	for _, application := range []string{"HTTP/1.1", "HTTP/2"} {
		for name, addr := range twoFronts(t, application, proxy.Config{Idle: idle}, time.Minute) {
			t.Run("HTTP/2 to "+application+", "+name, func(t *testing.T) {
				t.Parallel()
				w := &world{t: t}
				a := w.attacker(addr)
				id := a.ask("/", false)
				began := time.Now()
				for tick := time.NewTicker(idle * 2 / 5); ; { // pieces for longer than idle
					_ = a.WriteData(id, false, []byte("abc"))
					if <-tick.C; time.Since(began) > idle*3/2 {
						break
					}
				}
				_ = a.WriteData(id, true, nil)
				if got := a.told(id); got.status != "200" || got.body != "ok" {
					t.Errorf("%+v", got)
				}
			})
		}
	}
}

// flooding is an application that answers with more than anybody wants, and counts what was taken of it.
func flooding(taken *atomic.Int64, ended chan<- error) http.HandlerFunc {
	return func(rw http.ResponseWriter, _ *http.Request) {
		for piece := make([]byte, 32<<10); ; {
			n, err := rw.Write(piece)
			if taken.Add(int64(n)); err != nil {
				ended <- err
				return
			}
		}
	}
}

// A caller that never opens its window, or never reads, holds a bounded part of an answer, and not for ever:
// its stream, or its connection, ends, and so does the application's work.
func TestAnswersThatNobodyTakes(t *testing.T) {
	for _, application := range []string{"HTTP/1.1", "HTTP/2"} {
		w := newWorld(t, proxy.Config{Idle: time.Second}, inventory(), orders()) // the application is never so slow
		var taken atomic.Int64
		ended := make(chan error, 10)
		s := &http.Server{Handler: flooding(&taken, ended), Protocols: speaking(application)}
		l := w.listen()
		go func() { _ = s.Serve(l) }()
		t.Cleanup(func() { s.Close() })
		w.p.Attach("inventory-1", dialTo(l.Addr().String()))
		addr := w.named("inventory", 8080)
		t.Run("zero window, "+application, func(t *testing.T) {
			taken.Store(0)
			a := w.attacker(addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			got := a.told(a.ask("/", true, "x-request-id", "zero-"+application[5:6]))
			if got.status != "200" || got.body != "" || got.code != http2.ErrCodeEnhanceYourCalm {
				t.Errorf("%+v", got)
			}
			<-ended
			bounded(t, &taken)
			o := w.observed("zero-" + application[5:6])
			if o.Reason != "too-slow" {
				t.Errorf("%+v", o)
			}
			contains(t, o.Detail, "limits: {idle: …}")
		})
		t.Run("connection's window, "+application, func(t *testing.T) {
			taken.Store(0)
			a := w.attacker(addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
			if got := a.told(a.ask("/", true)); len(got.body) != 65535 || got.code != http2.ErrCodeEnhanceYourCalm {
				t.Errorf("%d bytes, %v", len(got.body), got.code)
			}
			<-ended
			bounded(t, &taken)
		})
		t.Run("reads nothing, HTTP/2, "+application, func(t *testing.T) {
			taken.Store(0)
			a := w.attacker(addr, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 30})
			_ = a.WriteWindowUpdate(0, 1<<30)
			a.ask("/", true)
			<-ended
			bounded(t, &taken)
		})
		t.Run("reads nothing, HTTP/1.1, "+application, func(t *testing.T) {
			taken.Store(0)
			c, _ := w.raw(addr)
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: inventory\r\nX-Request-Id: deaf-"+application[5:6]+"\r\n\r\n")
			<-ended
			bounded(t, &taken)
			if o := w.observed("deaf-" + application[5:6]); o.Reason != "too-slow" {
				t.Errorf("%+v", o)
			}
		})
	}
}

// bounded: what an application got rid of lies in buffers of the system and of the proxy.
func bounded(t *testing.T, taken *atomic.Int64) {
	t.Helper()
	if n := taken.Load(); n > 24<<20 {
		t.Errorf("the application could write %d MB", n>>20)
	}
}

// An application that answers with 1xx for ever is cut off.
func TestInterimFloods(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	w.script("inventory-1", strings.Repeat("HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n", 100)+"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	addr := w.named("inventory", 8080)
	c, in := w.raw(addr)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: inventory\r\n\r\n")
	hints := 0
	for {
		res, body := w.readResponse(in, "GET")
		if hints++; res.StatusCode == 103 {
			continue
		}
		if res.StatusCode != 502 || res.Header.Get("Shoal-Reason") != "upstream-malformed" || hints != 33 {
			t.Error(res.Status, res.Header, hints)
		}
		contains(t, body, "more than 32 interim answers")
		return
	}
}
