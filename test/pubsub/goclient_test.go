//go:build unix

package pubsub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	vkit "cloud.google.com/go/pubsub/v2/apiv1"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// project is any: the fleet is one.
const project = "shop"

// client is the official client with a topic and a subscription of the test's own.
type client struct {
	*testing.T
	*pubsub.Client
	topic, subscription string // full names
}

func open(t *testing.T, edit func(*pubsubpb.Subscription)) *client {
	t.Helper()
	c, err := pubsub.NewClient(t.Context(), project)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	id := strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())
	o := &client{t, c, "projects/" + project + "/topics/" + id, "projects/" + project + "/subscriptions/" + id}
	o.newTopic(o.topic)
	in := &pubsubpb.Subscription{Name: o.subscription, Topic: o.topic}
	if edit != nil {
		edit(in)
	}
	o.newSubscription(in)
	return o
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (c *client) newTopic(name string) {
	c.Helper()
	_, err := c.TopicAdminClient.CreateTopic(c.Context(), &pubsubpb.Topic{Name: name})
	must(c.T, err)
}

func (c *client) newSubscription(in *pubsubpb.Subscription) {
	c.Helper()
	_, err := c.SubscriptionAdminClient.CreateSubscription(c.Context(), in)
	must(c.T, err)
}

// publish publishes texts, in order, and waits until they are durable.
func (c *client) publish(edit func(*pubsub.Message), texts ...string) {
	c.Helper()
	p := c.Publisher(c.topic)
	p.EnableMessageOrdering = true
	defer p.Stop()
	var results []*pubsub.PublishResult
	for _, text := range texts {
		m := &pubsub.Message{Data: []byte(text)}
		if edit != nil {
			edit(m)
		}
		results = append(results, p.Publish(c.Context(), m))
	}
	for _, r := range results {
		if _, err := r.Get(c.Context()); err != nil {
			c.Fatal(err)
		}
	}
}

// receive hands messages to each until that returns true.
func (c *client) receive(subscription string, settings pubsub.ReceiveSettings, each func(*pubsub.Message) (done bool)) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), patience)
	defer cancel()
	var done atomic.Bool
	s := c.Subscriber(subscription)
	s.ReceiveSettings = settings
	err := s.Receive(ctx, func(_ context.Context, m *pubsub.Message) {
		if each(m) {
			done.Store(true)
			cancel()
		}
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		c.Fatal(err)
	}
	if !done.Load() {
		c.Fatal("what was awaited did not come")
	}
}

// take acknowledges n messages and returns their data.
func (c *client) take(subscription string, n int) []string {
	c.Helper()
	var mu sync.Mutex
	var got []string
	c.receive(subscription, pubsub.ReceiveSettings{}, func(m *pubsub.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		m.Ack()
		got = append(got, string(m.Data))
		return len(got) == n
	})
	return got
}

func numbers(n int) []string {
	var out []string
	for i := range n {
		out = append(out, strconv.Itoa(i))
	}
	return out
}

func TestGoOrdering(t *testing.T) {
	c := open(t, func(s *pubsubpb.Subscription) { s.EnableMessageOrdering = true })
	for _, key := range []string{"a", "b"} {
		c.publish(func(m *pubsub.Message) { m.OrderingKey = key }, numbers(200)...)
	}
	var mu sync.Mutex
	got := map[string][]string{}
	failed := false
	c.receive(c.subscription, pubsub.ReceiveSettings{}, func(m *pubsub.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		if string(m.Data) == "100" && m.OrderingKey == "a" && !failed {
			failed = true
			m.Nack()
			return false
		}
		got[m.OrderingKey] = append(got[m.OrderingKey], string(m.Data))
		m.Ack()
		return ends(got["a"], "100") && ends(got["b"], "0")
	})
	if !slices.Equal(got["b"], numbers(200)) {
		t.Errorf("key b: %v", got["b"])
	}
	// What was on its way when the nack came is there twice: before the message that failed, and again after it.
	i := slices.Index(got["a"], "100")
	if before := got["a"][:i]; !slices.Equal(before[:100], numbers(100)) {
		t.Errorf("key a, before the message that failed: %v", before)
	}
	if after := got["a"][i:]; !slices.Equal(after, numbers(200)[100:]) {
		t.Errorf("key a, from the message that failed: %v", after)
	}
}

