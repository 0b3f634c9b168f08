package proxy

import (
	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
)

// traceFields gathers what the fields of a request say of its trace (W3C Trace Context, section 4.3).
type traceFields struct {
	came    observe.Trace
	valid   bool
	parents int
	members int
	bad     bool // the tracestate is no list of members, or too long
	states  bool
	list    string
}

// parent takes a traceparent. A request has one at most: of two, neither is to be believed.
func (t *traceFields) parent(v string) {
	t.parents++
	t.came, t.valid = observe.ParseTraceparent(v)
}

// state takes one of the tracestate fields, which count as one list.
func (t *traceFields) state(v string) {
	ok := true
	t.members, ok = observe.CheckTracestate(v, t.members)
	if t.states {
		v = t.list + "," + v
	}
	t.states, t.bad, t.list = true, t.bad || !ok, v
}

func (t *traceFields) trace() (came observe.Trace, valid bool) {
	return t.came, t.valid && t.parents == 1
}

// dropsState: a tracestate without a valid traceparent means nothing, and one that is malformed goes alone
// (section 3.3.1).
func (t *traceFields) dropsState() bool {
	return t.states && (t.bad || !t.valid || t.parents != 1)
}

// noteState keeps the list for spans, if there will be any; it is a view of the fields.
func (t *traceFields) noteState(o *fleet.Observation) {
	if o.Sampled && t.states {
		o.TraceState = t.list
	}
}
