package broker

import (
	"errors"
	"slices"
	"time"
)

// While external servers elect another leader, or one of them restarts, publishes wait. What was sent and not answered is looked for in its topic's log once
// that is read again, and is sent again only where it is not: the log's leader takes nothing before it has applied what its quorum has, and each
// batch says what it follows, so that the same batch is not written twice.
const (
	awayEvery = 100 * time.Millisecond // between two attempts
	heldMost  = 10_000                 // publishes of one durability class that wait, beside those that were taken already
	heldBytes = 64 << 20
)

var errCrowded = errors.New("too many publishes wait")

// crowdedLocked reports whether there are servers to wait for, and no room to do so.
func (c *commits) crowdedLocked(p *publish) bool {
	full := func() bool { return len(c.queue) >= heldMost || len(c.queue) > 0 && c.bytes+p.bytes > heldBytes }
	if c.away.IsZero() || !full() {
		return false
	}
	c.queue = slices.DeleteFunc(c.queue, func(p *publish) bool { return p.left.Load() })
	c.bytes = 0
	for _, p := range c.queue {
		c.bytes += p.bytes
	}
	return full()
}

// goesOn notes that the servers take what is published.
func (c *commits) goesOn() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.away = time.Time{}
}

// returned notes that the servers are reached again. While something is still held, that is the same outage: what reaches them and cannot be written does
// not hold it for ever.
func (c *commits) returned(hold time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.away) >= hold {
		c.away = time.Time{}
	}
}

// awaitServers waits a moment for external servers. It returns false once they have been away for Config.Hold, or when the broker stops.
func (b *Broker) awaitServers(c *commits) bool {
	c.mu.Lock()
	if c.away.IsZero() {
		c.away = time.Now()
	}
	since := c.away
	c.mu.Unlock()
	if time.Since(since) >= b.config.Hold {
		return false
	}
	select {
	case <-time.After(awayEvery):
		return true
	case <-b.delivering.Done():
		return false
	}
}

// passes reports whether what failed may succeed in a moment, since external servers only do not answer, or the connection broke.
func (e *engine) passes(err error) bool {
	var known *Error
	var unsynced *unsyncedError
	var foreign *foreignError
	if e.external == nil || full(err) || errors.Is(err, errCorrupt) || errors.Is(err, errDiffers) {
		return false
	}
	return !errors.As(err, &known) && !errors.As(err, &unsynced) && !errors.As(err, &foreign)
}

// errDiffers: the log has neither a batch nor the place for it.
var errDiffers = errors.New("what was sent and not answered is not in the log, which goes on elsewhere")

// resume looks for a batch that was sent and not answered. It is found, or may be sent again.
func (g *group) resume(e *engine) (found bool, err error) {
	t := g.topic
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.loadLocked(e.ctx, e); err != nil {
		return false, err
	}
	if t.last.is(g.batch) {
		g.batch.seq = t.last.seq
		return true, nil
	}
	if t.head != g.batch.base {
		return false, errDiffers
	}
	after := t.last.seq
	g.message.subject, g.message.after = t.lane.subject(t.name), &after
	return false, nil
}

// is reports whether b, the last batch of a log, is another one.
func (b *batch) is(other *batch) bool {
	return b.seq != 0 && b.base == other.base && b.count == other.count && b.size == other.size && b.time.Equal(other.time)
}

// giveUp answers a group that is not to be committed any more.
func (g *group) giveUp(b *Broker, err error) {
	if g.batch != nil {
		g.topic.wrote()
	}
	g.answer(b.refusal(g.topic, err))
}
