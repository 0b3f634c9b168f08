package broker

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Redrive says which dead letters are delivered again, where, and how fast.
type Redrive struct {
	Subscription string   // whose dead letters: SERVICE/TOPIC or an API's id; required
	IDs          []string // of dead letters; nil: all that there are now
	// To is the one subscription that gets them: another one of the same topic, say. Empty: Subscription.
	To   string
	Rate float64 // per second, 0 or more; 0: as fast as they can be committed
}

// RedriveDeadLetters puts dead letters back into their topic, for one subscription alone, in the order of their first commit, so that
// the order per key is kept; and removes each once it is committed. It returns how many went when it is done, or when ctx ends. One that the hub's
// death interrupts loses none and redrives none twice: see [Broker.finishRedrives].
func (b *Broker) RedriveDeadLetters(ctx context.Context, r Redrive) (n int, err error) {
	if !(r.Rate >= 0) { // also what is no number
		return 0, invalid("rate", "a rate of %g is none: write how many a second, or 0 for as many as can be", r.Rate)
	}
	b.finishRedrives(ctx)
	to := r.To
	set(&to, r.Subscription)
	c, err := b.Subscription(ctx, to)
	if err != nil {
		return 0, err
	}
	ids := slices.Clone(r.IDs)
	if ids == nil {
		if err := b.knows(ctx, r.Subscription); err != nil {
			return 0, err
		}
		if ids, err = b.lettersOf(ctx, b.storedName(r.Subscription)); err != nil {
			return 0, err
		}
	}
	slices.SortFunc(ids, func(x, y string) int { return cmp.Compare(offsetOf(x), offsetOf(y)) })
	s, err := b.beginRedrive(c.Name)
	if err != nil {
		return 0, err
	}
	stopped := false
	defer func() { s.endRedrive(err == nil || stopped) }()
	start := time.Now()
	for i, id := range slices.Compact(ids) {
		if err = pace(ctx, start, i, r.Rate); err != nil {
			stopped = true
			return n, err
		}
		err = b.redrive(ctx, id, &c, s)
		if r.IDs == nil && isNotFound(err) {
			err = nil // it was dropped meanwhile
			continue
		}
		if err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// beginRedrive notes with the cursor of the subscription that gets them, durably, that dead letters are being redriven from here on.
func (b *Broker) beginRedrive(name string) (*subscription, error) {
	stored := b.storedName(name)
	b.mu.Lock()
	s := b.subs[stored]
	b.mu.Unlock()
	if s == nil {
		return nil, notFound("there is no subscription %s", name)
	}
	s.redriveFrom(s.topic.nextOffset(), 1)
	if err := b.saveCursors(); err != nil {
		s.endRedrive(true)
		return nil, unavailable("no dead letter is redriven: %v", err)
	}
	return s, nil
}

// nextOffset is the offset that the topic's next message gets.
func (t *topic) nextOffset() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.head
}

// redriveFrom says that what is redriven to the subscription from now on lies at an offset or later; begun is 1 where a run begins.
func (s *subscription) redriveFrom(offset uint64, begun int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := &s.window.cursor
	s.doubtful = s.doubtful || begun > 0 && s.redrives == 0 && c.redrive > 0
	s.redrives += begun
	if s.redrives == 1 && !s.doubtful {
		c.redrive, s.dirty = offset+1, true
		s.b.flush.poke()
	}
}

// endRedrive ends a run. Unless all of its dead letters are known to be there or to be redriven, it is yet to be found out.
func (s *subscription) endRedrive(known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.redrives--
	s.doubtful = s.doubtful || !known
	if s.redrives == 0 && !s.doubtful {
		s.window.cursor.redrive, s.dirty = 0, true
		s.b.flush.poke()
	}
}

// finishRedrives removes the dead letters that a redrive had committed when it was interrupted: the topic's log tells which they are.
func (b *Broker) finishRedrives(ctx context.Context) {
	for _, s := range b.subscriptions() {
		if err := b.finishRedrive(ctx, s); err != nil && ctx.Err() == nil {
			b.config.Log.Warn("which dead letters an interrupted redrive had redriven is not known yet", "subscription", s.name, "error", err)
		}
	}
}

func (b *Broker) finishRedrive(ctx context.Context, s *subscription) error {
	if _, broken := s.brokenRedrive(); !broken { // most never have one: an Install is not to wait for a redrive that waits for its commit
		return nil
	}
	b.letters.Lock()
	defer b.letters.Unlock()
	from, broken := s.brokenRedrive()
	if !broken {
		return nil
	}
	seq, err := b.seqOf(ctx, s.topic, from)
	if err != nil {
		return err
	}
	var failed error
	err = b.eachFrom(ctx, s.topic, from, seq, func(_ *batch, _ uint64, r *record) {
		if r.letter != "" && r.only == s.name && failed == nil {
			failed = b.dropIfThere(ctx, r.letter)
		}
	})
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.window.cursor.redrive, s.doubtful, s.dirty = 0, false, true
	b.flush.poke()
	return nil
}

// brokenRedrive reports whether a redrive to the subscription was interrupted, and the offset from which on that committed.
func (s *subscription) brokenRedrive() (from uint64, broken bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.window.cursor.redrive == 0 || s.redrives > 0 {
		return 0, false
	}
	return s.window.cursor.redrive - 1, true
}

// seqOf is a place in a topic's log from which on a message of that offset lies, if it is kept.
func (b *Broker) seqOf(ctx context.Context, t *topic, offset uint64) (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.loadLocked(ctx, b.engine.Load()); err != nil {
		return 0, unavailable("%v", err)
	}
	if offset >= t.head || t.aheadAtLocked(offset) != nil {
		return t.last.seq, nil
	}
	found, err := t.searchLocked(ctx, func(b *batch) bool { return b.end() > offset })
	if err != nil || found == nil {
		return t.last.seq, err
	}
	return found.seq, nil
}

func (b *Broker) dropIfThere(ctx context.Context, id string) error {
	d, err := b.DeadLetter(ctx, id)
	if err == nil {
		err = b.dropLetter(ctx, d)
	}
	if isNotFound(err) {
		return nil
	}
	return err
}

// longestPace is a year in nanoseconds: a rate may be so low that a duration cannot hold its pauses.
const longestPace = float64(365 * 24 * time.Hour)

// pace waits until the ith of a series of that rate is due, which began at start.
func pace(ctx context.Context, start time.Time, i int, rate float64) error {
	if i == 0 || rate <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(time.Until(start.Add(time.Duration(min(float64(i)/rate*float64(time.Second), longestPace))))):
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// redrive commits one dead letter again, for one subscription. Whoever asked may go meanwhile: what was begun is brought to its end.
func (b *Broker) redrive(ctx context.Context, id string, to *SubscriptionConfig, s *subscription) error {
	b.letters.Lock()
	defer b.letters.Unlock()
	d, err := b.DeadLetter(ctx, id)
	if err != nil {
		return err
	}
	if d.Topic != to.Topic {
		return precondition("dead letter %s is of topic %s, and subscription %s of topic %s", id, d.Topic, to.Name, to.Topic)
	}
	r, err := d.record()
	if err != nil {
		return err
	}
	r.past, r.letter = d.past(r), d.ID
	r.only, r.notBefore, r.link = s.name, time.Time{}, d.lastSpan()
	if r.origin == 0 {
		r.origin = d.Offset + 1
	}
	ctx = context.WithoutCancel(ctx)
	if _, err := b.commitRecords(ctx, d.Topic, []*record{r}); err != nil {
		return err
	}
	if err := b.dropLetter(ctx, d); err != nil {
		return err
	}
	s.redriveFrom(s.topic.nextOffset(), 0)
	return nil
}

// lettersOf returns the ids of a subscription's dead letters.
func (b *Broker) lettersOf(ctx context.Context, name string) (ids []string, err error) {
	e := b.engine.Load()
	prefix := deadPrefix + token(name) + "."
	info, err := e.dead.Info(ctx, jetstream.WithSubjectFilter(prefix+"*"))
	if err != nil {
		return nil, unavailable("dead letters cannot be read: %v", e.explain(err))
	}
	for subject := range info.State.Subjects {
		ids = append(ids, name+":"+strings.TrimPrefix(subject, prefix))
	}
	return ids, nil
}

// offsetOf is the offset in a dead letter's id.
func offsetOf(id string) uint64 {
	n, _ := strconv.ParseUint(id[strings.LastIndexByte(id, ':')+1:], 10, 64)
	return n
}
