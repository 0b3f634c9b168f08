package pubsub

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalrun/shoal/broker"
)

// heartbeat is how often something is sent on a quiet stream, so that its client sees that we are there. The Go client pings every 30 s, and
// gives a stream up that says nothing within the 15 s that follow.
const heartbeat = 10 * time.Second

// unheard is how long after a stream's end a client may take to say something of what it got there. Official clients say at once that they have a
// message.
const unheard = 5 * time.Second

// stream is one StreamingPull.
type stream struct {
	*subscriber
	pubsubpb.Subscriber_StreamingPullServer
	caller   string
	name     name
	receiver *broker.Receiver
	sending  sync.Mutex // one message is sent at a time
}

// StreamingPull delivers until either side ends: one goroutine reads what the client says, this one sends.
func (s *subscriber) StreamingPull(rpc pubsubpb.Subscriber_StreamingPullServer) error {
	first, err := rpc.Recv()
	if err != nil {
		return asStatus(err)
	}
	st, err := s.openStream(rpc, first)
	if err != nil {
		return asStatus(err)
	}
	defer st.receiver.Close()
	ctx, end := context.WithCancelCause(rpc.Context())
	defer end(nil)
	defer context.AfterFunc(s.server.stop, func() {
		end(status.Error(codes.Unavailable, "the hub is stopping: open another stream"))
	})()
	go func() { end(st.listen(ctx, first)) }() // it ends with the stream, since Recv does
	err = st.deliver(ctx)
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if errors.Is(err, io.EOF) {
		return nil // the client has no more to say
	}
	return asStatus(err)
}

// openStream reads a stream's first request, which says what it is for.
func (s *subscriber) openStream(rpc pubsubpb.Subscriber_StreamingPullServer, first *pubsubpb.StreamingPullRequest) (*stream, error) {
	n, err := parseName("subscription", first.GetSubscription(), subscriptionKind)
	if err != nil {
		return nil, err
	}
	deadline, err := streamDeadline(first.GetStreamAckDeadlineSeconds())
	if err != nil {
		return nil, err
	}
	if deadline == 0 {
		return nil, invalid("stream_ack_deadline_seconds", "the first request must have stream_ack_deadline_seconds: 10 to 600")
	}
	st := &stream{subscriber: s, Subscriber_StreamingPullServer: rpc, caller: callerOf(rpc.Context()), name: n}
	st.receiver, err = s.broker().NewReceiver(rpc.Context(), st.caller, n.id, broker.ReceiverConfig{
		AckDeadline: deadline, Unheard: unheard,
		MaxMessages: int(max(first.GetMaxOutstandingMessages(), 0)), MaxBytes: int(max(first.GetMaxOutstandingBytes(), 0)),
	})
	return st, err
}

func streamDeadline(seconds int32) (time.Duration, error) {
	if seconds != 0 && (seconds < 10 || seconds > 600) {
		return 0, invalid("stream_ack_deadline_seconds", "stream_ack_deadline_seconds is %d; 10 to 600 are allowed", seconds)
	}
	return time.Duration(seconds) * time.Second, nil
}

// deliver sends messages as they come, and heartbeats when none do.
func (st *stream) deliver(ctx context.Context) error {
	if err := st.give(ctx, nil); err != nil {
		return err
	}
	for {
		quiet, cancel := context.WithTimeout(ctx, heartbeat)
		got, err := st.receiver.Receive(quiet, maxPull, pullBytes)
		cancel()
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if err = ctx.Err(); err == nil {
			err = st.give(ctx, got)
		}
		if err != nil {
			st.receiver.GiveBack(got) // it was not sent
			return err
		}
	}
}

// give sends deliveries; none of them are a heartbeat. An answer tells what the subscription is like, too: it can change while the stream is
// open.
func (st *stream) give(ctx context.Context, got []broker.Delivery) error {
	c, err := st.broker().Subscription(ctx, st.name.id)
	if err != nil {
		return err
	}
	return st.send(encodeDeliveries(got, &c))
}

func (st *stream) send(answer any) error {
	st.sending.Lock()
	defer st.sending.Unlock()
	return st.SendMsg(answer)
}

// listen reads what the client says.
func (st *stream) listen(ctx context.Context, req *pubsubpb.StreamingPullRequest) (err error) {
	for {
		if err := st.obey(ctx, req); err != nil {
			return err
		}
		if req, err = st.Recv(); err != nil {
			return err
		}
		if field := onlyOfTheFirst(req); field != "" {
			return invalid(field, "only the first request of a stream has %s", field)
		}
		if err := st.redeadline(req.GetStreamAckDeadlineSeconds()); err != nil {
			return err
		}
	}
}

