//go:build unix

package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

// explained wants `up -d` to fail and to say each part.
func (w *world) explained(parts ...string) {
	w.Helper()
	out, errs, code := w.try("up", "-d", "--mode", string(w.mode))
	if code == 0 {
		w.Errorf("up succeeded:\n%s%s", out, errs)
	}
	for _, part := range parts {
		if !strings.Contains(out+errs, part) {
			w.Errorf("up says:\n%s%s\nwant %q in it", out, errs, part)
		}
	}
}

func TestBadManifestsAreExplained(t *testing.T) {
	const head = "service: web\nrun: APP web\nlisten: {8080: http}\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"unknown key":        {map[string]string{"web/shoal.yaml": head + "helth: GET /\n"}, []string{"web/shoal.yaml:4:1", "helth", "health"}},
		"wrong type":         {map[string]string{"web/shoal.yaml": head + "instances: many\n"}, []string{"web/shoal.yaml:4", "instances"}},
		"both at once":       {map[string]string{"web/shoal.yaml": head + "helth: GET /\ninstances: many\n"}, []string{":4:", ":5:"}},
		"duplicate name":     {map[string]string{"web/shoal.yaml": head, "web2/shoal.yaml": head}, []string{"web", "web2"}},
		"unknown dependency": {map[string]string{"web/shoal.yaml": head + "calls: [inventry]\n", "inventory/shoal.yaml": strings.ReplaceAll(head, "web", "inventory")}, []string{"inventry", "inventory", "web/shoal.yaml:4"}},
		"missing repository": {map[string]string{"web/shoal.yaml": head, "shoal.work": "fleet: t\nrepos: [./web, ./gone]\n"}, []string{"gone", "shoal.work:2"}},
		"unreachable URL":    {map[string]string{"web/shoal.yaml": head, "shoal.work": "fleet: t\nrepos: [\"https://127.0.0.1:1/x.git\"]\n"}, []string{"https://127.0.0.1:1/x.git"}},
		"exits at once":      {map[string]string{"web/shoal.yaml": head + "env: {EXIT_WITH: no database here}\n"}, []string{"web", "exit", "no database here"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, settings()[0], c.files)
			w.explained(c.want...)
		})
	}
}

func TestBadPin(t *testing.T) {
	w := newWorld(t, settings()[0], built)
	w.write("shoal.work", "fleet: t\nrepos: [\"file://"+w.dir+"/web@v9.9\"]\n")
	w.explained("v9.9", "web")
}

func TestPinIsLocked(t *testing.T) {
	w := newWorld(t, settings()[0], built)
	w.git("web", "tag", "v1.0")
	w.write("shoal.work", "fleet: t\nrepos: [\"file://"+w.dir+"/web@v1.0\"]\n")
	w.up()
	if got := w.service("web"); got.Origin != "pin" || got.Commit != w.git("web", "rev-parse", "HEAD") {
		t.Errorf("%+v", got)
	}
	lock, err := os.ReadFile(filepath.Join(w.dir, "shoal.lock"))
	if err != nil || !strings.Contains(string(lock), w.git("web", "rev-parse", "HEAD")) {
		t.Errorf("shoal.lock: %s %v", lock, err)
	}
}

func TestNeverHealthy(t *testing.T) {
	w := newWorld(t, settings()[0], map[string]string{"web/version.txt": "sick", "web/shoal.yaml": `service: web
run: APP web
listen: {8080: http}
health: GET /healthz
startup: 1s
`})
	w.explained("web", "/healthz", "503")
}

