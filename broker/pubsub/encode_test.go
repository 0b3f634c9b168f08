package pubsub

import (
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/protobuf/proto"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// A stream, whose answers we encode ourselves, and a pull, whose answers protobuf does, say the same of every message. What is no valid
// UTF-8, which other ways in let pass, does not make a client drop the answer.
func TestStreamsAndPullsSayTheSame(t *testing.T) {
	f := open(t, t.TempDir())
	topic := f.topic("orders")
	var names []string
	for _, id := range []string{"pulled", "streamed"} {
		names = append(names, f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/" + id, Topic: topic, EnableMessageOrdering: true,
			DeadLetterPolicy: &pubsubpb.DeadLetterPolicy{DeadLetterTopic: topic, MaxDeliveryAttempts: 5}}))
	}
	messages := []broker.Message{
		{Data: []byte("plain")},
		{Attributes: map[string]string{"only": "attributes", "empty": ""}},
		{Data: make([]byte, 300<<10), OrderingKey: "a key", Attributes: map[string]string{"long": string(make([]byte, 1024)), "ü": "ö"}},
		{Data: []byte{0xff}, OrderingKey: "\xff", Attributes: map[string]string{"bytes": "a\xff\xfeb"}, Tracestate: "vendor=1",
			Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
	}
	if _, err := f.broker.PublishMessages(t.Context(), fleet.Operator, "orders", messages); err != nil {
		t.Fatal(err)
	}
	pulled := f.pull(names[0], len(messages))
	stream := must(f.StreamingPull(t.Context()))
	if err := stream.Send(&pubsubpb.StreamingPullRequest{Subscription: names[1], StreamAckDeadlineSeconds: 10}); err != nil {
		t.Fatal(err)
	}
	var streamed []*pubsubpb.ReceivedMessage
	for len(streamed) < len(messages) {
		answer := must(stream.Recv())
		if !answer.GetSubscriptionProperties().GetMessageOrderingEnabled() || answer.GetSubscriptionProperties().GetExactlyOnceDeliveryEnabled() {
			t.Errorf("the subscription is told to be %v", answer.GetSubscriptionProperties())
		}
		streamed = append(streamed, answer.GetReceivedMessages()...)
	}
	for i, m := range streamed {
		if m.GetAckId() == "" || m.GetMessage().GetAttributes()[broker.ClientTraceparent] == "" {
			t.Errorf("message %d came as %v", i, m)
		}
		for _, one := range []*pubsubpb.ReceivedMessage{m, pulled[i]} { // each delivery has its own
			one.AckId = ""
			delete(one.GetMessage().GetAttributes(), broker.ClientTraceparent)
		}
		if !proto.Equal(m, pulled[i]) {
			t.Errorf("message %d is streamed as\n%v\nand pulled as\n%v", i, m, pulled[i])
		}
	}
	if got := streamed[3].GetMessage().GetAttributes()["bytes"]; got != "a\uFFFDb" {
		t.Errorf("bytes that are no text came as %q", got)
	}
}
