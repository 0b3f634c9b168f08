package nats_test

import (
	"strings"
	"testing"

	client "github.com/nats-io/nats.go"

	"github.com/shoalrun/shoal/fleet"
)

// Topics with odd names are subjects as they are, and headers keep every byte that a header of NATS can have.
func TestOddNames(t *testing.T) {
	w := newWorld(t)
	const odd = "Odd.topic~with+every%2Fcharacter-and_"
	name := odd + strings.Repeat("z", 255-len(odd))
	s := snapshot()
	s.Services[1].Manifest.Subscribes = []fleet.Subscription{{Topic: name, Pull: true}}
	s.Services[2].Manifest.Publishes = []string{name}
	w.broker.Install(s)
	mailer, _ := w.connect("mailer")
	sub, err := mailer.SubscribeSync(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := mailer.Flush(); err != nil {
		t.Fatal(err)
	}
	var every []byte
	for c := range 256 {
		if c != '\r' && c != '\n' {
			every = append(every, byte(c))
		}
	}
	orders, _ := w.connect("orders")
	m := client.NewMsg(name)
	m.Data = []byte("x")
	m.Header["every"] = []string{"<" + string(every) + ">"}
	if answer, err := orders.RequestMsg(m, patience); err != nil || strings.Contains(string(answer.Data), "error") {
		t.Fatalf("%v (%v)", answer, err)
	}
	got := next(t, sub)
	if got.Subject != name || string(got.Data) != "x" || got.Header["every"][0] != m.Header["every"][0] {
		t.Errorf("%s came with %q", got.Subject, got.Header)
	}
	if err := got.AckSync(); err != nil {
		t.Error(err)
	}
	refused, err := orders.Request(name+"z", []byte("x"), patience)
	if err != nil || !strings.Contains(string(refused.Data), "error") {
		t.Errorf("a longer name was answered with %v (%v)", refused, err)
	}
}
