package proxy

import (
	"net"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/shoalrun/shoal/fleet"
)

// table is one snapshot, compiled. It is immutable but for routes, which fills as they are used. What has not
// changed it shares with the table before it.
type table struct {
	p        *Proxy
	snapshot *fleet.Snapshot
	services map[string]*service
	indexes  map[uint16]*service

	routes *routes
	before *routes // of the table before
}

// service is one service as tables have it, from one change of it to the next.
type service struct {
	*fleet.Service
	places        []*place
	load          *load
	rate          *rate // nil: none
	rateElsewhere bool  // other nodes have parts of it
	hub           bool  // events, pubsub or nats: the broker's, hosted by the hub
	aliases       map[string]string
}

// load is what outlives snapshots of a service: its exchanges in progress and its retries.
type load struct {
	lengthy atomic.Int32 // above 0: it gave a long answer lately
	traffic traffic
	budget  budget
	line    line
	turns   atomic.Uint32 // of round robin
	rate    *rate         // guarded by Proxy.mu
}

// The indexes of the broker's names in the virtual ranges.
const (
	eventsIndex = 1
	pubsubIndex = 2
	natsIndex   = 3
)

// compileLocked builds the table of s. Of the table in force it takes over every service that s has as the very
// same value, so that a change costs what it changes. What endpoints know is kept by instance id.
func (p *Proxy) compileLocked(s *fleet.Snapshot, old *table) *table {
	n := len(s.Services) + len(p.brokers)
	t := &table{p: p, snapshot: s, services: make(map[string]*service, n), indexes: make(map[uint16]*service, n), routes: &routes{}, before: old.routes}
	for _, fs := range s.Services {
		compiled := old.services[fs.Name]
		if compiled == nil || compiled.Service != fs {
			compiled = p.serviceLocked(fs)
		}
		t.add(compiled)
	}
	for _, b := range p.brokers {
		t.add(b)
	}
	t.ratesLocked()
	return t
}

// brokersLocked makes the services that stand for the broker's names, which no snapshot has.
func (p *Proxy) brokersLocked() []*service {
	http := []fleet.Port{{Number: 80, Protocol: fleet.HTTP, Default: true}, {Number: 8085, Protocol: fleet.HTTP}}
	return []*service{
		p.brokerLocked(fleet.Events, eventsIndex, http),
		p.brokerLocked(fleet.Pubsub, pubsubIndex, http),
		p.brokerLocked(fleet.NATS, natsIndex, []fleet.Port{{Number: 4222, Protocol: fleet.TCP, Default: true}}),
	}
}

func (t *table) add(s *service) {
	t.services[s.Name] = s
	t.indexes[s.Index] = s
}

func (p *Proxy) serviceLocked(fs *fleet.Service) *service {
	s := &service{Service: fs, load: p.loadLocked(fs.Name), aliases: map[string]string{}}
	if fs.Manifest.Rate == nil {
		s.load.rate = nil
	}
	for _, e := range fs.Endpoints {
		if e.Worker != "" {
			continue // speaks for the service, and takes no calls
		}
		pl := &place{
			endpoint: p.endpointLocked(e.Instance), service: fs.Name, seed: hash(hashSeed, e.Instance),
			node: e.Node, address: e.Address, state: e.State, unhealthy: e.Unhealthy, limit: int64(fs.Manifest.Concurrency),
		}
		if fs.Debug && pl.limit == 0 {
			pl.limit = noLimit // who stands at a breakpoint is slow
		}
		pl.arrive(e.State == fleet.Serving)
		p.joinLocked(pl)
		s.places = append(s.places, pl)
	}
	for _, c := range fs.Manifest.Calls {
		if c.As != "" {
			s.aliases[strings.ToLower(c.As)] = c.Service
		}
	}
	return s
}

