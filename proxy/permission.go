package proxy

import (
	"fmt"
	"slices"

	"github.com/shoalrun/shoal/fleet"
)

// permission says by which declarations the calls of a route pass, for those who ask why later: resolved
// here, so that a call copies a string.
func (t *table) permission(r *route, s *service) string {
	c := t.services[r.caller]
	switch {
	case r.refusal != nil:
		return ""
	case r.caller == fleet.Operator:
		return "the operator's socket"
	case s.hub:
		return "every service reaches " + s.Name + ", which asks for `publishes` itself"
	case r.caller == fleet.Gateway:
		return entry(s, "expose", "") + " exposes it"
	case r.caller == fleet.Events:
		return entry(s, "subscribes", "") + " subscribes"
	}
	declared := "no declaration of " + r.caller + ": learning lets it pass"
	if r.learned == nil {
		declared = entry(c, "calls", "."+s.Name) + " calls " + s.Name
	}
	i := slices.IndexFunc(s.Manifest.Allow, func(a fleet.Allow) bool { return a.Caller == r.caller })
	if i < 0 {
		return declared
	}
	return declared + ", " + entry(s, "allow", fmt.Sprintf("[%d]", i)) + " allows " + r.caller
}

// entry names the place of an entry in a manifest; where its own line is not known, that of its key.
func entry(s *service, key, path string) string {
	if s != nil && s.Manifest.Lines[key+path] > 0 {
		return where(s, key+path)
	}
	return where(s, key)
}