// ends reports whether everything from one number on is there, to the last.
func ends(got []string, from string) bool {
	i := slices.Index(got, from)
	return i >= 0 && slices.Contains(got[i:], "199")
}

// Tests that wait for a lease or a backoff wait together, after those that kill the hub.
func TestGoLeaseExtension(t *testing.T) {
	t.Parallel()
	c := open(t, func(s *pubsubpb.Subscription) { s.AckDeadlineSeconds = 10 })
	c.publish(nil, "slow")
	var deliveries atomic.Int32
	c.receive(c.subscription, pubsub.ReceiveSettings{MaxDurationPerAckExtension: 10 * time.Second, MinDurationPerAckExtension: 10 * time.Second}, func(m *pubsub.Message) bool {
		deliveries.Add(1)
		<-time.After(14 * time.Second) // longer than the deadline: the client extends it
		m.Ack()
		return true
	})
	if n := deliveries.Load(); n != 1 {
		t.Errorf("%d deliveries of a message whose lease was extended", n)
	}
}

func TestGoNackBackoff(t *testing.T) {
	t.Parallel()
	c := open(t, func(s *pubsubpb.Subscription) {
		s.RetryPolicy = &pubsubpb.RetryPolicy{MinimumBackoff: durationpb.New(time.Second), MaximumBackoff: durationpb.New(2 * time.Second)}
	})
	c.publish(nil, "x")
	var times []time.Time
	var mu sync.Mutex
	c.receive(c.subscription, pubsub.ReceiveSettings{}, func(m *pubsub.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		if times = append(times, time.Now()); len(times) == 3 {
			m.Ack()
			return true
		}
		m.Nack()
		return false
	})
	for i := range 2 {
		if gap := times[i+1].Sub(times[i]); gap < 900*time.Millisecond {
			t.Errorf("attempt %d came after %v: the least backoff is 1 s", i+2, gap)
		}
	}
}

func TestGoDeadLetter(t *testing.T) {
	c := open(t, nil)
	dead := c.topic + "-dead"
	c.newTopic(dead)
	buried, poisoned := c.subscription+"-dead", c.subscription+"-poisoned"
	c.newSubscription(&pubsubpb.Subscription{Name: buried, Topic: dead})
	c.newSubscription(&pubsubpb.Subscription{Name: poisoned, Topic: c.topic, DeadLetterPolicy: &pubsubpb.DeadLetterPolicy{DeadLetterTopic: dead, MaxDeliveryAttempts: 5}})
	c.publish(func(m *pubsub.Message) { m.Attributes = map[string]string{"k": "v"} }, "poison")
	var attempts []int
	var mu sync.Mutex
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	nacking := make(chan error, 1)
	go func() {
		nacking <- c.Subscriber(poisoned).Receive(ctx, func(_ context.Context, m *pubsub.Message) {
			mu.Lock()
			defer mu.Unlock()
			if m.DeliveryAttempt != nil {
				attempts = append(attempts, *m.DeliveryAttempt)
			}
			m.Nack()
		})
	}()
	c.receive(buried, pubsub.ReceiveSettings{}, func(m *pubsub.Message) bool {
		m.Ack()
		if string(m.Data) != "poison" || m.Attributes["k"] != "v" {
			t.Errorf("%s %v", m.Data, m.Attributes)
		}
		return true
	})
	cancel()
	must(t, <-nacking)
	if !slices.Equal(attempts, []int{1, 2, 3, 4, 5}) {
		t.Errorf("attempts %v", attempts)
	}
}

