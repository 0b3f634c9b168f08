package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
)

// DeadLetter is a message that a subscription gave up, with why. It is kept until it is redriven or dropped.
type DeadLetter struct {
	ID           string    `json:"id"`           // SUBSCRIPTION:OFFSET
	Subscription string    `json:"subscription"` // SERVICE/TOPIC, or an API's id
	Topic        string    `json:"topic"`
	Offset       uint64    `json:"offset"`
	Time         time.Time `json:"time"`
	Attempts     uint64    `json:"attempts"` // that ended, since it was published or redriven last
	Failures     []Failure `json:"failures"` // oldest first, of all its lives; where there were very many some are only counted
	Redriven     uint64    `json:"redriven,omitempty"`
	Earlier      uint64    `json:"earlier_attempts,omitempty"` // before it was redriven last
	Caller       string    `json:"caller"`                     // who published it
	TraceID      string    `json:"trace_id,omitempty"`
	Event        Event     `json:"event"`            // as a CloudEvent
	Message      Message   `json:"-"`                // as a message of the Pub/Sub API
	Plain        bool      `json:"plain,omitempty"`  // it was published as a message, and Event is how it is pushed as an event
	Record       []byte    `json:"record,omitempty"` // as stored: attributes may hold any byte, which JSON cannot
}

func newLetter(s *subscription, g grant, r *record, failures []Failure, now time.Time) *DeadLetter {
	d := &DeadLetter{Subscription: s.name, Topic: s.topic.name, Offset: g.offset, Time: now, Attempts: g.attempt,
		Failures: failures, Caller: r.caller}
	d.remember(r.past)
	kept := *r
	if r.past != nil {
		kept.past = &past{published: r.past.published} // the rest is the letter's
	}
	d.Record = dated(kept.encode(), r.time)
	return d
}

// read fills in what is not stored.
func (d *DeadLetter) read() error {
	d.ID = letterID(d.Subscription, d.Offset)
	r, err := d.record()
	if err == nil {
		d.show(r)
	}
	return err
}

// show tells of a record in both forms.
func (d *DeadLetter) show(r *record) {
	id := strconv.FormatUint(d.Offset, 10)
	d.Plain, d.Event, d.Message = r.plain, *r.event(id), r.message(id)
	d.Event.OrderingKey = r.key
	if t, ok := observe.ParseTraceparent(r.Traceparent); ok {
		d.TraceID = t.ID.String()
	}
}

// lastSpan is that of the delivery after which it was given up; zero where that is not known.
func (d *DeadLetter) lastSpan() (id fleet.SpanID) {
	if n := len(d.Failures); n > 0 {
		id = d.Failures[n-1].SpanID
	}
	return id
}

func letterID(subscription string, offset uint64) string {
	return subscription + ":" + strconv.FormatUint(offset, 10)
}

// letterSubject reads a dead letter's id.
func letterSubject(id string) (subject string, err error) {
	at := strings.LastIndexByte(id, ':')
	if at > 0 {
		if _, err := strconv.ParseUint(id[at+1:], 10, 64); err == nil {
			return deadPrefix + token(id[:at]) + "." + id[at+1:], nil
		}
	}
	return "", invalid("id", "%q names no dead letter: write SUBSCRIPTION:OFFSET, as the list does", id)
}

// bury makes a leaving lease a dead letter: forwarded by its policy, and kept for the operator, unless the policy came by the API:
// then the topic is where it lies. Where that fails the message stays, and is delivered again.
func (s *subscription) bury(g grant, o outcome) {
	r, loaded := s.load(g)
	if r == nil {
		s.buried(g, loaded)
		return
	}
	now := time.Now().UTC()
	s.mu.Lock()
	policy, declared := s.config.DeadLetter, s.config.Declared != ""
	failures := append(s.window.notes(g.offset), Failure{Attempt: g.attempt, Time: now, Error: o.text, SpanID: o.span})
	s.mu.Unlock()
	var err error
	forwarded := policy != nil && policy.Topic != "" && s.b.has(policy.Topic)
	if forwarded {
		err = s.b.forward(s, g, r, policy.Topic, o.span)
	}
	if err == nil && (!forwarded || declared) {
		err = s.b.keepLetter(newLetter(s, g, r, failures, now))
	}
	if err != nil {
		s.buried(g, outcome{fate: unread, text: fmt.Sprintf("the message is to become a dead letter, and that cannot be written: %v", err)})
		return
	}
	s.b.config.Log.Warn("message dead-lettered", "subscription", s.name, "message", g.id(), "attempts", g.attempt, "error", o.text)
	o.fate = buried
	s.buried(g, o)
}

