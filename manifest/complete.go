package manifest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// checkManifest fills what keys imply, puts lists in order, and checks keys against each other.
func (p *parse) checkManifest() {
	m := p.manifest
	m.Lines = map[string]int{}
	for path, at := range p.at {
		if !strings.ContainsAny(path, ".[") || permits(path) {
			m.Lines[path] = at.line
		}
	}
	p.checkPorts()
	p.checkCalls()
	p.checkLists()
	p.checkIngress()
	p.checkEnv()
	p.checkRoutes()
	slices.SortFunc(m.Ports, func(a, b fleet.Port) int { return cmp.Compare(a.Number, b.Number) })
	slices.SortFunc(m.Calls, func(a, b fleet.Call) int { return strings.Compare(a.Service, b.Service) })
	slices.SortFunc(m.Needs, func(a, b fleet.Need) int { return strings.Compare(a.Name, b.Name) })
}

// permits reports whether path is of an entry that lets a call pass, whose line `why` shows.
func permits(path string) bool {
	return slices.ContainsFunc([]string{"calls.", "needs.", "egress[", "allow["}, func(key string) bool {
		return strings.HasPrefix(path, key) && !strings.ContainsAny(path[len(key):], ".[")
	})
}

func (p *parse) where(path string) position {
	if at, ok := p.at[path]; ok {
		return at
	}
	return position{1, 1}
}

func (p *parse) checkPorts() {
	m := p.manifest
	seen := map[uint16]bool{}
	marked := 0
	for _, port := range m.Ports {
		if seen[port.Number] {
			p.fail(p.where("listen"), fmt.Sprintf("port %d is there twice", port.Number), "keep one")
		}
		seen[port.Number] = true
		if port.Default {
			marked++
		}
	}
	if marked > 1 {
		p.fail(p.where("listen"), fmt.Sprintf("%d ports are the default", marked), "mark one of them `default: true`")
	}
	local := map[uint16]string{}
	for _, n := range m.Needs {
		if other := local[n.Port]; n.Local && other != "" {
			p.fail(p.where("needs."+n.Name), fmt.Sprintf("`%s` and `%s` are both localhost:%d", other, n.Name, n.Port), "give one of them another port")
		}
		if n.Local {
			local[n.Port] = n.Name
		}
		if n.Local && seen[n.Port] {
			p.fail(p.where("needs."+n.Name), fmt.Sprintf("the service itself listens on localhost:%d", n.Port), "change the port in `listen` or in `needs`")
		}
	}
}

// checkCalls refuses a host name that would mean two things to the code.
func (p *parse) checkCalls() {
	means := map[string]string{}
	for _, c := range p.manifest.Calls {
		if means[c.Service] != "" {
			p.fail(p.where("calls."+c.Service), fmt.Sprintf("`%s` is there twice", c.Service), "keep one")
		}
		means[c.Service] = c.Service
	}
	for _, c := range p.manifest.Calls {
		if c.As == "" || c.As == c.Service {
			continue
		}
		at := p.where("calls." + c.Service + ".as")
		if other := means[c.As]; other != "" {
			p.fail(at, fmt.Sprintf("`%s` already means the service `%s`", c.As, other), "choose another name for one of them")
		}
		if c.As == fleet.Events || c.As == fleet.Pubsub || c.As == fleet.NATS || c.As == "localhost" {
			p.fail(at, fmt.Sprintf("`%s` already has a meaning", c.As), "choose another name")
		}
		means[c.As] = c.Service
	}
	for _, n := range p.manifest.Needs {
		if other := means[n.Name]; other != "" && !n.Local {
			p.fail(p.where("needs."+n.Name), fmt.Sprintf("`%s` already means the service `%s`", n.Name, other), "choose another name for the need")
		}
	}
}

func (p *parse) checkLists() {
	m := p.manifest
	var egress []string
	for _, e := range m.Egress {
		egress = append(egress, fmt.Sprintf("%s:%d", e.Host, e.Port))
	}
	p.checkTwice("egress", egress)
	p.checkTwice("publishes", m.Publishes)
	p.checkSchedules()
	var callers []string
	for _, a := range m.Allow {
		callers = append(callers, a.Caller)
	}
	p.checkTwice("allow", callers)
}

