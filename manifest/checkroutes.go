package manifest

import (
	"fmt"
	"slices"

	"github.com/shoalrun/shoal/fleet"
)

// checkRoutes checks the routes of one file against each other and against its other keys.
func (p *parse) checkRoutes() {
	m := p.manifest
	speaks := slices.ContainsFunc(m.Ports, func(port fleet.Port) bool { return port.Protocol != fleet.TCP })
	read := m.Ports != nil || p.at["listen"] == position{} // else `listen` is there and wrong, which was said
	for _, key := range []string{"routes", "rate"} {
		if (p.at[key] != position{}) && !speaks && read {
			p.fail(p.where(key), fmt.Sprintf("`%s` is for calls of http and grpc, and `listen` has neither", key), "add `listen: {8080: http}`, or remove the key")
		}
	}
	for i := range m.Routes {
		p.checkRoute(i)
	}
}

func (p *parse) checkRoute(i int) {
	m := p.manifest
	r := &m.Routes[i]
	path := fmt.Sprintf("routes[%d]", i)
	for _, before := range m.Routes[:i] {
		if before.Name == r.Name {
			p.fail(p.where(path), fmt.Sprintf("the route `%s` is there twice", r.Name), fmt.Sprintf("the first is in line %d; rename one of them", before.Line))
		}
		if before.Match.String() == r.Match.String() || before.Match.String() == (fleet.Match{}).String() {
			p.fail(p.where(path), fmt.Sprintf("the route `%s` is never reached: `%s`, in line %d, matches before it", r.Name, before.Name, before.Line), "put it first, or let the other match less")
			break
		}
	}
	p.checkSplit(r, path)
	p.checkMirror(r, path)
	for _, header := range r.Match.Headers {
		if slices.ContainsFunc(r.Match.Headers, func(h fleet.HeaderMatch) bool { return h.Name == header.Name && h != header }) {
			p.fail(p.where(path+".match.headers"), fmt.Sprintf("`%s` is there twice", header.Name), "names of headers do not depend on capitals; keep one")
			return
		}
	}
}

func (p *parse) checkSplit(r *fleet.Route, path string) {
	_, to := p.at[path+".to"]
	_, split := p.at[path+".split"]
	if to && split {
		p.fail(p.where(path+".split"), "`to` and `split` both say who answers", "keep one of them")
		return
	}
	if (r.Sticky != fleet.Sticky{}) && len(r.Split) < 2 {
		p.fail(p.where(path+".sticky"), "`sticky` is for a `split` among services", "add `split`, or remove it")
	}
	if to && r.Split[0].Service == p.manifest.Service {
		p.fail(p.where(path+".to"), "the service hands its calls over to itself", "remove `to`: without it the calls come here")
		return
	}
	total := uint32(0)
	for _, s := range r.Split {
		total += s.Weight
		p.checkTarget(r, s.Service, orPath(to, path+".to", path+".split."+s.Service))
	}
	if split && total == 0 {
		p.fail(p.where(path+".split"), "all weights are 0", "give one of the services a weight, such as 100")
	}
}

func orPath(first bool, a, b string) string {
	if first {
		return a
	}
	return b
}

// checkTarget asks for the declaration without which a service hands nothing over.
func (p *parse) checkTarget(r *fleet.Route, target, path string) {
	m := p.manifest
	if target == m.Service || slices.ContainsFunc(m.Calls, func(c fleet.Call) bool { return c.Service == target }) {
		return
	}
	var known []string
	for _, c := range m.Calls {
		known = append(known, c.Service)
	}
	p.fail(p.where(path), fmt.Sprintf("the route `%s` goes to `%s`, and `calls` does not declare it", r.Name, target),
		didYouMean(target, known, fmt.Sprintf("add `calls: {%s: {}}`: nobody is called without a declaration", target)))
}

func (p *parse) checkMirror(r *fleet.Route, path string) {
	mirror := r.Mirror
	if mirror == nil {
		return
	}
	at := path + ".mirror.to"
	if mirror.Service == p.manifest.Service || len(r.Split) == 1 && r.Split[0].Service == mirror.Service {
		p.fail(p.where(at), fmt.Sprintf("`%s` would get each call and its copy", mirror.Service), "name another service")
		return
	}
	p.checkTarget(r, mirror.Service, at)
}

// handOvers checks the routes of a service against the services that they name.
func (c *check) handOvers(m *Manifest) {
	for i, r := range m.Routes {
		path := fmt.Sprintf("routes[%d]", i)
		for _, s := range r.Split {
			c.handOver(m, r, s.Service, path)
		}
		if r.Mirror != nil {
			c.handOver(m, r, r.Mirror.Service, path)
		}
	}
}

func (c *check) handOver(m *Manifest, r fleet.Route, target, path string) {
	other := c.byName[target]
	if other == nil || other.Service == m.Service || len(other.Ports) == 0 {
		return // `calls` says so
	}
	if !speakAlike(&m.Manifest, &other.Manifest) {
		c.fail(m, path, fmt.Sprintf("the route `%s` goes to `%s`, which speaks another protocol", r.Name, target), fmt.Sprintf("let one port of %s speak what `%s` speaks", other.File, m.Service))
	}
	if other.Allow == nil {
		return
	}
	if !lets(other, m.Service) {
		c.fail(m, path, fmt.Sprintf("the route `%s` goes to `%s`, which does not let `%s` call", r.Name, target, m.Service), fmt.Sprintf("whoever owns `%s` decides: add `- %s` under `allow` in %s", target, m.Service, other.File))
		return
	}
	for _, name := range c.known() {
		calls := slices.ContainsFunc(c.byName[name].Calls, func(call fleet.Call) bool { return call.Service == m.Service })
		if calls && name != target && !lets(other, name) {
			c.warn(m, path, fmt.Sprintf("by the route `%s` the calls of `%s` go to `%s`, which does not let it call", r.Name, name, target), fmt.Sprintf("they are refused; whoever owns `%s` decides: add `- %s` under `allow` in %s", target, name, other.File))
		}
	}
}

func lets(m *Manifest, caller string) bool {
	return slices.ContainsFunc(m.Allow, func(a fleet.Allow) bool { return a.Caller == caller })
}

// speakAlike reports whether b has a port that speaks as one of a does.
func speakAlike(a, b *fleet.Manifest) bool {
	return slices.ContainsFunc(a.Ports, func(x fleet.Port) bool {
		return x.Protocol != fleet.TCP && slices.ContainsFunc(b.Ports, func(y fleet.Port) bool { return x.Protocol == y.Protocol })
	})
}