// buried ends a leaving lease.
func (s *subscription) buried(g grant, o outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.window.leases[g.offset] != g.lease || g.lease.state != leaving {
		return // a seek came between
	}
	s.endLocked(g.lease, o, time.Now())
	s.pumpLocked()
}

// keepLetter stores a dead letter. Its subject is the message's own, so that a crash before the cursor is saved makes no second one.
func (b *Broker) keepLetter(d *DeadLetter) error {
	stored := *d
	stored.Event, stored.Plain = Event{}, false
	data, err := json.Marshal(stored)
	if err != nil {
		return err
	}
	subject, err := letterSubject(letterID(d.Subscription, d.Offset))
	if err != nil {
		return err
	}
	b.writing.RLock()
	defer b.writing.RUnlock()
	_, err = b.engine.Load().store([]message{{subject: subject, data: data}})
	return err
}

func (b *Broker) has(topicName string) bool {
	_, ok := b.topicConfig(topicName)
	return ok
}

// deadLetterPrefix begins the attributes that a dead-letter topic's messages have besides their own.
const deadLetterPrefix = "CloudPubSubDeadLetter"

// forward publishes a dead letter to its policy's topic, with the attributes that Pub/Sub documents
// (https://cloud.google.com/pubsub/docs/handling-failures#how_dead_letter_topics_work).
func (b *Broker) forward(s *subscription, g grant, r *record, topicName string, last fleet.SpanID) error {
	dead := *r
	dead.plain, dead.notBefore, dead.only, dead.origin, dead.link = true, time.Time{}, "", 0, last
	dead.letter, dead.past = "", nil
	dead.Attributes = maps.Clone(r.attributes())
	if dead.Attributes == nil {
		dead.Attributes = make(map[string]string)
	}
	for name, value := range map[string]string{
		"SourceDeliveryCount":       strconv.FormatUint(g.attempt, 10),
		"SourceSubscription":        apiName(s.name),
		"SourceSubscriptionProject": b.policy.Load().fleet,
		"SourceTopicPublishTime":    r.firstTime().UTC().Format(time.RFC3339Nano),
	} {
		dead.Attributes[deadLetterPrefix+name] = value
	}
	dead.Event = Event{Topic: topicName, Data: r.Data, Attributes: dead.Attributes, RequestID: r.RequestID, Traceparent: r.Traceparent, Tracestate: r.Tracestate}
	_, err := b.commitRecords(b.delivering, topicName, []*record{&dead})
	return err
}

// DeadLetterQuery asks for dead letters.
type DeadLetterQuery struct {
	Subscription string // SERVICE/TOPIC or an API's id; empty: all
	After        string // where the page before ended; empty: from the oldest
	Max          int    // of one page; 0: 100
}

// DeadLetters returns a page of dead letters, oldest first, and where the next begins; empty after the last.
func (b *Broker) DeadLetters(ctx context.Context, q DeadLetterQuery) (page []DeadLetter, next string, err error) {
	b.finishRedrives(ctx)
	set(&q.Max, 100)
	filter := deadPrefix + ">"
	if q.Subscription != "" {
		filter = deadPrefix + token(b.storedName(q.Subscription)) + ".*"
	}
	if err := b.knows(ctx, q.Subscription); err != nil {
		return nil, "", err
	}
	seq := uint64(1)
	if q.After != "" {
		if seq, err = strconv.ParseUint(q.After, 10, 63); err != nil {
			return nil, "", invalid("page_token", "%q is where no page of dead letters ended", q.After)
		}
	}
	e := b.engine.Load()
	for {
		m, err := e.dead.GetMsg(ctx, max(seq, 1), jetstream.WithGetMsgSubject(filter))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return page, "", nil
		}
		if err != nil {
			return nil, "", unavailable("dead letters cannot be read: %v", e.explain(err))
		}
		if len(page) == q.Max {
			return page, strconv.FormatUint(m.Sequence, 10), nil
		}
		d, err := readLetter(m)
		if err != nil {
			return nil, "", err
		}
		page, seq = append(page, *d), m.Sequence+1
	}
}

