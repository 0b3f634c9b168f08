package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/daemon"
	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/sidecar"
)

// operator answers the verbs that are about what runs here. The hub answers the others, and some
// (status, down) come here only while the hub is gone.
func (n *node) operator() *api.Server {
	return &api.Server{
		Process: api.Node,
		Down:    n.down,
		Status:  n.fleetStatus,
		Upgrade: n.upgrade,
		Env:     n.env,
		Logs:    n.logs,
		Exec:    n.exec,
		Why:     n.why,
		Tap:     n.tap,
		Learned: func(context.Context) ([]fleet.Learned, error) { return n.recorder.Learned(), nil },
		Info:    n.info,
		Renew:   n.machines.renewNow,

		Transport: n.proxy.Transport,
		Tunnel:    n.proxy.Tunnel,
	}
}

// remoteOperator answers what the operator asks by way of the hub. What acts as a service, or on the
// machine, is for those who have a shell on it.
func (n *node) remoteOperator() *api.Server {
	return &api.Server{
		Process: api.Node,
		Logs:    n.logs,
		Why:     n.why,
		Tap:     n.tap,
		Learned: func(context.Context) ([]fleet.Learned, error) { return n.recorder.Learned(), nil },
		Info:    n.info,
	}
}

func (n *node) info(context.Context) (api.Info, error) {
	return api.Info{
		Process: api.Node, Version: n.Version, PID: os.Getpid(), Fleet: n.settings.Fleet,
		Workspace: n.Workspace, Data: n.Paths.Data, Started: n.started,
		Executable: n.Executable, Owned: n.Owned,
	}, nil
}

// down stops everything without the hub, which is gone: or is just starting again, and is ended too.
func (n *node) down(_ context.Context, send func(fleet.Progress) error) error {
	n.stopping.Store(true)
	text := "the hub is gone; the node stops its instances, all at once"
	if n.machines.elsewhere() {
		text = "this node stops its instances and ends; what may run elsewhere is started there"
	}
	told := send(fleet.Progress{Time: time.Now(), Phase: fleet.PhaseStop, Text: text})
	err := errors.Join(told, n.Paths.Forget(), daemon.End(n.hubLock()), n.stopAll())
	n.quit(errShutdown)
	return err
}

// fleetStatus is what this node knows of the fleet: the last snapshot and its own instances.
func (n *node) fleetStatus(context.Context) (fleet.Status, error) {
	s := fleet.Status{
		Fleet: n.settings.Fleet, Version: n.Version,
		Hub: fleet.ProcessStatus{Down: true}, Node: n.status().Process,
		Gateway: n.listeners.gateway.Addr().String(), Metrics: n.listeners.metrics.Addr().String(), NATS: addressOf(n.listeners.nats), Pubsub: addressOf(n.listeners.pubsub),
		Services: []fleet.ServiceStatus{}, Edges: n.recorder.Edges(),
	}
	instances := n.supervisor.Statuses()
	if snapshot := n.proxy.Snapshot(); snapshot != nil {
		s.Faults = snapshot.Faults(time.Now())
		for _, service := range snapshot.Services {
			s.Services = append(s.Services, serviceStatus(service, instances))
		}
	}
	return s, nil
}

func serviceStatus(service *fleet.Service, instances []fleet.InstanceStatus) fleet.ServiceStatus {
	s := fleet.ServiceStatus{
		Name: service.Name, Owner: service.Manifest.Owner, Ports: service.Manifest.Ports,
		State: fleet.ServiceStopped, Debug: service.Debug, Routes: service.Manifest.Routes, Rate: service.Manifest.Rate, Instances: []fleet.InstanceStatus{},
	}
	ready := 0
	for _, i := range instances {
		if i.Service != service.Name {
			continue
		}
		s.Instances = append(s.Instances, i)
		s.Release, s.Mode = i.Release, i.Mode
		if i.State == fleet.Ready {
			ready++
		}
		if i.Failure != "" {
			s.Failure, s.LastLog = i.Failure, i.LastLog
		}
	}
	switch {
	case len(s.Instances) == 0:
	case ready == len(s.Instances):
		s.State = fleet.ServiceReady
	case ready > 0:
		s.State = fleet.ServiceDegraded
	default:
		s.State = fleet.ServiceFailed
	}
	return s
}

