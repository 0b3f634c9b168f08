package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/proxy"
)

// A service that is the same in two snapshots is compiled once, and so is a route, until a service changes that it
// was made of: its caller, its callee, or one to which that hands calls over.
func TestRoutesFollowTheirServices(t *testing.T) {
	all := handOver("all", fleet.Match{}, fleet.Share{Service: "inventory-next", Weight: 1})
	plain, routes, other, caller := inventory(), inventory(routed(all)), next(), orders()
	stopped := next(func(s *fleet.Service) { s.Deployed = false })
	renamed := orders(func(s *fleet.Service) {
		s.Manifest.Calls = []fleet.Call{{Service: "inventory"}, {Service: "inventory-next", As: "stock"}}
	})
	silent := orders(func(s *fleet.Service) { s.Manifest.Calls = nil })
	w, _ := routedWorld(t, plain, other)
	addr := w.named("stock", 80)
	for i, c := range []struct {
		services []*fleet.Service
		says     string // of the answer, or of the refusal
	}{
		{[]*fleet.Service{plain, other, caller}, "inventory for orders"},
		{[]*fleet.Service{routes, other, caller}, "inventory-next for orders"},
		{[]*fleet.Service{routes, stopped, caller}, "not-running"},
		{[]*fleet.Service{routes, other, caller}, "inventory-next for orders"},
		{[]*fleet.Service{routes, next(allows(fleet.Allow{Caller: "web"})), caller}, "not-allowed"},
		{[]*fleet.Service{routes, caller}, "unknown-service"},
		{[]*fleet.Service{routes, other, caller}, "inventory-next for orders"},
		{[]*fleet.Service{plain, other, caller}, "inventory for orders"},
		{[]*fleet.Service{plain, other, renamed}, "inventory-next for orders"},
		{[]*fleet.Service{plain, other, silent}, "unknown-service"},
		{[]*fleet.Service{plain, other, caller}, "inventory for orders"},
		{[]*fleet.Service{service("stock", 30), plain, other, silent}, "undeclared-call"},
		{[]*fleet.Service{plain, other, caller, service("stock", 30)}, "inventory for orders"},
	} {
		w.install(c.services...)
		for range 2 { // the second by what the first resolved
			res, err := http.Get("http://" + addr)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(res.Body)
			res.Body.Close()
			if said := res.Header.Get("Shoal-Reason"); said != c.says && string(body) != c.says {
				t.Errorf("%d: %s %q %s; want %s", i, res.Status, said, body, c.says)
			}
		}
	}
}

// changing installs snapshots of a thousand services with five routes each, of which one changes each time.
func changing(t testing.TB) (install func()) {
	p, err := proxy.New(proxy.Config{Node: "bench", Recorder: observe.New(observe.Config{})})
	if err != nil {
		t.Fatal(err)
	}
	s := &fleet.Snapshot{Fleet: "bench"}
	for i := range 1000 {
		server := service(fmt.Sprintf("server%d", i), uint16(17+i))
		for r := range 5 {
			server.Manifest.Routes = append(server.Manifest.Routes, fleet.Route{Name: fmt.Sprintf("route%d", r), Match: fleet.Match{Path: fmt.Sprintf("/path%d/*", r)}})
		}
		s.Services = append(s.Services, server)
	}
	p.Install(s)
	n := 0
	return func() {
		next := *s
		next.Services = slices.Clone(s.Services)
		changed := *next.Services[n%1000]
		changed.Manifest.Routes = slices.Clone(changed.Manifest.Routes)
		changed.Manifest.Routes[0].Timeout++
		next.Services[n%1000] = &changed
		n++
		s = &next
		p.Install(s)
	}
}

// What an Install makes does not grow with the services that are as they were.
func TestInstallCompilesWhatChanged(t *testing.T) {
	if n := testing.AllocsPerRun(20, changing(t)); n > 200 {
		t.Errorf("%.0f allocations for one changed service of a thousand", n)
	}
}

func BenchmarkInstall(b *testing.B) {
	install := changing(b)
	b.ReportAllocs()
	for b.Loop() {
		install()
	}
}
