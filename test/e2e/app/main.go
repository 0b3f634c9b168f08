//go:build unix

// Command app is the service that the end-to-end tests run: it knows nothing of Shoal, and does what
// its requests ask of it.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// seen are the events that were delivered here, one line each.
var (
	mu   sync.Mutex
	seen []string
)

func main() {
	if os.Getenv("IGNORE_TERM") != "" {
		signal.Ignore(syscall.SIGTERM)
	}
	if text := os.Getenv("EXIT_WITH"); text != "" {
		log.Fatal(text)
	}
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	if os.Args[1] == "tool" {
		beTool()
		return
	}
	if os.Args[len(os.Args)-1] == "work" {
		work()
		return
	}
	if port := os.Getenv("GRPC"); port != "" {
		go serveGRPC(port)
	}
	if port := os.Getenv("TCP"); port != "" {
		go serveTCP(port)
	}
	mux := http.NewServeMux()
	addWire(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s caller=%s\n", os.Args[1], version(), r.Header.Get("Shoal-Caller"))
	})
	mux.HandleFunc("/healthz", health)
	mux.HandleFunc("/get", get)
	mux.HandleFunc("/send", send)
	mux.HandleFunc("/dial", dial)
	mux.HandleFunc("/lookup", lookup)
	mux.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, os.Getenv(r.URL.Query().Get("name"))) })
	mux.HandleFunc("/read", read)
	mux.HandleFunc("/slow", slow)
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	mux.HandleFunc("/do", do)
	mux.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	mux.HandleFunc("/flood", flood)
	mux.HandleFunc("/events/", event)
	mux.HandleFunc("/nats/publish", natsPublish)
	mux.HandleFunc("/nats/receive", natsReceive)
	mux.HandleFunc("/seen", func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprint(w, strings.Join(seen, ""))
	})
	fmt.Printf("%s %s listens on %s\n", os.Args[1], version(), port)
	srv := &http.Server{Addr: ":" + port, Handler: counted(mux)}
	go stopOnTerm(srv)
	if err := srv.ListenAndServe(); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond) // as real services do, it takes a moment to end
}

// addWire adds what tries the data path.
func addWire(mux *http.ServeMux) {
	for path, handler := range map[string]http.HandlerFunc{
		"/raw": raw, "/chunked": chunked, "/send-chunked": sendChunked, "/stream": stream, "/open": open,
		"/relay-stream": relayStream, "/leave": leave, "/ws": echoWebSocket, "/dial-ws": dialWebSocket,
		"/lookup-tcp": lookupTCP, "/grpc": checkGRPC, "/mood": mood,
	} {
		mux.HandleFunc(path, handler)
	}
}

// inside are the paths that were asked for.
var inside sync.Map

func counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/inside" {
			_, ok := inside.Load(r.URL.Query().Get("path"))
			fmt.Fprint(w, ok)
			return
		}
		inside.Store(r.URL.Path, true)
		next.ServeHTTP(w, r)
	})
}

// do does what must not be done twice: its output tells what was done, whatever becomes of the process.
func do(w http.ResponseWriter, r *http.Request) {
	fmt.Printf("did %s\n", r.URL.Query().Get("id"))
	fmt.Fprint(w, "done")
}

// refusing says that events are not taken.
var refusing atomic.Bool

func mood(_ http.ResponseWriter, r *http.Request) { refusing.Store(r.URL.Query().Has("refuse")) }

