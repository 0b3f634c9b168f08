//go:build unix

package growing

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/shoalrun/shoal/fleet"
)

var shoal, natsServer string

func TestMain(m *testing.M) {
	if told := os.Getenv(victimVariable); told != "" {
		panic(beVictim(told))
	}
	dir, err := os.MkdirTemp("", "shoal-growing-")
	if err != nil {
		panic(err)
	}
	shoal, natsServer = filepath.Join(dir, "shoal"), filepath.Join(dir, "nats-server")
	build(shoal, "github.com/shoalrun/shoal/cmd/shoal")
	build(natsServer, "github.com/nats-io/nats-server/v2")
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func build(out, pkg string) {
	cmd := exec.Command("go", "build", "-o", out, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		panic(fmt.Sprintf("%v\n%s", err, text))
	}
}

// settings of a server that are not those of a test that does not care.
type settings struct {
	sync       string        // sync_interval; empty: always
	maxPayload string        // empty: 40MB
	limits     string        // of the account SHOP; empty: enabled
	users      string        // of the account SHOP; empty: shop, with a password
	more       string        // blocks of configuration
	secure     bool          // monitoring by TLS, too
	auth       string        // in place of accounts and their users
	options    []nats.Option // of the test's own connections
}

// natsNode is one nats-server process.
type natsNode struct {
	t             *testing.T
	name, dir     string
	client, route int
	monitor       int
	cmd           *exec.Cmd
	log           bytes.Buffer
	settings
}

// servers starts a server, or a cluster of three or more, and waits until it answers.
func servers(t *testing.T, n int, with settings) []*natsNode {
	t.Helper()
	all := prepared(t, n, with)
	for _, s := range all {
		s.start()
	}
	for _, s := range all {
		s.await()
	}
	return all
}

// prepared are servers that know each other, and are not started yet.
func prepared(t *testing.T, n int, with settings) []*natsNode {
	t.Helper()
	var all []*natsNode
	for i := range n {
		all = append(all, &natsNode{t: t, name: fmt.Sprintf("n%d", i+1), dir: t.TempDir(), client: freePort(t), route: freePort(t), monitor: freePort(t), settings: with})
	}
	for _, s := range all {
		s.configure(all)
	}
	return all
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (s *natsNode) configure(all []*natsNode) {
	var routes []string
	for _, o := range all {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", o.route))
	}
	cluster := ""
	if len(all) > 1 {
		cluster = fmt.Sprintf("cluster { name: growing, listen: \"127.0.0.1:%d\", routes: [%s] }", s.route, strings.Join(routes, ", "))
	}
	text := fmt.Sprintf(`
server_name: %s
listen: "127.0.0.1:%d"
%s: "127.0.0.1:%d"
max_payload: %s
jetstream { store_dir: %q, sync_interval: %s, max_file_store: 20GB }
%s
%s
%s
`, s.name, s.client, s.monitors(), s.monitor, or(s.maxPayload, "40MB"), filepath.Join(s.dir, "js"), or(s.sync, "always"), cluster, s.more, or(s.auth, s.accounts()))
	if err := os.WriteFile(s.config(), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *natsNode) monitors() string {
	if s.secure {
		return "https"
	}
	return "http"
}

func (s *natsNode) accounts() string {
	return fmt.Sprintf(`
accounts {
  SHOP { jetstream: %s, users: [%s] }
  OTHER { jetstream: enabled, users: [{user: other, password: s3cret}] }
  SYS { users: [{user: sys, password: s3cret}] }
}
system_account: SYS`, or(s.limits, "enabled"), or(s.users, "{user: shop, password: s3cret}"))
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (s *natsNode) config() string { return filepath.Join(s.dir, "nats.conf") }

func (s *natsNode) start() {
	s.t.Helper()
	s.cmd = exec.Command(natsServer, "-c", s.config())
	s.cmd.Stdout, s.cmd.Stderr = &s.log, &s.log
	cmd := s.cmd
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if s.t.Failed() && os.Getenv("BROKER_TEST_LOG") != "" {
			s.t.Logf("%s\n%s", s.name, s.log.String())
		}
	})
}

// await waits until JetStream answers.
func (s *natsNode) await() {
	s.t.Helper()
	eventually(s.t, s.name+" answers", func() bool {
		c, err := nats.Connect(s.url("shop"), append([]nats.Option{nats.Timeout(time.Second)}, s.options...)...)
		if err != nil {
			return false
		}
		defer c.Close()
		answer, err := c.Request("$JS.API.INFO", nil, time.Second)
		return err == nil && !bytes.Contains(answer.Data, []byte(`"error"`))
	})
}

func (s *natsNode) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
}

// stop ends a server as its operator does.
func (s *natsNode) stop() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
}

// pause returns once the server has stopped.
func (s *natsNode) pause() {
	_ = s.cmd.Process.Signal(syscall.SIGSTOP)
	_, _ = syscall.Wait4(s.cmd.Process.Pid, new(syscall.WaitStatus), syscall.WUNTRACED, nil)
}
func (s *natsNode) resume() { _ = s.cmd.Process.Signal(syscall.SIGCONT) }

func (s *natsNode) url(user string) string {
	if len(s.options) > 0 { // they say who it is
		return fmt.Sprintf("nats://127.0.0.1:%d", s.client)
	}
	return fmt.Sprintf("nats://%s:s3cret@127.0.0.1:%d", user, s.client)
}

// engine is how a broker reaches the servers, with proof that they sync.
func engine(all []*natsNode, user string) fleet.Engine {
	var e fleet.Engine
	for _, s := range all {
		e.URL += "," + s.url(user)
		e.Monitor = append(e.Monitor, fmt.Sprintf("%s://127.0.0.1:%d", s.monitors(), s.monitor))
	}
	e.URL = e.URL[1:]
	return e
}

// patience is how long what must happen may take on a machine that does other work, too.
const patience = 2 * time.Minute

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !is() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", patience, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
