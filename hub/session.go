package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/deploy"
	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/manifest"
	"github.com/shoalrun/shoal/sidecar/shim"
	"github.com/shoalrun/shoal/workspace"
)

// session is a workspace that is up: its services are built and deployed, and its clones watched.
type session struct {
	hub       *hub
	request   api.UpRequest
	workspace *workspace.Workspace
	cancel    context.CancelFunc
	done      chan struct{} // closed when nothing of the session runs any more

	mu       sync.Mutex
	services map[string]*workspace.Service
	wanted   map[string]bool
	building map[string]context.CancelFunc // by service: a newer change ends an older build
	failure  string                        // why shoal.work as it is now is not in force
}

// buildsAtOnce bounds how many services are built at a time; a build uses several cores itself.
const buildsAtOnce = 2

// up loads a workspace, builds what it declares, deploys it, and goes on watching. It returns when
// everything is settled.
func (h *hub) up(ctx context.Context, r api.UpRequest, send func(fleet.Progress) error) error {
	return h.progress.during(ctx, send, func(ctx context.Context) error {
		select {
		case <-ctx.Done():
			return errors.New("no node has connected; its log says why: " + h.Paths.NodeLog)
		case <-h.joined:
		}
		s, err := h.begin(ctx, r)
		if err != nil {
			return err
		}
		return h.engine.Wait(ctx, s.names())
	})
}

// begin replaces the session in force. On an error that one goes on.
func (h *hub) begin(ctx context.Context, r api.UpRequest) (*session, error) {
	h.upping.Lock()
	defer h.upping.Unlock()
	if h.downing {
		return nil, errDowning
	}
	r = placing(r, h.session.Load())
	s := &session{hub: h, request: r, done: make(chan struct{}), building: make(map[string]context.CancelFunc)}
	var err error
	s.workspace, err = workspace.Open(workspace.Config{
		File: r.Workspace, Cache: h.Cache, Data: h.Paths.Data,
		Run: h.runBuild, Progress: h.progress.Tell,
	})
	if err != nil {
		return nil, err
	}
	if err := s.load(ctx, r.Update); err != nil {
		return nil, err
	}
	if old := h.session.Swap(s); old != nil {
		old.close()
	}
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.cancel = cancel
	if err := h.engine.Set(ctx, s.targets()); err != nil {
		cancel()
		close(s.done)
		return nil, err
	}
	if err := h.rememberUp(r); err != nil {
		h.Log.Error("a hub that starts again will not know what was up", "error", err)
	}
	go s.run(running)
	return s, nil
}

// endSession ends the session in force, and lets none begin any more.
func (h *hub) endSession() {
	h.upping.Lock()
	defer h.upping.Unlock()
	h.downing = true
	if s := h.session.Swap(nil); s != nil {
		s.close()
	}
}

// close ends the session's builds and watches, and returns when they have ended.
func (s *session) close() {
	s.cancel()
	<-s.done
}

// run builds everything once and then whatever changes.
func (s *session) run(ctx context.Context) {
	defer close(s.done)
	s.buildAll(ctx)
	s.collect()
	var changes sync.WaitGroup
	defer changes.Wait()
	err := s.workspace.Watch(ctx, func(service string) {
		changes.Go(func() { s.changed(ctx, service) })
	})
	if err != nil && ctx.Err() == nil {
		s.hub.progress.Tell(fleet.Progress{Time: time.Now(), Phase: fleet.PhaseWarn,
			Text: "changes are not noticed any more: " + err.Error() + "; `shoal restart` still deploys what is there"})
	}
}

// buildAll builds every wanted service, a few at a time.
func (s *session) buildAll(ctx context.Context) {
	var builds errgroup.Group
	builds.SetLimit(buildsAtOnce)
	for _, name := range s.inOrder() {
		builds.Go(func() error { s.build(ctx, name); return nil })
	}
	_ = builds.Wait() // a build that fails is told to the engine
}

// inOrder returns the wanted services with those first that others call, so that they can start
// while the others are built.
func (s *session) inOrder() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var order []string
	seen := make(map[string]bool)
	var visit func(name string)
	visit = func(name string) {
		service := s.services[name]
		if seen[name] || service == nil || !s.wanted[name] {
			return
		}
		seen[name] = true
		for _, c := range service.Manifest.Calls {
			visit(c.Service)
		}
		if service.External == "" {
			order = append(order, name)
		}
	}
	for _, name := range sortedNames(s.services) {
		visit(name)
	}
	return order
}

