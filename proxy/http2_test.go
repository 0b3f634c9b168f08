package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/proxy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// shop is a fleet of one proxy: web may call inventory (gRPC) and catalog (HTTP), stranger may call
// nobody.
type shop struct {
	t        testing.TB
	p        *proxy.Proxy
	recorder *observe.Recorder
	version  uint64
}

func newShop(t testing.TB, node string, more func(*proxy.Config)) *shop {
	cfg := proxy.Config{Node: node, Recorder: observe.New(observe.Config{})}
	if more != nil {
		more(&cfg)
	}
	p, err := proxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { defer close(ran); _ = p.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ran })
	return &shop{t: t, p: p, recorder: cfg.Recorder}
}

// install makes instances of inventory and catalog, on nodes, the picture.
func (s *shop) install(timeout time.Duration, endpoints ...fleet.Endpoint) {
	s.version++
	calls := []fleet.Call{{Service: "catalog", Timeout: fleet.Duration(timeout)}, {Service: "inventory", Timeout: fleet.Duration(timeout)}}
	service := func(name string, index uint16, m fleet.Manifest) *fleet.Service {
		m.Service, m.File, m.Lines = name, name+"/shoal.yaml", map[string]int{"calls": 7}
		out := &fleet.Service{Name: name, Index: index, Manifest: m, Deployed: true}
		for _, e := range endpoints {
			if strings.HasPrefix(e.Instance, name) {
				out.Endpoints = append(out.Endpoints, e)
			}
		}
		return out
	}
	s.p.Install(&fleet.Snapshot{Fleet: "shop", Version: s.version, Services: []*fleet.Service{
		service("catalog", 16, fleet.Manifest{Ports: []fleet.Port{{Number: 8080, Protocol: fleet.HTTP}}}),
		service("inventory", 17, fleet.Manifest{Ports: []fleet.Port{{Number: 8080, Protocol: fleet.GRPC}}}),
		service("stranger", 18, fleet.Manifest{}),
		service("web", 19, fleet.Manifest{Calls: calls}),
	}})
}

// outbound returns the address at which a service calls another.
func (s *shop) outbound(from, to string) string {
	l := listenHTTP2(s.t)
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = s.p.ServeNamed(ctx, l, proxy.Source{Service: from, Instance: from + "-1"}, to, 8080)
	}()
	s.t.Cleanup(func() { cancel(); <-ran })
	return l.Addr().String()
}

func (s *shop) client(from, to string) *grpc.ClientConn { return s.clientAt(s.outbound(from, to)) }

func (s *shop) clientAt(addr string) *grpc.ClientConn {
	cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { cc.Close() })
	return cc
}

func listenHTTP2(t testing.TB) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// to is a dialer to one address, whatever the port.
type to string

func (a to) Dial(ctx context.Context, _ uint16) (*net.TCPConn, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", string(a))
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

type bytesValue = wrapperspb.BytesValue

// grpcStock is a gRPC application. It says which instance answered and who called.
type grpcStock struct {
	name    string
	server  *grpc.Server
	addr    string
	stopped atomic.Bool
	hanging chan bool  // calls that wait for their end
	ended   chan error // contexts of calls that were left hanging
}

func startInventory(t testing.TB, name string) *grpcStock {
	l := listenHTTP2(t)
	i := &grpcStock{name: name, server: grpc.NewServer(), addr: l.Addr().String(), hanging: make(chan bool, 100), ended: make(chan error, 100)}
	i.server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "shop.Inventory", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Get", Handler: i.get}},
		Streams: []grpc.StreamDesc{
			{StreamName: "List", Handler: i.list, ServerStreams: true},
			{StreamName: "Put", Handler: i.put, ClientStreams: true},
			{StreamName: "Chat", Handler: i.chat, ServerStreams: true, ClientStreams: true},
		},
	}, struct{}{})
	go func() { _ = i.server.Serve(noting{l, &i.stopped}) }()
	t.Cleanup(i.server.Stop)
	return i
}

