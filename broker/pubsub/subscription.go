package pubsub

import (
	"context"
	"maps"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// subscriptionProto shows a subscription to a caller whose project is named.
func (s *subscriber) subscriptionProto(ctx context.Context, project string, c broker.SubscriptionConfig) *pubsubpb.Subscription {
	out := &pubsubpb.Subscription{
		Name: name{project, subscriptionKind, c.Name}.String(), Topic: topicName(project, c.Topic), Labels: c.Labels,
		AckDeadlineSeconds: int32(c.AckDeadline / time.Second), EnableMessageOrdering: c.Ordering, EnableExactlyOnceDelivery: c.ExactlyOnce,
		Filter: c.Filter, RetainAckedMessages: c.RetainAcked, MessageRetentionDuration: duration(c.Retention),
		Detached: c.Detached, State: pubsubpb.Subscription_ACTIVE, PushConfig: pushProto(c.Push), ExpirationPolicy: &pubsubpb.ExpirationPolicy{},
	}
	if t, err := s.broker().Topic(ctx, c.Topic); err == nil {
		out.TopicMessageRetentionDuration = duration(t.Retention)
	}
	if c.Expiration > 0 {
		out.ExpirationPolicy.Ttl = durationpb.New(c.Expiration)
	}
	if c.MinBackoff != 0 || c.MaxBackoff != 0 {
		out.RetryPolicy = &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(c.MinBackoff), MaximumBackoff: durationpb.New(c.MaxBackoff)}
	}
	if d := c.DeadLetter; d != nil {
		out.DeadLetterPolicy = &pubsubpb.DeadLetterPolicy{MaxDeliveryAttempts: int32(d.Attempts)}
		if d.Topic != "" {
			out.DeadLetterPolicy.DeadLetterTopic = topicName(project, d.Topic)
		}
	}
	return out
}

// topicName is a topic's full name, and what stands for one that was deleted.
func topicName(project, id string) string {
	if id == "" {
		return deletedTopic
	}
	return name{project, topicKind, id}.String()
}

func pushProto(c *broker.PushConfig) *pubsubpb.PushConfig {
	out := &pubsubpb.PushConfig{}
	if c == nil {
		return out
	}
	out.PushEndpoint, out.Attributes = c.Endpoint, maps.Clone(c.Attributes)
	if c.Format != fleet.FormatCloudEvents && out.Attributes[versionAttribute] == "" {
		setVersion(out, "v1")
	}
	if c.OIDC != nil {
		out.AuthenticationMethod = &pubsubpb.PushConfig_OidcToken_{OidcToken: &pubsubpb.PushConfig_OidcToken{
			ServiceAccountEmail: c.OIDC.Email, Audience: c.OIDC.Audience,
		}}
	}
	if c.Unwrapped {
		out.Wrapper = &pubsubpb.PushConfig_NoWrapper_{NoWrapper: &pubsubpb.PushConfig_NoWrapper{WriteMetadata: c.Metadata}}
	}
	return out
}

// subscriptionConfig reads what a caller wants of a subscription into c, but for its name.
func (s *subscriber) subscriptionConfig(in *pubsubpb.Subscription, c *broker.SubscriptionConfig) (err error) {
	if err := subscriptionLacks(in); err != nil {
		return err
	}
	if seconds := in.GetAckDeadlineSeconds(); seconds < 0 {
		return invalid("ack_deadline_seconds", "ack_deadline_seconds is %d; 10 to 600 are allowed, and 0 means 10", seconds)
	}
	c.Labels, c.Filter, c.RetainAcked = in.GetLabels(), in.GetFilter(), in.GetRetainAckedMessages()
	c.Ordering, c.ExactlyOnce = in.GetEnableMessageOrdering(), in.GetEnableExactlyOnceDelivery()
	c.AckDeadline = time.Duration(in.GetAckDeadlineSeconds()) * time.Second
	if c.Retention, err = positive("message_retention_duration", in.GetMessageRetentionDuration()); err != nil {
		return err
	}
	if err := readExpiration(in.GetExpirationPolicy(), c); err != nil {
		return err
	}
	if err := readRetry(in.GetRetryPolicy(), c); err != nil {
		return err
	}
	if err := readDeadLetter(in.GetDeadLetterPolicy(), c); err != nil {
		return err
	}
	c.Push, err = pushConfig("push_config", in.GetPushConfig())
	return err
}

