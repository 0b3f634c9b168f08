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
		AckDeadline: deadline,
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
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := st.give(ctx, got); err != nil {
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
		if req.GetSubscription() != "" || req.GetMaxOutstandingMessages() != 0 || req.GetMaxOutstandingBytes() != 0 {
			return invalid("subscription", "only the first request of a stream has subscription, max_outstanding_messages and max_outstanding_bytes")
		}
		if err := st.redeadline(req.GetStreamAckDeadlineSeconds()); err != nil {
			return err
		}
	}
}

func (st *stream) redeadline(seconds int32) error {
	deadline, err := streamDeadline(seconds)
	if err != nil || deadline == 0 {
		return err
	}
	return st.receiver.Update(deadline)
}

// obey acknowledges and changes deadlines, and confirms both for exactly-once delivery.
func (st *stream) obey(ctx context.Context, req *pubsubpb.StreamingPullRequest) error {
	if len(req.GetModifyDeadlineSeconds()) != len(req.GetModifyDeadlineAckIds()) {
		return invalid("modify_deadline_seconds", "%d deadlines for %d ack ids: there must be as many", len(req.GetModifyDeadlineSeconds()), len(req.GetModifyDeadlineAckIds()))
	}
	answer := &pubsubpb.StreamingPullResponse{}
	if ids := req.GetAckIds(); len(ids) > 0 {
		results, err := st.broker().Ack(ctx, st.caller, st.name.id, ids)
		if err != nil {
			return err
		}
		done, invalid, later := sortResults(ids, results)
		answer.AcknowledgeConfirmation = &pubsubpb.StreamingPullResponse_AcknowledgeConfirmation{AckIds: done, InvalidAckIds: invalid, TemporaryFailedAckIds: later}
	}
	if len(req.GetModifyDeadlineAckIds()) > 0 {
		confirmed, err := st.modify(ctx, req)
		if err != nil {
			return err
		}
		answer.ModifyAckDeadlineConfirmation = confirmed
	}
	if answer.AcknowledgeConfirmation == nil && answer.ModifyAckDeadlineConfirmation == nil {
		return nil
	}
	c, err := st.broker().Subscription(ctx, st.name.id)
	if err != nil || !c.ExactlyOnce {
		return err
	}
	answer.SubscriptionProperties = &pubsubpb.StreamingPullResponse_SubscriptionProperties{
		ExactlyOnceDeliveryEnabled: true, MessageOrderingEnabled: c.Ordering,
	}
	return st.send(answer)
}

// modify changes deadlines, those that are alike together.
func (st *stream) modify(ctx context.Context, req *pubsubpb.StreamingPullRequest) (*pubsubpb.StreamingPullResponse_ModifyAckDeadlineConfirmation, error) {
	alike := make(map[int32][]string)
	for i, seconds := range req.GetModifyDeadlineSeconds() {
		if seconds < 0 || seconds > 600 {
			return nil, invalid("modify_deadline_seconds", "a deadline of %d s; 0 to 600 are allowed", seconds)
		}
		alike[seconds] = append(alike[seconds], req.GetModifyDeadlineAckIds()[i])
	}
	out := &pubsubpb.StreamingPullResponse_ModifyAckDeadlineConfirmation{}
	for seconds, ids := range alike {
		results, err := st.broker().ModifyDeadline(ctx, st.caller, st.name.id, ids, time.Duration(seconds)*time.Second)
		if err != nil {
			return nil, err
		}
		done, invalid, later := sortResults(ids, results)
		out.AckIds, out.InvalidAckIds, out.TemporaryFailedAckIds = append(out.AckIds, done...), append(out.InvalidAckIds, invalid...), append(out.TemporaryFailedAckIds, later...)
	}
	return out, nil
}

func sortResults(ids []string, results []error) (done, invalid, later []string) {
	for i, err := range results {
		switch {
		case err == nil:
			done = append(done, ids[i])
		case errors.Is(err, broker.ErrAckID):
			invalid = append(invalid, ids[i])
		default:
			later = append(later, ids[i])
		}
	}
	return done, invalid, later
}
