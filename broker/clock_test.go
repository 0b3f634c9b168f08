package broker

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// opened is a broker that runs until stop.
func opened(t *testing.T, dir string) (b *Broker, stop func()) {
	t.Helper()
	b, err := New(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	return b, stop
}

func create(t *testing.T, b *Broker, subscriptions ...SubscriptionConfig) {
	t.Helper()
	if _, err := b.CreateTopic(t.Context(), fleet.Operator, TopicConfig{Name: "orders"}); err != nil {
		t.Fatal(err)
	}
	for _, c := range subscriptions {
		c.Topic = "orders"
		if _, err := b.CreateSubscription(t.Context(), fleet.Operator, c); err != nil {
			t.Fatal(err)
		}
	}
}

// monotonic reports whether a time is one of the monotonic clock: only such a one is compared by it.
func monotonic(at time.Time) bool { return strings.Contains(at.String(), " m=") }

// TestLeasesAreMonotonic looks at the deadlines of leases, and at the time from which a subscription's disuse counts, before and after a restart: setting
// the wall clock must move none of them.
func TestLeasesAreMonotonic(t *testing.T) {
	dir := t.TempDir()
	b, stop := opened(t, dir)
	create(t, b, SubscriptionConfig{Name: "one"})
	if _, err := b.PublishMessages(t.Context(), fleet.Operator, "orders", []Message{{Data: []byte("1")}}); err != nil {
		t.Fatal(err)
	}
	r, err := b.NewReceiver(t.Context(), fleet.Operator, "one", ReceiverConfig{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Receive(t.Context(), 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	deadline := func() time.Time {
		s := b.subs["one"]
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.window.deadlines.first().when
	}
	if at := deadline(); !monotonic(at) {
		t.Errorf("the deadline of a lease is %v", at)
	}
	if _, err := b.ModifyDeadline(t.Context(), fleet.Operator, "one", []string{got[0].AckID}, 100*time.Second); err != nil {
		t.Fatal(err)
	}
	if at := deadline(); !monotonic(at) {
		t.Errorf("the deadline that was asked for is %v", at)
	}
	r.Close()
	used := func(b *Broker) time.Time {
		s := b.subs["one"]
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.window.cursor.used
	}
	if at := used(b); !monotonic(at) {
		t.Errorf("the subscription was used at %v", at)
	}
	before := used(b)
	stop()
	b, stop = opened(t, dir)
	defer stop()
	if at := used(b); !monotonic(at) || at.Sub(before).Abs() > time.Minute {
		t.Errorf("after a restart it was used at %v, not %v", at, before)
	}
}

// TestUnusedSubscriptionExpires lets time pass: a subscription that nobody used for as long as it says is removed, with its cursor; one that is being pulled,
// or that never expires, is not.
func TestUnusedSubscriptionExpires(t *testing.T) {
	b, stop := opened(t, t.TempDir())
	defer stop()
	create(t, b, SubscriptionConfig{Name: "month"}, SubscriptionConfig{Name: "day", Expiration: 24 * time.Hour},
		SubscriptionConfig{Name: "never", Expiration: -1}, SubscriptionConfig{Name: "used", Expiration: 24 * time.Hour})
	r, err := b.NewReceiver(t.Context(), fleet.Operator, "used", ReceiverConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	now := time.Now()
	for _, step := range []struct {
		after time.Duration
		left  string
	}{{23 * time.Hour, "day month never used"}, {25 * time.Hour, "month never used"}, {30 * 24 * time.Hour, "month never used"}, {32 * 24 * time.Hour, "never used"}} {
		if err := b.trim(t.Context(), now.Add(step.after)); err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, c := range b.ListSubscriptions(t.Context()) {
			left = append(left, c.Name)
		}
		if got := strings.Join(left, " "); got != step.left {
			t.Errorf("after %v there are %q, want %q", step.after, got, step.left)
		}
	}
	if _, err := b.NewReceiver(t.Context(), fleet.Operator, "day", ReceiverConfig{}); StatusOf(err) != http.StatusNotFound {
		t.Errorf("pulling one that expired: %v", err)
	}
	saved, err := b.engine.Load().loadCursors(t.Context())
	if _, there := saved["day"]; err != nil || there {
		t.Errorf("its cursor is there: %v, %v", there, err)
	}
}

// TestDefaultsBoundTheDisk opens a broker of which nobody said how large it may be.
func TestDefaultsBoundTheDisk(t *testing.T) {
	b, stop := opened(t, t.TempDir())
	defer stop()
	if c := b.config; c.MaxTopic != 1<<30 || c.Retention != 7*24*time.Hour {
		t.Errorf("a topic keeps %d bytes for %v", c.MaxTopic, c.Retention)
	}
	l, err := b.engine.Load().lane(fleet.DurabilityDisk)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.events.CachedInfo().Config.MaxBytes; got != 10<<30 {
		t.Errorf("all topics together keep %d bytes", got)
	}
}

// TestFilterIsEvaluatedOnce gives two subscriptions with the same filter the same answer, and not just an equal one.
func TestFilterIsEvaluatedOnce(t *testing.T) {
	var filters [2]func(*batch) bits
	for i := range filters {
		var err error
		if filters[i], err = parseFilter(`attributes.kind = "gift"`); err != nil {
			t.Fatal(err)
		}
	}
	b := &batch{records: []*record{{plain: true, Event: Event{Attributes: map[string]string{"kind": "gift"}}}, {plain: true}}, matches: new(matches)}
	one, two := filters[0](b), filters[1](b)
	if !one.has(0) || one.has(1) || &one[0] != &two[0] {
		t.Errorf("%b, and again %b", one, two)
	}
}
