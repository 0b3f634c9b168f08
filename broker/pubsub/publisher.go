package pubsub

import (
	"context"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/shoalrun/shoal/broker"
)

// publisher is google.pubsub.v1.Publisher.
type publisher struct {
	pubsubpb.UnimplementedPublisherServer
	server *Server
}

func (p *publisher) broker() *broker.Broker { return p.server.config.Broker }

// Limits of a publish (https://cloud.google.com/pubsub/quotas#resource_limits).
const (
	maxBatch          = 1000 // messages
	maxRequestBytes   = 10<<20 + 64<<10
	maxAttributes     = 100
	maxAttributeKey   = 256  // bytes
	maxAttributeValue = 1024 // bytes
)

func (p *publisher) Publish(ctx context.Context, req *pubsubpb.PublishRequest) (*pubsubpb.PublishResponse, error) {
	n, err := parseName("topic", req.GetTopic(), topicKind)
	if err != nil {
		return nil, err
	}
	if len(req.GetMessages()) == 0 || len(req.GetMessages()) > maxBatch {
		return nil, invalid("messages", "a publish has 1 to %d messages, not %d", maxBatch, len(req.GetMessages()))
	}
	if size := proto.Size(req); size > maxRequestBytes {
		return nil, invalid("messages", "the request has %d bytes; at most 10 MB are allowed: publish fewer messages at once, or store data elsewhere and publish where it lies", size)
	}
	of := publishOf(ctx)
	messages := make([]broker.Message, 0, len(req.GetMessages()))
	for i, m := range req.GetMessages() {
		if err := checkMessage(i, m, req.GetMessages()[0].GetOrderingKey()); err != nil {
			return nil, err
		}
		message, err := of.message(m)
		if err != nil {
			return nil, invalid("messages.attributes", "message %d: the attribute %s: %v", i, broker.DelayAttribute, err)
		}
		messages = append(messages, message)
	}
	ids, err := p.broker().PublishMessages(ctx, callerOf(ctx), n.id, messages)
	if err != nil {
		return nil, asStatus(err)
	}
	return &pubsubpb.PublishResponse{MessageIds: ids}, nil
}

// request is what the headers of a publish tell of all its messages.
type request struct{ id, traceparent, tracestate string }

func publishOf(ctx context.Context) request {
	return request{header(ctx, "x-request-id"), header(ctx, "traceparent"), header(ctx, "tracestate")}
}

func (r request) message(m *pubsubpb.PubsubMessage) (out broker.Message, err error) {
	out = broker.Message{
		Data: m.GetData(), Attributes: m.GetAttributes(), OrderingKey: m.GetOrderingKey(),
		RequestID: r.id, Traceparent: r.traceparent, Tracestate: r.tracestate,
	}
	if text, ok := out.Attributes[broker.DelayAttribute]; ok {
		delete(out.Attributes, broker.DelayAttribute)
		out.NotBefore, err = broker.ParseDelay(text, time.Now())
	}
	return out, err
}

// checkMessage says what of a message the API does not allow; key is the ordering key of the publish's first one.
func checkMessage(i int, m *pubsubpb.PubsubMessage, key string) error {
	if m.GetOrderingKey() != key {
		return invalid("messages.ordering_key", "message %d has the ordering key %q, and message 0 %q: all messages of a publish have the same one, or none", i, m.GetOrderingKey(), key)
	}
	if len(m.GetData()) == 0 && len(m.GetAttributes()) == 0 {
		return invalid("messages", "message %d is empty: it needs data, or at least one attribute", i)
	}
	return checkAttributes(i, m.GetAttributes())
}

func checkAttributes(i int, attributes map[string]string) error {
	if len(attributes) > maxAttributes {
		return invalid("messages.attributes", "message %d has %d attributes; at most %d are allowed", i, len(attributes), maxAttributes)
	}
	for key, value := range attributes {
		if key == "" || len(key) > maxAttributeKey {
			return invalid("messages.attributes", "message %d: the key of an attribute has %d bytes; 1 to %d are allowed", i, len(key), maxAttributeKey)
		}
		if len(value) > maxAttributeValue {
			return invalid("messages.attributes", "message %d: the value of attribute %q has %d bytes; at most %d are allowed", i, key, len(value), maxAttributeValue)
		}
	}
	return nil
}

func (p *publisher) CreateTopic(ctx context.Context, req *pubsubpb.Topic) (*pubsubpb.Topic, error) {
	n, err := parseNewName("name", req.GetName(), topicKind)
	if err != nil {
		return nil, err
	}
	c := broker.TopicConfig{Name: n.id}
	if err := p.server.topicConfig(req, &c); err != nil {
		return nil, err
	}
	c, err = p.broker().CreateTopic(ctx, callerOf(ctx), c)
	if err != nil {
		return nil, asStatus(err)
	}
	return p.server.topicProto(n.project, c), nil
}

