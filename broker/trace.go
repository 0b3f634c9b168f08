package broker

import (
	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
)

// traceSpan is the part that one publish, or one delivery attempt, has in a trace.
type traceSpan struct {
	observe.Trace
	id    fleet.SpanID
	link  fleet.SpanID // of the same trace; zero: none
	state string       // the trace's tracestate
}

// The extension attributes of CloudEvents' Distributed Tracing
// (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/extensions/distributed-tracing.md).
const traceparent, tracestate = "traceparent", "tracestate"

// publishSpan makes the publish of e a span, which its deliveries continue: of the trace that the event itself names,
// since that is where it was made, else of the request's, else of a new one. Afterwards e.Traceparent is that span's.
// The attributes tell receivers where the event comes from; what a publisher set stays as it is.
func (e *Event) publishSpan(begin *observe.Sampler) traceSpan {
	request, asked := observe.ParseTraceparent(e.Traceparent)
	own, named := observe.ParseTraceparent(e.Attributes[traceparent])
	s := traceSpan{id: observe.NewSpanID()}
	switch {
	case named:
		s.Trace, e.Tracestate = own, e.Attributes[tracestate]
		if asked && request.ID == own.ID && request.Parent != own.Parent {
			s.link = request.Parent
		}
	case asked:
		s.Trace = request
	default:
		s.Trace, e.Tracestate = begin.Begin(), ""
	}
	if _, ok := observe.CheckTracestate(e.Tracestate, 0); !ok {
		e.Tracestate = ""
	}
	e.Traceparent, s.state = s.traceparent(), e.Tracestate
	if _, given := e.Attributes[traceparent]; !given {
		e.set(traceparent, e.Traceparent)
		if _, given := e.Attributes[tracestate]; !given && e.Tracestate != "" {
			e.set(tracestate, e.Tracestate)
		}
	}
	return s
}

// ClientTraceparent and ClientTracestate are the attributes by which Pub/Sub's official clients carry a trace.
const ClientTraceparent, ClientTracestate = clientPrefix + traceparent, clientPrefix + tracestate

// messageSpan makes the publish of a message that is no CloudEvent a span: of the trace that its client put into the
// attributes, or the CloudEvent that it is by the Pub/Sub binding, else of the request's, else of a new one. The attributes stay as they are.
func (r *record) messageSpan(begin *observe.Sampler) traceSpan {
	s := traceSpan{id: observe.NewSpanID()}
	own, named := observe.ParseTraceparent(r.Attributes[ClientTraceparent])
	state := r.Attributes[ClientTracestate]
	if !named {
		own, named = observe.ParseTraceparent(r.Attributes[cePrefix+traceparent])
		state = r.Attributes[cePrefix+tracestate]
	}
	request, asked := observe.ParseTraceparent(r.Traceparent)
	switch {
	case named:
		s.Trace, r.Tracestate = own, state
		if asked && request.ID == own.ID && request.Parent != own.Parent {
			s.link = request.Parent
		}
	case asked:
		s.Trace = request
	default:
		s.Trace, r.Tracestate = begin.Begin(), ""
	}
	if _, ok := observe.CheckTracestate(r.Tracestate, 0); !ok {
		r.Tracestate = ""
	}
	r.Traceparent, s.state = s.traceparent(), r.Tracestate
	return s
}

// deliverySpan makes one attempt to deliver r a span beneath its publish, with a link to the attempt before, which may have been
// before it was redriven.
func (r *record) deliverySpan(begin *observe.Sampler, before fleet.SpanID) traceSpan {
	set(&before, r.link)
	t, ok := observe.ParseTraceparent(r.Traceparent)
	if !ok { // what an older hub stored
		t = begin.Begin()
	}
	return traceSpan{Trace: t, id: observe.NewSpanID(), link: before, state: r.Tracestate}
}

func (s *traceSpan) traceparent() string {
	var text [observe.TraceparentSize]byte
	return string(observe.AppendTraceparent(text[:0], s.ID, s.id, s.Sampled))
}

// note puts the span into a record.
func (s *traceSpan) note(o *fleet.Observation) {
	o.TraceID, o.SpanID, o.ParentID, o.LinkID, o.Sampled = s.ID, s.id, s.Parent, s.link, s.Sampled
	if s.Sampled {
		o.TraceState = s.state
	}
}