// brokerLocked makes the service that stands for one of the broker's names: hosted here, or by the hub.
func (p *Proxy) brokerLocked(name string, index uint16, ports []fleet.Port) *service {
	fs := &fleet.Service{Name: name, Index: index, Deployed: true}
	fs.Manifest = fleet.Manifest{Service: name, Ports: ports}
	pl := &place{endpoint: p.endpointLocked("hub/" + name), service: name, node: hubNode, builtin: p.cfg.Builtin[name], limit: noLimit}
	p.joinLocked(pl)
	s := &service{Service: fs, load: p.loadLocked(name), hub: true}
	if pl.builtin != nil || p.cfg.Peer != nil && slices.Contains(p.cfg.HubServices, name) {
		s.places = []*place{pl}
	}
	return s
}

// arrive notes whether the endpoint takes calls in the table to come. One that did not is new.
func (e *endpoint) arrive(serving bool) {
	if serving && !e.serving {
		e.since.Store(e.p.now())
	}
	e.serving = serving
}

func (p *Proxy) loadLocked(name string) *load {
	l := p.loads[name]
	if l == nil {
		l = &load{budget: newBudget(p.now()), line: line{limit: p.cfg.Line}}
		p.loads[name] = l
	}
	return l
}

func (p *Proxy) endpointLocked(instance string) *endpoint {
	e := p.endpoints[instance]
	if e == nil {
		e = &endpoint{p: p, instance: instance}
		e.limiter.limit.Store(limitStart)
		p.endpoints[instance] = e
	}
	return e
}

// Install makes s the picture that every later exchange sees; those in progress go on with the one
// that they began with. s must not change afterwards, nor may its services: one that comes again in a later
// snapshot, as the same pointer, counts as unchanged, and costs nothing.
func (p *Proxy) Install(s *fleet.Snapshot) {
	p.mu.Lock()
	t := p.compileLocked(s, p.table.Load())
	p.table.Store(t)
	t.markLocked()
	p.retireLocked(t)
	p.retirePeersLocked(t)
	p.mu.Unlock()
	p.wake()
}

// markLocked notes with endpoints and peers that t has places there.
func (t *table) markLocked() {
	for _, s := range t.services {
		for _, pl := range s.places {
			pl.endpoint.in = t
			if pl.via != nil {
				pl.via.in = t
			}
		}
	}
}

// retireLocked forgets the endpoints that neither the table nor a dialer knows any more.
func (p *Proxy) retireLocked(t *table) {
	for id, e := range p.endpoints {
		if e.in != t && e.dialer.Load() == nil && e.busy.all() == 0 && !e.draining.Load() {
			delete(p.endpoints, id)
			e.draining.Store(true) // what an exchange of an older table still has is closed, not kept
			e.closeIdle(p.epoch.Add(1 << 62))
		}
	}
}

// Snapshot returns the snapshot in force; an empty one before the first Install.
func (p *Proxy) Snapshot() *fleet.Snapshot { return p.table.Load().snapshot }

// Lookup says what a host name means to a service: the alias of one of its calls, a service's name
// or one of the broker's. index is its place in the virtual ranges. Case and a trailing dot do not
// matter.
func (p *Proxy) Lookup(service, host string) (index uint16, ok bool) {
	s := p.table.Load().named(service, host)
	if s == nil {
		return 0, false
	}
	return s.Index, true
}

// named finds the service that a host name means to a caller: its own aliases come first.
func (t *table) named(caller, host string) *service {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if c := t.services[caller]; c != nil {
		if name, ok := c.aliases[host]; ok {
			return t.services[name]
		}
	}
	return t.services[host]
}

// need finds a declared need of a caller by the name that its code dials.
func (t *table) need(caller, host string, port uint16) *fleet.Need {
	c := t.services[caller]
	if c == nil {
		return nil
	}
	for i := range c.Manifest.Needs {
		n := &c.Manifest.Needs[i]
		if n.Port == port && (strings.EqualFold(n.Name, host) || n.Local && loopback(host)) {
			return n
		}
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback() || strings.EqualFold(host, "localhost")
}

// placed reports whether the snapshot lets a node speak for a service.
func (t *table) placed(node, service string) bool {
	s := t.services[service]
	if s == nil {
		return false
	}
	return slices.ContainsFunc(s.Endpoints, func(e fleet.Endpoint) bool { return e.Node == node && e.Address == "" })
}
