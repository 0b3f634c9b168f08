package thirdparty

import (
	"strings"
	"testing"
)

const podinfoFrontend = `service: frontend
run: ./podinfo --backend-url http://backend:9898/api/echo
listen: {9898: http}
health: GET /readyz
calls:
  backend: {}
expose: true
`

const podinfoBackend = `service: backend
run: ./podinfo
listen: {9898: http}
health: GET /readyz
`

// podinfo calls podinfo by name.
func TestPodinfo(t *testing.T) {
	if !signals() {
		t.Skip("hey cannot be stopped by a signal on this system")
	}
	hey, binary := heyLoad.build(t), podinfo.build(t)
	w := start(t, service{"frontend", binary, podinfoFrontend}, service{"backend", binary, podinfoBackend})
	const host = "frontend.localhost"
	if got := w.get("POST", host, "/api/echo", "echoed by strangers"); !strings.Contains(got, "echoed by strangers") {
		t.Fatalf("the backend did not echo through the frontend: %s", got)
	}
	echo := w.load(hey, host, "/api/echo", 4, "-m", "POST", "-d", "ping")
	page := w.load(hey, host, "/", 4)
	edges := []string{"gateway -> frontend", "frontend -> backend"}
	w.restartEach(edges, "backend", "frontend")
	echo.expectNoErrors()
	page.expectNoErrors()
	w.expectEdges(edges)
}
