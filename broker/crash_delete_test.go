//go:build unix

package broker_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
)

// killAt is a log that kills the process in the moment in which it is told something.
type killAt struct {
	slog.Handler
	text string
}

func (k killAt) Handle(ctx context.Context, r slog.Record) error {
	if strings.Contains(r.Message, k.text) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	return k.Handler.Handle(ctx, r)
}

// deletingTopic fills a topic with all that one can have, and deletes it. It is killed once the catalog says so, and nothing else is done.
func deletingTopic(dir string) error {
	log := slog.New(killAt{slog.NewTextHandler(os.Stderr, nil), "a topic is deleted"})
	b, err := broker.New(broker.Config{Dir: dir, Log: log})
	if err != nil {
		return err
	}
	ctx := context.Background()
	go func() { fmt.Fprintln(os.Stderr, b.Run(ctx)) }()
	if err := fillTopic(ctx, b); err != nil {
		return err
	}
	fmt.Println("filled")
	if err := b.DeleteTopic(ctx, op, "orders"); err != nil {
		return err
	}
	fmt.Println("it was not killed")
	return nil
}

// fillTopic makes a topic with messages, one of them a dead letter and another for later, a subscription, and a snapshot of that.
func fillTopic(ctx context.Context, b *broker.Broker) error {
	if _, err := b.CreateTopic(ctx, op, broker.TopicConfig{Name: "orders"}); err != nil {
		return err
	}
	if _, err := b.CreateSubscription(ctx, op, broker.SubscriptionConfig{Name: "one", Topic: "orders"}); err != nil {
		return err
	}
	messages := []broker.Message{{Data: []byte("old")}, {Data: []byte("old")}, {Data: []byte("old")}}
	if _, err := b.PublishMessages(ctx, op, "orders", messages); err != nil {
		return err
	}
	later := []broker.Message{{Data: []byte("old and late"), NotBefore: time.Now().Add(3 * time.Second)}}
	if _, err := b.PublishMessages(ctx, op, "orders", later); err != nil {
		return err
	}
	if err := rejectOne(ctx, b, "old and bad"); err != nil {
		return err
	}
	_, err := b.CreateSnapshot(ctx, op, "one", broker.SnapshotConfig{Name: "moment"})
	return err
}

// rejectOne makes a dead letter of the next message of subscription one.
func rejectOne(ctx context.Context, b *broker.Broker, why string) error {
	r, err := b.NewReceiver(ctx, op, "one", broker.ReceiverConfig{MaxMessages: 1})
	if err != nil {
		return err
	}
	defer r.Close()
	got, err := r.Receive(ctx, 1, 0)
	if err != nil {
		return err
	}
	if _, err := b.Reject(ctx, op, "one", []string{got[0].AckID}, why); err != nil {
		return err
	}
	for before := ""; ; { // it is written by another goroutine
		page, _, err := b.DeadLetters(ctx, broker.DeadLetterQuery{Subscription: "one"})
		if err != nil {
			return err
		}
		for _, l := range page {
			if before = l.Failures[len(l.Failures)-1].Error; strings.Contains(before, why) {
				return nil
			}
		}
	}
}

// TestCrashInADeletion kills the broker's process between the end of a topic in the catalog and the removal of anything that it had. The next process
// has the topic no more; and one of the same name has nothing of it: no messages, no ids, no snapshots, nothing that was scheduled, and no
// dead letter replaces another.
func TestCrashInADeletion(t *testing.T) {
	dir := t.TempDir()
	lines := killWhen(t, dir, "deletion", func(int) bool { return false })
	if len(lines) != 1 || lines[0] != "filled" {
		t.Fatalf("the process was not killed where it should: %q", lines)
	}
	k := newBench(t, dir)
	if _, err := k.Topic(t.Context(), "orders"); broker.StatusOf(err) != http.StatusNotFound {
		t.Errorf("the topic that was deleted: %v", err)
	}
	if c, err := k.Subscription(t.Context(), "one"); err != nil || c.Topic != "" {
		t.Errorf("the subscription of the topic that was deleted has topic %q: %v", c.Topic, err)
	}
	if _, err := k.Snapshot(t.Context(), "moment"); broker.StatusOf(err) != http.StatusNotFound {
		t.Errorf("the snapshot of the topic that was deleted: %v", err)
	}
	if err := k.DeleteSubscription(t.Context(), op, "one"); err != nil {
		t.Fatal(err)
	}
	k.topic("orders", broker.SubscriptionConfig{Name: "all", FromStart: true}, broker.SubscriptionConfig{Name: "one"})
	if ids := k.say("orders", "", "new"); number(t, ids[0]) < 3 {
		t.Errorf("the first message of the new topic has id %s, which one of the old had", ids[0])
	}
	if page, _, err := k.ListScheduled(t.Context(), broker.ScheduledQuery{}); err != nil || len(page) > 0 {
		t.Errorf("messages wait for the topic that was deleted: %v, %v", page, err)
	}
	eventually(t, "what was for later is due", func() bool { n, _ := k.Scheduled(); return n == 0 })
	k.say("orders", "", "newer")
	if got := data(take(t, k.receiver("all", broker.ReceiverConfig{}), 2)); got != "new newer" {
		t.Errorf("the new topic has %q", got)
	}
	if err := rejectOne(t.Context(), k.Broker, "new and bad"); err != nil {
		t.Fatal(err)
	}
	letters, _, err := k.DeadLetters(t.Context(), broker.DeadLetterQuery{Subscription: "one"})
	if err != nil || len(letters) != 2 {
		t.Errorf("%d dead letters, want the old one and the new one: %v", len(letters), err)
	}
}
