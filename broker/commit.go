package broker

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/shoalrun/shoal/fleet"
)

// commits is the queue of publishes that wait for their commit group.
type commits struct {
	mu     sync.Mutex
	queue  []*publish
	bytes  int       // of queue
	away   time.Time // since when the external servers take nothing; zero: they do
	closed bool
	wake   chan struct{}
}

// publish is one publish: records of one topic, committed together or not at all.
type publish struct {
	topic   *topic
	records []*record
	encoded [][]byte
	given   []*record // records and encoded as they were, before what is known already was left out
	form    [][]byte
	bytes   int
	marker  bool        // it has no records, and is committed all the same
	left    atomic.Bool // its publisher waits no more
	base    uint64      // offset of the first, once it is committed
	done    chan error  // receives once
}

// group is what one commit writes to one topic.
type group struct {
	topic     *topic
	publishes []*publish
	batch     *batch
	tried     bool // it was sent, and whether it was written is not known
	message   message
	log       *batch     // what goes to the topic's log: the batch, or one with what was ahead as well
	keys      []eventKey // of its events, to be remembered
}

func newPublish(t *topic, records []*record) *publish {
	p := &publish{topic: t, records: records, encoded: make([][]byte, 0, len(records)), marker: len(records) == 0, done: make(chan error, 1)}
	for _, r := range records {
		data := r.encode()
		p.encoded = append(p.encoded, data)
		p.bytes += len(data)
	}
	p.given, p.form = p.records, p.encoded
	return p
}

// whole takes back what an earlier attempt to place p left out: whoever had the same event may not wait any more.
func (p *publish) whole() { p.records, p.encoded = p.given, p.form }

// put queues a publish.
func (c *commits) put(p *publish) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return errClosed
	}
	if c.crowdedLocked(p) {
		return errCrowded
	}
	c.queue, c.bytes = append(c.queue, p), c.bytes+p.bytes
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

// take returns what waits, up to groupBytes or one publish, as one group per topic in order of arrival.
func (c *commits) take() []*group {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*group
	of := make(map[*topic]*group)
	taken, bytes := 0, 0
	for _, p := range c.queue {
		if taken > 0 && bytes+p.bytes > groupBytes || len(out) == batchMost {
			break
		}
		g := of[p.topic]
		if g == nil {
			g = &group{topic: p.topic}
			of[p.topic], out = g, append(out, g)
		}
		g.publishes = append(g.publishes, p)
		taken, bytes = taken+1, bytes+p.bytes
	}
	clear(c.queue[:taken])
	c.queue, c.bytes = c.queue[taken:], c.bytes-bytes
	return out
}

// close refuses what comes; what is queued is still committed.
func (c *commits) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// put queues a publish with those of its topic's durability class.
func (b *Broker) put(p *publish) error {
	if !b.loaded.Load() {
		return b.engine.Load().explain(errNotLoaded)
	}
	p.topic.mu.Lock()
	class := p.topic.class
	p.topic.mu.Unlock()
	return b.commits[laneOf(class)].put(p)
}

// commitLoop commits group after group of one durability class: what arrives during one commit makes up the next. It ends
// when the queue is closed and empty.
func (b *Broker) commitLoop(class fleet.Durability) {
	queue := &b.commits[laneOf(class)]
	for range queue.wake {
		for groups := queue.take(); len(groups) > 0; groups = queue.take() {
			b.commit(class, groups)
			if pace := b.pace.Load(); pace > 0 {
				time.Sleep(time.Duration(pace))
			}
		}
		queue.mu.Lock()
		ended := queue.closed && len(queue.queue) == 0
		queue.mu.Unlock()
		if ended {
			return
		}
	}
}

