package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
)

// Every feature of HTTP must survive every translation: a client of one version, an application of
// another, on one node or on two. Both are net/http's.
func TestTranslations(t *testing.T) {
	features := map[string]func(t *testing.T, c *translationCase){
		"trailers": trailersBothWays, "interim answers": interimAnswers, "HEAD": headOnly, "no content": noContent,
		"streaming": streamsBothWays, "slow reader": slowReaderSlowsApplication, "slow application": slowApplicationSlowsCaller,
		"caller leaves": callerLeaves, "application breaks off": applicationBreaksOff, "many fields": manyFields,
	}
	for _, from := range []string{"HTTP/1.1", "HTTP/2"} {
		for _, to := range []string{"HTTP/1.1", "HTTP/2"} {
			for where, c := range map[string]*translationCase{"": newTranslationCase(t, from, to), " on another node": newTranslationApart(t, from, to)} {
				for name, feature := range features {
					t.Run(fmt.Sprintf("%s to %s%s, %s", from, to, where, name), func(t *testing.T) { feature(t, c) })
				}
			}
		}
	}
}

type translationCase struct {
	client  *http.Client
	url     string
	took    atomic.Int64  // bytes that the application took, or wrote
	read    chan struct{} // lets an application that stands read on
	ended   chan error    // how a request ended that was left hanging
	version string
}

func newTranslationCase(t *testing.T, from, to string) *translationCase {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	return newTranslationBetween(t, w, w, from, to)
}

// newTranslationApart has the application on another node than its caller.
func newTranslationApart(t *testing.T, from, to string) *translationCase {
	_, a, b := newPairOfNodes(t)
	return newTranslationBetween(t, a.world, b.world, from, to)
}

func newTranslationBetween(t *testing.T, near, far *world, from, to string) *translationCase {
	c := &translationCase{read: make(chan struct{}), ended: make(chan error, 10), version: from}
	s := &http.Server{Handler: c.application(), Protocols: speaking(to)}
	l := far.listen()
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	far.p.Attach("inventory-1", dialTo(l.Addr().String()))
	tr := &http.Transport{Protocols: speaking(from), DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	c.client = &http.Client{Transport: tr, Timeout: time.Minute}
	c.url = "http://" + near.named("inventory", 8080)
	return c
}

func speaking(version string) *http.Protocols {
	p := new(http.Protocols)
	p.SetHTTP1(version == "HTTP/1.1")
	p.SetUnencryptedHTTP2(version == "HTTP/2")
	return p
}

func (c *translationCase) application() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("/trailers", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Trailer", "X-Back")
		fmt.Fprintf(w, "%d bytes", len(body))
		w.Header().Set("X-Back", r.Trailer.Get("X-Sum"))
	})
	m.HandleFunc("/interim", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		_, _ = io.Copy(w, r.Body)
	})
	m.HandleFunc("/sized", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "12345")
		w.Header().Set("X-Method", r.Method)
	})
	m.HandleFunc("/nothing", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	m.HandleFunc("/unchanged", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) })
	m.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		_, _ = io.Copy(flushed{w}, r.Body)
	})
	m.HandleFunc("/flood", func(w http.ResponseWriter, _ *http.Request) {
		c.took.Store(0)
		for piece := make([]byte, 32<<10); ; {
			n, err := w.Write(piece)
			if c.took.Add(int64(n)); err != nil {
				c.ended <- err
				return
			}
		}
	})
	m.HandleFunc("/stand", func(_ http.ResponseWriter, r *http.Request) { // reads nothing until it is told to
		<-c.read
		_, err := io.Copy(io.Discard, r.Body)
		c.ended <- err
	})
	m.HandleFunc("/break", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	m.HandleFunc("/fields", func(w http.ResponseWriter, r *http.Request) {
		for i := range 200 {
			name := fmt.Sprintf("X-Field-%d", i)
			w.Header().Set(name, r.Header.Get(name))
		}
	})
	return m
}

type flushed struct{ http.ResponseWriter }

func (f flushed) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	_ = http.NewResponseController(f.ResponseWriter).Flush()
	return n, err
}

func (c *translationCase) do(t *testing.T, method, path string, body io.Reader, edit func(*http.Request)) (*http.Response, []byte) {
	t.Helper()
	r := must(http.NewRequest(method, c.url+path, body))
	if edit != nil {
		edit(r)
	}
	res, err := c.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, got
}

