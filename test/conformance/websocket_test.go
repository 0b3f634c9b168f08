package conformance

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"github.com/shoalrun/shoal/fleet"
)

// node finds Node, or skips.
func node(t testing.TB) string {
	t.Helper()
	at, err := exec.LookPath("node")
	if err != nil {
		t.Skip("this needs Node: apt-get install nodejs")
	}
	return at
}

// A WebSocket over HTTP/2 (RFC 8441) from Node reaches applications that speak HTTP/1.1 and HTTP/2.
func TestWebSocketOverHTTP2(t *testing.T) {
	node(t)
	for _, p := range manyPaths() {
		t.Run(p.name+" to HTTP/1.1", func(t *testing.T) {
			addr := p.open(t, application{gorilla(t), fleet.HTTP})
			if out := webSocketClient(t, addr, "/echo"); out != "status 200\ntext hello by gorilla\nclosed 0" {
				t.Error(out)
			}
			if out := webSocketClient(t, addr, "/no"); !strings.HasPrefix(out, "status 403") {
				t.Error(out)
			}
			if out := webSocketClient(t, addr, "/ignores"); !strings.HasPrefix(out, "status 502 upstream-malformed") {
				t.Error(out)
			}
		})
		t.Run(p.name+" to HTTP/2", func(t *testing.T) {
			addr := p.open(t, application{webSocketServer(t), fleet.HTTP})
			if out := webSocketClient(t, addr, "/echo"); out != "status 200\ntext hello by websocket\nclosed 0" {
				t.Error(out)
			}
		})
	}
}

// A WebSocket from a client of HTTP/1.1 reaches an application that speaks HTTP/2 only, by extended CONNECT.
func TestWebSocketFromHTTP1(t *testing.T) {
	node(t)
	for _, p := range manyPaths() {
		t.Run(p.name, func(t *testing.T) {
			addr := p.open(t, application{webSocketServer(t), fleet.HTTP})
			c, res, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+addr+"/echo", nil)
			if err != nil {
				t.Fatal(err, res)
			}
			defer c.Close()
			for _, text := range []string{"hello", "again"} {
				_ = c.WriteMessage(websocket.TextMessage, []byte(text))
				if _, back, err := c.ReadMessage(); err != nil || string(back) != text+" by websocket" {
					t.Errorf("%q, %v", back, err)
				}
			}
		})
	}
}

func webSocketClient(t testing.TB, addr, path string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, node(t), "testdata/websocket.mjs", "client", addr, path).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return strings.Join(lines, "\n")
}

// gorilla is an application that takes WebSockets over HTTP/1.1.
func gorilla(t testing.TB) string {
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	m := http.NewServeMux()
	m.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		for {
			kind, p, err := c.ReadMessage()
			if err != nil {
				return
			}
			_ = c.WriteMessage(kind, fmt.Appendf(p, " by gorilla"))
		}
	})
	m.HandleFunc("/no", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	m.HandleFunc("/ignores", func(http.ResponseWriter, *http.Request) {})
	s := &http.Server{Handler: m}
	l := listen(t)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}

// webSocketServer is an application that takes them over HTTP/2.
func webSocketServer(t testing.TB) string {
	cmd := exec.Command(node(t), "testdata/websocket.mjs", "server")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}
