package broker_test

import (
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

const manyTopics = 16

func topicName(i int) string { return fmt.Sprintf("t%d", i) }

// flood publishes n messages one by one to each of many topics, at once, and returns the ids by topic. Each message says how many were before it.
func (k *bench) flood(n int, ids map[string][]string) {
	k.t.Helper()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range manyTopics {
		wg.Go(func() {
			for range n {
				mu.Lock()
				next := strconv.Itoa(len(ids[topicName(i)]))
				mu.Unlock()
				got, err := k.PublishMessages(k.t.Context(), op, topicName(i), []broker.Message{{Data: []byte(next)}})
				if err != nil {
					k.t.Error(err)
					return
				}
				mu.Lock()
				ids[topicName(i)] = append(ids[topicName(i)], got...)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if k.t.Failed() {
		k.t.FailNow()
	}
}

// ahead reports whether a message lies in the write-ahead log alone.
func (k *bench) ahead(topic, id string) bool {
	k.t.Helper()
	offset, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		k.t.Fatal(err)
	}
	story, err := k.Story(k.t.Context(), topic, offset)
	if err != nil {
		k.t.Fatal(err)
	}
	return story.Group.Sequence == 0
}

// newestAhead counts the topics whose newest message lies in the write-ahead log alone.
func (k *bench) newestAhead(ids map[string][]string) (n int) {
	for name, all := range ids {
		if k.ahead(name, all[len(all)-1]) {
			n++
		}
	}
	return n
}

// reader checks what new subscriptions read of many topics from the start.
type reader struct {
	times map[string]time.Time // of publishes, by topic and id
	round int
}

func (r *reader) check(k *bench, when string, ids map[string][]string) {
	k.t.Helper()
	r.round++
	for topic, want := range ids {
		name := fmt.Sprintf("%s-%d", topic, r.round)
		if _, err := k.CreateSubscription(k.t.Context(), op, broker.SubscriptionConfig{Name: name, Topic: topic, FromStart: true}); err != nil {
			k.t.Fatal(err)
		}
		got := take(k.t, k.receiver(name, broker.ReceiverConfig{}), len(want))
		for i, d := range got {
			key := topic + ":" + d.ID
			if d.ID != want[i] || string(d.Data) != strconv.Itoa(i) {
				k.t.Fatalf("%s: delivery %d of topic %s is message %s, %q; want %s, %d", when, i, topic, d.ID, d.Data, want[i], i)
			}
			if at, known := r.times[key]; known && !at.Equal(d.PublishTime) {
				k.t.Fatalf("%s: message %s was published at %v, and was so at %v before", when, key, d.PublishTime, at)
			}
			r.times[key] = d.PublishTime
		}
		r.seek(k, when, name, got)
		k.ack(name, nil, take(k.t, k.receiver(name, broker.ReceiverConfig{}), len(got)/2)...)
	}
}

// seek checks that a seek to the time of the message in the middle finds that and what follows.
func (r *reader) seek(k *bench, when, subscription string, all []broker.Delivery) {
	k.t.Helper()
	at, want := all[len(all)/2].PublishTime, uint64(0)
	for _, d := range all {
		if !d.PublishTime.Before(at) {
			want++
		}
	}
	seeked, err := k.SeekTime(k.t.Context(), op, subscription, at, false)
	if err != nil || seeked.After != want {
		k.t.Fatalf("%s: seeking %s to %v gives %d messages, want %d (%v)", when, subscription, at, seeked.After, want, err)
	}
}

// TestManyTopics publishes to many topics at once. Everything is there, in order, at its offset, from its time, whether the write-ahead log
// has it, a restart found it there, or the topics' logs have it.
func TestManyTopics(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	for i := range manyTopics {
		k.topic(topicName(i))
	}
	ids, r := make(map[string][]string), &reader{times: make(map[string]time.Time)}
	eventually(t, "something is in the write-ahead log alone", func() bool {
		k.flood(20, ids)
		return k.newestAhead(ids) > manyTopics/2
	})
	r.check(k, "ahead", ids)
	k.stop()
	k = newBench(t, dir)
	r.check(k, "after a restart", ids)
	k.flood(5, ids)
	eventually(t, "the topics' logs have everything", func() bool { return k.newestAhead(ids) == 0 })
	r.check(k, "settled", ids)
	k.flood(5, ids)
	k.stop()
	k = newBench(t, dir)
	r.check(k, "after another restart", ids)
	for _, s := range k.Topics() {
		if n := uint64(len(ids[s.Name])); s.Published != n || s.Retained != n {
			t.Errorf("%+v, %d messages were published", s, n)
		}
	}
}

// TestTopicsChangeWhileAhead deletes a topic, and changes the durability of others, whose messages lie in the write-ahead log alone. A restart
// brings nothing back, and loses nothing.
func TestTopicsChangeWhileAhead(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	for i := range manyTopics {
		k.topic(topicName(i))
	}
	ids, r := make(map[string][]string), &reader{times: make(map[string]time.Time)}
	eventually(t, "those topics are ahead", func() bool {
		k.flood(10, ids)
		for i := range 3 {
			if all := ids[topicName(i)]; !k.ahead(topicName(i), all[len(all)-1]) {
				return false
			}
		}
		return true
	})
	if err := k.DeleteTopic(t.Context(), op, topicName(0)); err != nil {
		t.Fatal(err)
	}
	k.topic(topicName(0))
	old := ids[topicName(0)]
	ids[topicName(0)] = nil
	k.durability(topicName(1), fleet.DurabilityOS)
	k.durability(topicName(2), fleet.DurabilityOS)
	k.durability(topicName(2), fleet.DurabilityDisk)
	k.stop()
	k = newBench(t, dir)
	k.flood(2, ids)
	if first, last := ids[topicName(0)][0], old[len(old)-1]; number(t, first) <= number(t, last) {
		t.Errorf("the first message of a topic that was deleted and made again is %s, and the last of the old was %s", first, last)
	}
	k.durability(topicName(1), fleet.DurabilityDisk)
	k.stop()
	k = newBench(t, dir)
	r.check(k, "after restarts", ids)
}

func (k *bench) durability(topic string, class fleet.Durability) {
	k.t.Helper()
	_, err := k.UpdateTopic(k.t.Context(), op, topic, func(c *broker.TopicConfig) error {
		c.Durability = class
		return nil
	})
	if err != nil {
		k.t.Fatal(err)
	}
}