// work is a worker: it says in $SHOAL_STATE which version works, and goes on until TERM.
func work() {
	if err := os.WriteFile(os.Getenv("SHOAL_STATE")+"/worker", []byte(version()), 0o644); err != nil {
		log.Fatal(err)
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	<-c
}

func stopOnTerm(srv *http.Server) {
	if os.Getenv("IGNORE_TERM") != "" {
		return
	}
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	<-c
	_ = srv.Close()
}

// version is a file of the release: the working directory is the release's.
func version() string {
	b, err := os.ReadFile("version.txt")
	if err != nil {
		return "none"
	}
	return strings.TrimSpace(string(b))
}

func health(w http.ResponseWriter, _ *http.Request) {
	if version() == "sick" {
		http.Error(w, "sick", http.StatusServiceUnavailable)
	}
}

func get(w http.ResponseWriter, r *http.Request) {
	req, err := http.NewRequest(http.MethodGet, r.URL.Query().Get("url"), nil)
	if err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	handOn(req, r)
	resp, err := http.DefaultClient.Do(req)
	answer(w, resp, err)
}

// handOn is all that an application without a tracer does for a trace.
func handOn(to, from *http.Request) {
	for _, name := range []string{"Traceparent", "Tracestate"} {
		if values := from.Header.Values(name); values != nil {
			to.Header[name] = values
		}
	}
}

func send(w http.ResponseWriter, r *http.Request) {
	req, err := http.NewRequest(http.MethodPost, r.URL.Query().Get("url"), r.Body)
	if err != nil {
		http.Error(w, err.Error(), 400)
		return
	}
	for name, values := range r.Header {
		if strings.HasPrefix(name, "Ce-") || name == "Content-Type" {
			req.Header[name] = values
		}
	}
	if method := r.URL.Query().Get("method"); method != "" {
		req.Method = method
	}
	if delay := r.URL.Query().Get("delay"); delay != "" {
		req.Header.Set("Delay", delay)
	}
	handOn(req, r)
	resp, err := http.DefaultClient.Do(req)
	answer(w, resp, err)
}

func answer(w http.ResponseWriter, resp *http.Response, err error) {
	if err != nil {
		http.Error(w, "error: "+err.Error(), 599)
		return
	}
	defer resp.Body.Close()
	for _, h := range []string{"Shoal-Reason", "X-Request-Id"} {
		if v := resp.Header.Get(h); v != "" {
			w.Header().Set("Got-"+h, v)
		}
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

func dial(w http.ResponseWriter, r *http.Request) {
	c, err := net.DialTimeout(r.URL.Query().Get("network"), r.URL.Query().Get("addr"), 5*time.Second)
	if err != nil {
		http.Error(w, "error: "+err.Error(), 599)
		return
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if text := r.URL.Query().Get("say"); text != "" {
		fmt.Fprintln(c, text)
	}
	b, err := io.ReadAll(c)
	fmt.Fprintf(w, "%s", b)
	if err != nil {
		fmt.Fprintf(w, "error: %v", err)
	}
}

func lookup(w http.ResponseWriter, r *http.Request) {
	addrs, err := net.LookupHost(r.URL.Query().Get("name"))
	fmt.Fprintln(w, addrs, err)
}

func read(w http.ResponseWriter, r *http.Request) {
	b, err := os.ReadFile(r.URL.Query().Get("path"))
	if err != nil {
		http.Error(w, err.Error(), 599)
		return
	}
	_, _ = w.Write(b)
}

func slow(w http.ResponseWriter, r *http.Request) {
	d, _ := time.ParseDuration(r.URL.Query().Get("for"))
	select {
	case <-time.After(d):
		fmt.Fprintln(w, "done")
	case <-r.Context().Done():
		mu.Lock()
		seen = append(seen, "caller left\n")
		mu.Unlock()
	}
}

func flood(w http.ResponseWriter, r *http.Request) {
	n, _ := strconv.Atoi(r.URL.Query().Get("bytes"))
	line := strings.Repeat("x", 199) + "\n"
	for n > 0 {
		m, _ := io.WriteString(os.Stdout, line)
		n -= m
	}
	fmt.Fprintln(w, "flooded")
}

func event(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	mu.Lock()
	defer mu.Unlock()
	outcome := "taken"
	if refusing.Load() {
		outcome = "refused"
		http.Error(w, "not now", http.StatusServiceUnavailable)
	}
	seen = append(seen, fmt.Sprintf("%s %s %s %s %s\n", outcome, r.URL.Path, r.Header.Get("Ce-Type"), r.Header.Get("Ce-Id"), body))
}
