package sidecar

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/proxy"
)

// meshStand is a stand whose data path is the real one.
func meshStand(t *testing.T) (*stand, *proxy.Proxy) {
	t.Helper()
	recorder := observe.New(observe.Config{})
	var m *Manager
	p, err := proxy.New(proxy.Config{
		Node: "n1", Recorder: recorder,
		NameOf: func(a netip.Addr) (string, bool) { return m.NameOf(a) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { _ = p.Run(ctx); close(ended) }()
	s := newStand(t, func(c *Config) { c.Proxy = p })
	m = s.Manager
	t.Cleanup(func() { cancel(); <-ended })
	return s, p
}

// mesh is a snapshot in which orders calls inventory and needs db, and web is none of its business.
func mesh(s *stand, mode fleet.Mode, db string) *fleet.Snapshot {
	orders := s.assignment(mode, "orders-1", "").Manifest
	orders.File, orders.Calls = "orders/shoal.yaml", []fleet.Call{{Service: "inventory", As: "stock"}}
	orders.Needs[0].Bound = db
	service := func(name string, index uint16, m fleet.Manifest) *fleet.Service {
		m.Service = name
		return &fleet.Service{Name: name, Version: 1, Index: index, Manifest: m, Deployed: true,
			Endpoints: []fleet.Endpoint{{Instance: name + "-1", Node: "n1"}}}
	}
	ports := fleet.Manifest{File: "x/shoal.yaml", Ports: orders.Ports}
	return &fleet.Snapshot{Fleet: "shop", Version: 1, Services: []*fleet.Service{
		service("inventory", 17, ports), service("orders", 16, orders), service("web", 18, ports),
	}}
}

// The whole walk of a call: application, sidecar, proxy, sidecar, application.
func TestMesh(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		db := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("database")) }))
		defer db.Close()
		s, p := meshStand(t)
		snapshot := mesh(s, mode, db.Listener.Addr().String())
		p.Install(snapshot)
		listen := ":8080"
		if mode == fleet.Explicit {
			listen = ":$PORT"
		}
		s.launch(mode, "inventory-1", app(t, "serve", listen))
		s.launch(mode, "web-1", app(t, "serve", listen))
		orders := s.launch(mode, "orders-1", "sleep 1000", func(sp *Spec) { sp.Assignment.Manifest = snapshot.Services[1].Manifest })
		for command, want := range meshCalls(mode) {
			if got := run(t, orders, "sh", "-c", command); !strings.Contains(got, want) {
				t.Errorf("%s: %q; want %q", command, got, want)
			}
		}
	})
}

func meshCalls(mode fleet.Mode) map[string]string {
	const curl = "curl -sS --max-time 20 "
	calls := map[string]string{ // plain HTTP clients honour HTTP_PROXY in explicit mode
		curl + "http://inventory/":             "inventory-1 at ",
		curl + "http://stock:8080/":            "inventory-1 at ",
		curl + "http://web/":                   "orders may not call web",
		curl + "http://inventory:9/":           "8080",
		curl + "http://undeclared.example.com": "egress",
	}
	if mode == fleet.Explicit {
		calls[curl+"$STOCK_URL"] = "inventory-1 at "
		calls[curl+"http://$DB_ADDR"] = "database"
		return calls
	}
	calls[curl+"-6 http://inventory/"] = "inventory-1 at "
	calls[curl+"http://localhost:5432/"] = "database"
	return calls
}
