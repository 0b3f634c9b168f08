package hub

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// maxFault is how long a fault may last: one that is forgotten ends within a day.
const maxFault = 24 * time.Hour

// addFault puts a fault in force on every node. Like everything that moves traffic it is a change of
// desired state, so that the history keeps who asked for it.
func (h *hub) addFault(ctx context.Context, f fleet.Fault) (fleet.Fault, error) {
	h.faulting.Lock()
	defer h.faulting.Unlock()
	s := h.control.Snapshot()
	if err := checkFault(s, f, time.Now()); err != nil {
		return f, err
	}
	f.ID = freeFaultID(s)
	all := append(lasting(s, f.To, time.Now()), f)
	reason := fmt.Sprintf("fault add %s: %s -> %s, %s, until %s, by %s", f.ID, f.From, f.To, &f, f.Until.UTC().Format(time.RFC3339), orSomebody(f.By))
	return f, h.applyFaults(ctx, reason, map[string][]fleet.Fault{f.To: all})
}

// removeFaults ends faults; without ids all of them.
func (h *hub) removeFaults(ctx context.Context, ids []string, by string) ([]string, error) {
	h.faulting.Lock()
	defer h.faulting.Unlock()
	s := h.control.Snapshot()
	var gone []string
	change := map[string][]fleet.Fault{}
	for _, service := range s.Services {
		left := lasting(s, service.Name, time.Now())
		kept := slices.DeleteFunc(slices.Clone(left), func(f fleet.Fault) bool { return len(ids) == 0 || slices.Contains(ids, f.ID) })
		if len(kept) == len(left) {
			continue
		}
		change[service.Name] = kept
		for _, f := range left {
			if !slices.ContainsFunc(kept, func(k fleet.Fault) bool { return k.ID == f.ID }) {
				gone = append(gone, f.ID)
			}
		}
	}
	for _, id := range ids {
		if !slices.Contains(gone, id) {
			return nil, fmt.Errorf("no fault %s is active; `shoal fault list` shows those that are", id)
		}
	}
	if len(gone) == 0 {
		return nil, nil
	}
	return gone, h.applyFaults(ctx, fmt.Sprintf("fault rm %s, by %s", strings.Join(gone, ", "), orSomebody(by)), change)
}

func (h *hub) applyFaults(ctx context.Context, reason string, faults map[string][]fleet.Fault) error {
	h.Log.Info(reason)
	for name := range faults {
		h.progress.Tell(fleet.Progress{Time: time.Now(), Service: name, Phase: fleet.PhaseWarn, Text: reason})
	}
	return h.apply(ctx, fleet.Change{Reason: reason, Faults: faults})
}

func orSomebody(by string) string {
	if by == "" {
		return "an operator"
	}
	return by
}

// lasting are the faults of a service that have not ended; what has is forgotten at the next change.
func lasting(s *fleet.Snapshot, service string, now time.Time) []fleet.Fault {
	return slices.DeleteFunc(s.Faults(now), func(f fleet.Fault) bool { return f.To != service })
}

// freeFaultID numbers faults from f1; a number comes again only when its fault has ended.
func freeFaultID(s *fleet.Snapshot) string {
	taken := map[string]bool{}
	for _, service := range s.Services {
		for _, f := range service.Faults {
			taken[f.ID] = true
		}
	}
	for n := 1; ; n++ {
		if id := fmt.Sprintf("f%d", n); !taken[id] {
			return id
		}
	}
}

// checkFault says why a fault cannot be, and what would be right.
func checkFault(s *fleet.Snapshot, f fleet.Fault, now time.Time) error {
	services := map[string]*fleet.Service{}
	for _, service := range s.Services {
		services[service.Name] = service
	}
	known := strings.Join(slices.Sorted(maps.Keys(services)), ", ")
	from := services[f.From] != nil || f.From == fleet.Anyone || f.From == fleet.Gateway || f.From == fleet.Events || f.From == fleet.Operator
	to := services[f.To]
	switch {
	case !from:
		return fmt.Errorf("no caller is called %q; the services are %s, and `gateway`, `events`, `operator` and `*` (every caller) call, too", f.From, known)
	case to == nil:
		return fmt.Errorf("no service is called %q; the services are %s", f.To, known)
	case f.Delay <= 0 && f.Abort == 0 && f.GRPC == 0:
		return fmt.Errorf("the fault does nothing: give it --delay, --abort or --grpc")
	case f.Delay < 0:
		return fmt.Errorf("a delay of %v is none", time.Duration(f.Delay))
	case f.Abort != 0 && (f.Abort < 400 || f.Abort > 599):
		return fmt.Errorf("a call is aborted with a status from 400 to 599, and %d is none", f.Abort)
	case f.GRPC < 0 || f.GRPC > 16:
		return fmt.Errorf("the status of gRPC that says a failure is 1 to 16, and %d is none", f.GRPC)
	case f.Percent <= 0 || f.Percent > 100:
		return fmt.Errorf("a fault meets more than 0 and at most 100 percent of the calls, and not %g", f.Percent)
	case f.Path != "" && !strings.HasPrefix(f.Path, "/"):
		return fmt.Errorf("the path %q does not begin with a slash", f.Path)
	case !f.Active(now):
		return fmt.Errorf("the fault would end before it begins: give it --for")
	case f.Until.After(now.Add(maxFault)):
		return fmt.Errorf("a fault may last %v: one that is forgotten must end", maxFault)
	}
	return nil
}
