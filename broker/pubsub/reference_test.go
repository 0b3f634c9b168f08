package pubsub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalrun/shoal/fleet"
)

// What the comments of google/pubsub/v1/pubsub.proto say of a publish.
func TestMessagesOfOnePublish(t *testing.T) {
	f := open(t, t.TempDir())
	topic := f.topic("orders")
	keyed := func(key string) *pubsubpb.PubsubMessage {
		return &pubsubpb.PubsubMessage{Data: []byte("x"), OrderingKey: key}
	}
	for what, c := range map[string]struct {
		field    string
		messages []*pubsubpb.PubsubMessage
	}{
		"two keys":        {"messages.ordering_key", []*pubsubpb.PubsubMessage{keyed("a"), keyed("b")}},
		"a key, and none": {"messages.ordering_key", []*pubsubpb.PubsubMessage{keyed("a"), keyed("")}},
		"a key alone":     {"messages", []*pubsubpb.PubsubMessage{{OrderingKey: "a"}}},
	} {
		_, err := f.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: topic, Messages: c.messages})
		wants(t, what, err, codes.InvalidArgument, c.field)
	}
	_, err := f.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: topic, Messages: []*pubsubpb.PubsubMessage{text("x"), {Attributes: map[string]string{"goog": ""}}}})
	if wants(t, "the second", err, codes.InvalidArgument, "messages.attributes"); !strings.Contains(fmt.Sprint(err), "message 1") {
		t.Errorf("which message is it? %v", err)
	}
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: topic})
	largest := &pubsubpb.PubsubMessage{Attributes: make(map[string]string)}
	for i := range 100 {
		largest.Attributes[fmt.Sprintf("%0256d", i)] = strings.Repeat("v", 1024)
	}
	f.publish(topic, append(slices.Repeat([]*pubsubpb.PubsubMessage{text("x")}, 999), largest)...)
	got := f.pull(name, 1000)
	if m := got[999].GetMessage(); len(m.GetAttributes()) != 101 { // and the trace of the delivery
		t.Errorf("%d attributes", len(m.GetAttributes()))
	}
}

// An ack id is its subscription's: on another one it does nothing, nor on one of the same name that was made anew.
func TestAckIDsAreTheirSubscriptions(t *testing.T) {
	f := open(t, t.TempDir())
	topic := f.topic("orders")
	make := func(id string, once bool) string {
		return f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/" + id, Topic: topic, EnableExactlyOnceDelivery: once})
	}
	one, other, once := make("one", false), make("other", false), make("once", true)
	f.publish(topic, text("x"))
	ids := []string{f.pull(one, 1)[0].GetAckId()}
	must(f.ModifyAckDeadline(t.Context(), &pubsubpb.ModifyAckDeadlineRequest{Subscription: other, AckIds: ids}))
	must(f.Acknowledge(t.Context(), &pubsubpb.AcknowledgeRequest{Subscription: other, AckIds: ids}))
	_, err := f.Acknowledge(t.Context(), &pubsubpb.AcknowledgeRequest{Subscription: once, AckIds: ids})
	wants(t, "exactly once", err, codes.InvalidArgument, "")
	for _, name := range []string{other, once} {
		if got := f.pullNow(name); len(got) != 1 {
			t.Errorf("%s has %v", name, got)
		}
	}
	must(f.DeleteSubscription(t.Context(), &pubsubpb.DeleteSubscriptionRequest{Subscription: one}))
	one = make("one", false)
	must(f.SubscriberClient.Seek(t.Context(), &pubsubpb.SeekRequest{Subscription: one, Target: &pubsubpb.SeekRequest_Time{Time: timestamppb.New(time.Unix(0, 0))}}))
	must(f.Acknowledge(t.Context(), &pubsubpb.AcknowledgeRequest{Subscription: one, AckIds: ids}))
	if got := f.pullNow(one); len(got) != 1 {
		t.Errorf("an ack id of a subscription that was deleted acknowledged: %v", got)
	}
}

