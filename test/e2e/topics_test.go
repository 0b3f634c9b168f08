//go:build unix

package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

var topicShop = map[string]string{
	"orders/shoal.yaml": natsShop["orders/shoal.yaml"],
	"mailer/shoal.yaml": `service: mailer
run: APP mailer
listen: {8080: http}
health: GET /healthz
expose: true
subscribes:
  orders.placed: {push: POST /events/placed, retry: {attempts: 2, min: 1ms, max: 5ms}}
`,
	"audit/shoal.yaml": `service: audit
run: APP audit
listen: {8080: http}
health: GET /healthz
expose: true
subscribes:
  orders.placed: {push: POST /events/placed, filter: 'attributes.ce-kind = "gift"'}
`,
}

// An operator watches a topic, finds out what became of a message, mends the dead letter that it became, lets it be
// delivered again, and replays a subscription.
func TestTopicsByVerbs(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, topicShop)
		w.up()
		watching := w.start("tail", "orders.placed", "--json", "--filter", `hasPrefix(attributes.ce-kind, "g")`)
		w.eventually("the tail has begun", func() bool {
			w.run("publish", "orders.placed", "-d", "probe", "-H", "kind: g")
			return len(watching.messages()) > 0
		})
		w.eventually("nothing is left of that", func() bool { return w.lag("mailer/orders.placed") == 0 })
		w.post("mailer", "/mood?refuse")
		w.run("publish", "orders.placed", "-d", "plain", "-H", "kind: plain")
		w.run("publish", "orders.placed", "-d", "poison", "-H", "kind: gift", "--key", "customer-1")
		var poison fleet.Message
		w.eventually("the tail shows what its filter lets pass", func() bool {
			all := watching.messages()
			poison = all[len(all)-1]
			return string(poison.Data) == "poison"
		})
		if poison.Key != "customer-1" || poison.Publisher != fleet.Operator || strings.Contains(watching.out.String(), `"plain"`) {
			t.Errorf("the tail shows %+v", poison)
		}
		w.eventually("both are dead letters", func() bool { return strings.Count(w.run("dlq", "list"), "mailer/orders.placed:") == 2 })
		w.eventually("audit got what its filter lets pass", func() bool { return strings.Contains(w.seen("audit"), "poison") })
		if strings.Contains(w.seen("audit"), "plain") {
			t.Error("audit got what its filter keeps back")
		}

		letter := "mailer/orders.placed:" + poison.ID
		w.shows([]string{"why", "orders.placed:" + poison.ID}, "The operator published it", "It became durable", "Its ordering key is customer-1", "mailer/orders.placed: a dead letter, after 2 attempts", "attempt 2, pushed to mailer: failed after", "audit/orders.placed: acknowledged")
		w.shows([]string{"why", poison.RequestID}, "message "+poison.ID+" of the topic orders.placed", "attempt 1, pushed to mailer", "The broker called mailer")
		w.shows([]string{"why", poison.Attributes["ce-id"]}, "message "+poison.ID+" of the topic orders.placed")
		w.shows([]string{"topics"}, "orders.placed", "orders")
		w.shows([]string{"subscriptions"}, "mailer/orders.placed", "audit/orders.placed")
		w.shows([]string{"dlq", "show", letter}, "poison", "ordering key customer-1", "ce-kind: gift", "attempt 1 at", "attempt 2 at")

		w.run("dlq", "edit", letter, "-d", "mended", "-H", "ce-kind: mended")
		w.post("mailer", "/mood")
		w.shows([]string{"dlq", "redrive", "mailer/orders.placed"}, "2 dead letters; --yes")
		w.run("dlq", "redrive", "mailer/orders.placed", letter, "--rate", "100")
		w.eventually("the mended one is taken", func() bool { return w.deliveries("mailer", "taken", "mended") == 1 })
		w.shows([]string{"why", letter}, "mailer/orders.placed: given up", "redriven, as message", "acknowledged")
		if strings.Contains(w.seen("audit"), "mended") {
			t.Error("a redrive to one subscription reached another one")
		}
		w.run("dlq", "drop", "--all", "mailer/orders.placed")
		w.shows([]string{"dlq", "list"}, "there are no dead letters")
		w.shows([]string{"dlq", "redrive", "mailer/orders.placed"}, "has no dead letters")
		for _, wrong := range [][]string{{"dlq", "list", "nobody/orders.placed"}, {"dlq", "redrive", "nobody/orders.placed"}, {"dlq", "drop", "--all", "nobody/orders.placed"},
			{"replay", "nobody/orders.placed", "--from", "1h"}} {
			w.refuses(wrong, "there is no subscription nobody")
		}
		if _, errs, code := w.try("publish", "ordres.placed", "-d", "x"); code != 0 || !strings.Contains(errs, "nobody subscribes to ordres.placed, and no manifest publishes it; did you mean `orders.placed`?") {
			t.Errorf("a slip in a topic's name: exit code %d, %s", code, errs)
		}
		w.refuses([]string{"dlq", "redrive", "mailer/orders.placed", "--yes", "--rate", "-1"}, "is no rate")
		w.refuses([]string{"publish", "orders.placed", "-d", "x", "--delay", "-5s"}, "lies in the past")
		w.refuses([]string{"why", "nothing-of-that-kind"}, "the topics' logs have no message of that id")

		w.shows([]string{"replay", "mailer/orders.placed", "--from", "1h"}, "would have")
		if n := w.deliveries("mailer", "taken", "plain"); n != 0 {
			t.Errorf("a dry run delivered %d", n)
		}
		w.run("replay", "mailer/orders.placed", "--from", "1h", "--yes")
		w.eventually("it comes again", func() bool {
			return w.deliveries("mailer", "taken", "plain") == 1 && w.deliveries("mailer", "taken", "poison") == 1
		})
	})
}

