package sidecar

import (
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

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
}

// planExplicit decides the listeners and the application's own ports.
func (s *Sidecar) planExplicit() {
	manifest := &s.rec.Assignment.Manifest
	s.rec.Listeners = s.m.listenersFor(manifest)
	s.rec.Ports = map[uint16]uint16{}
	for _, p := range manifest.Ports {
		s.rec.Ports[p.Number] = s.m.ports.take(p.Number)
	}
}

// listenersFor returns what stands for everything that a service may call.
func (m *Manager) listenersFor(manifest *fleet.Manifest) []listener {
	var all []listener
	for _, c := range manifest.Calls {
		all = append(all, m.callListeners(c)...)
	}
	for _, n := range manifest.Needs {
		all = append(all, listener{
			Name: "need " + n.Name, Env: envName(n.Name), Scheme: "tcp", Host: n.Name, Port: n.Port,
		})
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

// envName makes a prefix for environment variables of a host name.
func envName(host string) string {
	return strings.NewReplacer("-", "_", ".", "_").Replace(strings.ToUpper(host))
}

// explicitEnv is what an application in explicit mode must know.
func (r *record) explicitEnv() []string {
	var env []string
	for _, l := range r.Listeners {
		env = append(env, l.variables()...)
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
	if !l.Forward {
		return []string{l.Env + "_URL=" + l.Scheme + "://" + l.Address, l.Env + "_ADDR=" + l.Address}
	}
	proxy := "http://" + l.Address
	return []string{"HTTP_PROXY=" + proxy, "http_proxy=" + proxy, "NO_PROXY=localhost,127.0.0.1", "no_proxy=localhost,127.0.0.1"}
}

// ports are those of this host that applications in explicit mode were given.
type ports struct {
	mu    sync.Mutex // guards taken
	taken map[uint16]bool
}

func newPorts() *ports { return &ports{taken: map[uint16]bool{}} }

// take returns the port that an application declares where that is free, so that one which does not
// look at PORT works as long as it is alone, and otherwise some free port; 0 where there is none.
func (p *ports) take(wanted uint16) uint16 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.taken[wanted] && free(wanted) {
		p.taken[wanted] = true
		return wanted
	}
	for range 100 {
		if n := somePort(); n != 0 && !p.taken[n] {
			p.taken[n] = true
			return n
		}
	}
	return 0
}

// reserve notes what an adopted application was given.
func (p *ports) reserve(given map[uint16]uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range given {
		p.taken[n] = true
	}
}

func (p *ports) release(given map[uint16]uint16) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range given {
		delete(p.taken, n)
	}
}

func free(port uint16) bool {
	for _, host := range []string{"", "127.0.0.1"} {
		l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(int(port))))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

func somePort() uint16 {
	l, err := net.ListenTCP("tcp", nil)
	if err != nil {
		return 0
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort().Port()
}
