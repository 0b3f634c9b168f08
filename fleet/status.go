package fleet

import (
	"encoding/json"
	"time"
)

// Status is the operator's view of the fleet. Its JSON is the documented, stable shape of
// `shoal status --json`: fields are added, never renamed or removed.
type Status struct {
	Fleet    string          `json:"fleet"`
	Version  string          `json:"version"` // of the binary that answers
	Hub      ProcessStatus   `json:"hub"`
	Node     ProcessStatus   `json:"node"`
	Nodes    []NodeInfo      `json:"nodes,omitempty"`   // all of them, where others may join
	Gateway  string          `json:"gateway,omitempty"` // HOST:PORT
	Metrics  string          `json:"metrics,omitempty"` // HOST:PORT
	NATS     string          `json:"nats,omitempty"`    // HOST:PORT
	Pubsub   string          `json:"pubsub,omitempty"`  // HOST:PORT
	Services []ServiceStatus `json:"services"`
	Edges    []EdgeStats     `json:"edges"`
	// Failure says why what shoal.work declares now is not in force: what it declared before is.
	Failure string `json:"failure,omitempty"`

	// Faults are those that operators have injected and that are active.
	Faults []Fault `json:"faults,omitempty"`

	Topics        []TopicStatus        `json:"topics,omitempty"`
	Subscriptions []SubscriptionStatus `json:"subscriptions,omitempty"`
	Broker        EngineStatus         `json:"broker,omitzero"`
}

// ProcessStatus is one of Shoal's own processes. Down is true where it does not answer.
type ProcessStatus struct {
	PID     int       `json:"pid,omitempty"`
	Started time.Time `json:"started,omitzero"`
	Down    bool      `json:"down,omitempty"`
}

// NodeStatus is what a node says of itself to its hub.
type NodeStatus struct {
	Process ProcessStatus `json:"process"`
	Version string        `json:"version"`
	Mode    Mode          `json:"mode"`              // how it joins sidecars to processes
	Reason  string        `json:"reason,omitempty"`  // why Mode is not netns
	Gateway string        `json:"gateway,omitempty"` // HOST:PORT
	Metrics string        `json:"metrics,omitempty"` // HOST:PORT
	NATS    string        `json:"nats,omitempty"`    // HOST:PORT
	Pubsub  string        `json:"pubsub,omitempty"`  // HOST:PORT
	// Peers is HOST:PORT where it awaits calls from other nodes; see [Peer]. Empty: it does not.
	Peers string `json:"peers,omitempty"`
	// Held is what its identity has in force: identity.Held as JSON.
	Held json.RawMessage `json:"held,omitempty"`
}

// ServiceStatus is one service of the fleet.
type ServiceStatus struct {
	Name      string           `json:"name"`
	Owner     string           `json:"owner,omitempty"`
	State     ServiceState     `json:"state"`
	Release   string           `json:"release,omitempty"`
	Commit    string           `json:"commit,omitempty"`
	Dirty     bool             `json:"dirty,omitempty"`
	Origin    Origin           `json:"origin"`
	Source    string           `json:"source,omitempty"` // path, URL@pin, or external address
	Mode      Mode             `json:"mode,omitempty"`
	Ports     []Port           `json:"ports,omitempty"`
	URL       string           `json:"url,omitempty"` // at the gateway, where exposed
	Failure   string           `json:"failure,omitempty"`
	LastLog   []string         `json:"last_log,omitempty"`
	Attached  string           `json:"attached,omitempty"` // address that took its place
	Debug     bool             `json:"debug,omitempty"`
	Routes    []Route          `json:"routes,omitempty"`
	Rate      *Rate            `json:"rate,omitempty"`
	Instances []InstanceStatus `json:"instances"`
}

// ServiceState sums up a service.
type ServiceState string

// The states of a service.
const (
	ServiceWaiting  ServiceState = "waiting"  // for a service that it calls
	ServiceBuilding ServiceState = "building" //
	ServiceStarting ServiceState = "starting" //
	ServiceReady    ServiceState = "ready"    // as many healthy instances as wanted
	ServiceUpdating ServiceState = "updating" // ready, and a new release is on its way
	ServiceDegraded ServiceState = "degraded" // some instances healthy
	ServiceFailed   ServiceState = "failed"   // none; Failure says why
	ServiceStopping ServiceState = "stopping" // its last instances end
	ServiceStopped  ServiceState = "stopped"  // not asked to run
	ServiceExternal ServiceState = "external" // runs outside Shoal
)

// Origin is where a service's code comes from.
type Origin string

// The origins of a service.
const (
	Edit     Origin = "edit"     // a local clone, rebuilt when it changes
	Pin      Origin = "pin"      // a locked commit in the cache
	External Origin = "external" // runs outside Shoal
)

// Progress is one step of an `up`, a `restart`, a `down` or a rebuild, as the operator follows it.
type Progress struct {
	Time    time.Time `json:"time"`
	Service string    `json:"service,omitempty"` // empty: of the fleet as a whole
	Phase   Phase     `json:"phase"`
	Text    string    `json:"text,omitempty"`
}

// Phase is the kind of a [Progress].
type Phase string

// The phases of a progress.
const (
	PhaseResolve Phase = "resolve" // a repository is found, cloned or fetched
	PhaseBuild   Phase = "build"   // Text: the build's output, a line at a time, or what starts
	PhaseWait    Phase = "wait"    // for the services that it calls
	PhaseBefore  Phase = "before"  // the release's `before` command runs
	PhaseStart   Phase = "start"   //
	PhaseReady   Phase = "ready"   //
	PhaseShift   Phase = "shift"   // traffic moves to the new release
	PhaseDrain   Phase = "drain"   //
	PhaseStop    Phase = "stop"    //
	PhaseFailed  Phase = "failed"  // Text: why, and the last log lines
	PhaseWarn    Phase = "warn"    //
	PhaseDone    Phase = "done"    // of the fleet: all that was asked is ready
)
