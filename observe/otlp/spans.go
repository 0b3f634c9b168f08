package otlp

import (
	"cmp"
	"strconv"
	"strings"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/shoalrun/shoal/fleet"
)

// batch gathers spans by the service and instance whose they are.
type batch struct {
	fleet, node string
	scope       *commonpb.InstrumentationScope
	by          map[resource]*tracepb.ScopeSpans
	spans       int
}

type resource struct{ service, instance string }

// scopeName names the code that made a span.
const scopeName = "github.com/shoalrun/shoal"

func (e *Exporter) newBatch() *batch {
	return &batch{
		fleet: e.c.Fleet, node: e.c.Node, by: map[resource]*tracepb.ScopeSpans{},
		scope: &commonpb.InstrumentationScope{Name: scopeName, Version: e.c.Version},
	}
}

func (b *batch) message() *tracepb.TracesData {
	m := &tracepb.TracesData{}
	for r, spans := range b.by {
		of := &resourcepb.Resource{Attributes: []*commonpb.KeyValue{
			text("service.name", r.service), text("service.namespace", b.fleet), text("shoal.node", b.node),
		}}
		if r.instance != "" {
			of.Attributes = append(of.Attributes, text("service.instance.id", r.instance))
		}
		m.ResourceSpans = append(m.ResourceSpans, &tracepb.ResourceSpans{Resource: of, ScopeSpans: []*tracepb.ScopeSpans{spans}})
	}
	return m
}

func (b *batch) put(r resource, s *tracepb.Span) {
	spans := b.by[r]
	if spans == nil {
		spans = &tracepb.ScopeSpans{Scope: b.scope}
		b.by[r] = spans
	}
	spans.Spans = append(spans.Spans, s)
	b.spans++
}

// add makes the spans of one record. The data path sees both halves of a call, so both come from here: the caller's
// as one span for the whole call, and beneath it one for each attempt, which is the callee's where the attempt
// reached it.
func (b *batch) add(o *fleet.Observation) {
	own := b.span(o, o.SpanID, o.ParentID, 0, o.Duration)
	own.Kind = kindOf(o)
	own.Attributes = append(own.Attributes, whole(o)...)
	own.Status = statusOf(o, own.Kind, o.Status, o.Reason)
	if o.LinkID != (fleet.SpanID{}) {
		own.Links = []*tracepb.Span_Link{{TraceId: o.TraceID[:], SpanId: o.LinkID[:]}}
	}
	b.put(callerOf(o), own)
	for i := range o.Attempts {
		if a := &o.Attempts[i]; a.SpanID != (fleet.SpanID{}) && a.SpanID != o.SpanID {
			b.attempt(o, a, i, i == len(o.Attempts)-1)
		}
	}
}

func (b *batch) attempt(o *fleet.Observation, a *fleet.Attempt, n int, last bool) {
	s := b.span(o, a.SpanID, o.SpanID, a.Start, a.Duration)
	s.Kind = tracepb.Span_SPAN_KIND_SERVER
	of := resource{o.Callee, a.Instance}
	if a.Unseen() {
		s.Kind, of = tracepb.Span_SPAN_KIND_CLIENT, callerOf(o)
		s.Attributes = append(s.Attributes, text("server.address", o.Callee), text("shoal.instance", a.Instance))
	}
	if n > 0 {
		s.Attributes = append(s.Attributes, number("http.request.resend_count", int64(n)))
	}
	status, failure := 0, a.Outcome
	if code, err := strconv.Atoi(a.Outcome); err == nil {
		status, failure = code, ""
	}
	if a.Outcome == "closed" || a.Outcome == "cancelled" {
		failure = "" // a tunnel that did its work; a hedge whose rival was faster
	}
	s.Attributes = append(s.Attributes, answered(o, status, failure, last)...)
	s.Status = statusOf(o, s.Kind, status, failure)
	b.put(of, s)
}

// span has what the spans of a record have in common.
func (b *batch) span(o *fleet.Observation, id, parent fleet.SpanID, after, took time.Duration) *tracepb.Span {
	start := o.Time.Add(after)
	s := &tracepb.Span{
		TraceId: o.TraceID[:], SpanId: id[:], TraceState: o.TraceState, Name: nameOf(o), Flags: 1, // sampled
		StartTimeUnixNano: uint64(start.UnixNano()), EndTimeUnixNano: uint64(start.Add(max(took, 0)).UnixNano()),
	}
	if parent != (fleet.SpanID{}) {
		s.ParentSpanId = parent[:]
	}
	s.Attributes = asked(o)
	return s
}

// callerOf is whose the first span of a record is: of an event, the broker's.
func callerOf(o *fleet.Observation) resource {
	if o.Kind == fleet.KindPublish {
		return resource{service: fleet.Events}
	}
	return resource{o.Caller, o.From}
}

func kindOf(o *fleet.Observation) tracepb.Span_SpanKind {
	switch {
	case o.Kind == fleet.KindPublish:
		return tracepb.Span_SPAN_KIND_PRODUCER
	case o.Kind == fleet.KindDelivery:
		return tracepb.Span_SPAN_KIND_CONSUMER
	case o.Caller == fleet.Gateway:
		return tracepb.Span_SPAN_KIND_SERVER // whom it serves is outside the fleet
	}
	return tracepb.Span_SPAN_KIND_CLIENT
}

