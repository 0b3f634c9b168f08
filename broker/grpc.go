package broker

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/shoalrun/shoal/fleet"
)

// callRequest writes a record as a unary call of gRPC (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md). What the
// message has no place for is metadata, as it is in the headers of an HTTP push.
func callRequest(ctx context.Context, g grant, r *record, to target, own *traceSpan) (*http.Request, error) {
	event, header := r.event(g.idOf(r)), make(http.Header)
	message, err := requestMessage(g, r, to, event)
	if err != nil {
		return nil, err
	}
	switch to.format {
	case fleet.FormatData:
		eventHeader(header, event)
		if event.ContentType != "" {
			header.Set("Ce-Datacontenttype", encodeHeader(event.ContentType))
		}
	case fleet.FormatPubSub:
		header.Set("X-Goog-Pubsub-Subscription-Name", to.resource())
	}
	header.Set("Content-Type", "application/grpc+proto")
	header.Set("Te", "trailers")
	if until, ok := ctx.Deadline(); ok {
		header.Set("Grpc-Timeout", timeoutText(time.Until(until)))
	}
	body := binary.BigEndian.AppendUint32(make([]byte, 1, 5+len(message)), uint32(len(message)))
	return requestOf(ctx, g, r, to, own, header, append(body, message...))
}

// timeoutText writes a deadline: at most eight digits and their unit.
func timeoutText(d time.Duration) string {
	return strconv.FormatInt(min(max(d.Milliseconds(), 1), 99_999_999), 10) + "m"
}

// requestMessage is the message that the method gets.
func requestMessage(g grant, r *record, to target, e *Event) ([]byte, error) {
	switch to.format {
	case fleet.FormatCloudEvents:
		return eventMessage(e), nil
	case fleet.FormatPubSub:
		m := r.message(g.idOf(r))
		return m.AppendProto(nil, m.legibleAttributes()), nil
	}
	kind, _, _ := mime.ParseMediaType(e.ContentType)
	if isText(kind) {
		return nil, fmt.Errorf("its data is %s, and %s takes a protobuf message: publish it as application/protobuf, or let the subscription have `format: cloudevents`", e.ContentType, to.path)
	}
	return e.Data, nil
}

// callOutcome reads the answer to a unary call. What it holds is nobody's; its status counts.
func callOutcome(ctx context.Context, resp *http.Response, deadline time.Duration) outcome {
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return transportOutcome(ctx, err, deadline)
	}
	field := func(name string) string {
		if v := resp.Trailer.Get(name); v != "" {
			return v
		}
		return resp.Header.Get(name) // where there is no message, trailers come in the place of headers
	}
	o := outcome{status: resp.StatusCode, fate: failed, reason: resp.Header.Get("Shoal-Reason")}
	said, err := strconv.Atoi(field("Grpc-Status"))
	if err != nil {
		o.text, o.grpcStatus = fmt.Sprintf("%s, and no grpc-status: is that a gRPC server?", resp.Status), int(code.Code_UNKNOWN)
		return refusedCall(o, 0)
	}
	o.grpcStatus = said
	if said == int(code.Code_OK) {
		return outcome{status: o.status}
	}
	o.text = codeName(said) + after(grpcText(field("Grpc-Message")))
	return refusedCall(o, wish(field))
}

// refusedCall says what a status other than OK means, as judge does of HTTP's.
func refusedCall(o outcome, retryAfter time.Duration) outcome {
	if !reached(o.reason) {
		o.fate = unreachable
		return o
	}
	if o.reason != "" {
		return o
	}
	o.retryAfter = retryAfter
	switch code.Code(o.grpcStatus) {
	case code.Code_RESOURCE_EXHAUSTED, code.Code_UNAVAILABLE:
		o.hold, o.overload = true, true
	case code.Code_DEADLINE_EXCEEDED:
		o.overload = true
	}
	return o
}

// codeName is a status as gRPC's documents write it.
func codeName(n int) string {
	if name, ok := code.Code_name[int32(n)]; ok {
		return name
	}
	return fmt.Sprintf("status %d", n)
}

// grpcText decodes a message: one line, not too long.
func grpcText(encoded string) string {
	text, err := url.PathUnescape(encoded)
	if err != nil {
		text = encoded
	}
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "�")), " ")
	if len(text) > errorBytes {
		text = strings.ToValidUTF8(text[:errorBytes], "")
	}
	return text
}

// wish is how long the server asks to be left alone: by grpc-retry-pushback-ms (gRFC A6), or by a google.rpc.RetryInfo among its
// status's details. 0: it does not.
func wish(field func(string) string) time.Duration {
	if ms, err := strconv.ParseUint(field("Grpc-Retry-Pushback-Ms"), 10, 31); err == nil {
		return min(time.Duration(ms)*time.Millisecond, longestWish)
	}
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(field("Grpc-Status-Details-Bin"), "="))
	var s status.Status
	if err != nil || proto.Unmarshal(raw, &s) != nil {
		return 0
	}
	for _, d := range s.GetDetails() {
		info := new(errdetails.RetryInfo)
		if d.MessageIs(info) && d.UnmarshalTo(info) == nil {
			return min(max(info.GetRetryDelay().AsDuration(), 0), longestWish)
		}
	}
	return 0
}
