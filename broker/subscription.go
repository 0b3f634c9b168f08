package broker

import (
	"context"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// subscription delivers one topic to one service. It has no goroutine while it has nothing to do: a
// commit, an attempt's end, a timer and a new snapshot each pump it.
type subscription struct {
	b     *Broker
	name  string // SERVICE/TOPIC
	topic *topic

	mu       sync.Mutex
	window   *window
	target   target
	live     bool // some manifest has it
	dirty    bool // the cursor is to be saved
	fetching bool
	stopped  bool
	timer    *time.Timer

	delivered, failures, lost uint64
	lastError                 string
}

// target is where deliveries go.
type target struct {
	service string
	host    string // the service, with a port where the manifest names one
	path    string
	version uint64 // of the service in the snapshot
	runs    bool   // false: the service is not deployed, nothing is tried
}

func newSubscription(b *Broker, t *topic, c cursor) *subscription {
	service, _, _ := strings.Cut(c.name, "/")
	s := &subscription{b: b, name: c.name, topic: t, window: newWindow(c, b.limits()), target: target{service: service}}
	s.timer = time.AfterFunc(math.MaxInt64, s.pump)
	return s
}

func (b *Broker) limits() limits {
	return limits{concurrency: b.config.Concurrency, attempts: uint64(b.config.Attempts),
		minBackoff: b.config.MinBackoff, maxBackoff: b.config.MaxBackoff}
}

// aim says where deliveries go from now on, and starts them.
func (s *subscription) aim(t target) {
	s.mu.Lock()
	if t.version != s.target.version || t.runs != s.target.runs {
		s.window.resume()
	}
	s.target, s.live = t, true
	if !s.window.cursor.detached.IsZero() {
		s.window.cursor.detached, s.dirty = time.Time{}, true
	}
	s.mu.Unlock()
	s.pump()
}

// detach stops deliveries: no manifest has the subscription any more.
func (s *subscription) detach(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.live && !s.window.cursor.detached.IsZero() {
		return
	}
	s.live, s.dirty = false, true
	s.window.cursor.detached = now
	s.b.flush.poke()
}

// offer takes a batch that was just committed. The caller holds the topic's lock.
func (s *subscription) offer(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window.offer(b)
	s.pumpLocked()
}

// pump starts what can start.
func (s *subscription) pump() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pumpLocked()
}

func (s *subscription) pumpLocked() {
	if s.stopped || !s.live || !s.target.runs || !s.b.running.Load() {
		return
	}
	now := time.Now()
	for l := s.window.start(now); l != nil; l = s.window.start(now) {
		s.b.work.Go(func() { s.deliver(l) })
	}
	if s.window.wants() && !s.fetching {
		s.fetching = true
		s.b.work.Go(s.fetch)
	}
	if at, ok := s.window.wake(); ok {
		s.timer.Reset(max(time.Until(at), time.Millisecond))
	}
}

// fetch reads the next batch of a subscription that is behind.
func (s *subscription) fetch() {
	s.mu.Lock()
	seq := s.window.nextSeq
	s.mu.Unlock()
	e := s.b.engine.Load()
	b, err := e.batchFrom(e.ctx, s.topic, seq, true)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetching = false
	if err != nil {
		s.lastError = "reading the topic: " + err.Error()
		s.timer.Reset(s.b.config.MaxBackoff)
		return
	}
	s.fetchedLocked(b)
	s.pumpLocked()
}

// fetchedLocked takes what was read: nil where the topic has nothing from there on.
func (s *subscription) fetchedLocked(b *batch) {
	w := s.window
	if b == nil {
		s.skipLocked(w.head)
		return
	}
	if b.base > w.next {
		s.skipLocked(b.base)
	}
	if b.end() <= w.next {
		w.nextSeq = max(w.nextSeq, b.seq+1)
	}
	w.add(b)
}

func (s *subscription) skipLocked(offset uint64) {
	if lost := s.window.skip(offset); lost > 0 {
		s.lost += lost
		s.b.config.Log.Warn("events were removed by retention before they were delivered", "subscription", s.name, "events", lost)
	}
	s.dirty = true
	s.b.flush.poke()
}

// deliver is one attempt, and what follows from it.
func (s *subscription) deliver(l *lease) {
	s.mu.Lock()
	to := s.target
	s.mu.Unlock()
	o := s.load(l)
	if l.record != nil {
		o = s.b.attempt(s, l, to)
	}
	if o.fate == failed && l.attempt >= s.window.limits.attempts {
		o = s.b.bury(s, l, o)
	}
	s.end(l, o)
}

// load reads the record of a lease again where it was dropped.
func (s *subscription) load(l *lease) outcome {
	if l.record != nil {
		return outcome{}
	}
	e := s.b.engine.Load()
	b, err := e.batchFrom(e.ctx, s.topic, l.seq, true)
	if err != nil {
		return outcome{fate: unread, text: "reading the event again: " + err.Error()}
	}
	if b == nil || l.offset < b.base || l.offset >= b.end() {
		return outcome{fate: expired, text: "retention removed the event"}
	}
	s.mu.Lock()
	l.record = b.records[l.offset-b.base]
	s.window.held += l.record.size()
	s.mu.Unlock()
	return outcome{}
}

func (s *subscription) end(l *lease, o outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch o.fate {
	case acked:
		s.delivered++
	case expired:
		s.lost++
	case failed, buried:
		s.failures++
		s.lastError = o.text
	case unreachable, unread:
		s.lastError = o.text
	}
	if s.window.end(l, o, time.Now()) {
		s.dirty = true
		s.b.flush.poke()
	}
	s.pumpLocked()
}

// stop ends deliveries for good; what is in flight ends by itself.
func (s *subscription) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.timer.Stop()
}

// save returns the cursor's form on disk if it is to be saved.
func (s *subscription) save() (data []byte, dirty bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dirty {
		return nil, false
	}
	s.dirty = false
	return s.window.saved(), true
}

// unsaved says that a save failed.
func (s *subscription) unsaved() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dirty = true
}

func (s *subscription) floor() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.window.cursor.floor
}

func (s *subscription) floorIfLive() (floor uint64, live bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.window.cursor.floor, s.live
}

func (s *subscription) status() fleet.SubscriptionStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.window
	out := fleet.SubscriptionStatus{
		Name: s.name, Service: s.target.service, Topic: s.topic.name, Path: s.target.path,
		Lag: w.cursor.lag(w.head), Oldest: w.oldest(), InFlight: w.inFlight, Retrying: len(w.retries),
		Delivered: s.delivered, Failed: s.failures, DeadLetters: w.cursor.dead, Lost: s.lost,
		Paused: w.pause.reason, LastError: s.lastError,
	}
	if !s.live {
		out.Paused = "no manifest subscribes any more; kept for the retention time"
	}
	if s.live && !s.target.runs {
		out.Paused = "the service is not running"
	}
	return out
}

// attemptContext returns one that ends when deliveries are cut off at the end of a drain, or at the ack deadline.
func (b *Broker) attemptContext() (context.Context, context.CancelFunc) {
	return context.WithTimeout(b.delivering, b.config.AckDeadline)
}
