package proxy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h2"
)

// upload moves the request's body on. Until an answer comes it is kept, up to Config.MaxReplay, so that
// it can be sent again.
func (s *http2Stream) upload(b *h2.Batch, data []byte, end bool) {
	if s.ended {
		return
	}
	if !s.replayable && s.sent == len(s.replay) {
		s.down.Forward(b, s.up, data, end)
		return
	}
	s.down.Keep(data, end)
	if s.replayable {
		s.absorb(b)
	}
	whole := s.replayable && s.down.Ended() && s.down.Trailers() == nil
	if s.sent < len(s.replay) || whole {
		n, err := s.up.SendData(b, s.replay[s.sent:], whole)
		if err != nil {
			return // the endpoint's own event says why
		}
		if s.sent += n; s.sent < len(s.replay) {
			return
		}
		if whole {
			s.ended = true
			if s.overdue {
				s.lookAfter(0)
			}
			return
		}
	}
	if !s.replayable {
		s.down.Forward(b, s.up, nil, false)
	}
}

// absorb moves what was kept of the body into replay. A body that does not fit, or that has trailers,
// is not kept: this attempt is the last.
func (s *http2Stream) absorb(b *h2.Batch) {
	n := s.down.Buffered()
	if len(s.replay)+n > s.p.cfg.MaxReplay || s.down.Trailers() != nil {
		s.replayable = false
		return
	}
	at := len(s.replay)
	s.replay = append(s.replay, make([]byte, n)...)
	s.down.Take(b, s.replay[at:])
}

func (s *http2Stream) fromEndpoint(e h2.Event) {
	switch e.Kind {
	case h2.Headers:
		s.answer(e)
	case h2.Data, h2.Trailers:
		s.download(e)
	case h2.Writable:
		s.upload(e.Batch, nil, false)
	case h2.Closed:
		if s.answers { // all of the answer is here, so the rest of the request was not wanted
			return
		}
		if o := s.broken(e.Err); !s.survives(e.Batch, o) {
			s.settle(e.Batch, o)
		}
	}
}

// answer passes a head on.
func (s *http2Stream) answer(e h2.Event) {
	h := s.up.Head()
	if h.Status < 200 {
		if err := s.interim(); err != nil {
			s.settle(e.Batch, outcome{reason: fleet.ReasonUpstreamMalformed, detail: fmt.Sprintf("answered with more than %d interim answers (1xx)", maxInterim)})
			return
		}
		_ = s.down.SendHead(e.Batch, h, false) // a caller that is gone has its own event
		return
	}
	x := &s.exchange
	if o := s.peerRefusal(h); o.reason != "" {
		if !s.survives(e.Batch, o) {
			s.settle(e.Batch, o)
		}
		return
	}
	s.outrun(e.Batch)
	x.obs.Status = h.Status
	x.headAfter = time.Since(x.obs.Time) - x.last().Start
	if s.declined(h, e.End) {
		s.settle(e.Batch, outcome{repeat: true})
		return
	}
	s.begun, s.replayable = true, false
	if !s.lapse.IsZero() {
		s.lapse, s.until = time.Time{}, s.deadline
	}
	if s.grpc && !e.End {
		x.rest() // nothing tells a stream from a unary call, whose answer comes with its head
	}
	refused := x.obs.Reason != "" // by a peer, whose refusal may come at the deadline
	if !s.grpc && (h.Length < 0 || h.Length > bodyTimeout || refused) && x.obs.Method != "HEAD" {
		s.silence = true
		x.rest()
		s.arm(time.Now().Add(x.route.idle))
	}
	s.noteGRPC(h)
	if x.digest != nil {
		x.digest.http2(h)
	}
	if !x.place.peer() {
		hideInternalFields(h)
	}
	if err := s.down.SendHead(e.Batch, s.told(h), e.End); err != nil {
		return
	}
	if e.End {
		s.settle(e.Batch, outcome{})
	}
}

