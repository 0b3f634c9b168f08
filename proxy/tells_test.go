package proxy_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
)

// What leaves the mesh says which request it answers, so that a person can ask `why`: at the gateway, and to the
// operator. Between services an answer is the application's own.
func TestAnswersThatLeaveTellTheirID(t *testing.T) {
	for _, application := range []string{"HTTP/1.1", "HTTP/2"} {
		w := newWorld(t, proxy.Config{}, inventory(func(s *fleet.Service) { s.Manifest.Expose = []fleet.Expose{{Host: "inventory"}} }), orders())
		s := &http.Server{Protocols: speaking(application), Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/own" {
				rw.Header().Set("X-Request-Id", "the-application's")
			}
			_, _ = io.WriteString(rw, r.Header.Get("X-Request-Id"))
		})}
		app := w.listen()
		go func() { _ = s.Serve(app) }()
		t.Cleanup(func() { s.Close() })
		w.p.Attach("inventory-1", dialTo(app.Addr().String()))
		l := w.listen()
		w.background(func(ctx context.Context) error {
			return w.p.ServeEdge(ctx, l, func(string, string) (string, bool) { return "inventory", true })
		})
		operator := &http.Client{Transport: w.p.Transport(fleet.Operator)}
		t.Cleanup(operator.CloseIdleConnections)
		for name, c := range map[string]struct {
			client *http.Client
			url    string
			tells  bool
		}{
			"gateway, HTTP/1.1": {w.client(), "http://" + l.Addr().String(), true},
			"gateway, HTTP/2":   {h2c(t), "http://" + l.Addr().String(), true},
			"operator":          {operator, "http://inventory", true},
			"service, HTTP/1.1": {w.client(), "http://" + w.named("inventory", 8080), false},
			"service, HTTP/2":   {h2c(t), "http://" + w.named("inventory", 8080), false},
		} {
			t.Run(name+" of "+application, func(t *testing.T) {
				for range 3 {
					res, body, err := ask(c.client, "GET", c.url)
					if err != nil || res.StatusCode != 200 || (strings.Join(res.Header["X-Request-Id"], "+") == body) != c.tells {
						t.Errorf("%v, %v, %q", err, res, body)
					}
				}
				res, _, err := ask(c.client, "GET", c.url+"/own")
				if err != nil || strings.Join(res.Header["X-Request-Id"], "+") != "the-application's" {
					t.Error(err, res.Header)
				}
			})
		}
	}
}

// Who acts as a service that is none is told so.
func TestCallerThatIsNone(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(), orders())
	client := &http.Client{Transport: w.p.Transport("nosuch")}
	t.Cleanup(client.CloseIdleConnections)
	res, body, err := ask(client, "GET", "http://inventory/")
	if err != nil || res.StatusCode != 403 || res.Header.Get("Shoal-Reason") != "unknown-caller" {
		t.Fatal(err, res)
	}
	contains(t, body, `no service of this fleet is called "nosuch"`, "The fleet has: inventory, orders.")
}
