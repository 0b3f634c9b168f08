package broker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

const (
	errorBytes  = 300           // of an error's body, for people
	drainBytes  = 64 << 10      // of a body, so that the connection can be used again
	longestWish = 1 * time.Hour // Retry-After beyond this is cut
)

// errUnreachable is a delivery that never reached the receiver.
type errUnreachable struct{ error }

func (e errUnreachable) Unwrap() error { return e.error }

// attempt delivers a lease once and says how that ended.
func (b *Broker) attempt(s *subscription, l *lease, to target) outcome {
	ctx, cancel := b.attemptContext()
	defer cancel()
	start, own := time.Now(), l.deliverySpan(b.config.Sampler)
	o := b.post(ctx, l, to, &own)
	if o.fate != acked && b.delivering.Err() != nil {
		return outcome{fate: cut, text: "cut off by the hub's stop"}
	}
	seen := &fleet.Observation{
		Kind: fleet.KindDelivery, RequestID: l.record.RequestID, Time: start, Duration: time.Since(start),
		Caller: fleet.Events, Callee: to.service, Protocol: fleet.HTTP, Method: http.MethodPost, Path: to.path,
		Topic: s.topic.name, Event: l.record.ID, Status: o.status, BytesIn: int64(len(l.record.Data)), Reason: o.reason,
		Detail: fmt.Sprintf("attempt %d of %d of event %s%s", l.attempt, b.config.Attempts, l.record.ID, after(o.text)),
	}
	own.note(seen)
	b.config.Observe(seen)
	return o
}

func after(text string) string {
	if text == "" {
		return ""
	}
	return ": " + text
}

// post is the exchange with the receiver.
func (b *Broker) post(ctx context.Context, l *lease, to target, own *traceSpan) outcome {
	req, err := deliveryRequest(ctx, l, to, own)
	if err != nil {
		return outcome{fate: failed, reason: string(fleet.ReasonMalformedEvent), text: err.Error()}
	}
	resp, err := b.out.RoundTrip(req)
	if err != nil {
		return transportOutcome(ctx, err, b.config.AckDeadline)
	}
	defer resp.Body.Close()
	o := judge(resp, time.Now())
	if o.fate != acked {
		head, _ := io.ReadAll(io.LimitReader(resp.Body, errorBytes))
		o.text = strings.ToValidUTF8(strings.Join(strings.Fields(resp.Status+" "+string(head)), " "), "�")
	}
	_, _ = io.CopyN(io.Discard, resp.Body, drainBytes)
	return o
}

// deliveryRequest writes an event as HTTP, in the binary content mode of the CloudEvents HTTP binding
// (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md, section 3.1).
func deliveryRequest(ctx context.Context, l *lease, to target, own *traceSpan) (*http.Request, error) {
	r := l.record
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+to.host+to.path, bytes.NewReader(r.Data))
	if err != nil {
		return nil, err
	}
	h := req.Header
	for name, value := range map[string]string{"specversion": "1.0", "id": r.ID, "source": r.Source, "type": r.Type} {
		h.Set("Ce-"+name, encodeHeader(value))
	}
	for name, value := range r.Attributes {
		h.Set("Ce-"+name, encodeHeader(value))
	}
	given := map[string]string{"Content-Type": r.ContentType, "Traceparent": own.traceparent(), "Tracestate": r.Tracestate, "X-Request-Id": r.RequestID}
	for name, value := range given {
		if value != "" {
			h.Set(name, value)
		}
	}
	h.Set("Idempotency-Key", r.idempotencyKey())
	h.Set("Delivery-Attempt", strconv.FormatUint(l.attempt, 10))
	return req, nil
}

// judge says what an answer means. A Shoal-Reason is the proxy's: unless it tells of an attempt that the receiver may
// have seen, the receiver never had the event.
func judge(resp *http.Response, now time.Time) outcome {
	o := outcome{status: resp.StatusCode, reason: resp.Header.Get("Shoal-Reason")}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return o
	}
	o.fate = failed
	switch fleet.Reason(o.reason) {
	case fleet.ReasonTimeout, fleet.ReasonUpstreamReset, fleet.ReasonUpstreamMalformed, fleet.ReasonTooLarge, fleet.ReasonTooSlow:
		return o
	case "":
		o.retryAfter = retryAfter(resp.Header.Get("Retry-After"), now)
		o.hold = resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable
		return o
	}
	o.fate = unreachable
	return o
}

// transportOutcome says what an exchange that gave no answer means.
func transportOutcome(ctx context.Context, err error, deadline time.Duration) outcome {
	var dial *net.OpError
	var never errUnreachable
	if errors.As(err, &never) || errors.As(err, &dial) && dial.Op == "dial" && ctx.Err() == nil {
		return outcome{fate: unreachable, reason: string(fleet.ReasonConnectFailed), text: err.Error()}
	}
	if ctx.Err() != nil {
		return outcome{fate: failed, reason: string(fleet.ReasonTimeout), text: fmt.Sprintf("no answer within the ack deadline of %v", deadline)}
	}
	return outcome{fate: failed, reason: string(fleet.ReasonUpstreamReset), text: err.Error()}
}

// retryAfter reads the header of RFC 9110 section 10.2.3: seconds, or a date. 0 for none.
func retryAfter(value string, now time.Time) time.Duration {
	if value == "" {
		return 0
	}
	if seconds, err := strconv.ParseUint(value, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, longestWish)
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), longestWish)
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
