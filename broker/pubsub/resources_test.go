package pubsub

import (
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

func TestNamesOfResources(t *testing.T) {
	f := open(t, t.TempDir())
	for id, code := range map[string]codes.Code{
		"orders":                       codes.OK,
		"A.b-c_d~e+f%25":               codes.OK,
		"a" + strings.Repeat("b", 254): codes.OK,
		"a" + strings.Repeat("b", 255): codes.InvalidArgument,
		"ab":                           codes.InvalidArgument,
		"1abc":                         codes.InvalidArgument,
		"googly":                       codes.InvalidArgument,
		"a b c":                        codes.InvalidArgument,
		"abc/def":                      codes.InvalidArgument,
		"abcü":                         codes.InvalidArgument,
	} {
		_, err := f.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/p/topics/" + id})
		field := ""
		if code != codes.OK {
			field = "name"
		}
		wants(t, id, err, code, field)
	}
	for _, bad := range []string{"", "orders", "projects/p/subscriptions/orders", "projects//topics/orders"} {
		_, err := f.GetTopic(t.Context(), &pubsubpb.GetTopicRequest{Topic: bad})
		wants(t, bad, err, codes.InvalidArgument, "topic")
	}
	// Any project is the fleet, and is echoed.
	got := must(f.GetTopic(t.Context(), &pubsubpb.GetTopicRequest{Topic: "projects/other/topics/orders"}))
	if got.GetName() != "projects/other/topics/orders" || got.GetState() != pubsubpb.Topic_ACTIVE {
		t.Errorf("%v", got)
	}
	_, err := f.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/other/topics/orders"})
	wants(t, "twice", err, codes.AlreadyExists, "")
	_, err = f.GetTopic(t.Context(), &pubsubpb.GetTopicRequest{Topic: "projects/p/topics/nothing"})
	wants(t, "unknown", err, codes.NotFound, "")
}

func TestTopicsAreChangedByMask(t *testing.T) {
	f := open(t, t.TempDir())
	topic := must(f.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/p/topics/orders", Labels: map[string]string{"a": "1"}, MessageRetentionDuration: durationpb.New(time.Hour)}))
	update := func(change *pubsubpb.Topic, paths ...string) (*pubsubpb.Topic, error) {
		change.Name = topic.GetName()
		return f.UpdateTopic(t.Context(), &pubsubpb.UpdateTopicRequest{Topic: change, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}})
	}
	got := must(update(&pubsubpb.Topic{Labels: map[string]string{"b": "2"}}, "labels"))
	if got.GetLabels()["b"] != "2" || len(got.GetLabels()) != 1 || got.GetMessageRetentionDuration().AsDuration() != time.Hour {
		t.Errorf("%v", got)
	}
	if got = must(update(&pubsubpb.Topic{}, "message_retention_duration")); got.GetMessageRetentionDuration() != nil || got.GetLabels()["b"] != "2" {
		t.Errorf("%v", got)
	}
	_, err := update(&pubsubpb.Topic{})
	wants(t, "no mask", err, codes.InvalidArgument, "update_mask")
	_, err = update(&pubsubpb.Topic{}, "colour")
	wants(t, "no such field", err, codes.InvalidArgument, "update_mask")
	_, err = update(&pubsubpb.Topic{}, "labels.a")
	wants(t, "into a map", err, codes.InvalidArgument, "update_mask")
	_, err = update(&pubsubpb.Topic{}, "name")
	wants(t, "name", err, codes.InvalidArgument, "name")
	_, err = update(&pubsubpb.Topic{MessageRetentionDuration: durationpb.New(time.Second)}, "message_retention_duration")
	wants(t, "short", err, codes.InvalidArgument, "message_retention_duration")
	_, err = update(&pubsubpb.Topic{KmsKeyName: "k"}, "kms_key_name")
	wants(t, "key", err, codes.Unimplemented, "kms_key_name")
	_, err = f.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/p/topics/regional", MessageStoragePolicy: &pubsubpb.MessageStoragePolicy{AllowedPersistenceRegions: []string{"eu"}}})
	wants(t, "regions", err, codes.Unimplemented, "message_storage_policy")
}

func TestListsHavePages(t *testing.T) {
	f := open(t, t.TempDir())
	ids := []string{"aaa", "bbb", "ccc", "ddd", "eee"}
	for _, id := range ids {
		f.topic(id)
		f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/" + id, Topic: "projects/p/topics/aaa"})
	}
	var topics, subs []string
	for token := ""; ; {
		r := must(f.ListTopics(t.Context(), &pubsubpb.ListTopicsRequest{Project: "projects/q", PageSize: 2, PageToken: token}))
		for _, topic := range r.GetTopics() {
			topics = append(topics, strings.TrimPrefix(topic.GetName(), "projects/q/topics/"))
		}
		if token = r.GetNextPageToken(); token == "" {
			break
		}
		_, _ = f.DeleteTopic(t.Context(), &pubsubpb.DeleteTopicRequest{Topic: "projects/p/topics/bbb"}) // what is gone moves nothing
	}
	for token := ""; ; {
		r := must(f.ListTopicSubscriptions(t.Context(), &pubsubpb.ListTopicSubscriptionsRequest{Topic: "projects/q/topics/aaa", PageSize: 3, PageToken: token}))
		for _, s := range r.GetSubscriptions() {
			subs = append(subs, strings.TrimPrefix(s, "projects/q/subscriptions/"))
		}
		if token = r.GetNextPageToken(); token == "" {
			break
		}
	}
	if !slices.Equal(topics, ids) || !slices.Equal(subs, ids) {
		t.Errorf("%v, %v", topics, subs)
	}
	_, err := f.ListTopics(t.Context(), &pubsubpb.ListTopicsRequest{Project: "projects/q", PageToken: "!"})
	wants(t, "token", err, codes.InvalidArgument, "page_token")
	_, err = f.ListSubscriptions(t.Context(), &pubsubpb.ListSubscriptionsRequest{Project: "projects/q", PageSize: -1})
	wants(t, "size", err, codes.InvalidArgument, "page_size")
	_, err = f.ListSnapshots(t.Context(), &pubsubpb.ListSnapshotsRequest{Project: "q"})
	wants(t, "project", err, codes.InvalidArgument, "project")
}

func TestSubscriptionsKeepWhatTheyAreMadeWith(t *testing.T) {
	f := open(t, t.TempDir())
	f.topic("orders")
	f.topic("dead")
	in := &pubsubpb.Subscription{
		Name: "projects/p/subscriptions/all", Topic: "projects/p/topics/orders", AckDeadlineSeconds: 30, RetainAckedMessages: true,
		MessageRetentionDuration: durationpb.New(time.Hour), Labels: map[string]string{"x": "y"}, EnableMessageOrdering: true,
		ExpirationPolicy: &pubsubpb.ExpirationPolicy{}, Filter: `attributes.kind = "x"`, EnableExactlyOnceDelivery: true,
		DeadLetterPolicy: &pubsubpb.DeadLetterPolicy{DeadLetterTopic: "projects/p/topics/dead", MaxDeliveryAttempts: 7},
		RetryPolicy:      &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(time.Second), MaximumBackoff: durationpb.New(20 * time.Second)},
	}
	f.subscription(in)
	got := must(f.GetSubscription(t.Context(), &pubsubpb.GetSubscriptionRequest{Subscription: in.GetName()}))
	got.State, got.PushConfig = 0, nil
	if got.String() != in.String() {
		t.Errorf("it was\n%v\nand is\n%v", in, got)
	}
	plain := must(f.CreateSubscription(t.Context(), &pubsubpb.Subscription{Topic: "projects/p/topics/orders"}))
	if !strings.HasPrefix(plain.GetName(), "projects/p/subscriptions/subscription-") || plain.GetAckDeadlineSeconds() != 10 ||
		plain.GetMessageRetentionDuration().AsDuration() != 7*24*time.Hour || plain.GetExpirationPolicy().GetTtl().AsDuration() != 31*24*time.Hour ||
		plain.GetRetryPolicy() != nil || plain.GetDeadLetterPolicy() != nil {
		t.Errorf("defaults: %v", plain)
	}
	for field, c := range map[string]struct {
		edit func(*pubsubpb.Subscription)
		code codes.Code
	}{
		"ack_deadline_seconds":       {func(s *pubsubpb.Subscription) { s.AckDeadlineSeconds = 5 }, codes.InvalidArgument},
		"message_retention_duration": {func(s *pubsubpb.Subscription) { s.MessageRetentionDuration = durationpb.New(time.Second) }, codes.InvalidArgument},
		"filter":                     {func(s *pubsubpb.Subscription) { s.Filter = "nonsense" }, codes.InvalidArgument},
		"expiration_policy.ttl": {func(s *pubsubpb.Subscription) {
			s.ExpirationPolicy = &pubsubpb.ExpirationPolicy{Ttl: durationpb.New(time.Hour)}
		}, codes.InvalidArgument},
		"retry_policy.minimum_backoff":             {func(s *pubsubpb.Subscription) { s.RetryPolicy.MinimumBackoff = durationpb.New(30 * time.Second) }, codes.InvalidArgument},
		"dead_letter_policy.dead_letter_topic":     {func(s *pubsubpb.Subscription) { s.DeadLetterPolicy.DeadLetterTopic = "dead" }, codes.InvalidArgument},
		"dead_letter_policy.max_delivery_attempts": {func(s *pubsubpb.Subscription) { s.DeadLetterPolicy.MaxDeliveryAttempts = 3 }, codes.InvalidArgument},
		"push_config.push_endpoint":                {func(s *pubsubpb.Subscription) { s.PushConfig = &pubsubpb.PushConfig{PushEndpoint: "ftp://x"} }, codes.InvalidArgument},
		"bigquery_config":                          {func(s *pubsubpb.Subscription) { s.BigqueryConfig = &pubsubpb.BigQueryConfig{Table: "t"} }, codes.Unimplemented},
		"topic":                                    {func(s *pubsubpb.Subscription) { s.Topic = "orders" }, codes.InvalidArgument},
		"name":                                     {func(s *pubsubpb.Subscription) { s.Name = "projects/p/subscriptions/1" }, codes.InvalidArgument},
		"":                                         {func(s *pubsubpb.Subscription) { s.Topic = "projects/p/topics/nothing" }, codes.NotFound},
	} {
		bad := &pubsubpb.Subscription{Name: "projects/p/subscriptions/bad", Topic: in.GetTopic(), RetryPolicy: &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(time.Second), MaximumBackoff: durationpb.New(20 * time.Second)},
			DeadLetterPolicy: &pubsubpb.DeadLetterPolicy{DeadLetterTopic: "projects/p/topics/dead", MaxDeliveryAttempts: 5}}
		c.edit(bad)
		_, err := f.CreateSubscription(t.Context(), bad)
		wants(t, field, err, c.code, field)
	}
}

