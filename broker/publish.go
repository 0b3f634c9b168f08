package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// Publish publishes one event for caller, a service or [fleet.Operator], and returns its id once it is
// durable. What it fails with is an [*Error]. Where ctx ends first the event may yet be accepted.
func (b *Broker) Publish(ctx context.Context, caller string, e Event) (id string, err error) {
	a, err := b.PublishEvents(ctx, caller, e.Topic, []Event{e})
	if err != nil {
		return "", err
	}
	return a.IDs[0], nil
}

// PublishEvents publishes events to one topic as [Broker.Publish] does, all or none.
func (b *Broker) PublishEvents(ctx context.Context, caller, topicName string, events []Event) (Accepted, error) {
	ids, scheduled, err := b.publish(ctx, caller, topicName, events)
	if err != nil {
		return Accepted{}, err
	}
	return Accepted{IDs: ids, Scheduled: scheduled, Warning: strings.TrimSpace(b.policy.Load().unknown(topicName))}, nil
}

// publish is an event's walk up to its acknowledgement: complete and check the events, check the permission, commit.
func (b *Broker) publish(ctx context.Context, caller, topicName string, events []Event) (ids, scheduled []string, err error) {
	start := time.Now()
	learned, err := b.mayPublish(caller, topicName)
	c, _ := b.topicConfig(topicName)
	schema := c.Schema
	records := make([]*record, 0, len(events))
	ids = make([]string, 0, len(events)) // no events are a list, too
	for i := range events {
		e := &events[i]
		given := e.ID != ""
		e.Topic = topicName
		e.complete(caller, start)
		s := e.publishSpan(b.config.Sampler)
		records = append(records, &record{Event: *e, caller: caller, span: s, key: e.OrderingKey, notBefore: e.NotBefore, given: given})
		ids = append(ids, e.ID)
		if err == nil {
			err = b.checkEvent(e, i, len(events))
		}
		if err == nil {
			records[i].schema, err = b.checkSchema(schema, e.Data, nil)
		}
	}
	if err == nil {
		scheduled, err = b.commitOrSchedule(ctx, topicName, records)
	}
	b.observePublish(start, records, ids, learned, err)
	if len(scheduled) > 0 && !strings.HasPrefix(scheduled[0], scheduledPrefix) {
		scheduled = nil // they are offsets
	}
	return ids, scheduled, err
}

// mayPublish says why caller may not publish to a topic, or nil; and what learning let pass.
func (b *Broker) mayPublish(caller, topicName string) (*fleet.Learned, error) {
	b.mu.Lock()
	c := b.catalog.topics[topicName]
	own := c != nil && c.Owner == caller
	b.mu.Unlock()
	if own {
		return nil, nil
	}
	return b.policy.Load().mayPublish(caller, topicName)
}

// PublishMessages publishes messages to one topic for caller, a service or [fleet.Operator], all or none, and returns their ids,
// in order, once they are durable. Where one has a NotBefore that is yet to come, all wait in the schedule, each for its own time, and the ids
// are those that [Broker.CancelScheduled] takes. What it fails with is an [*Error]. Where ctx ends first they may yet be accepted. It keeps the
// messages' data and attributes: they must not be changed afterwards.
func (b *Broker) PublishMessages(ctx context.Context, caller, topicName string, messages []Message) (ids []string, err error) {
	start := time.Now()
	learned, err := b.mayPublish(caller, topicName)
	topic, known := b.topicConfig(topicName)
	if err == nil && !known && learned == nil { // what is learned will be there once it is declared
		_, err = b.Topic(ctx, topicName)
	}
	records := make([]*record, 0, len(messages))
	for i := range messages {
		m := &messages[i]
		if err == nil {
			err = asError(b.checkMessage(m).of(i, len(messages)))
		}
		if err == nil {
			m.Attributes, err = b.checkSchema(topic.Schema, m.Data, m.Attributes)
		}
		records = append(records, b.newRecord(caller, topicName, m))
	}
	if err == nil {
		ids, err = b.commitOrSchedule(ctx, topicName, records)
	}
	b.observePublish(start, records, ids, learned, err)
	if err != nil {
		return nil, err
	}
	return ids, nil
}

// of says which of several messages e is about. e may be nil.
func (e *Error) of(i, messages int) *Error {
	if e != nil && messages > 1 {
		e.Text = fmt.Sprintf("message %d: %s", i, e.Text)
	}
	return e
}

func asError(e *Error) error {
	if e == nil {
		return nil
	}
	return e
}

