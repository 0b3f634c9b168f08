package proxy

import "github.com/shoalrun/shoal/fleet"

// A rate of a service that has callers on several nodes is divided among those by where they are. What the callers of
// one node have no use for goes to a node that is short, by the hub: it is given up here before it is granted there.

// surplusParts says how much of what nobody here has a use for is kept until it is asked for: what one of so many
// parts of a second brings.
const surplusParts = 4

// give takes out what nobody has a use for, as tokens are counted.
func (r *rate) give(now int64) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fillLocked(now)
	n := r.surplus
	r.surplus = 0
	return n
}

// receive takes what another node gave up: at the next filling the callers here share it.
func (r *rate) receive(tokens int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spare = min(r.spare+max(tokens, 0), r.burst)
}

// wasShort reports whether a call was refused since it was asked last, or the next ones may be: less than half of the
// burst is left.
func (r *rate) wasShort(now int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.short
	r.short = false
	if was || len(r.active) == 0 {
		return was
	}
	r.fillLocked(now)
	left := r.spare
	for _, f := range r.active {
		left += f.tokens.Load()
	}
	return left < r.burst/2
}

// keepLocked keeps what no bucket has room for: for those to come, and above that for other nodes.
func (r *rate) keepLocked(left int64) {
	r.spare = min(left, r.burst)
	r.surplus = min(r.surplus+left-r.spare, int64(r.perSecond/surplusParts*oneToken))
}

// ShortOfRate names the services that refused calls here for their rates since it was called last, or are about to,
// and of whose rate other nodes have parts.
func (p *Proxy) ShortOfRate() (services []string) {
	for name, s := range p.table.Load().services {
		if s.rateElsewhere && s.rate.wasShort(p.now()) {
			services = append(services, name)
		}
	}
	return services
}

// MoveRate gives up, for each service that is asked for, the calls for which nobody here has a use, and takes those
// that are granted. It returns what was given up.
func (p *Proxy) MoveRate(m fleet.RateMove) (given map[string]float64) {
	services := p.table.Load().services
	for name, calls := range m.Grant {
		if s := services[name]; s != nil && s.rate != nil {
			s.rate.receive(int64(min(calls, float64(s.rate.most())) * oneToken))
		}
	}
	for _, name := range m.Ask {
		s := services[name]
		if s == nil || !s.rateElsewhere {
			continue
		}
		if tokens := s.rate.give(p.now()); tokens > 0 {
			if given == nil {
				given = map[string]float64{}
			}
			given[name] = float64(tokens) / oneToken
		}
	}
	return given
}

// most is how many calls may come at once.
func (r *rate) most() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.burst / oneToken
}
