package broker

import (
	"context"
	"strconv"

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
	id := strconv.FormatUint(offset, 10)
	m := r.message(id)
	out := fleet.MessageStory{Message: m.Shown(topicName), Bytes: len(r.Data), Group: got.groupOf(offset)}
	out.Message.Data = nil
	for _, s := range b.subscriptions() {
		if s.topic == t && (r.only == "" || r.only == s.name) {
			out.Subscriptions = append(out.Subscriptions, b.fate(ctx, s, offset))
		}
	}
	return out, nil
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
func (b *Broker) fate(ctx context.Context, s *subscription, offset uint64) fleet.MessageFate {
	f := s.fate(offset)
	letter, err := b.DeadLetter(ctx, letterID(s.name, offset))
	if f.State == fleet.FateSettled && err == nil {
		f.State, f.Attempt = fleet.FateDead, letter.Attempts
		f.Failures = shownFailures(letter.Failures)
	}
	return f
}

func (s *subscription) fate(offset uint64) fleet.MessageFate {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.window
	out := fleet.MessageFate{Subscription: s.name, State: fleet.FateQueued, Failures: shownFailures(w.notes(offset))}
	if l := w.leases[offset]; l != nil {
		out.State, out.Attempt = fleet.FateFlying, l.attempt
		if l.state == waiting {
			out.State, out.Due = fleet.FateWaiting, l.when
		}
		return out
	}
	if offset < w.cursor.floor || w.cursor.isSettled(offset) {
		out.State = fleet.FateSettled
	}
	return out
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
	out := fleet.DeadLetter{ID: d.ID, Subscription: d.Subscription, Time: d.Time, Attempts: d.Attempts,
		Failures: shownFailures(d.Failures), TraceID: d.TraceID, Message: d.Message.Shown(d.Topic)}
	out.Message.Publisher = d.Caller
	return out
}
