package proxy

import (
	"cmp"
	"context"
	mrand "math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
)

// exchange is one call on its way through the proxy, whatever protocol carries it: a request and its
// answer, an HTTP/2 stream, a tunnel. Its owner may use it again and again; begin resets it.
type exchange struct {
	p      *Proxy
	table  *table
	source Source
	route  *route
	place  *place // chosen for the attempt in progress
	gone   *atomic.Bool
	ctx    context.Context // of a copy, for what it waits for; nil: the proxy's
	// stalled: the caller is gone, in that it took nothing of its answer for too long; nil: nobody looks.
	stalled *atomic.Bool

	obs      fleet.Observation // strings in it may be views of a buffer until it is recorded
	deadline time.Time         // zero: none
	refusal  *refusal          // why it ended without an answer
	digest   *digest           // of its answer, where that is compared; nil: it is not
	original *copied           // what it is a copy of; nil: of nothing
	peer     bool              // a peer asks for a caller of its own, and counts the call itself

	idempotent bool          // RFC 9110 section 9.2.2, or an Idempotency-Key
	replayable bool          // the whole request is still here
	counted    bool          // in the callee's load
	fresh      bool          // no kept-alive connection for the next attempt
	working    bool          // in place's work
	dialed     bool          // for the attempt in progress, whose time says little about the place
	full       bool          // the last choice found only places that are full
	desperate  bool          // the last choice was between places that are not well, or had no alternative
	trial      bool          // place is ejected, and this exchange finds out whether it is well again
	asks       time.Duration // the timeout that the caller passed on; 0: none
	key        uint64        // of the policy hash; 0: none
	interims   int           // answers of 1xx that came
	seen       int           // tries that an application may have seen
	waited     time.Duration
	headAfter  time.Duration // of the last attempt, where the body took its own time; 0: as long as all
	avoid      [4]*endpoint  // places that failed this exchange
	avoided    int
	tries      int
	current    int // of attempts: the one in progress
	attempts   [maxAttempts]fleet.Attempt
	id         [idSize]byte
	generated  [ulidSize]byte
	parent     [observe.TraceparentSize]byte // what the application is told, where its protocol wants a string
}

// stream is an exchange as the codec of its protocol holds it. HTTP/1.1 requests, HTTP/2 streams and
// tunnels are streams.
type stream interface {
	// forward takes the request to x.place and the answer to the caller, as far as both go.
	forward(x *exchange) outcome
	// refuse answers with x.refusal in the protocol's own words, if nothing was answered yet.
	refuse(x *exchange)
	fields
}

// outcome is how one attempt ended. Its zero value is an answer, given whole.
type outcome struct {
	reason fleet.Reason
	detail string // what the callee did: `closed the connection without an answer`
	unseen bool   // the application provably saw nothing of the request
	way    bool   // the way to the instance's node broke, which says nothing against the instance
	stale  bool   // it went out on a kept-alive connection
	begun  bool   // part of an answer is with the caller: nothing else can be said
	repeat bool   // an answer of which the caller has nothing, and another instance is to be asked
	final  *refusal
}

// call is the walk of a call, the first of the three: every exchange of every protocol takes it,
// from the head of its request to its record.
func (x *exchange) call(s stream) {
	if x.match(s) && x.authorize() && x.disturb() && x.limit() {
		for x.balance() {
			if o := s.forward(x); !x.retry(o) {
				break
			}
		}
	}
	if x.refusal != nil {
		s.refuse(x)
	}
	x.observe()
	x.mirror(s)
}

// begin resets x for a call of src.
func (x *exchange) begin(p *Proxy, src Source, gone *atomic.Bool) {
	x.p, x.source, x.gone = p, src, gone
	x.route, x.place, x.refusal, x.digest, x.original = nil, nil, nil, nil, nil
	x.idempotent, x.replayable, x.counted, x.peer, x.fresh = false, true, false, false, false
	x.working, x.full, x.trial, x.key, x.seen, x.asks = false, false, false, 0, 0, 0
	x.stalled, x.interims = nil, 0
	x.waited, x.headAfter, x.tries, x.avoided = 0, 0, 0, 0
	x.avoid = [len(x.avoid)]*endpoint{}
	x.deadline = time.Time{}
	x.table = p.table.Load()
	x.obs = fleet.Observation{Time: time.Now(), Caller: src.Service, From: src.Instance}
}

// match chooses among the routes that the callee declares. Its owner has set x.route to what the table
// knows of its caller calling its target, from the exchange before where that is still so.
func (x *exchange) match(f fields) bool {
	if x.route.choices != nil {
		x.route = x.route.choose(x, f)
	}
	r := x.route
	x.obs.Kind, x.obs.Callee, x.obs.Protocol, x.obs.Route = r.kind, r.callee, r.port.Protocol, r.name
	x.obs.Learned, x.obs.Permission = r.learned, r.permission
	if r.key != nil {
		x.key = keyIn(r.key, f)
	}
	x.watch()
	if r.timeout > 0 {
		x.deadline = x.obs.Time.Add(r.timeout)
	}
	if x.asks > 0 && !r.endless {
		x.endBy(x.obs.Time.Add(x.asks))
	}
	if r.handed != nil && r.refusal == nil && !r.handed.matches(x.obs.Method, pathOf(x.obs.Path), f) {
		return x.refuse(notHandedOver(r.asked))
	}
	return true
}

// authorize lets pass what the caller declared and the callee allows.
func (x *exchange) authorize() bool {
	r := x.route
	if r.refusal != nil {
		return x.refuse(r.refusal)
	}
	for i := range r.rules {
		if a := &r.rules[i]; !a.admits(x.obs.Method, x.obs.Path) {
			return x.refuse(a.denies(x))
		}
	}
	return true
}