func TestPORTIsIgnoredInExplicitMode(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:8080") // so that the service gets another port
	if err == nil {
		defer l.Close()
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	_, port, _ := net.SplitHostPort(free.Addr().String())
	must(t, free.Close())
	w := newWorld(t, settings()[1], map[string]string{"web/shoal.yaml": `service: web
run: PORT=` + port + ` APP web
listen: {8080: http}
startup: 2s
`})
	w.explained("as PORT says, not on 8080", "it listens on "+port)
}

func TestSecondUpOnOneDataFolder(t *testing.T) {
	w := newWorld(t, settings()[0], built)
	w.up()
	before := w.service("web").Instances[0].PID
	if _, errs, code := w.try("up"); code == 0 || !strings.Contains(errs, "already") {
		t.Errorf("a second up in the foreground: exit code %d, %q", code, errs)
	}
	w.up()
	if after := w.service("web").Instances[0].PID; after != before {
		t.Errorf("up -d with nothing new replaced process %d by %d", before, after)
	}
	for _, flags := range [][]string{{"--gateway", "127.0.0.1:1"}, {"--metrics", "127.0.0.1:1"}, {"--mode", "explicit"}} {
		out, errs, code := w.try(append([]string{"up", "-d"}, flags...)...)
		if code == 0 || !strings.Contains(errs, flags[0]) || !strings.Contains(errs, "shoal down") {
			t.Errorf("up -d %v on a fleet that runs without: exit code %d %s%s", flags, code, out, errs)
		}
	}
	w.up("--gateway", w.status().Gateway)
}

// What is typed wrong is refused before anything is changed.
func TestWrongArgumentsChangeNothing(t *testing.T) {
	w := newWorld(t, settings()[0], shop)
	must(t, os.Rename(filepath.Join(w.dir, "shoal.work"), filepath.Join(w.dir, "kept.work")))
	if _, errs, code := w.try("up", "-d", "./gone"); code == 0 || !strings.Contains(errs, "./gone is not there") {
		t.Errorf("up of a repository that is not there: exit code %d %s", code, errs)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "shoal.work")); err == nil {
		t.Error("a shoal.work of it was written")
	}
	must(t, os.Rename(filepath.Join(w.dir, "kept.work"), filepath.Join(w.dir, "shoal.work")))
	w.up()
	hub, node := w.pids("hub"), w.pids("node")
	w.write("not-shoal", "#!/bin/sh\necho hello\n")
	must(t, os.Chmod(filepath.Join(w.dir, "not-shoal"), 0o755))
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"upgrade", "./not-shoal"}, "no shoal binary"},
		{[]string{"upgrade", "./shoal.work"}, "permission denied"},
		{[]string{"logs", "nosuch"}, "inventory, orders, payments, web"},
		{[]string{"exec", "nosuch", "--", "true"}, "inventory, orders, payments, web"},
		{[]string{"tap", "nosuch"}, "inventory, orders, payments, web"},
		{[]string{"wait", "nosuch"}, "inventory, orders, payments, web"},
		{[]string{"restart", "nosuch"}, "inventory, orders, payments, web"},
		{[]string{"attach", "nosuch", "localhost:1"}, "inventory, orders, payments, web"},
		{[]string{"debug", "nosuch"}, "inventory, orders, payments, web"},
		{[]string{"up", "-d", "nosuch"}, "inventory, orders, payments, web"},
		{[]string{"call", "http://web:99/"}, "8080"},
		{[]string{"env", "--as", "nosuch"}, "nosuch"},
		{[]string{"forward", "web:99"}, "8080"},
		{[]string{"why", "nosuch"}, "no request or trace that is remembered"},
	} {
		if out, errs, code := w.try(c.args...); code == 0 || !strings.Contains(out+errs, c.want) {
			t.Errorf("%v: exit code %d, says:\n%s%s\nwant %q in it", c.args, code, out, errs, c.want)
		}
	}
	if !slices.Equal(hub, w.pids("hub")) || !slices.Equal(node, w.pids("node")) {
		t.Error("hub or node was replaced")
	}
}

func TestDataFolderOfANewerVersion(t *testing.T) {
	w := newWorld(t, settings()[0], built)
	w.write(".shoal/VERSION", "99\n")
	w.explained("99", ".shoal")
	w.write(".shoal/VERSION", "1\n")
}

// TestDataFolderOfTheVersionBefore starts a fleet on what a broker of data version 1 left when it was killed. It has its messages, those that only the
// write-ahead log has included; and from then on a Shoal of that version is told to stay away.
func TestDataFolderOfTheVersionBefore(t *testing.T) {
	w := newWorld(t, settings()[0], shop)
	w.write(".shoal/VERSION", "1\n")
	files := filepath.Join(w.dir, ".shoal", "hub", "jetstream")
	must(t, os.MkdirAll(files, 0o700))
	if out, err := exec.Command("tar", "-xzf", "../../broker/testdata/version1.tar.gz", "-C", files).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.up()
	version, err := os.ReadFile(filepath.Join(w.dir, ".shoal", "VERSION"))
	if err != nil || string(version) != "2\n" {
		t.Errorf("VERSION is %q, %v", version, err)
	}
	var topics []fleet.TopicStatus
	must(t, json.Unmarshal([]byte(w.run("topics", "--json")), &topics))
	i := slices.IndexFunc(topics, func(s fleet.TopicStatus) bool { return s.Name == "orders-0" })
	if i < 0 || topics[i].Published != 7 {
		t.Errorf("topics: %+v; want orders-0 with 7 messages, five of which only the write-ahead log had", topics)
	}
}

func TestMalformedHTTP(t *testing.T) {
	w := newWorld(t, settings()[0], shop)
	w.up()
	gateway := w.status().Gateway
	for _, raw := range []string{
		"GET / HTTP/1.1\nHost: web.localhost\n\n",
		"GET / HTTP/1.1\r\nHost: web.localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost : web.localhost\r\n\r\n",
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"GET /" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\n\r\n",
	} {
		c, err := net.Dial("tcp", gateway)
		must(t, err)
		_, _ = io.WriteString(c, raw)
		line, _ := bufio.NewReader(c).ReadString('\n')
		alert := strings.HasPrefix(line, "\x15\x03") // TLS
		if !strings.HasPrefix(line, "HTTP/1.1 4") && !alert {
			t.Errorf("%.40q got %q", raw, line)
		}
		_ = c.Close()
	}
	w.expect("web", "/", "web v1")
}

func TestPortClashInExplicitMode(t *testing.T) {
	const ports = "listen: {8080: {protocol: http, default: true}, 19099: tcp}\n"
	w := newWorld(t, settings()[1], map[string]string{
		"web/shoal.yaml": "service: web\nrun: APP web\n" + ports, "orders/shoal.yaml": "service: orders\nrun: APP orders\n" + ports,
	})
	w.explained("`orders` and `web` both listen on port 19099", "web/shoal.yaml:3", "netns")
}

func TestTakenAddressOfTheGateway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	w := newWorld(t, settings()[0], with(built, map[string]string{
		"shoal.work": fmt.Sprintf("fleet: t\ngateway: %s\nrepos: [./web]\n", l.Addr()),
	}))
	w.explained(l.Addr().String(), "gateway")
}