func trailersBothWays(t *testing.T, c *translationCase) {
	c.do(t, "GET", "/nothing", nil, nil) // by which it is known what the application speaks
	res, got := c.do(t, "POST", "/trailers", io.MultiReader(strings.NewReader("abc")), func(r *http.Request) {
		r.Trailer = http.Header{"X-Sum": {"123"}}
	})
	if string(got) != "3 bytes" || res.Trailer.Get("X-Back") != "123" {
		t.Errorf("%q, trailers %v", got, res.Trailer)
	}
}

func interimAnswers(t *testing.T, c *translationCase) {
	var hints atomic.Int64
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		if code == http.StatusEarlyHints && h.Get("Link") != "" {
			hints.Add(1)
		}
		return nil
	}}
	res, got := c.do(t, "PUT", "/interim", strings.NewReader("abc"), func(r *http.Request) {
		*r = *r.WithContext(httptrace.WithClientTrace(r.Context(), trace))
		r.Header.Set("Expect", "100-continue")
	})
	if res.StatusCode != 200 || string(got) != "abc" || hints.Load() != 1 {
		t.Errorf("%d %q, %d early hints", res.StatusCode, got, hints.Load())
	}
}

func headOnly(t *testing.T, c *translationCase) {
	res, got := c.do(t, "HEAD", "/sized", nil, nil)
	if res.ContentLength != 12345 || len(got) != 0 || res.Header.Get("X-Method") != "HEAD" {
		t.Errorf("length %d, %d bytes, %v", res.ContentLength, len(got), res.Header)
	}
}

func noContent(t *testing.T, c *translationCase) {
	for path, status := range map[string]int{"/nothing": 204, "/unchanged": 304} {
		if res, got := c.do(t, "GET", path, nil, nil); res.StatusCode != status || len(got) != 0 {
			t.Errorf("%s: %d, %q", path, res.StatusCode, got)
		}
	}
}

// A request that is still being sent is answered piece by piece.
func streamsBothWays(t *testing.T, c *translationCase) {
	c.do(t, "GET", "/nothing", nil, nil)
	in, out := io.Pipe()
	defer out.Close()
	r := must(http.NewRequest("POST", c.url+"/echo", in))
	res, err := c.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for _, size := range []int{1, 1000, 100_000} {
		piece := bytes.Repeat([]byte{byte(size)}, size)
		go func() { _, _ = out.Write(piece) }()
		got := make([]byte, size)
		if _, err := io.ReadFull(res.Body, got); err != nil || !bytes.Equal(got, piece) {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
	out.Close()
	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) != 0 {
		t.Errorf("%d bytes more: %v", len(rest), err)
	}
}

// inFlight is more than sockets and windows hold on a way through one proxy: two receive buffers, which Linux may let grow to 32 MB each (tcp_rmem),
// two send buffers of 4 MB, and pipes.
const inFlight = 80 << 20

// A caller that does not read slows the application: what is under way stays bounded.
func slowReaderSlowsApplication(t *testing.T, c *translationCase) {
	res, err := c.client.Get(c.url + "/flood")
	if err != nil {
		t.Fatal(err)
	}
	still := stands(t, &c.took)
	if still > inFlight {
		t.Errorf("%d bytes were taken from the application, though nobody reads", still)
	}
	if _, err := io.CopyN(io.Discard, res.Body, 4*still+1); err != nil { // and goes on
		t.Error(err)
	}
	res.Body.Close()
	<-c.ended
}

// stands waits until a counter does not move.
func stands(t *testing.T, n *atomic.Int64) (at int64) {
	eventually(t, "the writer stands still", func() bool {
		at = n.Load()
		time.Sleep(100 * time.Millisecond)
		return at > 0 && n.Load() == at
	})
	return at
}

// An application that does not read slows the caller.
func slowApplicationSlowsCaller(t *testing.T, c *translationCase) {
	c.do(t, "GET", "/nothing", nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var sent counting
	r := must(http.NewRequestWithContext(ctx, "POST", c.url+"/stand", &sent))
	done := make(chan error, 1)
	go func() {
		res, err := c.client.Do(r)
		if err == nil {
			res.Body.Close()
		}
		done <- err
	}()
	if still := stands(t, &sent.n); still > inFlight {
		t.Errorf("%d bytes were taken from the caller, though nobody reads", still)
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("it was answered")
	}
	c.read <- struct{}{}
	if err := <-c.ended; err == nil {
		t.Error("the application took it for whole")
	}
}

// counting is an endless body.
type counting struct{ n atomic.Int64 }

func (c *counting) Read(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

func callerLeaves(t *testing.T, c *translationCase) {
	res, err := c.client.Get(c.url + "/flood")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, res.Body, 1000); err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	select {
	case <-c.ended:
	case <-time.After(20 * time.Second):
		t.Error("the application goes on for a caller that has left")
	}
}

// What broke off must not look like a whole answer.
func applicationBreaksOff(t *testing.T, c *translationCase) {
	res, err := c.client.Get(c.url + "/break")
	if err != nil {
		return // before the head was here
	}
	defer res.Body.Close()
	if got, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("a whole answer: %q", got)
	} else if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		t.Error(err)
	}
}

