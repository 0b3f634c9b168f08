package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// stand is a world in which orders calls instances of inventory whose conduct a test sets, in one of the
// three protocols: what is decided about calls must not depend on what carries them.
type stand struct {
	*world
	protocol string
	addr     string
	http     *http.Client
	grpc     *grpc.ClientConn
	ids      atomic.Int64

	mu      sync.Mutex // guards below
	where   map[string]string
	conduct map[string]reply
	seen    map[string]int
	ended   map[string]int // requests whose context ended before they were answered
}

// reply is what an instance does with a request. Its zero value is a good answer at once.
type reply struct {
	status     int        // HTTP; 0: 200
	code       codes.Code // gRPC
	after      time.Duration
	hang       bool // until the request is cancelled
	retryAfter string
	pushback   string // grpc-retry-pushback-ms
}

var protocols = []string{"HTTP/1.1", "HTTP/2", "gRPC"}

// everywhere runs a test in each protocol, with instances of inventory.
func everywhere(t *testing.T, test func(s *stand), edit func(inventory, orders *fleet.Service), names ...string) {
	everywhereWith(t, proxy.Config{}, test, edit, names...)
}

func everywhereWith(t *testing.T, c proxy.Config, test func(s *stand), edit func(inventory, orders *fleet.Service), names ...string) {
	for _, protocol := range protocols {
		t.Run(protocol, func(t *testing.T) { test(newStand(t, c, protocol, edit, names...)) })
	}
}

func newStand(t *testing.T, c proxy.Config, protocol string, edit func(inventory, orders *fleet.Service), names ...string) *stand {
	stock, caller := inventory(instances(names...)), orders()
	if protocol == "gRPC" {
		stock.Manifest.Ports[0].Protocol = fleet.GRPC
	}
	if edit != nil {
		edit(stock, caller)
	}
	s := newStandIn(newWorld(t, c, stock, caller), protocol)
	for _, name := range names {
		s.start(name)
	}
	return s
}

// newStandIn has no instances yet.
func newStandIn(w *world, protocol string) *stand {
	s := &stand{world: w, protocol: protocol,
		where: map[string]string{}, conduct: map[string]reply{}, seen: map[string]int{}, ended: map[string]int{}}
	t := w.t
	s.addr = s.named("inventory", 8080)
	switch protocol {
	case "gRPC":
		s.grpc = must(grpc.NewClient("passthrough:///"+s.addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDisableRetry()))
		t.Cleanup(func() { s.grpc.Close() })
	case "HTTP/2":
		s.http = h2c(t)
	default:
		s.http = s.client()
	}
	return s
}

// start starts an instance and attaches it.
func (s *stand) start(name string) { s.startAt(s.world, name, s.protocol) }

// startAt starts an instance that speaks a protocol, and attaches it to a node.
func (s *stand) startAt(w *world, name, protocol string) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	if protocol == "gRPC" {
		server := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, st grpc.ServerStream) error { return s.serveGRPC(name, st) }))
		go func() { _ = server.Serve(l) }()
		s.t.Cleanup(server.Stop)
	} else {
		server := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serveHTTP(name, w, r) })}}
		server.Config.Protocols = new(http.Protocols)
		server.Config.Protocols.SetHTTP1(protocol == "HTTP/1.1")
		server.Config.Protocols.SetUnencryptedHTTP2(protocol == "HTTP/2")
		server.Start()
		s.t.Cleanup(server.Close)
	}
	s.mu.Lock()
	s.where[name] = l.Addr().String()
	s.mu.Unlock()
	w.p.Attach(name, dialTo(l.Addr().String()))
}

// renew has the proxy forget what it learned of an instance.
func (s *stand) renew(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.p.Attach(name, dialTo(s.where[name]))
}

func (s *stand) behave(name string, r reply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conduct[name] = r
}

func (s *stand) asked(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[name]
}

func (s *stand) cancelled(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended[name]
}

