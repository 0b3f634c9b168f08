package fleet

import (
	"net/netip"
	"slices"
	"time"
)

// Snapshot is the immutable, compiled picture of the fleet that a data path reads. It is built
// whole and swapped whole; nobody edits one that was installed.
type Snapshot struct {
	Fleet    string     `json:"fleet"`
	Version  uint64     `json:"version"`  // grows with every change of any service
	Services []*Service `json:"services"` // sorted by name
}

// NodesOf names the nodes that run instances of a service, sorted.
func (s *Snapshot) NodesOf(service string) []string {
	var nodes []string
	for _, one := range s.Services {
		for _, e := range one.Endpoints {
			if one.Name == service && e.Node != "" && e.Address == "" {
				nodes = append(nodes, e.Node)
			}
		}
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// Service is everything that a data path must know of one service: what its manifest declares,
// and where it runs now. It is the unit in which snapshots are stored and sent.
type Service struct {
	Name    string `json:"name"`
	Version uint64 `json:"version"` // the snapshot version that last changed this service
	Index   uint16 `json:"index"`   // its place in the virtual ranges, allocated once by control; see [Virtual]

	Manifest Manifest `json:"manifest"`

	// Deployed says that the service is part of the running fleet: false for one that is known
	// (its name is taken) but neither runs nor is external.
	Deployed bool `json:"deployed"`
	// Starting says that endpoints are on their way: a call waits for them, within its deadline.
	Starting  bool       `json:"starting,omitempty"`
	Endpoints []Endpoint `json:"endpoints,omitempty"`
	// Learn lets undeclared calls and egress of this service through, recorded.
	Learn bool `json:"learn,omitempty"`
	// Debug suspends health, deadlines and restarts for this service.
	Debug bool `json:"debug,omitempty"`
	// Serial is the highest number that deploy has given to an instance of the service; it never
	// falls, so that no instance id is used twice.
	Serial int `json:"serial,omitempty"`
	// Nodes are where the service ran last, the newest first: its $SHOAL_STATE is there.
	Nodes []string `json:"nodes,omitempty"`
	// Faults are those of calls to this service; some may have ended. [Change.Faults] sets them.
	Faults []Fault `json:"faults,omitempty"`
}

// Endpoint is one place that answers for a service.
type Endpoint struct {
	Instance string `json:"instance"`          // instance id; endpoint state in the data path is kept by it
	Node     string `json:"node,omitempty"`    // the node that runs it; empty for an external address
	Release  string `json:"release,omitempty"` //
	// Worker names a worker, or `before`: it takes no calls, and is listed as Placed while its node
	// may speak for the service because of it. Empty for the service's own instances.
	Worker string `json:"worker,omitempty"`
	// Address is HOST:PORT for what runs outside Shoal (`externals`, `attach`); empty otherwise.
	Address string `json:"address,omitempty"`
	// State says whether calls go there.
	State EndpointState `json:"state,omitempty"`
	// Unhealthy says that it was ready, and does not answer its health checks now: it gets no new call
	// while others can take it.
	Unhealthy bool `json:"unhealthy,omitempty"`
}

// EndpointState is whether an endpoint takes calls. Its node may speak for the service in all of
// them, so that an instance can call others before it is ready and while it drains.
type EndpointState string

// The states of an endpoint.
const (
	Serving  EndpointState = ""         // takes calls
	Placed   EndpointState = "placed"   // about to start, or starting: takes none yet
	Draining EndpointState = "draining" // takes no new call; exchanges that it has go on
)

// Manifest is what a service declares, as the data path and the operator need it: the data of a
// shoal.yaml after validation and defaults, without how to build it.
type Manifest struct {
	// File is the manifest's path as a refusal shows it: `orders/shoal.yaml`.
	File string `json:"file"`
	// Lines gives the line of each top-level key that the file has (`calls`, `egress`, …), and 0,
	// or nothing, for a key that it lacks. Refusals use it to say where to add a line. What lets a call pass
	// is in it entry by entry, too: `calls.payments`, `needs.db`, `egress[0]`, `allow[0]`.
	Lines map[string]int `json:"lines,omitempty"`

	Service string `json:"service"`
	Owner   string `json:"owner,omitempty"`
	Ports   []Port `json:"ports,omitempty"` // `listen`, sorted by number
	Health  Health `json:"health,omitzero"`
	// Balance says how calls are spread over the instances; the zero value means [PeakEWMA].
	Balance Balance `json:"balance,omitzero"`
	// Concurrency is how many exchanges one instance may have in progress. 0: found out by measuring.
	Concurrency int `json:"concurrency,omitempty"`

	Calls      []Call         `json:"calls,omitempty"` // sorted by service
	Allow      []Allow        `json:"allow,omitempty"` // nil: whoever declares the call may make it
	Needs      []Need         `json:"needs,omitempty"`
	Egress     []HostPort     `json:"egress,omitempty"`
	Publishes  []string       `json:"publishes,omitempty"`
	Topics     []Topic        `json:"topics,omitempty"` // those of Publishes that have options, sorted by name
	Subscribes []Subscription `json:"subscribes,omitempty"`
	Schedules  []Schedule     `json:"schedules,omitempty"` // in the order of the file
	Expose     []Expose       `json:"expose,omitempty"`
	Routes     []Route        `json:"routes,omitempty"` // in the order of the file: the first that matches holds
	Rate       *Rate          `json:"rate,omitempty"`
}

// Port is one entry of `listen`.
type Port struct {
	Number   uint16   `json:"number"`
	Protocol Protocol `json:"protocol"`
	Default  bool     `json:"default,omitempty"` // answers for port 80 where more than one could
}

// DefaultPort returns the port that answers for port 80 and for NAME_URL: the one marked default,
// else the only http port, else the only port. ok is false where that is ambiguous or there is none.
func (m *Manifest) DefaultPort() (p Port, ok bool) {
	var http []Port
	for _, p := range m.Ports {
		if p.Default {
			return p, true
		}
		if p.Protocol == HTTP {
			http = append(http, p)
		}
	}
	if len(http) == 1 {
		return http[0], true
	}
	if len(m.Ports) == 1 {
		return m.Ports[0], true
	}
	return Port{}, false
}

// Port returns the declared port of that number.
func (m *Manifest) Port(number uint16) (Port, bool) {
	for _, p := range m.Ports {
		if p.Number == number {
			return p, true
		}
	}
	return Port{}, false
}

// Health is how an instance is probed. The zero value asks for what the protocol allows: a TCP
// connection to the first declared port; a process without ports is healthy while it runs.
type Health struct {
	Method string `json:"method,omitempty"` // GET or HEAD
	Path   string `json:"path,omitempty"`
	Port   uint16 `json:"port,omitempty"` // 0: the default port
	GRPC   bool   `json:"grpc,omitempty"` // the gRPC health checking protocol
}

// Call is one entry of `calls`: a service that this one may call.
type Call struct {
	Service string `json:"service"`
	As      string `json:"as,omitempty"`  // the host name that the caller's code uses, besides the service's own
	Env     string `json:"env,omitempty"` // prefix of NAME_URL and NAME_ADDR in explicit mode; empty: from As or Service
	// Timeout bounds the whole call, all attempts. 0 means that nothing is declared (the default of
	// 60 s applies to http, none to grpc).
	Timeout Duration `json:"timeout,omitempty"`
	// Idle bounds the silence on a response that Timeout does not cover. 0 means 5 min.
	Idle Duration `json:"idle,omitempty"`
	// Attempts bounds the tries that an application may have seen, 1 to 4. 0 means 3. What none has seen is
	// sent elsewhere in any case.
	Attempts int `json:"attempts,omitempty"`
	// Hedge is after how long without an answer a request that may be repeated is sent to a second instance
	// as well. 0: never.
	Hedge Duration `json:"hedge,omitempty"`
}

// Balance is how calls are spread over the instances of a service.
type Balance struct {
	Policy BalancePolicy `json:"policy,omitempty"`
	// Header or Cookie names where a request has the key that [Hash] goes by; one of them is set then.
	// Header is in lower case.
	Header string `json:"header,omitempty"`
	Cookie string `json:"cookie,omitempty"`
}

// BalancePolicy names a way to choose an instance.
type BalancePolicy string

// The policies of [Balance].
const (
	PeakEWMA     BalancePolicy = "peak-ewma"     // the better of two by expected wait; the default
	LeastRequest BalancePolicy = "least-request" // the better of two by exchanges in progress
	RoundRobin   BalancePolicy = "round-robin"
	Hash         BalancePolicy = "hash" // the same key goes to the same instance, within bounded load
)

// Allow is one entry of `allow`: a caller, optionally narrowed.
type Allow struct {
	Caller  string   `json:"caller"`
	Methods []string `json:"methods,omitempty"` // empty: all
	Paths   []string `json:"paths,omitempty"`   // exact, or a prefix that ends in `*`; empty, as GRPC: all
	GRPC    []string `json:"grpc,omitempty"`    // `package.Service/Method`, or `package.Service/*`: paths, too
}

// Need is something outside the fleet that a service depends on, bound per environment.
type Need struct {
	Name  string `json:"name"`
	Port  uint16 `json:"port"`
	Local bool   `json:"local,omitempty"` // the application dials localhost
	// Bound is HOST:PORT where this environment has it; empty: unbound, refused at dial.
	Bound string `json:"bound,omitempty"`
}

// HostPort is one entry of `egress`. Host is a name, an IP literal, or `*.example.com`.
type HostPort struct {
	Host string `json:"host"`
	Port uint16 `json:"port"` // 0: any
}

// Expose is one way in by the gateway. Several services may share a Host with different Paths.
type Expose struct {
	Host string `json:"host"` // `web.localhost` for `expose: true`
	Path string `json:"path"` // prefix, at a segment boundary; `/` for all
}

// Duration is a time.Duration that reads and writes as a Go duration string ("300ms").
type Duration time.Duration

// MarshalText writes d as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads a Go duration string.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// Ranges are the virtual addresses of a fleet. Services are numbered by [Service.Index] in Services;
// names outside the fleet get per-node addresses in Names. The IPv6 address of index i is V6 plus i.
type Ranges struct {
	Services netip.Prefix `json:"services"` // 198.18.0.0/16 unless shoal.work says otherwise
	Names    netip.Prefix `json:"names"`    // 198.19.0.0/16
	V6       netip.Prefix `json:"v6"`       // a unique-local /64 (RFC 4193); names have bit 16 of the index set
}

// DefaultRanges returns the ranges in force where shoal.work names none. 198.18.0.0/15 is set aside
// for benchmarking inside a network (RFC 2544), so no real host has it.
func DefaultRanges() Ranges {
	return Ranges{
		Services: netip.MustParsePrefix("198.18.0.0/16"),
		Names:    netip.MustParsePrefix("198.19.0.0/16"),
		V6:       netip.MustParsePrefix("fd5f:9a1c:77e2:1::/64"),
	}
}

// Virtual returns the addresses of index i: of a service where names is false, else of another name.
func (r Ranges) Virtual(i uint16, names bool) (v4, v6 netip.Addr) {
	p := r.Services
	if names {
		p = r.Names
	}
	a4 := p.Masked().Addr().As4()
	a4[2], a4[3] = a4[2]|byte(i>>8), a4[3]|byte(i)
	a6 := r.V6.Masked().Addr().As16()
	a6[14], a6[15] = byte(i>>8), byte(i)
	if names {
		a6[13] = 1
	}
	return netip.AddrFrom4(a4), netip.AddrFrom16(a6)
}

// Index is the inverse of [Ranges.Virtual]. ok is false for an address that is in no range.
func (r Ranges) Index(a netip.Addr) (i uint16, names, ok bool) {
	a = a.Unmap()
	switch {
	case a.Is4() && r.Services.Contains(a), a.Is4() && r.Names.Contains(a):
		b := a.As4()
		return uint16(b[2])<<8 | uint16(b[3]), r.Names.Contains(a), true
	case a.Is6() && r.V6.Contains(a):
		b := a.As16()
		return uint16(b[14])<<8 | uint16(b[15]), b[13] == 1, true
	}
	return 0, false, false
}

// Change is one step of desired state, applied whole. Put and Remove are deploy's to write, Faults the
// operator's. Version, Index and Faults of the services in Put are control's to set; what Put holds is
// ignored.
type Change struct {
	Reason string             `json:"reason"` // for the history: `rollout orders 1f3c9a`
	Put    []Service          `json:"put,omitempty"`
	Remove []string           `json:"remove,omitempty"`
	Faults map[string][]Fault `json:"faults,omitempty"` // service -> all that it is to have
}
