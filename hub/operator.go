package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/daemon"
	"github.com/shoalrun/shoal/fleet"
)

// operator answers the verbs that decide something or need the whole picture.
func (h *hub) operator() *api.Server {
	return &api.Server{
		Process:  api.Hub,
		Up:       h.up,
		Down:     h.down,
		Status:   h.status,
		Watch:    h.watch,
		Follow:   h.follow,
		Restart:  h.restart,
		Upgrade:  h.upgrade,
		Publish:  h.publish,
		Topics:   h.topics(),
		Messages: h.messages(),

		Schedules: h.schedules(),

		Attach: h.attach,
		Debug:  h.engine.Debug,

		AddFault:     h.addFault,
		RemoveFaults: h.removeFaults,

		Why:     h.why,
		Tap:     h.tap,
		Learned: func(context.Context) ([]fleet.Learned, error) { return h.recorder.Learned(), nil },
		Info:    h.info,
		Nodes:   h.nodes,
		Token:   h.machines.token,
		Revoke:  h.machines.revoke,
		Rotate:  h.machines.rotate,
		Via:     h.machines.via,
	}
}

func (h *hub) info(context.Context) (api.Info, error) {
	return api.Info{
		Process: api.Hub, Version: h.Version, PID: os.Getpid(), Fleet: h.fleet,
		Workspace: h.Workspace, Data: h.Paths.Data, Started: h.started,
		Executable: h.Executable, Owned: h.Owned,
	}, nil
}

// nodePatience bounds how long `down` waits for a node that is not there: it is being started again.
const nodePatience = 20 * time.Second

// down stops every service in order, then the node, then this process. Once begun it ends, though
// nobody may wait for it any more: half a fleet serves no one. A node that dies meanwhile is started
// again, since what it ran runs on; after the last command, no node is to start any more.
func (h *hub) down(ctx context.Context, send func(fleet.Progress) error) error {
	err := h.progress.during(ctx, send, func(ctx context.Context) error {
		ctx = context.WithoutCancel(ctx)
		h.endSession()
		waiting, cancel := context.WithTimeout(ctx, nodePatience)
		defer cancel()
		_, err := h.link.waitFor(waiting, h.Node)
		if err := errors.Join(err, h.whatRuns(waiting)); err != nil {
			return fmt.Errorf("what it runs may be running still: %w; its log: %s", err, h.Paths.NodeLog)
		}
		return errors.Join(h.engine.Stop(ctx), h.driver.Shutdown(ctx, h.Node))
	})
	h.stopping.Store(true)
	err = errors.Join(err, h.Paths.Forget(), daemon.End(h.nodeLock()))
	h.quit(errShutdown)
	return err
}

// whatRuns waits until a node has told what it runs: before that, this process knows less than the one
// in whose place it came.
func (h *hub) whatRuns(ctx context.Context) error {
	select {
	case <-h.joined:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("no node has told what it runs: %w", ctx.Err())
	}
}

func (h *hub) restart(ctx context.Context, services []string, send func(fleet.Progress) error) error {
	return h.progress.during(ctx, send, func(ctx context.Context) error {
		if err := h.engine.Restart(ctx, services); err != nil {
			return err
		}
		return h.engine.Wait(ctx, services)
	})
}

// attach lets an address take a service's place for as long as the operator stays. One who leaves while
// that is on its way to the nodes leaves all the same: the place is given back after it.
func (h *hub) attach(ctx context.Context, service, address string, send func(fleet.Progress) error) error {
	return h.progress.during(ctx, send, func(ctx context.Context) error {
		err := h.engine.Attach(ctx, service, address)
		if err != nil && ctx.Err() == nil {
			return err
		}
		if err == nil {
			h.progress.Tell(fleet.Progress{Time: time.Now(), Service: service, Phase: fleet.PhaseShift,
				Text: fmt.Sprintf("calls to %s go to %s", service, address)})
			<-ctx.Done()
		}
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), detachPatience)
		defer cancel()
		return h.engine.Detach(back, service, address)
	})
}

// detachPatience bounds how long a service's own instances may take to get its place back.
const detachPatience = 10 * time.Second

// upgrade makes this process end in order and become another binary, in place. What queues at its
// sockets meanwhile is served by that one: they are duplicated before the end closes them.
func (h *hub) upgrade(ctx context.Context, executable string, send func(fleet.Progress) error) error {
	if executable == "" {
		executable = h.Executable
	}
	if err := send(fleet.Progress{Phase: fleet.PhaseStart, Text: "the hub starts anew; calls flow on meanwhile"}); err != nil {
		return err
	}
	return h.becomes(ctx, executable)
}

