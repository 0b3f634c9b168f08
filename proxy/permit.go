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
		r.rules = deliveries(s)
		if len(r.rules) == 0 {
			return notSubscribed(s)
		}
		return nil
	}
	if refused := t.declared(r, s); refused != nil {
		return refused
	}
	return allowed(r, s)
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
		return undeclaredCall(r.caller, nil, s.Name)
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

func allowed(r *route, s *service) *refusal {
	if s.Manifest.Allow == nil {
		return nil
	}
	for _, a := range s.Manifest.Allow {
		if a.Caller != r.caller {
			continue
		}
		if len(a.Methods) == 0 && len(a.Paths) == 0 {
			r.rules = nil
			return nil
		}
		r.rules = append(r.rules, a)
	}
	if len(r.rules) == 0 {
		return notAllowed(r.caller, s, "")
	}
	if r.port.Protocol == fleet.TCP {
		r.rules = nil // a tcp port has neither methods nor paths
	}
	return nil
}

// admits reports whether rules let a request pass. A path that a server could read as another one
// is never within a rule: `/public/../admin` is not under `/public/*`.
func admits(rules []fleet.Allow, method, path string) bool {
	path, _, _ = strings.Cut(path, "?")
	for i := range rules {
		a := &rules[i]
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

// deniedBy explains a request that the rules of a route do not admit.
func (r *route) deniedBy(method, path string) *refusal {
	if r.caller == fleet.Events {
		return notSubscribed(r.service)
	}
	return notAllowed(r.caller, r.service, fmt.Sprintf("%s %s", method, path))
}
