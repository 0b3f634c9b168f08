package broker

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// Story says what became of one message of a topic: who published it, with which group it was committed, and where each
// subscription stands with it. A message that retention removed has none.
func (b *Broker) Story(ctx context.Context, topicName string, offset uint64) (fleet.MessageStory, error) {
	if _, err := b.Topic(ctx, topicName); err != nil {
		return fleet.MessageStory{}, err
	}
	t := b.topic(topicName)
	got, err := b.batchOf(ctx, t, offset)
	if err != nil {
		return fleet.MessageStory{}, err
	}
	r := got.records[offset-got.base]
	if r.origin > 0 {
		if first, err := b.Story(ctx, topicName, r.origin-1); err == nil { // a redriven message is a part of the first one's story
			return first, nil
		}
	}
	out := b.storyOf(got, r, offset)
	out.Scheduled, out.Group.Took = r.published, b.took(t.durability(), r.time)
	for _, s := range b.subscriptions() {
		if s.topic == t && (r.only == "" || r.only == s.name) {
			out.Subscriptions = append(out.Subscriptions, b.fate(ctx, s, got, offset))
		}
	}
	b.follow(ctx, &out, t, got, offset)
	return out, nil
}

// storyOf begins the story of a record.
func (b *Broker) storyOf(in *batch, r *record, offset uint64) fleet.MessageStory {
	m := r.message(strconv.FormatUint(offset, 10))
	out := fleet.MessageStory{Message: m.Shown(r.Topic), Bytes: len(r.Data), Group: in.groupOf(offset)}
	out.Message.Data = nil
	return out
}

// followTime bounds how long the log is read for what a message was committed again as.
const followTime = 500 * time.Millisecond

// follow finds what a message was committed again as: redriven, or in a dead-letter topic. Copies have their publish's span in common.
func (b *Broker) follow(ctx context.Context, out *fleet.MessageStory, t *topic, in *batch, offset uint64) {
	r := in.records[offset-in.base]
	ctx, cancel := context.WithTimeout(ctx, followTime)
	defer cancel()
	wanted := map[*topic]bool{t: true}
	for _, s := range b.subscriptions() {
		s.mu.Lock()
		if p := s.config.DeadLetter; s.topic == t && p != nil && p.Topic != "" {
			wanted[b.topic(p.Topic)] = true
		}
		s.mu.Unlock()
	}
	t.mu.Lock()
	ended := t.last.seq // where the log of what is ahead of it goes on
	t.mu.Unlock()
	if in.seq > 0 {
		ended = in.seq
	}
	var redriven []*record
	for of := range wanted {
		from, seq := offset+1, ended
		var err error
		if of != t {
			from, seq, err = b.offsetAt(ctx, of, r.time)
		}
		if err == nil {
			err = b.eachFrom(ctx, of, from, seq, func(in *batch, offset uint64, c *record) {
				if c.Traceparent == r.Traceparent && c.RequestID == r.RequestID {
					out.Copies = append(out.Copies, b.copied(ctx, of, in, offset, c))
					redriven = append(redriven, c)
				}
			})
		}
		out.Partial = out.Partial || err != nil
	}
	slices.SortFunc(out.Copies, func(x, y fleet.MessageCopy) int { return x.Time.Compare(y.Time) })
	for _, c := range redriven {
		c.tellPast(out)
	}
}

// tellPast gives a story the failures that a redriven record knows of the life that ended with its redrive.
func (r *record) tellPast(out *fleet.MessageStory) {
	if r.past == nil {
		return
	}
	failures := shownFailures(ofLife(r.past.failures, r.past.redriven-1))
	for i := range out.Subscriptions {
		if f := &out.Subscriptions[i]; r.letter == f.Subscription+":"+out.Message.ID {
			f.Failures = failures
		}
	}
	for i := range out.Copies {
		if c := &out.Copies[i]; c.Fate != nil && r.letter == c.Fate.Subscription+":"+c.ID {
			c.Fate.Failures = failures
		}
	}
}

// copied tells of a message that was committed again.
func (b *Broker) copied(ctx context.Context, t *topic, in *batch, offset uint64, r *record) fleet.MessageCopy {
	c := fleet.MessageCopy{Topic: t.name, ID: strconv.FormatUint(offset, 10), Time: r.time}
	if r.only == "" {
		c.From = r.Attributes[deadLetterPrefix+"SourceSubscription"]
		return c
	}
	b.mu.Lock()
	s := b.subs[r.only]
	b.mu.Unlock()
	if s != nil {
		f := b.fate(ctx, s, in, offset)
		c.Fate = &f
	}
	return c
}

