package broker_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// flapping is a receiver that fails in one way or another, and takes a message now and then.
type flapping struct {
	ways []string

	mu    sync.Mutex
	seen  map[string]int   // by way
	taken map[string][]int // by key
}

func newFlapping(ways ...string) *flapping {
	return &flapping{ways: append(ways, "takes it", "takes it"), seen: make(map[string]int), taken: make(map[string][]int)}
}

func (f *flapping) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // else a caller that leaves is not noticed
	way := f.ways[rand.IntN(len(f.ways))]
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen[way]++
	switch way {
	case "takes it":
		n, _ := strconv.Atoi(r.Header.Get("Ce-Number"))
		key := r.Header.Get("Ce-Customer")
		f.taken[key] = append(f.taken[key], n)
	case "is away": // as the proxy says it
		w.Header().Set("Shoal-Reason", string(fleet.ReasonNoEndpoint))
		w.WriteHeader(http.StatusServiceUnavailable)
	case "resets":
		panic(http.ErrAbortHandler)
	case "hangs":
		f.mu.Unlock()
		<-r.Context().Done() // the lease is over
		f.mu.Lock()
	default:
		code, _ := strconv.Atoi(way)
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(code)
	}
}

// inOrder says what is missing of n messages of each key, or came out of order; a message whose answer came too late is there again.
func (f *flapping) inOrder(keys []string, n int) (out []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range keys {
		next := 0
		for _, got := range f.taken[key] {
			if got > next {
				out = append(out, fmt.Sprintf("key %s: %d came before %d", key, got, next))
			}
			next = max(next, got+1)
		}
		if next != n {
			out = append(out, fmt.Sprintf("key %s: %d of %d came", key, next, n))
		}
	}
	return out
}

// TestFlappingReceiver pushes to receivers that fail in every way, one that a manifest declares and one that the API made: both get everything,
// each key in order, and nothing becomes a dead letter.
func TestFlappingReceiver(t *testing.T) {
	k := newBench(t, t.TempDir(), func(c *broker.Config) {
		c.AckDeadline, c.MinBackoff, c.MaxBackoff = 50*time.Millisecond, time.Millisecond, 5*time.Millisecond
	})
	declared, made := newFlapping("500", "503", "429", "is away", "resets", "hangs"), newFlapping("500", "503", "429", "is away", "resets")
	k.handle("payments", declared)
	k.handle("hook", made)
	k.Install(ordered(func(s *fleet.Subscription) { s.Attempts = 1000 }))
	c := broker.SubscriptionConfig{Name: "made", Topic: "orders.placed", Ordering: true, MinBackoff: time.Millisecond, MaxBackoff: 5 * time.Millisecond, Push: &broker.PushConfig{Endpoint: "http://hook/x", Format: fleet.FormatCloudEvents}}
	if _, err := k.CreateSubscription(t.Context(), op, c); err != nil {
		t.Fatal(err)
	}
	keys := []string{"a", "b", "c", "d"}
	const each = 15
	for i := range each * len(keys) {
		key := keys[i%len(keys)]
		e := broker.Event{Topic: "orders.placed", Data: fmt.Appendf(nil, `{"customer": %q}`, key),
			Attributes: map[string]string{"customer": key, "number": fmt.Sprint(i / len(keys))}}
		if _, err := k.Publish(t.Context(), "orders", e); err != nil {
			t.Fatal(err)
		}
	}
	for name, receiver := range map[string]*flapping{"payments/orders.placed": declared, "made": made} {
		eventually(t, name+" has everything", func() bool { return k.subscription(name).Lag == 0 })
		if s := k.subscription(name); s.DeadLetters != 0 || s.Lost != 0 {
			t.Errorf("%s: %+v", name, s)
		}
		for _, what := range receiver.inOrder(keys, each) {
			t.Errorf("%s: %s", name, what)
		}
		if len(receiver.seen) != len(receiver.ways)-1 {
			t.Errorf("%s failed in these ways only: %v", name, receiver.seen)
		}
	}
}

// TestFailingPullers has one that dies with what it holds, one that hangs, one that answers when its lease is over, and one that works: that one gets
// everything which the others did not acknowledge, each key in order.
func TestFailingPullers(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.topic("orders", broker.SubscriptionConfig{Name: "one", Ordering: true})
	keys := []string{"a", "b", "c", "d"}
	const each = 10
	for n := range each {
		for _, key := range keys {
			k.say("orders", key, fmt.Sprint(n))
		}
	}
	var held [3][]broker.Delivery
	for i := range held { // each holds one key, whose lease ends soon
		r := k.receiver("one", broker.ReceiverConfig{MaxMessages: 1})
		held[i] = take(t, r, 1)
		if _, err := k.ModifyDeadline(t.Context(), op, "one", ackIDs(held[i]...), time.Second); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			r.Close()
		}
	}
	worker := k.receiver("one", broker.ReceiverConfig{MaxMessages: 5})
	next := make(map[string]int)
	for late := true; k.subscription("one").Lag > 0; {
		for _, d := range take(t, worker, 1) {
			if n, _ := strconv.Atoi(string(d.Data)); n != next[d.OrderingKey] {
				t.Fatalf("key %s: %s came, %d was next", d.OrderingKey, d.Data, next[d.OrderingKey])
			}
			next[d.OrderingKey]++
			if late && d.OrderingKey == held[2][0].OrderingKey {
				k.ack("one", nil, held[2]...) // of its first delivery: it may count, and does no harm
				late = false
			}
			k.ack("one", nil, d)
		}
	}
	for _, key := range keys {
		if next[key] != each {
			t.Errorf("key %s: %d of %d came", key, next[key], each)
		}
	}
}