func TestGoFilter(t *testing.T) {
	c := open(t, func(s *pubsubpb.Subscription) {
		s.Filter = `attributes.kind = "paid" AND NOT hasPrefix(attributes.from, "test-")`
	})
	i := 0
	c.publish(func(m *pubsub.Message) {
		m.Attributes = []map[string]string{{"kind": "paid"}, {"kind": "new"}, {"kind": "paid", "from": "test-1"}, {"kind": "paid", "from": "shop"}}[i]
		i++
	}, "0", "1", "2", "3")
	if got := c.take(c.subscription, 2); !slices.Contains(got, "0") || !slices.Contains(got, "3") {
		t.Errorf("%v", got)
	}
}

func TestGoSeekAndSnapshot(t *testing.T) {
	c := open(t, func(s *pubsubpb.Subscription) { s.RetainAckedMessages = true })
	snapshot := "projects/" + project + "/snapshots/" + t.Name()
	c.publish(nil, "0", "1")
	_, err := c.SubscriptionAdminClient.CreateSnapshot(t.Context(), &pubsubpb.CreateSnapshotRequest{Name: snapshot, Subscription: c.subscription})
	must(t, err)
	between := time.Now()
	c.publish(nil, "2")
	c.take(c.subscription, 3)
	seek := func(r *pubsubpb.SeekRequest) {
		t.Helper()
		r.Subscription = c.subscription
		_, err := c.SubscriptionAdminClient.Seek(t.Context(), r)
		must(t, err)
	}
	seek(&pubsubpb.SeekRequest{Target: &pubsubpb.SeekRequest_Time{Time: timestamppb.New(between)}})
	if got := c.take(c.subscription, 1); got[0] != "2" {
		t.Errorf("after a seek to the time before the last message: %v", got)
	}
	seek(&pubsubpb.SeekRequest{Target: &pubsubpb.SeekRequest_Snapshot{Snapshot: snapshot}})
	if got := c.take(c.subscription, 3); len(got) != 3 {
		t.Errorf("after a seek to the snapshot: %v", got)
	}
}

func TestGoExactlyOnce(t *testing.T) {
	c := open(t, func(s *pubsubpb.Subscription) { s.EnableExactlyOnceDelivery = true })
	const n = 300
	c.publish(nil, numbers(n)...)
	var mu sync.Mutex
	acked := map[string]int{}
	c.receive(c.subscription, pubsub.ReceiveSettings{}, func(m *pubsub.Message) bool {
		result := m.AckWithResult()
		status, err := result.Get(t.Context())
		if err != nil || status != pubsub.AcknowledgeStatusSuccess {
			t.Errorf("%s: %v, %v", m.Data, status, err)
		}
		mu.Lock()
		defer mu.Unlock()
		acked[string(m.Data)]++
		return len(acked) == n
	})
	for text, times := range acked {
		if times != 1 {
			t.Errorf("%s was acknowledged %d times with success", text, times)
		}
	}
}

// Of an exactly-once subscription an acknowledgement after the lease's end is of no use, and the client tells the application so.
func TestGoLateAcknowledgement(t *testing.T) {
	t.Parallel()
	c := open(t, func(s *pubsubpb.Subscription) { s.EnableExactlyOnceDelivery = true })
	c.publish(nil, "late")
	again := make(chan struct{})
	type answer struct {
		status pubsub.AcknowledgeStatus
		err    error
	}
	late := make(chan answer, 1)
	var deliveries atomic.Int32
	settings := pubsub.ReceiveSettings{MaxExtension: -1, MinDurationPerAckExtension: 10 * time.Second, MaxDurationPerAckExtension: 10 * time.Second}
	c.receive(c.subscription, settings, func(m *pubsub.Message) bool {
		if deliveries.Add(1) == 1 {
			select {
			case <-again: // so the lease is over
			case <-t.Context().Done():
			}
			status, err := m.AckWithResult().Get(t.Context())
			late <- answer{status, err}
			return false
		}
		close(again)
		if got := <-late; got.status != pubsub.AcknowledgeStatusInvalidAckID || got.err == nil || !strings.Contains(got.err.Error(), "PERMANENT_FAILURE_INVALID_ACK_ID") {
			t.Errorf("a late acknowledgement: %v, %v", got.status, got.err)
		}
		if status, err := m.AckWithResult().Get(t.Context()); status != pubsub.AcknowledgeStatusSuccess || err != nil {
			t.Errorf("the acknowledgement of the second delivery: %v, %v", status, err)
		}
		return true
	})
	if n := deliveries.Load(); n != 2 {
		t.Errorf("%d deliveries", n)
	}
}

