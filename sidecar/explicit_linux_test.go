package sidecar

import (
	"context"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

func TestExplicitVariables(t *testing.T) {
	s := newStand(t)
	sc := s.launch(fleet.Explicit, "orders-1", "env; sleep 60", func(sp *Spec) {
		sp.Assignment.Manifest.Calls = append(sp.Assignment.Manifest.Calls,
			fleet.Call{Service: "inventory", As: "stock.v2", Env: "WAREHOUSE"})
		sp.Assignment.Manifest.Ports = append(sp.Assignment.Manifest.Ports,
			fleet.Port{Number: 9090, Protocol: fleet.GRPC})
		sp.Env = []string{"PORT=1", "INVENTORY_URL=http://inventory/"} // what the mode needs wins
	})
	for command, want := range map[string]string{
		"curl -sS $INVENTORY_URL":                            "orders-1 calls inventory:80 as",
		"curl -sS http://$INVENTORY_ADDR":                    "orders-1 calls inventory:80 as",
		"curl -sS $INVENTORY_9090_URL":                       "orders-1 calls inventory:9090 as",
		"curl -sS $PAYMENTS_SVC_URL":                         "orders-1 calls payments-svc:80 as",
		"curl -sS $WAREHOUSE_URL":                            "orders-1 calls stock.v2:80 as",
		"curl -sS http://$DB_ADDR":                           "orders-1 calls db:5432 as",
		"curl -sS $EVENTS_URL/orders.placed":                 "orders-1 calls events:80 as",
		"curl -sS http://$PUBSUB_EMULATOR_HOST/v1":           "orders-1 calls pubsub:8085 as",
		"curl -sS http://inventory:8080/":                    "orders-1 calls forward as inventory:8080",
		"http_proxy= curl -sS -x $HTTP_PROXY http://nowhere": "orders-1 calls forward as nowhere",
		"echo $NO_PROXY":                                     "localhost,127.0.0.1",
	} {
		if got := run(t, sc, "sh", "-c", command); !strings.Contains(got, want) {
			t.Errorf("%s: %q; want %q", command, got, want)
		}
	}
	if run(t, sc, "sh", "-c", "echo $PORT") != run(t, sc, "sh", "-c", "echo $PORT_8080") {
		t.Error("PORT is not that of the default port")
	}
}

// Who forgot to declare a topic is told of topics all the same, and hears which line is missing. Who dials Google's APIs is left alone.
func TestWhoIsToldOfTopics(t *testing.T) {
	google := []fleet.HostPort{{Host: "europe-west1-pubsub.googleapis.com", Port: 443}}
	for want, m := range map[string]fleet.Manifest{
		"orders: pubsub:8085\n":      {},
		"google: \n":                 {Egress: google},
		"both: pubsub:8085\n":        {Egress: google, Publishes: []string{"orders.placed"}},
		"other hosts: pubsub:8085\n": {Egress: []fleet.HostPort{{Host: "api.stripe.com", Port: 443}}},
	} {
		s := newStand(t)
		sc := s.launch(fleet.Netns, "orders-1", "sleep 60", func(sp *Spec) {
			sp.Assignment.Manifest.Egress, sp.Assignment.Manifest.Publishes = m.Egress, m.Publishes
		})
		name, _, _ := strings.Cut(want, ":")
		if got := run(t, sc, "sh", "-c", "echo \""+name+": $PUBSUB_EMULATOR_HOST\""); got != want && got != strings.TrimSpace(want) {
			t.Errorf("%q, not %q", got, want)
		}
	}
}

// A service that has a NATS of its own, or an emulator, by the broker's very name gets there by it, and is not told to send the broker's password.
func TestOwnNATS(t *testing.T) {
	for _, mode := range []fleet.Mode{fleet.Netns, fleet.Explicit} {
		s := newStand(t)
		sc := s.launch(mode, "orders-1", "sleep 60", func(sp *Spec) {
			sp.Assignment.Credential = "s3cret"
			sp.Assignment.Manifest.Needs = []fleet.Need{{Name: "nats", Port: 4222}, {Name: "pubsub", Port: 8085}}
		})
		got := run(t, sc, "env")
		if strings.Contains(got, "s3cret") || strings.Contains(got, "PUBSUB_EMULATOR_HOST") {
			t.Errorf("%s: the broker stands in for what is the service's own:\n%s", mode, got)
		}
		if own := strings.Contains(got, "NATS_URL=tcp://127.0.0.1:") && strings.Contains(got, "PUBSUB_ADDR=127.0.0.1:"); own != (mode == fleet.Explicit) {
			t.Errorf("%s: addresses of its own: %v\n%s", mode, own, got)
		}
	}
}

// Two instances that declare the same port get different ones, and their own.
func TestExplicitPorts(t *testing.T) {
	s := newStand(t)
	wanted := freePort(t)
	port := func(sp *Spec) { sp.Assignment.Manifest.Ports = []fleet.Port{{Number: wanted, Protocol: fleet.HTTP}} }
	first := s.launch(fleet.Explicit, "orders-1", app(t, "serve", ":$PORT"), port)
	second := s.launch(fleet.Explicit, "orders-2", app(t, "serve", "[::1]:$PORT"), port)
	for _, sc := range []*Sidecar{first, second} {
		eventually(t, "it answers", func() bool {
			return strings.HasPrefix(ask(sc, wanted), sc.Assignment().Instance+" at ")
		})
	}
	if got := run(t, first, "sh", "-c", "echo $PORT"); got != itoa(int(wanted)) {
		t.Errorf("the first got %s; %d was free", got, wanted)
	}
	if run(t, second, "sh", "-c", "echo $PORT") == itoa(int(wanted)) {
		t.Error("the second got the same")
	}
}

// Fleets that start at the same time do not hand out the same port, though nothing listens on it yet.
func TestFleetsShareTheHost(t *testing.T) {
	wanted := freePort(t)
	port := func(sp *Spec) { sp.Assignment.Manifest.Ports = []fleet.Port{{Number: wanted, Protocol: fleet.HTTP}} }
	first := newStand(t).launch(fleet.Explicit, "orders-1", "sleep 60", port)
	second := newStand(t).launch(fleet.Explicit, "orders-1", "sleep 60", port)
	if run(t, first, "sh", "-c", "echo $PORT") == run(t, second, "sh", "-c", "echo $PORT") {
		t.Error("both got the same port")
	}
	if err := first.Stop(context.Background(), 0); err != nil {
		t.Fatal(err)
	}
	third := newStand(t).launch(fleet.Explicit, "orders-1", "sleep 60", port)
	if got := run(t, third, "sh", "-c", "echo $PORT"); got != itoa(int(wanted)) {
		t.Errorf("once it was given back, a fleet got %s, not %d", got, wanted)
	}
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	p := newPorts()
	n := p.take(somePort())
	if n == 0 {
		t.Fatal("no port is free")
	}
	p.release(map[uint16]uint16{n: n})
	return n
}
