package sidecar

import (
	"slices"
	"strconv"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// listener is a loopback listener of explicit mode, which stands for one host and port.
type listener struct {
	Name    string `json:"name"`              // unique within the instance
	Env     string `json:"env"`               // prefix of NAME_URL and NAME_ADDR
	Scheme  string `json:"scheme"`            // of NAME_URL
	Host    string `json:"host,omitempty"`    // as the proxy knows it
	Port    uint16 `json:"port,omitempty"`    //
	Forward bool   `json:"forward,omitempty"` // the HTTP proxy, for any host
	Address string `json:"address,omitempty"` // where it listens
	User    string `json:"user,omitempty"`    // before the address in NAME_URL: `USER:PASSWORD@`
}

// planExplicit decides the listeners and the application's own ports.
func (s *Sidecar) planExplicit() {
	manifest := &s.rec.Assignment.Manifest
	s.rec.Listeners = s.m.listenersFor(manifest, s.rec.Assignment.Credential)
	s.rec.Ports = map[uint16]uint16{}
	for _, p := range manifest.Ports {
		s.rec.Ports[p.Number] = s.m.ports.take(p.Number)
	}
}

// listenersFor returns what stands for everything that a service may call. credential is its password for NATS.
func (m *Manager) listenersFor(manifest *fleet.Manifest, credential string) []listener {
	var all []listener
	for _, c := range manifest.Calls {
		all = append(all, m.callListeners(c)...)
	}
	for _, n := range manifest.Needs {
		all = append(all, listener{
			Name: "need " + n.Name, Env: envName(n.Name), Scheme: "tcp", Host: n.Name, Port: n.Port,
		})
	}
	if credential != "" && !means(manifest, fleet.NATS, natsPort) {
		all = append(all, listener{Name: fleet.NATS, Env: "NATS", Scheme: "nats", Host: fleet.NATS, Port: natsPort, User: userinfo(manifest.Service, credential)})
	}
	if usesTopics(manifest) {
		all = append(all, listener{Name: fleet.Pubsub, Env: "PUBSUB", Scheme: "http", Host: fleet.Pubsub, Port: pubsubPort})
	}
	return append(all,
		listener{Name: fleet.Events, Env: "EVENTS", Scheme: "http", Host: fleet.Events, Port: 80},
		listener{Name: "forward", Forward: true})
}

// callListeners returns one listener for a callee's default port and, where it has several, one for
// each of them.
func (m *Manager) callListeners(c fleet.Call) []listener {
	host := c.Service
	if c.As != "" {
		host = c.As
	}
	prefix := c.Env
	if prefix == "" {
		prefix = envName(host)
	}
	first := listener{Name: "call " + host, Env: prefix, Scheme: "http", Host: host, Port: 80}
	callee := m.manifestOf(c.Service)
	if callee == nil {
		return []listener{first}
	}
	if p, ok := callee.DefaultPort(); ok {
		first.Scheme = scheme(p.Protocol)
	}
	all := []listener{first}
	if len(callee.Ports) < 2 {
		return all
	}
	for _, p := range callee.Ports {
		n := strconv.Itoa(int(p.Number))
		all = append(all, listener{
			Name: first.Name + ":" + n, Env: prefix + "_" + n, Scheme: scheme(p.Protocol), Host: host, Port: p.Number,
		})
	}
	return all
}

func (m *Manager) manifestOf(service string) *fleet.Manifest {
	snapshot := m.cfg.Proxy.Snapshot()
	if snapshot == nil {
		return nil
	}
	i := slices.IndexFunc(snapshot.Services, func(s *fleet.Service) bool { return s.Name == service })
	if i < 0 {
		return nil
	}
	return &snapshot.Services[i].Manifest
}

// scheme is that of a URL for a port: gRPC is spoken over plain HTTP/2.
func scheme(p fleet.Protocol) string {
	if p == fleet.TCP {
		return "tcp"
	}
	return "http"
}

// natsPort is where the name `nats` listens.
const natsPort = 4222

func userinfo(service, credential string) string { return service + ":" + credential + "@" }

// natsEnv tells an application in a namespace of its own how to connect by NATS.
func natsEnv(a *fleet.Assignment) []string {
	if a.Credential == "" || means(&a.Manifest, fleet.NATS, natsPort) {
		return nil
	}
	return []string{"NATS_URL=nats://" + userinfo(a.Service, a.Credential) + fleet.NATS + ":" + strconv.Itoa(natsPort)}
}

// pubsubPort is where the name `pubsub` listens.
const pubsubPort = 8085

// usesTopics reports whether an application is told of topics: each is, since a line that its manifest lacks is then refused by its name, or
// learned. One that declares no topic, and that it dials Google's APIs, means Google's own Pub/Sub; one that has a need of the name means that.
func usesTopics(manifest *fleet.Manifest) bool {
	if means(manifest, fleet.Pubsub, pubsubPort) {
		return false
	}
	declares := len(manifest.Publishes)+len(manifest.Subscribes) > 0
	return declares || !slices.ContainsFunc(manifest.Egress, func(e fleet.HostPort) bool { return strings.HasSuffix(e.Host, "googleapis.com") })
}

// means reports whether one of the broker's names is, in a manifest, that of something else: the application gets there by it, and must not take
// the broker's password along.
func means(manifest *fleet.Manifest, name string, port uint16) bool {
	return slices.ContainsFunc(manifest.Needs, func(n fleet.Need) bool { return n.Name == name && n.Port == port }) ||
		slices.ContainsFunc(manifest.Calls, func(c fleet.Call) bool { return c.As == name })
}

// pubsubEnv tells an application what client libraries of the Pub/Sub API look for. In explicit mode the listener's
// own variable follows.
func (m *Manager) pubsubEnv(manifest *fleet.Manifest) []string {
	if !usesTopics(manifest) {
		return nil
	}
	env := []string{"PUBSUB_EMULATOR_HOST=" + fleet.Pubsub + ":" + strconv.Itoa(pubsubPort)}
	if s := m.cfg.Proxy.Snapshot(); s != nil {
		env = append(env, "PUBSUB_PROJECT_ID="+s.Fleet)
	}
	return env
}

// envName makes a prefix for environment variables of a host name.
func envName(host string) string {
	return strings.NewReplacer("-", "_", ".", "_").Replace(strings.ToUpper(host))
}

// topicsEnv tells an application in explicit mode where topics are. Its manifest may say otherwise: it has a NATS of its own, say.
func (r *record) topicsEnv() (env []string) {
	for _, l := range r.Listeners {
		if l.ofTopics() {
			env = append(env, l.variables()...)
		}
	}
	return env
}

func (l *listener) ofTopics() bool { return l.Name == fleet.NATS || l.Name == fleet.Pubsub }

// explicitEnv is what an application in explicit mode must know.
func (r *record) explicitEnv() []string {
	var env []string
	for _, l := range r.Listeners {
		if !l.ofTopics() {
			env = append(env, l.variables()...)
		}
	}
	manifest := &r.Assignment.Manifest
	p, ok := manifest.DefaultPort()
	if !ok && len(manifest.Ports) > 0 {
		p, ok = manifest.Ports[0], true
	}
	if ok {
		env = append(env, "PORT="+strconv.Itoa(int(r.Ports[p.Number])))
	}
	if len(manifest.Ports) > 1 {
		for _, p := range manifest.Ports {
			n := strconv.Itoa(int(p.Number))
			env = append(env, "PORT_"+n+"="+strconv.Itoa(int(r.Ports[p.Number])))
		}
	}
	return env
}

// variables name the listener to whom it is for.
func (l *listener) variables() []string {
	if l.Name == fleet.Pubsub {
		return []string{"PUBSUB_EMULATOR_HOST=" + l.Address}
	}
	if !l.Forward {
		return []string{l.Env + "_URL=" + l.Scheme + "://" + l.User + l.Address, l.Env + "_ADDR=" + l.Address}
	}
	proxy := "http://" + l.Address
	return []string{"HTTP_PROXY=" + proxy, "http_proxy=" + proxy, "NO_PROXY=localhost,127.0.0.1", "no_proxy=localhost,127.0.0.1"}
}