func subscriptionLacks(in *pubsubpb.Subscription) error {
	switch {
	case in.GetBigqueryConfig() != nil:
		return unimplemented("bigquery_config", "messages are not exported to BigQuery here: let a service of the fleet subscribe and write there")
	case in.GetCloudStorageConfig() != nil:
		return unimplemented("cloud_storage_config", "messages are not exported to Cloud Storage here: let a service of the fleet subscribe and write there")
	case in.GetBigtableConfig() != nil:
		return unimplemented("bigtable_config", "messages are not exported to Bigtable here: let a service of the fleet subscribe and write there")
	case len(in.GetMessageTransforms()) > 0:
		return unimplemented("message_transforms", "messages are not transformed here: let a service of the fleet subscribe, transform and publish")
	case len(in.GetTags()) > 0:
		return unimplemented("tags", "there are no tags of a resource manager here: use labels")
	}
	return nil
}

// readExpiration reads a policy: none is the default, one without a time means never.
func readExpiration(p *pubsubpb.ExpirationPolicy, c *broker.SubscriptionConfig) (err error) {
	c.Expiration = 0
	if p != nil && p.GetTtl() == nil {
		c.Expiration = -1
		return nil
	}
	c.Expiration, err = positive("expiration_policy.ttl", p.GetTtl())
	return err
}

// Backoffs of a retry policy that names none.
const (
	defaultMinBackoff = 10 * time.Second
	defaultMaxBackoff = 600 * time.Second
)

func readRetry(p *pubsubpb.RetryPolicy, c *broker.SubscriptionConfig) error {
	c.MinBackoff, c.MaxBackoff = 0, 0
	if p == nil {
		return nil
	}
	c.MinBackoff, c.MaxBackoff = defaultMinBackoff, defaultMaxBackoff
	for _, f := range []struct {
		field string
		in    *durationpb.Duration
		out   *time.Duration
	}{{"retry_policy.minimum_backoff", p.GetMinimumBackoff(), &c.MinBackoff}, {"retry_policy.maximum_backoff", p.GetMaximumBackoff(), &c.MaxBackoff}} {
		if f.in == nil {
			continue
		}
		if f.in.CheckValid() != nil || f.in.AsDuration() < 0 {
			return invalid(f.field, "%s is no duration of 0 to 600 s", f.field)
		}
		*f.out = f.in.AsDuration()
	}
	if c.MinBackoff > c.MaxBackoff {
		return invalid("retry_policy.minimum_backoff", "minimum_backoff is %v, and maximum_backoff %v: it cannot be less", c.MinBackoff, c.MaxBackoff)
	}
	return nil
}

func readDeadLetter(p *pubsubpb.DeadLetterPolicy, c *broker.SubscriptionConfig) error {
	c.DeadLetter = nil
	if p == nil || p.GetDeadLetterTopic() == "" && p.GetMaxDeliveryAttempts() == 0 {
		return nil
	}
	n, err := parseName("dead_letter_policy.dead_letter_topic", p.GetDeadLetterTopic(), topicKind)
	if err != nil {
		return err
	}
	c.DeadLetter = &broker.DeadLetterPolicy{Topic: n.id, Attempts: int(p.GetMaxDeliveryAttempts())}
	return nil
}

// pushConfig reads where to push; nil for a subscription that is pulled.
func pushConfig(field string, in *pubsubpb.PushConfig) (*broker.PushConfig, error) {
	if in.GetPushEndpoint() == "" {
		return nil, nil
	}
	c := &broker.PushConfig{Endpoint: in.GetPushEndpoint(), Attributes: in.GetAttributes()}
	if w := in.GetNoWrapper(); w != nil {
		c.Unwrapped, c.Metadata = true, w.GetWriteMetadata()
	}
	if t := in.GetOidcToken(); t != nil {
		if t.GetServiceAccountEmail() == "" {
			return nil, invalid(field+".oidc_token.service_account_email", "an OIDC token needs a service_account_email: it becomes the token's subject")
		}
		c.OIDC = &broker.OIDC{Email: t.GetServiceAccountEmail(), Audience: t.GetAudience()}
	}
	return c, checkVersion(field, in.GetAttributes()[versionAttribute])
}

// versionAttribute says which form pushed messages have: v1, of which v1beta2 is another name.
const versionAttribute = "x-goog-version"

func setVersion(c *pubsubpb.PushConfig, version string) {
	if c.Attributes == nil {
		c.Attributes = make(map[string]string)
	}
	c.Attributes[versionAttribute] = version
}

func checkVersion(field, version string) error {
	switch version {
	case "", "v1", "v1beta2":
		return nil
	case "v1beta1":
		return unimplemented(field+".attributes", "messages are not pushed in the form of v1beta1 here: let %s be v1, or leave it out", versionAttribute)
	}
	return invalid(field+".attributes", "%s is %q; v1 is what is sent", versionAttribute, version)
}
