//go:build unix

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// rawTimeout bounds what a test asks of another service.
const rawTimeout = 20 * time.Second

// on tells the port to listen on: in explicit mode a variable names it.
func on(port string) string { return ":" + cmp.Or(os.Getenv("PORT_"+port), port) }

// serveTCP answers each connection once the caller has ended its half, as rsync or a database dump does.
func serveTCP(port string) {
	l, err := net.Listen("tcp", on(port))
	if err != nil {
		log.Fatal(err)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			b, _ := io.ReadAll(c)
			fmt.Fprintf(c, "got %d bytes: %s", len(b), b)
		}()
	}
}

// raw sends the request's body to addr as it is and answers with all that came back. half ends its
// half of the connection first.
func raw(w http.ResponseWriter, r *http.Request) {
	c, err := net.DialTimeout("tcp", r.URL.Query().Get("addr"), rawTimeout)
	if err != nil {
		http.Error(w, "error: "+err.Error(), 599)
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(rawTimeout))
	if _, err := io.Copy(c, r.Body); err == nil && r.URL.Query().Has("half") {
		_ = c.(*net.TCPConn).CloseWrite()
	}
	b, err := io.ReadAll(c)
	_, _ = w.Write(b)
	if err != nil {
		fmt.Fprintf(w, "error: %v", err)
	}
}

// chunked answers what it read, in a chunk of its own each, with a trailer that repeats the request's.
func chunked(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Trailer", "X-Heard")
	_ = http.NewResponseController(w).EnableFullDuplex()
	b := make([]byte, 64<<10)
	for {
		n, err := r.Body.Read(b)
		_, _ = w.Write(b[:n])
		_ = http.NewResponseController(w).Flush()
		if err != nil {
			break
		}
	}
	w.Header().Set("X-Heard", r.Trailer.Get("X-Said"))
}

// sendChunked calls url with a body of unknown length, a trailer, and Expect: 100-continue: where no
// 100 comes, it never sends the body.
func sendChunked(w http.ResponseWriter, r *http.Request) {
	said := strings.Repeat("0123456789abcdef", 64<<10)
	req, err := http.NewRequest(http.MethodPost, r.URL.Query().Get("url"), io.MultiReader(strings.NewReader(said)))
	if err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	req.Header.Set("Expect", "100-continue")
	req.Trailer = http.Header{"X-Said": {"in a trailer"}}
	client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: time.Hour}, Timeout: rawTimeout}
	resp, err := client.Do(req)
	if err != nil {
		http.Error(w, "error: "+err.Error(), 599)
		return
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	fmt.Fprintf(w, "%s same=%t trailer=%q error=%v", resp.Status, bytes.Equal(b, []byte(said)), resp.Trailer.Get("X-Heard"), err)
}

// gate lets a stream go on once it was seen to begin.
var gate = make(chan struct{})

// stream sends a line, and another one once /open was called.
func stream(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintln(w, "first")
	_ = http.NewResponseController(w).Flush()
	select {
	case <-gate:
		fmt.Fprintln(w, "second")
	case <-r.Context().Done():
	}
}

func open(w http.ResponseWriter, r *http.Request) {
	select {
	case gate <- struct{}{}:
	case <-r.Context().Done():
	}
}

// relayStream reads the stream of url line by line, and opens its gate only after the first.
func relayStream(w http.ResponseWriter, r *http.Request) {
	base := r.URL.Query().Get("url")
	resp, err := http.Get(base + "/stream")
	if err != nil {
		http.Error(w, "error: "+err.Error(), 599)
		return
	}
	defer resp.Body.Close()
	b := make([]byte, len("first\n"))
	_, err = io.ReadFull(resp.Body, b)
	if opened, err := http.Get(base + "/open"); err == nil {
		_ = opened.Body.Close()
	}
	rest, restErr := io.ReadAll(resp.Body)
	fmt.Fprintf(w, "%s%s%v", b, rest, errors.Join(err, restErr))
}

// leave calls url and leaves before the answer.
func leave(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL.Query().Get("url"), nil)
	if err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	ended := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		ended <- err
	}()
	_, _ = io.Copy(io.Discard, r.Body) // the test says when
	cancel()
	fmt.Fprint(w, <-ended)
}

func echoWebSocket(w http.ResponseWriter, r *http.Request) {
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	c, err := up.Upgrade(w, r, nil)
	if err != nil {
		return
	}
	defer c.Close()
	for {
		kind, b, err := c.ReadMessage()
		if err != nil {
			return
		}
		if c.WriteMessage(kind, append([]byte("echo "), b...)) != nil {
			return
		}
	}
}

// dialWebSocket says hello to url and answers with what came back, and why the connection was closed.
func dialWebSocket(w http.ResponseWriter, r *http.Request) {
	c, resp, err := websocket.DefaultDialer.Dial(r.URL.Query().Get("url"), nil)
	if err != nil {
		fmt.Fprintf(w, "error: %v", err)
		if resp != nil {
			b, _ := io.ReadAll(resp.Body)
			fmt.Fprintf(w, " %s %s", resp.Status, b)
		}
		return
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(rawTimeout))
	err = c.WriteMessage(websocket.TextMessage, []byte("hello"))
	_, b, readErr := c.ReadMessage()
	fmt.Fprintf(w, "%s %v", b, errors.Join(err, readErr))
}

// lookupTCP asks for a name over TCP, as a resolver does after a truncated answer.
func lookupTCP(w http.ResponseWriter, r *http.Request) {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, addr string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", addr)
	}}
	addrs, err := resolver.LookupHost(r.Context(), r.URL.Query().Get("name"))
	fmt.Fprintln(w, addrs, err)
}