// noting is a listener that notes when it is closed.
type noting struct {
	net.Listener
	closed *atomic.Bool
}

func (n noting) Close() error {
	n.closed.Store(true)
	return n.Listener.Close()
}

// Dial refuses once the application has stopped: its port may be another process's by then.
func (i *grpcStock) Dial(ctx context.Context, port uint16) (*net.TCPConn, error) {
	if i.stopped.Load() {
		return nil, syscall.ECONNREFUSED
	}
	return to(i.addr).Dial(ctx, port)
}

func (i *grpcStock) get(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	m := new(bytesValue)
	if err := dec(m); err != nil {
		return nil, err
	}
	md, _ := metadata.FromIncomingContext(ctx)
	_ = grpc.SetHeader(ctx, metadata.Pairs("instance", i.name, "caller", strings.Join(md["shoal-caller"], "")))
	switch string(m.Value) {
	case "hang":
		i.hanging <- true
		<-ctx.Done()
		i.ended <- ctx.Err()
		return nil, ctx.Err()
	case "slow":
		time.Sleep(20 * time.Millisecond)
	case "missing":
		return nil, status.Error(codes.NotFound, "no such thing")
	}
	return m, nil
}

func (i *grpcStock) list(_ any, s grpc.ServerStream) error {
	m := new(bytesValue)
	if err := s.RecvMsg(m); err != nil {
		return err
	}
	for n := range int(m.Value[0]) {
		if err := s.SendMsg(&bytesValue{Value: bytes.Repeat([]byte{byte(n)}, 10_000)}); err != nil {
			return err
		}
	}
	return nil
}

func (i *grpcStock) put(_ any, s grpc.ServerStream) error {
	n := 0
	for {
		m := new(bytesValue)
		if err := s.RecvMsg(m); errors.Is(err, io.EOF) {
			return s.SendMsg(&bytesValue{Value: fmt.Append(nil, n)})
		} else if err != nil {
			return err
		}
		n += len(m.Value)
	}
}

func (i *grpcStock) chat(_ any, s grpc.ServerStream) error {
	for {
		m := new(bytesValue)
		if err := s.RecvMsg(m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			i.ended <- err
			return err
		}
		if err := s.SendMsg(m); err != nil {
			return err
		}
	}
}

func get(ctx context.Context, cc *grpc.ClientConn, in string, opts ...grpc.CallOption) (string, error) {
	out := new(bytesValue)
	err := cc.Invoke(ctx, "/shop.Inventory/Get", &bytesValue{Value: []byte(in)}, out, opts...)
	return string(out.Value), err
}

// localShop has one instance of inventory.
func localShop(t *testing.T, timeout time.Duration) (*shop, *grpcStock) {
	s, i := newShop(t, "n1", nil), startInventory(t, "inventory-1")
	s.install(timeout, fleet.Endpoint{Instance: "inventory-1", Node: "n1"})
	s.p.Attach("inventory-1", to(i.addr))
	return s, i
}

func TestGRPCUnary(t *testing.T) {
	s, _ := localShop(t, 0)
	cc := s.client("web", "inventory")
	var head metadata.MD
	if got, err := get(t.Context(), cc, "a", grpc.Header(&head)); got != "a" || err != nil {
		t.Fatal(got, err)
	}
	if head["caller"][0] != "web" {
		t.Fatal("the application saw the caller", head["caller"])
	}
	if _, err := get(t.Context(), cc, "missing"); status.Code(err) != codes.NotFound {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for n := range 100 {
				want := strings.Repeat(fmt.Sprint(w, n), 1+n*n%700)
				if got, err := get(t.Context(), cc, want); got != want || err != nil {
					t.Error(len(got), err)
				}
			}
		})
	}
	wg.Wait()
	for _, e := range s.recorder.Edges() {
		if e.From == "web" && e.To == "inventory" {
			if e.Requests != 802 || e.Errors != 0 || // NOT_FOUND is about the request
				e.Protocol != fleet.GRPC {
				t.Fatalf("%+v", e)
			}
			return
		}
	}
	t.Fatal("no edge was counted")
}

