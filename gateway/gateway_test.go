package gateway

import (
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

func TestMatch(t *testing.T) {
	g := New(nil)
	g.Install(&fleet.Snapshot{Services: []*fleet.Service{
		{Name: "web", Manifest: fleet.Manifest{Expose: []fleet.Expose{{Host: "web.localhost", Path: "/"}, {Host: "shop.example", Path: "/"}}}},
		{Name: "api", Manifest: fleet.Manifest{Expose: []fleet.Expose{{Host: "Shop.example", Path: "/api/"}}}},
		{Name: "v2", Manifest: fleet.Manifest{Expose: []fleet.Expose{{Host: "shop.example", Path: "/api/v2"}}}},
		{Name: "hidden"},
	}})
	for _, c := range []struct{ host, path, want string }{
		{"web.localhost", "/", "web"},
		{"web.localhost:8000", "/deep/path?q=1", "web"},
		{"WEB.localhost.", "/", "web"},
		{"shop.example", "/", "web"},
		{"shop.example", "/api", "api"},
		{"shop.example", "/api/orders", "api"},
		{"shop.example", "/apix", "web"},
		{"shop.example", "/api/v2?x=/", "v2"},
		{"shop.example", "/api/v20", "api"},
		{"hidden.localhost", "/", ""},
		{"", "/", ""},
		{"[::1]:8000", "/", ""},
	} {
		if got, ok := g.Match(c.host, c.path); got != c.want || ok != (c.want != "") {
			t.Errorf("Match(%q, %q) = %q, %v; want %q", c.host, c.path, got, ok, c.want)
		}
	}
}

func TestInstallSwapsWhole(t *testing.T) {
	g := New(nil)
	g.Install(&fleet.Snapshot{Services: []*fleet.Service{{Name: "web", Manifest: fleet.Manifest{Expose: []fleet.Expose{{Host: "web.localhost", Path: "/"}}}}}})
	g.Install(&fleet.Snapshot{})
	if got, ok := g.Match("web.localhost", "/"); ok {
		t.Errorf("after an empty snapshot, web.localhost still goes to %q", got)
	}
}
