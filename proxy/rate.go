package proxy

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// rate is a token bucket that callers share: what one second brings is divided among those that are
// active by max-min fairness, computed by progressive filling (Bertsekas and Gallager, Data Networks,
// section 6.5.2). All get the same, and what one has no use for is divided among the others, so that a
// caller who asks for less than a fair share gets all that it asks for, however greedy the others are.
//
// Each caller has a bucket of its own, taken from without a lock. Who finds it empty, or not looked at
// for a while, fills all of them.
type rate struct {
	filled atomic.Int64 // when: nanoseconds since the proxy's epoch

	mu        sync.Mutex // guards all below
	perSecond float64    // tokens
	burst     int64      // of all buckets together, as tokens are counted
	carry     float64    // less than the smallest part of a token, from the last filling
	spare     int64      // of nobody: what all buckets were too full for
	surplus   int64      // what there was no room for even there; for other nodes
	short     bool       // a call was refused since another node's surplus was asked for
	reserve   int64      // for a caller that comes anew while others leave nothing: at most one token
	active    []*flow
	known     map[string]*flow
}

// flow is one caller's part of a rate.
type flow struct {
	rate   *rate
	caller string
	tokens atomic.Int64
	seen   atomic.Int64 // when it asked last: nanoseconds since the proxy's epoch
	active bool         // guarded by rate.mu
}

const (
	oneToken   = 1 << 20                 // tokens are counted in parts of this
	fillPeriod = int64(time.Millisecond) // after which a filling is due
	flowMemory = int64(10 * time.Second) // without a call, after which a caller has no part of its own
)

func newRate(perSecond float64, burst int, now int64) *rate {
	r := &rate{known: map[string]*flow{}}
	r.filled.Store(now)
	r.set(perSecond, burst)
	r.spare, r.reserve = r.burst, oneToken
	return r
}

// set changes the rate of a bucket in use.
func (r *rate) set(perSecond float64, burst int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.perSecond, r.burst = perSecond, int64(burst)*oneToken
}

// of returns a caller's part: always the same one.
func (r *rate) of(caller string) *flow {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := r.known[caller]
	if f == nil {
		f = &flow{rate: r, caller: caller}
		r.known[caller] = f
	}
	return f
}

// take takes a token at now, or says after what time there will be one.
func (f *flow) take(now int64) (wait time.Duration, ok bool) {
	f.seen.Store(now)
	if f.tokens.Add(-oneToken) >= 0 {
		if r := f.rate; now-r.filled.Load() > fillPeriod && r.mu.TryLock() {
			r.fillLocked(now)
			r.mu.Unlock()
		}
		return 0, true
	}
	f.tokens.Add(oneToken)
	f.rate.mu.Lock()
	defer f.rate.mu.Unlock()
	return f.rate.takeLocked(f, now)
}

func (r *rate) takeLocked(f *flow, now int64) (time.Duration, bool) {
	r.fillLocked(now)
	if !f.active {
		r.joinLocked(f)
	}
	if left := f.tokens.Add(-oneToken); left >= 0 {
		return 0, true
	}
	r.short = true
	lacks := oneToken - f.tokens.Add(oneToken)
	seconds := float64(lacks) / oneToken / r.perSecond * float64(len(r.active))
	return time.Duration(math.Ceil(seconds * float64(time.Second))), false
}

// roomLocked is how much one caller's bucket holds: its part of the burst, and at least one token.
func (r *rate) roomLocked() int64 { return max(r.burst/int64(max(len(r.active), 1)), oneToken) }

// joinLocked gives a caller a bucket. It gets what the others now hold too much of.
func (r *rate) joinLocked(f *flow) {
	f.active = true
	r.active = append(r.active, f)
	room := r.roomLocked()
	for _, other := range r.active {
		if over := other.tokens.Load() - room; over > 0 {
			other.tokens.Add(-over)
			r.spare += over
		}
	}
	gets := min(max(room-f.tokens.Load(), 0), r.spare)
	r.spare -= gets
	if f.tokens.Add(gets) < oneToken {
		f.tokens.Add(r.reserve)
		r.reserve = 0
	}
}

// fillLocked divides what the time since the last filling has brought.
func (r *rate) fillLocked(now int64) {
	brought := float64(now-r.filled.Load())/float64(time.Second)*r.perSecond*oneToken + r.carry
	if brought <= 0 {
		return
	}
	r.filled.Store(now)
	r.leaveLocked(now)
	brought = min(brought, float64(r.burst))
	gain := int64(brought)
	r.carry = brought - float64(gain)
	r.keepLocked(r.divideLocked(gain + r.spare))
}

