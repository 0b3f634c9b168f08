package thirdparty

import (
	"strings"
	"testing"
)

// HotROD's own flags take away what it does badly on purpose: a slow query behind a mutex, and too
// small a pool. Its traces go to standard output.
const hotrodFrontend = `service: frontend
run: >-
  ./hotrod frontend -x stdout -W 100
  --customer-service-hostname customer --driver-service-hostname driver --route-service-hostname route
listen: {8080: http}
health: GET /config
calls:
  customer: {}
  driver: {}
  route: {}
expose: true
`

const hotrodCustomer = `service: customer
run: ./hotrod customer -x stdout -D 10ms -M
listen: {8081: http}
`

const hotrodDriver = `service: driver
run: ./hotrod driver -x stdout
listen: {8082: grpc}
`

const hotrodRoute = `service: route
run: ./hotrod route -x stdout
listen: {8083: http}
`

// HotROD's frontend finds customer and route (HTTP) and driver (gRPC) by the names in its flags.
func TestHotROD(t *testing.T) {
	if !signals() {
		t.Skip("hey cannot be stopped by a signal on this system")
	}
	hey, binary := heyLoad.build(t), hotrod.build(t)
	w := start(t,
		service{"frontend", binary, hotrodFrontend}, service{"customer", binary, hotrodCustomer},
		service{"driver", binary, hotrodDriver}, service{"route", binary, hotrodRoute})
	const host = "frontend.localhost"
	dispatch := func() {
		if got := w.get("GET", host, "/dispatch?customer=123", ""); !strings.Contains(got, `"Driver":"T7`) {
			t.Fatalf("no driver was dispatched: %s", got)
		}
	}
	dispatch()
	// One client for dispatches: driver lets every fifth look-up fail, wherever it comes from, and
	// gives up after three, so that several clients make it fail by itself.
	rides := w.load(hey, host, "/dispatch?customer=123", 1)
	config := w.load(hey, host, "/config", 4)
	edges := []string{"gateway -> frontend", "frontend -> customer", "frontend -> driver", "frontend -> route"}
	w.restartEach(edges, "route", "driver", "customer", "frontend")
	rides.expectNoErrors()
	config.expectNoErrors()
	dispatch()
	w.expectEdges(edges)
}
