package pubsub

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	cloudevents "github.com/cloudevents/sdk-go/v2"

	"github.com/shoalrun/shoal/fleet"
)

// What the CloudEvents SDK publishes over HTTP is pulled here with its attributes as the Pub/Sub binding has them, and what is published
// here arrives at the SDK's receiver as a CloudEvent.
func TestCloudEventsAndMessagesAreOne(t *testing.T) {
	received := make(chan cloudevents.Event, 9)
	receiver, err := cloudevents.NewHTTPReceiveHandler(t.Context(), must(cloudevents.NewHTTP()), func(e cloudevents.Event) { received <- e })
	if err != nil {
		t.Fatal(err)
	}
	mail := httptest.NewServer(receiver)
	defer mail.Close()
	f := openTo(t, t.TempDir(), toward(mail))
	f.broker.Install(&fleet.Snapshot{Services: []*fleet.Service{
		{Name: "web", Manifest: fleet.Manifest{Service: "web", Publishes: []string{"orders"}}},
		{Name: "mail", Deployed: true, Manifest: fleet.Manifest{Service: "mail", Subscribes: []fleet.Subscription{{Topic: "orders", Method: "POST", Path: "/"}}}},
	}})
	name := f.subscription(&pubsubpb.Subscription{Name: "projects/p/subscriptions/all", Topic: "projects/p/topics/orders"})

	events := httptest.NewUnstartedServer(f.broker.Handler())
	events.Listener = callers{events.Listener}
	events.Config.ConnContext = f.broker.ConnContext
	events.Start()
	defer events.Close()
	sent := cloudevents.NewEvent()
	sent.SetID("7")
	sent.SetSource("/web")
	sent.SetType("order.placed")
	sent.SetExtension("region", "eu")
	_ = sent.SetData("text/plain", "hello")
	client := must(cloudevents.NewClientHTTP(cloudevents.WithTarget(events.URL + "/orders")))
	if result := client.Send(t.Context(), sent); !cloudevents.IsACK(result) {
		t.Fatal(result)
	}
	m := f.pull(name, 1)[0].GetMessage()
	for attribute, want := range map[string]string{
		"ce-specversion": "1.0", "ce-id": "7", "ce-source": "/web", "ce-type": "order.placed", "ce-region": "eu", "Content-Type": "text/plain",
	} {
		if m.GetAttributes()[attribute] != want {
			t.Errorf("%s is %q, want %q", attribute, m.GetAttributes()[attribute], want)
		}
	}
	if string(m.GetData()) != "hello" {
		t.Errorf("%q", m.GetData())
	}
	if e := <-received; e.ID() != "7" || e.Type() != "order.placed" || string(e.Data()) != "hello" {
		t.Errorf("%v", e)
	}

	ids := f.publish("projects/p/topics/orders", &pubsubpb.PubsubMessage{Data: []byte("plain"), Attributes: map[string]string{"region": "us", "Not-Legal": "x"}})
	if e := <-received; e.ID() != ids[0] || e.Source() != fleet.Operator || e.Type() != "orders" || e.Extensions()["region"] != "us" || len(e.Extensions()) != 1 || string(e.Data()) != "plain" {
		t.Errorf("%v", e)
	}
	f.publish("projects/p/topics/orders", &pubsubpb.PubsubMessage{Data: []byte("bound"), Attributes: m.GetAttributes()})
	if e := <-received; e.ID() != "7" || e.Source() != "/web" || e.Type() != "order.placed" || e.Extensions()["region"] != "eu" {
		t.Errorf("%v", e)
	}
}

// toward sends every delivery to one server.
func toward(s *httptest.Server) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		r.URL.Host = s.Listener.Addr().String()
		return http.DefaultTransport.RoundTrip(r)
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
