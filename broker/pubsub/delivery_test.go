package pubsub

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/shoalrun/shoal/fleet"
)

func TestLimitsOfAPublish(t *testing.T) {
	f := open(t, t.TempDir())
	topic := f.topic("orders")
	many := make(map[string]string)
	for i := range 101 {
		many[fmt.Sprint("a", i)] = ""
	}
	for field, messages := range map[string][]*pubsubpb.PubsubMessage{
		"messages":               slices.Repeat([]*pubsubpb.PubsubMessage{text("x")}, 1001),
		"messages.attributes":    {text("fine"), {Attributes: many}},
		"messages.attributes ":   {{Attributes: map[string]string{strings.Repeat("k", 257): ""}}},
		"messages.attributes  ":  {{Attributes: map[string]string{"k": strings.Repeat("v", 1025)}}},
		"messages.attributes   ": {{Attributes: map[string]string{"goog-k": "v"}}},
		"messages.ordering_key":  {{Data: []byte("x"), OrderingKey: strings.Repeat("k", 1025)}},
		"messages.data":          {{Data: make([]byte, 10<<20+1)}},
		"messages ":              {{}},
		"messages  ":             {{Data: make([]byte, 6<<20)}, {Data: make([]byte, 6<<20)}},
	} {
		_, err := f.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: topic, Messages: messages})
		wants(t, field, err, codes.InvalidArgument, strings.TrimSpace(field))
	}
	_, err := f.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: "projects/p/topics/nothing", Messages: []*pubsubpb.PubsubMessage{text("x")}})
	wants(t, "unknown topic", err, codes.NotFound, "")
	largest := &pubsubpb.PubsubMessage{Data: make([]byte, 10<<20), Attributes: map[string]string{"k": strings.Repeat("v", 1024), "\u00fc any-char": "\u0001\n"}}
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: topic})
	ids := f.publish(topic, largest)
	got := f.pull(name, 1)[0].GetMessage()
	if got.GetMessageId() != ids[0] || len(got.GetData()) != 10<<20 || got.GetAttributes()["\u00fc any-char"] != "\u0001\n" || time.Since(got.GetPublishTime().AsTime()) > time.Hour {
		t.Errorf("%s with %d bytes, %v", got.GetMessageId(), len(got.GetData()), got.GetAttributes())
	}
}

func TestPullAnswersWithoutMessages(t *testing.T) {
	f := open(t, t.TempDir())
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: f.topic("orders")})
	if got := f.pullNow(name); len(got) > 0 {
		t.Errorf("%v", got)
	}
	_, err := f.Pull(t.Context(), &pubsubpb.PullRequest{Subscription: name})
	wants(t, "how many", err, codes.InvalidArgument, "max_messages")
	_, err = f.Pull(t.Context(), &pubsubpb.PullRequest{Subscription: "projects/p/subscriptions/nothing", MaxMessages: 1})
	wants(t, "unknown", err, codes.NotFound, "")
}

func TestAcknowledgements(t *testing.T) {
	f := open(t, t.TempDir())
	topic := f.topic("orders")
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: topic})
	f.publish(topic, text("1"))
	first := f.pull(name, 1)[0]
	modify := func(seconds int32, ids ...string) error {
		_, err := f.ModifyAckDeadline(t.Context(), &pubsubpb.ModifyAckDeadlineRequest{Subscription: name, AckIds: ids, AckDeadlineSeconds: seconds})
		return err
	}
	ack := func(ids ...string) error {
		_, err := f.Acknowledge(t.Context(), &pubsubpb.AcknowledgeRequest{Subscription: name, AckIds: ids})
		return err
	}
	wants(t, "deadline", modify(601, first.GetAckId()), codes.InvalidArgument, "ack_deadline_seconds")
	wants(t, "no ids", modify(10), codes.InvalidArgument, "ack_ids")
	wants(t, "no ids", ack(), codes.InvalidArgument, "ack_ids")
	wants(t, "malformed", ack("nonsense"), codes.InvalidArgument, "ack_ids")
	if err := modify(0, first.GetAckId()); err != nil { // gives it back
		t.Fatal(err)
	}
	second := f.pull(name, 1)[0]
	if second.GetMessage().GetMessageId() != first.GetMessage().GetMessageId() || second.GetAckId() == first.GetAckId() || second.GetDeliveryAttempt() != 0 {
		t.Errorf("%v, then %v", first, second)
	}
	if err := ack(first.GetAckId()); err != nil { // late, and it counts
		t.Error(err)
	}
	if err := ack(second.GetAckId()); err != nil {
		t.Error(err)
	}
	if got := f.pullNow(name); len(got) > 0 {
		t.Errorf("%v", got)
	}
}