// lag is how many messages a subscription has not settled.
func (w *world) lag(name string) uint64 {
	w.Helper()
	for _, s := range w.status().Subscriptions {
		if s.Name == name {
			return s.Lag
		}
	}
	w.Fatalf("status has no subscription %s", name)
	return 0
}

// messages are those that `tail --json` has printed.
func (b *background) messages() (all []fleet.Message) {
	for line := range strings.Lines(b.out.String()) {
		var m fleet.Message
		if json.Unmarshal([]byte(line), &m) == nil {
			all = append(all, m)
		}
	}
	return all
}

// What an operator publishes with a delay is not delivered before.
func TestPublishLater(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, topicShop)
		w.up()
		begin := time.Now()
		w.run("publish", "orders.placed", "-d", "later", "--delay", "2s")
		w.eventually("it comes", func() bool { return w.deliveries("mailer", "taken", "later") == 1 })
		if took := time.Since(begin); took < 2*time.Second {
			t.Errorf("it came after %s", took)
		}
	})
}

// An operator's event keeps the id that it is given: published again, it is known again, and found by it.
func TestPublishAgain(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, topicShop)
		w.up()
		for range 2 {
			w.shows([]string{"publish", "orders.placed", "-d", "once", "-H", "id: order-1", "-H", "ce-source: /shop", "-H", "Content-Type: text/plain"}, "order-1\n")
		}
		w.run("publish", "orders.placed", "-d", "end")
		w.eventually("the last one comes", func() bool { return w.deliveries("mailer", "taken", "end") == 1 && w.lag("mailer/orders.placed") == 0 })
		if n := w.deliveries("mailer", "taken", "once"); n != 1 {
			t.Errorf("an event with an id that was published twice came %d times", n)
		}
		w.shows([]string{"why", "/shop/order-1"}, "message 0 of the topic orders.placed")
		w.refuses([]string{"publish", "orders.placed", "-H", "specversion: 0.3"}, "specversion")
	})
}

// refuses wants a verb to fail, and to say why.
func (w *world) refuses(verb []string, why string) {
	w.Helper()
	if out, errs, code := w.try(verb...); code == 0 || !strings.Contains(errs, why) {
		w.Errorf("`shoal %s` does not say %q: exit code %d\n%s%s", strings.Join(verb, " "), why, code, out, errs)
	}
}

// shows wants parts in what a verb prints.
func (w *world) shows(verb []string, parts ...string) {
	w.Helper()
	out := w.run(verb...)
	for _, part := range parts {
		if !strings.Contains(out, part) {
			w.Errorf("`shoal %s` lacks %q:\n%s", strings.Join(verb, " "), part, out)
		}
	}
}
