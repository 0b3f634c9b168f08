//go:build unix

package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"github.com/shoalrun/shoal/fleet"
)

// pair is web, which calls orders in every protocol, and a stranger that it does not declare.
var pair = map[string]string{
	"web/shoal.yaml": `service: web
run: APP web
listen: {8080: http}
health: GET /healthz
expose: true
calls: [orders]
`,
	"orders/shoal.yaml": `service: orders
run: APP orders
listen: {8080: {protocol: http, default: true}, 9000: tcp, 9090: grpc}
health: GET /healthz
expose: true
env: {GRPC: "9090", TCP: "9000"}
`,
	"stranger/shoal.yaml": `service: stranger
run: APP stranger
listen: {8080: {protocol: http, default: true}, 9001: tcp, 9091: grpc}
health: GET /healthz
expose: true
env: {GRPC: "9091", TCP: "9001"}
`,
}

// addr is how a service dials a port of another one: by name in a namespace, by its variable elsewhere.
func (w *world) addr(from, to string, port int) string {
	if w.mode == fleet.Netns {
		return fmt.Sprintf("%s:%d", to, port)
	}
	_, addr, _ := w.get(from, q("/env", "name", fmt.Sprintf("%s_%d_ADDR", strings.ToUpper(to), port)))
	return addr
}

// send posts a body to an exposed service and returns the answer's status and body.
func (w *world) send(service, path, body string) (int, string) {
	w.Helper()
	req, _ := http.NewRequest(http.MethodPost, "http://"+w.status().Gateway+path, strings.NewReader(body))
	req.Host = service + ".localhost"
	resp, err := http.DefaultClient.Do(req)
	must(w, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	must(w, err)
	return resp.StatusCode, string(b)
}

// says wants each part in the answer to a GET, whatever its status.
func (w *world) says(service, path string, parts ...string) {
	w.Helper()
	_, body, _ := w.get(service, path)
	for _, part := range parts {
		if !strings.Contains(body, part) {
			w.Errorf("GET %s%s says:\n%s\nwant %q in it", service, path, body, part)
		}
	}
}

func TestDataPath(t *testing.T) {
	inEach(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, pair)
		w.up()
		base := "http://" + w.addr("web", "orders", 8080)
		for name, test := range map[string]func(w *world, base string){
			"gRPC": grpcCalls, "WebSocket": webSockets, "chunked": chunkedBothWays, "HEAD": heads, "streaming": streaming,
			"leaving": leaving, "TCP": rawTCP, "names": namesAndPorts, "refused": refusedPorts,
		} {
			t.Run(name, func(t *testing.T) { test(w.as(t), base) })
		}
	})
}

// as is the world of a subtest.
func (w *world) as(t *testing.T) *world {
	sub := *w
	sub.T = t
	return &sub
}

func grpcCalls(w *world, _ string) {
	w.says("web", q("/grpc", "target", w.addr("web", "orders", 9090)), "unary SERVING OK", "unknown NotFound", "stream SERVING OK")
	if w.mode == fleet.Netns {
		w.says("web", q("/grpc", "target", "stranger:9091"), "PermissionDenied web may not call stranger", "web/shoal.yaml:6", "stranger: {}")
	}
}

func webSockets(w *world, base string) {
	c, _, err := websocket.DefaultDialer.Dial("ws://"+w.status().Gateway+"/ws", http.Header{"Host": {"web.localhost"}})
	must(w, err)
	defer c.Close()
	must(w, c.WriteMessage(websocket.BinaryMessage, []byte("through the gateway")))
	if _, b, err := c.ReadMessage(); string(b) != "echo through the gateway" {
		w.Errorf("%q %v", b, err)
	}
	ws := strings.Replace(base, "http:", "ws:", 1)
	w.says("web", q("/dial-ws", "url", ws+"/ws"), "echo hello <nil>")
	w.says("web", q("/dial-ws", "url", ws+"/nothing-to-upgrade"), "bad handshake 200")
}

func chunkedBothWays(w *world, base string) {
	w.says("web", q("/send-chunked", "url", base+"/chunked"), `200 OK same=true trailer="in a trailer" error=<nil>`)

	// The gateway says 100 before the body is sent, once the service does.
	read, write := io.Pipe()
	req, _ := http.NewRequest(http.MethodPost, "http://"+w.status().Gateway+"/chunked", read)
	req.Host = "web.localhost"
	req.Header.Set("Expect", "100-continue")
	req.Trailer = http.Header{"X-Said": {"by the client"}}
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, _ textproto.MIMEHeader) error {
		go func() { _, _ = fmt.Fprint(write, code, " came"); _ = write.Close() }()
		return nil
	}}
	client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: patience}, Timeout: patience}
	resp, err := client.Do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	must(w, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if string(b) != "100 came" || resp.Trailer.Get("X-Heard") != "by the client" {
		w.Errorf("%s %q %v %v", resp.Status, b, resp.Trailer, err)
	}
}