// leaveLocked takes the buckets of those that have not asked for long.
func (r *rate) leaveLocked(now int64) {
	r.active = slices.DeleteFunc(r.active, func(f *flow) bool {
		if now-f.seen.Load() < flowMemory {
			return false
		}
		f.active = false
		r.spare += f.tokens.Swap(0)
		return true
	})
}

// divideLocked fills the buckets, the fullest first, each with an equal part of what is left, and
// returns what none has room for.
func (r *rate) divideLocked(gain int64) int64 {
	room := r.roomLocked()
	slices.SortFunc(r.active, func(a, b *flow) int { return cmp.Compare(b.tokens.Load(), a.tokens.Load()) })
	parts := int64(len(r.active))
	if r.reserve < oneToken {
		gets := min(gain/(parts+1), oneToken-r.reserve)
		r.reserve, gain = r.reserve+gets, gain-gets
	}
	for _, f := range r.active {
		gets := min(gain/parts, max(room-f.tokens.Load(), 0))
		f.tokens.Add(gets)
		gain, parts = gain-gets, parts-1
	}
	return gain
}

// ratesLocked gives each service the rate that its manifest declares, or this process's share of it. Shares
// depend on who else calls, so that they are looked at in every table.
func (t *table) ratesLocked() {
	var all *callers
	for _, s := range t.services {
		if s.Manifest.Rate == nil {
			continue
		}
		if all == nil {
			all = t.callers()
		}
		t.rateLocked(s, all)
	}
}

// rateLocked gives s its rate; in its place another, where that is not the same as before, since older tables have
// s. The bucket outlives snapshots.
func (t *table) rateLocked(s *service, all *callers) {
	declared := s.Manifest.Rate
	here, everywhere := all.of(s)
	part := float64(max(here, 1)) / float64(max(everywhere, here, 1))
	perSecond, burst := declared.PerSecond()*part, max(int(float64(declared.Burst)*part), 1)
	if s.load.rate == nil {
		s.load.rate = newRate(perSecond, burst, t.p.now())
	}
	s.load.rate.set(perSecond, burst)
	if s.rate == s.load.rate && s.rateElsewhere == (here < everywhere) {
		return
	}
	rated := *s
	rated.rate, rated.rateElsewhere = s.load.rate, here < everywhere
	t.add(&rated)
}

// callers counts the instances that may call each service: those of this node, and all.
type callers struct {
	here, everywhere map[string]int
	node             bool // some instance is on this node
	nodes            int  // that have instances
}

func (t *table) callers() *callers {
	all := &callers{here: map[string]int{}, everywhere: map[string]int{}}
	nodes := map[string]bool{}
	for _, c := range t.services {
		here, everywhere := 0, 0
		for _, e := range c.Endpoints {
			if e.Node == "" {
				continue
			}
			nodes[e.Node] = true
			everywhere++
			here += one(e.Node == t.p.cfg.Node)
		}
		for _, call := range c.Manifest.Calls {
			all.here[call.Service] += here
			all.everywhere[call.Service] += everywhere
		}
	}
	all.node, all.nodes = nodes[t.p.cfg.Node], len(nodes)
	return all
}

// of counts those that may call s. The gateway is one on every node.
func (all *callers) of(s *service) (here, everywhere int) {
	here, everywhere = all.here[s.Name], all.everywhere[s.Name]
	if len(s.Manifest.Expose) > 0 {
		here += one(all.node)
		everywhere += all.nodes
	}
	return here, everywhere
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// flow is the part that r's caller has of what the callee takes. Deliveries, which their broker slows
// down itself, and the operator do not count.
func (t *table) flow(r *route) *flow {
	if r.service == nil || r.service.rate == nil || r.caller == fleet.Events || r.caller == fleet.Operator {
		return nil
	}
	return r.service.rate.of(r.caller)
}

// affordable takes a token for x, on the caller's side.
func (x *exchange) affordable() bool {
	f := x.route.flow
	if f == nil || x.peer {
		return true
	}
	wait, ok := f.take(x.p.now())
	return ok || x.refuse(tooFast(x.route, wait))
}

// tooFast is what RFC 6585 section 4 and RFC 9110 section 10.2.3 ask for.
func tooFast(r *route, wait time.Duration) *refusal {
	s := r.service
	return &refusal{
		status: http.StatusTooManyRequests, grpc: 8, reason: fleet.ReasonRateLimited, retry: wait,
		detail: fmt.Sprintf("%s takes %s (%s), and the fair share of %s is used up.", s.Name, s.Manifest.Rate, where(s, "rate"), r.caller),
		remedy: fmt.Sprintf("The next call passes in %v. Call it less, or raise `rate:` there, if it can take more.", wait.Round(time.Millisecond)),
	}
}
