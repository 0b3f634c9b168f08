package pubsub

import (
	"context"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/shoalrun/shoal/broker"
)

// subscriber is google.pubsub.v1.Subscriber.
type subscriber struct {
	pubsubpb.UnimplementedSubscriberServer
	server *Server
}

func (s *subscriber) broker() *broker.Broker { return s.server.config.Broker }

func (s *subscriber) CreateSubscription(ctx context.Context, req *pubsubpb.Subscription) (*pubsubpb.Subscription, error) {
	topic, err := parseName("topic", req.GetTopic(), topicKind)
	if err != nil {
		return nil, err
	}
	n := name{topic.project, subscriptionKind, randomID("subscription-")}
	if req.GetName() != "" {
		if n, err = parseNewName("name", req.GetName(), subscriptionKind); err != nil {
			return nil, err
		}
	}
	c := broker.SubscriptionConfig{Name: n.id, Topic: topic.id}
	if err := s.subscriptionConfig(req, &c); err != nil {
		return nil, err
	}
	c, err = s.broker().CreateSubscription(ctx, callerOf(ctx), c)
	if err != nil {
		return nil, asStatus(err)
	}
	return s.subscriptionProto(ctx, n.project, c), nil
}

func (s *subscriber) GetSubscription(ctx context.Context, req *pubsubpb.GetSubscriptionRequest) (*pubsubpb.Subscription, error) {
	n, err := parseName("subscription", req.GetSubscription(), subscriptionKind)
	if err != nil {
		return nil, err
	}
	c, err := s.broker().Subscription(ctx, n.id)
	if err != nil {
		return nil, asStatus(err)
	}
	return s.subscriptionProto(ctx, n.project, c), nil
}

func (s *subscriber) UpdateSubscription(ctx context.Context, req *pubsubpb.UpdateSubscriptionRequest) (*pubsubpb.Subscription, error) {
	n, err := parseName("subscription.name", req.GetSubscription().GetName(), subscriptionKind)
	if err != nil {
		return nil, err
	}
	fixed := map[string]string{"name": "it is what names the subscription", "topic": "create another subscription", "filter": "create another subscription",
		"enable_message_ordering": "create another subscription", "detached": "it is output only; see DetachSubscription", "state": "it is output only",
		"topic_message_retention_duration": "it is output only; see UpdateTopic"}
	return s.change(ctx, n, func(now *pubsubpb.Subscription) error {
		return applyMask(now, req.GetSubscription(), req.GetUpdateMask(), fixed)
	})
}

// change edits a subscription in the form of the API.
func (s *subscriber) change(ctx context.Context, n name, edit func(*pubsubpb.Subscription) error) (*pubsubpb.Subscription, error) {
	c, err := s.broker().UpdateSubscription(ctx, callerOf(ctx), n.id, func(c *broker.SubscriptionConfig) error {
		now := s.subscriptionProto(ctx, n.project, *c)
		if err := edit(now); err != nil {
			return err
		}
		return s.subscriptionConfig(now, c)
	})
	if err != nil {
		return nil, asStatus(err)
	}
	return s.subscriptionProto(ctx, n.project, c), nil
}

func (s *subscriber) ModifyPushConfig(ctx context.Context, req *pubsubpb.ModifyPushConfigRequest) (*emptypb.Empty, error) {
	n, err := parseName("subscription", req.GetSubscription(), subscriptionKind)
	if err != nil {
		return nil, err
	}
	_, err = s.change(ctx, n, func(now *pubsubpb.Subscription) error {
		next := proto.CloneOf(req.GetPushConfig())
		if was := now.GetPushConfig().GetAttributes()[versionAttribute]; was != "" && next.GetPushEndpoint() != "" && next.GetAttributes()[versionAttribute] == "" {
			setVersion(next, was)
		}
		now.PushConfig = next
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, nil
}

func (s *subscriber) ListSubscriptions(ctx context.Context, req *pubsubpb.ListSubscriptionsRequest) (*pubsubpb.ListSubscriptionsResponse, error) {
	project, err := parseProject("project", req.GetProject())
	if err != nil {
		return nil, err
	}
	all, next, err := page(s.broker().ListSubscriptions(ctx), func(c broker.SubscriptionConfig) string { return c.Name }, req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	out := &pubsubpb.ListSubscriptionsResponse{NextPageToken: next}
	for _, c := range all {
		out.Subscriptions = append(out.Subscriptions, s.subscriptionProto(ctx, project, c))
	}
	return out, nil
}

func (s *subscriber) DeleteSubscription(ctx context.Context, req *pubsubpb.DeleteSubscriptionRequest) (*emptypb.Empty, error) {
	n, err := parseName("subscription", req.GetSubscription(), subscriptionKind)
	if err != nil {
		return nil, err
	}
	if err := s.broker().DeleteSubscription(ctx, callerOf(ctx), n.id); err != nil {
		return nil, asStatus(err)
	}
	return &emptypb.Empty{}, nil
}

func (s *subscriber) Seek(ctx context.Context, req *pubsubpb.SeekRequest) (*pubsubpb.SeekResponse, error) {
	n, err := parseName("subscription", req.GetSubscription(), subscriptionKind)
	if err != nil {
		return nil, err
	}
	switch to := req.GetTarget().(type) {
	case *pubsubpb.SeekRequest_Time:
		if to.Time.CheckValid() != nil {
			return nil, invalid("time", "time is no timestamp")
		}
		_, err = s.broker().SeekTime(ctx, callerOf(ctx), n.id, to.Time.AsTime(), false)
	case *pubsubpb.SeekRequest_Snapshot:
		var snapshot name
		if snapshot, err = parseName("snapshot", to.Snapshot, snapshotKind); err != nil {
			return nil, err
		}
		_, err = s.broker().SeekSnapshot(ctx, callerOf(ctx), n.id, snapshot.id, false)
	default:
		return nil, invalid("target", "a seek needs a time or a snapshot")
	}
	if err != nil {
		return nil, asStatus(err)
	}
	return &pubsubpb.SeekResponse{}, nil
}