func TestGRPCStreams(t *testing.T) {
	s, i := localShop(t, 0)
	cc := s.client("web", "inventory")
	open := func(ctx context.Context, name string) grpc.ClientStream {
		st, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/shop.Inventory/"+name)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	list := open(t.Context(), "List")
	if err := list.SendMsg(&bytesValue{Value: []byte{200}}); err != nil {
		t.Fatal(err)
	}
	_ = list.CloseSend()
	for n := range 200 {
		m := new(bytesValue)
		if err := list.RecvMsg(m); err != nil || len(m.Value) != 10_000 || m.Value[0] != byte(n) {
			t.Fatal(n, err)
		}
	}
	if err := list.RecvMsg(new(bytesValue)); err != io.EOF {
		t.Fatal(err)
	}
	put := open(t.Context(), "Put")
	for range 100 {
		if err := put.SendMsg(&bytesValue{Value: make([]byte, 10_000)}); err != nil {
			t.Fatal(err)
		}
	}
	_ = put.CloseSend()
	sum := new(bytesValue)
	if err := put.RecvMsg(sum); err != nil || string(sum.Value) != "1000000" {
		t.Fatal(string(sum.Value), err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	chat := open(ctx, "Chat")
	for n := range 100 {
		m := new(bytesValue)
		if err := chat.SendMsg(&bytesValue{Value: fmt.Append(nil, n)}); err != nil {
			t.Fatal(err)
		}
		if err := chat.RecvMsg(m); err != nil || string(m.Value) != fmt.Sprint(n) {
			t.Fatal(err)
		}
	}
	cancel()
	<-i.ended // the application hears of it
}

func TestGRPCDeadlines(t *testing.T) {
	t.Run("the caller's", func(t *testing.T) {
		s, i := localShop(t, 0)
		cc := s.client("web", "inventory")
		i.outlasts(t, func() error {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := get(ctx, cc, "hang")
			return err
		})
	})
	t.Run("declared", func(t *testing.T) {
		s, i := localShop(t, 100*time.Millisecond)
		cc := s.client("web", "inventory")
		i.outlasts(t, func() error {
			_, err := get(t.Context(), cc, "hang")
			return err
		})
	})
	t.Run("cancelled", func(t *testing.T) {
		s, i := localShop(t, 0)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-i.hanging; cancel() }()
		if _, err := get(ctx, s.client("web", "inventory"), "hang"); status.Code(err) != codes.Canceled {
			t.Fatal(err)
		}
		<-i.ended
	})
}

// outlasts makes calls until one has reached the application in time: each ends by its deadline, and the
// application hears of it.
func (i *grpcStock) outlasts(t *testing.T, call func() error) {
	t.Helper()
	for len(i.hanging) == 0 {
		if err := call(); status.Code(err) != codes.DeadlineExceeded {
			t.Fatal(err)
		}
	}
	<-i.ended
}

func TestGRPCRefusals(t *testing.T) {
	s, _ := localShop(t, 0)
	_, err := get(t.Context(), s.client("stranger", "inventory"), "a")
	st := status.Convert(err)
	if st.Code() != codes.PermissionDenied || !strings.Contains(st.Message(), "stranger/shoal.yaml:7") || !strings.Contains(st.Message(), "inventory: {}") {
		t.Fatal(err)
	}
	_, err = get(t.Context(), s.client("web", "nobody"), "a")
	if status.Code(err) != codes.Unimplemented {
		t.Fatal(err)
	}
	res, err := http.Get("http://" + s.outbound("web", "inventory") + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode != 502 || !strings.Contains(string(body), "HTTP/2 only") {
		t.Fatal(res.StatusCode, string(body))
	}
}

// A call waits for an instance that is not attached yet, within its deadline.
func TestGRPCWaitsForInstance(t *testing.T) {
	s := newShop(t, "n1", nil)
	s.install(0, fleet.Endpoint{Instance: "inventory-1", Node: "n1"})
	cc := s.client("web", "inventory")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := get(ctx, cc, "a"); err == nil { // its own clock or the proxy's, whichever is first
		t.Fatal("answered, by nobody")
	}
	answered := make(chan error, 1)
	go func() {
		_, err := get(t.Context(), cc, "a")
		answered <- err
	}()
	s.p.Attach("inventory-1", to(startInventory(t, "inventory-1").addr))
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
}

// The restart of a server under load fails no unary call: the new instance is placed, traffic shifts,
// the old one drains and stops; then one simply dies between calls.
func TestGRPCRestartUnderLoad(t *testing.T) {
	s, old := localShop(t, 0)
	var calls, fresh atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 8 {
		cc := s.client("web", "inventory")
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				var head metadata.MD
				if _, err := get(context.Background(), cc, "a", grpc.Header(&head)); err != nil {
					t.Error(err)
					return
				}
				calls.Add(1)
				if head["instance"][0] == "inventory-9" {
					fresh.Add(1)
				}
			}
		})
	}
	for n := 2; n < 10; n++ {
		name, before := fmt.Sprintf("inventory-%d", n), calls.Load()
		next := startInventory(t, name)
		s.p.Attach(name, to(next.addr))
		s.install(0, fleet.Endpoint{Instance: old.name, Node: "n1"}, fleet.Endpoint{Instance: name, Node: "n1"})
		s.install(0, fleet.Endpoint{Instance: old.name, Node: "n1", State: fleet.Draining}, fleet.Endpoint{Instance: name, Node: "n1"})
		if err := s.p.Drain(t.Context(), old.name); err != nil {
			t.Fatal(err)
		}
		s.p.Detach(old.name)
		if n%2 == 0 {
			old.server.GracefulStop()
		} else {
			old.server.Stop()
		}
		s.install(0, fleet.Endpoint{Instance: name, Node: "n1"})
		old = next
		waitUntil(t, "calls go on", func() bool { return calls.Load() > before+100 || t.Failed() })
	}
	waitUntil(t, "the last instance answers", func() bool { return fresh.Load() > 100 || t.Failed() })
	close(stop)
	wg.Wait()
}

