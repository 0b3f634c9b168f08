package fleet

import "time"

// Kind says what an observation is of.
type Kind string

// The kinds of [Observation].
const (
	KindCall     Kind = "call"     // an HTTP or gRPC exchange
	KindStream   Kind = "stream"   // a TCP connection, an upgrade or a CONNECT
	KindEgress   Kind = "egress"   // a connection to something outside the fleet
	KindDelivery Kind = "delivery" // the broker's view of one delivery attempt
	KindMirror   Kind = "mirror"   // a copy of a call, which a route sends to another service
	KindPublish  Kind = "publish"  // a message accepted or refused by the broker
)

// Observation is what the data path saw of one call or one delivery.
type Observation struct {
	Kind      Kind          `json:"kind"`
	RequestID string        `json:"request_id"`
	Time      time.Time     `json:"time"`
	Duration  time.Duration `json:"duration_ns"`

	// The span of this exchange, in the trace that it is part of. SpanID is zero where somebody else makes the
	// span: of the callee's half of a call between nodes.
	TraceID  TraceID `json:"trace_id,omitzero"`
	SpanID   SpanID  `json:"span_id,omitzero"`
	ParentID SpanID  `json:"parent_span_id,omitzero"` // of who asked; zero where the trace begins here
	LinkID   SpanID  `json:"link_span_id,omitzero"`   // of the same trace: the delivery attempt before this one, before a redrive, too
	Sampled  bool    `json:"sampled,omitempty"`       // spans of this trace are kept
	// TraceState is what tracing systems say to each other beside it (section 3.3), where it is sampled.
	TraceState string `json:"trace_state,omitempty"`

	Caller   string   `json:"caller"`
	From     string   `json:"caller_instance,omitempty"`
	Callee   string   `json:"callee"` // service, need (`orders.db`) or external HOST:PORT
	Protocol Protocol `json:"protocol"`
	Route    string   `json:"route,omitempty"` // the declared route that matched; `default` where none is
	Method   string   `json:"method,omitempty"`
	Path     string   `json:"path,omitempty"`
	Topic    string   `json:"topic,omitempty"`
	Event    string   `json:"event,omitempty"` // the id of the event that was published or delivered

	// Of a delivery: whose it is (SERVICE/TOPIC, or an API's id), its number, from 1, and how often its puller asked for more time.
	Subscription string `json:"subscription,omitempty"`
	Delivery     int32  `json:"delivery_attempt,omitempty"`
	Extended     int32  `json:"lease_extensions,omitempty"`

	Status     int    `json:"status,omitempty"`      // HTTP status; 0 where none was sent
	GRPCStatus int    `json:"grpc_status,omitempty"` // valid where Protocol is grpc
	BytesIn    int64  `json:"bytes_in,omitempty"`    // from the caller
	BytesOut   int64  `json:"bytes_out,omitempty"`   // to the caller
	Reason     string `json:"reason,omitempty"`      // why it was refused or failed: one of the Reason values
	Detail     string `json:"detail,omitempty"`      // a sentence: what failed and what to do next

	// Fault says what an operator's fault did to it: `f3: delay 2s`; empty where none met it.
	Fault string `json:"fault,omitempty"`

	// Permission says which declarations let it pass: `orders/shoal.yaml:7 calls payments`.
	Permission string `json:"permission,omitempty"`
	// InFlight is how many exchanges the callee had in progress from this process, this one included, when it
	// was let in; Limit is how many it may have. Both are 0 where no limit was asked.
	InFlight int `json:"in_flight,omitempty"`
	Limit    int `json:"limit,omitempty"`
	// Compared says, of a copy that was answered, how its answer differs from the original's.
	Compared *Compared `json:"compared,omitempty"`

	// Learned is the manifest line that this exchange lacked and that learning let pass.
	Learned *Learned `json:"learned,omitempty"`

	// Decisions are what the data path decided about this exchange, besides its outcome.
	Decisions Decisions `json:"decisions,omitzero"`
	// Queued is how long it stood in line because every instance had as much to do as its limit allows.
	Queued time.Duration `json:"queued_ns,omitempty"`

	Attempts []Attempt `json:"attempts,omitempty"`

	// Missed is, in a tap, how many observations before this one its reader was too slow for.
	Missed uint64 `json:"missed,omitempty"`
}

// Learned is one undeclared thing that was seen, and the manifest entry that would declare it.
type Learned struct {
	Service string `json:"service"`
	Section string `json:"section"` // `calls`, `egress`, `publishes`, `subscribes`
	Entry   string `json:"entry"`   // `payments`, `api.stripe.com:443`, `orders.placed`
}

// Failed reports whether the exchange counts as an error of the edge: refused, no answer, 5xx, or a gRPC
// status for which 5xx would stand. A delivery fails by each answer that does not acknowledge it.
func (o *Observation) Failed() bool {
	if o.Kind == KindDelivery && (o.Status >= 300 || o.GRPCStatus != 0) {
		return true
	}
	return o.Reason != "" || o.Status >= 500 || o.Protocol == GRPC && GRPCFault(o.GRPCStatus)
}

