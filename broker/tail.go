package broker

import (
	"context"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/shoalrun/shoal/broker/filter"
)

// tailBatches is how many batches a tail may be behind; then it misses some.
const tailBatches = 64

// tail is one who watches what is committed to a topic.
type tail struct {
	filter  *filter.Filter
	batches chan *batch
	missed  atomic.Uint64 // messages since the last that it got
}

// Tailed is a message as it was committed.
type Tailed struct {
	Message
	// Missed is how many messages before this one the reader was too slow for.
	Missed uint64
}

// Tail calls send with every message that is committed to a topic from now on and that a filter of the Pub/Sub
// API's language lets pass (empty: every one), until ctx ends or send fails. No subscription notices, and a send that is
// slow costs only the tail itself messages.
func (b *Broker) Tail(ctx context.Context, topicName, filterText string, send func(Tailed) error) error {
	f, err := filter.Parse(filterText)
	if err != nil {
		return invalid("filter", "%v", err)
	}
	if _, err := b.Topic(ctx, topicName); err != nil {
		return err
	}
	t := b.topic(topicName)
	w := &tail{filter: f, batches: make(chan *batch, tailBatches)}
	t.mu.Lock()
	t.tails = append(t.tails, w)
	t.mu.Unlock()
	defer t.leave(w)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case got := <-w.batches:
			if err := w.show(got, send); err != nil {
				return err
			}
		}
	}
}

func (t *topic) leave(w *tail) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tails = slices.DeleteFunc(t.tails, func(o *tail) bool { return o == w })
}

// showLocked shows a committed batch to those who watch. The caller holds t.mu.
func (t *topic) showLocked(b *batch) {
	for _, w := range t.tails {
		select {
		case w.batches <- b:
		default:
			w.missed.Add(uint64(len(b.records)))
		}
	}
}

func (w *tail) show(b *batch, send func(Tailed) error) error {
	for i, r := range b.records {
		if r.only != "" || !w.filter.Match(r.attributes()) {
			continue // a redriven one was shown when it was published
		}
		m := r.message(strconv.FormatUint(b.base+uint64(i), 10))
		m.PublishTime = b.time
		if err := send(Tailed{m, w.missed.Swap(0)}); err != nil {
			return err
		}
	}
	return nil
}
