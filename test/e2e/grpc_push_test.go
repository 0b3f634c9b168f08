//go:build unix

package e2e

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

var grpcShop = map[string]string{
	"orders/shoal.yaml": natsShop["orders/shoal.yaml"],
	"mailer/shoal.yaml": `service: mailer
run: APP mailer
listen: {8080: http, 9090: grpc}
env: {GRPC: "9090"}
health: GET /healthz
expose: true
subscribes:
  orders.placed: {grpc: shop.Mailer/Placed, retry: {attempts: 100, min: 1ms, max: 20ms}}
`,
}

// An event is delivered as the request of a method of the service's own gRPC API, again and again until that says OK.
func TestEventIsAMethodsRequest(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		w := newWorld(t, s, grpcShop)
		w.up()
		order := func(text string) string {
			b, err := proto.Marshal(wrapperspb.String(text))
			must(t, err)
			return string(b)
		}
		w.post("mailer", "/mood?refuse")
		id := strings.TrimSpace(w.run("publish", "orders.placed", "--type", "application/protobuf", "-H", "source: shop", "-d", order("order 7")))
		w.eventually("two attempts were refused", func() bool { return w.deliveries("mailer", "refused", "order 7") >= 2 })
		w.post("mailer", "/mood")
		w.eventually("it is taken", func() bool { return w.deliveries("mailer", "taken", "[events] [shop] order 7") == 1 })
		w.eventually("it is settled", func() bool { return w.lag("mailer/orders.placed") == 0 })
		if id == "" {
			t.Error("publish printed no id")
		}
		w.shows([]string{"why", "orders.placed:0"}, "mailer/orders.placed: acknowledged", "RESOURCE_EXHAUSTED: not now")
	})
}