// becomes lets another binary take this process's place once ctx, which is an answer's, ends.
func (h *hub) becomes(ctx context.Context, executable string) error {
	files, err := h.sockets.Files()
	if err != nil {
		return fmt.Errorf("the hub goes on as it was: %w", err)
	}
	h.successor.Store(&successor{executable: executable, files: files})
	context.AfterFunc(ctx, func() { h.quit(errShutdown) })
	return nil
}

func (h *hub) follow(ctx context.Context, send func(fleet.Progress) error) error {
	f, end := h.progress.Follow()
	defer end()
	return f.Send(ctx, send)
}

func (h *hub) why(_ context.Context, requestID string) ([]fleet.Observation, error) {
	if requestID == "" {
		return h.recorder.Failures(whyFailures), nil
	}
	return h.recorder.Find(requestID), nil
}

// whyFailures is how many of the latest failures `why` without an id shows.
const whyFailures = 20

func (h *hub) tap(ctx context.Context, r api.TapRequest, send func(fleet.Observation) error) error {
	for o := range h.recorder.Tap(ctx, r) {
		if err := send(o); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// statusPatience bounds how long a status waits for a node that this process has not heard of yet.
const statusPatience = 2 * time.Second

// status says what is known, also where no node is there to ask.
func (h *hub) status(ctx context.Context) (fleet.Status, error) {
	waiting, cancel := context.WithTimeout(ctx, statusPatience)
	defer cancel()
	if h.whatRuns(waiting) == nil {
		_ = h.engine.Heard(waiting)
	}
	node := h.link.Node(h.Node)
	if !h.link.Connected(h.Node) {
		node.Process.Down = true
	}
	nodes, err := h.otherNodes(ctx)
	if err != nil {
		return fleet.Status{}, err
	}
	s := fleet.Status{
		Fleet: h.fleet, Version: h.Version, Nodes: nodes,
		Hub:  fleet.ProcessStatus{PID: os.Getpid(), Started: h.started},
		Node: node.Process, Gateway: node.Gateway, Metrics: node.Metrics, NATS: node.NATS, Pubsub: node.Pubsub,
		Services: h.engine.Status(), Edges: mergeEdges(h.link.Edges(), h.recorder.Edges()),
		Failure: h.failure(), Faults: h.control.Snapshot().Faults(time.Now()),
		Topics: h.broker.Topics(), Subscriptions: h.broker.Subscriptions(), Broker: h.broker.Engine(),
	}
	exposed(s.Services, h.control.Snapshot(), node.Gateway)
	routed(s.Services, h.control.Snapshot())
	return s, nil
}

// routed sets what each service does with calls.
func routed(services []fleet.ServiceStatus, snapshot *fleet.Snapshot) {
	for i := range services {
		for _, s := range snapshot.Services {
			if s.Name == services[i].Name {
				services[i].Routes, services[i].Rate = s.Manifest.Routes, s.Manifest.Rate
			}
		}
	}
}

// mergeEdges puts what the hub's own proxy saw, deliveries and the operator's events, beside what the
// node saw. Each counts what starts with it, so that nothing counts twice.
func mergeEdges(node, hub []fleet.EdgeStats) []fleet.EdgeStats {
	merged := slices.Concat(hub, node)
	slices.SortFunc(merged, func(a, b fleet.EdgeStats) int {
		return cmp.Or(strings.Compare(a.From, b.From), strings.Compare(a.To, b.To), strings.Compare(a.Route, b.Route))
	})
	return merged
}

// exposed sets where each service answers at the gateway.
func exposed(services []fleet.ServiceStatus, snapshot *fleet.Snapshot, gateway string) {
	port := gateway[strings.LastIndexByte(gateway, ':')+1:]
	if port == "" {
		return
	}
	url := make(map[string]string)
	for _, s := range snapshot.Services {
		if e := s.Manifest.Expose; len(e) > 0 {
			url[s.Name] = "http://" + e[0].Host + ":" + port + e[0].Path
		}
	}
	for i := range services {
		services[i].URL = url[services[i].Name]
	}
}

// Between two looks of `status --watch`, and of a foreground `up`, there is a pause: of watchInterval, and of watchShare times what the last
// look took, so that thousands of topics do not make watching a load; at most watchLongest.
const (
	watchInterval = 100 * time.Millisecond
	watchShare    = 50
	watchLongest  = 2 * time.Second
)

// watch sends the status whenever it has changed.
func (h *hub) watch(ctx context.Context, send func(fleet.Status) error) error {
	var last fleet.Status
	for first := true; ; first = false {
		began := time.Now()
		s, err := h.status(ctx)
		if err != nil {
			return err
		}
		if first || !reflect.DeepEqual(s, last) {
			last = s
			if err := send(s); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(min(max(watchInterval, watchShare*time.Since(began)), watchLongest)):
		}
	}
}
