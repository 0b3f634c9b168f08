//go:build unix

package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

// eventsURL is where a service publishes.
func (w *world) eventsURL(from string) string {
	if w.mode == fleet.Netns {
		return "http://events"
	}
	_, base, _ := w.get(from, q("/env", "name", "EVENTS_URL"))
	return base
}

func (w *world) seen(service string) string {
	_, body, _ := w.get(service, "/seen")
	return body
}

// deliveries counts those of an event that a service took, or refused, as outcome says.
func (w *world) deliveries(service, outcome, event string) int {
	n := 0
	for line := range strings.Lines(w.seen(service)) {
		if strings.HasPrefix(line, outcome+" ") && strings.Contains(line, event) {
			n++
		}
	}
	return n
}

func TestEventIsRetriedUntilItIsTaken(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, shop)
		w.up()
		w.post("payments", "/mood?refuse")
		if code, body := w.send("orders", q("/send", "url", w.eventsURL("orders")+"/orders.placed"), "order 7"); code/100 != 2 {
			t.Fatalf("publishing: %d %s", code, body)
		}
		w.eventually("two attempts were refused", func() bool { return w.deliveries("payments", "refused", "order 7") >= 2 })
		w.post("payments", "/mood")
		w.eventually("it is taken", func() bool { return w.deliveries("payments", "taken", "order 7") > 0 })
		w.send("orders", q("/send", "url", w.eventsURL("orders")+"/orders.placed"), "order 8")
		w.eventually("the next one comes", func() bool { return strings.Contains(w.seen("payments"), "order 8") })
	})
}

func TestEventOutlivesTheHub(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, shop)
		w.up()
		w.post("payments", "/mood?refuse")
		w.send("orders", q("/send", "url", w.eventsURL("orders")+"/orders.placed"), "order 9")
		w.eventually("it was refused", func() bool { return w.deliveries("payments", "refused", "order 9") > 0 })
		w.kill("hub")
		w.post("payments", "/mood")
		w.eventually("the hub that came back delivers it", func() bool { return w.deliveries("payments", "taken", "order 9") > 0 })
	})
}

func TestUndeclaredPublishIsRefused(t *testing.T) {
	inBoth(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, shop)
		w.up()
		code, body := w.send("orders", q("/send", "url", w.eventsURL("orders")+"/orders.shipped"), "x")
		if code != http.StatusForbidden {
			t.Errorf("an undeclared topic: %d", code)
		}
		for _, part := range []string{"orders.shipped", "publishes:", "orders/shoal.yaml", "shoal why"} {
			if !strings.Contains(body, part) {
				t.Errorf("the refusal lacks %q:\n%s", part, body)
			}
		}
		if strings.Contains(w.seen("payments"), "x") {
			t.Error("it was delivered")
		}
	})
}