func TestExactlyOnceTellsOfEachAckID(t *testing.T) {
	f := open(t, t.TempDir())
	topic := f.topic("orders")
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/once", Topic: topic, EnableExactlyOnceDelivery: true})
	f.publish(topic, text("1"), text("2"))
	got := f.pull(name, 2)
	stale := got[0].GetAckId()
	must(f.ModifyAckDeadline(t.Context(), &pubsubpb.ModifyAckDeadlineRequest{Subscription: name, AckIds: []string{stale}}))
	again := f.pull(name, 1)[0]
	_, err := f.Acknowledge(t.Context(), &pubsubpb.AcknowledgeRequest{Subscription: name, AckIds: []string{stale, got[1].GetAckId()}})
	if status.Code(err) != codes.InvalidArgument {
		t.Fatalf("a stale ack id: %v", err)
	}
	info, _ := status.Convert(err).Details()[0].(*errdetails.ErrorInfo)
	if len(info.GetMetadata()) != 1 || info.GetMetadata()[stale] != "PERMANENT_FAILURE_INVALID_ACK_ID" {
		t.Errorf("%v", info)
	}
	must(f.Acknowledge(t.Context(), &pubsubpb.AcknowledgeRequest{Subscription: name, AckIds: []string{again.GetAckId()}}))
	if got := f.pullNow(name); len(got) > 0 {
		t.Errorf("acknowledged, and there again: %v", got)
	}
}

// receive reads a stream until it has n messages.
func receive(t *testing.T, stream pubsubpb.Subscriber_StreamingPullClient, n int) (got []*pubsubpb.ReceivedMessage) {
	t.Helper()
	for len(got) < n {
		got = append(got, must(stream.Recv()).GetReceivedMessages()...)
	}
	return got
}

func TestStreamsHaveFlowControl(t *testing.T) {
	f := open(t, t.TempDir())
	topic := f.topic("orders")
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: topic})
	for i := range 5 {
		f.publish(topic, text(fmt.Sprint(i)))
	}
	stream := must(f.StreamingPull(t.Context()))
	send := func(r *pubsubpb.StreamingPullRequest) {
		t.Helper()
		if err := stream.Send(r); err != nil {
			t.Fatal(err)
		}
	}
	send(&pubsubpb.StreamingPullRequest{Subscription: name, StreamAckDeadlineSeconds: 10, MaxOutstandingMessages: 2})
	got := receive(t, stream, 2)
	// What is outstanding is as much as may be: the next comes only for an acknowledgement.
	for i := range 3 {
		send(&pubsubpb.StreamingPullRequest{AckIds: []string{got[i].GetAckId()}})
		got = append(got, receive(t, stream, 1)...)
		if len(got) != 3+i {
			t.Fatalf("after %d acknowledgements there are %d messages", i+1, len(got))
		}
	}
	// What is given back comes again on the same stream.
	send(&pubsubpb.StreamingPullRequest{ModifyDeadlineAckIds: []string{got[4].GetAckId()}, ModifyDeadlineSeconds: []int32{0}})
	if again := receive(t, stream, 1)[0]; again.GetMessage().GetMessageId() != got[4].GetMessage().GetMessageId() {
		t.Errorf("%v is not %v", again, got[4])
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Errorf("a stream whose client has no more to say ends with %v", err)
	}
}

func TestStreamsConfirmForExactlyOnce(t *testing.T) {
	f := open(t, t.TempDir())
	topic := f.topic("orders")
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/once", Topic: topic, EnableExactlyOnceDelivery: true, EnableMessageOrdering: true})
	f.publish(topic, text("1"))
	stream := must(f.StreamingPull(t.Context()))
	if err := stream.Send(&pubsubpb.StreamingPullRequest{Subscription: name, StreamAckDeadlineSeconds: 10}); err != nil {
		t.Fatal(err)
	}
	opened := must(stream.Recv())
	if p := opened.GetSubscriptionProperties(); !p.GetExactlyOnceDeliveryEnabled() || !p.GetMessageOrderingEnabled() {
		t.Errorf("%v", opened)
	}
	id := receive(t, stream, 1)[0].GetAckId()
	if err := stream.Send(&pubsubpb.StreamingPullRequest{AckIds: []string{id, "nonsense"}, ModifyDeadlineAckIds: []string{"nothing"}, ModifyDeadlineSeconds: []int32{20}}); err != nil {
		t.Fatal(err)
	}
	for {
		r := must(stream.Recv())
		if r.GetAcknowledgeConfirmation() == nil {
			continue
		}
		a, m := r.GetAcknowledgeConfirmation(), r.GetModifyAckDeadlineConfirmation()
		if !slices.Equal(a.GetAckIds(), []string{id}) || !slices.Equal(a.GetInvalidAckIds(), []string{"nonsense"}) || !slices.Equal(m.GetInvalidAckIds(), []string{"nothing"}) {
			t.Errorf("%v, %v", a, m)
		}
		return
	}
}

