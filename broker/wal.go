package broker

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/nats-io/nats.go/jetstream"
)

// wal is the write-ahead log of a lane that is synced message by message. A commit of several topics is one message of it, with one
// sync; their batches stay in memory (topic.ahead), and are written to the topics' own logs a little later, merged (settle.go). It has
// two streams, by turns: one takes commits while what the other holds is brought to the logs, after which that one is purged whole. So nothing
// is ever removed from a stream that is still needed.
type wal struct {
	engine  *engine
	streams [2]*lane

	writing sync.Mutex // held from the choice of a stream until the topics have their batches; guards turn and number
	turn    int        // the stream that takes commits
	number  uint64     // of the next message

	mu     sync.Mutex
	room   sync.Cond              // bytes shrank, or failed changed
	bytes  [2]int                 // that each stream holds
	topics [2]map[string]struct{} // of which each stream holds batches
	found  map[string][]*batch    // by topic: what the last run left, until the topic is loaded
	failed error                  // why the logs cannot be written
}

const (
	walStream = "SHOAL_AHEAD_" // and 0 or 1
	walPrefix = "shoal.ahead."

	walMuch = 16 << 20 // bytes that are brought to the logs without waiting for a second to pass
	walMost = 64 << 20 // bytes at which commits wait for that
)

// openWAL makes the streams where they are missing, and reads what the last run left in them.
func (e *engine) openWAL(ctx context.Context) (*wal, error) {
	w := &wal{engine: e, number: 1, found: make(map[string][]*batch)}
	w.room.L = &w.mu
	var left []*ahead
	for i := range w.streams {
		w.topics[i] = make(map[string]struct{})
		subject := fmt.Sprint(walPrefix, i)
		s, err := e.js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
			Name: fmt.Sprint(walStream, i), Subjects: []string{subject}, Storage: jetstream.FileStorage, MaxBytes: smallStore,
			MaxMsgsPerSubject: -1, MaxConsumers: -1, Discard: jetstream.DiscardNew, AllowDirect: true,
		})
		if err != nil {
			return nil, err
		}
		w.streams[i] = &lane{engine: e, prefix: subject, conn: e.conn, events: s}
		if left, err = w.read(ctx, i, left); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(left, func(x, y *ahead) int { return cmp.Compare(x.number, y.number) })
	for _, a := range left {
		w.replay(a)
	}
	context.AfterFunc(e.ctx, func() { w.mu.Lock(); defer w.mu.Unlock(); w.room.Broadcast() })
	return w, nil
}

// replay takes up a message of the last run.
func (w *wal) replay(a *ahead) {
	w.number, w.turn = a.number+1, a.stream
	for _, e := range a.entries {
		if e.batch == nil {
			w.dropLocked(e.topic)
			continue
		}
		w.found[e.topic] = append(w.found[e.topic], e.batch)
		w.topics[a.stream][e.topic] = struct{}{}
	}
}

// dropLocked forgets what the log has of a topic.
func (w *wal) dropLocked(topic string) {
	delete(w.found, topic)
	for i := range w.topics {
		delete(w.topics[i], topic)
	}
}

// take returns what the last run left of a topic, once.
func (w *wal) take(topic string) []*batch {
	w.mu.Lock()
	defer w.mu.Unlock()
	left := w.found[topic]
	delete(w.found, topic)
	return left
}

// store writes the batches of groups, all or none, and gives them to their topics.
func (w *wal) store(groups []*group) error {
	if err := w.await(); err != nil {
		return err
	}
	topics, batches := make([]string, len(groups)), make([][]byte, len(groups))
	for i, g := range groups {
		topics[i], batches[i] = g.topic.name, g.message.data
	}
	w.writing.Lock()
	defer w.writing.Unlock()
	if err := w.writeLocked(topics, batches); err != nil {
		return err
	}
	w.mu.Lock()
	for _, name := range topics {
		w.topics[w.turn][name] = struct{}{}
	}
	w.mu.Unlock()
	for _, g := range groups {
		g.wentAhead(w)
	}
	return nil
}

// writeLocked writes one message. The caller holds w.writing.
func (w *wal) writeLocked(topics []string, batches [][]byte) error {
	data := encodeAhead(w.number, topics, batches)
	s := w.streams[w.turn]
	if _, err := s.store([]message{{subject: s.prefix, data: data}}); err != nil {
		return err
	}
	w.number++
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bytes[w.turn] += len(data)
	return nil
}

// await waits until there is room for a commit, or says why there is none: what is not to be written to the logs is not taken.
func (w *wal) await() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.bytes[0]+w.bytes[1] > walMost && cmp.Or(w.failed, w.engine.err()) == nil {
		w.room.Wait()
	}
	return cmp.Or(w.failed, w.engine.err())
}

// names returns of which topics the log holds batches.
func (w *wal) names() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := maps.Clone(w.topics[0])
	maps.Copy(all, w.topics[1])
	return slices.Sorted(maps.Keys(all))
}

// held returns how many bytes the log holds.
func (w *wal) held() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bytes[0] + w.bytes[1]
}

// forget makes void, for good, what the log has of a topic that is about to lose its own log. No batch of the topic is being written.
func (w *wal) forget(topic string) error {
	w.writing.Lock()
	defer w.writing.Unlock()
	w.mu.Lock()
	_, first := w.topics[0][topic]
	_, second := w.topics[1][topic]
	w.mu.Unlock()
	if !first && !second {
		return nil
	}
	if err := w.writeLocked([]string{topic}, [][]byte{nil}); err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dropLocked(topic)
	return nil
}

// turnOver lets the other stream take commits, where it is empty. It returns the stream that is to be brought to the logs, and of which
// topics it holds batches.
func (w *wal) turnOver() (stream int, topics []string) {
	w.writing.Lock()
	defer w.writing.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.bytes[1-w.turn] == 0 {
		w.turn = 1 - w.turn
	}
	stream = 1 - w.turn
	return stream, slices.Sorted(maps.Keys(w.topics[stream]))
}

// purge empties a stream of which everything is in the logs.
func (w *wal) purge(ctx context.Context, stream int) error {
	if err := w.streams[stream].events.Purge(ctx); err != nil {
		return fmt.Errorf("emptying the write-ahead log: %w", w.engine.explain(err))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range w.topics[stream] {
		if _, other := w.topics[1-stream][name]; !other {
			delete(w.found, name) // of a topic that lies elsewhere
		}
	}
	w.bytes[stream], w.topics[stream] = 0, make(map[string]struct{})
	w.room.Broadcast()
	return nil
}

// fail notes why the logs cannot be written, or that they can.
func (w *wal) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.failed = err
	w.room.Broadcast()
}
