package pubsub

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// front is a broker with the API in front of it, on a real socket.
type front struct {
	t       *testing.T
	server  *Server
	broker  *broker.Broker
	address string
	caller  atomic.Value // string: who the next connections are
	pubsubpb.PublisherClient
	pubsubpb.SubscriberClient
	pubsubpb.SchemaServiceClient
}

// as is a connection that tells its caller.
type as struct {
	net.Conn
	caller string
}

func (c as) Caller() string { return c.caller }

// callers is a listener whose connections are an operator's.
type callers struct{ net.Listener }

func (l callers) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return as{c, fleet.Operator}, err
}

func open(t *testing.T, dir string) *front { return openTo(t, dir, http.DefaultTransport) }

// openTo opens one whose deliveries leave by out.
func openTo(t *testing.T, dir string, out http.RoundTripper) *front {
	t.Helper()
	f := &front{t: t}
	f.caller.Store(fleet.Operator)
	var err error
	f.broker, err = broker.New(broker.Config{
		Dir: dir, Transport: func(string) http.RoundTripper { return out },
		Check: func(s *broker.TopicSchema, data []byte) (map[string]string, error) { return f.server.Check(s, data) },
		Token: func(ctx context.Context, email, audience string) (string, error) {
			return f.server.Token(ctx, email, audience)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if f.server, err = New(t.Context(), Config{Broker: f.broker, Store: f.broker.Store(), Project: "shop"}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- f.broker.Run(ctx) }()
	served, end := context.WithCancel(ctx)
	serving := make(chan struct{})
	go func() { done <- f.server.Run(served); close(serving) }()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f.address = l.Addr().String()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.server.ServeConn(as{c, f.caller.Load().(string)})
		}
	}()
	t.Cleanup(func() {
		l.Close()
		end()
		<-serving
		stop()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
	f.dial()
	return f
}

// dial opens clients; each new connection is the caller's.
func (f *front) dial() {
	f.t.Helper()
	conn, err := grpc.NewClient(f.address, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(20<<20)))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	f.PublisherClient, f.SubscriberClient, f.SchemaServiceClient = pubsubpb.NewPublisherClient(conn), pubsubpb.NewSubscriberClient(conn), pubsubpb.NewSchemaServiceClient(conn)
}

func (f *front) topic(id string) string {
	f.t.Helper()
	return must(f.CreateTopic(f.t.Context(), &pubsubpb.Topic{Name: "projects/p/topics/" + id})).GetName()
}

func (f *front) subscription(in *pubsubpb.Subscription) string {
	f.t.Helper()
	return must(f.CreateSubscription(f.t.Context(), in)).GetName()
}

func (f *front) publish(topic string, messages ...*pubsubpb.PubsubMessage) []string {
	f.t.Helper()
	return must(f.Publish(f.t.Context(), &pubsubpb.PublishRequest{Topic: topic, Messages: messages})).GetMessageIds()
}

func text(s string) *pubsubpb.PubsubMessage { return &pubsubpb.PubsubMessage{Data: []byte(s)} }

// pull pulls until it has n messages.
func (f *front) pull(subscription string, n int) []*pubsubpb.ReceivedMessage {
	f.t.Helper()
	var got []*pubsubpb.ReceivedMessage
	for len(got) < n {
		r := must(f.Pull(f.t.Context(), &pubsubpb.PullRequest{Subscription: subscription, MaxMessages: int32(n - len(got))}))
		got = append(got, r.GetReceivedMessages()...)
	}
	return got
}

// pullNow pulls what is there.
func (f *front) pullNow(subscription string) []*pubsubpb.ReceivedMessage {
	f.t.Helper()
	//lint:ignore SA1019 deprecated, and in use
	return must(f.Pull(f.t.Context(), &pubsubpb.PullRequest{Subscription: subscription, MaxMessages: 9, ReturnImmediately: true})).GetReceivedMessages()
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// wants fails unless err has that code and, where field is not empty, a violation of that field.
func wants(t *testing.T, what string, err error, code codes.Code, field string) {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != code {
		t.Errorf("%s: %v, want %v", what, err, code)
		return
	}
	for _, d := range s.Details() {
		if bad, ok := d.(*errdetails.BadRequest); ok && bad.GetFieldViolations()[0].GetField() == field {
			return
		}
	}
	if field != "" {
		t.Errorf("%s: %v does not name the field %s: %v", what, err, field, s.Details())
	}
}

// call makes a request of the REST form, and reads its answer.
func (f *front) call(method, path, body string) (int, map[string]any) {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), method, "http://"+f.address+path, bytes.NewReader([]byte(body)))
	if err != nil {
		f.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(data, &out); err != nil {
		f.t.Fatalf("%s %s: %d %q: %v", method, path, resp.StatusCode, data, err)
	}
	return resp.StatusCode, out
}
