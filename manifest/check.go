package manifest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// Check compares the manifests of a fleet with each other. An error is [Errors] and holds every
// mistake; warnings are what may be meant and rarely is. Neither depends on the order of all.
func Check(all []*Manifest) (warnings Errors, err error) {
	c := &check{byName: map[string]*Manifest{}}
	all = inOrder(all)
	c.names(all)
	for _, m := range all {
		c.calls(m)
		c.callers(m)
		c.ingress(m)
		c.handOvers(m)
		c.subscriptions(m, all)
	}
	c.topics(all)
	c.exposed(all)
	_ = c.warnings.sorted()
	return c.warnings, c.errors.sorted()
}

func inOrder(all []*Manifest) []*Manifest {
	return slices.SortedFunc(slices.Values(all), func(a, b *Manifest) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.File, b.File))
	})
}

type check struct {
	byName   map[string]*Manifest
	errors   Errors
	warnings Errors
}

func (m *Manifest) where(path string) *Error {
	at := m.at[path]
	if at == (position{}) {
		at = position{1, 1}
	}
	return &Error{File: m.File, Line: at.line, Column: at.column}
}

func (c *check) fail(m *Manifest, path, message, hint string) {
	e := m.where(path)
	e.Message, e.Hint = message, hint
	c.errors = append(c.errors, e)
}

func (c *check) warn(m *Manifest, path, message, hint string) {
	e := m.where(path)
	e.Message, e.Hint = message, hint
	c.warnings = append(c.warnings, e)
}

func (c *check) names(all []*Manifest) {
	for _, m := range all {
		first := c.byName[m.Service]
		if first == nil {
			c.byName[m.Service] = m
			continue
		}
		c.fail(m, "service", fmt.Sprintf("the service `%s` is there twice: in %s and in %s", m.Service, first.File, m.File),
			"a name belongs to one repository; rename one of the two, or remove its repository from "+WorkspaceFile)
	}
}

func (c *check) known() []string { return slices.Sorted(maps.Keys(c.byName)) }

func (c *check) calls(m *Manifest) {
	for _, call := range m.Calls {
		path := "calls." + call.Service
		callee := c.byName[call.Service]
		if callee == nil {
			c.fail(m, path, fmt.Sprintf("`%s` is no service of the fleet", call.Service),
				didYouMean(call.Service, c.known(), fmt.Sprintf("add its repository to `repos` in %s, or, if it runs outside Shoal, its address to `externals`", WorkspaceFile)))
			continue
		}
		if len(callee.Ports) == 0 {
			c.fail(m, path, fmt.Sprintf("`%s` takes no calls", call.Service), fmt.Sprintf("add `listen: {8080: http}` to %s, or remove the call", callee.File))
		}
		if call.As != "" && call.As != call.Service && c.byName[call.As] != nil {
			c.fail(m, path+".as", fmt.Sprintf("`%s` is another service of the fleet", call.As), "choose another host name, and use it in the code")
		}
	}
}

// callers asks for a default port where somebody reaches a service whose port 80 could be more than one.
// Callers may name a port, so they alone make it a warning; `expose` and `subscribes` need an answer.
func (c *check) callers(m *Manifest) {
	if _, ok := m.DefaultPort(); ok || len(m.Ports) == 0 {
		return
	}
	var by []string
	for _, name := range c.known() {
		if slices.ContainsFunc(c.byName[name].Calls, func(call fleet.Call) bool { return call.Service == m.Service }) {
			by = append(by, "`"+name+"` calls it")
		}
	}
	say := c.warn
	if len(m.Expose) > 0 {
		by, say = append(by, "it is exposed"), c.fail
	}
	if slices.ContainsFunc(m.Subscribes, func(s fleet.Subscription) bool { return s.Path != "" && s.Port == 0 }) {
		by, say = append(by, "it subscribes without naming a port"), c.fail
	}
	if len(by) == 0 {
		return
	}
	say(m, "listen", fmt.Sprintf("no port of `%s` is the default, and %s", m.Service, strings.Join(by, ", ")),
		fmt.Sprintf("mark the port that answers for port 80: `%d: {protocol: %s, default: true}`", m.Ports[0].Number, m.Ports[0].Protocol))
}