// A server that shuts down by itself says GOAWAY: what it did not process is sent to another.
func TestGRPCGoAway(t *testing.T) {
	s, one := localShop(t, 0)
	s.p.Attach("inventory-1", one)
	s.p.Attach("inventory-2", startInventory(t, "inventory-2"))
	s.install(0, fleet.Endpoint{Instance: "inventory-1", Node: "n1"}, fleet.Endpoint{Instance: "inventory-2", Node: "n1"})
	cc := s.client("web", "inventory")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				if _, err := get(t.Context(), cc, "a"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	one.server.GracefulStop()
	wg.Wait()
}

func waitUntil(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
		time.Sleep(time.Millisecond)
	}
}

// Drain returns when the streams have ended, not before.
func TestGRPCDrainWaitsForStreams(t *testing.T) {
	s, _ := localShop(t, 0)
	cc := s.client("web", "inventory")
	chat, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/shop.Inventory/Chat")
	if err != nil {
		t.Fatal(err)
	}
	talk := func() {
		m := new(bytesValue)
		if err := chat.SendMsg(&bytesValue{Value: []byte("x")}); err != nil {
			t.Fatal(err)
		}
		if err := chat.RecvMsg(m); err != nil {
			t.Fatal(err)
		}
	}
	talk()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.p.Drain(ctx, "inventory-1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	talk() // a stream that was open goes on
	drained := make(chan error, 1)
	go func() { drained <- s.p.Drain(t.Context(), "inventory-1") }()
	_ = chat.CloseSend()
	if err := chat.RecvMsg(new(bytesValue)); err != io.EOF {
		t.Fatal(err)
	}
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
}