func TestDeadlinesOfAckIDs(t *testing.T) {
	f := open(t, t.TempDir())
	topic := f.topic("orders")
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: topic})
	f.publish(topic, text("x"))
	ids := []string{f.pull(name, 1)[0].GetAckId()}
	for seconds, code := range map[int32]codes.Code{1: codes.OK, 9: codes.OK, 600: codes.OK, 601: codes.InvalidArgument, -1: codes.InvalidArgument} {
		_, err := f.ModifyAckDeadline(t.Context(), &pubsubpb.ModifyAckDeadlineRequest{Subscription: name, AckIds: ids, AckDeadlineSeconds: seconds})
		field := ""
		if code != codes.OK {
			field = "ack_deadline_seconds"
		}
		wants(t, fmt.Sprint(seconds), err, code, field)
	}
	// A second is a deadline like others: nobody must wait for ten.
	must(f.ModifyAckDeadline(t.Context(), &pubsubpb.ModifyAckDeadlineRequest{Subscription: name, AckIds: ids, AckDeadlineSeconds: 1}))
	again := f.pull(name, 1)[0]
	must(f.ModifyAckDeadline(t.Context(), &pubsubpb.ModifyAckDeadlineRequest{Subscription: name, AckIds: ids, AckDeadlineSeconds: 0})) // late: without effect
	if got := f.pullNow(name); len(got) > 0 {
		t.Errorf("a stale ack id gave %v back, which came as %v", got, again)
	}
}

// What a stream could not send any more is there for others at once, and no attempt of it has failed.
func TestStreamsGiveBackWhatTheyDidNotSend(t *testing.T) {
	f := open(t, t.TempDir())
	topic := f.topic("orders")
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: topic, DeadLetterPolicy: &pubsubpb.DeadLetterPolicy{DeadLetterTopic: topic}})
	large := &pubsubpb.PubsubMessage{Data: make([]byte, 5<<20)} // each fills an answer
	f.publish(topic, large)
	second := f.publish(topic, large)[0]
	ctx, leave := context.WithCancel(t.Context())
	stream := must(f.StreamingPull(ctx))
	if err := stream.Send(&pubsubpb.StreamingPullRequest{Subscription: name, StreamAckDeadlineSeconds: 600}); err != nil {
		t.Fatal(err)
	}
	for f.broker.Subscriptions()[0].InFlight < 2 { // the client reads nothing: the second answer waits
		time.Sleep(time.Millisecond)
	}
	leave()
	if got := f.pull(name, 1)[0]; got.GetMessage().GetMessageId() != second || got.GetDeliveryAttempt() != 1 {
		t.Errorf("message %s on attempt %d, want %s on its first", got.GetMessage().GetMessageId(), got.GetDeliveryAttempt(), second)
	}
}

// What was sent on a stream that broke, and that its client has said nothing of, waits for no long deadline; what is exactly-once does.
func TestStreamsThatBreak(t *testing.T) {
	f := open(t, t.TempDir())
	topic := f.topic("orders")
	var names []string
	for id, once := range map[string]bool{"all": false, "once": true} {
		names = append(names, f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/" + id, Topic: topic, AckDeadlineSeconds: 600, EnableExactlyOnceDelivery: once}))
	}
	f.publish(topic, text("heard"), text("unheard"))
	for _, name := range names {
		ctx, leave := context.WithCancel(t.Context())
		stream := must(f.StreamingPull(ctx))
		send := func(r *pubsubpb.StreamingPullRequest) {
			t.Helper()
			if err := stream.Send(r); err != nil {
				t.Fatal(err)
			}
		}
		send(&pubsubpb.StreamingPullRequest{Subscription: name, StreamAckDeadlineSeconds: 600})
		got := receive(t, stream, 2)
		send(&pubsubpb.StreamingPullRequest{ModifyDeadlineAckIds: []string{got[0].GetAckId()}, ModifyDeadlineSeconds: []int32{600}})
		send(&pubsubpb.StreamingPullRequest{StreamAckDeadlineSeconds: 5}) // which ends the stream, once what came before was obeyed
		wants(t, "a short deadline", lastError(stream), codes.InvalidArgument, "stream_ack_deadline_seconds")
		leave()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	again, err := f.Pull(ctx, &pubsubpb.PullRequest{Subscription: "projects/p/subscriptions/all", MaxMessages: 2})
	if err != nil || len(again.GetReceivedMessages()) != 1 || string(again.GetReceivedMessages()[0].GetMessage().GetData()) != "unheard" {
		t.Errorf("after a stream that broke: %v, %v", again, err)
	}
	if got := f.pullNow("projects/p/subscriptions/once"); len(got) > 0 {
		t.Errorf("exactly once, and again within the deadline: %v", got)
	}
}

// What a stream's client must not say ends the stream.
func TestStreamsEndAtWhatIsMalformed(t *testing.T) {
	f := open(t, t.TempDir())
	topic := f.topic("orders")
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: topic})
	for field, second := range map[string]*pubsubpb.StreamingPullRequest{
		"ack_ids":                  {AckIds: []string{"nonsense"}},
		"ack_ids ":                 {ModifyDeadlineAckIds: []string{"nonsense"}, ModifyDeadlineSeconds: []int32{10}},
		"modify_deadline_seconds":  {ModifyDeadlineAckIds: []string{"1-1.1.1"}, ModifyDeadlineSeconds: []int32{-1}},
		"modify_deadline_seconds ": {ModifyDeadlineAckIds: []string{"1-1.1.1"}, ModifyDeadlineSeconds: []int32{601}},
		"max_outstanding_messages": {MaxOutstandingMessages: 1},
		"max_outstanding_bytes":    {MaxOutstandingBytes: 1},
		"protocol_version":         {ProtocolVersion: 1},
		"subscription":             {Subscription: name},
	} {
		stream := must(f.StreamingPull(t.Context()))
		for _, r := range []*pubsubpb.StreamingPullRequest{{Subscription: name, StreamAckDeadlineSeconds: 10}, second} {
			if err := stream.Send(r); err != nil {
				t.Fatal(err)
			}
		}
		wants(t, field, lastError(stream), codes.InvalidArgument, strings.TrimSpace(field))
	}
}