// eachFrom calls each with the records of a topic from an offset on, which lies at a sequence of its log or later.
func (b *Broker) eachFrom(ctx context.Context, t *topic, from, seq uint64, each func(in *batch, offset uint64, r *record)) error {
	for {
		in, err := b.read(t, seq, from)
		if err != nil || in == nil {
			return err
		}
		for i, r := range in.records {
			if offset := in.base + uint64(i); offset >= from {
				each(in, offset, r)
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		from, seq = in.end(), in.seq+1
	}
}

// batchOf returns the batch that holds an offset, with its records.
func (b *Broker) batchOf(ctx context.Context, t *topic, offset uint64) (*batch, error) {
	e := b.engine.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.loadLocked(ctx, e); err != nil {
		return nil, unavailable("%v", err)
	}
	if offset >= t.head {
		return nil, notFound("topic %s has no message %d yet: the next one is %d", t.name, offset, t.head)
	}
	if a := t.aheadAtLocked(offset); a != nil {
		return decodeBatch(t.name, a.data, true)
	}
	found, err := t.searchLocked(ctx, func(b *batch) bool { return b.end() > offset })
	if err == nil && found != nil {
		found, err = t.lane.batchFrom(ctx, t, found.seq, true)
	}
	if err != nil {
		return nil, unavailable("topic %s cannot be read: %v", t.name, err)
	}
	if found == nil || offset < found.base || offset-found.base >= uint64(len(found.records)) {
		return nil, notFound("message %d of topic %s is no longer kept: retention removed it", offset, t.name)
	}
	return found, nil
}

// groupOf is the commit group of a message. Where several were merged, the records of one have one time.
func (b *batch) groupOf(offset uint64) fleet.CommitGroup {
	first := offset - b.base
	at := b.records[first].time
	last := first
	for first > 0 && b.records[first-1].time.Equal(at) {
		first--
	}
	for last+1 < uint64(len(b.records)) && b.records[last+1].time.Equal(at) {
		last++
	}
	return fleet.CommitGroup{First: strconv.FormatUint(b.base+first, 10), Count: int(last - first + 1), Sequence: b.seq, Time: at}
}

// fate says where a subscription stands with a message.
func (b *Broker) fate(ctx context.Context, s *subscription, in *batch, offset uint64) fleet.MessageFate {
	f := s.fate(offset)
	letter, err := b.DeadLetter(ctx, letterID(s.name, offset))
	if f.State == fleet.FateSettled && err == nil {
		f.State, f.Attempt = fleet.FateDead, letter.Attempts
		f.Failures = shownFailures(ofLife(letter.Failures, letter.Redriven))
	}
	if f.State == fleet.FateSettled && !s.wants(in, offset) {
		f.State = fleet.FateFiltered
	}
	return f
}

// wants reports whether a subscription's filter lets a record pass.
func (s *subscription) wants(in *batch, offset uint64) bool {
	s.mu.Lock()
	match := s.window.limits.filter
	s.mu.Unlock()
	return match == nil || match(in).has(int(offset-in.base))
}

func (s *subscription) fate(offset uint64) fleet.MessageFate {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.window
	out := fleet.MessageFate{Subscription: s.name, State: fleet.FateQueued, Failures: shownFailures(w.notes(offset))}
	if offset < w.cursor.floor || w.cursor.isSettled(offset) {
		out.State = fleet.FateSettled
		return out
	}
	out.Paused = s.pausedLocked()
	l := w.leases[offset]
	if l == nil {
		return out
	}
	out.State, out.Attempt = fleet.FateFlying, l.attempt
	if l.state == waiting {
		out.State, out.Attempt, out.Due = fleet.FateWaiting, w.cursor.attempts[offset]+1, l.when
	}
	return out
}

// ofLife are the failures between two redrives.
func ofLife(all []Failure, life uint64) []Failure {
	return slices.DeleteFunc(slices.Clone(all), func(f Failure) bool { return f.Life != life })
}

func shownFailures(all []Failure) []fleet.DeliveryFailed {
	out := make([]fleet.DeliveryFailed, 0, len(all))
	for _, f := range all {
		out = append(out, fleet.DeliveryFailed(f))
	}
	return out
}

// Shown is a message as operators see it.
func (m *Message) Shown(topicName string) fleet.Message {
	return fleet.Message{
		Topic: topicName, ID: m.ID, Published: m.PublishTime, Publisher: m.Publisher, Key: m.OrderingKey,
		Attributes: m.Attributes, Data: m.Data, RequestID: m.RequestID, Traceparent: m.Traceparent, NotBefore: m.NotBefore,
	}
}

// Shown is a dead letter as operators see it.
func (d *DeadLetter) Shown() fleet.DeadLetter {
	out := fleet.DeadLetter{ID: d.ID, Subscription: d.Subscription, Time: d.Time, Attempts: d.Attempts, Redriven: d.Redriven, Earlier: d.Earlier,
		Failures: shownFailures(d.Failures), TraceID: d.TraceID, Message: d.Message.Shown(d.Topic)}
	out.Message.Publisher = d.Caller
	return out
}