// GRPCFault reports whether a gRPC status code says that the server is at fault, as 5xx does in HTTP, and
// not the request: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS, as in
// OpenTelemetry's semantic conventions for gRPC servers, and what is no code at all.
func GRPCFault(code int) bool {
	switch code {
	case 2, 4, 12, 13, 14, 15:
		return true
	}
	return code < 0 || code > 16
}

// Compared is how the answer to a copy of a call compares with the answer that the caller got.
type Compared struct {
	With string `json:"with"` // the service that answered the caller
	// Differences are phrases, such as `status 500 instead of 200`; none where both are the same.
	Differences []string `json:"differences,omitempty"`
}

// Differs reports whether two answers were compared, and were not the same.
func (c *Compared) Differs() bool { return c != nil && len(c.Differences) > 0 }

// Attempt is one try at one endpoint.
type Attempt struct {
	Instance string        `json:"instance"`
	Start    time.Duration `json:"start_ns"` // since the observation's Time
	Duration time.Duration `json:"duration_ns"`
	Outcome  string        `json:"outcome"` // an HTTP status, or what went wrong
	// SpanID is the span that the application is told as its parent: the callee's half of this attempt, or the
	// exchange's own span where the callee has none.
	SpanID SpanID `json:"span_id,omitzero"`
}

// Unseen reports whether the application provably saw nothing of the attempt: no connection was made.
func (a *Attempt) Unseen() bool {
	return a.Outcome == string(ReasonConnectFailed) || a.Outcome == string(ReasonNoEndpoint)
}

// Reason is why Shoal itself ended or refused an exchange; the value of the `Shoal-Reason` header.
type Reason string

// Reasons. They are stable: tools match on them.
const (
	ReasonUndeclaredCall    Reason = "undeclared-call"    // the caller's manifest lacks the call
	ReasonNotAllowed        Reason = "not-allowed"        // the callee's `allow` does not name the caller
	ReasonUndeclaredEgress  Reason = "undeclared-egress"  // the caller's manifest lacks the egress
	ReasonUnboundNeed       Reason = "unbound-need"       // shoal.work binds the need to nothing
	ReasonUnknownService    Reason = "unknown-service"    // no service of that name is in the fleet
	ReasonNotRunning        Reason = "not-running"        // known, but not part of what was started
	ReasonUnknownPort       Reason = "unknown-port"       // the callee does not listen there
	ReasonNotExposed        Reason = "not-exposed"        // no service answers for that host at the gateway
	ReasonNoEndpoint        Reason = "no-endpoint"        // no instance became ready in time
	ReasonConnectFailed     Reason = "connect-failed"     // no instance accepted a connection
	ReasonTimeout           Reason = "timeout"            // the call's deadline passed
	ReasonOverloaded        Reason = "overloaded"         // the callee has as many exchanges in progress as its limit
	ReasonUpstreamReset     Reason = "upstream-reset"     // the instance closed without a full answer
	ReasonUpstreamMalformed Reason = "upstream-malformed" // the instance answered what is not HTTP
	ReasonMalformed         Reason = "malformed-request"  // the caller sent what is not HTTP
	ReasonTooLarge          Reason = "too-large"          // a head or a message over its limit
	ReasonTooSlow           Reason = "too-slow"           // a head or a body that came too slowly, or an answer that was not taken
	ReasonCallerGone        Reason = "caller-gone"        // the caller left before the answer
	ReasonUndeclaredTopic   Reason = "undeclared-topic"   // publish without `publishes`
	ReasonMalformedEvent    Reason = "malformed-event"    // a publish that is no CloudEvent
	ReasonUnknownCaller     Reason = "unknown-caller"     // a call or a publish by what is no service of the fleet
	ReasonStorageFull       Reason = "storage-full"       // a quota or the disk is full: the event was not accepted
	ReasonStorageFailed     Reason = "storage-failed"     // the broker cannot write: the event was not accepted
	ReasonRateLimited       Reason = "rate-limited"       // the callee's `rate` is used up, or the caller's fair share of it
	ReasonFaultInjected     Reason = "fault-injected"     // an operator's fault ended it: nothing is broken
	ReasonMeshTLS           Reason = "tls-to-mesh-name"   // TLS to a service's name; the mesh encrypts, call http
	ReasonUDP               Reason = "udp"                // UDP other than DNS
	ReasonNacked            Reason = "nacked"             // a puller gave the message back
	ReasonTakenBack         Reason = "taken-back"         // an earlier message of its ordering key failed, and it comes again after that one
)

// EdgeStats are the totals of one edge: caller, callee, route and protocol.
type EdgeStats struct {
	From     string        `json:"from"`
	To       string        `json:"to"`
	Route    string        `json:"route"`
	Protocol Protocol      `json:"protocol"`
	Requests uint64        `json:"requests"`
	Errors   uint64        `json:"errors"`
	P50      time.Duration `json:"p50_ns"`
	P99      time.Duration `json:"p99_ns"`
}
