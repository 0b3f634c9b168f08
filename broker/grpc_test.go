package broker_test

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/bufbuild/protocompile"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// callee is a gRPC server that has one method, shop.Mailer/Placed. It keeps what it was sent, and answers as told.
type callee struct {
	mu     sync.Mutex
	bodies [][]byte
	heads  []metadata.MD
	until  []time.Time
	answer func(n int, stream grpc.ServerStream) error // n counts from 1; nil: OK
}

// raw passes messages as they are.
type raw struct{}

func (raw) Name() string                    { return "proto" }
func (raw) Marshal(v any) ([]byte, error)   { return proto.Marshal(v.(proto.Message)) }
func (raw) Unmarshal(b []byte, v any) error { *v.(*[]byte) = append([]byte(nil), b...); return nil }

func (c *callee) placed(_ any, stream grpc.ServerStream) error {
	var body []byte
	if err := stream.RecvMsg(&body); err != nil {
		return err
	}
	head, _ := metadata.FromIncomingContext(stream.Context())
	deadline, _ := stream.Context().Deadline()
	c.mu.Lock()
	c.bodies, c.heads, c.until = append(c.bodies, body), append(c.heads, head), append(c.until, deadline)
	n, answer := len(c.bodies), c.answer
	c.mu.Unlock()
	if answer != nil {
		if err := answer(n, stream); err != nil {
			return err
		}
	}
	return stream.SendMsg(&emptypb.Empty{})
}

func (c *callee) got() [][]byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bodies
}

// calling is a bench whose deliveries reach c, with the subscription of that format.
func calling(t *testing.T, c *callee, format string, settings ...func(*broker.Config)) *bench {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 the one way to see what is on the wire
	srv := grpc.NewServer(grpc.CustomCodec(rawCodec{raw{}}))
	srv.RegisterService(&grpc.ServiceDesc{ServiceName: "shop.Mailer", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{{StreamName: "Placed", Handler: c.placed, ClientStreams: true, ServerStreams: true}}}, c)
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(srv.Stop)
	out := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
	}}
	out.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(out.CloseIdleConnections)
	k := newBench(t, t.TempDir(), append(settings, func(c *broker.Config) { c.Transport = func(string) http.RoundTripper { return out } })...)
	s := shop("mailer")
	s.Services[1].Manifest.Subscribes = []fleet.Subscription{{Topic: "orders.placed", Method: "POST", Path: "/shop.Mailer/Placed", GRPC: true, Format: format}}
	k.Install(s)
	return k
}

// rawCodec is raw, as grpc.CustomCodec wants it.
type rawCodec struct{ raw }

func (rawCodec) String() string { return "proto" }

func (k *bench) settled(t *testing.T) {
	t.Helper()
	eventually(t, "it is settled", func() bool { s := k.subscription("mailer/orders.placed"); return s.Lag == 0 && s.Delivered > 0 })
}

