//go:build unix

package pubsub

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"github.com/ThreeDotsLabs/watermill"
	"github.com/ThreeDotsLabs/watermill-googlecloud/v2/pkg/googlecloud"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/pubsub/tests"
)

// adapter makes Watermill's adapter for Google Cloud Pub/Sub, unmodified.
func adapter(t *testing.T, ordered bool, name googlecloud.SubscriptionNameFn) (message.Publisher, message.Subscriber) {
	t.Helper()
	var marshaler googlecloud.Marshaler = googlecloud.DefaultMarshalerUnmarshaler{}
	var unmarshaler googlecloud.Unmarshaler = googlecloud.DefaultMarshalerUnmarshaler{}
	if ordered {
		marshaler = googlecloud.NewOrderingMarshaler(func(string, *message.Message) (string, error) { return "key", nil })
		unmarshaler = googlecloud.NewOrderingUnmarshaler(func(string, *message.Message) error { return nil })
	}
	// The adapter publishes one message after the other, each of which the client holds for a moment, and gives all of a call 5 s.
	settings := pubsub.DefaultPublishSettings
	settings.DelayThreshold = time.Millisecond
	p, err := googlecloud.NewPublisher(googlecloud.PublisherConfig{
		ProjectID: project, EnableMessageOrdering: ordered, Marshaler: marshaler, PublishSettings: &settings, PublishTimeout: patience,
	}, watermill.NopLogger{})
	must(t, err)
	s, err := googlecloud.NewSubscriber(googlecloud.SubscriberConfig{
		ProjectID: project, GenerateSubscriptionName: name, Unmarshaler: unmarshaler,
		GenerateSubscription: func(googlecloud.GenerateSubscriptionParams) *pubsubpb.Subscription {
			return &pubsubpb.Subscription{EnableMessageOrdering: ordered}
		},
	}, watermill.NopLogger{})
	must(t, err)
	return p, s
}

func watermillSuite(t *testing.T, ordered bool) {
	tests.TestPubSub(t,
		tests.Features{ConsumerGroups: true, GuaranteedOrder: ordered, Persistent: true},
		func(t *testing.T) (message.Publisher, message.Subscriber) {
			return adapter(t, ordered, googlecloud.TopicSubscriptionName)
		},
		func(t *testing.T, group string) (message.Publisher, message.Subscriber) {
			return adapter(t, ordered, googlecloud.TopicSubscriptionNameWithSuffix(group))
		},
	)
}

func TestWatermill(t *testing.T) { watermillSuite(t, false) }

// The adapter's own tests skip this one: Google's emulator does not pass it.
func TestWatermillWithOrdering(t *testing.T) { watermillSuite(t, true) }

// The suite's restart hook kills the hub twice while 10,000 messages are published and read. It is run by itself: the suite's other tests
// would see the hub die, too.
func TestWatermillReconnects(t *testing.T) {
	if raceEnabled {
		withoutRace(t)
		return
	}
	of := tests.TestContext{TestID: tests.NewTestID(), Features: tests.Features{Persistent: true, RestartServiceCommand: up.crash()}}
	tests.TestReconnect(t, of, func(t *testing.T) (message.Publisher, message.Subscriber) {
		p, s := adapter(t, false, googlecloud.TopicSubscriptionName)
		counted := &counter{Publisher: p}
		return counted, &patient{Subscriber: s, published: &counted.n}
	})
}

// withoutRace runs a test in a process of its own, without the race detector: Watermill's suite reads, without a lock, what its
// publishers still append to.
func withoutRace(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-v", "-run", "^"+t.Name()+"$", ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("%v\n%s", err, out)
	}
}

// counter counts what was published.
type counter struct {
	message.Publisher
	n atomic.Int64
}

func (c *counter) Publish(topic string, messages ...*message.Message) error {
	err := c.Publisher.Publish(topic, messages...)
	if err == nil {
		c.n.Add(int64(len(messages)))
	}
	return err
}

// patient hands the last message over a moment after all have been published. The suite notes what it published once Publish has returned, and
// compares as soon as it has the last message: a message that is quicker than the note it takes for a stranger.
type patient struct {
	message.Subscriber
	published *atomic.Int64
}

const reconnectMessages = 10000 // of the suite

func (p *patient) Subscribe(ctx context.Context, topic string) (<-chan *message.Message, error) {
	in, err := p.Subscriber.Subscribe(ctx, topic)
	out := make(chan *message.Message)
	go func() {
		defer close(out)
		seen := map[string]bool{}
		for m := range in {
			seen[m.UUID] = true
			for end := time.Now().Add(patience); len(seen) == reconnectMessages && p.published.Load() < reconnectMessages && time.Now().Before(end); {
				time.Sleep(10 * time.Millisecond)
			}
			if len(seen) == reconnectMessages {
				time.Sleep(time.Second)
			}
			out <- m
		}
	}()
	return out, err
}