func TestSubscriptionsAreChangedByMask(t *testing.T) {
	f := open(t, t.TempDir())
	f.topic("orders")
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: "projects/p/topics/orders", Labels: map[string]string{"a": "b"}})
	update := func(change *pubsubpb.Subscription, paths ...string) (*pubsubpb.Subscription, error) {
		change.Name = name
		return f.UpdateSubscription(t.Context(), &pubsubpb.UpdateSubscriptionRequest{Subscription: change, UpdateMask: &fieldmaskpb.FieldMask{Paths: paths}})
	}
	got := must(update(&pubsubpb.Subscription{AckDeadlineSeconds: 99, Labels: nil}, "ack_deadline_seconds"))
	if got.GetAckDeadlineSeconds() != 99 || got.GetLabels()["a"] != "b" {
		t.Errorf("%v", got)
	}
	got = must(update(&pubsubpb.Subscription{RetryPolicy: &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(time.Second)}}, "retry_policy.minimum_backoff"))
	if got.GetRetryPolicy().GetMinimumBackoff().AsDuration() != time.Second || got.GetRetryPolicy().GetMaximumBackoff().AsDuration() != 600*time.Second {
		t.Errorf("%v", got)
	}
	got = must(update(&pubsubpb.Subscription{EnableExactlyOnceDelivery: true}, "enable_exactly_once_delivery", "retry_policy", "labels"))
	if !got.GetEnableExactlyOnceDelivery() || got.GetRetryPolicy() != nil || got.GetLabels() != nil {
		t.Errorf("%v", got)
	}
	for _, path := range []string{"topic", "filter", "enable_message_ordering", "detached"} {
		_, err := update(&pubsubpb.Subscription{}, path)
		wants(t, path, err, codes.InvalidArgument, path)
	}
	must(f.ModifyPushConfig(t.Context(), &pubsubpb.ModifyPushConfigRequest{Subscription: name, PushConfig: &pubsubpb.PushConfig{PushEndpoint: "http://orders/push"}}))
	got = must(f.GetSubscription(t.Context(), &pubsubpb.GetSubscriptionRequest{Subscription: name}))
	if got.GetPushConfig().GetPushEndpoint() != "http://orders/push" {
		t.Errorf("%v", got)
	}
	_, err := f.Pull(t.Context(), &pubsubpb.PullRequest{Subscription: name, MaxMessages: 1})
	wants(t, "pull what is pushed", err, codes.FailedPrecondition, "")
	must(f.ModifyPushConfig(t.Context(), &pubsubpb.ModifyPushConfigRequest{Subscription: name}))
	f.pullNow(name)

	must(f.DetachSubscription(t.Context(), &pubsubpb.DetachSubscriptionRequest{Subscription: name}))
	if got := must(f.GetSubscription(t.Context(), &pubsubpb.GetSubscriptionRequest{Subscription: name})); !got.GetDetached() {
		t.Errorf("%v", got)
	}
	_, err = f.Pull(t.Context(), &pubsubpb.PullRequest{Subscription: name, MaxMessages: 1})
	wants(t, "pull what is detached", err, codes.FailedPrecondition, "")
	must(f.DeleteSubscription(t.Context(), &pubsubpb.DeleteSubscriptionRequest{Subscription: name}))
	_, err = f.GetSubscription(t.Context(), &pubsubpb.GetSubscriptionRequest{Subscription: name})
	wants(t, "deleted", err, codes.NotFound, "")
}

