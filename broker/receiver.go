package broker

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// ReceiverConfig says how one puller takes messages. Zero values mean the defaults that are named.
type ReceiverConfig struct {
	AckDeadline time.Duration // of what it is given: 10 to 600 s; the subscription's
	MaxMessages int           // most outstanding, so that a slow puller is not flooded; 0: any number
	MaxBytes    int           // most outstanding, of data; 0: any number
	// Unheard is how long after Close what the puller has said nothing of is still its own: it may be acknowledged otherwise, or never have
	// arrived. 0, as of exactly-once subscriptions in any case: the subscription's ack deadline.
	Unheard time.Duration
}

// Receiver is one puller of a subscription. Several share its messages; those of one ordering key go to one of
// them at a time. It holds nothing that must be given back: what it was given and does not acknowledge in time goes to others.
type Receiver struct {
	s        *subscription
	caller   string
	deadline time.Duration
	unheard  time.Duration
	wake     chan struct{}
	holder   holder // guarded by s.mu
	once     sync.Once
}

// NewReceiver opens a pull of a subscription, named as the API does, for caller. Close it.
func (b *Broker) NewReceiver(ctx context.Context, caller, subscription string, c ReceiverConfig) (*Receiver, error) {
	s, err := b.usable(ctx, caller, subscription)
	if err != nil {
		return nil, err
	}
	if err := between("stream_ack_deadline_seconds", c.AckDeadline, minAckDeadline, maxAckDeadline); err != nil {
		return nil, err
	}
	r := &Receiver{s: s, caller: caller, deadline: c.AckDeadline, unheard: c.Unheard, wake: make(chan struct{}, 1), holder: holder{limit: c.MaxMessages, bytes: c.MaxBytes}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.pullableLocked(); err != nil {
		return nil, err
	}
	s.receivers = append(s.receivers, r)
	return r, nil
}

// pullableLocked says why nobody can pull, or nil.
func (s *subscription) pullableLocked() error {
	if s.removed {
		return notFound("subscription %s is no more: it was deleted, or it expired", apiName(s.name))
	}
	if s.stopped {
		return unavailable("the broker is stopping; pull again once it is back")
	}
	if s.config.Push != nil && !s.config.Pull {
		return precondition("subscription %s pushes to %s: it cannot be pulled, too", apiName(s.name), s.config.Push.Endpoint)
	}
	return nil
}

// Receive waits until there are messages and returns some: at least 1 and at most max, of at most maxBytes of data unless the
// first one alone has more. 0 means any number. Where ctx ends first it returns ctx's error.
func (r *Receiver) Receive(ctx context.Context, max, maxBytes int) ([]Delivery, error) {
	for {
		grants, err := r.s.lend(r, max, maxBytes)
		if err != nil {
			return nil, err
		}
		if out := r.deliveries(grants); len(out) > 0 {
			return out, nil
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Update changes the ack deadline of what is given from now on; 0 means the subscription's.
func (r *Receiver) Update(deadline time.Duration) error {
	if err := between("stream_ack_deadline_seconds", deadline, minAckDeadline, maxAckDeadline); err != nil {
		return err
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.deadline = deadline
	return nil
}

// Close ends the pull. A Receive that waits returns an error.
func (r *Receiver) Close() {
	r.once.Do(func() {
		s := r.s
		s.mu.Lock()
		defer s.mu.Unlock()
		for i, o := range s.receivers {
			if o == r {
				s.receivers = append(s.receivers[:i], s.receivers[i+1:]...)
				break
			}
		}
		unheard := s.config.AckDeadline
		if r.unheard > 0 && !s.config.ExactlyOnce {
			unheard = min(unheard, r.unheard)
		}
		s.window.release(&r.holder, time.Now().Add(unheard))
		r.poke()
		s.pumpLocked()
	})
}

func (r *Receiver) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// grant is a lease as it was handed out: the lease itself may be over, and another's, a moment later.
type grant struct {
	lease                   *lease
	record                  *record // nil: it is to be read again
	offset, seq             uint64
	attempt, delivery, turn uint64
	before                  fleet.SpanID // of the attempt before
	told                    *told        // of a puller's
}

func (s *subscription) grantLocked(l *lease) grant {
	before := l.span
	if notes := s.window.cursor.notes[l.offset]; before == (fleet.SpanID{}) && len(notes) > 0 {
		before = notes[len(notes)-1].SpanID
	}
	return grant{l, l.record, l.offset, l.seq, l.attempt, l.delivery, s.window.cursor.turn, before, nil}
}

// id is the message's, in its topic.
func (g *grant) id() string { return strconv.FormatUint(g.offset, 10) }

// idOf is the id of a record that was granted: a redriven one keeps the id that it had.
func (g *grant) idOf(r *record) string {
	if r.origin > 0 {
		return strconv.FormatUint(r.origin-1, 10)
	}
	return g.id()
}

// lend takes what r may have now.
func (s *subscription) lend(r *Receiver, most, mostBytes int) ([]grant, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.pullableLocked(); err != nil {
		return nil, err
	}
	if r.holder.gone {
		return nil, precondition("the receiver is closed")
	}
	now := time.Now()
	deadline := r.deadline
	set(&deadline, s.config.AckDeadline)
	var out []grant
	for bytes := 0; (most == 0 || len(out) < most) && (mostBytes == 0 || bytes < mostBytes); {
		l := s.window.start(now, &r.holder)
		if l == nil {
			break
		}
		s.attempts++
		s.window.expireAt(l, now.Add(deadline))
		g := s.grantLocked(l)
		if l.record != nil {
			bytes += len(l.record.Data)
		}
		if s.window.held > windowBytes/2 {
			s.window.drop(l)
		}
		out = append(out, g)
	}
	if len(out) > 0 {
		s.usedLocked(now)
	}
	s.pumpLocked()
	return out, nil
}

// deliveries makes messages of grants. What cannot be read is left out, and ended.
func (r *Receiver) deliveries(grants []grant) []Delivery {
	s := r.s
	out := make([]Delivery, 0, len(grants))
	for i := range grants {
		g := &grants[i]
		rec, o := s.load(*g)
		if rec == nil {
			s.end(*g, o)
			continue
		}
		d := Delivery{
			Message: rec.message(g.idOf(rec)), Attempt: int(g.attempt),
			AckID: ackID{s.b.epoch, g.turn, g.offset, g.delivery}.String(),
		}
		g.told = s.tellLater(g, rec, r.caller, d.ID)
		d.Traceparent = g.told.span.traceparent()
		out = append(out, d)
	}
	s.remember(grants)
	return out
}

// ackID names one delivery: it holds all that is needed to find its lease, and nothing is kept for it.
type ackID struct {
	epoch    uint64 // of the broker's process
	turn     uint64 // of the subscription: begins anywhere, and counts seeks
	offset   uint64
	delivery uint64
}

func (a ackID) String() string {
	out := make([]byte, 0, 64)
	out = append(strconv.AppendUint(out, a.epoch, 16), '-')
	out = append(strconv.AppendUint(out, a.turn, 16), '.')
	out = append(strconv.AppendUint(out, a.offset, 10), '.')
	return string(strconv.AppendUint(out, a.delivery, 10))
}

// parseAckID reads what String wrote.
func parseAckID(s string) (a ackID, ok bool) {
	epoch, rest, _ := strings.Cut(s, "-")
	turn, rest, _ := strings.Cut(rest, ".")
	offset, delivery, _ := strings.Cut(rest, ".")
	var errs [4]error
	a.epoch, errs[0] = strconv.ParseUint(epoch, 16, 64)
	a.turn, errs[1] = strconv.ParseUint(turn, 16, 64)
	a.offset, errs[2] = strconv.ParseUint(offset, 10, 64)
	a.delivery, errs[3] = strconv.ParseUint(delivery, 10, 64)
	return a, errs == [4]error{}
}

// Ack acknowledges deliveries of a subscription and returns one result per id: nil, [ErrAckID], [ErrAckUnordered] or [ErrAckLater]. Late
// acknowledgements count. Of an exactly-once subscription they do not, and it returns once the acknowledgements survive a power cut.
func (b *Broker) Ack(ctx context.Context, caller, subscription string, ids []string) ([]error, error) {
	s, err := b.usable(ctx, caller, subscription)
	if err != nil {
		return nil, err
	}
	results := make([]error, len(ids))
	s.mu.Lock()
	now := time.Now()
	for i, id := range ids {
		results[i] = s.ackLocked(id, now)
	}
	s.usedLocked(now)
	exactly := s.config.ExactlyOnce
	s.pumpLocked()
	s.mu.Unlock()
	if exactly && b.saveCursors() != nil {
		s.ackLater(ids, results)
	}
	return results, nil
}

// ackLater answers acknowledgements that count and could not be saved. They will be sent again, when no lease tells of them any more.
func (s *subscription) ackLater(ids []string, results []error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unanswered == nil || len(s.unanswered) > pullLeases {
		s.unanswered = make(map[string]bool)
	}
	for i, id := range ids {
		if results[i] == nil {
			s.unanswered[id], results[i] = true, ErrAckLater
		}
	}
}

func (s *subscription) ackLocked(id string, now time.Time) error {
	if s.unanswered[id] {
		return nil
	}
	a, ok := parseAckID(id)
	if !ok {
		return ErrAckID
	}
	l, here := s.window.leases[a.offset], a.epoch == s.b.epoch
	changed, err := s.window.ack(a, here, now)
	if here && err == nil && l != nil && l.delivery == a.delivery {
		s.tellAckLocked(l, changed, now)
	}
	if changed {
		s.delivered++
		if l != nil {
			s.b.config.Acknowledged(s.name, now.Sub(l.at))
		}
		s.dirty = true
		s.b.flush.poke()
	}
	return err
}

// ModifyDeadline gives deliveries of a subscription until d from now, 0 to 600 s; 0 gives them back, as failed. It returns one
// result per id, as Ack does.
func (b *Broker) ModifyDeadline(ctx context.Context, caller, subscription string, ids []string, d time.Duration) ([]error, error) {
	s, err := b.usable(ctx, caller, subscription)
	if err != nil {
		return nil, err
	}
	if err := between("ack_deadline_seconds", d, 0, maxAckDeadline); err != nil {
		return nil, err
	}
	results := make([]error, len(ids))
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for i, id := range ids {
		results[i] = s.modifyLocked(id, d, now)
	}
	s.usedLocked(now)
	s.pumpLocked()
	return results, nil
}

// GiveBack ends deliveries that r was given and nobody saw. They are due again at once, under the same number: no attempt is counted.
func (r *Receiver) GiveBack(given []Delivery) {
	s := r.s
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, d := range slices.Backward(given) { // the last of an ordering key first: none is taken back by another
		a, ok := parseAckID(d.AckID)
		if l := s.window.current(a, a.epoch == s.b.epoch); ok && l != nil {
			s.endLocked(l, outcome{fate: cut}, now)
		}
	}
	s.pumpLocked()
}

func (s *subscription) modifyLocked(id string, d time.Duration, now time.Time) error {
	a, ok := parseAckID(id)
	if !ok {
		return ErrAckID
	}
	l := s.window.current(a, a.epoch == s.b.epoch)
	if l == nil {
		if s.config.ExactlyOnce {
			return ErrAckID
		}
		return nil
	}
	if d > 0 {
		l.sure = true
		if l.told != nil {
			l.told.extended++
		}
		s.window.expireAt(l, now.Add(d))
		return nil
	}
	s.failLocked(l, outcome{fate: failed, reason: string(fleet.ReasonNacked), text: "negatively acknowledged"}, now)
	return nil
}

// expireLocked ends the leases of pullers whose deadline passed.
func (s *subscription) expireLocked(now time.Time) {
	for l := s.window.expire(now); l != nil; l = s.window.expire(now) {
		s.expired++
		s.failLocked(l, outcome{fate: failed, reason: string(fleet.ReasonTimeout), text: "not acknowledged within its ack deadline"}, now)
	}
}

// failLocked ends a puller's lease as failed, or buries its message.
func (s *subscription) failLocked(l *lease, o outcome, now time.Time) {
	s.tellLocked(l, &o, now)
	if s.window.spent(l) {
		g := s.grantLocked(l)
		s.window.leave(l)
		s.b.work.Go(func() { s.bury(g, o) })
		s.tellVoidedLocked(now)
		return
	}
	s.endLocked(l, o, now)
}