func TestStreamsRefuse(t *testing.T) {
	f := open(t, t.TempDir())
	topic := f.topic("orders")
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: topic})
	good := &pubsubpb.StreamingPullRequest{Subscription: name, StreamAckDeadlineSeconds: 10}
	for what, c := range map[string]struct {
		requests []*pubsubpb.StreamingPullRequest
		code     codes.Code
		field    string
	}{
		"no name":        {[]*pubsubpb.StreamingPullRequest{{StreamAckDeadlineSeconds: 10}}, codes.InvalidArgument, "subscription"},
		"no deadline":    {[]*pubsubpb.StreamingPullRequest{{Subscription: name}}, codes.InvalidArgument, "stream_ack_deadline_seconds"},
		"short deadline": {[]*pubsubpb.StreamingPullRequest{{Subscription: name, StreamAckDeadlineSeconds: 9}}, codes.InvalidArgument, "stream_ack_deadline_seconds"},
		"unknown":        {[]*pubsubpb.StreamingPullRequest{{Subscription: name + "x", StreamAckDeadlineSeconds: 10}}, codes.NotFound, ""},
		"name again":     {[]*pubsubpb.StreamingPullRequest{good, {Subscription: name}}, codes.InvalidArgument, "subscription"},
		"uneven":         {[]*pubsubpb.StreamingPullRequest{good, {ModifyDeadlineAckIds: []string{"a", "b"}, ModifyDeadlineSeconds: []int32{1}}}, codes.InvalidArgument, "modify_deadline_seconds"},
		"endless":        {[]*pubsubpb.StreamingPullRequest{good, {ModifyDeadlineAckIds: []string{"a"}, ModifyDeadlineSeconds: []int32{601}}}, codes.InvalidArgument, "modify_deadline_seconds"},
	} {
		stream := must(f.StreamingPull(t.Context()))
		for _, r := range c.requests {
			if err := stream.Send(r); err != nil {
				t.Fatal(err)
			}
		}
		var err error
		for err == nil {
			_, err = stream.Recv()
		}
		wants(t, what, err, c.code, c.field)
	}
}

// A stream ends, with a reason, when its subscription does.
func TestStreamsEndWithTheirSubscription(t *testing.T) {
	f := open(t, t.TempDir())
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: f.topic("orders")})
	stream := must(f.StreamingPull(t.Context()))
	if err := stream.Send(&pubsubpb.StreamingPullRequest{Subscription: name, StreamAckDeadlineSeconds: 10}); err != nil {
		t.Fatal(err)
	}
	must(stream.Recv())
	must(f.DeleteSubscription(t.Context(), &pubsubpb.DeleteSubscriptionRequest{Subscription: name}))
	var err error
	for err == nil {
		_, err = stream.Recv()
	}
	wants(t, "deleted", err, codes.NotFound, "")
}

func TestOrderingFilterAndDeadLetters(t *testing.T) {
	f := open(t, t.TempDir())
	topic, dead := f.topic("orders"), f.topic("dead")
	buried := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/buried", Topic: dead})
	name := f.subscription(&pubsubpb.Subscription{
		Name: "projects/p/subscriptions/paid", Topic: topic, EnableMessageOrdering: true, Filter: `attributes.state = "paid"`,
		DeadLetterPolicy: &pubsubpb.DeadLetterPolicy{DeadLetterTopic: dead, MaxDeliveryAttempts: 5},
		RetryPolicy:      &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(time.Millisecond), MaximumBackoff: durationpb.New(time.Millisecond)},
	})
	message := func(data, state string) *pubsubpb.PubsubMessage {
		return &pubsubpb.PubsubMessage{Data: []byte(data), Attributes: map[string]string{"state": state}, OrderingKey: "k"}
	}
	f.publish(topic, message("1", "new"), message("2", "paid"), message("3", "new"), message("4", "paid"))
	for attempt := 1; attempt <= 5; attempt++ {
		m := f.pull(name, 1)[0]
		if string(m.GetMessage().GetData()) != "2" || m.GetDeliveryAttempt() != int32(attempt) || m.GetMessage().GetOrderingKey() != "k" {
			t.Fatalf("attempt %d: %v", attempt, m)
		}
		must(f.ModifyAckDeadline(t.Context(), &pubsubpb.ModifyAckDeadlineRequest{Subscription: name, AckIds: []string{m.GetAckId()}}))
	}
	if m := f.pull(buried, 1)[0].GetMessage(); string(m.GetData()) != "2" || m.GetAttributes()["state"] != "paid" {
		t.Errorf("%v", m)
	}
	if m := f.pull(name, 1)[0]; string(m.GetMessage().GetData()) != "4" || m.GetDeliveryAttempt() != 1 {
		t.Errorf("after the dead letter: %v", m)
	}
}

