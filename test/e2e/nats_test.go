//go:build unix

package e2e

import (
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
)

var natsShop = map[string]string{
	"orders/shoal.yaml": `service: orders
run: APP orders
listen: {8080: http}
health: GET /healthz
expose: true
publishes: [orders.placed]
`,
	"mailer/shoal.yaml": `service: mailer
run: APP mailer
listen: {8080: http}
health: GET /healthz
expose: true
subscribes: {orders.placed: pull}
`,
	"quiet/shoal.yaml": `service: quiet
run: APP quiet
env: {NATS_URL: "nats://mine:4222"}
listen: {8080: http}
health: GET /healthz
expose: true
`,
}

// A service publishes and another one receives by NATS, with the NATS_URL that Shoal gave them; a tool on the host
// watches with the operator's, and a service that declares nothing has none.
func TestNATS(t *testing.T) {
	inEach(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, natsShop)
		w.up()
		operator, err := nats.Connect(w.hostEnv("NATS_URL"), nats.Timeout(patience))
		must(t, err)
		defer operator.Close()
		watched, err := operator.SubscribeSync("orders.placed")
		must(t, err)
		must(t, operator.Flush())

		if code, body := w.send("orders", q("/nats/publish", "topic", "orders.placed"), "order 7"); code != 200 || !strings.Contains(body, `{"stream":"orders.placed","seq":1}`) {
			t.Errorf("publishing by NATS: %d %s", code, body)
		}
		w.says("mailer", q("/nats/receive", "topic", "orders.placed"), "order 7")
		m, err := watched.NextMsg(patience)
		must(t, err)
		if string(m.Data) != "order 7" {
			t.Errorf("the operator saw %s", m.Data)
		}
		w.eventually("nothing is left", func() bool {
			subs := w.status().Subscriptions
			return len(subs) == 1 && subs[0].Lag == 0
		})

		if code, body := w.send("orders", q("/nats/publish", "topic", "orders.shipped"), "x"); code != 200 || !strings.Contains(body, "orders/shoal.yaml:6") {
			t.Errorf("an undeclared topic: %d %s", code, body)
		}
		if why := w.run("why"); !strings.Contains(why, "orders.shipped") || !strings.Contains(why, "publishes: [orders.placed, orders.shipped]") {
			t.Errorf("`why` does not tell which line to add:\n%s", why)
		}
		if _, body, _ := w.get("quiet", q("/env", "name", "NATS_URL")); body != "nats://mine:4222" {
			t.Errorf("a service with a NATS of its own has NATS_URL=%s", body)
		}
		if _, body, _ := w.get("quiet", q("/env", "name", "PUBSUB_EMULATOR_HOST")); body == "" {
			t.Error("a service that declares no topic is not told of the Pub/Sub API, which would say so")
		}
		if _, err := nats.Connect("nats://operator:guess@"+w.status().NATS, nats.Timeout(patience)); err == nil || !strings.Contains(err.Error(), "Authorization") {
			t.Errorf("a guessed password: %v", err)
		}
	})
}

// hostEnv is a variable of `shoal env`.
func (w *world) hostEnv(name string) string {
	w.Helper()
	for line := range strings.Lines(w.run("env")) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "export "+name+"="); ok {
			return strings.Trim(value, "'")
		}
	}
	w.Fatalf("`shoal env` has no %s", name)
	return ""
}
