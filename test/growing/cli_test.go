//go:build unix

package growing

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

// place is a folder with a fleet of one service, and the real binary.
type place struct {
	t   *testing.T
	dir string
	env []string
}

func newPlace(t *testing.T, at fleet.Engine) *place {
	t.Helper()
	p := &place{t: t, dir: t.TempDir()}
	runtime, err := os.MkdirTemp("", "sg") // paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(runtime) })
	p.env = append(os.Environ(), "XDG_RUNTIME_DIR="+runtime, "XDG_CACHE_HOME="+filepath.Join(p.dir, "cache"), "HOME="+p.dir)
	p.write("orders/shoal.yaml", "service: orders\nrun: sleep 100000\npublishes: [orders.placed]\nsubscribes: {orders.placed: pull}\n")
	p.write("shoal.work", fmt.Sprintf("fleet: shop\nrepos: [./orders]\ngateway: %d\nmetrics: %d\nnats: %d\npubsub: %d\nengine: {url: %q, monitor: %q}\n",
		freePort(t), freePort(t), freePort(t), freePort(t), at.URL, at.Monitor[0]))
	for _, args := range [][]string{{"init", "-q"}, {"add", "."}, {"-c", "user.name=a", "-c", "user.email=a@example.com", "commit", "-qm", "one"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir, cmd.Env = filepath.Join(p.dir, "orders"), p.env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
	}
	return p
}

func (p *place) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o644)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) try(args ...string) (string, error) {
	cmd := exec.Command(shoal, args...)
	cmd.Dir, cmd.Env = p.dir, p.env
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "s3cret") {
		p.t.Errorf("shoal %v shows a password:\n%s", args, out)
	}
	return string(out), err
}

func (p *place) shoal(args ...string) string {
	p.t.Helper()
	out, err := p.try(args...)
	if err != nil {
		p.t.Fatalf("shoal %v: %v\n%s", args, err, out)
	}
	return out
}

// says runs a verb that prints each of wants.
func (p *place) says(verb string, wants ...string) {
	p.t.Helper()
	out := p.shoal(strings.Fields(verb)...)
	for _, want := range wants {
		if !strings.Contains(out, want) {
			p.t.Errorf("shoal %s does not say %q:\n%s", verb, want, out)
		}
	}
}

// fails runs a verb that fails and says why.
func (p *place) fails(verb string, wants ...string) {
	p.t.Helper()
	out, err := p.try(strings.Fields(verb)...)
	if err == nil {
		p.t.Errorf("shoal %s succeeded:\n%s", verb, out)
	}
	for _, want := range wants {
		if !strings.Contains(out, want) {
			p.t.Errorf("shoal %s does not say %q:\n%s", verb, want, out)
		}
	}
}

// waiting is how many messages the service's subscription has not had.
func (p *place) waiting() uint64 {
	p.t.Helper()
	var st fleet.Status
	if err := json.Unmarshal([]byte(p.shoal("status", "--json")), &st); err != nil {
		p.t.Fatal(err)
	}
	for _, s := range st.Subscriptions {
		if s.Name == "orders/orders.placed" {
			return s.Lag
		}
	}
	return 0
}

func (p *place) publish(n int) {
	p.t.Helper()
	for range n {
		p.shoal("publish", "orders.placed", "-d", "one")
	}
}

// TestCommandLine grows a fleet by the real binary: outside from the start, home, backed up, out again, restored; and restarted between.
func TestCommandLine(t *testing.T) {
	one := servers(t, 1, settings{})
	at := engine(one, "shop")
	p := newPlace(t, at)
	url := at.String()
	t.Cleanup(func() { _, _ = p.try("down") })
	p.shoal("up", "-d", "--mode", "explicit")
	p.says("broker", "messages on "+url, "1 server")
	p.publish(3)
	p.says("broker move --to embedded --dry-run", "cursors", "would be moved from "+url)
	p.says("broker move --to embedded", "publishes were held", "moved from "+url+" to embedded")
	p.says("broker", "embedded")
	p.publish(2)
	p.shoal("down")
	p.shoal("up", "-d", "--mode", "explicit")
	p.says("status", "shoal broker move --to "+url)
	if n := p.waiting(); n != 5 {
		t.Errorf("%d wait, of 5", n)
	}
	p.says("broker backup "+p.dir, "messages (disk)", "written to")
	all, err := filepath.Glob(filepath.Join(p.dir, "shoal-*.backup"))
	if err != nil || len(all) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
	p.fails("broker move --to nats://shop:s3cret@127.0.0.1:1", "command line")
	p.fails("broker move --to nats://127.0.0.1:1 --monitor http://admin:s3cret@127.0.0.1:2", "command line")
	p.fails("broker move --to nats://127.0.0.1:1", "does not answer", "stay where they were")
	p.says("broker move --to "+url, "moved from embedded") // the password is in shoal.work
	p.publish(2)
	if n := p.waiting(); n != 7 {
		t.Errorf("%d wait, of 7", n)
	}
	p.fails("broker restore "+all[0], "--force")
	p.says("broker restore "+all[0]+" --force", "restored from")
	if n := p.waiting(); n != 5 {
		t.Errorf("%d wait after the restore, of 5", n)
	}
	p.publish(1)
	one[0].kill()
	p.fails("publish orders.placed -d x", "does not answer")
	p.says("status", "does not answer")
	one[0].start()
	eventually(t, "publishing goes on", func() bool { _, err := p.try("publish", "orders.placed", "-d", "x"); return err == nil })
	p.shoal("down")
	log, err := os.ReadFile(filepath.Join(p.dir, ".shoal", "hub.log"))
	if err != nil || !strings.Contains(string(log), "does not answer") || strings.Contains(string(log), "s3cret") {
		t.Errorf("%v: the log does not say what happened, or tells the password:\n%s", err, log)
	}
}
