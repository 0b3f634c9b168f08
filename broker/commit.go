package broker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
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

// placeAll places groups, and returns those that are to be written, and those for another attempt with the reason; the others are answered, or queued again.
func (b *Broker) placeAll(e *engine, class fleet.Durability, groups []*group) (ready, left []*group, why error) {
	for _, g := range groups {
		if g.tried {
			found, err := g.resume(e)
			switch {
			case found:
				b.settle(class, g)
			case err == nil:
				ready = append(ready, g)
			case e.passes(err):
				left, why = append(left, g), err
			default:
				g.giveUp(b, err)
			}
			continue
		}
		err := b.place(e, class, g)
		switch {
		case errors.Is(err, errMoved):
			b.again(g)
		case err != nil && e.passes(err):
			left, why = append(left, g), err
		case err != nil:
			g.answer(b.notPlaced(g.topic, err))
		case g.batch == nil:
			g.answer(nil) // all of it was committed before
		default:
			ready = append(ready, g)
		}
	}
	return ready, left, why
}

// notPlaced is what publishers are told of an error before anything was written. What is being written of the topic meanwhile goes on.
func (b *Broker) notPlaced(t *topic, err error) error {
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return b.refusalLocked(t, err)
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

// errMoved: the topic has another durability class now.
var errMoved = errors.New("the topic lies elsewhere now")

// again queues a group's publishes anew.
func (b *Broker) again(g *group) {
	for _, p := range g.publishes {
		if err := b.put(p); err != nil {
			p.done <- b.notPlaced(p.topic, err)
		}
	}
}

// place gives a group its offsets and its form on disk, or says why the topic cannot take it.
func (b *Broker) place(e *engine, class fleet.Durability, g *group) error {
	g.beginAnew()
	t := g.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.moving {
		t.changed.Wait()
	}
	if t.gone {
		return notFound("topic %s was deleted while the message was on its way", t.name)
	}
	if t.class != class {
		return errMoved
	}
	if err := t.loadLocked(e.ctx, e); err != nil {
		return err
	}
	if err := g.freshLocked(e.ctx); err != nil {
		return err
	}
	if g.empty() {
		return nil
	}
	g.fillLocked()
	if err := b.fitsLocked(e, g); err != nil {
		g.batch = nil // the topic is not held for it
		return err
	}
	t.writing = true
	return nil
}

// beginAnew takes back what an earlier attempt to place g did, and leaves out publishes for which nobody waits any more.
func (g *group) beginAnew() {
	g.batch, g.keys = nil, nil
	g.publishes = slices.DeleteFunc(g.publishes, func(p *publish) bool { return p.left.Load() })
	for _, p := range g.publishes {
		p.whole()
	}
}

// fillLocked makes the batch, at the head of its topic. The caller holds the topic's lock.
func (g *group) fillLocked() {
	t := g.topic
	g.batch = &batch{base: t.head, bytes: t.bytes, time: time.Now().UTC(), matches: new(matches)}
	var encoded [][]byte
	for _, p := range g.publishes {
		p.base = t.head + uint64(len(encoded))
		g.batch.records = append(g.batch.records, p.records...)
		encoded = append(encoded, p.encoded...)
	}
	for _, r := range g.batch.records {
		r.time = g.batch.time
	}
	g.batch.count = uint64(len(encoded))
	after := t.last.seq
	g.message = message{subject: t.lane.subject(t.name), data: g.batch.encode(encoded), after: &after}
	g.batch.size = len(g.message.data)
	g.log = g.batch
}

// fitsLocked says why there is no room for a batch, or nil. A marker is on the way to free space, and always fits.
func (b *Broker) fitsLocked(e *engine, g *group) error {
	if g.batch.count == 0 {
		return nil
	}
	if err := b.room(e); err != nil {
		return err
	}
	return b.quotaLocked(e, g.topic, g.batch.size)
}

// empty reports whether nothing is left to be committed. A marker, which has one publish without records, is something.
func (g *group) empty() bool {
	for _, p := range g.publishes {
		if len(p.records) > 0 || p.marker {
			return false
		}
	}
	return true
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

// room says why nothing can be written now, or nil.
func (b *Broker) room(e *engine) error {
	if err := e.err(); err != nil {
		return err
	}
	if b.config.Reserve <= 0 || e.external != nil {
		return nil
	}
	if free, known := freeSpace(b.config.Dir); known && free-e.unsettled() < b.config.Reserve {
		return &fullError{fmt.Sprintf("the disk of %s has %d MB left, and %d MB are kept free", b.config.Dir, free>>20, b.config.Reserve>>20)}
	}
	return nil
}

// fullError is a quota or a disk that is full.
type fullError struct{ text string }

func (e *fullError) Error() string { return e.text }

// refusal is what publishers are told of a write that failed.
func (b *Broker) refusal(t *topic, err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !quotaExceeded(err) {
		t.loaded, t.recent = nil, nil // where the topic ends is to be read again
	}
	return b.refusalLocked(t, err)
}

// refusalLocked turns a failed write into what the publisher is told, and notes it for the status.
func (b *Broker) refusalLocked(t *topic, err error) error {
	t.stopped = err.Error()
	if errors.Is(err, errClosed) {
		return &Error{Status: http.StatusServiceUnavailable, Reason: fleet.ReasonStorageFailed, Text: "the broker is shutting down; publish again once it is back"}
	}
	if full(err) {
		return &Error{Status: http.StatusInsufficientStorage, Reason: fleet.ReasonStorageFull,
			Text: fmt.Sprintf("topic %s takes no events: %v.\nNothing that was acknowledged is lost. Publishing goes on by itself when there is room again", t.name, err)}
	}
	var unsynced *unsyncedError
	if errors.As(err, &unsynced) {
		return unavailable("topic %s takes no events: its durability is `disk`, and %v", t.name, err)
	}
	if errors.Is(err, errCrowded) {
		return unavailable("topic %s takes no events now: its NATS server is away, and as many publishes wait for it as may (%d, or %d MB). Publish again in a moment", t.name, heldMost, heldBytes>>20)
	}
	var away *awayError
	var foreign *foreignError
	outside := b.engine.Load().external != nil
	if outside || errors.Is(err, errNotLoaded) || errors.Is(err, errRestored) || errors.As(err, &away) || errors.As(err, &foreign) {
		return unavailable("topic %s takes no events: %v.\nNothing that was acknowledged is lost. Publishing goes on by itself once it answers", t.name, err)
	}
	return &Error{Status: http.StatusServiceUnavailable, Reason: fleet.ReasonStorageFailed,
		Text: fmt.Sprintf("topic %s is stopped: the broker cannot write its files: %v.\nNothing that was acknowledged is lost. Check the disk, then restart the hub", t.name, err)}
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