// newRecord makes a record of a message that is no CloudEvent.
func (b *Broker) newRecord(caller, topicName string, m *Message) *record {
	r := &record{plain: true, caller: caller, key: m.OrderingKey, notBefore: m.NotBefore, Event: Event{
		Topic: topicName, Data: m.Data, Attributes: m.Attributes, RequestID: m.RequestID, Traceparent: m.Traceparent, Tracestate: m.Tracestate,
	}}
	if r.RequestID == "" {
		r.RequestID = newID()
	}
	r.span = r.messageSpan(b.config.Sampler)
	return r
}

func (b *Broker) checkEvent(e *Event, i, of int) error {
	err := e.check()
	status, reason := http.StatusBadRequest, fleet.ReasonMalformedEvent
	if len(e.Data) > b.config.MaxEvent {
		err = fmt.Errorf("its data has %d bytes; at most %d are allowed: store it elsewhere and publish where it lies", len(e.Data), b.config.MaxEvent)
		status, reason = http.StatusRequestEntityTooLarge, fleet.ReasonTooLarge
	}
	if err == nil {
		return nil
	}
	if of > 1 {
		err = fmt.Errorf("event %d of the batch: %w", i, err)
	}
	return &Error{Status: status, Reason: reason, Text: fmt.Sprintf("not accepted: %v", err)}
}

// commitOrSchedule commits records now, or all to the schedule where one of them is for later. It returns their ids.
func (b *Broker) commitOrSchedule(ctx context.Context, topicName string, records []*record) (ids []string, err error) {
	now, later := time.Now(), false
	for _, r := range records {
		if err := checkSchedule(r.notBefore, now); err != nil {
			return nil, err
		}
		later = later || r.notBefore.After(now)
	}
	if later {
		return b.schedule(ctx, topicName, records)
	}
	base, err := b.commitRecords(ctx, topicName, records)
	ids = make([]string, 0, len(records))
	for i := range records {
		ids = append(ids, strconv.FormatUint(base+uint64(i), 10))
	}
	return ids, err
}

// applyTopic gives records what their topic says of all its messages.
func (b *Broker) applyTopic(name string, records []*record) {
	c, _ := b.topicConfig(name)
	where, err := fleet.ParseOrdering(c.Ordering)
	if c.Ordering == "" || err != nil {
		return
	}
	for _, r := range records {
		if r.key == "" {
			r.key = keyOf(where, r)
		}
		if len(r.key) > longestKey {
			r.key = r.key[:longestKey]
		}
	}
}

// commitRecords commits records together, and returns the offset of the first.
func (b *Broker) commitRecords(ctx context.Context, topicName string, records []*record) (base uint64, err error) {
	if len(records) == 0 {
		return 0, nil
	}
	b.applyTopic(topicName, records)
	p := newPublish(b.topic(topicName), records)
	if err := b.put(p); err != nil {
		return 0, b.notPlaced(p.topic, err)
	}
	if err := p.wait(ctx); err != nil {
		return 0, err
	}
	return p.base, nil
}

// observePublish tells of each record, under its id.
func (b *Broker) observePublish(start time.Time, records []*record, ids []string, learned *fleet.Learned, err error) {
	if len(records) == 0 {
		return
	}
	refused := refusedWith(err)
	took, o, path := time.Since(start), new(fleet.Observation), "/"+records[0].Topic // one topic's, all of them
	for i, r := range records {
		id := r.ID
		if i < len(ids) {
			id = ids[i]
		}
		*o = fleet.Observation{
			Kind: fleet.KindPublish, RequestID: r.RequestID, Time: start, Duration: took,
			Caller: r.caller, Callee: fleet.Events, Protocol: fleet.HTTP, Method: http.MethodPost, Path: path,
			Topic: r.Topic, Event: id, Status: http.StatusAccepted, BytesIn: int64(len(r.Data)), Learned: learned, Detail: "event " + id,
		}
		r.span.note(o)
		if refused != nil {
			o.Status, o.Reason, o.Detail = refused.Status, string(refused.Reason), refused.Text
		}
		b.config.Observe(o)
	}
}

// refusedWith is the refusal in err, or nil.
func refusedWith(err error) *Error {
	if err == nil {
		return nil // as a rule
	}
	var refused *Error
	errors.As(err, &refused)
	return refused
}

// checkSchema says why data may not be published, or returns the attributes with those that tell how to read it.
func (b *Broker) checkSchema(s *TopicSchema, data []byte, attributes map[string]string) (map[string]string, error) {
	if s == nil {
		return attributes, nil
	}
	if b.config.Check == nil {
		return nil, precondition("the topic has schema %s, and schemas are not checked here", s.Name)
	}
	added, err := b.config.Check(s, data)
	if err != nil {
		return nil, err
	}
	out := maps.Clone(attributes)
	if out == nil {
		return added, nil
	}
	maps.Copy(out, added)
	return out, nil
}
