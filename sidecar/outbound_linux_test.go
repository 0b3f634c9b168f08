package sidecar

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// needTool skips a test, by name, where a program is not installed.
func needTool(t testing.TB, name string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
}

// clients are programs that nobody taught about Shoal, each of which fetches URL.
var clients = map[string]string{
	"curl":    `curl -sS --max-time 20 URL`,
	"curl -4": `curl -4 -sS --max-time 20 URL`,
	"curl -6": `curl -6 -sS --max-time 20 URL`,
	"node":    `node -e 'fetch("URL").then(r=>r.text()).then(t=>console.log(t))'`,
	"python3": `python3 -c 'import urllib.request as u; print(u.urlopen("URL").read().decode())'`,
	"getent":  `getent ahosts inventory >&2 && echo "orders-1 calls 198.18.0.17:8080"`,
}

func TestCallsByNameAreCaptured(t *testing.T) {
	needNetns(t)
	v4, v6 := virtual(17)
	for name, command := range clients {
		t.Run(name, func(t *testing.T) {
			needTool(t, strings.Fields(name)[0])
			command := strings.ReplaceAll(command, "URL", "http://inventory:8080/stock")
			got := newStand(t).output(fleet.Netns, "orders-1", command)
			if !strings.Contains(got, fmt.Sprintf("orders-1 calls %s:8080", v4)) &&
				!strings.Contains(got, fmt.Sprintf("orders-1 calls [%s]:8080", v6)) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestGoResolvesByItself(t *testing.T) {
	needNetns(t)
	got := newStand(t).output(fleet.Netns, "orders-1", "GODEBUG=netdns=go "+app(t, "get", "http://payments-svc/"))
	if !strings.Contains(got, "orders-1 calls ") || !strings.Contains(got, " as payments-svc") {
		t.Errorf("got %q", got)
	}
}

func TestJavaCallsByName(t *testing.T) {
	needNetns(t)
	needTool(t, "java")
	s := newStand(t)
	write(t, s.dir+"/Get.java", `public class Get { public static void main(String[] a) throws Exception {
		System.out.println(java.net.InetAddress.getLocalHost().getHostAddress());
		System.out.println(new String(new java.net.URL("http://inventory/").openStream().readAllBytes())); } }`)
	got := s.output(fleet.Netns, "orders-1", "java -Xint Get.java")
	if !strings.Contains(got, "orders-1 calls ") {
		t.Errorf("got %q", got)
	}
}

func TestAddressesAreCapturedLiterally(t *testing.T) {
	needNetns(t)
	s := newStand(t)
	for url, want := range map[string]string{
		"http://203.0.113.7:1234/":    "orders-1 calls 203.0.113.7:1234",
		"http://[2001:db8::7]:1234/":  "orders-1 calls [2001:db8::7]:1234",
		"http://api.example.com:443/": ":443 as api.example.com:443",
		"http://localhost:5432/":      "orders-1 calls 127.0.0.1:5432", // the declared need
		"http://[::1]:5432/":          "orders-1 calls [::1]:5432",
		"http://127.8.9.10:5432/":     "orders-1 calls 127.8.9.10:5432",
	} {
		if got := s.output(fleet.Netns, "orders-1", "curl -4 -sS --max-time 20 '"+url+"' || curl -sS --max-time 20 '"+url+"'"); !strings.Contains(got, want) {
			t.Errorf("%s: got %q; want %q", url, got, want)
		}
	}
}

func TestLoopbackStaysInside(t *testing.T) {
	needNetns(t)
	s := newStand(t)
	sc := s.launch(fleet.Netns, "orders-1", app(t, "serve", ":8080"))
	for _, url := range []string{"http://localhost:8080/", "http://[::1]:8080/", "http://192.0.2.1:8080/", "http://$(hostname):8080/"} {
		eventually(t, "the application answers at "+url, func() bool {
			return strings.HasPrefix(quiet(sc, "sh", "-c", "curl -sS --max-time 20 "+url), "orders-1 at ")
		})
	}
}

func TestUDPIsRefusedAtOnceButLoopbackWorks(t *testing.T) {
	needNetns(t)
	s := newStand(t)
	for _, addr := range []string{"203.0.113.7:123", "[2001:db8::7]:123", "198.18.0.17:443"} {
		begun := time.Now()
		got := s.output(fleet.Netns, "orders-1", app(t, "udp", addr))
		if strings.Contains(got, "timeout") || got == "<nil>" {
			t.Errorf("%s: %q after %v; want a refusal", addr, got, time.Since(begun))
		}
	}
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		if got := s.output(fleet.Netns, "orders-1", app(t, "echo", addr)); got != "<nil>" {
			t.Errorf("%s: %q", addr, got)
		}
	}
}

// Without a source address on lo, answers to redirected connections are lost; without lower
// timeouts, conntrack keeps every closed one for two minutes.
func TestNamespaceIsFitForManyConnections(t *testing.T) {
	needNetns(t)
	s := newStand(t)
	got := s.output(fleet.Netns, "orders-1", `cat /proc/net/fib_trie | grep -A1 '192.0.2.1' | tail -1
		cat /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait /proc/sys/net/ipv4/ip_unprivileged_port_start
		for i in $(seq 300); do echo http://198.18.0.17/; done | xargs -n 100 curl -sS --no-keepalive -H 'Connection: close' | grep -o 'calls 198.18.0.17:80' | wc -l`)
	want := []string{"/32 host LOCAL", "5", "0", "300"}
	for i, line := range strings.Split(got, "\n") {
		if i >= len(want) || !strings.Contains(line, want[i]) {
			t.Errorf("got %q; want %q", got, want)
			break
		}
	}
}

func TestServiceMayListenOnAnyPort(t *testing.T) {
	needNetns(t)
	s := newStand(t)
	sc := s.launch(fleet.Netns, "orders-1", app(t, "serve", ":80"))
	eventually(t, "port 80 answers", func() bool { return dials(sc, 80) })
}
