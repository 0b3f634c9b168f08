//go:build unix

package growing

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

const op = fleet.Operator

// bench is a broker that runs.
type bench struct {
	*broker.Broker
	t    *testing.T
	stop func()
}

func newBench(t *testing.T, dir string, at fleet.Engine, settings ...func(*broker.Config)) *bench {
	t.Helper()
	c := broker.Config{
		Dir: dir, External: at, Fleet: "shop", MinBackoff: 5 * time.Millisecond, MaxBackoff: 50 * time.Millisecond, Reserve: -1, Hold: time.Second,
		Log: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	for _, set := range settings {
		set(&c)
	}
	b, err := broker.New(c)
	if err != nil {
		t.Fatal(err)
	}
	k := &bench{Broker: b, t: t}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	k.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Logf("Run: %v", err)
		}
	})
	t.Cleanup(k.stop)
	return k
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	if os.Getenv("BROKER_TEST_LOG") != "" {
		w.t.Logf("%s", p)
	}
	return len(p), nil
}

// make creates a topic with one subscription, called as the topic, once the servers are reached.
func (k *bench) make(topic string, class fleet.Durability) {
	k.t.Helper()
	k.made(func() error {
		_, err := k.CreateTopic(k.t.Context(), op, broker.TopicConfig{Name: topic, Durability: class})
		return err
	})
	k.made(func() error {
		_, err := k.CreateSubscription(k.t.Context(), op, broker.SubscriptionConfig{Name: topic + "-sub", Topic: topic, Ordering: true})
		return err
	})
}

// made waits while servers are slow.
func (k *bench) made(create func() error) {
	k.t.Helper()
	eventually(k.t, "what is created is there", func() bool {
		err := create()
		if status := broker.StatusOf(err); err != nil && status != unavailable && status != http.StatusConflict {
			k.t.Fatal(err)
		}
		return broker.StatusOf(err) != unavailable
	})
}

func (k *bench) say(topic, key, data string) error {
	_, err := k.PublishMessages(k.t.Context(), op, topic, []broker.Message{{Data: []byte(data), OrderingKey: key}})
	return err
}

func (k *bench) mustSay(topic string, all ...string) {
	k.t.Helper()
	for _, data := range all {
		if err := k.say(topic, "", data); err != nil {
			k.t.Fatal(err)
		}
	}
}

// take receives and acknowledges n messages of a topic's subscription.
func (k *bench) take(topic string, n int) string {
	k.t.Helper()
	ctx, cancel := context.WithTimeout(k.t.Context(), patience)
	defer cancel()
	r, err := k.NewReceiver(ctx, op, topic+"-sub", broker.ReceiverConfig{})
	if err != nil {
		k.t.Fatal(err)
	}
	defer r.Close()
	var out []string
	for len(out) < n {
		got, err := r.Receive(ctx, n-len(out), 0)
		if err != nil {
			k.t.Fatalf("after %q: %v", out, err)
		}
		var ids []string
		for _, d := range got {
			out, ids = append(out, string(d.Data)), append(ids, d.AckID)
		}
		if _, err := k.Ack(ctx, op, topic+"-sub", ids); err != nil {
			k.t.Fatal(err)
		}
	}
	return strings.Join(out, " ")
}

// refused wants an error that no retry by itself mends, whose text says each of what.
func refused(t *testing.T, err error, status int, what ...string) {
	t.Helper()
	var e *broker.Error
	if !errors.As(err, &e) || e.Status != status {
		t.Fatalf("got %v, want status %d", err, status)
	}
	for _, w := range what {
		if !strings.Contains(e.Text, w) {
			t.Errorf("the error does not say %q: %s", w, e.Text)
		}
	}
	if strings.Contains(e.Text, "s3cret") {
		t.Errorf("the error tells a password: %s", e.Text)
	}
}

const unavailable = http.StatusServiceUnavailable
