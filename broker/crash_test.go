//go:build unix

package broker_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// TestMain is also the broker process that TestCrash kills.
func TestMain(m *testing.M) {
	if dir := os.Getenv("BROKER_CRASH_DIR"); dir != "" {
		run := func() error { return crashing(dir, os.Getenv("BROKER_CRASH_RECEIVER")) }
		switch os.Getenv("BROKER_CRASH_RECEIVER") {
		case "pull":
			run = func() error { return pulling(dir) }
		case "deletion":
			run = func() error { return deletingTopic(dir) }
		case "redrive":
			run = func() error { return redriving(dir) }
		case "topics":
			run = func() error { return flooding(dir) }
		}
		if err := run(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// crashing publishes until it is killed, and writes a line for every event that was acknowledged.
func crashing(dir, receiver string) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", receiver)
	}}
	b, err := broker.New(broker.Config{Dir: dir, MinBackoff: time.Millisecond, MaxBackoff: 20 * time.Millisecond, Attempts: 1000,
		Concurrency: 8, Transport: func(string) http.RoundTripper { return transport }})
	if err != nil {
		return err
	}
	b.Install(shop("payments", "mailer"))
	var out sync.Mutex
	for i := range 8 {
		go func() {
			for n := 0; ; n++ {
				id, err := b.Publish(context.Background(), fleet.Operator, broker.Event{Topic: "orders.placed", Data: fmt.Appendf(nil, "%d.%d.%d", os.Getpid(), i, n)})
				if err != nil {
					return
				}
				out.Lock()
				fmt.Println(id)
				out.Unlock()
			}
		}()
	}
	return b.Run(context.Background())
}

// ledger is the checker: what each subscription received, and how often.
type ledger struct {
	mu    sync.Mutex
	times map[string]int // by service and event id
}

func (l *ledger) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	l.mu.Lock()
	key := r.Host + " " + r.Header.Get("Ce-Id")
	l.times[key]++
	l.mu.Unlock()
	if rand.IntN(20) == 0 {
		w.WriteHeader(http.StatusInternalServerError)
	}
}

func (l *ledger) missing(acked []string) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range acked {
		for _, service := range []string{"payments", "mailer"} {
			if l.times[service+" "+id] == 0 {
				out = append(out, service+" "+id)
			}
		}
	}
	return out
}

func (l *ledger) redelivered() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, times := range l.times {
		if times > 1 {
			n++
		}
	}
	return n
}

// TestCrash kills the broker's process in a loop while it publishes and delivers: whatever was
// acknowledged reaches every subscription.
func TestCrash(t *testing.T) {
	l := &ledger{times: make(map[string]int)}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: l}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	dir := t.TempDir()
	var acked []string
	for range crashes() {
		acked = append(acked, killOne(t, dir, listener.Addr().String())...)
	}
	k := newBench(t, dir)
	for _, service := range []string{"payments", "mailer"} {
		k.handle(service, l)
	}
	k.Install(shop("payments", "mailer"))
	eventually(t, "every acknowledged event reached both", func() bool { return len(l.missing(acked)) == 0 })
	eventually(t, "every event is settled", func() bool {
		return k.subscription("payments/orders.placed").Lag == 0 && k.subscription("mailer/orders.placed").Lag == 0
	})
	t.Logf("%d events acknowledged over %d crashes, %d of %d delivered more than once", len(acked), crashes(), l.redelivered(), len(l.times))
	if len(acked) == 0 || l.redelivered() == 0 {
		t.Error("the crashes proved nothing: no event was acknowledged, or none came again")
	}
	if published := k.Topics()[0].Published; published < uint64(len(acked)) {
		t.Errorf("the topic has %d events, %d were acknowledged", published, len(acked))
	}
}

// crashes is how often the process is killed; BROKER_CRASHES asks for more.
func crashes() int {
	if n, err := strconv.Atoi(os.Getenv("BROKER_CRASHES")); err == nil {
		return n
	}
	return 6
}

// killOne runs a broker, kills it after some acknowledgements, and returns their ids.
func killOne(t *testing.T, dir, receiver string) (acked []string) {
	t.Helper()
	after := 50 + rand.IntN(1500)
	return killWhen(t, dir, receiver, func(lines int) bool { return lines == after })
}

// killWhen runs a broker, kills it when it wrote a line of which now is true, and returns the lines.
func killWhen(t *testing.T, dir, receiver string, now func(lines int) bool) (acked []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "BROKER_CRASH_DIR="+dir, "BROKER_CRASH_RECEIVER="+receiver)
	var failure strings.Builder
	cmd.Stderr = &failure
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		acked = append(acked, lines.Text()) // a line is written whole: what a kill cuts off was never scanned with its end
		if now(len(acked)) {
			_ = cmd.Process.Signal(syscall.SIGKILL)
		}
	}
	_ = cmd.Wait()
	if len(acked) == 0 {
		t.Fatalf("the broker acknowledged nothing: %s", failure.String())
	}
	return acked
}

// TestCrashKeepsOrder kills a broker that has not delivered anything yet. The next one delivers in order.
func TestCrashKeepsOrder(t *testing.T) {
	dir := t.TempDir()
	away := "127.0.0.1:1" // nobody listens there
	for range 2 {
		killOne(t, dir, away)
	}
	k := newBench(t, dir, func(c *broker.Config) { c.Concurrency = 1 })
	k.handle("mailer", new(inbox))
	payments := new(inbox)
	k.handle("payments", payments)
	k.Install(shop("payments", "mailer"))
	eventually(t, "all settled", func() bool { return k.subscription("payments/orders.placed").Lag == 0 })
	last := make(map[string]int)
	for _, data := range payments.got() {
		publisher, number := data[:strings.LastIndexByte(data, '.')], data[strings.LastIndexByte(data, '.')+1:]
		n, err := strconv.Atoi(number)
		if err != nil {
			t.Fatal(err)
		}
		if want, seen := last[publisher]; seen && n != want+1 || !seen && n != 0 {
			t.Fatalf("publisher %s: event %d came after %d", publisher, n, want)
		}
		last[publisher] = n
	}
	if len(last) != 16 {
		t.Errorf("events of %d publishers", len(last))
	}
}
