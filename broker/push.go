package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// pushRequest writes a record as the subscription wants it.
func pushRequest(ctx context.Context, g grant, r *record, to target, own *traceSpan) (*http.Request, error) {
	body, header := r.Data, make(http.Header)
	switch {
	case to.unwrapped:
		unwrappedHeader(header, g, r, to)
	case to.format == fleet.FormatPubSub:
		var err error
		if body, err = envelope(g, r, to); err != nil {
			return nil, err
		}
		header.Set("Content-Type", "application/json")
	default:
		eventHeader(header, r.event(g.idOf(r)))
	}
	return requestOf(ctx, g, r, to, own, header, body)
}

// requestOf is a push with the fields that every push has.
func requestOf(ctx context.Context, g grant, r *record, to target, own *traceSpan, header http.Header, body []byte) (*http.Request, error) {
	given := map[string]string{"Traceparent": own.traceparent(), "Tracestate": r.Tracestate, "X-Request-Id": r.RequestID}
	for name, value := range given {
		if value != "" && isFieldValue(value) {
			header.Set(name, value)
		}
	}
	header.Set("Idempotency-Key", r.event(g.idOf(r)).idempotencyKey())
	header.Set("Delivery-Attempt", strconv.FormatUint(g.attempt, 10))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to.url(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = header
	return req, nil
}

// eventHeader writes an event's attributes, in the binary content mode of the CloudEvents HTTP binding
// (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md, section 3.1).
func eventHeader(h http.Header, e *Event) {
	for name, value := range map[string]string{"specversion": specVersion, "id": e.ID, "source": e.Source, "type": e.Type} {
		h.Set("Ce-"+name, encodeHeader(value))
	}
	for name, value := range e.Attributes {
		h.Set("Ce-"+name, encodeHeader(value))
	}
	if e.ContentType != "" && isFieldValue(e.ContentType) { // of a message that is no event it may be anything
		h.Set("Content-Type", e.ContentType)
	}
}

// envelope is the body of a wrapped push (https://cloud.google.com/pubsub/docs/push#wrapped_push). Names are there twice, as Google
// sends them: in lower camel case, and with underscores.
func envelope(g grant, r *record, to target) ([]byte, error) {
	m := r.message(g.idOf(r))
	when := m.PublishTime.UTC().Format(time.RFC3339Nano)
	return json.Marshal(map[string]any{
		"message": pushedMessage{
			Data: m.Data, Attributes: m.Attributes, OrderingKey: m.OrderingKey,
			MessageID: m.ID, MessageIDToo: m.ID, PublishTime: when, PublishTimeToo: when,
		},
		"subscription":    to.resource(),
		"deliveryAttempt": g.attempt,
	})
}

type pushedMessage struct {
	Data           []byte            `json:"data,omitempty"`
	Attributes     map[string]string `json:"attributes,omitempty"`
	OrderingKey    string            `json:"orderingKey,omitempty"`
	MessageID      string            `json:"messageId"`
	MessageIDToo   string            `json:"message_id"`
	PublishTime    string            `json:"publishTime"`
	PublishTimeToo string            `json:"publish_time"`
}

// unwrappedHeader writes the headers of an unwrapped push (https://cloud.google.com/pubsub/docs/payload-unwrapping).
func unwrappedHeader(h http.Header, g grant, r *record, to target) {
	m := r.message(g.idOf(r))
	if !to.metadata {
		return
	}
	h.Set("X-Goog-Pubsub-Subscription-Name", to.resource())
	h.Set("X-Goog-Pubsub-Message-Id", m.ID)
	h.Set("X-Goog-Pubsub-Publish-Time", m.PublishTime.UTC().Format(time.RFC3339Nano))
	if m.OrderingKey != "" {
		h.Set("X-Goog-Pubsub-Ordering-Key", encodeHeader(m.OrderingKey))
	}
	for name, value := range m.Attributes {
		if mayBeHeader(name) {
			h.Set(name, encodeHeader(value))
		}
	}
}

// mayBeHeader reports whether a publisher may choose the header of that name of a push: not one that frames the message, says
// who sends it, or is ours.
func mayBeHeader(name string) bool {
	if !isToken(name) || strings.HasPrefix(strings.ToLower(name), "shoal-") || strings.HasPrefix(strings.ToLower(name), "proxy-") {
		return false
	}
	switch http.CanonicalHeaderKey(name) {
	case "Authorization", "Connection", "Content-Length", "Expect", "Host", "Keep-Alive", "Te", "Trailer", "Transfer-Encoding", "Upgrade":
		return false
	}
	return true
}

// isFieldValue reports whether a header may have that value (RFC 9110, section 5.5).
func isFieldValue(value string) bool {
	for _, c := range []byte(value) {
		if c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// isToken reports whether a header may have that name (RFC 9110, section 5.6.2).
func isToken(name string) bool {
	for _, c := range name {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", c) {
			return false
		}
	}
	return name != ""
}

// encodeHeader writes an attribute's value as a header: what is not printable ASCII, and space, quote
// and percent, percent-encoded as UTF-8 (HTTP binding, section 3.1.3.2).
func encodeHeader(value string) string {
	var out strings.Builder
	for _, c := range []byte(value) {
		if c > 0x20 && c < 0x7f && c != '"' && c != '%' {
			out.WriteByte(c)
			continue
		}
		fmt.Fprintf(&out, "%%%02X", c)
	}
	return out.String()
}
