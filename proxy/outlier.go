package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// outlier decides whether an endpoint is asked, by how it fared: after failures in a row, or by more
// failures than answers in a window, it is ejected for a while that doubles with each ejection. When
// that has passed, one real request finds out whether it is well again. (Envoy's outlier detection, with
// the half-open state of a circuit breaker; Nygard, Release It!, chapter 5.)
type outlier struct {
	until    atomic.Int64 // ejected until then: nanoseconds since the proxy's epoch; 0: not
	paused   atomic.Int64 // until then it asked to be left alone (Retry-After)
	trying   atomic.Bool  // a request is finding out
	inARow   atomic.Int32 // failures
	troubled atomic.Bool  // one failed within the window: answers are counted, too
	dials    atomic.Int32 // that failed, one after the other

	judging  sync.Mutex // guards all below
	began    int64      // the window
	answers  int
	failures int
	times    int   // it was ejected, without a minute of health between
	released int64 // when it was last well again
}

const (
	outlierInARow  = 5
	outlierWindow  = 10 * time.Second
	outlierAnswers = 20 // in a window, of which half or more are failures

	ejectFirst = 2 * time.Second // and doubled up to ejectLast
	ejectLast  = time.Minute
	forgiven   = time.Minute // of health, after which ejections are counted anew

	redialFirst = 250 * time.Millisecond // after a failed dial: an instance that restarts is soon back
	redialLast  = 8 * time.Second

	pauseLast = 5 * time.Minute // the longest Retry-After that is believed
)

func (e *endpoint) dialFailed() {
	n := min(e.dials.Add(1), 6)
	e.until.Store(e.p.now() + int64(min(redialFirst<<(n-1), redialLast)))
}

func (e *endpoint) dialWorked() {
	if e.dials.Load() != 0 && e.dials.Swap(0) != 0 {
		e.until.Store(0)
	}
}

// pause leaves the endpoint alone for d.
func (e *endpoint) pause(d time.Duration) {
	e.paused.Store(e.p.now() + int64(min(d, pauseLast)))
}

// afresh forgets everything: another process, or the same one anew, answers from now on.
func (o *outlier) afresh() {
	o.judging.Lock()
	defer o.judging.Unlock()
	o.until.Store(0)
	o.paused.Store(0)
	o.inARow.Store(0)
	o.dials.Store(0)
	o.troubled.Store(false)
	o.trying.Store(false)
	o.times, o.answers, o.failures = 0, 0, 0
}

// well notes an answer.
func (o *outlier) well(now int64) {
	if o.inARow.Load() != 0 {
		o.inARow.Store(0)
	}
	if !o.troubled.Load() {
		return
	}
	o.judging.Lock()
	defer o.judging.Unlock()
	if now-o.began > int64(outlierWindow) {
		o.troubled.Store(false)
		return
	}
	o.answers++
}

// fault notes a failure, and reports whether the endpoint has become an outlier by it, if others are
// better.
func (o *outlier) fault(now int64) bool {
	inARow := o.inARow.Add(1)
	o.judging.Lock()
	defer o.judging.Unlock()
	if now-o.began > int64(outlierWindow) || !o.troubled.Load() {
		o.began, o.answers, o.failures = now, 0, 0
		o.troubled.Store(true)
	}
	o.answers++
	o.failures++
	return inARow >= outlierInARow || o.answers >= outlierAnswers && 2*o.failures >= o.answers
}

// eject takes the endpoint out.
func (o *outlier) eject(now int64) {
	o.judging.Lock()
	defer o.judging.Unlock()
	if now-o.released > int64(forgiven) {
		o.times = 0
	}
	d := ejectLast
	if o.times < 10 {
		d = min(ejectFirst<<o.times, ejectLast)
	}
	o.times++
	o.inARow.Store(0)
	o.troubled.Store(false)
	o.until.Store(now + int64(d))
}

// release takes the endpoint in again.
func (o *outlier) release(now int64) {
	o.judging.Lock()
	defer o.judging.Unlock()
	o.until.Store(0)
	o.dials.Store(0)
	o.released = now
}

// judge tells the endpoint of the attempt how it did.
func (x *exchange) judge(o outcome, took time.Duration, now int64) conduct {
	e := x.place.endpoint
	trial := x.trial
	x.trial = false
	c := x.verdictOn(o, took)
	switch c {
	case didWell:
		if trial {
			e.forget()
		}
		if !x.dialed {
			e.answered(took, now)
		}
		e.well(now)
		if trial {
			e.release(now)
			e.since.Store(now) // it is warmed up like a new one
		}
	case didBadly:
		e.latency.failed(took, now)
		if trial || e.fault(now) && x.outlies(now) {
			e.eject(now)
			x.decide(fleet.Ejecting)
		}
	}
	if trial {
		e.trying.Store(false)
	}
	return c
}

// conduct is what an attempt says of the endpoint.
type conduct uint8

const (
	neither conduct = iota
	didWell
	didBadly
)

// verdictOn weighs an attempt. What the caller, or the time that it gave, is to blame for says nothing.
func (x *exchange) verdictOn(o outcome, took time.Duration) conduct {
	switch o.reason {
	case "":
		if x.faulty() {
			return didBadly
		}
		return didWell
	case fleet.ReasonUpstreamReset:
		if o.stale || o.unseen || o.way {
			return neither
		}
		return didBadly
	case fleet.ReasonUpstreamMalformed:
		return didBadly
	case fleet.ReasonTimeout:
		if took > slowEnough*x.place.limiter.usual() {
			return didBadly
		}
	case fleet.ReasonCallerGone:
		if now := x.at(); float64(took) > x.place.expected(now) {
			x.place.answered(took, now) // it takes at least that long
		}
	}
	return neither
}

// slowEnough: an attempt that its deadline ended counts against the endpoint if it got so many times what
// an answer usually takes. A caller that is content with less does not get anybody ejected.
const slowEnough = 4

// faulty reports whether the answer says that its server failed. 501 and UNIMPLEMENTED are about the
// request; every other server would say the same.
func (x *exchange) faulty() bool {
	if x.obs.Protocol == fleet.GRPC && x.obs.GRPCStatus != 0 {
		return fleet.GRPCFault(x.obs.GRPCStatus) && x.obs.GRPCStatus != grpcUnimplemented
	}
	return x.obs.Status >= 500 && x.obs.Status != 501
}

const grpcUnimplemented = 12

// outlies reports whether others of the callee's places are better than x.place, and enough of them are
// left: at most half are ejected for their answers.
func (x *exchange) outlies(now int64) bool {
	serving, out, better := 0, 0, false
	for _, pl := range x.route.places {
		if !pl.reachable() {
			continue
		}
		serving++
		switch {
		case pl.endpoint == x.place.endpoint:
		case pl.until.Load() != 0:
			out++
		case 2*pl.inARow.Load() < outlierInARow:
			better = true
		}
	}
	return better && 2*(out+1) <= serving
}

func (x *exchange) decide(d fleet.Decisions) { x.obs.Decisions |= d }
