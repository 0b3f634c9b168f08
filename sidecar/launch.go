package sidecar

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/sidecar/shim"
)

const defaultGrace = 10 * time.Second

// loAddr4 is the address of lo, and so of what an application sends, in every namespace: of a range set
// aside for documentation (RFC 5737), which no host has.
var loAddr4 = netip.AddrFrom4([4]byte{192, 0, 2, 1})

// loAddr6 is its like: the last address of the virtual range, which stands for no index.
func loAddr6(r fleet.Ranges) netip.Addr {
	a := r.V6.Masked().Addr().As16()
	for i := 8; i < 16; i++ {
		a[i] = 0xff
	}
	return netip.AddrFrom16(a)
}

// Launch starts a shim and, once its outbound calls are served, the application. It returns when the
// application runs, whether it is ready or not. ctx bounds the start alone.
func (m *Manager) Launch(ctx context.Context, spec Spec) (*Sidecar, error) {
	s, err := m.prepare(spec)
	if err != nil {
		return nil, err
	}
	if err := s.start(ctx, spec); err != nil {
		s.abort()
		return nil, fmt.Errorf("%s cannot be started: %w", spec.Assignment.Instance, err)
	}
	s.join()
	return s, nil
}

// prepare claims the instance's id and makes its folders.
func (m *Manager) prepare(spec Spec) (*Sidecar, error) {
	a := spec.Assignment
	if a.Instance == "" || strings.ContainsAny(a.Instance, `/\`) || strings.HasPrefix(a.Instance, ".") {
		return nil, fmt.Errorf("%q cannot be the id of an instance", a.Instance)
	}
	if err := os.MkdirAll(a.State, 0o700); a.State != "" && err != nil {
		return nil, fmt.Errorf("the state folder of %s: %w", a.Service, err)
	}
	if err := os.MkdirAll(filepath.Join(m.cfg.LogDir, a.Service), 0o700); err != nil {
		return nil, fmt.Errorf("the log folder of %s: %w", a.Service, err)
	}
	s := newSidecar(m, &record{Assignment: a})
	return s, m.claim(s)
}

// claim makes s the one sidecar of its instance's id.
func (m *Manager) claim(s *Sidecar) error {
	id := s.rec.Assignment.Instance
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byID[id] != nil {
		return fmt.Errorf("%s runs already", id)
	}
	m.byID[id] = s
	return nil
}

func (m *Manager) disown(s *Sidecar) {
	id := s.rec.Assignment.Instance
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.byID[id] == s {
		delete(m.byID, id)
		m.removeRecord(id)
	}
}

// start takes the steps of a launch in their order: the shim, its sockets, serving them, the record
// for a later process, and only then the application.
func (s *Sidecar) start(ctx context.Context, spec Spec) error {
	s.m.endLeftover(s.rec)
	if err := s.spawn(); err != nil {
		return err
	}
	plan := s.plan()
	a, err := s.link.call(ctx, shim.Message{Verb: shim.VerbSetup, Setup: plan})
	if err != nil {
		return err
	}
	if err := s.serve(a); err != nil {
		return err
	}
	env := s.environment(spec.Env)
	s.rec.Env = redactAll(env, spec.Redact)
	if err := s.m.save(s.rec); err != nil {
		return err
	}
	a, err = s.link.call(ctx, shim.Message{Verb: shim.VerbRun, Run: s.command(env, spec.Redact)})
	if err != nil {
		return err
	}
	s.takePID(a)
	closeAll(a.files)
	return nil
}

func (s *Sidecar) command(env, secrets []string) *shim.Start {
	a := s.rec.Assignment
	grace := time.Duration(a.Grace)
	if grace <= 0 {
		grace = defaultGrace
	}
	return &shim.Start{Argv: shim.Shell(a.Command), Dir: a.Dir, Env: env, Redact: secrets, Grace: grace}
}

// spawn starts the shim's process and connects to it.
func (s *Sidecar) spawn() error {
	log, err := os.OpenFile(s.logPath(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("its log: %w", err)
	}
	defer log.Close()
	cmd, conn, err := shim.Spawn{
		Executable: s.m.cfg.Executable,
		Socket:     s.m.socketPath(s.rec.Assignment.Instance),
		Netns:      s.rec.netns(),
		Owner:      s.m.owner,
		Log:        log,
	}.Start()
	if err != nil {
		return fmt.Errorf("its shim: %w", err)
	}
	s.link, s.process, s.shimPID = newLink(conn), cmd.Process, cmd.Process.Pid
	go func() {
		_ = cmd.Wait() // how a shim ends tells nothing; see watch
		close(s.shimGone)
	}()
	return nil
}

func (s *Sidecar) logPath() string {
	a := s.rec.Assignment
	return filepath.Join(s.m.cfg.LogDir, a.Service, a.Instance+".log")
}

// plan says what the shim is to set up.
func (s *Sidecar) plan() *shim.Setup {
	a := s.rec.Assignment
	p := &shim.Setup{
		Version: shim.Version, Netns: s.rec.netns(),
		LogDir: filepath.Dir(s.logPath()), LogName: filepath.Base(s.logPath()), LogLimit: s.m.cfg.LogLimit,
	}
	if !p.Netns {
		s.planExplicit()
		for _, l := range s.rec.Listeners {
			p.Listeners = append(p.Listeners, l.Name)
		}
		return p
	}
	p.Addr4, p.Addr6 = loAddr4, loAddr6(s.m.cfg.Ranges)
	p.Masks = slices.Concat(s.m.cfg.Masks, []string{s.m.cfg.RuntimeDir})
	p.Keep = slices.DeleteFunc([]string{a.State, a.Dir, a.Release.Dir}, func(dir string) bool { return dir == "" })
	for _, n := range a.Manifest.Needs {
		if n.Local {
			p.LocalPorts = append(p.LocalPorts, n.Port)
		}
	}
	return p
}

// inherited are the variables that an application has from this process; all others are given.
var inherited = []string{"PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR"}

// environment is what the application gets. A later value of a name takes the place of an earlier one;
// what makes a mode work comes last.
func (s *Sidecar) environment(given []string) []string {
	var env []string
	for _, name := range inherited {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	a := s.rec.Assignment
	env = slices.Concat(env, natsEnv(&a), s.m.pubsubEnv(&a.Manifest), s.rec.topicsEnv(), given, []string{stateEnv + a.State, instanceEnv + a.Instance})
	if !s.rec.netns() {
		env = append(env, s.rec.explicitEnv()...)
	}
	return lastOfEach(env)
}

// What every application gets. Together they mark its processes; see endLeftover.
const (
	stateEnv    = "SHOAL_STATE="
	instanceEnv = "SHOAL_INSTANCE="
)

// lastOfEach keeps the last entry of each name, and drops what is none.
func lastOfEach(env []string) []string {
	at := map[string]int{}
	var kept []string
	for _, e := range env {
		name, _, ok := strings.Cut(e, "=")
		if !ok || name == "" {
			continue
		}
		if i, seen := at[name]; seen {
			kept[i] = e
			continue
		}
		at[name] = len(kept)
		kept = append(kept, e)
	}
	return kept
}

func redactAll(env, secrets []string) []string {
	shown := make([]string, len(env))
	for i, e := range env {
		name, value, _ := strings.Cut(e, "=")
		shown[i] = name + "=" + shim.Redact(value, secrets)
	}
	return shown
}

// endLeftover kills what an earlier process left of an instance and did not adopt. It costs nothing
// where there is no record of one.
func (m *Manager) endLeftover(r *record) {
	id := r.Assignment.Instance
	if _, err := os.Lstat(m.recordPath(id)); err != nil {
		return
	}
	if c, err := shim.Dial(m.socketPath(id)); err == nil {
		l := newLink(c)
		ctx, cancel := context.WithTimeout(context.Background(), shimPatience)
		_, err := l.call(ctx, shim.Message{Verb: shim.VerbStop})
		cancel()
		if err != nil && !errors.Is(err, errShimGone) {
			killPeer(c)
		}
		_ = c.Close()
	}
	if !r.netns() && r.Assignment.State != "" {
		shim.KillMarked(stateEnv+r.Assignment.State, instanceEnv+id)
	}
	m.removeRecord(id)
}