// lastError reads a stream to its end.
func lastError(stream pubsubpb.Subscriber_StreamingPullClient) error {
	for {
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
}

// Of one ordering key, what comes before an earlier message is out of order, and told apart from what is over.
func TestStreamsTellWhatIsOutOfOrder(t *testing.T) {
	f := open(t, t.TempDir())
	topic := f.topic("orders")
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/once", Topic: topic, EnableExactlyOnceDelivery: true, EnableMessageOrdering: true})
	f.publish(topic, &pubsubpb.PubsubMessage{Data: []byte("1"), OrderingKey: "k"}, &pubsubpb.PubsubMessage{Data: []byte("2"), OrderingKey: "k"})
	stream := must(f.StreamingPull(t.Context()))
	if err := stream.Send(&pubsubpb.StreamingPullRequest{Subscription: name, StreamAckDeadlineSeconds: 10}); err != nil {
		t.Fatal(err)
	}
	got := receive(t, stream, 2)
	if err := stream.Send(&pubsubpb.StreamingPullRequest{AckIds: []string{got[1].GetAckId()}}); err != nil {
		t.Fatal(err)
	}
	for {
		r := must(stream.Recv())
		if c := r.GetAcknowledgeConfirmation(); c != nil {
			if !slices.Equal(c.GetUnorderedAckIds(), []string{got[1].GetAckId()}) || len(c.GetInvalidAckIds())+len(c.GetTemporaryFailedAckIds())+len(c.GetAckIds()) > 0 {
				t.Errorf("%v", c)
			}
			break
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := lastError(stream); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func TestFieldsOfResources(t *testing.T) {
	f := open(t, t.TempDir())
	topic := must(f.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/p/topics/orders", MessageRetentionDuration: durationpb.New(time.Hour), Labels: map[string]string{"größe": "x_1-2"}})).GetName()
	_, err := f.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/p/topics/other", MessageStoragePolicy: &pubsubpb.MessageStoragePolicy{EnforceInTransit: true}})
	wants(t, "no regions", err, codes.Unimplemented, "message_storage_policy")
	for i, labels := range []map[string]string{{"": "x"}, {"1a": "x"}, {"A": "x"}, {"a": "X"}, {"a b": "x"}, {strings.Repeat("a", 64): "x"}, {"a": strings.Repeat("ä", 64)}} {
		_, err := f.CreateTopic(t.Context(), &pubsubpb.Topic{Name: "projects/p/topics/other", Labels: labels})
		wants(t, fmt.Sprint("labels ", i), err, codes.InvalidArgument, "labels")
	}
	create := func(in *pubsubpb.Subscription) (*pubsubpb.Subscription, error) {
		in.Name, in.Topic = "projects/p/subscriptions/all", topic
		return f.CreateSubscription(t.Context(), in)
	}
	_, err = create(&pubsubpb.Subscription{RetryPolicy: &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(time.Second), MaximumBackoff: durationpb.New(0)}})
	wants(t, "backoffs", err, codes.InvalidArgument, "retry_policy.minimum_backoff")
	pushed := func(version map[string]string) *pubsubpb.Subscription {
		return &pubsubpb.Subscription{PushConfig: &pubsubpb.PushConfig{PushEndpoint: "http://web/push", Attributes: version}}
	}
	_, err = create(pushed(map[string]string{"x-goog-version": "v1beta1"}))
	wants(t, "an old form", err, codes.Unimplemented, "push_config.attributes")
	_, err = create(pushed(map[string]string{"x-goog-version": "v2"}))
	wants(t, "no form", err, codes.InvalidArgument, "push_config.attributes")
	made := must(create(pushed(nil)))
	if v := made.GetPushConfig().GetAttributes()["x-goog-version"]; v != "v1" {
		t.Errorf("a push has the version %q", v)
	}
	if d := made.GetTopicMessageRetentionDuration().AsDuration(); d != time.Hour {
		t.Errorf("of a topic that keeps an hour: %v", d)
	}
	listed := must(f.ListSubscriptions(t.Context(), &pubsubpb.ListSubscriptionsRequest{Project: "projects/p"})).GetSubscriptions()
	if d := listed[0].GetTopicMessageRetentionDuration().AsDuration(); d != time.Hour {
		t.Errorf("in a list: %v", d)
	}
	must(f.ModifyPushConfig(t.Context(), &pubsubpb.ModifyPushConfigRequest{Subscription: made.GetName(), PushConfig: pushed(map[string]string{"x-goog-version": "v1beta2"}).PushConfig}))
	must(f.ModifyPushConfig(t.Context(), &pubsubpb.ModifyPushConfigRequest{Subscription: made.GetName(), PushConfig: pushed(nil).PushConfig}))
	got := must(f.GetSubscription(t.Context(), &pubsubpb.GetSubscriptionRequest{Subscription: made.GetName()}))
	if v := got.GetPushConfig().GetAttributes()["x-goog-version"]; v != "v1beta2" {
		t.Errorf("where ModifyPushConfig names no version, it is %q now", v)
	}
}

// What belongs to a topic that was deleted can be changed in all else.
func TestSubscriptionsOutliveTheirTopics(t *testing.T) {
	f := open(t, t.TempDir())
	topic, dead := f.topic("orders"), f.topic("orders-dead")
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: topic, DeadLetterPolicy: &pubsubpb.DeadLetterPolicy{DeadLetterTopic: dead}})
	update := func(change *pubsubpb.Subscription, path string) (*pubsubpb.Subscription, error) {
		change.Name = name
		return f.UpdateSubscription(t.Context(), &pubsubpb.UpdateSubscriptionRequest{Subscription: change, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{path}}})
	}
	for _, gone := range []string{dead, topic} {
		must(f.DeleteTopic(t.Context(), &pubsubpb.DeleteTopicRequest{Topic: gone}))
		if got, err := update(&pubsubpb.Subscription{Labels: map[string]string{"a": "b"}}, "labels"); err != nil || got.GetLabels()["a"] != "b" {
			t.Errorf("without %s: %v, %v", gone, got, err)
		}
	}
	_, err := update(&pubsubpb.Subscription{DeadLetterPolicy: &pubsubpb.DeadLetterPolicy{DeadLetterTopic: "projects/p/topics/nothing"}}, "dead_letter_policy")
	wants(t, "no such topic", err, codes.NotFound, "")
}

func TestSnapshotsAreNotPutIntoThePast(t *testing.T) {
	f := open(t, t.TempDir())
	of := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: f.topic("orders")})
	name := must(f.CreateSnapshot(t.Context(), &pubsubpb.CreateSnapshotRequest{Name: "projects/p/snapshots/here", Subscription: of})).GetName()
	for _, when := range []time.Time{time.Unix(0, 0), time.Now().Add(8 * 24 * time.Hour)} {
		_, err := f.UpdateSnapshot(t.Context(), &pubsubpb.UpdateSnapshotRequest{
			Snapshot: &pubsubpb.Snapshot{Name: name, ExpireTime: timestamppb.New(when)}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"expire_time"}},
		})
		wants(t, when.String(), err, codes.InvalidArgument, "expire_time")
	}
	must(f.GetSnapshot(t.Context(), &pubsubpb.GetSnapshotRequest{Snapshot: name}))
}

