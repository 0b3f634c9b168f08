//go:build unix

package e2e

import (
	"encoding/json"
	"strings"
	"testing"
)

var scheduleShop = map[string]string{
	"orders/shoal.yaml": natsShop["orders/shoal.yaml"] + `schedules:
  tick: {topic: orders.placed, cron: "@every 1s", data: '{"from": "a schedule"}'}
`,
	"mailer/shoal.yaml": `service: mailer
run: APP mailer
listen: {8080: http}
health: GET /healthz
expose: true
subscribes: {orders.placed: POST /events/placed}
`,
}

// An operator publishes for later, sees what waits and takes it back; a service does so over HTTP; and schedules come, of a manifest for as
// long as it has them, and of the operator until they are removed.
func TestSchedulesByVerbs(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, scheduleShop)
		w.up()
		id := strings.TrimSpace(w.run("publish", "orders.placed", "-d", "much later", "--delay", "24h"))
		w.shows([]string{"scheduled", "list"}, id, "orders.placed", "operator")
		w.shows([]string{"scheduled", "list", "orders.placed", "--json"}, `"id":"`+id+`"`, "not_before")
		w.shows([]string{"scheduled", "cancel", id}, id+" is cancelled")
		w.shows([]string{"scheduled", "list"}, "no message waits")
		if _, errs, code := w.try("scheduled", "cancel", id); code == 0 || !strings.Contains(errs, "is not scheduled") {
			t.Errorf("cancelled twice: %d %s", code, errs)
		}
		w.takesBack()

		w.shows([]string{"cron", "list"}, "orders/tick", "@every 1s", "orders/shoal.yaml:8")
		w.eventually("the manifest's schedule comes", func() bool { return w.deliveries("mailer", "taken", "a schedule") > 1 })
		if _, errs, code := w.try("cron", "remove", "orders/tick"); code == 0 || !strings.Contains(errs, "orders/shoal.yaml:8") {
			t.Errorf("removing a manifest's schedule: %d %s", code, errs)
		}
		w.shows([]string{"cron", "add", "mine", "orders.placed", "@every 1s", "-d", "from the operator"}, "mine publishes to orders.placed next at")
		w.eventually("the operator's schedule comes", func() bool { return w.deliveries("mailer", "taken", "from the operator") > 0 })
		w.run("cron", "remove", "mine")
		if _, errs, code := w.try("cron", "add", "mine", "orders.placed", "61 * * * *"); code == 0 || !strings.Contains(errs, "61") {
			t.Errorf("adding nonsense: %d %s", code, errs)
		}

		w.write("orders/shoal.yaml", natsShop["orders/shoal.yaml"])
		w.up()
		w.eventually("it ends with the entry", func() bool { return strings.Contains(w.run("cron", "list"), "there are no schedules") })
	})
}

// takesBack lets a service publish for later over HTTP, and take that back.
func (w *world) takesBack() {
	w.Helper()
	topic := w.eventsURL("orders") + "/orders.placed"
	code, body := w.send("orders", q("/send", "url", topic)+"&delay=1h", "order 7")
	var accepted struct{ Scheduled []string }
	if err := json.Unmarshal([]byte(body), &accepted); err != nil || code != 202 || len(accepted.Scheduled) != 1 {
		w.Fatalf("publishing for later: %d %s", code, body)
	}
	w.shows([]string{"scheduled", "list"}, accepted.Scheduled[0], "orders")
	if code, body := w.send("orders", q("/send", "url", topic+"/"+accepted.Scheduled[0])+"&method=DELETE", ""); code != 204 {
		w.Errorf("taking it back: %d %s", code, body)
	}
	w.shows([]string{"scheduled", "list"}, "no message waits")
}