// countLetters tells saved cursors how many dead letters there are: what was dropped just before a crash may be counted in them.
func (e *engine) countLetters(ctx context.Context, saved map[string]cursor) error {
	info, err := e.dead.Info(ctx, jetstream.WithSubjectFilter(deadPrefix+">"))
	if err != nil {
		return fmt.Errorf("reading dead letters: %w", err)
	}
	count := make(map[string]uint64)
	for subject := range info.State.Subjects {
		name, _, _ := strings.Cut(strings.TrimPrefix(subject, deadPrefix), ".")
		count[name]++
	}
	for name, c := range saved {
		c.dead = count[token(name)]
		saved[name] = c
	}
	return nil
}

// knows says why a subscription has no dead letters and never had any: there is none of that name. One that is left over has them still.
func (b *Broker) knows(ctx context.Context, name string) error {
	if name == "" {
		return nil
	}
	_, err := b.Subscription(ctx, name)
	if err == nil {
		return nil
	}
	left, e := b.lettersOf(ctx, b.storedName(name))
	if e != nil || len(left) > 0 {
		return e
	}
	return err
}

func readLetter(m *jetstream.RawStreamMsg) (*DeadLetter, error) {
	d, err := decoded[DeadLetter](m.Data)
	if err == nil {
		err = d.read()
	}
	if err != nil {
		return nil, fmt.Errorf("reading dead letter %d: %w", m.Sequence, err)
	}
	return d, nil
}

// storedName is a subscription's name as cursors and dead letters have it.
func (b *Broker) storedName(id string) string {
	if c, ok := b.subscriptionConfig(apiName(id)); ok && c.Declared == "" {
		return c.Name
	}
	if _, ok := b.policy.Load().subscribed[internalName(id)]; ok {
		return internalName(id)
	}
	return id
}

// DeadLetter returns the dead letter of that id.
func (b *Broker) DeadLetter(ctx context.Context, id string) (*DeadLetter, error) {
	subject, err := letterSubject(id)
	if err != nil {
		return nil, err
	}
	e := b.engine.Load()
	m, err := e.dead.GetLastMsgForSubject(ctx, subject)
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return nil, notFound("there is no dead letter %s: it was redriven or dropped, or never was", id)
	}
	if err != nil {
		return nil, unavailable("dead letter %s cannot be read: %v", id, e.explain(err))
	}
	return readLetter(m)
}

// record is what was published; an older hub stored the event alone.
func (d *DeadLetter) record() (r *record, err error) {
	r = &record{Event: d.Event, caller: d.Caller, key: d.Event.OrderingKey}
	if d.Record != nil {
		r, err = decodeRecord(d.Record)
	}
	r.Topic = d.Topic
	return r, err
}

// DropDeadLetter removes a dead letter for good.
func (b *Broker) DropDeadLetter(ctx context.Context, id string) error {
	b.finishRedrives(ctx)
	b.letters.Lock()
	defer b.letters.Unlock()
	d, err := b.DeadLetter(ctx, id)
	if err != nil {
		return err
	}
	return b.dropLetter(ctx, d)
}

func (b *Broker) dropLetter(ctx context.Context, d *DeadLetter) error {
	subject, err := letterSubject(d.ID)
	if err != nil {
		return err
	}
	b.writing.RLock()
	defer b.writing.RUnlock()
	e := b.engine.Load()
	if err := e.dead.Purge(ctx, jetstream.WithPurgeSubject(subject)); err != nil {
		return unavailable("dead letter %s is not removed: %v", d.ID, e.explain(err))
	}
	b.mu.Lock()
	s := b.subs[d.Subscription]
	b.mu.Unlock()
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.window.cursor.dead > 0 {
		s.window.cursor.dead--
		s.dirty = true
		s.b.flush.poke()
	}
	return nil
}