func sortedNames(services map[string]*workspace.Service) []string {
	names := make([]string, 0, len(services))
	for name := range services {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// names returns the wanted services, sorted.
func (s *session) names() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, name := range sortedNames(s.services) {
		if s.wanted[name] {
			names = append(names, name)
		}
	}
	return names
}

// load reads the workspace and every manifest; what it held before stays on an error.
func (s *session) load(ctx context.Context, update bool) error {
	loaded, err := s.workspace.Load(ctx, update)
	if err != nil {
		return err
	}
	services := make(map[string]*workspace.Service, len(loaded))
	for _, service := range loaded {
		services[service.Manifest.Service] = service
	}
	names, err := s.workspace.Select(loaded, s.request.Services)
	if err != nil {
		return err
	}
	if err := errors.Join(s.checkPorts(loaded), s.checkNodes(loaded)); err != nil {
		return err
	}
	wanted := make(map[string]bool, len(names))
	for _, name := range names {
		wanted[name] = true
	}
	s.mu.Lock()
	s.services, s.wanted = services, wanted
	s.mu.Unlock()
	s.hub.observe(s.workspace.Settings().Observing)
	s.tellOld()
	return nil
}

// tellOld tells of settings that have changed since hub and node read them, which they do when they start.
func (s *session) tellOld() {
	var keys []string
	now, was := s.workspace.Settings(), s.hub.settings
	if now.Limits != was.Limits {
		keys = append(keys, "`limits`")
	}
	if now.Certificates != was.Certificates {
		keys = append(keys, "`certificates`")
	}
	if len(keys) == 0 {
		return
	}
	how := "`shoal upgrade` does that, and no call is lost"
	if s.hub.Owned {
		how = "end this `shoal up` and start it again"
	}
	s.hub.progress.Tell(fleet.Progress{Time: time.Now(), Phase: fleet.PhaseWarn,
		Text: strings.Join(keys, " and ") + " in shoal.work changed, and what runs has the old ones until hub and node start anew: " + how})
}

// observe puts other settings of traces and access records into force, here and in every node.
func (h *hub) observe(o fleet.Observing) {
	if now, _ := h.export.Current(); reflect.DeepEqual(now, o) {
		return
	}
	h.export.Set(o)
	h.machines.observe(o)
}

// checkPorts finds services that want the same port of the host; with namespaces they may.
func (s *session) checkPorts(loaded []*workspace.Service) error {
	if node := s.hub.link.Node(s.hub.Node); node.Mode != fleet.Explicit {
		return nil
	}
	return manifest.CheckExplicit(workspace.Manifests(loaded))
}

func (s *session) targets() []deploy.Target {
	s.mu.Lock()
	defer s.mu.Unlock()
	targets := make([]deploy.Target, 0, len(s.services))
	for _, name := range sortedNames(s.services) {
		targets = append(targets, s.targetLocked(s.services[name], fleet.Release{}))
	}
	return targets
}

// targetLocked says what is wanted of a service at a release; one without an ID is being built.
func (s *session) targetLocked(service *workspace.Service, release fleet.Release) deploy.Target {
	m := service.Manifest
	node := s.hub.link.Node(s.hub.Node)
	return deploy.Target{
		Manifest: m.Manifest, Release: release, Run: service.Command(), Workers: m.Workers, Before: m.Before,
		Instances: m.Instances, Env: m.Env, Mode: node.Mode, Nodes: s.nodesOf(m), Local: service.Stays(),
		State: filepath.Join(s.hub.Paths.State, m.Service), Grace: m.Grace, HealthTimeout: m.Startup,
		Origin: service.Origin, Source: service.Source, External: service.External,
		Stopped: !s.wanted[m.Service], Learn: s.request.Learn,
	}
}

// nodesOf names the nodes that a service may run on: those that the operator chose, for what the operator
// named, else those that are declared.
func (s *session) nodesOf(m *manifest.Manifest) []string {
	if nodes := s.request.Place[m.Service]; len(nodes) > 0 {
		return nodes
	}
	return m.Nodes
}

// placing makes a request that places services one for all that is up, with them in their new places.
func placing(r api.UpRequest, up *session) api.UpRequest {
	if len(r.Nodes) == 0 {
		return r
	}
	place := map[string][]string{}
	if up != nil {
		maps.Copy(place, up.request.Place)
	}
	for _, service := range r.Services {
		place[service] = r.Nodes
	}
	switch {
	case up == nil:
	case len(up.request.Services) == 0:
		r.Services = nil // everything is up
	default:
		r.Services = slices.Concat(up.request.Services, r.Services)
	}
	r.Nodes, r.Place = nil, place
	return r
}

// checkNodes refuses to place a service elsewhere that runs in its clone.
func (s *session) checkNodes(loaded []*workspace.Service) error {
	var errs []error
	for _, service := range loaded {
		nodes := s.nodesOf(service.Manifest)
		if !service.Stays() || len(nodes) == 0 || slices.Contains(nodes, s.hub.Node) {
			continue
		}
		errs = append(errs, fmt.Errorf("%s runs in its clone, which only this machine has, and cannot be placed on %s: give %s a `build`, or pin its repository in shoal.work",
			service.Manifest.Service, strings.Join(nodes, ", "), service.Manifest.File))
	}
	return errors.Join(errs...)
}

// build builds one service and deploys what came out. A change that comes meanwhile ends it.
func (s *session) build(ctx context.Context, name string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	if older := s.building[name]; older != nil {
		older()
	}
	s.building[name] = cancel
	service := s.services[name]
	s.mu.Unlock()

	s.hub.engine.Building(name)
	release, err := s.workspace.Build(ctx, service)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		s.hub.engine.BuildFailed(name, err.Error())
		return
	}
	s.mu.Lock()
	target := s.targetLocked(service, release)
	s.mu.Unlock()
	if err := s.hub.engine.Update(ctx, target); err != nil && ctx.Err() == nil {
		s.hub.engine.Refused(name, err.Error())
	}
}