// onlyOfTheFirst is a field that a later request of a stream must not have, and has; or empty.
func onlyOfTheFirst(req *pubsubpb.StreamingPullRequest) string {
	switch {
	case req.GetSubscription() != "":
		return "subscription"
	case req.GetMaxOutstandingMessages() != 0:
		return "max_outstanding_messages"
	case req.GetMaxOutstandingBytes() != 0:
		return "max_outstanding_bytes"
	case req.GetProtocolVersion() != 0:
		return "protocol_version"
	}
	return ""
}

func (st *stream) redeadline(seconds int32) error {
	deadline, err := streamDeadline(seconds)
	if err != nil || deadline == 0 {
		return err
	}
	return st.receiver.Update(deadline)
}

// obey acknowledges and changes deadlines, and confirms both for exactly-once delivery. Without that, a malformed ack id ends the stream.
func (st *stream) obey(ctx context.Context, req *pubsubpb.StreamingPullRequest) error {
	if len(req.GetModifyDeadlineSeconds()) != len(req.GetModifyDeadlineAckIds()) {
		return invalid("modify_deadline_seconds", "%d deadlines for %d ack ids: there must be as many", len(req.GetModifyDeadlineSeconds()), len(req.GetModifyDeadlineAckIds()))
	}
	acked, err := st.ack(ctx, req.GetAckIds())
	if err != nil {
		return err
	}
	modified, err := st.modify(ctx, req)
	if err != nil || acked.empty() && modified.empty() {
		return err
	}
	c, err := st.broker().Subscription(ctx, st.name.id)
	if err != nil {
		return err
	}
	if !c.ExactlyOnce {
		return malformed(len(acked.invalid)+len(modified.invalid), len(req.GetAckIds())+len(req.GetModifyDeadlineAckIds()))
	}
	return st.send(confirmation(acked, modified, &c))
}

// confirmation tells the client of a stream what became of its ack ids.
func confirmation(acked, modified results, c *broker.SubscriptionConfig) *pubsubpb.StreamingPullResponse {
	out := &pubsubpb.StreamingPullResponse{SubscriptionProperties: &pubsubpb.StreamingPullResponse_SubscriptionProperties{
		ExactlyOnceDeliveryEnabled: true, MessageOrderingEnabled: c.Ordering,
	}}
	if !acked.empty() {
		out.AcknowledgeConfirmation = &pubsubpb.StreamingPullResponse_AcknowledgeConfirmation{
			AckIds: acked.done, InvalidAckIds: acked.invalid, UnorderedAckIds: acked.unordered, TemporaryFailedAckIds: acked.later,
		}
	}
	if !modified.empty() {
		out.ModifyAckDeadlineConfirmation = &pubsubpb.StreamingPullResponse_ModifyAckDeadlineConfirmation{
			AckIds: modified.done, InvalidAckIds: modified.invalid, TemporaryFailedAckIds: modified.later,
		}
	}
	return out
}

func (st *stream) ack(ctx context.Context, ids []string) (out results, err error) {
	if len(ids) == 0 {
		return out, nil
	}
	errs, err := st.broker().Ack(ctx, st.caller, st.name.id, ids)
	out.add(ids, errs)
	return out, err
}

// modify changes deadlines, those that are alike together.
func (st *stream) modify(ctx context.Context, req *pubsubpb.StreamingPullRequest) (out results, err error) {
	alike := make(map[int32][]string)
	for i, seconds := range req.GetModifyDeadlineSeconds() {
		if seconds < 0 || seconds > 600 {
			return out, invalid("modify_deadline_seconds", "a deadline of %d s; 0 to 600 are allowed", seconds)
		}
		alike[seconds] = append(alike[seconds], req.GetModifyDeadlineAckIds()[i])
	}
	for seconds, ids := range alike {
		errs, err := st.broker().ModifyDeadline(ctx, st.caller, st.name.id, ids, time.Duration(seconds)*time.Second)
		if err != nil {
			return out, err
		}
		out.add(ids, errs)
	}
	return out, nil
}

// results are ack ids, by what became of them.
type results struct{ done, invalid, unordered, later []string }

func (r *results) empty() bool { return len(r.done)+len(r.invalid)+len(r.unordered)+len(r.later) == 0 }

func (r *results) add(ids []string, errs []error) {
	for i, err := range errs {
		switch {
		case err == nil:
			r.done = append(r.done, ids[i])
		case errors.Is(err, broker.ErrAckID):
			r.invalid = append(r.invalid, ids[i])
		case errors.Is(err, broker.ErrAckUnordered):
			r.unordered = append(r.unordered, ids[i])
		default:
			r.later = append(r.later, ids[i])
		}
	}
}
