package fleet

import (
	"fmt"
	"strings"
	"time"
)

// Anyone stands, in a fault, for every caller.
const Anyone = "*"

// Fault is a failure that an operator injects into the calls of one edge, for a time. It ends by itself:
// its end is part of what every data path keeps.
type Fault struct {
	ID     string `json:"id"`
	From   string `json:"from"` // a caller, or [Anyone]
	To     string `json:"to"`   // the service that answers
	Path   string `json:"path,omitempty"`
	Method string `json:"method,omitempty"`
	// Percent of the calls meet it: above 0, to 100.
	Percent float64   `json:"percent"`
	Delay   Duration  `json:"delay,omitempty"` // before the call goes on, or is aborted
	Abort   int       `json:"abort,omitempty"` // the HTTP status of the answer; 0: the call goes on
	GRPC    int       `json:"grpc,omitempty"`  // the status of the answer to a gRPC call; 0: as Abort says
	Until   time.Time `json:"until"`
	By      string    `json:"by,omitempty"` // who added it
}

// Active reports whether the fault is in force at now.
func (f *Fault) Active(now time.Time) bool { return now.Before(f.Until) }

// String says what the fault does: `delay 2s, abort 503, 10 % of GET /orders/*`.
func (f *Fault) String() string {
	var all []string
	if f.Delay > 0 {
		all = append(all, "delay "+time.Duration(f.Delay).String())
	}
	if f.Abort > 0 {
		all = append(all, fmt.Sprintf("abort %d", f.Abort))
	}
	if f.GRPC > 0 {
		all = append(all, fmt.Sprintf("gRPC status %d", f.GRPC))
	}
	what := strings.TrimSpace(f.Method + " " + f.Path)
	if what != "" {
		what = " of " + what
	}
	if f.Percent < 100 || what != "" {
		all = append(all, fmt.Sprintf("%g %%%s", f.Percent, what))
	}
	return strings.Join(all, ", ")
}

// Faults are the faults of a snapshot that are active at now, by the service that they concern.
func (s *Snapshot) Faults(now time.Time) []Fault {
	var all []Fault
	for _, service := range s.Services {
		for _, f := range service.Faults {
			if f.Active(now) {
				all = append(all, f)
			}
		}
	}
	return all
}
