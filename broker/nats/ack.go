package nats

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/shoalrun/shoal/broker"
)

// ackPrefix begins the subject on which a delivery is answered. It is the one that JetStream has (its second form, of
// ADR-15), so that clients read from it which message of which topic this is, and the number of the attempt:
//
//	$JS.ACK.DOMAIN.ACCOUNT.STREAM.CONSUMER.ATTEMPT.SEQUENCE.DELIVERY.TIME.PENDING.ID
const ackPrefix = "$JS.ACK."

// ackTokens are those of an ack subject; topicToken and idToken say which message it is.
const (
	ackTokens  = 12
	topicToken = 4
	idToken    = 11
)

// A subject's tokens hold no dots: a topic's are written as slashes, which no topic has, and an ack id's as underscores.
func ackSubject(s *session, d *broker.Delivery) string {
	var offset uint64
	_, _ = fmt.Sscan(d.ID, &offset)
	return fmt.Sprintf("%s_._.%s.%s.%d.%d.%d.%d.0.%s", ackPrefix, strings.ReplaceAll(s.topic, ".", "/"), s.conn.caller,
		d.Attempt, offset+1, offset+1, d.PublishTime.UnixNano(), strings.ReplaceAll(d.AckID, ".", "_"))
}

// settle does what a client answers to a delivery. An answer with a reply subject of its own is confirmed there once
// it holds.
func (n *conn) settle(o op) {
	tokens := strings.Split(o.subject, ".")
	if len(tokens) != ackTokens {
		n.denied("PUB", o.subject, "it is no subject that a delivery came with")
		return
	}
	subscription := n.caller + "." + strings.ReplaceAll(tokens[topicToken], "/", ".")
	id := strings.ReplaceAll(tokens[idToken], "_", ".")
	if err := n.verdict(subscription, id, string(o.data)); err != nil {
		n.server.config.Log.Warn("an answer to a delivery by NATS is not taken", "subscription", subscription, "answer", shorten(o.data), "error", err)
		return
	}
	n.reply(o.reply, "", nil)
}

// verdict takes JetStream's answers (https://docs.nats.io/using-nats/developer/develop_jetstream/consumers#delivery-reliability).
func (n *conn) verdict(subscription, id, text string) error {
	b := n.server.config.Broker
	what, rest, _ := strings.Cut(text, " ")
	switch what {
	case "", "+ACK", "+NXT":
		return one(b.Ack(n.ctx, n.caller, subscription, []string{id}))
	case "-NAK":
		return n.extend(subscription, id, delay(rest))
	case "+WPI":
		c, err := b.Subscription(n.ctx, subscription)
		if err != nil {
			return err
		}
		return n.extend(subscription, id, c.AckDeadline)
	case "+TERM":
		if rest == "" {
			rest = "terminated by the subscriber"
		}
		return one(b.Reject(n.ctx, n.caller, subscription, []string{id}, rest))
	}
	return fmt.Errorf("%q is none of +ACK, -NAK, +WPI and +TERM", shorten([]byte(what)))
}

// maxDelay is the longest that a message may be put off, as for the Pub/Sub API.
const maxDelay = 10 * time.Minute

func (n *conn) extend(subscription, id string, d time.Duration) error {
	return one(n.server.config.Broker.ModifyDeadline(context.WithoutCancel(n.ctx), n.caller, subscription, []string{id}, min(max(d, 0), maxDelay)))
}

// delay reads what stands after -NAK: nothing, or `{"delay": NANOSECONDS}`.
func delay(text string) time.Duration {
	var says struct{ Delay time.Duration }
	_ = json.Unmarshal([]byte(text), &says)
	return says.Delay
}

func one(results []error, err error) error {
	if err != nil {
		return err
	}
	return results[0]
}

func shorten(b []byte) string {
	if len(b) > 60 {
		return string(b[:57]) + "..."
	}
	return string(b)
}
