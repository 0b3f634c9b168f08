package broker

import (
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

// attempt pushes a record once and says how that ended.
func (b *Broker) attempt(s *subscription, g grant, r *record, to target, deadline time.Duration) outcome {
	ctx, cancel := context.WithTimeout(b.delivering, deadline)
	defer cancel()
	start, own := time.Now(), r.deliverySpan(b.config.Sampler, g.before)
	o := b.post(ctx, g, r, to, &own, deadline)
	o.span = own.id
	if o.fate != acked && b.delivering.Err() != nil {
		return outcome{fate: cut, text: "cut off by the hub's stop"}
	}
	e := r.event(g.idOf(r))
	seen := &fleet.Observation{
		Kind: fleet.KindDelivery, RequestID: r.RequestID, Time: start, Duration: time.Since(start),
		Caller: fleet.Events, Callee: to.service, Protocol: to.protocol(), Method: http.MethodPost, Path: to.path,
		Topic: s.topic.name, Event: e.ID, Subscription: s.name, Delivery: int32(g.attempt),
		Status: o.status, GRPCStatus: o.grpcStatus, BytesIn: int64(len(r.Data)), Reason: o.reason,
		Detail: fmt.Sprintf("attempt %d of event %s%s", g.attempt, e.ID, after(o.text)),
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
func (b *Broker) post(ctx context.Context, g grant, r *record, to target, own *traceSpan, deadline time.Duration) outcome {
	to.project = b.policy.Load().fleet
	request := pushRequest
	if to.grpc {
		request = callRequest
	}
	req, err := request(ctx, g, r, to, own)
	if err == nil {
		err = b.authenticate(req, &to)
	}
	if err != nil {
		return outcome{fate: failed, reason: string(fleet.ReasonMalformedEvent), text: err.Error()}
	}
	resp, err := b.out.RoundTrip(req)
	if err != nil {
		return transportOutcome(ctx, err, deadline)
	}
	defer resp.Body.Close()
	if to.grpc {
		return callOutcome(ctx, resp, deadline)
	}
	o := judge(resp, time.Now())
	if o.fate != acked {
		head, _ := io.ReadAll(io.LimitReader(resp.Body, errorBytes))
		o.text = strings.ToValidUTF8(strings.Join(strings.Fields(resp.Status+" "+string(head)), " "), "�")
	}
	_, _ = io.CopyN(io.Discard, resp.Body, drainBytes)
	return o
}

// authenticate gives a push the token that its subscription asks for.
func (b *Broker) authenticate(req *http.Request, to *target) error {
	if to.oidc == nil {
		return nil
	}
	if b.config.Token == nil {
		return errors.New("the subscription asks for an OIDC token, and none is made here")
	}
	audience := to.oidc.Audience
	set(&audience, to.url())
	token, err := b.config.Token(req.Context(), to.oidc.Email, audience)
	if err != nil {
		return fmt.Errorf("the OIDC token of the push: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	return nil
}

// judge says what an answer means. A Shoal-Reason is the proxy's: unless it tells of an attempt that the receiver may
// have seen, the receiver never had the event.
func judge(resp *http.Response, now time.Time) outcome {
	o := outcome{status: resp.StatusCode, reason: resp.Header.Get("Shoal-Reason")}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return o
	}
	o.fate = failed
	if !reached(o.reason) {
		o.fate = unreachable
	}
	if o.reason == "" {
		o.retryAfter = retryAfter(resp.Header.Get("Retry-After"), now)
		o.hold = resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable
		o.overload = o.hold
	}
	return o
}

// reached reports whether the receiver may have seen what was answered with that Shoal-Reason.
func reached(reason string) bool {
	switch fleet.Reason(reason) {
	case "", fleet.ReasonTimeout, fleet.ReasonUpstreamReset, fleet.ReasonUpstreamMalformed, fleet.ReasonTooLarge, fleet.ReasonTooSlow:
		return true
	}
	return false
}

// transportOutcome says what an exchange that gave no answer means.
func transportOutcome(ctx context.Context, err error, deadline time.Duration) outcome {
	var dial *net.OpError
	var never errUnreachable
	if errors.As(err, &never) || errors.As(err, &dial) && dial.Op == "dial" && ctx.Err() == nil {
		return outcome{fate: unreachable, reason: string(fleet.ReasonConnectFailed), text: err.Error()}
	}
	if ctx.Err() != nil {
		return outcome{fate: failed, overload: true, reason: string(fleet.ReasonTimeout), text: fmt.Sprintf("no answer within the ack deadline of %v", deadline)}
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
