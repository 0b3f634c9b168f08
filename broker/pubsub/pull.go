package pubsub

import (
	"context"
	"maps"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalrun/shoal/broker"
)

// What one answer holds, and how long one waits.
const (
	maxPull   = 1000
	pullBytes = 4 << 20                // of data, before the last message; clients take 20 MB
	pullWait  = 30 * time.Second       // of a pull that finds nothing
	pullSlack = 200 * time.Millisecond // for the answer to be there within the client's deadline
	pullFirst = 100 * time.Millisecond // of return_immediately: what lies on disk must be read
)

func (s *subscriber) Pull(ctx context.Context, req *pubsubpb.PullRequest) (*pubsubpb.PullResponse, error) {
	n, err := parseName("subscription", req.GetSubscription(), subscriptionKind)
	if err != nil {
		return nil, err
	}
	if req.GetMaxMessages() <= 0 {
		return nil, invalid("max_messages", "max_messages is %d; it must be more than 0", req.GetMaxMessages())
	}
	r, err := s.broker().NewReceiver(ctx, callerOf(ctx), n.id, broker.ReceiverConfig{})
	if err != nil {
		return nil, asStatus(err)
	}
	defer r.Close()
	//lint:ignore SA1019 deprecated, and in use
	waiting, cancel := s.server.pullContext(ctx, req.GetReturnImmediately())
	defer cancel()
	got, err := r.Receive(waiting, int(min(req.GetMaxMessages(), maxPull)), pullBytes)
	if err != nil && waiting.Err() == nil {
		return nil, asStatus(err)
	}
	if ctx.Err() != nil {
		r.GiveBack(got) // nobody awaits it
		return nil, asStatus(ctx.Err())
	}
	return &pubsubpb.PullResponse{ReceivedMessages: s.received(ctx, n.id, got)}, nil
}

// pullContext bounds how long a pull waits: an empty answer is better than one that comes after the client's deadline.
func (s *Server) pullContext(ctx context.Context, atOnce bool) (context.Context, context.CancelFunc) {
	wait := pullWait
	if deadline, ok := ctx.Deadline(); ok {
		wait = max(min(wait, time.Until(deadline)-pullSlack), 0)
	}
	if atOnce {
		wait = min(wait, pullFirst)
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	stop := context.AfterFunc(s.stop, cancel)
	return ctx, func() { stop(); cancel() }
}

// received gives deliveries the form of the API. Attempts are told where a dead-letter policy counts them.
func (s *subscriber) received(ctx context.Context, id string, got []broker.Delivery) []*pubsubpb.ReceivedMessage {
	c, _ := s.broker().Subscription(ctx, id)
	out := make([]*pubsubpb.ReceivedMessage, 0, len(got))
	for i := range got {
		d := &got[i]
		m := &pubsubpb.ReceivedMessage{AckId: d.AckID, Message: &pubsubpb.PubsubMessage{
			Data: d.Data, Attributes: maps.Collect(attributes(&d.Message)), MessageId: d.ID, PublishTime: timestamppb.New(d.PublishTime),
			OrderingKey: broker.Legible(d.OrderingKey),
		}}
		if c.DeadLetter != nil {
			m.DeliveryAttempt = int32(d.Attempt)
		}
		out = append(out, m)
	}
	return out
}

func (s *subscriber) Acknowledge(ctx context.Context, req *pubsubpb.AcknowledgeRequest) (*emptypb.Empty, error) {
	n, err := parseName("subscription", req.GetSubscription(), subscriptionKind)
	if err != nil {
		return nil, err
	}
	if len(req.GetAckIds()) == 0 {
		return nil, invalid("ack_ids", "ack_ids is empty: name at least one")
	}
	results, err := s.broker().Ack(ctx, callerOf(ctx), n.id, req.GetAckIds())
	return s.settled(ctx, n, req.GetAckIds(), results, err)
}

func (s *subscriber) ModifyAckDeadline(ctx context.Context, req *pubsubpb.ModifyAckDeadlineRequest) (*emptypb.Empty, error) {
	n, err := parseName("subscription", req.GetSubscription(), subscriptionKind)
	if err != nil {
		return nil, err
	}
	if len(req.GetAckIds()) == 0 {
		return nil, invalid("ack_ids", "ack_ids is empty: name at least one")
	}
	if d := req.GetAckDeadlineSeconds(); d < 0 || d > 600 {
		return nil, invalid("ack_deadline_seconds", "ack_deadline_seconds is %d; 0 to 600 are allowed", d)
	}
	results, err := s.broker().ModifyDeadline(ctx, callerOf(ctx), n.id, req.GetAckIds(), time.Duration(req.GetAckDeadlineSeconds())*time.Second)
	return s.settled(ctx, n, req.GetAckIds(), results, err)
}

// What became of an ack id that did not count (https://cloud.google.com/pubsub/docs/exactly-once-delivery).
const (
	permanentFailure = "PERMANENT_FAILURE_INVALID_ACK_ID"
	unorderedFailure = "TRANSIENT_FAILURE_UNORDERED_ACK_ID"
	transientFailure = "TRANSIENT_FAILURE_SERVICE_UNAVAILABLE"
)

// settled answers for each ack id. What a client library is told of one lies in the error's details, by the id.
func (s *subscriber) settled(ctx context.Context, n name, ids []string, errs []error, err error) (*emptypb.Empty, error) {
	if err != nil {
		return nil, asStatus(err)
	}
	var of results
	of.add(ids, errs)
	if len(of.done) == len(ids) {
		return &emptypb.Empty{}, nil
	}
	if c, _ := s.broker().Subscription(ctx, n.id); !c.ExactlyOnce {
		return nil, malformed(len(of.invalid), len(ids))
	}
	failed := make(map[string]string)
	for reason, ids := range map[string][]string{permanentFailure: of.invalid, unorderedFailure: of.unordered, transientFailure: of.later} {
		for _, id := range ids {
			failed[id] = reason
		}
	}
	return nil, detailed(codes.InvalidArgument, "some acknowledgement ids in the request were invalid: they have expired, are malformed, or come before an earlier message of their ordering key. The details say which",
		&errdetails.ErrorInfo{Reason: "INVALID_ACK_IDS", Domain: "pubsub.googleapis.com", Metadata: failed})
}

// malformed says that n of all ack ids are none, where an id that is only late does no harm.
func malformed(n, all int) error {
	if n == 0 {
		return nil
	}
	return invalid("ack_ids", "%d of %d ack ids are malformed: take them from what a pull gave, as they are", n, all)
}
