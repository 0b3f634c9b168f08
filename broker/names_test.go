package broker_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/broker"
)

// oddName is a topic's name of 255 bytes, with every character that is no letter.
func oddName() string {
	const odd = "Odd.topic~with+every%2Fcharacter-and_"
	return odd + strings.Repeat("z", 255-len(odd))
}

// TestOddNames publishes over HTTP to a topic with an odd name, and delivers it by push and by pull, also after a restart.
func TestOddNames(t *testing.T) {
	dir, name := t.TempDir(), oddName()
	s := shop("payments")
	s.Services[0].Manifest.Publishes = []string{name}
	s.Services[1].Manifest.Subscribes[0].Topic = name
	s.Services[1].Manifest.Subscribes[0].Pull = true
	k := newBench(t, dir)
	k.Install(s)
	if status, text := k.post("orders", url.PathEscape(name), []byte("pulled")); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, text)
	}
	if status, text := k.post("orders", url.PathEscape(name+"z"), []byte("x")); status != http.StatusBadRequest || !strings.Contains(text, "256 bytes") {
		t.Errorf("a longer name: %d %s", status, text)
	}
	got := take(t, k.receiver("payments."+name, broker.ReceiverConfig{}), 1)
	if data(got) != "pulled" || got[0].Attributes["ce-type"] != name {
		t.Errorf("%+v", got)
	}
	k.ack("payments."+name, nil, got...)
	k.stop()
	k = newBench(t, dir)
	payments := new(inbox)
	k.handle("payments", payments)
	s.Services[1].Manifest.Subscribes[0].Pull = false
	k.Install(s)
	if status, text := k.post("orders", url.PathEscape(name), []byte("pushed")); status != http.StatusAccepted {
		t.Fatalf("%d %s", status, text)
	}
	eventually(t, "the push", func() bool { return len(payments.got()) == 1 })
	if body, kind := payments.got()[0], payments.head(0).Get("Ce-Type"); body != "pushed" || kind != name && kind != strings.ReplaceAll(name, "%", "%25") {
		t.Errorf("%s, %s", body, kind)
	}
	if topics := k.Topics(); len(topics) != 1 || topics[0].Name != name || topics[0].Published != 2 {
		t.Errorf("%+v", topics)
	}
}

// A topic is shown as long as it was created or has messages, also after a restart, and where no manifest names it.
func TestTopicsThatNoManifestNames(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	k.topic("created")
	for _, name := range []string{"on.the.way", "deleted"} {
		if _, err := k.Publish(t.Context(), op, broker.Event{Topic: name, Data: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	k.topic("deleted")
	if err := k.DeleteTopic(t.Context(), op, "deleted"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		shown := map[string]uint64{}
		for _, s := range k.Topics() {
			shown[s.Name] = s.Retained
		}
		if n, ok := shown["created"]; !ok || n != 0 || shown["on.the.way"] != 1 || shown["deleted"] != 0 {
			t.Errorf("%v", shown)
		}
		k.stop()
		k = newBench(t, dir)
	}
	if len(k.Topics()) != 2 {
		t.Errorf("%+v", k.Topics())
	}
}