func (n *node) why(_ context.Context, requestID string) ([]fleet.Observation, error) {
	if requestID == "" {
		return n.recorder.Failures(whyFailures), nil
	}
	return n.recorder.Find(requestID), nil
}

// whyFailures is how many of the latest failures `why` without an id shows.
const whyFailures = 20

func (n *node) tap(ctx context.Context, r api.TapRequest, send func(fleet.Observation) error) error {
	for o := range n.recorder.Tap(ctx, r) {
		if err := send(o); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// signals are the names that `exec` may send.
var signals = map[string]os.Signal{
	"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "QUIT": syscall.SIGQUIT, "KILL": syscall.SIGKILL,
}

func (n *node) exec(ctx context.Context, r api.ExecRequest) (int, error) {
	beside, err := n.sidecars.Of(r.Service)
	if err != nil {
		return 0, n.elsewhere(r.Service, err)
	}
	return beside.Exec(ctx, sidecar.ExecSpec{
		Command: r.Command, Env: r.Env, TTY: r.TTY, Rows: r.Size.Rows, Columns: r.Size.Columns,
		Stdin: r.Stdin, Stdout: r.Stdout, Stderr: r.Stderr,
		Resize:  translate(ctx, r.Resize, func(s api.Size) (sidecar.Size, bool) { return sidecar.Size(s), true }),
		Signals: translate(ctx, r.Signals, func(name string) (os.Signal, bool) { s, ok := signals[name]; return s, ok }),
	})
}

// elsewhere says on which machine to type what acts as a service that does not run here.
func (n *node) elsewhere(service string, err error) error {
	if nodes := n.proxy.Snapshot().NodesOf(service); len(nodes) > 0 && errors.Is(err, errNoInstance) {
		return fmt.Errorf("%s runs on %s, and not on this node, %s: type this there, for it acts as the service and is for those who have a shell on its machine",
			service, strings.Join(nodes, ", "), n.Name)
	}
	return err
}

// translate turns what arrives on in, and drops what means nothing here.
func translate[From, To any](ctx context.Context, in <-chan From, turn func(From) (To, bool)) <-chan To {
	out := make(chan To)
	go func() {
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case v, open := <-in:
				if !open {
					return
				}
				if to, ok := turn(v); ok {
					select {
					case out <- to:
					case <-ctx.Done():
						return
					}
				}
			}
		}
	}()
	return out
}

// upgrade starts a successor from another binary, lets it take over, and leaves once its own
// connections have ended.
func (n *node) upgrade(ctx context.Context, executable string, send func(fleet.Progress) error) error {
	if executable == "" {
		executable = n.Executable
	}
	if err := send(fleet.Progress{Phase: fleet.PhaseStart, Text: "a new node takes over from process " + fmt.Sprint(os.Getpid())}); err != nil {
		return err
	}
	successor := daemon.Spawn{Executable: executable, Args: os.Args[1:], Log: n.Paths.NodeLog}
	if n.Owned {
		successor.Owner = os.Stdin // where Spawn puts it
	}
	resume := n.link.Pause()
	err := n.sockets.Handover(successor)
	if err != nil {
		resume()
		return fmt.Errorf("the node goes on as it was: %w", err)
	}
	n.leaving.Store(true)
	err = send(fleet.Progress{Phase: fleet.PhaseReady, Text: "the new node serves; the old one drains"})
	context.AfterFunc(ctx, func() { n.quit(errShutdown) }) // ends with this answer
	return err
}