// Who may hold five messages gets no sixth: the others are there for another client.
func TestGoFlowControl(t *testing.T) {
	c := open(t, nil)
	c.publish(nil, numbers(50)...)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	holding, release := make(chan string, 50), make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		s := c.Subscriber(c.subscription)
		s.ReceiveSettings.MaxOutstandingMessages, s.ReceiveSettings.NumGoroutines = 5, 1
		ended <- s.Receive(ctx, func(_ context.Context, m *pubsub.Message) {
			holding <- string(m.Data)
			<-release
			m.Ack()
		})
	}()
	var all []string
	for range 5 {
		select {
		case text := <-holding:
			all = append(all, text)
		case <-ctx.Done():
			t.Fatalf("only %q came", all)
		}
	}
	all = append(all, c.take(c.subscription, 45)...)
	slices.Sort(all)
	if got := slices.Compact(all); len(got) != 50 || len(holding) != 0 {
		t.Errorf("%d messages, and %d more that are held", len(got), len(holding))
	}
	close(release)
	cancel()
	must(t, <-ended)
}

func TestGoSchemas(t *testing.T) {
	schemas, err := vkit.NewSchemaClient(t.Context(), option.WithEndpoint(up.host), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	must(t, err)
	defer schemas.Close()
	made, err := schemas.CreateSchema(t.Context(), &pubsubpb.CreateSchemaRequest{Parent: "projects/" + project, SchemaId: t.Name(), Schema: &pubsubpb.Schema{
		Type: pubsubpb.Schema_AVRO, Definition: `{"type": "record", "name": "R", "fields": [{"name": "id", "type": "long"}]}`,
	}})
	must(t, err)
	c := open(t, nil)
	checked := c.topic + "-checked"
	_, err = c.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: checked, SchemaSettings: &pubsubpb.SchemaSettings{Schema: made.GetName(), Encoding: pubsubpb.Encoding_JSON}})
	must(t, err)
	c.newSubscription(&pubsubpb.Subscription{Name: c.subscription + "-checked", Topic: checked})
	p := c.Publisher(checked)
	defer p.Stop()
	if _, err := p.Publish(t.Context(), &pubsub.Message{Data: []byte(`{"id": "x"}`)}).Get(t.Context()); err == nil || !strings.Contains(err.Error(), "id: an integer") {
		t.Errorf("a message that breaks the schema: %v", err)
	}
	_, err = p.Publish(t.Context(), &pubsub.Message{Data: []byte(`{"id": 7}`)}).Get(t.Context())
	must(t, err)
	c.receive(c.subscription+"-checked", pubsub.ReceiveSettings{}, func(m *pubsub.Message) bool {
		m.Ack()
		if m.Attributes["googclient_schemaencoding"] != "JSON" || m.Attributes["googclient_schemarevisionid"] != made.GetRevisionId() || m.Attributes["googclient_schemaname"] != made.GetName() {
			t.Errorf("%v", m.Attributes)
		}
		return true
	})
	// What is published otherwise obeys it, too, and comes with the same attributes.
	id := checked[strings.LastIndex(checked, "/")+1:]
	if out, err := up.run("publish", id, "-d", `{"id": "x"}`); err == nil || !strings.Contains(out, "id: an integer") {
		t.Errorf("a CloudEvent that breaks the schema: %v %s", err, out)
	}
	if out, err := up.run("publish", id, "-d", `{"id": 8}`, "-H", "kind: gift"); err != nil {
		t.Error(err, out)
	}
	c.receive(c.subscription+"-checked", pubsub.ReceiveSettings{}, func(m *pubsub.Message) bool {
		m.Ack()
		if m.Attributes["ce-kind"] != "gift" || m.Attributes["googclient_schemaencoding"] != "JSON" || m.Attributes["googclient_schemarevisionid"] != made.GetRevisionId() {
			t.Errorf("%v", m.Attributes)
		}
		return true
	})
}