// commit is the durable part of an event's walk: place each topic's records, write them all with one sync,
// tell subscriptions, answer publishers. It runs in one goroutine per class, the only one that moves its topics' heads. Where external servers do
// not take them now, it is tried again for a while (held.go).
func (b *Broker) commit(class fleet.Durability, groups []*group) {
	queue := &b.commits[laneOf(class)]
	for {
		left, err := b.commitOnce(class, groups)
		if err == nil {
			queue.goesOn()
			return
		}
		if !b.awaitServers(queue) {
			for _, g := range left {
				g.giveUp(b, err)
			}
			return
		}
		groups = left
	}
}

// commitOnce commits groups, and returns those that another attempt may commit, and why it is needed.
func (b *Broker) commitOnce(class fleet.Durability, groups []*group) (left []*group, why error) {
	b.writing.RLock()
	defer b.writing.RUnlock()
	e := b.engine.Load()
	l, err := e.lane(class)
	if err == nil && e.external != nil {
		err = e.err()
	}
	if err == nil && class == fleet.DurabilityDisk {
		err = e.proof.refusal()
	}
	if err != nil && e.passes(err) {
		return groups, err
	}
	if err != nil {
		for _, g := range groups {
			g.giveUp(b, err)
		}
		return nil, nil
	}
	ready, left, why := b.placeAll(e, class, groups)
	if len(ready) == 0 {
		return left, why
	}
	start := time.Now()
	err = b.write(e, l, class, ready)
	if errors.Is(err, nats.ErrNoResponders) { // JetStream switched itself off
		e.fail(&writeError{"JetStream does not answer any more: it is out of resources"})
	}
	if err != nil && e.passes(err) {
		for _, g := range ready {
			g.tried = true
		}
		return append(left, ready...), err
	}
	if err == nil {
		b.committed(class, ready, time.Since(start))
	}
	for _, g := range ready {
		if err != nil {
			g.giveUp(b, err)
			continue
		}
		b.settle(class, g)
	}
	return left, why
}

// settle makes a committed group visible, and answers its publishers.
func (b *Broker) settle(class fleet.Durability, g *group) {
	if class == scheduleClass {
		b.schedules.committed(g.batch)
	}
	g.settle()
}

// write makes groups durable, all or none: one goes to its topic's log; several go to the write-ahead log, where the lane has one.
func (b *Broker) write(e *engine, l *lane, class fleet.Durability, ready []*group) error {
	if l.wal != nil && (len(ready) > 1 || !ready[0].claim()) {
		err := l.wal.store(ready)
		b.settler.poke(l.wal.held())
		return err
	}
	msgs := make([]message, 0, len(ready))
	for _, g := range ready {
		msgs = append(msgs, g.message)
	}
	first, err := b.store(e, l, class, msgs)
	for i, g := range ready {
		g.logged(first+uint64(i), err)
	}
	return err
}

// store writes messages of one stream, all or none, and makes room for them where it is full.
func (b *Broker) store(e *engine, l *lane, class fleet.Durability, msgs []message) (first uint64, err error) {
	first, err = l.store(msgs)
	if quotaExceeded(err) && b.makeRoom(e, class) {
		first, err = l.store(msgs)
	}
	return first, err
}

// settle makes a committed group visible, then answers its publishers.
func (g *group) settle() {
	g.topic.mu.Lock()
	g.topic.appendedLocked(g.batch)
	for _, k := range g.keys {
		g.topic.recent.add(k, g.batch.time)
	}
	g.topic.showLocked(g.batch)
	for _, s := range g.topic.subs {
		s.offer(g.batch)
	}
	g.topic.wroteLocked()
	g.topic.mu.Unlock()
	g.answer(nil)
}

func (g *group) answer(err error) {
	for _, p := range g.publishes {
		p.done <- err
	}
}

// wait returns when p is committed or refused, or when ctx ends first: then it may yet be committed.
func (p *publish) wait(ctx context.Context) error {
	select {
	case err := <-p.done:
		return err
	case <-ctx.Done():
		p.left.Store(true)
		return &Error{Status: http.StatusServiceUnavailable, Reason: fleet.ReasonTimeout,
			Text: "the commit took longer than the publisher waited; the event may yet be accepted. Publish it again under the same id"}
	}
}
