package sidecar

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

// query asks from inside and returns the code and the records.
func query(t *testing.T, sc *Sidecar, args ...string) string {
	t.Helper()
	return run(t, sc, append([]string{self(t), "app", "dns"}, args...)...)
}

func TestResolver(t *testing.T) {
	needNetns(t)
	s := newStand(t)
	s.search = []string{"corp.example"}
	sc := s.launch(fleet.Netns, "orders-1", "sleep 60", func(sp *Spec) {
		sp.Assignment.Manifest.Egress = []fleet.HostPort{{Host: "orders.corp.example", Port: 443}}
	})
	const local, any4, any6 = "127.0.0.1:53", "8.8.8.8:53", "[2001:4860:4860::8888]:53"
	for _, c := range []struct{ network, server, name, kind, want string }{
		{"udp", local, "inventory", "A", "NOERROR inventory. 5 IN A 198.18.0.17"},
		{"tcp", local, "inventory", "A", "NOERROR inventory. 5 IN A 198.18.0.17"},
		{"udp", any4, "inventory", "AAAA", "NOERROR inventory. 5 IN AAAA fd5f:9a1c:77e2:1::11"},
		{"tcp", any4, "inventory", "AAAA", "NOERROR inventory. 5 IN AAAA fd5f:9a1c:77e2:1::11"},
		{"udp", any6, "InVentory", "A", "NOERROR InVentory. 5 IN A 198.18.0.17"},
		{"tcp", any6, "payments-svc", "A", "NOERROR payments-svc. 5 IN A 198.18.0.18"},
		{"udp", "[::1]:53", "events", "A", "NOERROR events. 5 IN A 198.18.0.1"},
		{"tcp", "[::1]:53", "pubsub", "A", "NOERROR pubsub. 5 IN A 198.18.0.2"},
		{"udp", local, "inventory.corp.example", "A", "NOERROR inventory.corp.example. 5 IN A 198.18.0.17"},
		{"udp", local, "orders.corp.example", "A", "NOERROR orders.corp.example. 5 IN A 198.19."}, // declared egress
		{"udp", local, "api.example.com", "A", "NOERROR api.example.com. 5 IN A 198.19."},
		{"udp", local, "api.example.com", "AAAA", "NOERROR api.example.com. 5 IN AAAA fd5f:9a1c:77e2:1::1:"},
		{"udp", local, "localhost", "A", "NOERROR localhost. 5 IN A 127.0.0.1"},
		{"udp", local, "web.localhost", "AAAA", "NOERROR web.localhost. 5 IN AAAA ::1"},
		{"udp", local, "_http._tcp.inventory", "SRV", "NOERROR"},
		{"udp", local, "example.com", "MX", "NOERROR"},
		{"udp", local, "example.com", "TXT", "NOERROR"},
		{"udp", local, "example.com", "HTTPS", "NOERROR"},
		{"udp", local, "nothing.invalid", "A", "NXDOMAIN"},
		{"udp", local, "10.1.2.3", "A", "NXDOMAIN"},
		{"udp", local, "17.0.18.198.in-addr.arpa", "PTR", "NOERROR 17.0.18.198.in-addr.arpa. 5 IN PTR inventory."},
		{"udp", local, "1.0.0.127.in-addr.arpa", "PTR", "localhost."},
		{"udp", local, "1.2.3.4.in-addr.arpa", "PTR", "NXDOMAIN"},
		{"udp", local, "1.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.2.e.7.7.c.1.a.9.f.5.d.f.ip6.arpa", "PTR", "PTR inventory."},
		{"udp", local, "inventory", "ANY", "HINFO"},
		{"udp", local, "inventory", "AXFR", "REFUSED"},
	} {
		if got := query(t, sc, c.network, c.server, c.name, c.kind); !strings.Contains(got, c.want) || c.want == "NOERROR" && got != c.want {
			t.Errorf("%s over %s at %s: got %q; want %q", c.name+" "+c.kind, c.network, c.server, got, c.want)
		}
	}
	if got := query(t, sc, "udp", local, "inventory", "A", "edns"); !strings.HasSuffix(got, " EDNS") {
		t.Errorf("with EDNS: %q", got)
	}
}

func TestNamesKeepTheirAddresses(t *testing.T) {
	needNetns(t)
	dir := shortDir(t)
	first := standIn(t, dir)
	sc := first.launch(fleet.Netns, "orders-1", "sleep 60")
	before := query(t, sc, "udp", "127.0.0.1:53", "api.example.com", "A")
	other := query(t, sc, "udp", "127.0.0.1:53", "other.example.com", "A")
	if before == other {
		t.Fatalf("two names have one address: %q", other)
	}
	second := standIn(t, dir) // while the first still serves, as during an upgrade
	if again := query(t, second.launch(fleet.Netns, "web-1", "sleep 60"), "udp", "127.0.0.1:53", "api.example.com", "A"); again != before {
		t.Errorf("first %q, after a restart %q", before, again)
	}
	late := query(t, sc, "udp", "127.0.0.1:53", "late.example.com", "A")
	a, ok := addressIn(late)
	if name, known := second.NameOf(a); !ok || !known || name != "late.example.com" {
		t.Errorf("the second process knows %v of %q as %q, %v", a, late, name, known)
	}
}

// The host may replace /etc/resolv.conf by a rename, which detaches our file: queries then go wherever
// the host's says, and are captured all the same.
func TestResolvConfReplacedOnTheHost(t *testing.T) {
	needNetns(t)
	if os.Getuid() != 0 {
		t.Skip("needs root, to give the test a host /etc of its own")
	}
	dir := shortDir(t)
	etc := filepath.Join(dir, "etc")
	out := inMountNamespace(t, `cp -a /etc `+etc+` && mount --bind `+etc+` /etc && exec `+app(t, "resolvconf", dir))
	if !strings.Contains(out, "before: nameserver 127.0.0.1") || !strings.Contains(out, "after: nameserver 127.0.0.53") {
		t.Fatalf("resolv.conf was not replaced: %s", out)
	}
	if !strings.Contains(out, "orders-1 calls ") {
		t.Errorf("got %s", out)
	}
}

func TestResolversOfTheHostAreMasked(t *testing.T) {
	needNetns(t)
	if os.Getuid() != 0 {
		t.Skip("needs root, to give the test sockets of nscd and systemd-resolved")
	}
	dir := shortDir(t)
	out := inMountNamespace(t, `mount -t tmpfs tmpfs /run && mkdir -p /run/nscd /run/systemd/resolve && exec `+app(t, "resolvers", dir))
	if strings.Contains(out, "answered") || !strings.Contains(out, "2 refused") {
		t.Errorf("got %s", out)
	}
	if !strings.Contains(out, "hosts: files dns") || strings.Count(out, "hosts:") != 1 {
		t.Errorf("nsswitch.conf: %s", out)
	}
}
