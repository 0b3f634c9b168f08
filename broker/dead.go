package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// DeadLetter is an event that a subscription gave up, with why. It is kept until it is dropped.
type DeadLetter struct {
	Subscription string    `json:"subscription"` // SERVICE/TOPIC
	Topic        string    `json:"topic"`
	Offset       uint64    `json:"offset"`
	Time         time.Time `json:"time"`
	Attempts     uint64    `json:"attempts"` // that ended, those before a restart of the hub included
	// Failures are the attempts since the hub's last start, oldest first.
	Failures []Failure `json:"failures"`
	Caller   string    `json:"caller"` // who published it
	Event    Event     `json:"event"`
}

// bury makes a lease a dead letter, durably. Its subject is the event's own, so that a crash before the
// cursor is saved makes no second one. Where that fails the event stays, and is delivered again.
func (b *Broker) bury(s *subscription, l *lease, o outcome) outcome {
	now := time.Now().UTC()
	letter := DeadLetter{
		Subscription: s.name, Topic: s.topic.name, Offset: l.offset, Time: now, Attempts: l.attempt,
		Failures: append(append([]Failure(nil), l.notes...), Failure{l.attempt, now, o.text}),
		Caller:   l.record.caller, Event: l.record.Event,
	}
	data, err := json.Marshal(letter)
	if err == nil {
		_, err = b.engine.Load().store([]message{{deadPrefix + token(s.name) + "." + strconv.FormatUint(l.offset, 10), data}})
	}
	if err != nil {
		return outcome{fate: unread, text: fmt.Sprintf("the event is to become a dead letter, and that cannot be written: %v", err)}
	}
	b.config.Log.Warn("event dead-lettered", "subscription", s.name, "event", l.record.ID, "attempts", l.attempt, "error", o.text)
	o.fate = buried
	return o
}

// DeadLetters returns dead letters of a subscription (SERVICE/TOPIC), or of all where it is empty: the
// oldest n.
func (b *Broker) DeadLetters(ctx context.Context, subscription string, n int) ([]DeadLetter, error) {
	filter := deadPrefix + ">"
	if subscription != "" {
		filter = deadPrefix + token(subscription) + ".*"
	}
	e := b.engine.Load()
	var out []DeadLetter
	for seq := uint64(1); len(out) < n; {
		m, err := e.dead.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(filter))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading dead letters: %w", e.explain(err))
		}
		var d DeadLetter
		if err := json.Unmarshal(m.Data, &d); err != nil {
			return nil, fmt.Errorf("reading dead letter %d: %w", m.Sequence, err)
		}
		out = append(out, d)
		seq = m.Sequence + 1
	}
	return out, nil
}
