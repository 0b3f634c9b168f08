package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// The tables of topics and subscriptions say what there is to say, and why something does not move.
func TestTopicTables(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	a := &app{now: func() time.Time { return now }}
	topics := strings.Join(a.topicLines(style{}, []fleet.TopicStatus{
		{Name: "orders.placed", Publishers: []string{"orders", "web"}, Published: 1200, Retained: 12, Bytes: 3 << 20, Oldest: now.Add(-3 * time.Hour), Last: now.Add(-5 * time.Second)},
		{Name: "full", Stopped: "the disk is full"},
	}), "\n")
	for _, want := range []string{"orders.placed  orders,web  1200       12    3.0 MB  3h", "the disk is full"} {
		if !strings.Contains(topics, want) {
			t.Errorf("lacks %q:\n%s", want, topics)
		}
	}
	before := []fleet.SubscriptionStatus{{Name: "mailer/orders.placed", Delivered: 10}}
	subs := strings.Join(a.subscriptionTable(style{}, before, []fleet.SubscriptionStatus{
		{Name: "mailer/orders.placed", Lag: 7, Oldest: now.Add(-time.Minute), InFlight: 2, Concurrency: 16, Retrying: 1, Delivered: 52, Failed: 3, DeadLetters: 4, Paused: "8 messages in a row failed", Stuck: "the first message of ordering key \"k\" failed 9 times"},
		{Name: "puller/orders.placed", InFlight: 5},
	}), "\n")
	for _, want := range []string{"7", "60s", "2 of 16", "42/s", "8 messages in a row failed", "ordering key \"k\"", "puller/orders.placed"} {
		if !strings.Contains(subs, want) {
			t.Errorf("lacks %q:\n%s", want, subs)
		}
	}
}

func TestMessageID(t *testing.T) {
	for id, want := range map[string]bool{"orders.placed:7": true, "mailer/orders.placed:7": true, "a1b2c3": false, "t:x": false, ":7": false, "t:": false} {
		if got := messageID(id); got != want {
			t.Errorf("%s is a message's id: %v", id, got)
		}
	}
}
