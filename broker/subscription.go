package broker

import (
	"fmt"
	"math"
	"strings"
	"sync"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// subscription delivers one topic: by push to one service, to pullers, or both. It has no goroutine while it has nothing to do:
// a commit, an attempt's end, a timer, a puller and a new snapshot each pump it.
type subscription struct {
	b     *Broker
	name  string // SERVICE/TOPIC, or an API's id
	topic *topic

	mu        sync.Mutex
	config    SubscriptionConfig
	window    *window
	target    target
	pushes    holder
	receivers []*Receiver
	live      bool // some manifest has it, or it was created
	dirty     bool // the cursor is to be saved
	fetching  bool
	redrives  int  // runs that redrive dead letters to it now
	doubtful  bool // one of them ended, and not all of what it did is known
	stopped   bool
	removed   bool
	timer     *time.Timer

	unanswered map[string]bool // ack ids of acknowledgements that count, and whose saving failed

	attempts, delivered, failures, expired, givenUp, lost uint64
	lastError                                             string
	telling                                               fleet.Observation // used again for each delivery that is told of
}

func newSubscription(b *Broker, t *topic, c cursor) *subscription {
	service, _, _ := strings.Cut(c.name, "/")
	s := &subscription{b: b, name: c.name, topic: t, window: newWindow(c, limits{leases: windowLeases}), target: target{service: service}}
	s.timer = time.AfterFunc(math.MaxInt64, s.pump)
	return s
}

// configure puts a configuration in force. Messages in flight keep the deadline that they have.
func (s *subscription) configure(c *SubscriptionConfig) error {
	match, err := parseFilter(c.Filter)
	if err != nil {
		return invalid("filter", "%v", err)
	}
	to := target{runs: true}
	if c.Push != nil {
		if to, err = c.Push.target(); err != nil {
			return invalid("push_config.push_endpoint", "%v", err)
		}
	}
	to.subscription = c.Name
	delay := s.b.delay(c.Topic)
	s.mu.Lock()
	s.config = *c
	s.window.limits = s.b.limits(c, match)
	if c.Declared == "" { // a manifest's has it already
		s.window.limits.delay += delay
	}
	s.pushes.push, s.pushes.limit = true, s.b.concurrency(c)
	if c.Declared == "" {
		if to.url() != s.target.url() {
			s.window.resume()
		}
		s.target, s.live = to, true
	}
	s.mu.Unlock()
	s.pump()
	return nil
}

// What pushes wait between attempts where no retry policy says so: without one a message is delivered again at once, which is for pullers, who ask
// (cloud.google.com/pubsub/docs/push, "push backoff").
const (
	minPushBackoff = 100 * time.Millisecond
	maxPushBackoff = 60 * time.Second
)

func (b *Broker) limits(c *SubscriptionConfig, match func(*batch) bits) limits {
	l := limits{
		leases: windowLeases, minBackoff: c.MinBackoff, maxBackoff: c.MaxBackoff,
		ordered: c.Ordering, exactlyOnce: c.ExactlyOnce, filter: match, delay: c.Delay,
	}
	if c.Push == nil || c.Pull {
		l.leases = pullLeases
	}
	if c.Push != nil && l.maxBackoff == 0 {
		l.minBackoff, l.maxBackoff = minPushBackoff, maxPushBackoff
	}
	if c.DeadLetter != nil {
		l.attempts = uint64(c.DeadLetter.Attempts)
	}
	return l
}

// delay is that of a topic, for all its subscriptions.
func (b *Broker) delay(topicName string) time.Duration {
	c, _ := b.topicConfig(topicName)
	return c.Delay
}

func (b *Broker) concurrency(c *SubscriptionConfig) int {
	if c.Concurrency > 0 {
		return c.Concurrency
	}
	return b.config.Concurrency
}

// aim says where a manifest's deliveries go from now on, and starts them.
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
	if s.window.limits.filter != nil {
		s.dirty = true // saved with the next save: a crash filters again
	}
	s.pumpLocked()
}

// pump starts what can start.
func (s *subscription) pump() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pumpLocked()
}

func (s *subscription) pumpLocked() {
	if s.stopped || !s.live || !s.b.running.Load() {
		return
	}
	now := time.Now()
	s.expireLocked(now)
	s.pushLocked(now)
	s.wakeReceiversLocked(now)
	if s.window.wants() && !s.fetching && s.consumedLocked() {
		s.fetching = true
		s.b.work.Go(s.fetch)
	}
	s.setTimerLocked()
}