// told is an answer's head as the caller is to see it: with the request's id, where the listener tells it.
func (s *http2Stream) told(h *h2.Head) *h2.Head {
	if !s.session.from.tellsID || h.Get("x-request-id") != "" {
		return h
	}
	s.back = append(append(s.back[:0], h.Fields...), h2.Field{Name: "x-request-id", Value: s.obs.RequestID, Sensitive: true})
	s.reply = h2.Head{Status: h.Status, Length: h.Length, Fields: s.back}
	return &s.reply
}

// declined reports whether the answer says that the instance is unavailable, and another one is asked
// instead. Of gRPC that is a status without anything before it; a server's own framework answers like
// that, but so can an application, so that only what may be repeated is.
func (s *http2Stream) declined(h *h2.Head, end bool) bool {
	if s.grpc {
		return end && h.Get("grpc-status") == "14" && s.unavailable(s.pushback(h))
	}
	return h.Status == 503 && s.unavailable(h.Get("retry-after"))
}

// pushback is for how many seconds the instance wants to be left alone, as of Retry-After: what
// grpc-retry-pushback-ms says goes before that. Of 0 it may be asked again at once; by what is negative, or no
// number, it says that it does not want to be (gRFC A6).
func (s *http2Stream) pushback(h *h2.Head) string {
	v := h.Get("grpc-retry-pushback-ms")
	if v == "" {
		return h.Get("retry-after")
	}
	ms, err := strconv.ParseInt(v, 10, 32)
	switch {
	case err != nil || ms < 0:
		s.replayable = false
		return ""
	case ms == 0:
		return ""
	}
	return strconv.FormatInt((ms+999)/1000, 10)
}

// hideInternalFields drops fields that only Shoal may set: an application must not forge a refusal.
func hideInternalFields(h *h2.Head) {
	kept := h.Fields[:0]
	for _, f := range h.Fields {
		if !strings.HasPrefix(f.Name, internalPrefix) {
			kept = append(kept, f)
		}
	}
	h.Fields = kept
}

// noteGRPC records the status of a gRPC call, which stands in the trailers or in the only head.
func (s *http2Stream) noteGRPC(h *h2.Head) {
	if !s.grpc {
		return
	}
	if v := h.Get("grpc-status"); v != "" {
		s.obs.GRPCStatus, _ = strconv.Atoi(v) // what is no number is 0, and the caller's to judge
	}
}

func (s *http2Stream) download(e h2.Event) {
	s.obs.BytesOut += int64(len(e.Data))
	if s.silence {
		s.until = time.Now().Add(s.route.idle)
	}
	if s.digest != nil {
		s.digest.add(e.Data)
	}
	if e.Kind == h2.Trailers {
		s.noteGRPC(s.up.Trailers())
		if s.digest != nil {
			s.digest.trailers(s.up.Trailers())
		}
	}
	s.answers = e.End
	if s.up.Forward(e.Batch, s.down, e.Data, e.End) {
		s.settle(e.Batch, outcome{})
	}
}

// broken is the outcome of an attempt whose stream, or connection, the endpoint ended. A gRPC server was
// told the deadline, and resets what is in progress then: that may be heard before the timer here runs.
func (s *http2Stream) broken(err *h2.StreamError) outcome {
	if err.Remote && s.timeIsUp() && !s.untaken() {
		return s.late()
	}
	return brokenStream(err, s.begun, s.place.peer())
}

func brokenStream(err *h2.StreamError, begun, viaPeer bool) outcome {
	o := outcome{reason: fleet.ReasonUpstreamReset, begun: begun, unseen: err.Unprocessed, way: err.Lost && viaPeer}
	switch {
	case err.Stalled:
		o.detail = "took nothing of the request: " + err.Reason
	case !err.Remote:
		o.reason, o.detail = fleet.ReasonUpstreamMalformed, "answered with what is not HTTP/2: "+err.Reason
	case begun:
		o.detail = fmt.Sprintf("broke off in the middle of its answer (%s: %s)", err.Code, err.Reason)
	default:
		o.detail = fmt.Sprintf("ended the stream without an answer (%s: %s)", err.Code, err.Reason)
	}
	return o
}
