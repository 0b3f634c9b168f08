package proxy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// permit says whether the caller may call s at all. Both sides have their word: the caller declares
// the call, and the callee may narrow who calls it.
func (t *table) permit(r *route, s *service) *refusal {
	switch {
	case r.caller == fleet.Operator || s.hub:
		return nil
	case r.caller == fleet.Gateway:
		if len(s.Manifest.Expose) == 0 {
			return notExposed(s)
		}
		return nil
	case r.caller == fleet.Events:
		if len(s.Manifest.Subscribes) == 0 {
			return notSubscribed(s)
		}
		r.rules = []rule{{fleet.Events, s, deliveries(s)}}
		return nil
	}
	if refused := t.declared(r, s); refused != nil {
		return refused
	}
	return allowed(r, r.caller, s)
}

// rule is what one service lets one caller send.
type rule struct {
	caller string
	callee *service
	allow  []fleet.Allow
}

// deliveries are the requests that a service subscribed to.
func deliveries(s *service) []fleet.Allow {
	var rules []fleet.Allow
	for _, sub := range s.Manifest.Subscribes {
		rules = append(rules, fleet.Allow{Caller: fleet.Events, Methods: []string{sub.Method}, Paths: []string{sub.Path}})
	}
	return rules
}

func (t *table) declared(r *route, s *service) *refusal {
	c := t.services[r.caller]
	if c == nil {
		return t.unknownCaller(r.caller, s.Name)
	}
	for _, call := range c.Manifest.Calls {
		if call.Service == s.Name {
			return nil
		}
	}
	if !c.Learn {
		return undeclaredCall(r.caller, c, s.Name)
	}
	r.learned = &fleet.Learned{Service: c.Name, Section: "calls", Entry: s.Name}
	return nil
}

// allowed says whether the `allow` of s admits caller, and notes with r what it narrows.
func allowed(r *route, caller string, s *service) *refusal {
	if s.Manifest.Allow == nil {
		return nil
	}
	var narrowed []fleet.Allow
	known := false
	for _, a := range s.Manifest.Allow {
		if a.Caller != caller {
			continue
		}
		if len(a.Methods) == 0 && len(a.Paths) == 0 && len(a.GRPC) == 0 {
			return nil
		}
		known = true
		narrowed = append(narrowed, withGRPC(a))
	}
	if !known {
		return notAllowed(caller, s, "", "- "+caller)
	}
	if r.port.Protocol != fleet.TCP { // which has neither methods nor paths
		r.rules = append(slices.Clone(r.rules), rule{caller, s, narrowed})
	}
	return nil
}

// withGRPC writes the gRPC methods of an entry as the paths that they are (gRPC over HTTP2, "Requests").
func withGRPC(a fleet.Allow) fleet.Allow {
	a.Paths = slices.Clone(a.Paths)
	for _, m := range a.GRPC {
		a.Paths = append(a.Paths, "/"+m)
	}
	return a
}

// admits reports whether a rule lets a request pass. A path that a server could read as another one
// is never within a rule: `/public/../admin` is not under `/public/*`.
func (r *rule) admits(method, path string) bool {
	path = pathOf(path)
	for i := range r.allow {
		a := &r.allow[i]
		if len(a.Methods) > 0 && !slices.Contains(a.Methods, method) {
			continue
		}
		if len(a.Paths) == 0 || canonical(path) && slices.ContainsFunc(a.Paths, func(want string) bool { return under(path, want) }) {
			return true
		}
	}
	return false
}

func under(path, want string) bool {
	if prefix, ok := strings.CutSuffix(want, "*"); ok {
		return strings.HasPrefix(path, prefix)
	}
	return path == want
}

// canonical: without dot segments, empty segments, backslashes, or their percent-encoded forms.
func canonical(path string) bool {
	if strings.Contains(path, "//") || strings.Contains(path, `\`) {
		return false
	}
	for _, c := range []string{"%2e", "%2E", "%2f", "%2F", "%5c", "%5C", "%00"} {
		if strings.Contains(path, c) {
			return false
		}
	}
	for seg := range strings.SplitSeq(path, "/") {
		if seg == "." || seg == ".." {
			return false
		}
	}
	return true
}

// denies explains a request that the rule does not admit, and shows the entry that would.
func (r *rule) denies(x *exchange) *refusal {
	if r.caller == fleet.Events {
		return notSubscribed(r.callee)
	}
	path := pathOf(x.obs.Path)
	if x.obs.Protocol == fleet.GRPC {
		what := strings.TrimPrefix(path, "/")
		return notAllowed(r.caller, r.callee, what, fmt.Sprintf("- {caller: %s, grpc: [%s]}", r.caller, what))
	}
	return notAllowed(r.caller, r.callee, x.obs.Method+" "+path, fmt.Sprintf("- {caller: %s, methods: [%s], paths: [%s]}", r.caller, x.obs.Method, path))
}