// limit keeps to the rate that the callee declares, and keeps one slow callee from taking everything
// that this process has.
func (x *exchange) limit() bool {
	if !x.affordable() {
		return false
	}
	x.counted = true
	n := x.route.load.traffic.begin()
	x.obs.InFlight, x.obs.Limit = int(n), x.p.cfg.MaxInFlight
	if n > int64(x.p.cfg.MaxInFlight) {
		return x.refuse(tooBusy(x.route.callee, x.p.cfg.MaxInFlight))
	}
	return true
}

// observe counts the exchange on its edge and keeps a record of it.
func (x *exchange) observe() {
	r := x.route
	if x.counted {
		r.load.traffic.end()
	}
	if f := x.refusal; f != nil {
		x.obs.Duration = time.Since(x.obs.Time)
		x.obs.Reason, x.obs.Detail = string(f.reason), f.text()
	}
	x.compare()
	x.obs.Attempts = x.attempts[:min(x.tries, maxAttempts)]
	failed := x.obs.Failed()
	if x.peer && (!failed || x.unreached()) {
		return
	}
	if x.peer {
		x.obs.SpanID = fleet.SpanID{} // who called makes the spans of both halves
	}
	if !x.peer {
		r.edge.Done(x.obs.Duration, failed)
	}
	x.p.cfg.Recorder.Record(&x.obs)
}

// unreached: the peer that called goes on trying, and records how that ends.
func (x *exchange) unreached() bool {
	return x.refusal != nil && x.refusal.reason == fleet.ReasonNoEndpoint
}

func (x *exchange) refuse(f *refusal) bool {
	x.refusal = f
	return false
}

// left reports whether the caller has gone.
func (x *exchange) left() bool { return x.gone != nil && x.gone.Load() }

// context bounds what x waits for that is no read: a dial.
func (x *exchange) context(limit time.Duration) (context.Context, context.CancelFunc) {
	until := time.Now().Add(limit)
	if !x.deadline.IsZero() && x.deadline.Before(until) {
		until = x.deadline
	}
	return context.WithDeadline(cmp.Or(x.ctx, x.p.ctx), until)
}

// attempt notes the beginning of a try at x.place.
func (x *exchange) attempt() {
	x.current = min(x.tries, maxAttempts-1)
	a := &x.attempts[x.current]
	x.tries++
	x.headAfter, x.dialed = 0, false
	*a = fleet.Attempt{Instance: x.place.instance, SpanID: x.calleeSpan()}
	if x.tries > 1 || x.waited > 0 || x.obs.Fault != "" {
		a.Start = time.Since(x.obs.Time)
	}
}

// calleeSpan is the span under which the application's own spans hang: one for each attempt, since each is
// another's work. What is outside the fleet has no half of its own here, and so no span but the call's; a
// peer was given the span of the attempt that it carries on.
func (x *exchange) calleeSpan() fleet.SpanID {
	switch {
	case x.peer:
		return x.obs.ParentID
	case x.route.service == nil && x.tries == 1:
		return x.obs.SpanID
	}
	return observe.NewSpanID()
}

// last is the attempt in progress.
func (x *exchange) last() *fleet.Attempt { return &x.attempts[x.current] }

// requestID keeps an id that came with the request, if it is one, and makes one otherwise. What it
// returns is valid while x is.
func (x *exchange) requestID(came []byte) {
	n := ulidSize
	if validID(came) {
		n = copy(x.id[:], came)
	} else {
		makeULID(&x.generated, x.obs.Time)
		copy(x.id[:], x.generated[:])
	}
	x.obs.RequestID = view(x.id[:n])
}

// trace continues the trace that the request's traceparent names, if it is a valid one, and begins one otherwise.
func (x *exchange) trace(came observe.Trace, valid bool) {
	if !valid {
		came = x.p.cfg.Sampler.Begin()
	}
	x.obs.TraceID, x.obs.ParentID, x.obs.Sampled = came.ID, came.Parent, came.Sampled
	x.obs.SpanID = observe.NewSpanID()
}

// appendTraceparent appends what the attempt in progress tells the application.
func (x *exchange) appendTraceparent(dst []byte) []byte {
	return observe.AppendTraceparent(dst, x.obs.TraceID, x.last().SpanID, x.obs.Sampled)
}

// idSize bounds the request ids that are kept.
const idSize = 64

func validID(id []byte) bool {
	if len(id) == 0 || len(id) > idSize {
		return false
	}
	for _, c := range id {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && c != '-' && c != '_' && c != '.' {
			return false
		}
	}
	return true
}

const (
	ulidSize  = 26
	crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
)

// makeULID writes a ULID (github.com/ulid/spec): 48 bits of milliseconds, 80 of chance. It names a
// request and guards nothing, so the runtime's generator serves.
func makeULID(id *[ulidSize]byte, t time.Time) {
	ms := uint64(t.UnixMilli())
	high, low := mrand.Uint64(), mrand.Uint64()
	for i := 9; i >= 0; i-- {
		id[i] = crockford[ms&31]
		ms >>= 5
	}
	for i := 10; i < 18; i++ {
		id[i] = crockford[high&31]
		high >>= 5
	}
	for i := 18; i < ulidSize; i++ {
		id[i] = crockford[low&31]
		low >>= 5
	}
}

// view returns b as a string without a copy: for what is only looked at while b stays as it is.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// statusText holds the outcomes of attempts that were answered, ready made.
var statusText = makeStatusText()

func makeStatusText() (t [600]string) {
	for i := range t {
		t[i] = strconv.Itoa(i)
	}
	t[0] = "closed" // a tunnel that did its work
	return t
}

func outcomeOf(status int) string {
	if status < len(statusText) {
		return statusText[status]
	}
	return strconv.Itoa(status)
}
