package broker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// mesh stands where the proxy does: it carries deliveries to receivers by the name of their service.
type mesh struct {
	mu        sync.Mutex
	receivers map[string]http.Handler
}

func (m *mesh) handle(service string, h http.Handler) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.receivers[service] = h
}

// dial gives the client's end of a loopback connection that the service's handler serves.
func (m *mesh) transport(t testing.TB) http.RoundTripper {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		h := m.receivers[r.Host]
		m.mu.Unlock()
		if h == nil {
			w.Header().Set("Shoal-Reason", string(fleet.ReasonNoEndpoint))
			http.Error(w, "no instance of "+r.Host+" became ready", http.StatusServiceUnavailable)
			return
		}
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", server.Listener.Addr().String())
	}}
}

// bench is a broker that runs, with what is around it.
type bench struct {
	*broker.Broker
	*mesh
	t    testing.TB
	stop func()
	ends string // what the stop complains of; empty: nothing

	mu           sync.Mutex
	observations []fleet.Observation
}

func newBench(t testing.TB, dir string, settings ...func(*broker.Config)) *bench {
	t.Helper()
	k := &bench{t: t, mesh: &mesh{receivers: make(map[string]http.Handler)}}
	transport := k.transport(t)
	c := broker.Config{
		Dir: dir, MinBackoff: 5 * time.Millisecond, MaxBackoff: 50 * time.Millisecond, Reserve: -1,
		Transport: func(caller string) http.RoundTripper { return transport },
		Observe: func(o *fleet.Observation) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.observations = append(k.observations, *o)
		},
		Log: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	for _, set := range settings {
		set(&c)
	}
	b, err := broker.New(c)
	if err != nil {
		t.Fatal(err)
	}
	k.Broker = b
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	k.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; (err == nil) != (k.ends == "") || err != nil && !strings.Contains(err.Error(), k.ends) {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(k.stop)
	return k
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if os.Getenv("BROKER_TEST_LOG") != "" {
		w.t.Logf("%s", p)
	}
	return len(p), nil
}

// shop is the snapshot that most tests use: orders publishes, payments and mailer subscribe.
func shop(subscribers ...string) *fleet.Snapshot {
	s := &fleet.Snapshot{Fleet: "shop", Version: 1, Services: []*fleet.Service{{
		Name: "orders", Version: 1, Deployed: true,
		Manifest: fleet.Manifest{Service: "orders", File: "orders/shoal.yaml", Lines: map[string]int{"publishes": 12}, Publishes: []string{"orders.placed"}},
	}}}
	for _, name := range subscribers {
		s.Services = append(s.Services, &fleet.Service{
			Name: name, Version: 1, Deployed: true,
			Manifest: fleet.Manifest{Service: name, Subscribes: []fleet.Subscription{{Topic: "orders.placed", Method: "POST", Path: "/events/placed"}}},
		})
	}
	return s
}

// callerConn is a connection as the proxy hands it over.
type callerConn struct {
	net.Conn
	caller string
}

func (c callerConn) Caller() string { return c.caller }

// client returns an HTTP client whose requests reach the broker as that caller's.
func (k *bench) client(caller string) *http.Client {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			if caller == "" {
				k.ServeConn(c)
				continue
			}
			k.ServeConn(callerConn{c, caller})
		}
	}()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", listener.Addr().String())
	}}
	k.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// publish publishes one event with that data.
func (k *bench) publish(data string) string {
	k.t.Helper()
	id, err := k.Publish(k.t.Context(), "orders", broker.Event{Topic: "orders.placed", Data: []byte(data)})
	if err != nil {
		k.t.Fatal(err)
	}
	return id
}

func (k *bench) seen() []fleet.Observation {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]fleet.Observation(nil), k.observations...)
}

// subscription returns the status of one subscription.
func (k *bench) subscription(name string) fleet.SubscriptionStatus {
	for _, s := range k.Subscriptions() {
		if s.Name == name {
			return s
		}
	}
	return fleet.SubscriptionStatus{}
}

// inbox is a receiver that keeps what it was sent, and answers as told.
type inbox struct {
	mu     sync.Mutex
	bodies []string
	heads  []http.Header
	answer func(n int, r *http.Request, w http.ResponseWriter) // n counts from 1; nil: 204
}

