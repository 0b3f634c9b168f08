package node

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/sidecar"
)

// env is what tools on the host need, or what a service sees.
func (n *node) env(_ context.Context, service string) ([]api.Var, error) {
	if service == "" {
		return n.hostEnv(), nil
	}
	of, err := n.sidecars.Of(service)
	if err == nil && of.Assignment().Mode == fleet.Explicit {
		return asVars(of.Environment()), nil
	}
	standIn, err := n.standIns.Of(service)
	if err != nil || of == nil {
		return asVars(standIn), err
	}
	return asVars(append(of.Environment(), standIn...)), nil
}

func (n *node) hostEnv() []api.Var {
	vars := []api.Var{
		{Name: "SHOAL_GATEWAY", Value: "http://" + n.listeners.gateway.Addr().String()},
		{Name: "SHOAL_METRICS", Value: "http://" + n.listeners.metrics.Addr().String() + "/metrics"},
		{Name: "SHOAL_DATA", Value: n.Paths.Data},
		{Name: "SHOAL_WORKSPACE", Value: n.Workspace},
	}
	if address := addressOf(n.listeners.pubsub); address != "" {
		vars = append(vars, api.Var{Name: "EVENTS_URL", Value: "http://" + address + "/events"},
			api.Var{Name: "PUBSUB_EMULATOR_HOST", Value: address}, api.Var{Name: "PUBSUB_PROJECT_ID", Value: n.settings.Fleet})
	}
	if address := addressOf(n.listeners.nats); address != "" {
		vars = append(vars, api.Var{Name: "NATS_URL", Value: "nats://" + fleet.Operator + ":" + n.credentials.Password(fleet.Operator) + "@" + address})
	}
	return vars
}

// redacted stands in a value for a secret.
const redacted = "•••"

func asVars(environment []string) []api.Var {
	vars := make([]api.Var, 0, len(environment))
	for _, e := range environment {
		name, value, _ := strings.Cut(e, "=")
		vars = append(vars, api.Var{Name: name, Value: value, Secret: strings.Contains(value, redacted)})
	}
	return vars
}

// standIns are the listeners for processes of the operator's that act as a service: one set per
// service, opened when it is first asked for, and anew when the service's manifest calls other things.
type standIns struct {
	manager  *sidecar.Manager
	snapshot func() *fleet.Snapshot
	password func(service string) string // for NATS; empty: it is not known here

	mu   sync.Mutex
	ctx  context.Context // of the node; set by Run
	open map[string]*standIn
}

type standIn struct {
	calls []fleet.Call
	needs []fleet.Need
	env   []string
	end   context.CancelFunc
}

// Run lets stand-ins be opened until ctx ends, which ends them.
func (s *standIns) Run(ctx context.Context) error {
	s.mu.Lock()
	s.ctx = ctx
	s.mu.Unlock()
	<-ctx.Done()
	return ctx.Err()
}

// Of returns the variables of a service's stand-in.
func (s *standIns) Of(service string) ([]string, error) {
	m, err := s.manifest(service)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.open[service]; old != nil {
		if reflect.DeepEqual(old.calls, m.Calls) && reflect.DeepEqual(old.needs, m.Needs) {
			return old.env, nil
		}
		old.end()
	}
	ctx, end := context.WithCancel(s.ctx)
	env, err := s.manager.StandIn(ctx, m, s.password(service))
	if err != nil {
		end()
		return nil, err
	}
	s.open[service] = &standIn{calls: m.Calls, needs: m.Needs, env: env, end: end}
	return env, nil
}

func (s *standIns) manifest(service string) (*fleet.Manifest, error) {
	services := s.snapshot().Services
	i := slices.IndexFunc(services, func(one *fleet.Service) bool { return one.Name == service })
	if i < 0 {
		return nil, fmt.Errorf("no service of this fleet is called %s; `shoal status` lists them", service)
	}
	return &services[i].Manifest, nil
}

// password is a service's for NATS. A machine that joined knows only those of what it runs, from their assignments.
func (n *node) password(service string) string {
	if n.credentials != nil {
		return n.credentials.Password(service)
	}
	of, err := n.sidecars.Of(service)
	if err != nil {
		return ""
	}
	return of.Assignment().Credential
}
