package nats

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"strings"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// What one connection may hold of one topic without having acknowledged it.
const (
	maxOutstanding      = 1000
	maxOutstandingBytes = 16 << 20
	receiveMessages     = 64 // taken at once
	receiveBytes        = 1 << 20
)

// session is what a connection receives of one topic. All its subscribers share the service's one subscription,
// with those of every other connection: they compete, whether they name a queue group or not.
type session struct {
	conn         *conn
	topic        string
	subscription string // the broker's name of it
	receiver     *broker.Receiver
	ctx          context.Context
	cancel       context.CancelFunc

	subscribers []*subscriber // guarded by conn.mu
	turn        int
}

// subscriber is one SUB of a client.
type subscriber struct {
	sid      string
	session  *session
	received int
	most     int // then it ends; 0: no end
}

// subscribe takes a subscription: to reply subjects of the connection's own, or to a topic.
func (n *conn) subscribe(o op) {
	if strings.HasPrefix(o.subject, "_") && checkSubject(o.subject, false) == nil {
		n.subscribeInbox(o)
		return
	}
	if strings.HasPrefix(o.subject, "$") || checkSubject(o.subject, true) != nil {
		n.denied("SUB", o.subject, fmt.Sprintf("%s subscribed to %q, which is no topic: subjects are the topics under `subscribes` of its manifest, one by one and without wildcards", n.caller, o.subject))
		return
	}
	s, err := n.session(o.subject)
	if err != nil {
		n.denied("SUB", o.subject, err.Error())
		return
	}
	one := &subscriber{sid: o.sid, session: s}
	n.mu.Lock()
	defer n.mu.Unlock()
	s.subscribers = append(s.subscribers, one)
	n.bySID[o.sid] = one
}

func (n *conn) subscribeInbox(o op) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.inboxes) >= maxInboxes {
		n.out.write("-ERR 'maximum subscriptions exceeded'\r\n")
		return
	}
	n.inboxes[o.sid] = &inbox{sid: o.sid, pattern: strings.Split(o.subject, ".")}
}

// session returns what the connection receives of a topic, and begins to where it does not yet. Only the reader calls it.
func (n *conn) session(topic string) (*session, error) {
	n.mu.Lock()
	s := n.sessions[topic]
	n.mu.Unlock()
	if s != nil {
		return s, nil
	}
	s = &session{conn: n, topic: topic, subscription: n.caller + "." + topic}
	s.ctx, s.cancel = context.WithCancel(n.ctx)
	receive := s.tail
	if n.caller != fleet.Operator {
		r, err := n.server.config.Broker.NewReceiver(n.ctx, n.caller, s.subscription, broker.ReceiverConfig{MaxMessages: maxOutstanding, MaxBytes: maxOutstandingBytes})
		if err != nil {
			return nil, s.explain(err)
		}
		s.receiver, receive = r, s.receive
	}
	n.mu.Lock()
	n.sessions[topic] = s
	n.mu.Unlock()
	n.starting = append(n.starting, receive)
	return s, nil
}

// explain says which line of the manifest would let a service receive a topic.
func (s *session) explain(err error) error {
	switch broker.StatusOf(err) {
	case http.StatusNotFound, http.StatusForbidden:
		return fmt.Errorf("%s may not subscribe to %s: its manifest does not declare it. Add `%s: pull` under `subscribes`", s.conn.caller, s.topic, s.topic)
	case http.StatusPreconditionFailed:
		return fmt.Errorf("%w. To receive it by NATS as well, write `%s: {push: …, pull: true}` under `subscribes`, or `%s: pull` to receive it by NATS alone", err, s.topic, s.topic)
	}
	return err
}

// receive hands messages to the subscribers until the session ends.
func (s *session) receive() {
	defer s.receiver.Close()
	for s.ctx.Err() == nil {
		all, err := s.receiver.Receive(s.ctx, receiveMessages, receiveBytes)
		if err != nil {
			s.failed(err)
			return
		}
		s.receiver.GiveBack(all[s.deliver(all):])
	}
}

// failed closes the connection of a client whose subscription has ended without it: it connects again, and is
// told why it may not subscribe any more, if so.
func (s *session) failed(err error) {
	if s.ctx.Err() == nil {
		s.conn.server.config.Log.Warn("a NATS subscription ended", "subscription", s.subscription, "error", err)
		s.conn.close()
	}
}

// deliver hands messages out as long as there is a subscriber, and returns how many that were.
func (s *session) deliver(all []broker.Delivery) int {
	for i := range all {
		sid, ok := s.next()
		if !ok {
			return i
		}
		s.conn.out.message(sid, s.topic, ackSubject(s, &all[i]), s.header(&all[i].Message), all[i].Data)
	}
	return len(all)
}

// header is what a message has besides its data; nil for a client that takes no headers.
func (s *session) header(m *broker.Message) []byte {
	if !s.conn.headers {
		return nil
	}
	fields := maps.Clone(m.Attributes)
	if fields == nil {
		fields = make(map[string]string)
	}
	for name, value := range map[string]string{headerKey: m.OrderingKey, "traceparent": m.Traceparent, "tracestate": m.Tracestate} {
		if value != "" {
			fields[name] = value
		}
	}
	if len(fields) == 0 {
		return nil
	}
	return appendHeader(nil, fields)
}

// next is the subscriber whose turn it is.
func (s *session) next() (sid string, ok bool) {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	if len(s.subscribers) == 0 {
		return "", false
	}
	s.turn = (s.turn + 1) % len(s.subscribers)
	one := s.subscribers[s.turn]
	one.received++
	if one.most > 0 && one.received >= one.most {
		s.conn.removeLocked(one)
	}
	return one.sid, true
}

// tail shows an operator what is committed from now on. It takes nothing from any subscription.
func (s *session) tail() {
	err := s.conn.server.config.Broker.Tail(s.ctx, s.topic, "", func(m broker.Tailed) error {
		if sid, ok := s.next(); ok {
			s.conn.out.message(sid, s.topic, "", s.header(&m.Message), m.Data)
		}
		return nil
	})
	s.failed(err)
}

// unsubscribe ends a subscription, at once or after so many messages.
func (n *conn) unsubscribe(o op) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if in := n.inboxes[o.sid]; in != nil {
		if in.left = o.most; o.most == 0 {
			delete(n.inboxes, o.sid)
		}
		return
	}
	one := n.bySID[o.sid]
	if one == nil {
		return
	}
	if one.most = o.most; one.received >= one.most {
		n.removeLocked(one)
	}
}

// removeLocked takes a subscriber away, and ends its session with the last one.
func (n *conn) removeLocked(one *subscriber) {
	delete(n.bySID, one.sid)
	s := one.session
	for i, o := range s.subscribers {
		if o == one {
			s.subscribers = append(s.subscribers[:i], s.subscribers[i+1:]...)
			break
		}
	}
	if len(s.subscribers) == 0 {
		s.cancel()
		delete(n.sessions, s.topic)
	}
}

func (n *conn) endSessions() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.sessions {
		s.cancel()
	}
}
