//go:build unix

package broker_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// flooding publishes to many topics at once until it is killed, while one topic changes its durability class again and again and another one is
// deleted and made again. It writes a line for each publish that was acknowledged (P topic id key n), and for each deletion of which the topic's
// name may be seen again (X life).
func flooding(dir string) error {
	b, err := broker.New(broker.Config{Dir: dir})
	if err != nil {
		return err
	}
	ctx := context.Background()
	for i := range manyTopics {
		if _, err := b.CreateTopic(ctx, op, broker.TopicConfig{Name: topicName(i)}); broker.StatusOf(err) != 409 && err != nil {
			return err
		}
	}
	for i := range 2 * manyTopics {
		go flood(ctx, b, topicName(i%manyTopics), fmt.Sprintf("%d-%d", os.Getpid(), i))
	}
	go func() { fmt.Fprintln(os.Stderr, changing(ctx, b)) }()
	return b.Run(ctx)
}

// flood publishes messages of one key, one by one.
func flood(ctx context.Context, b *broker.Broker, topic, key string) {
	for n := 0; ; n++ {
		ids, err := b.PublishMessages(ctx, op, topic, []broker.Message{{Data: fmt.Appendf(nil, "%s %d", key, n), OrderingKey: key}})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		fmt.Println("P", topic, ids[0], key, n)
	}
}

// changing lets a topic live briefly, and brings another one to another durability class, again and again.
func changing(ctx context.Context, b *broker.Broker) error {
	_ = b.DeleteTopic(ctx, op, "brief") // of the process before
	for i := 0; ; i++ {
		if err := live(ctx, b); err != nil {
			return err
		}
		class := []fleet.Durability{fleet.DurabilityOS, fleet.DurabilityDisk}[i%2]
		_, err := b.UpdateTopic(ctx, op, topicName(0), func(c *broker.TopicConfig) error { c.Durability = class; return nil })
		if err != nil {
			return err
		}
	}
}

// live makes a topic, publishes to it, and deletes it.
func live(ctx context.Context, b *broker.Broker) error {
	life := rand.Uint64()
	if _, err := b.CreateTopic(ctx, op, broker.TopicConfig{Name: "brief"}); err != nil {
		return err
	}
	for range 3 {
		if _, err := b.PublishMessages(ctx, op, "brief", []broker.Message{{Data: fmt.Append(nil, life)}}); err != nil {
			return err
		}
	}
	if err := b.DeleteTopic(ctx, op, "brief"); err != nil {
		return err
	}
	fmt.Println("X", life)
	return nil
}

// floodLedger is the checker: it reads the lines of one process after another, then topics.
type floodLedger struct {
	t         *testing.T
	published map[string]string // by topic and id: key and n
	dead      map[string]bool   // lives of the topic that was deleted
}

func (l *floodLedger) line(text string) {
	f := strings.Fields(text)
	switch {
	case len(f) == 5 && f[0] == "P":
		l.published[f[1]+" "+f[2]] = f[3] + " " + f[4]
	case len(f) == 2 && f[0] == "X":
		l.dead[f[1]] = true
	}
}

// topic reads all of a topic: what was acknowledged is at its offset, and each key is in order and there once.
func (l *floodLedger) topic(k *bench, name string) {
	l.t.Helper()
	if _, err := k.CreateSubscription(l.t.Context(), op, broker.SubscriptionConfig{Name: "check-" + name, Topic: name, FromStart: true}); err != nil {
		l.t.Fatal(err)
	}
	next := make(map[string]int)
	for _, d := range k.drain("check-" + name) {
		key, number, _ := strings.Cut(string(d.Data), " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			l.t.Fatal(err)
		}
		if n != next[key] {
			l.t.Fatalf("topic %s: message %d of key %s comes where %d should", name, n, key, next[key])
		}
		next[key]++
		id := name + " " + d.ID
		if acked, ok := l.published[id]; ok && acked != string(d.Data) {
			l.t.Fatalf("message %s was acknowledged as %q, and is %q", id, acked, d.Data)
		}
		delete(l.published, id)
	}
}

// drain takes and acknowledges all that a subscription has to get.
func (k *bench) drain(subscription string) (all []broker.Delivery) {
	k.t.Helper()
	r := k.receiver(subscription, broker.ReceiverConfig{})
	for left := int(k.subscription(subscription).Lag); left > 0; left -= min(left, 1000) {
		got := take(k.t, r, min(left, 1000))
		k.ack(subscription, nil, got...)
		all = append(all, got...)
	}
	return all
}

// brief reads the topic that was deleted again and again.
func (l *floodLedger) brief(k *bench) {
	l.t.Helper()
	c := broker.SubscriptionConfig{Name: "check-brief", Topic: "brief", FromStart: true}
	if _, err := k.CreateSubscription(l.t.Context(), op, c); broker.StatusOf(err) == 404 {
		return
	} else if err != nil {
		l.t.Fatal(err)
	}
	for _, d := range k.drain(c.Name) {
		if l.dead[string(d.Data)] {
			l.t.Errorf("a message of life %s came back, which was deleted", d.Data)
		}
	}
}

// TestCrashOfManyTopics kills the broker's process in a loop while it publishes to many topics at once: before their logs have what the
// write-ahead log has, while they are written, and after. Nothing that was acknowledged is lost or elsewhere, no message is there twice, and what was
// deleted stays so.
func TestCrashOfManyTopics(t *testing.T) {
	l := &floodLedger{t: t, published: make(map[string]string), dead: make(map[string]bool)}
	dir := t.TempDir()
	for i := 0; i < crashes() || len(l.dead) == 0 && i < 10*crashes(); i++ { // a busy machine may come to no deletion
		var begun time.Time
		life := time.Second/2 + rand.N(2*time.Second)
		for _, text := range killWhen(t, dir, "topics", func(lines int) bool {
			if lines == 1 {
				begun = time.Now()
			}
			return time.Since(begun) > life
		}) {
			l.line(text)
		}
	}
	acked, lives := len(l.published), len(l.dead)
	k := newBench(t, dir)
	for i := range manyTopics {
		l.topic(k, topicName(i))
	}
	l.brief(k)
	t.Logf("%d messages acknowledged over %d crashes, and a topic deleted %d times", acked, crashes(), lives)
	for id := range maps.Keys(l.published) {
		t.Fatalf("message %s was acknowledged, and is not there, as are %d others", id, len(l.published)-1)
	}
	if acked == 0 || lives == 0 {
		t.Error("the crashes proved nothing")
	}
}