func (c *check) ingress(m *Manifest) {
	for i, a := range m.Allow {
		builtin := a.Caller == fleet.Gateway || a.Caller == fleet.Events || a.Caller == fleet.Operator
		if c.byName[a.Caller] == nil && !builtin {
			c.warn(m, fmt.Sprintf("allow[%d]", i), fmt.Sprintf("`%s` is no service of the fleet", a.Caller),
				didYouMean(a.Caller, c.known(), "the entry has no effect until it is"))
		}
	}
}

func (c *check) exposed(all []*Manifest) {
	owner := map[fleet.Expose]*Manifest{}
	for _, m := range all {
		for _, e := range m.Expose {
			if first := owner[e]; first != nil && first.Service != m.Service {
				c.fail(m, "expose", fmt.Sprintf("`%s` also exposes %s%s (%s)", first.Service, e.Host, e.Path, first.File), "give one of them another host or path")
			}
			owner[e] = m
		}
	}
}

// CheckExplicit finds the port clashes of explicit mode, where all services share the host's ports.
// Only the default port of a service moves, by `PORT`; any further port, and every port of a service
// that has no default, is taken as it is declared.
func CheckExplicit(all []*Manifest) error {
	c := &check{}
	owner := map[uint16]*Manifest{}
	for _, m := range inOrder(all) {
		moves, _ := m.DefaultPort()
		for _, port := range m.Ports {
			if port.Number == moves.Number {
				continue
			}
			path := fmt.Sprintf("listen.%d", port.Number)
			if m.Instances > 1 {
				c.fail(m, path, fmt.Sprintf("%d instances of `%s` cannot all listen on port %d in explicit mode", m.Instances, m.Service, port.Number), "set `instances: 1`, or run where `shoal doctor` offers netns mode")
			}
			if first := owner[port.Number]; first != nil {
				c.fail(m, path, fmt.Sprintf("`%s` and `%s` both listen on port %d, and in explicit mode they share the host's ports (%s)", first.Service, m.Service, port.Number, first.File), "change one of them, or run where `shoal doctor` offers netns mode")
			}
			owner[port.Number] = m
		}
	}
	return c.errors.sorted()
}

// CheckBindings finds entries of shoal.work that name what the fleet does not have.
func (w *Workspace) CheckBindings(all []*Manifest) error {
	p := &parse{file: w.File}
	byName := map[string]*Manifest{}
	for _, m := range slices.Backward(inOrder(all)) {
		byName[m.Service] = m
	}
	known := slices.Sorted(maps.Keys(byName))
	for _, b := range w.Bind {
		at := position{b.Line, b.Column}
		m := byName[b.Service]
		if m == nil {
			p.fail(at, fmt.Sprintf("`%s` is no service of the fleet", b.Service), didYouMean(b.Service, known, "remove the entry, or add the service's repository"))
			continue
		}
		var needs []string
		for _, n := range m.Needs {
			needs = append(needs, n.Name)
		}
		if !slices.Contains(needs, b.Need) {
			p.fail(at, fmt.Sprintf("`%s` has no need `%s`", b.Service, b.Need), didYouMean(b.Need, needs, fmt.Sprintf("add `needs: {%s: {tcp: PORT}}` to %s", b.Need, m.File)))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.Nodes)) {
		if byName[name] == nil {
			p.fail(w.at["nodes."+name], fmt.Sprintf("`%s` is no service of the fleet", name), didYouMean(name, known, "remove the entry"))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(w.Instances)) {
		if byName[name] == nil {
			p.fail(w.at["instances."+name], fmt.Sprintf("`%s` is no service of the fleet", name), didYouMean(name, known, "remove the entry"))
		}
	}
	return p.errors.sorted()
}

// Callees returns names and everything that they call, directly or not, sorted. Names that no manifest
// has are left out.
func Callees(all []*Manifest, names ...string) []string {
	byName := map[string]*Manifest{}
	for _, m := range all {
		byName[m.Service] = m
	}
	found := map[string]bool{}
	for len(names) > 0 {
		name := names[0]
		names = names[1:]
		if found[name] || byName[name] == nil {
			continue
		}
		found[name] = true
		for _, call := range byName[name].Calls {
			names = append(names, call.Service)
		}
	}
	return slices.Sorted(maps.Keys(found))
}