// Messages of a protobuf schema are published in its binary form.
func TestGoBinarySchema(t *testing.T) {
	schemas, err := vkit.NewSchemaClient(t.Context(), option.WithEndpoint(up.host), option.WithoutAuthentication(),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(insecure.NewCredentials())))
	must(t, err)
	defer schemas.Close()
	made, err := schemas.CreateSchema(t.Context(), &pubsubpb.CreateSchemaRequest{Parent: "projects/" + project, SchemaId: t.Name(), Schema: &pubsubpb.Schema{
		Type: pubsubpb.Schema_PROTOCOL_BUFFER, Definition: `syntax = "proto3"; message Order { int64 id = 1; }`,
	}})
	must(t, err)
	c := open(t, nil)
	checked := c.topic + "-checked"
	_, err = c.TopicAdminClient.CreateTopic(t.Context(), &pubsubpb.Topic{Name: checked, SchemaSettings: &pubsubpb.SchemaSettings{Schema: made.GetName(), Encoding: pubsubpb.Encoding_BINARY}})
	must(t, err)
	c.newSubscription(&pubsubpb.Subscription{Name: c.subscription + "-checked", Topic: checked})
	p := c.Publisher(checked)
	defer p.Stop()
	if _, err := p.Publish(t.Context(), &pubsub.Message{Data: []byte("\x12\x01x")}).Get(t.Context()); err == nil {
		t.Error("a message with another field is accepted")
	}
	_, err = p.Publish(t.Context(), &pubsub.Message{Data: []byte("\x08\x07")}).Get(t.Context())
	must(t, err)
	c.receive(c.subscription+"-checked", pubsub.ReceiveSettings{}, func(m *pubsub.Message) bool {
		m.Ack()
		if string(m.Data) != "\x08\x07" || m.Attributes["googclient_schemaencoding"] != "BINARY" || m.Attributes["googclient_schemaname"] != made.GetName() {
			t.Errorf("%q %v", m.Data, m.Attributes)
		}
		return true
	})
}

func TestGoLargeMessages(t *testing.T) {
	c := open(t, nil)
	large := strings.Repeat("x", 9_900_000) // the client's own limit is 10 MB for a request
	c.publish(nil, large)
	if got := c.take(c.subscription, 1); got[0] != large {
		t.Errorf("%d bytes came", len(got[0]))
	}
}

// A thousand messages are there once, through a hub that dies in between: none that was acknowledged is lost.
func TestGoOutlivesTheHub(t *testing.T) {
	c := open(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	p := c.Publisher(c.topic)
	defer p.Stop()
	var results []*pubsub.PublishResult
	for i := range 1000 {
		if i == 500 {
			crash(t)
		}
		results = append(results, p.Publish(ctx, &pubsub.Message{Data: []byte(fmt.Sprint(i))}))
	}
	want := map[string]bool{}
	for i, r := range results {
		if _, err := r.Get(ctx); err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
		want[fmt.Sprint(i)] = true
	}
	var mu sync.Mutex
	c.receive(c.subscription, pubsub.ReceiveSettings{}, func(m *pubsub.Message) bool {
		mu.Lock()
		defer mu.Unlock()
		m.Ack()
		delete(want, string(m.Data))
		return len(want) == 0
	})
}
