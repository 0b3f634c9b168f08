package broker_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// TestScheduledMessages publishes for later in any order: they come in the order of their times, none early, and not the one that
// was cancelled. A restart between forgets nothing.
func TestScheduledMessages(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	k.topic("orders", broker.SubscriptionConfig{Name: "one"})
	const n = 60
	now := time.Now()
	due := func(i int) time.Time { return now.Add(time.Second + time.Duration(i)*20*time.Millisecond) }
	var cancel string
	for _, i := range rand.Perm(n) {
		ids, err := k.PublishMessages(t.Context(), op, "orders", []broker.Message{{Data: []byte(strconv.Itoa(i)), NotBefore: due(i)}})
		if err != nil {
			t.Fatal(err)
		}
		if i == 7 {
			cancel = ids[0]
		}
	}
	k.say("orders", "", "now")
	if waiting, next := k.Scheduled(); waiting != n || !next.Equal(due(0)) {
		t.Errorf("%d wait, the next until %v, want %v", waiting, next, due(0))
	}
	if err := k.CancelScheduled(t.Context(), op, "", cancel); err != nil {
		t.Fatal(err)
	}
	if err := k.CancelScheduled(t.Context(), op, "", cancel); broker.StatusOf(err) != 404 {
		t.Errorf("cancelled twice: %v", err)
	}
	k.stop()
	k = newBench(t, dir)
	r := k.receiver("one", broker.ReceiverConfig{})
	if first := take(t, r, 1); data(first) != "now" {
		t.Errorf("%q comes first", data(first))
	}
	want := 0
	for _, d := range take(t, r, n-1) {
		if want == 7 {
			want++
		}
		if string(d.Data) != strconv.Itoa(want) {
			t.Fatalf("message %s comes where %d should", d.Data, want)
		}
		if d.PublishTime.Before(due(want)) {
			t.Errorf("message %d is early by %v", want, due(want).Sub(d.PublishTime))
		}
		want++
	}
	eventually(t, "none waits", func() bool { waiting, _ := k.Scheduled(); return waiting == 0 })
	k.stop()
	k = newBench(t, dir)
	if waiting, _ := k.Scheduled(); waiting != 0 {
		t.Errorf("after a restart %d wait again", waiting)
	}
	if topic := k.Topics(); topic[0].Published != n {
		t.Errorf("%+v", topic)
	}
}

// TestDueFromManyBatches has messages due whose neighbours in time lie in other batches: soon, later, and, since the broker was
// down, all at once. They come in order, each once.
func TestDueFromManyBatches(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	k.topic("orders", broker.SubscriptionConfig{Name: "one"})
	const n, each = 3000, 250
	first := time.Now().Add(500 * time.Millisecond)
	var messages []broker.Message
	for _, i := range rand.Perm(n) {
		messages = append(messages, broker.Message{Data: []byte(strconv.Itoa(i)), NotBefore: first.Add(time.Duration(i) * time.Millisecond), OrderingKey: "k"})
	}
	for batch := range slices.Chunk(messages, each) {
		if _, err := k.PublishMessages(t.Context(), op, "orders", batch); err != nil {
			t.Fatal(err)
		}
	}
	r, want := k.receiver("one", broker.ReceiverConfig{}), 0
	check := func(ds []broker.Delivery) {
		t.Helper()
		for _, d := range ds {
			if string(d.Data) != strconv.Itoa(want) || d.PublishTime.Before(first.Add(time.Duration(want)*time.Millisecond)) {
				t.Fatalf("message %s comes where %d should, at %v", d.Data, want, d.PublishTime.Sub(first))
			}
			want++
		}
		k.ack("one", nil, ds...)
	}
	check(take(t, r, n/10))
	k.stop()
	time.Sleep(time.Until(first.Add(n / 2 * time.Millisecond))) // much is overdue
	k = newBench(t, dir)
	r = k.receiver("one", broker.ReceiverConfig{})
	for want < n {
		check(take(t, r, 1))
	}
}

// TestManyScheduled has many messages pending, and restarts.
func TestManyScheduled(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	k.topic("orders")
	const n, each = 100_000, 1000
	at := time.Now().Add(24 * time.Hour)
	for i := range n / each {
		var messages []broker.Message
		for j := range each {
			messages = append(messages, broker.Message{Data: []byte("x"), NotBefore: at.Add(time.Duration(rand.IntN(1e9)) + time.Duration(i*j))})
		}
		if _, err := k.PublishMessages(t.Context(), op, "orders", messages); err != nil {
			t.Fatal(err)
		}
	}
	k.stop()
	start := time.Now()
	k = newBench(t, dir)
	t.Logf("restarted in %v with %d pending", time.Since(start), n)
	if waiting, next := k.Scheduled(); waiting != n || next.Before(at) {
		t.Errorf("%d wait, the next until %v", waiting, next)
	}
}