// pushesLocked reports whether messages are pushed now.
func (s *subscription) pushesLocked() bool { return s.config.Push != nil && s.target.runs }

// consumedLocked reports whether anybody takes messages.
func (s *subscription) consumedLocked() bool { return s.pushesLocked() || len(s.receivers) > 0 }

// pushLocked starts pushes.
func (s *subscription) pushLocked(now time.Time) {
	if !s.pushesLocked() {
		return
	}
	for l := s.window.start(now, &s.pushes); l != nil; l = s.window.start(now, &s.pushes) {
		g := s.grantLocked(l)
		s.attempts++
		s.b.work.Go(func() { s.deliver(g) })
	}
}

// wakeReceiversLocked tells pullers that there is something for them.
func (s *subscription) wakeReceiversLocked(now time.Time) {
	for _, r := range s.receivers {
		if s.window.gives(now, &r.holder) {
			r.poke()
		}
	}
}

// setTimerLocked pumps again when the passing of time allows something.
func (s *subscription) setTimerLocked() {
	var at time.Time
	sooner := func(t time.Time, ok bool) {
		if ok && (at.IsZero() || t.Before(at)) {
			at = t
		}
	}
	if s.pushesLocked() {
		t, ok := s.window.wake(&s.pushes)
		sooner(t, ok)
	}
	if l := s.window.deadlines.first(); l != nil {
		sooner(l.when, true)
	}
	if len(s.receivers) > 0 {
		t, ok := s.window.wake(new(holder))
		sooner(t, ok && t.After(time.Now()))
	}
	if !at.IsZero() {
		s.timer.Reset(max(time.Until(at), time.Millisecond))
	}
}

// fetch reads the next batch of a subscription that is behind.
func (s *subscription) fetch() {
	s.mu.Lock()
	seq, next, head, turn := s.window.nextSeq, s.window.next, s.window.head, s.window.cursor.turn
	s.mu.Unlock()
	b, err := s.b.read(s.topic, seq, next)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetching = false
	if s.window.nextSeq != seq || s.window.cursor.turn != turn { // a sequence is one log's, and the topic may lie in another by now
		s.pumpLocked() // it reads on elsewhere
		return
	}
	if err != nil {
		s.lastError = "reading the topic: " + err.Error()
		s.timer.Reset(readAgain)
		return
	}
	s.fetchedLocked(b, head)
	s.pumpLocked()
}

// readAgain is how long a subscription waits after its topic, or at least after a message of it, could not be read or made a dead letter.
const readAgain = 2 * time.Second

// fetchedLocked takes what was read: nil where the topic has nothing from there on up to head, as it was then.
func (s *subscription) fetchedLocked(b *batch, head uint64) {
	w := s.window
	if b == nil {
		s.skipLocked(head)
		return
	}
	if b.base > w.next {
		s.skipLocked(b.base)
	}
	w.add(b)
	if w.limits.filter != nil {
		s.dirty = true
	}
}

func (s *subscription) skipLocked(offset uint64) {
	if lost := s.window.skip(offset); lost > 0 {
		s.lost += lost
		s.b.config.Log.Warn("messages were removed by retention before they were delivered", "subscription", s.name, "messages", lost)
	}
	s.dirty = true
	s.b.flush.poke()
}

// deliver is one push, and what follows from it.
func (s *subscription) deliver(g grant) {
	s.mu.Lock()
	to, deadline := s.target, s.config.AckDeadline
	s.mu.Unlock()
	r, o := s.load(g)
	if r != nil {
		o = s.b.attempt(s, g, r, to, deadline)
	}
	s.end(g, o)
}

// load returns the record of a grant, read again where it was dropped; or nil, and what that means.
func (s *subscription) load(g grant) (*record, outcome) {
	if g.record != nil {
		return g.record, outcome{}
	}
	b, err := s.b.read(s.topic, g.seq, g.offset)
	if err != nil {
		return nil, outcome{fate: unread, text: "reading the message again: " + err.Error()}
	}
	if b == nil || g.offset < b.base || g.offset >= b.end() {
		return nil, outcome{fate: expired, text: "retention removed the message"}
	}
	return b.records[g.offset-b.base], outcome{}
}

// end takes the outcome of a grant, unless it is over by other means.
func (s *subscription) end(g grant, o outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := g.lease
	if l.state != flying || l.delivery != g.delivery || s.window.leases[g.offset] != l {
		return
	}
	l.span = o.span
	now := time.Now()
	if l.holder.push {
		s.judgeLocked(l, &o, now)
	}
	if o.fate == failed {
		s.failLocked(l, o, now)
	} else {
		s.endLocked(l, o, now)
	}
	s.pumpLocked()
}

