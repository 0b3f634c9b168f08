package proxy

import (
	"strconv"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/wire/h2"
)

// refuse answers with the refusal: a gRPC call by a status, as its clients expect (gRPC over HTTP2,
// "Responses"), any other request by a page of text.
func (s *http2Stream) refuse(b *h2.Batch) {
	f := s.refusal
	switch {
	case s.left():
		return
	case s.grpc:
		s.refuseGRPC(b, f)
	case s.begun && s.deaf.Load():
		s.down.Reset(b, h2.EnhanceYourCalm)
	case s.begun:
		s.down.Reset(b, h2.InternalError)
	default:
		s.refuseHTTP(b, f)
	}
}

func (s *http2Stream) refuseGRPC(b *h2.Batch, f *refusal) {
	s.obs.GRPCStatus = f.grpcStatus()
	status := []h2.Field{
		{Name: "grpc-status", Value: strconv.Itoa(f.grpcStatus())},
		{Name: "grpc-message", Value: percent(f.message())},
	}
	if f.retry > 0 {
		status = append(status, h2.Field{Name: "grpc-retry-pushback-ms", Value: f.pushback()})
	}
	h := &h2.Head{Fields: status}
	if !s.begun {
		s.obs.Status = 200
		h = &h2.Head{Status: 200, Fields: append(status, h2.Field{Name: "content-type", Value: "application/grpc"},
			h2.Field{Name: "shoal-reason", Value: string(f.reason)}, h2.Field{Name: "x-request-id", Value: s.obs.RequestID})}
	}
	_ = s.down.SendHead(b, h, true) // a caller that is gone needs no answer
}

func (s *http2Stream) refuseHTTP(b *h2.Batch, f *refusal) {
	body := f.body(s.obs.RequestID)
	s.obs.Status = f.status
	h := &h2.Head{Status: f.status, Fields: []h2.Field{
		{Name: "content-type", Value: "text/plain; charset=utf-8"},
		{Name: "content-length", Value: strconv.Itoa(len(body))},
		{Name: "shoal-reason", Value: string(f.reason)},
		{Name: "x-request-id", Value: s.obs.RequestID},
	}}
	if f.retry > 0 {
		h.Fields = append(h.Fields, h2.Field{Name: "retry-after", Value: f.retryAfter()})
	}
	if s.obs.Method == "HEAD" {
		_ = s.down.SendHead(b, h, true)
		return
	}
	if s.down.SendHead(b, h, false) == nil {
		s.down.Finish(b, []byte(body))
	}
	s.obs.BytesOut += int64(len(body))
}

// reject answers a request whose header list is over a limit, and records it; what of it is known is in the
// stream's Head, unchecked.
func (c *http2Session) reject(st *h2.Stream, b *h2.Batch, why, limit string) {
	s := &http2Stream{session: c, down: st}
	x := &s.exchange
	x.begin(c.p, c.from.source, &s.away)
	x.obs.Protocol, x.obs.Kind, x.obs.Callee, x.obs.Route = fleet.HTTP, fleet.KindCall, c.target.String(), fleet.DefaultRoute
	id := ""
	for _, f := range st.Head().Fields {
		switch f.Name {
		case ":method":
			x.obs.Method = f.Value
		case ":path":
			x.obs.Path = f.Value
		case "content-type":
			s.grpc = isGRPC(f.Value)
		case "x-request-id":
			id = f.Value
		}
	}
	x.requestID([]byte(id))
	x.trace(observe.Trace{}, false)
	x.refusal = overLimit(431, why, limit)
	s.refuse(b)
	x.obs.Reason, x.obs.Detail = string(x.refusal.reason), x.refusal.text()
	x.obs.Duration = time.Since(x.obs.Time)
	c.p.cfg.Recorder.Record(&x.obs)
	st.Release(b)
}

// terminable refuses a stream on a connection that was taken apart only to be refused, once a new table
// lets it pass: what leads outside the fleet passes as it is.
func (x *exchange) terminable() bool {
	if x.route.port.Protocol != fleet.TCP {
		return true
	}
	return x.refuse(&refusal{
		status: 503, reason: fleet.ReasonConnectFailed,
		detail: "this connection was refused before; a new one will pass.",
	})
}

// wantsHTTP2 is the refusal for HTTP/1.1 to a port of gRPC.
func wantsHTTP2(r *route) *refusal {
	return &refusal{
		status: 502, reason: fleet.ReasonMalformed,
		detail: r.callee + " was called with HTTP/1.1 on port " + strconv.Itoa(int(r.port.Number)) + ", which speaks gRPC, over HTTP/2 only.",
		remedy: "Call it with a gRPC client, or declare the port as `http` in " + file(r.service, r.callee) + ".",
	}
}