func (i *inbox) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	i.mu.Lock()
	i.bodies, i.heads = append(i.bodies, string(body)), append(i.heads, r.Header.Clone())
	n, answer := len(i.bodies), i.answer
	i.mu.Unlock()
	if answer == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	answer(n, r, w)
}

func (i *inbox) got() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return append([]string(nil), i.bodies...)
}

func (i *inbox) head(n int) http.Header {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.heads[n]
}

// patience is how long what must happen may take on a machine that does other work, too.
const patience = 2 * time.Minute

// eventually waits until what is true.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func TestPublishIsDelivered(t *testing.T) {
	k := newBench(t, t.TempDir())
	payments, mailer := new(inbox), new(inbox)
	k.handle("payments", payments)
	k.handle("mailer", mailer)
	k.Install(shop("payments", "mailer"))
	k.publish("one")
	eventually(t, "both subscribers have it", func() bool { return len(payments.got()) == 1 && len(mailer.got()) == 1 })
	eventually(t, "it is settled", func() bool { return k.subscription("payments/orders.placed").Lag == 0 })
	head := payments.head(0)
	for name, want := range map[string]string{"Ce-Specversion": "1.0", "Ce-Source": "orders", "Ce-Type": "orders.placed", "Delivery-Attempt": "1"} {
		if head.Get(name) != want {
			t.Errorf("%s is %q, want %q", name, head.Get(name), want)
		}
	}
	topics := k.Topics()
	if len(topics) != 1 || topics[0].Published != 1 || topics[0].Retained != 1 || topics[0].Last.IsZero() {
		t.Errorf("topics: %+v", topics)
	}
}

func TestSubscriptionBeginsAtTheHead(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.Install(shop())
	k.publish("before")
	payments := new(inbox)
	k.handle("payments", payments)
	k.Install(shop("payments"))
	k.publish("after")
	eventually(t, "the later event", func() bool { return len(payments.got()) > 0 })
	if got := payments.got(); got[0] != "after" {
		t.Errorf("got %q", got)
	}
}

func TestRestartRedeliversInOrder(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir, func(c *broker.Config) { c.Concurrency = 1 })
	k.Install(shop("payments")) // and nobody is there
	var want []string
	for i := range 300 {
		want = append(want, fmt.Sprint(i))
		k.publish(want[i])
	}
	k.stop()
	if _, err := k.Publish(t.Context(), "orders", broker.Event{Topic: "orders.placed"}); err == nil {
		t.Error("a stopped broker took an event")
	}

	k = newBench(t, dir, func(c *broker.Config) { c.Concurrency = 1 })
	payments := new(inbox)
	k.handle("payments", payments)
	k.Install(shop("payments"))
	eventually(t, "all events", func() bool { return len(payments.got()) >= len(want) })
	if got := payments.got(); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("order: %q", got)
	}
	eventually(t, "all settled", func() bool { return k.subscription("payments/orders.placed").Lag == 0 })
	k.stop()

	k = newBench(t, dir)
	k.Install(shop("payments"))
	if s := k.subscription("payments/orders.placed"); s.Lag != 0 {
		t.Errorf("after a clean stop %d events come again", s.Lag)
	}
}

func TestConcurrentPublishesShareCommits(t *testing.T) {
	k := newBench(t, t.TempDir())
	payments := new(inbox)
	k.handle("payments", payments)
	k.Install(shop("payments"))
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 100 {
				topic, caller := "orders.placed", "orders"
				if i%2 == 1 {
					topic, caller = fmt.Sprintf("t%d", i), fleet.Operator
				}
				if _, err := k.Publish(context.Background(), caller, broker.Event{Topic: topic, Data: fmt.Appendf(nil, "%d.%d", i, j)}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "all delivered", func() bool { return len(payments.got()) >= 800 })
	for _, topic := range k.Topics() {
		if want := uint64(100); topic.Published != want && topic.Name != "orders.placed" || topic.Name == "orders.placed" && topic.Published != 800 {
			t.Errorf("topic %s has %d events", topic.Name, topic.Published)
		}
	}
}

func TestRunWithoutDir(t *testing.T) {
	if _, err := broker.New(broker.Config{}); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("New without a folder: %v", err)
	}
}
