package nats

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shoalrun/shoal/broker"
)

// Bounds of what one connection may have on its way to a commit; then it is not read from.
const (
	maxPending      = 512
	maxPendingBytes = 16 << 20
)

// publisher commits what a client publishes, in order per topic. While commits are on their way what comes is collected,
// and goes with the next ones.
type publisher struct {
	conn *conn
	wake *sync.Cond

	mu      sync.Mutex
	pending []publication
	bytes   int
	ended   bool
}

type publication struct {
	topic, reply string
	message      broker.Message
	err          error // of its headers
}

func (p *publisher) init(n *conn) { p.conn, p.wake = n, sync.NewCond(&p.mu) }

// put waits until there is room.
func (p *publisher) put(one publication) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.ended && (len(p.pending) >= maxPending || p.bytes > 0 && p.bytes+len(one.message.Data) > maxPendingBytes) {
		p.wake.Wait()
	}
	p.pending = append(p.pending, one)
	p.bytes += len(one.message.Data)
	p.wake.Broadcast()
}

func (p *publisher) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	p.wake.Broadcast()
}

// take waits for publications and returns them by topic; nil once the connection has ended and all are committed.
func (p *publisher) take() [][]publication {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.pending) == 0 && !p.ended {
		p.wake.Wait()
	}
	var topics [][]publication
	place := make(map[string]int)
	for _, one := range p.pending {
		i, known := place[one.topic]
		if !known {
			i = len(topics)
			place[one.topic], topics = i, append(topics, nil)
		}
		topics[i] = append(topics[i], one)
	}
	p.pending, p.bytes = nil, 0
	p.wake.Broadcast()
	return topics
}

// run commits to several topics at the same time: one commit group of the broker's has them all.
func (p *publisher) run() {
	for topics := p.take(); len(topics) > 0; topics = p.take() {
		var wg sync.WaitGroup
		for _, all := range topics {
			wg.Go(func() { p.commit(all) })
		}
		wg.Wait()
	}
}

// commit publishes messages to one topic together. Where they are refused before a commit, each is tried alone:
// one that is wrong must not take the others with it.
func (p *publisher) commit(all []publication) {
	ids, err := p.try(all)
	if broker.StatusOf(err)/100 == 4 && len(all) > 1 {
		for i := range all {
			p.commit(all[i : i+1])
		}
		return
	}
	for i, one := range all {
		if err != nil {
			p.conn.refusedPublish(one, err)
			continue
		}
		p.conn.acknowledge(one, ids[i])
	}
}

// commitPatience bounds how long a commit may take. A client that has left no longer waits, and its messages are
// committed all the same.
const commitPatience = time.Minute

func (p *publisher) try(all []publication) ([]string, error) {
	messages := make([]broker.Message, 0, len(all))
	for _, one := range all {
		if one.err != nil {
			return nil, one.err
		}
		messages = append(messages, one.message)
	}
	ctx, cancel := context.WithTimeout(context.Background(), commitPatience)
	defer cancel()
	return p.conn.server.config.Broker.PublishMessages(ctx, p.conn.caller, all[0].topic, messages)
}

// pubAck is JetStream's answer to a publish (its JSPubAckResponse).
type pubAck struct {
	Stream string    `json:"stream,omitempty"`
	Seq    uint64    `json:"seq,omitempty"`
	Error  *apiError `json:"error,omitempty"`
}

type apiError struct {
	Code        int    `json:"code"`
	ErrCode     int    `json:"err_code"`
	Description string `json:"description"`
}

// acknowledge answers with the sequence that JetStream would have given. A message that is to be delivered later gets its
// offset only then.
func (n *conn) acknowledge(one publication, id string) {
	a := pubAck{Stream: one.topic}
	if offset, err := strconv.ParseUint(id, 10, 64); err == nil {
		a.Seq = offset + 1
	}
	n.answer(one.reply, a)
}

func (n *conn) answer(reply string, a pubAck) {
	text, _ := json.Marshal(a)
	n.reply(reply, "", text)
}

// refusedPublish says why a message was not accepted: by the violation that clients know where it was not
// permitted, and to a client that awaits an answer in any case.
func (n *conn) refusedPublish(one publication, err error) {
	status := broker.StatusOf(err)
	if status == http.StatusForbidden {
		n.server.config.Log.Warn("refused a NATS client", "caller", n.caller, "operation", "PUB", "subject", one.topic, "why", err)
		n.violation("PUB", one.topic)
	}
	n.answer(one.reply, pubAck{Error: &apiError{Code: status, ErrCode: errCode(status), Description: err.Error()}})
}

// errCode is the code of JetStream's that says what the status does.
func errCode(status int) int {
	switch {
	case status/100 == 4:
		return 10003 // JSBadRequestErr
	case status == http.StatusInsufficientStorage:
		return 10047 // JSStorageResourcesExceededErr
	}
	return 10008 // JSClusterNotAvailErr: try again
}

// published takes a message from the client: for a topic, or an answer to a delivery.
func (n *conn) published(o op) {
	if strings.HasPrefix(o.subject, ackPrefix) {
		n.settle(o)
		return
	}
	if strings.HasPrefix(o.subject, "$") || strings.HasPrefix(o.subject, "_") || checkSubject(o.subject, true) != nil {
		n.denied("PUB", o.subject, fmt.Sprintf("%s published to %q, which is no topic: subjects are the topics under `publishes` of its manifest. There is no JetStream API and no system account here", n.caller, o.subject))
		n.reply(o.reply, noResponders, nil)
		return
	}
	one := publication{topic: o.subject, reply: o.reply, message: broker.Message{Data: o.data}}
	one.err = one.readHeader(o.header)
	n.publish.put(one)
}

// noResponders is the status that tells a client that nobody answers there (ADR-4 of NATS).
const noResponders = headerLine + " 503\r\n\r\n"

// readHeader makes attributes of headers, and takes out those that mean something to the broker.
func (p *publication) readHeader(block []byte) error {
	fields, err := parseHeader(block)
	if err != nil {
		return badRequest("%v", err)
	}
	m := &p.message
	for name, value := range fields {
		switch strings.ToLower(name) {
		case "traceparent":
			m.Traceparent = value
		case "tracestate":
			m.Tracestate = value
		case strings.ToLower(headerKey):
			m.OrderingKey = value
		case strings.ToLower(headerDelay):
			at, err := broker.ParseDelay(value, time.Now())
			if err != nil {
				return badRequest("the header %s: %v", headerDelay, err)
			}
			m.NotBefore = at
		default:
			if strings.HasPrefix(name, "Nats-Expected-") || name == "Nats-Rollup" || name == "Nats-TTL" {
				return badRequest("the header %s asks for what topics do not have: leave it out", name)
			}
			continue
		}
		delete(fields, name)
	}
	m.Attributes = fields
	return nil
}

func badRequest(format string, v ...any) error {
	return &broker.Error{Status: http.StatusBadRequest, Text: fmt.Sprintf(format, v...)}
}