func TestSubscriptionsOutliveTheirTopic(t *testing.T) {
	f := open(t, t.TempDir())
	topic := f.topic("orders")
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: topic})
	must(f.DeleteTopic(t.Context(), &pubsubpb.DeleteTopicRequest{Topic: topic}))
	if got := must(f.GetSubscription(t.Context(), &pubsubpb.GetSubscriptionRequest{Subscription: name})); got.GetTopic() != "_deleted-topic_" {
		t.Errorf("%v", got)
	}
}

func TestSnapshots(t *testing.T) {
	f := open(t, t.TempDir())
	topic := f.topic("orders")
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: topic})
	f.publish(topic, text("1"), text("2"))
	snap := must(f.CreateSnapshot(t.Context(), &pubsubpb.CreateSnapshotRequest{Name: "projects/p/snapshots/before", Subscription: name, Labels: map[string]string{"a": "b"}}))
	if snap.GetTopic() != topic || snap.GetLabels()["a"] != "b" || snap.GetExpireTime().AsTime().Before(time.Now().Add(6*24*time.Hour)) {
		t.Errorf("%v", snap)
	}
	var ids []string
	for _, m := range f.pull(name, 2) {
		ids = append(ids, m.GetAckId())
	}
	must(f.Acknowledge(t.Context(), &pubsubpb.AcknowledgeRequest{Subscription: name, AckIds: ids}))
	if got := f.pullNow(name); len(got) > 0 {
		t.Errorf("acknowledged, and there again: %v", got)
	}
	must(f.Seek(t.Context(), &pubsubpb.SeekRequest{Subscription: name, Target: &pubsubpb.SeekRequest_Snapshot{Snapshot: snap.GetName()}}))
	again := f.pull(name, 2)
	if string(again[0].GetMessage().GetData()) != "1" || string(again[1].GetMessage().GetData()) != "2" {
		t.Errorf("%v", again)
	}
	must(f.Seek(t.Context(), &pubsubpb.SeekRequest{Subscription: name, Target: &pubsubpb.SeekRequest_Time{Time: timestamppb.New(time.Now().Add(time.Hour))}}))
	if got := f.pullNow(name); len(got) > 0 {
		t.Errorf("a seek to the future leaves %v", got)
	}
	got := must(f.UpdateSnapshot(t.Context(), &pubsubpb.UpdateSnapshotRequest{Snapshot: &pubsubpb.Snapshot{Name: snap.GetName()}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"labels"}}}))
	if got.GetLabels() != nil || !got.GetExpireTime().AsTime().Equal(snap.GetExpireTime().AsTime()) {
		t.Errorf("%v", got)
	}
	if l := must(f.ListTopicSnapshots(t.Context(), &pubsubpb.ListTopicSnapshotsRequest{Topic: topic})).GetSnapshots(); !slices.Equal(l, []string{snap.GetName()}) {
		t.Errorf("%v", l)
	}
	must(f.DeleteSnapshot(t.Context(), &pubsubpb.DeleteSnapshotRequest{Snapshot: snap.GetName()}))
	_, err := f.Seek(t.Context(), &pubsubpb.SeekRequest{Subscription: name, Target: &pubsubpb.SeekRequest_Snapshot{Snapshot: snap.GetName()}})
	wants(t, "deleted", err, codes.NotFound, "")
	_, err = f.Seek(t.Context(), &pubsubpb.SeekRequest{Subscription: name})
	wants(t, "nowhere", err, codes.InvalidArgument, "target")
}