func TestCron(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	k.topic("ticks", broker.SubscriptionConfig{Name: "one"})
	c := broker.CronConfig{Name: "every-second", Topic: "ticks", Spec: "@every 1s", Data: []byte("tick")}
	if _, err := k.CreateCron(t.Context(), op, c); err != nil {
		t.Fatal(err)
	}
	if _, err := k.CreateCron(t.Context(), op, c); broker.StatusOf(err) != 409 {
		t.Errorf("twice: %v", err)
	}
	for _, spec := range []string{"", "61 * * * *", "0 0 30 2 *"} {
		if _, err := k.CreateCron(t.Context(), op, broker.CronConfig{Name: "bad", Topic: "ticks", Spec: spec, Data: []byte("x")}); broker.StatusOf(err) != 400 {
			t.Errorf("spec %q: %v", spec, err)
		}
	}
	r := k.receiver("one", broker.ReceiverConfig{})
	got := take(t, r, 2)
	for _, d := range got {
		at, err := time.Parse(time.RFC3339, d.Attributes["shoal-scheduled-for"])
		if err != nil || d.PublishTime.Before(at) || string(d.Data) != "tick" || d.Attributes["shoal-schedule"] != "every-second" {
			t.Errorf("%+v %v", d, err)
		}
	}
	k.ack("one", nil, got...)
	k.stop()
	k = newBench(t, dir)
	take(t, k.receiver("one", broker.ReceiverConfig{}), 1)
	if err := k.DeleteCron(t.Context(), op, "every-second"); err != nil {
		t.Error(err)
	}
	if all := k.ListCrons(t.Context()); len(all) != 0 {
		t.Errorf("%+v", all)
	}
}

// TestDelay delivers what a manifest delays later, and in order.
func TestDelay(t *testing.T) {
	k := newBench(t, t.TempDir())
	payments := new(inbox)
	k.handle("payments", payments)
	s := shop("payments")
	s.Services[0].Manifest.Topics = []fleet.Topic{{Name: "orders.placed", Delay: fleet.Duration(200 * time.Millisecond)}}
	s.Services[1].Manifest.Subscribes[0].Delay = fleet.Duration(300 * time.Millisecond)
	k.Install(s)
	start := time.Now()
	k.publish("a")
	eventually(t, "delivery", func() bool { return len(payments.got()) == 1 })
	if waited := time.Since(start); waited < 500*time.Millisecond {
		t.Errorf("delivered after %v", waited)
	}
}

// BenchmarkScheduled has a million messages pending: what they take in memory, and how long a restart takes. Then it measures how late
// messages are.
func BenchmarkScheduled(b *testing.B) {
	dir := b.TempDir()
	quiet := func(c *broker.Config) { c.Observe = nil }
	k := newBench(b, dir, quiet)
	k.topic("orders", broker.SubscriptionConfig{Name: "one"})
	const n, each = 1_000_000, 1000
	later := time.Now().Add(24 * time.Hour)
	before := heapMB()
	for range n / each {
		messages := make([]broker.Message, each)
		for j := range messages {
			messages[j] = broker.Message{Data: make([]byte, 100), NotBefore: later.Add(time.Duration(rand.Int64N(int64(time.Hour))))}
		}
		if _, err := k.PublishMessages(b.Context(), op, "orders", messages); err != nil {
			b.Fatal(err)
		}
	}
	pending := heapMB() - before
	k.stop()
	start := time.Now()
	k = newBench(b, dir, quiet)
	restart := time.Since(start)
	r := k.receiver("one", broker.ReceiverConfig{})
	var late []time.Duration
	b.ResetTimer()
	for i := 0; b.Loop(); i++ {
		at := time.Now().Add(100 * time.Millisecond)
		if _, err := k.PublishMessages(b.Context(), op, "orders", []broker.Message{{Data: fmt.Append(nil, i), NotBefore: at}}); err != nil {
			b.Fatal(err)
		}
		got := take(b, r, 1)
		if data(got) != fmt.Sprint(i) {
			b.Fatalf("%q came where %d should", data(got), i)
		}
		k.ack("one", nil, got...)
		late = append(late, time.Since(at))
	}
	b.ReportMetric(pending, "MB-pending")
	b.ReportMetric(restart.Seconds(), "s-restart")
	b.ReportMetric(float64(quantile(late, 0.99).Microseconds())/1000, "ms-late-p99")
	b.ReportMetric(float64(quantile(late, 0.5).Microseconds())/1000, "ms-late-p50")
}

func heapMB() float64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / (1 << 20)
}

func quantile(all []time.Duration, q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[int(q*float64(len(sorted)-1))]
}

// TestCancelMany takes messages back at the same time, each of a batch of its own, which is removed meanwhile.
func TestCancelMany(t *testing.T) {
	k := newBench(t, t.TempDir())
	k.topic("orders")
	var ids []string
	for range 100 {
		got, err := k.PublishMessages(t.Context(), op, "orders", []broker.Message{{Data: []byte("later"), NotBefore: time.Now().Add(time.Hour)}})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, got...)
	}
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() {
			if err := k.CancelScheduled(t.Context(), op, "", id); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n, _ := k.Scheduled(); n != 0 {
		t.Errorf("%d messages are scheduled", n)
	}
}