func (p *parse) checkTwice(key string, all []string) {
	for i, one := range all {
		if slices.Contains(all[:i], one) {
			p.fail(p.where(key), fmt.Sprintf("`%s` has `%s` twice", key, one), "keep one")
		}
	}
}

// checkIngress checks what needs a port to come in by, and completes `expose`.
func (p *parse) checkIngress() {
	m := p.manifest
	listens := len(m.Ports) > 0 || p.at["listen"] != position{}
	if !listens && m.Health.Path != "" && m.Health.Port == 0 {
		p.fail(p.where("health"), "`health` asks a port, and `listen` has none", "add `listen: {8080: http}`, or name the port: `GET :8080"+m.Health.Path+"`")
	}
	for i := range m.Subscribes {
		p.checkSubscription(&m.Subscribes[i], listens)
	}
	isHTTP := func(port fleet.Port) bool { return port.Protocol != fleet.TCP }
	if len(m.Expose) > 0 && !slices.ContainsFunc(m.Ports, isHTTP) && !(listens && len(m.Ports) == 0) {
		p.fail(p.where("expose"), "`expose` needs a port that speaks http", "add `listen: {8080: http}`")
	}
	for i := range m.Expose {
		m.Expose[i].Host = strings.ToLower(nonEmpty(m.Expose[i].Host, m.Service+".localhost"))
		m.Expose[i].Path = nonEmpty(m.Expose[i].Path, "/")
		if slices.Contains(m.Expose[:i], m.Expose[i]) {
			p.fail(p.where("expose"), fmt.Sprintf("`%s%s` is exposed twice", m.Expose[i].Host, m.Expose[i].Path), "keep one")
		}
	}
}

func (p *parse) checkEnv() {
	for name := range p.manifest.Workers {
		if name == p.manifest.Service {
			p.fail(p.where("workers."+name), "a worker has the service's own name", "choose another name for it")
		}
	}
}

func (p *parse) checkWorkspace() {
	w := p.workspace
	slices.SortFunc(w.Externals, func(a, b External) int { return strings.Compare(a.Service, b.Service) })
	slices.SortFunc(w.Bind, func(a, b Binding) int { return strings.Compare(a.Service+"."+a.Need, b.Service+"."+b.Need) })
	if p.at["repos"] != (position{}) && len(w.Repos) == 0 && len(p.errors) == 0 && len(w.Externals) == 0 {
		p.fail(p.where("repos"), "`repos` is empty", "name a repository, such as `./orders`")
	}
	seen := map[string]int{}
	for _, r := range w.Repos {
		name := r.Path + r.URL + " " + r.Manifest
		if line := seen[name]; line != 0 {
			p.fail(position{r.Line, r.Column}, "this repository is there twice", fmt.Sprintf("the first is in line %d; keep one", line))
		}
		seen[name] = r.Line
	}
	p.checkListeners()
	p.checkRanges()
}

func (p *parse) checkListeners() {
	l := p.workspace.Listeners
	byPort := map[uint16]string{}
	for _, one := range []struct {
		name string
		Listener
	}{{"gateway", l.Gateway}, {"metrics", l.Metrics}, {"pubsub", l.Pubsub}, {"nats", l.NATS}, {"peers", l.Peers}} {
		if one.Line == 0 {
			continue
		}
		if other := byPort[one.Port]; other != "" {
			p.fail(p.where(one.name), fmt.Sprintf("`%s` and `%s` both take port %d", other, one.name, one.Port), "give one of them another port")
		}
		byPort[one.Port] = one.name
	}
}

func (p *parse) checkRanges() {
	r := p.workspace.Ranges
	if r.Services.Overlaps(r.Names) {
		p.fail(p.where("ranges"), fmt.Sprintf("`services` and `names` are both %s", r.Services), "give them different ranges")
	}
}