func (p *publisher) UpdateTopic(ctx context.Context, req *pubsubpb.UpdateTopicRequest) (*pubsubpb.Topic, error) {
	n, err := parseName("topic.name", req.GetTopic().GetName(), topicKind)
	if err != nil {
		return nil, err
	}
	fixed := map[string]string{"name": "it is what names the topic", "state": "it is output only"}
	c, err := p.broker().UpdateTopic(ctx, callerOf(ctx), n.id, func(c *broker.TopicConfig) error {
		now := p.server.topicProto(n.project, *c)
		if err := applyMask(now, req.GetTopic(), req.GetUpdateMask(), fixed); err != nil {
			return err
		}
		return p.server.topicConfig(now, c)
	})
	if err != nil {
		return nil, asStatus(err)
	}
	return p.server.topicProto(n.project, c), nil
}

func (p *publisher) GetTopic(ctx context.Context, req *pubsubpb.GetTopicRequest) (*pubsubpb.Topic, error) {
	n, err := parseName("topic", req.GetTopic(), topicKind)
	if err != nil {
		return nil, err
	}
	c, err := p.broker().Topic(ctx, n.id)
	if err != nil {
		return nil, asStatus(err)
	}
	return p.server.topicProto(n.project, c), nil
}

func (p *publisher) ListTopics(ctx context.Context, req *pubsubpb.ListTopicsRequest) (*pubsubpb.ListTopicsResponse, error) {
	project, err := parseProject("project", req.GetProject())
	if err != nil {
		return nil, err
	}
	topics, next, err := page(p.broker().ListTopics(ctx), func(c broker.TopicConfig) string { return c.Name }, req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	out := &pubsubpb.ListTopicsResponse{NextPageToken: next}
	for _, c := range topics {
		out.Topics = append(out.Topics, p.server.topicProto(project, c))
	}
	return out, nil
}

func (p *publisher) ListTopicSubscriptions(ctx context.Context, req *pubsubpb.ListTopicSubscriptionsRequest) (*pubsubpb.ListTopicSubscriptionsResponse, error) {
	n, err := p.existing(ctx, req.GetTopic())
	if err != nil {
		return nil, err
	}
	var names []string
	for _, c := range p.broker().ListSubscriptions(ctx) {
		if c.Topic == n.id && !c.Detached {
			names = append(names, name{n.project, subscriptionKind, c.Name}.String())
		}
	}
	out := &pubsubpb.ListTopicSubscriptionsResponse{}
	out.Subscriptions, out.NextPageToken, err = page(names, itself, req.GetPageSize(), req.GetPageToken())
	return out, err
}

func (p *publisher) ListTopicSnapshots(ctx context.Context, req *pubsubpb.ListTopicSnapshotsRequest) (*pubsubpb.ListTopicSnapshotsResponse, error) {
	n, err := p.existing(ctx, req.GetTopic())
	if err != nil {
		return nil, err
	}
	var names []string
	for _, c := range p.broker().ListSnapshots(ctx) {
		if c.Topic == n.id {
			names = append(names, name{n.project, snapshotKind, c.Name}.String())
		}
	}
	out := &pubsubpb.ListTopicSnapshotsResponse{}
	out.Snapshots, out.NextPageToken, err = page(names, itself, req.GetPageSize(), req.GetPageToken())
	return out, err
}

func itself(s string) string { return s }

// existing reads the name of a topic that there is.
func (p *publisher) existing(ctx context.Context, text string) (name, error) {
	n, err := parseName("topic", text, topicKind)
	if err != nil {
		return n, err
	}
	_, err = p.broker().Topic(ctx, n.id)
	return n, asStatus(err)
}

func (p *publisher) DeleteTopic(ctx context.Context, req *pubsubpb.DeleteTopicRequest) (*emptypb.Empty, error) {
	n, err := parseName("topic", req.GetTopic(), topicKind)
	if err != nil {
		return nil, err
	}
	if err := p.broker().DeleteTopic(ctx, callerOf(ctx), n.id); err != nil {
		return nil, asStatus(err)
	}
	return &emptypb.Empty{}, nil
}

func (p *publisher) DetachSubscription(ctx context.Context, req *pubsubpb.DetachSubscriptionRequest) (*pubsubpb.DetachSubscriptionResponse, error) {
	n, err := parseName("subscription", req.GetSubscription(), subscriptionKind)
	if err != nil {
		return nil, err
	}
	if err := p.broker().DetachSubscription(ctx, callerOf(ctx), n.id); err != nil {
		return nil, asStatus(err)
	}
	return &pubsubpb.DetachSubscriptionResponse{}, nil
}

func noSchema(id string) error {
	return status.Errorf(codes.NotFound, "there is no schema %s", id)
}