// take notes a request and does what the instance does first.
func (s *stand) take(ctx context.Context, name string) (reply, bool) {
	s.mu.Lock()
	r := s.conduct[name]
	s.seen[name]++
	s.mu.Unlock()
	wait := r.after
	if r.hang {
		wait = time.Minute
	}
	if wait == 0 {
		return r, true
	}
	select {
	case <-time.After(wait):
		return r, true
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ended[name]++
		return r, false
	}
}

func (s *stand) serveHTTP(name string, w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	do, ok := s.take(r.Context(), name)
	if !ok {
		return
	}
	w.Header().Set("Instance", name)
	w.Header().Set("Timeout", r.Header.Get("Shoal-Timeout-Ms"))
	if do.retryAfter != "" {
		w.Header().Set("Retry-After", do.retryAfter)
	}
	if do.status != 0 {
		w.WriteHeader(do.status)
	}
	io.WriteString(w, "ok")
}

func (s *stand) serveGRPC(name string, st grpc.ServerStream) error {
	m := new(bytesValue)
	if err := st.RecvMsg(m); err != nil {
		return err
	}
	do, ok := s.take(st.Context(), name)
	if !ok {
		return st.Context().Err()
	}
	if do.retryAfter != "" {
		st.SetTrailer(metadata.Pairs("retry-after", do.retryAfter))
	}
	if do.pushback != "" {
		st.SetTrailer(metadata.Pairs("grpc-retry-pushback-ms", do.pushback))
	}
	if do.code != codes.OK {
		return status.Error(do.code, "as told")
	}
	deadline := ""
	if at, ok := st.Context().Deadline(); ok {
		deadline = strconv.Itoa(int(time.Until(at).Milliseconds()))
	}
	_ = st.SetHeader(metadata.Pairs("instance", name, "timeout", deadline))
	return st.SendMsg(m)
}

// result is how a call ended for its caller.
type result struct {
	id, instance, timeout string
	reason, retryAfter    string
	status                int // HTTP
	code                  codes.Code
	err                   error // none came
}

func (r result) ok() bool { return r.err == nil && r.status < 300 && r.code == codes.OK }

// call makes a call of the method (gRPC knows none but POST) with a key, if it is given one.
func (s *stand) call(ctx context.Context, method, key string) result {
	id := fmt.Sprintf("r%d", s.ids.Add(1))
	if s.protocol == "gRPC" {
		return s.callGRPC(ctx, id, key)
	}
	r := must(http.NewRequestWithContext(ctx, method, "http://"+s.addr+"/", nil))
	r.Header.Set("X-Request-Id", id)
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	res, err := s.http.Do(r)
	if err != nil {
		return result{id: id, err: err}
	}
	defer res.Body.Close()
	_, err = io.ReadAll(res.Body)
	h := res.Header
	return result{id: id, instance: h.Get("Instance"), timeout: h.Get("Timeout"), reason: h.Get("Shoal-Reason"), retryAfter: h.Get("Retry-After"), status: res.StatusCode, err: err}
}

func (s *stand) callGRPC(ctx context.Context, id, key string) result {
	ctx = metadata.AppendToOutgoingContext(ctx, "x-request-id", id)
	if key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "idempotency-key", key)
	}
	var head, trailer metadata.MD
	err := s.grpc.Invoke(ctx, "/inventory/Get", &bytesValue{Value: []byte("x")}, new(bytesValue), grpc.Header(&head), grpc.Trailer(&trailer))
	one := func(name string) string {
		for _, md := range []metadata.MD{head, trailer} {
			if v := md.Get(name); len(v) > 0 {
				return v[0]
			}
		}
		return ""
	}
	after := one("retry-after") + one("grpc-retry-pushback-ms")
	return result{id: id, instance: one("instance"), timeout: one("timeout"), reason: one("shoal-reason"), retryAfter: after, code: status.Code(err)}
}

// safe is a call that may be repeated.
func (s *stand) safe() result { return s.call(context.Background(), "GET", "key") }

// unsafe is a call that may not.
func (s *stand) unsafe() result { return s.call(context.Background(), "POST", "") }

func (s *stand) decided(r result, d fleet.Decisions) bool { return s.observed(r.id).Decisions.Has(d) }
