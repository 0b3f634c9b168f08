package broker_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/broker"
)

// anyBytes are attributes with every byte, and with names that no header may have.
func anyBytes() map[string]string {
	var all []byte
	for c := range 256 {
		all = append(all, byte(c))
	}
	return map[string]string{
		"every": string(all), "\xff\x00 name": "x", "line": "a\r\nInjected: yes", "Content-Type": "text/plain\r\nInjected: yes", "Shoal-Caller": "operator",
	}
}

// TestAttributesHaveAnyByte sends them by each way out: who pulls gets them as they were, and who is pushed gets the message, and no header that
// nobody meant.
func TestAttributesHaveAnyByte(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	events, wrapped, bare := new(inbox), new(inbox), new(inbox)
	k.handle("payments", events)
	k.handle("wrapped", wrapped)
	k.handle("bare", bare)
	k.Install(shop("payments"))
	for _, c := range []broker.SubscriptionConfig{
		{Name: "pulled", Topic: "orders.placed"},
		{Name: "wrapped", Topic: "orders.placed", Push: &broker.PushConfig{Endpoint: "http://wrapped/x"}},
		{Name: "bare", Topic: "orders.placed", Push: &broker.PushConfig{Endpoint: "http://bare/x", Unwrapped: true, Metadata: true}},
	} {
		if _, err := k.CreateSubscription(t.Context(), op, c); err != nil {
			t.Fatal(err)
		}
	}
	message := broker.Message{Data: []byte("body"), Attributes: anyBytes(), OrderingKey: "key\xff\r\n", Tracestate: "a=\x01\r\nInjected: yes"}
	if _, err := k.PublishMessages(t.Context(), "orders", "orders.placed", []broker.Message{message}); err != nil {
		t.Fatal(err)
	}
	for name, i := range map[string]*inbox{"as an event": events, "wrapped": wrapped, "unwrapped": bare} {
		eventually(t, "a push "+name, func() bool { return len(i.got()) == 1 })
		if h := i.head(0); h.Get("Injected") != "" || h.Get("Shoal-Caller") != "" {
			t.Errorf("pushed %s with the headers %v", name, h)
		}
	}
	if got := wrapped.got()[0]; !strings.Contains(got, `"data":"Ym9keQ=="`) {
		t.Errorf("the envelope is %s", got)
	}
	k.stop()
	k = newBench(t, dir)
	got := take(t, k.receiver("pulled", broker.ReceiverConfig{}), 1)[0]
	if !maps.Equal(got.Attributes, anyBytes()) || got.OrderingKey != message.OrderingKey {
		t.Errorf("pulled %q with key %q", got.Attributes, got.OrderingKey)
	}
}