// judgeLocked learns of the receiver from the end of one push, and tells of a pause that begins or ends.
func (s *subscription) judgeLocked(l *lease, o *outcome, now time.Time) {
	w := s.window
	before := w.pause
	w.judge(l, o, now)
	switch {
	case before.reason == "" && w.pause.reason != "":
		s.b.config.Log.Warn("deliveries pause", "subscription", s.name, "reason", w.pause.reason, "until", w.pause.until)
	case before.reason != "" && w.pause.reason == "":
		s.b.config.Log.Info("deliveries go on", "subscription", s.name, "paused", now.Sub(before.since).Round(time.Millisecond))
	}
}

// endLocked takes the outcome of a lease.
func (s *subscription) endLocked(l *lease, o outcome, now time.Time) {
	switch o.fate {
	case acked:
		s.delivered++
		s.usedLocked(now)
		s.b.config.Acknowledged(s.name, now.Sub(l.at))
	case expired:
		s.lost++
	case failed, buried:
		s.failures++
		if o.fate == buried {
			s.givenUp++
		}
		s.lastError = o.text
	case unreachable, unread:
		s.lastError = o.text
	}
	if o.fate == failed && l.run != nil && s.window.cursor.attempts[l.offset]+1 == stuckAfter {
		s.b.config.Log.Warn("an ordering key is stuck", "subscription", s.name, "key", l.run.key, "attempts", stuckAfter, "error", o.text)
	}
	if s.window.end(l, o, now) {
		s.dirty = true
		s.b.flush.poke()
	}
	s.tellVoidedLocked(now)
}

// usedLocked notes that somebody uses the subscription, for its expiration.
func (s *subscription) usedLocked(now time.Time) {
	if now.Sub(s.window.cursor.used) > usedStep {
		s.window.cursor.used, s.dirty = now, true
	}
}

// usedStep is how exact the time of the last use is.
const usedStep = time.Hour

// stop ends deliveries for good; what is in flight ends by itself.
func (s *subscription) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	s.timer.Stop()
	for _, r := range s.receivers {
		r.poke()
	}
}

// remove says that the cursor is to be saved no more.
func (s *subscription) remove() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.removed = true
}

// save returns the cursor's form on disk if it is to be saved.
func (s *subscription) save() (data []byte, dirty bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dirty || s.removed {
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

// needs is the offset from which on the subscription needs its topic's messages, where it is live.
func (s *subscription) needs() (offset uint64, live bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.config.RetainAcked {
		return 0, s.live
	}
	return s.window.cursor.floor, s.live
}

func (s *subscription) floorIfLive() (floor uint64, live bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.window.cursor.floor, s.live
}

// stuckLocked tells of an ordering key that fails again and again.
func (s *subscription) stuckLocked() string {
	key, attempts, messages, left := s.window.stuck()
	if attempts == 0 {
		return ""
	}
	more := ""
	if left {
		more = "more than "
	}
	return fmt.Sprintf("the first message of ordering key %q failed %d times; %s%d of the key wait for it", key, attempts, more, messages-1)
}

func (s *subscription) status() fleet.SubscriptionStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.window
	out := fleet.SubscriptionStatus{
		Name: s.name, Service: s.target.service, Topic: s.topic.name, Path: s.target.path,
		Lag: w.cursor.lag(w.head), Oldest: w.oldest(), InFlight: w.inFlight, Retrying: len(w.retries),
		Attempts: s.attempts, Expired: s.expired, GivenUp: s.givenUp, StuckKeys: w.stuckKeys(),
		Delivered: s.delivered, Failed: s.failures, DeadLetters: w.cursor.dead, Lost: s.lost,
		Paused: s.pausedLocked(), LastError: s.lastError, Stuck: s.stuckLocked(),
	}
	if out.Paused != "" && out.Paused == w.pause.reason {
		out.PausedSince, out.NextTry = w.pause.since, w.pause.until
	}
	if s.config.Push != nil {
		out.Concurrency = s.pushes.places()
	}
	return out
}

// pausedLocked says why nothing is delivered; empty where it is.
func (s *subscription) pausedLocked() string {
	switch {
	case !s.live:
		return "no manifest subscribes any more; kept for the retention time"
	case !s.target.runs:
		return "the service is not running"
	}
	return s.window.pause.reason
}