func heads(w *world, base string) {
	to := strings.TrimPrefix(base, "http://")
	raw := "HEAD /echo HTTP/1.1\r\nHost: orders\r\n\r\nGET / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n\r\n"
	_, both := w.send("web", q("/raw", "addr", to), raw)
	if strings.Count(both, "HTTP/1.1 200 OK") != 2 || !strings.Contains(both, "orders none caller=web") {
		w.Errorf("HEAD and then GET on one connection got:\n%s", both)
	}
}

func streaming(w *world, base string) {
	w.says("web", q("/relay-stream", "url", base), "first\nsecond\n<nil>")
}

func leaving(w *world, base string) {
	read, write := io.Pipe()
	req, _ := http.NewRequest(http.MethodPost, "http://"+w.status().Gateway+q("/leave", "url", base+"/slow?for=1h"), read)
	req.Host = "web.localhost"
	done := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		done <- err
	}()
	w.eventually("orders has the call", func() bool { return w.inside("orders", "/slow") })
	must(w, write.Close())
	must(w, <-done)
	w.eventually("orders sees its caller leave", func() bool {
		_, body, _ := w.get("orders", "/seen")
		return strings.Contains(body, "caller left")
	})
}

// inside reports whether a request to path has reached a service.
func (w *world) inside(service, path string) bool {
	_, body, _ := w.get(service, q("/inside", "path", path))
	return body == "true"
}

func rawTCP(w *world, _ string) {
	_, got := w.send("web", q("/raw", "addr", w.addr("web", "orders", 9000))+"&half", "not HTTP at all")
	if got != "got 15 bytes: not HTTP at all" {
		w.Errorf("over TCP: %q", got)
	}
	long := strings.Repeat("x", 1<<20)
	if _, got := w.send("web", q("/raw", "addr", w.addr("web", "orders", 9000))+"&half", long); got != "got 1048576 bytes: "+long {
		w.Errorf("over TCP a megabyte became %d bytes: %.60q", len(got), got)
	}
}

func namesAndPorts(w *world, base string) {
	w.says("web", q("/get", "url", base+"/"), "orders none caller=web")
	if w.mode != fleet.Netns {
		w.says("web", q("/get", "url", "http://orders/"), "orders none caller=web") // by HTTP_PROXY
		return
	}
	for _, url := range []string{"http://orders/", "http://orders:80/", "http://orders:8080/", "http://orders.:8080/"} {
		w.says("web", q("/get", "url", url), "orders none caller=web")
	}
	_, addrs, _ := w.get("web", q("/lookup", "name", "orders"))
	_, overTCP, _ := w.get("web", q("/lookup-tcp", "name", "orders"))
	if !strings.Contains(addrs, "198.18.") || addrs != overTCP {
		w.Errorf("orders resolves to %q, over TCP to %q", addrs, overTCP)
	}
	six := ""
	for _, addr := range strings.Fields(strings.Trim(addrs, "[]")) {
		if addr = strings.Trim(addr, "[]"); strings.Contains(addr, ":") {
			six = addr
		}
	}
	if six == "" {
		w.Fatalf("orders has no IPv6 address in %q", addrs)
	}
	w.says("web", q("/get", "url", "http://["+six+"]/"), "orders none caller=web")
	w.says("web", q("/get", "url", "http://["+six+"]:8080/"), "orders none caller=web")
	w.says("web", q("/grpc", "target", "["+six+"]:9090"), "unary SERVING OK")
}

func refusedPorts(w *world, _ string) {
	if w.mode != fleet.Netns {
		w.says("web", q("/get", "url", "http://orders:8081/"), "orders does not listen on port 8081", "8080 (http)")
		w.says("web", q("/get", "url", "http://stranger/"), "web may not call stranger", "web/shoal.yaml:6")
		return
	}
	w.says("web", q("/get", "url", "http://orders:8081/"), "orders does not listen on port 8081", "8080 (http)", "9000 (tcp)")
	w.says("web", q("/get", "url", "https://orders/"), "tls: access denied")
	w.eventually("why says how to call", func() bool { return strings.Contains(w.run("why"), "http://orders/") })
	w.says("web", q("/get", "url", "https://example.com/"), "tls: access denied")
	if _, got := w.send("web", q("/raw", "addr", "stranger:9001")+"&half", "x"); strings.Contains(got, "got") {
		w.Errorf("an undeclared TCP call got through: %q", got)
	}
	w.says("web", q("/dial-ws", "url", "ws://stranger/ws"), "403", "web may not call stranger")
}