// failed notes what becomes of a change of shoal.work.
func (s *session) failed(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failure = ""
	if err != nil {
		s.failure = err.Error()
	}
}

// failureText is why shoal.work as it is now is not in force; a nil session has no such reason.
func (s *session) failureText() string {
	if s == nil {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failure
}

// changed rebuilds a service whose clone changed; an empty name stands for shoal.work.
func (s *session) changed(ctx context.Context, name string) {
	err := s.load(ctx, false)
	if name == "" || err == nil {
		s.failed(err)
	}
	if err != nil {
		s.hub.progress.Tell(fleet.Progress{Time: time.Now(), Service: name, Phase: fleet.PhaseFailed, Text: err.Error()})
		if name != "" {
			s.hub.engine.Refused(name, err.Error())
		}
		return
	}
	if name != "" {
		s.build(ctx, name)
		return
	}
	if err := s.hub.engine.Set(ctx, s.targets()); err != nil {
		s.failed(err)
		return
	}
	s.buildAll(ctx)
}

// collect removes releases that nothing uses any more.
func (s *session) collect() {
	used := make(map[string][]string)
	for _, service := range s.hub.engine.Status() {
		used[service.Name] = append(used[service.Name], service.Release)
		for _, i := range service.Instances {
			used[service.Name] = append(used[service.Name], i.Release)
		}
	}
	if err := s.workspace.Collect(used); err != nil {
		s.hub.Log.Warn("old releases are still there", "error", err)
	}
}

// runBuild runs a build under a shim that it cannot outlive.
func (h *hub) runBuild(ctx context.Context, c workspace.Command) error {
	code, err := shim.Run(ctx, shim.Command{Executable: h.Executable, Dir: c.Dir, Shell: c.Shell, Env: c.Env, Output: c.Output})
	if err != nil {
		return err
	}
	if code != 0 {
		return fmt.Errorf("`%s` ended with exit code %d", c.Shell, code)
	}
	return nil
}

// declares tells whether a service that is up names a secret.
func (h *hub) declares(service, ref string) bool {
	s := h.session.Load()
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	declared := s.services[service]
	return declared != nil && slices.ContainsFunc(declared.Manifest.Env, func(v fleet.EnvVar) bool { return v.Secret == ref })
}

// What was up is kept, so that a hub that starts again knows what to watch.

func (h *hub) rememberUp(r api.UpRequest) error {
	r.Update = false // once is enough
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	return os.WriteFile(h.Paths.Up, b, 0o600)
}

// resume takes up the session of the hub before this one. In a foreground `up` there was none.
func (h *hub) resume(ctx context.Context) error {
	b, err := os.ReadFile(h.Paths.Up)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(b) == 0 {
		return hold(ctx)
	}
	var r api.UpRequest
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if h.Owned && !h.sockets.Successor {
		return errors.Join(h.Paths.Forget(), hold(ctx))
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-h.joined:
	}
	if err != nil {
		h.Log.Error("what was up runs on, but its repositories are not watched: run `shoal up -d` again", "error", err)
		return hold(ctx)
	}
	h.takeUp(ctx, r)
	return hold(ctx)
}

// How often a session that cannot be taken up is tried again.
const (
	resumeMin = 500 * time.Millisecond
	resumeMax = 10 * time.Second
)

// takeUp tries until the session begins: a manifest may have been half written when the hub before
// this one died. It gives up where somebody else begins one, or ends them all.
func (h *hub) takeUp(ctx context.Context, r api.UpRequest) {
	said := ""
	for wait := resumeMin; h.session.Load() == nil; wait = min(2*wait, resumeMax) {
		_, err := h.begin(ctx, r)
		if err == nil || ctx.Err() != nil || errors.Is(err, errDowning) {
			break
		}
		if text := err.Error(); text != said {
			said = text
			h.unwatched.Store(&text)
			h.Log.Error("what was up runs on; its repositories are watched again once this is mended", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	h.unwatched.Store(nil)
}

var errDowning = errors.New("the fleet is being stopped; wait for `shoal down` to end, then start it again")

// failure is why what is declared now is not in force; empty where it is.
func (h *hub) failure() string {
	if text := h.unwatched.Load(); text != nil {
		return *text
	}
	return h.session.Load().failureText()
}

func hold(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}
