package fleet

import "time"

// Mode is how a sidecar is joined to a process.
type Mode string

// The sidecar modes.
const (
	Netns    Mode = "netns"    // a namespace of its own; Linux
	Explicit Mode = "explicit" // loopback listeners and environment variables; any system
)

// Release is an immutable version of a service.
type Release struct {
	ID      string   `json:"id"`  // content hash: 12 hexadecimal digits
	Dir     string   `json:"dir"` // the release's directory; the working directory of what runs
	Commit  string   `json:"commit,omitempty"`
	Dirty   bool     `json:"dirty,omitempty"`
	Ignored []string `json:"ignored,omitempty"` // ignored files of the clone that the release lacks
}

// Assignment tells a node to run one instance. The node keeps it on disk and restarts a crashed
// instance from it alone. It names secrets and never holds their
// values; Credential is of Shoal's own making.
type Assignment struct {
	Instance string   `json:"instance"` // `orders-1f3c9a-1`: service, release, number
	Service  string   `json:"service"`
	Worker   string   `json:"worker,omitempty"` // name in `workers`; empty for the service itself
	Release  Release  `json:"release"`
	Manifest Manifest `json:"manifest"`

	Command string   `json:"command"` // run as `/bin/sh -c`
	Dir     string   `json:"dir"`     // working directory; the release's, or the clone's for `dev`
	Env     []EnvVar `json:"env,omitempty"`
	Mode    Mode     `json:"mode"`
	State   string   `json:"state"`          // the service's $SHOAL_STATE
	Grace   Duration `json:"grace"`          // between TERM and KILL; 10 s by default
	Once    bool     `json:"once,omitempty"` // `before`: runs to its end, exit code 0 wanted, never restarted
	// HealthTimeout bounds the time from the first start until the instance is first ready. 0 means 60 s.
	HealthTimeout Duration `json:"health_timeout,omitempty"`
	Debug         bool     `json:"debug,omitempty"`
	// Credential is the service's password for NATS, beside which the connection itself must be the service's.
	Credential string `json:"credential,omitempty"`
}

// EnvVar is one entry of `env`: a value, or the reference of a secret.
type EnvVar struct {
	Name   string `json:"name"`
	Value  string `json:"value,omitempty"`
	Secret string `json:"secret,omitempty"` // `orders/database-url`
}

// InstanceState is where an instance is in its life.
type InstanceState string

// The states of an instance, in the order in which it passes them.
const (
	Starting  InstanceState = "starting"  // spawned; its health is not known yet
	Ready     InstanceState = "ready"     // healthy
	Unhealthy InstanceState = "unhealthy" // was ready, fails its probe now
	Crashed   InstanceState = "crashed"   // exited; will be restarted after a backoff
	Failed    InstanceState = "failed"    // gave up, or never became healthy in time
	Stopping  InstanceState = "stopping"  // TERM sent
	Exited    InstanceState = "exited"    // gone for good, as asked (or `Once` done)
)

// InstanceStatus is what a node reports of one instance.
type InstanceStatus struct {
	Instance string        `json:"instance"`
	Service  string        `json:"service"`
	Worker   string        `json:"worker,omitempty"`
	Node     string        `json:"node"`
	Release  string        `json:"release"`
	State    InstanceState `json:"state"`
	PID      int           `json:"pid,omitempty"` // the application's, as the host sees it
	Restarts int           `json:"restarts"`
	Started  time.Time     `json:"started,omitzero"`
	ExitCode int           `json:"exit_code,omitempty"`
	// Failure is a line: why the last start, probe or run failed; empty while all is well.
	Failure string `json:"failure,omitempty"`
	// LastLog holds the last lines of output, redacted; only with Failure.
	LastLog []string `json:"last_log,omitempty"`
	Mode    Mode     `json:"mode"`
}