// TestCallOfAMethod delivers an event's data as a method's own request, and its attributes as metadata.
func TestCallOfAMethod(t *testing.T) {
	c := new(callee)
	k := calling(t, c, "")
	order, err := proto.Marshal(structpb.NewStringValue("order 7"))
	if err != nil {
		t.Fatal(err)
	}
	before := time.Now()
	e := broker.Event{Topic: "orders.placed", ID: "7", Source: "/orders", Type: "placed", ContentType: "application/protobuf", Data: order, Attributes: map[string]string{"tenant": "grün"}}
	if _, err := k.Publish(t.Context(), "orders", e); err != nil {
		t.Fatal(err)
	}
	k.settled(t)
	var v structpb.Value
	if err := proto.Unmarshal(c.got()[0], &v); err != nil || v.GetStringValue() != "order 7" {
		t.Errorf("the method got %q %v", c.got()[0], err)
	}
	for name, want := range map[string]string{"ce-id": "7", "ce-source": "/orders", "ce-type": "placed", "ce-specversion": "1.0", "ce-tenant": "gr%C3%BCn",
		"ce-datacontenttype": "application/protobuf", "delivery-attempt": "1", "content-type": "application/grpc+proto"} {
		if got := c.heads[0].Get(name); len(got) != 1 || got[0] != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if len(c.heads[0].Get("idempotency-key")) != 1 || len(c.heads[0].Get("traceparent")) != 1 {
		t.Errorf("metadata %v", c.heads[0])
	}
	if left := c.until[0].Sub(before); left <= 0 || left > 2*time.Minute {
		t.Errorf("the deadline is %v from the publish", left)
	}
	seen := slices.DeleteFunc(k.seen(), func(o fleet.Observation) bool { return o.Kind != fleet.KindDelivery })
	if o := seen[0]; o.Protocol != fleet.GRPC || o.Path != "/shop.Mailer/Placed" || o.GRPCStatus != 0 || o.Failed() {
		t.Errorf("observed %+v", o)
	}
}

// TestCallWithText: what cannot be a protobuf message is not sent as one.
func TestCallWithText(t *testing.T) {
	c := new(callee)
	k := calling(t, c, "", func(c *broker.Config) { c.Attempts = 2 })
	if _, err := k.Publish(t.Context(), "orders", broker.Event{Topic: "orders.placed", ContentType: "application/json", Data: []byte("{}")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is a dead letter", func() bool { return k.subscription("mailer/orders.placed").DeadLetters == 1 })
	letters, err := k.letters("")
	if err != nil || len(c.got()) != 0 || !strings.Contains(letters[0].Failures[0].Error, "format: cloudevents") {
		t.Errorf("%v %+v", err, letters)
	}
}

const cloudEvent = `syntax = "proto3"; package io.cloudevents.v1;
import "google/protobuf/any.proto"; import "google/protobuf/timestamp.proto";
message CloudEvent {
  string id = 1; string source = 2; string spec_version = 3; string type = 4;
  map<string, Value> attributes = 5;
  oneof data { bytes binary_data = 6; string text_data = 7; google.protobuf.Any proto_data = 8; }
  message Value { oneof attr { bool ce_boolean = 1; int32 ce_integer = 2; string ce_string = 3; bytes ce_bytes = 4; string ce_uri = 5; string ce_uri_ref = 6; google.protobuf.Timestamp ce_timestamp = 7; } }
}`

// TestCallWithACloudEvent reads what the method gets by the format's own definition.
func TestCallWithACloudEvent(t *testing.T) {
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
		Accessor: protocompile.SourceAccessorFromMap(map[string]string{"ce.proto": cloudEvent})})}
	files, err := compiler.Compile(t.Context(), "ce.proto")
	if err != nil {
		t.Fatal(err)
	}
	c := new(callee)
	k := calling(t, c, fleet.FormatCloudEvents)
	text := broker.Event{ID: "1", ContentType: "application/json", Data: []byte(`{"n":1}`),
		Attributes: map[string]string{"time": "2026-01-02T03:04:05.5Z", "dataschema": "http://s", "subject": "s"}}
	packed := broker.Event{ID: "2", ContentType: "application/protobuf", Data: []byte{10, 1, 'x'}, Attributes: map[string]string{"dataschema": "type.googleapis.com/google.protobuf.StringValue"}}
	binary := broker.Event{ID: "3", ContentType: "image/png", Data: []byte{0xff, 0}}
	for i, want := range []string{
		`{"id":"1","source":"orders","specVersion":"1.0","type":"orders.placed","textData":"{\"n\":1}","attributes":{"datacontenttype":{"ceString":"application/json"},
		  "time":{"ceTimestamp":"2026-01-02T03:04:05.500Z"},"dataschema":{"ceUri":"http://s"},"subject":{"ceString":"s"}}}`,
		`{"id":"2","source":"orders","specVersion":"1.0","type":"orders.placed","protoData":{"@type":"type.googleapis.com/google.protobuf.StringValue","value":"x"},
		  "attributes":{"datacontenttype":{"ceString":"application/protobuf"},"dataschema":{"ceUri":"type.googleapis.com/google.protobuf.StringValue"}}}`,
		`{"id":"3","source":"orders","specVersion":"1.0","type":"orders.placed","binaryData":"/wA=","attributes":{"datacontenttype":{"ceString":"image/png"}}}`,
	} {
		e := []broker.Event{text, packed, binary}[i]
		e.Topic = "orders.placed"
		if _, err := k.Publish(t.Context(), "orders", e); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the call", func() bool { return len(c.got()) == i+1 })
		got, wanted := dynamicpb.NewMessage(files[0].Messages().Get(0)), dynamicpb.NewMessage(files[0].Messages().Get(0))
		if err := protojson.Unmarshal([]byte(want), wanted); err != nil {
			t.Fatal(err)
		}
		err := proto.Unmarshal(c.got()[i], got)
		got.Mutable(got.Descriptor().Fields().ByName("attributes")).Map().Clear(protoreflect.ValueOfString("traceparent").MapKey()) // which is made up
		if err != nil || !proto.Equal(got, wanted) {
			t.Errorf("the method got %v %v, want %v", got, err, wanted)
		}
	}
}