// What was acknowledged, and every resource, is there after a restart.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	var topic, name string
	t.Run("before", func(t *testing.T) {
		f := open(t, dir)
		topic = f.topic("orders")
		name = f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: topic})
		must(f.CreateSchema(t.Context(), &pubsubpb.CreateSchemaRequest{Parent: "projects/p", SchemaId: "int.s_1", Schema: &pubsubpb.Schema{Type: pubsubpb.Schema_AVRO, Definition: `"int"`}}))
		f.publish(topic, text("1"), text("2"))
		must(f.Acknowledge(t.Context(), &pubsubpb.AcknowledgeRequest{Subscription: name, AckIds: []string{f.pull(name, 1)[0].GetAckId()}}))
	})
	f := open(t, dir)
	if m := f.pull(name, 1)[0].GetMessage(); string(m.GetData()) != "2" {
		t.Errorf("%v", m)
	}
	must(f.GetTopic(t.Context(), &pubsubpb.GetTopicRequest{Topic: topic}))
	if s := must(f.GetSchema(t.Context(), &pubsubpb.GetSchemaRequest{Name: "projects/p/schemas/int.s_1"})); s.GetDefinition() != `"int"` {
		t.Errorf("%v", s)
	}
}

// TestDelayedMessage waits for the time that its attribute says, which is no part of it; and is taken back by its id.
func TestDelayedMessage(t *testing.T) {
	f := open(t, t.TempDir())
	topic := f.topic("orders")
	sub := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/mail", Topic: topic})
	later := func(data, delay string) *pubsubpb.PubsubMessage {
		return &pubsubpb.PubsubMessage{Data: []byte(data), Attributes: map[string]string{"shoal-delay": delay, "kind": "gift"}}
	}
	begin := time.Now()
	ids := f.publish(topic, later("never", "1h"))
	f.publish(topic, later("soon", "300ms"))
	if err := f.broker.CancelScheduled(t.Context(), fleet.Operator, "orders", ids[0]); err != nil {
		t.Error(err)
	}
	got := f.pull(sub, 1)[0].GetMessage()
	if waited := time.Since(begin); waited < 300*time.Millisecond || string(got.GetData()) != "soon" || got.GetAttributes()["shoal-delay"] != "" || got.GetAttributes()["kind"] != "gift" {
		t.Errorf("after %v came %v", waited, got)
	}
	if n, _ := f.broker.Scheduled(); n != 0 {
		t.Errorf("%d wait", n)
	}
	_, err := f.Publish(t.Context(), &pubsubpb.PublishRequest{Topic: topic, Messages: []*pubsubpb.PubsubMessage{text("x"), later("y", "soon")}})
	wants(t, "a delay that is none", err, codes.InvalidArgument, "messages.attributes")
}

// TestClientComesBack acknowledges on its second stream what it got on its first.
func TestClientComesBack(t *testing.T) {
	f := open(t, t.TempDir())
	topic := f.topic("orders")
	sub := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/mail", Topic: topic, AckDeadlineSeconds: 600})
	f.publish(topic, text("x"))
	connect := func() pubsubpb.Subscriber_StreamingPullClient {
		s := must(f.StreamingPull(t.Context()))
		if err := s.Send(&pubsubpb.StreamingPullRequest{Subscription: sub, StreamAckDeadlineSeconds: 600, ClientId: "me"}); err != nil {
			t.Fatal(err)
		}
		return s
	}
	first := connect()
	var got []*pubsubpb.ReceivedMessage
	for len(got) == 0 {
		got = must(first.Recv()).GetReceivedMessages()
	}
	if err := first.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for { // until the server has ended it
		if _, err := first.Recv(); err != nil {
			break
		}
	}
	if err := connect().Send(&pubsubpb.StreamingPullRequest{AckIds: []string{got[0].GetAckId()}}); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); f.broker.Subscriptions()[0].Lag > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the acknowledgement has no effect")
		}
	}
}
