package broker

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

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
