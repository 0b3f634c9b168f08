package proxy

import (
	"fmt"
	mrand "math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// fault is an operator's fault as the routes that it concerns have it.
type fault struct {
	fleet.Fault
	path   string
	prefix bool
	text   string   // for records
	abort  *refusal // nil: the call goes on
}

// faults compiles those that calls of r may meet: of the service that was called, and of the one that
// answers in its place.
func (t *table) faults(r *route) []fault {
	var all []fault
	for _, s := range []*service{t.services[r.via], r.service} {
		if s == nil {
			continue
		}
		for _, f := range s.Faults {
			if (f.From == r.caller || f.From == fleet.Anyone) && f.Active(time.Now()) {
				all = append(all, newFault(f))
			}
		}
	}
	return all
}

func newFault(declared fleet.Fault) fault {
	f := fault{Fault: declared, text: declared.ID + ": " + declared.String()}
	f.path, f.prefix = strings.CutSuffix(declared.Path, "*")
	if f.Abort == 0 && f.GRPC == 0 {
		return f
	}
	f.abort = f.refusal(f.Abort, fmt.Sprintf("the fault %s aborted the call", f.ID))
	if f.Abort == 0 {
		f.abort.status = http.StatusServiceUnavailable
	}
	f.abort.grpc = f.GRPC
	if f.GRPC == 0 {
		f.abort.grpc = grpcOf(f.Abort)
	}
	return f
}

func (f *fault) refusal(status int, what string) *refusal {
	return &refusal{
		status: status, reason: fleet.ReasonFaultInjected,
		detail: fmt.Sprintf("%s (%s → %s, %s): an operator asked for that, and nothing is broken.", what, f.From, f.To, f.Fault.String()),
		remedy: fmt.Sprintf("It ends at %s; `shoal fault rm %s` ends it now.", f.Until.UTC().Format(time.RFC3339), f.ID),
	}
}

// grpcOf is the gRPC status that clients take from an HTTP one (gRPC, "HTTP to gRPC Status Code Mapping").
func grpcOf(status int) int {
	switch status {
	case http.StatusBadRequest:
		return 13 // INTERNAL
	case http.StatusUnauthorized:
		return 16 // UNAUTHENTICATED
	case http.StatusForbidden:
		return 7 // PERMISSION_DENIED
	case http.StatusNotFound:
		return 12 // UNIMPLEMENTED
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return 14 // UNAVAILABLE
	}
	return 2 // UNKNOWN
}

// meets reports whether the fault happens to a request.
func (f *fault) meets(x *exchange) bool {
	path := pathOf(x.obs.Path)
	switch {
	case !f.Active(x.obs.Time):
		return false
	case f.Method != "" && f.Method != x.obs.Method:
		return false
	case f.prefix && !strings.HasPrefix(path, f.path), !f.prefix && f.path != "" && f.path != path:
		return false
	}
	return f.Percent >= 100 || mrand.Float64()*100 < f.Percent
}

// disturb applies the operator's faults. The caller's side does it: a peer that calls has done so.
func (x *exchange) disturb() bool {
	if x.peer {
		return true
	}
	for i := range x.route.faults {
		if f := &x.route.faults[i]; f.meets(x) && !x.suffer(f) {
			return false
		}
	}
	return true
}

func (x *exchange) suffer(f *fault) bool {
	x.obs.Fault = f.text
	if f.Delay > 0 && !x.sleep(f) {
		return false
	}
	if f.abort != nil {
		return x.refuse(f.abort)
	}
	return true
}

// sleepStep is how long at most a delay goes on once nobody waits for its end.
const sleepStep = 50 * time.Millisecond

// sleep delays x, up to its deadline.
func (x *exchange) sleep(f *fault) bool {
	end := time.Now().Add(time.Duration(f.Delay))
	for {
		now := time.Now()
		switch {
		case x.left():
			return x.refuse(callerGone(x.route.callee))
		case !now.Before(end):
			return true
		case !x.deadline.IsZero() && !now.Before(x.deadline):
			r := f.refusal(http.StatusGatewayTimeout, fmt.Sprintf("the fault %s delayed the call until its deadline, %v", f.ID, x.deadline.Sub(x.obs.Time).Round(time.Millisecond)))
			r.grpc = 4 // DEADLINE_EXCEEDED
			return x.refuse(r)
		}
		step := min(end.Sub(now), sleepStep)
		if !x.deadline.IsZero() {
			step = min(step, x.deadline.Sub(now))
		}
		timer := time.NewTimer(step)
		select {
		case <-timer.C:
		case <-x.p.ctx.Done():
			timer.Stop()
			return x.refuse(noEndpoint(x.route.callee, "this process is stopping"))
		}
	}
}