func TestCallWithAPubsubMessage(t *testing.T) {
	c := new(callee)
	k := calling(t, c, fleet.FormatPubSub)
	m := broker.Message{Data: []byte("x"), Attributes: map[string]string{"a": "b", "empty": ""}, OrderingKey: "k"}
	ids, err := k.PublishMessages(t.Context(), "orders", "orders.placed", []broker.Message{m})
	if err != nil {
		t.Fatal(err)
	}
	k.settled(t)
	var got pubsubpb.PubsubMessage
	if err := proto.Unmarshal(c.got()[0], &got); err != nil {
		t.Fatal(err)
	}
	if string(got.Data) != "x" || got.Attributes["a"] != "b" || len(got.Attributes) != 2 || got.OrderingKey != "k" || got.MessageId != ids[0] || time.Since(got.PublishTime.AsTime()) > patience {
		t.Errorf("the method got %v", &got)
	}
	if name := c.heads[0].Get("x-goog-pubsub-subscription-name"); len(name) != 1 || name[0] != "projects/shop/subscriptions/mailer.orders.placed" {
		t.Errorf("the subscription is %q", name)
	}
}

// TestCallWithAnyByte has attributes and a key that are no text: whatever the method takes, it gets a message that can be read, and metadata that
// nobody slipped in.
func TestCallWithAnyByte(t *testing.T) {
	for format, message := range map[string]proto.Message{fleet.FormatPubSub: new(pubsubpb.PubsubMessage), fleet.FormatCloudEvents: new(emptypb.Empty), "": new(structpb.Value)} {
		c := new(callee)
		k := calling(t, c, format)
		data, err := proto.Marshal(structpb.NewStringValue("x"))
		if err != nil {
			t.Fatal(err)
		}
		m := broker.Message{Data: data, Attributes: anyBytes(), OrderingKey: "key\xff\r\n", Tracestate: "a=\x01\r\nInjected: yes"}
		delete(m.Attributes, "Content-Type") // which says here what the data is
		if _, err := k.PublishMessages(t.Context(), "orders", "orders.placed", []broker.Message{m}); err != nil {
			t.Fatal(err)
		}
		k.settled(t)
		if err := proto.Unmarshal(c.got()[0], message); err != nil {
			t.Errorf("format %q: %v", format, err)
		}
		if head := c.heads[0]; len(head.Get("injected"))+len(head.Get("shoal-caller")) > 0 {
			t.Errorf("format %q: metadata %v", format, head)
		}
		if got, ok := message.(*pubsubpb.PubsubMessage); ok && (got.GetOrderingKey() != "key\uFFFD\r\n" || got.GetAttributes()["\uFFFD\x00 name"] != "x" || got.GetAttributes()["line"] != m.Attributes["line"]) {
			t.Errorf("the method got %v", got)
		}
	}
}

// TestRefusedCalls has a method that fails: attempts say how, and what it asks is heeded. A call that it asks to come later for is no attempt.
func TestRefusedCalls(t *testing.T) {
	busy := grpcstatus.New(codes.ResourceExhausted, "the queue is füll")
	detailed, err := busy.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(300 * time.Millisecond)})
	if err != nil {
		t.Fatal(err)
	}
	var refused time.Time
	c := &callee{answer: func(n int, stream grpc.ServerStream) error {
		switch n {
		case 1:
			refused = time.Now()
			return detailed.Err()
		case 2:
			if waited := time.Since(refused); waited < 300*time.Millisecond {
				t.Errorf("called again after %v", waited)
			}
			refused = time.Now()
			stream.SetTrailer(metadata.Pairs("grpc-retry-pushback-ms", "200"))
			return grpcstatus.Error(codes.Unavailable, "moving")
		case 3:
			if waited := time.Since(refused); waited < 200*time.Millisecond {
				t.Errorf("called again after %v", waited)
			}
			return grpcstatus.Error(codes.InvalidArgument, "no such order")
		}
		return grpcstatus.Error(codes.Internal, "bug")
	}}
	k := calling(t, c, "", func(c *broker.Config) { c.Attempts = 4 })
	k.publish("one")
	eventually(t, "it is a dead letter", func() bool { return k.subscription("mailer/orders.placed").DeadLetters == 1 })
	letters, err := k.letters("")
	if err != nil || len(letters) != 1 || len(letters[0].Failures) != 4 {
		t.Fatalf("%v %+v", err, letters)
	}
	for i, want := range []string{"INVALID_ARGUMENT: no such order", "INTERNAL: bug", "INTERNAL: bug", "INTERNAL: bug"} {
		if got := letters[0].Failures[i].Error; got != want {
			t.Errorf("attempt %d: %q, want %q", i+1, got, want)
		}
	}
}

// TestCallOfNoMethod: a server without the method says so.
func TestCallOfNoMethod(t *testing.T) {
	k := calling(t, new(callee), "", func(c *broker.Config) { c.Attempts = 1 })
	s := shop("mailer")
	s.Services[1].Version++
	s.Services[1].Manifest.Subscribes = []fleet.Subscription{{Topic: "orders.placed", Method: "POST", Path: "/shop.Mailer/Other", GRPC: true}}
	k.Install(s)
	k.publish("one")
	eventually(t, "it failed", func() bool {
		return strings.Contains(k.subscription("mailer/orders.placed").LastError, "UNIMPLEMENTED: unknown method Other")
	})
}