// What is done to a schema as a whole takes no revision's name: a slip must not delete them all.
func TestSchemasAreNamedWhole(t *testing.T) {
	f := open(t, t.TempDir())
	of := &pubsubpb.Schema{Type: pubsubpb.Schema_AVRO, Definition: `{"type": "record", "name": "R", "fields": [{"name": "id", "type": "long"}]}`}
	made := must(f.CreateSchema(t.Context(), &pubsubpb.CreateSchemaRequest{Parent: "projects/p", SchemaId: "orders", Schema: of}))
	revision := made.GetName() + "@" + made.GetRevisionId()
	_, err := f.DeleteSchema(t.Context(), &pubsubpb.DeleteSchemaRequest{Name: revision})
	wants(t, "delete", err, codes.InvalidArgument, "name")
	_, err = f.CommitSchema(t.Context(), &pubsubpb.CommitSchemaRequest{Name: revision, Schema: of})
	wants(t, "commit", err, codes.InvalidArgument, "name")
	_, err = f.RollbackSchema(t.Context(), &pubsubpb.RollbackSchemaRequest{Name: revision, RevisionId: made.GetRevisionId()})
	wants(t, "rollback", err, codes.InvalidArgument, "name")
	must(f.GetSchema(t.Context(), &pubsubpb.GetSchemaRequest{Name: revision}))
}

