package pubsub

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/grpc/codes"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// Names have up to 255 characters, of every kind, in both forms; that of a manifest's subscription is longer.
func TestOddNames(t *testing.T) {
	f := open(t, t.TempDir())
	const odd = "Odd.topic~with+every%2Fcharacter-and_"
	id := odd + strings.Repeat("z", 255-len(odd))
	f.broker.Install(&fleet.Snapshot{Services: []*fleet.Service{
		{Name: "mail", Manifest: fleet.Manifest{Service: "mail", Subscribes: []fleet.Subscription{{Topic: id, Pull: true}}}},
	}})
	topic, name := "projects/p/topics/"+id, "projects/p/subscriptions/"+id
	f.subscription(&pubsubpb.Subscription{Name: name, Topic: topic})
	f.publish(topic, text("grpc"))
	body := `{"messages": [{"data": "` + base64.StdEncoding.EncodeToString([]byte("rest")) + `"}]}`
	if code, out := f.call("POST", "/v1/projects/p/topics/"+url.PathEscape(id)+":publish", body); code != http.StatusOK {
		t.Fatalf("%d %v", code, out)
	}
	for _, n := range []string{name, "projects/p/subscriptions/mail." + id} {
		got := f.pull(n, 2)
		if string(got[0].GetMessage().GetData())+string(got[1].GetMessage().GetData()) != "grpcrest" {
			t.Errorf("%s gave %v", n, got)
		}
		must(f.Acknowledge(t.Context(), &pubsubpb.AcknowledgeRequest{Subscription: n, AckIds: []string{got[0].GetAckId(), got[1].GetAckId()}}))
	}
	_, err := f.CreateTopic(t.Context(), &pubsubpb.Topic{Name: topic + "z"})
	wants(t, "a longer name", err, codes.InvalidArgument, "name")
}

// Attributes that came another way may hold what is no text: they are shown as what is legible of them, and stand in nobody's way.
func TestAttributesThatAreNoText(t *testing.T) {
	f := open(t, t.TempDir())
	topic := f.topic("orders")
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: topic, EnableMessageOrdering: true})
	message := broker.Message{Data: []byte("\xff\x00"), Attributes: map[string]string{"plain": "x", "odd\xff": "a\xffb"}, OrderingKey: "k\xff",
		Traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Tracestate: "a=\xff"}
	if _, err := f.broker.PublishMessages(t.Context(), fleet.Operator, "orders", []broker.Message{message}); err != nil {
		t.Fatal(err)
	}
	f.publish(topic, text("next"))
	stream := must(f.StreamingPull(t.Context()))
	if err := stream.Send(&pubsubpb.StreamingPullRequest{Subscription: name, StreamAckDeadlineSeconds: 10}); err != nil {
		t.Fatal(err)
	}
	streamed := receive(t, stream, 2)
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Fatal(err)
	}
	must(f.ModifyAckDeadline(t.Context(), &pubsubpb.ModifyAckDeadlineRequest{Subscription: name, AckIds: []string{streamed[0].GetAckId(), streamed[1].GetAckId()}}))
	got := f.pull(name, 2)
	if m := got[0].GetMessage(); string(m.GetData()) != "\xff\x00" || m.GetAttributes()["plain"] != "x" || !strings.HasPrefix(m.GetOrderingKey(), "k") {
		t.Errorf("%v", m)
	}
	if m := got[1].GetMessage(); string(m.GetData()) != "next" {
		t.Errorf("%v", m)
	}
}