func manyFields(t *testing.T, c *translationCase) {
	res, _ := c.do(t, "GET", "/fields", nil, func(r *http.Request) {
		for i := range 200 {
			r.Header.Set(fmt.Sprintf("X-Field-%d", i), strings.Repeat("v", i))
		}
	})
	for i := range 200 {
		if got := res.Header.Get(fmt.Sprintf("X-Field-%d", i)); len(got) != i {
			t.Fatalf("field %d came back with %d bytes", i, len(got))
		}
	}
}

// Who only ever posts finds out, too, that an application speaks HTTP/2 only. net/http's server does not say so
// before it closes, so that a request which it may have seen is not sent again: the next ones are answered.
func TestPostsFindOutWhatIsSpoken(t *testing.T) {
	for where, c := range map[string]*translationCase{
		"one node": newTranslationCase(t, "HTTP/1.1", "HTTP/2"), "two nodes": newTranslationApart(t, "HTTP/1.1", "HTTP/2"),
	} {
		t.Run(where, func(t *testing.T) {
			post := func() int {
				res, got := c.do(t, "POST", "/trailers", strings.NewReader("abc"), nil)
				if res.StatusCode == 200 && string(got) != "3 bytes" {
					t.Errorf("%q", got)
				}
				return res.StatusCode
			}
			first := post()
			if second := post(); first != 200 && first != 502 || second != 200 {
				t.Errorf("%d, then %d", first, second)
			}
		})
	}
}

// An application that says with its first bytes that it speaks HTTP/2 only has not seen what it was sent in
// HTTP/1.1: not even the first request fails, whatever it is.
func TestSettingsInPlaceOfAnAnswer(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	_, a, b := newPairOfNodes(t)
	for where, nodes := range map[string][2]*world{"one node": {w, w}, "two nodes": {a.world, b.world}} {
		t.Run(where, func(t *testing.T) {
			nodes[1].evil2(func(c *evil2Conn, stream uint32) {
				c.head(stream, false, ":status", "200")
				_ = c.WriteData(stream, true, []byte("first"))
			})
			url := "http://" + nodes[0].named("inventory", 8080)
			for _, want := range []string{"first", "next"} {
				res, got := nodes[0].do(must(http.NewRequest("POST", url, strings.NewReader("abc"))))
				if res.StatusCode != 200 || got != want {
					t.Errorf("%d %q, not %q", res.StatusCode, got, want)
				}
			}
		})
	}
}

// A delivery that failed so is not sent again by the proxy, but the broker's next attempt arrives, over two nodes, too.
func TestDeliveriesFindOutWhatIsSpoken(t *testing.T) {
	for _, from := range []string{"hub", "b"} {
		t.Run("from "+from, func(t *testing.T) {
			m := newMesh(t, "hub", "b")
			m.install(inventory(at("inventory-1@b"), func(s *fleet.Service) {
				s.Manifest.Subscribes = []fleet.Subscription{{Topic: "t", Method: "POST", Path: "/events"}}
			}))
			var seen atomic.Int64
			s := &http.Server{Protocols: speaking("HTTP/2"), Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen.Add(1) })}
			l := m.nodes["b"].listen()
			go func() { _ = s.Serve(l) }()
			t.Cleanup(func() { s.Close() })
			m.nodes["b"].p.Attach("inventory-1", dialTo(l.Addr().String()))
			for i, want := range []int{502, 200} {
				res, err := m.nodes[from].p.Transport(fleet.Events).RoundTrip(must(http.NewRequest("POST", "http://inventory/events", strings.NewReader("x"))))
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if res.StatusCode != want || seen.Load() != int64(i) {
					t.Errorf("delivery %d: %s, %d seen", i, res.Status, seen.Load())
				}
			}
		})
	}
}