// Requests as people type them.
func TestRESTByHand(t *testing.T) {
	f := open(t, t.TempDir())
	f.topic("orders")
	f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: "projects/p/topics/orders"})
	const publish, messages = "/v1/projects/p/topics/orders:publish", `{"messages": [{"data": "aGk="}]}`
	for _, c := range []struct {
		method, path, kind, body string
		code                     int
		said                     string
	}{
		{"POST", publish, "application/x-www-form-urlencoded", messages, 200, "messageIds"}, // as curl -d says
		{"POST", publish, "Application/JSON; charset=utf-8", messages, 200, "messageIds"},
		{"POST", publish, "", messages, 200, "messageIds"},
		{"POST", publish, "application/json; charset=utf-8", messages, 200, "messageIds"},
		{"POST", publish, "text/plain", messages, 400, "send JSON"},
		{"POST", publish, "multipart/form-data; boundary=x", messages, 400, "send JSON"},
		{"POST", publish, "application/json", `{"messages": [{"data": "%%%"}]}`, 400, "data"},
		{"POST", publish, "application/json", "", 400, "1 to 1000 messages"},
		{"POST", "/v1/projects/p/topics/orders:publishh", "application/json", messages, 404, "no method POST /v1/projects/p/topics/orders:publishh"},
		{"GET", publish, "", "", 404, "no method GET"},
		{"GET", "/v1/projects/p/topics?pageSize=many", "", "", 400, "page_size"},
		{"GET", "/v1/projects/p/topics", "application/json", "{}", 400, "takes no body"},
		{"DELETE", "/v1/projects/p/subscriptions/all", "application/json", "{}", 400, "takes no body"},
		{"POST", "/v1/projects/p/subscriptions/all:detach", "application/json", "{}", 400, "takes no body"},
		{"POST", "/v1/projects/p/subscriptions/all:detach", "", "", 200, "{}"},
	} {
		req, _ := http.NewRequestWithContext(t.Context(), c.method, "http://"+f.address+c.path, strings.NewReader(c.body))
		if c.kind != "" {
			req.Header.Set("Content-Type", c.kind)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		said, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.code || !strings.Contains(string(said), c.said) {
			t.Errorf("%s %s %s %s: %s %s", c.method, c.path, c.kind, c.body, resp.Status, said)
		}
	}
}

// CloudEvents are posted at the port of the API, too: as who the connection's proxy says, and by no web page.
func TestEventsAtThePortOfTheAPI(t *testing.T) {
	f := open(t, t.TempDir())
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: f.topic("orders.placed")})
	for _, c := range []struct {
		caller, path string
		header       map[string]string
		code         int
		said         string
	}{
		{fleet.Operator, "/events/orders.placed", map[string]string{"Ce-Specversion": "1.0", "Ce-Id": "7", "Ce-Source": "/tool", "Ce-Type": "placed"}, 202, `"7"`},
		{fleet.Operator, "/events/orders.placed", map[string]string{"Ce-Specversion": "1.0"}, 400, "ce-id is missing"},
		{fleet.Operator, "/events/", nil, 400, "$EVENTS_URL/TOPIC"},
		{fleet.Operator, "/events", nil, 400, "names no topic"},
		{fleet.Operator, "/events/orders.placed", map[string]string{"Origin": "http://evil.example"}, 403, "web page"},
		{fleet.Operator, "/events/orders.placed", map[string]string{"Host": "evil.example"}, 403, "for tools on this machine"},
		{"node", "/events/orders.placed", map[string]string{"Shoal-Caller": "web"}, 403, "web"},
		{"", "/events/orders.placed", map[string]string{"Shoal-Caller": fleet.Operator}, 403, "no service of the fleet"},
	} {
		f.caller.Store(c.caller)
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+f.address+c.path, strings.NewReader("x"))
		for name, value := range c.header {
			req.Header.Set(name, value)
		}
		req.Host, req.Close = c.header["Host"], true // the next connection is another caller's
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		said, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.code || !strings.Contains(string(said), c.said) {
			t.Errorf("%s %s %v: %s %s", c.caller, c.path, c.header, resp.Status, said)
		}
	}
	if got := f.pull(name, 1)[0].GetMessage(); got.GetAttributes()["ce-id"] != "7" || string(got.GetData()) != "x" {
		t.Errorf("%v", got)
	}
}