// nameOf follows the semantic conventions: low in cardinality, so never a path.
func nameOf(o *fleet.Observation) string {
	switch {
	case o.Topic != "":
		return operation(o) + " " + o.Topic
	case o.Protocol == fleet.GRPC && len(o.Path) > 1:
		return o.Path[1:]
	case o.Method == "":
		return string(cmp.Or(o.Protocol, fleet.TCP))
	case o.Route != "" && o.Route != fleet.DefaultRoute:
		return method(o) + " " + o.Route
	}
	return method(o)
}

func operation(o *fleet.Observation) string {
	if o.Kind == fleet.KindDelivery {
		return "deliver"
	}
	return "publish"
}

// method is that of the conventions, which know a fixed set.
func method(o *fleet.Observation) string {
	switch o.Method {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH":
		return o.Method
	}
	return "_OTHER"
}

// asked are the attributes of the request, by the conventions for HTTP, RPC and messaging
// (https://opentelemetry.io/docs/specs/semconv/). A query is left out: it may hold what is nobody's business.
func asked(o *fleet.Observation) []*commonpb.KeyValue {
	all := []*commonpb.KeyValue{text("shoal.request_id", o.RequestID)}
	path, _, _ := strings.Cut(o.Path, "?")
	if o.Method != "" {
		all = append(all, text("http.request.method", method(o)), text("url.path", path), text("url.scheme", "http"))
		if method(o) == "_OTHER" {
			all = append(all, text("http.request.method_original", o.Method))
		}
	}
	if service, call, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/"); ok && o.Protocol == fleet.GRPC {
		all = append(all, text("rpc.system", "grpc"), text("rpc.service", service), text("rpc.method", call))
	}
	return all
}

// whole are the attributes that only the first span of a record has.
func whole(o *fleet.Observation) []*commonpb.KeyValue {
	all := answered(o, o.Status, o.Reason, true)
	if o.Caller != fleet.Gateway {
		all = append(all, text("server.address", o.Callee))
	}
	all = append(all, number("shoal.attempts", int64(len(o.Attempts))))
	for name, value := range map[string]string{
		"shoal.route": o.Route, "shoal.permission": o.Permission, "shoal.detail": o.Detail, "shoal.fault": o.Fault,
	} {
		if value != "" {
			all = append(all, text(name, value))
		}
	}
	if o.BytesIn > 0 && o.Method != "" {
		all = append(all, number("http.request.size", o.BytesIn))
	}
	if o.BytesOut > 0 && o.Method != "" {
		all = append(all, number("http.response.size", o.BytesOut))
	}
	if o.Topic == "" {
		return all
	}
	all = append(all, text("messaging.system", "shoal"), text("messaging.destination.name", o.Topic),
		text("messaging.operation.name", operation(o)), text("messaging.message.id", o.Event), number("messaging.message.body.size", o.BytesIn+o.BytesOut))
	if o.Kind == fleet.KindDelivery {
		return append(all, text("messaging.operation.type", "process"), text("messaging.destination.subscription.name", o.Subscription),
			text("messaging.client.id", o.Callee), number("shoal.delivery_attempt", int64(o.Delivery)), number("shoal.lease_extensions", int64(o.Extended)))
	}
	return append(all, text("messaging.operation.type", "send"), text("messaging.client.id", o.Caller))
}

// answered are the attributes of an answer. The status of a gRPC call is its last attempt's.
func answered(o *fleet.Observation, status int, failure string, last bool) []*commonpb.KeyValue {
	var all []*commonpb.KeyValue
	if status != 0 {
		all = append(all, number("http.response.status_code", int64(status)))
	}
	if o.Protocol == fleet.GRPC && o.Kind == fleet.KindCall && last {
		all = append(all, number("rpc.grpc.status_code", int64(o.GRPCStatus)))
	}
	if failure != "" {
		all = append(all, text("shoal.reason", failure))
	}
	switch {
	case failure != "":
		all = append(all, text("error.type", failure))
	case o.Protocol == fleet.GRPC && o.GRPCStatus != 0 && last:
		all = append(all, text("error.type", strconv.Itoa(o.GRPCStatus)))
	case status >= 500:
		all = append(all, text("error.type", strconv.Itoa(status)))
	}
	return all
}

// statusOf: what is an error to a client may be the server's right answer, 404 for one, or NOT_FOUND.
func statusOf(o *fleet.Observation, kind tracepb.Span_SpanKind, status int, failure string) *tracepb.Status {
	client := kind == tracepb.Span_SPAN_KIND_CLIENT
	failed := failure != "" || status >= 500 || status >= 400 && client
	if o.Protocol == fleet.GRPC && o.GRPCStatus != 0 {
		failed = failed || client || fleet.GRPCFault(o.GRPCStatus)
	}
	if !failed {
		return nil
	}
	line, _, _ := strings.Cut(o.Detail, "\n")
	return &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: line}
}

func text(key, value string) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_StringValue{StringValue: strings.ToValidUTF8(value, "\ufffd")}}}
}

func number(key string, value int64) *commonpb.KeyValue {
	return &commonpb.KeyValue{Key: key, Value: &commonpb.AnyValue{Value: &commonpb.AnyValue_IntValue{IntValue: value}}}
}
