package proxy

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h1"
	"github.com/shoalrun/shoal/wire/h2"
)

// peerUpgraded tells the protocol that the application has changed to. An answer without it is an
// ordinary one, whatever its status.
const peerUpgraded = "shoal-peer-upgraded"

// upgradesPeer reports whether the request changes its connection's protocol. One that is no GET goes
// without that offer, which a proxy may leave out (RFC 9110 section 7.8).
func (s *session) upgradesPeer() bool {
	return s.req.Upgrade && s.x.obs.Method == "GET" && s.body.Done() && s.pump == nil
}

// forwardUpgrade takes a request that changes its connection's protocol, to WebSocket say, to another
// node, as an extended CONNECT (RFC 8441) that carries the fields of HTTP/1.1.
func (s *session) forwardUpgrade(x *exchange) outcome {
	h := s.extendedConnect(x)
	if s.from.aim == aimEdge {
		h.Fields = s.appendForwardedHeaders(h.Fields)
	}
	st, o := x.openStream(h)
	if st == nil {
		return o
	}
	res, o := x.opened(st)
	if res == nil {
		return o
	}
	return s.upgraded(x, st, res)
}

// extendUpgrade takes such a request to an application of this node that speaks HTTP/2 only: by an extended
// CONNECT without the words of HTTP/1.1's handshake (RFC 8441 section 5), which is answered here.
func (s *session) extendUpgrade(x *exchange) outcome {
	h := s.extendedConnect(x)
	key := ""
	h.Fields = slices.DeleteFunc(h.Fields, func(f h2.Field) bool {
		if f.Name == "sec-websocket-key" {
			key = f.Value
		}
		return f.Name == "sec-websocket-key"
	})
	if nonce, err := base64.StdEncoding.DecodeString(key); isWebSocket(h.Protocol) && (err != nil || len(nonce) != 16) {
		f := malformedRequest(400, "a WebSocket's handshake without a valid Sec-WebSocket-Key (RFC 6455, section 4.1)")
		return outcome{reason: f.reason, final: f}
	}
	h.Fields = append(h.Fields, h2.Field{Name: "x-request-id", Value: x.obs.RequestID},
		h2.Field{Name: "traceparent", Value: view(x.appendTraceparent(x.parent[:0]))})
	if x.route.service != nil {
		h.Fields = append(h.Fields, h2.Field{Name: "shoal-caller", Value: x.source.Service})
	}
	if s.from.aim == aimEdge {
		h.Fields = s.appendForwardedHeaders(h.Fields)
	}
	st, o := x.extended(h)
	switch {
	case o.reason != "":
		return o
	case st == nil:
		return x.takesNoUpgrade()
	}
	res, o := x.opened(st)
	if res == nil {
		return o
	}
	hideInternalFields(res)
	res.Fields = webSocketFields(res.Fields)
	if res.Status/100 == 2 {
		res.Fields = append(res.Fields, h2.Field{Name: peerUpgraded, Value: h.Protocol})
		if isWebSocket(h.Protocol) {
			res.Fields = append(res.Fields, h2.Field{Name: "sec-websocket-accept", Value: webSocketAccept(key)})
		}
	}
	return s.upgraded(x, st, res)
}

// takesNoUpgrade is the outcome where an application that speaks HTTP/2 only has not announced
// SETTINGS_ENABLE_CONNECT_PROTOCOL.
func (x *exchange) takesNoUpgrade() outcome {
	f := &refusal{
		status: 502, reason: fleet.ReasonUpstreamMalformed,
		detail: fmt.Sprintf("%s speaks HTTP/2 only on port %d, and does not announce there that it takes WebSockets (SETTINGS_ENABLE_CONNECT_PROTOCOL, RFC 8441).",
			x.route.callee, x.route.port.Number),
		remedy: "Let its server take extended CONNECT, or HTTP/1.1 as well.",
	}
	return outcome{reason: f.reason, final: f}
}

// extendedConnect is the request as an extended CONNECT, with its own fields.
func (s *session) extendedConnect(x *exchange) *h2.Head {
	h := &h2.Head{
		Method: "CONNECT", Protocol: string(s.req.Get(s.head, "upgrade")), Scheme: "http",
		Authority: string(s.req.Host.Of(s.head)), Path: strings.Clone(x.obs.Path),
	}
	if h.Path == "" || h.Path[0] != '/' {
		h.Path = "/" + h.Path
	}
	if h.Authority == "" {
		h.Authority = x.place.service
	}
	for i := range s.req.Fields {
		if f := &s.req.Fields[i]; !f.Drop && f.Kind == h1.Other {
			h.Fields = append(h.Fields, h2.Field{Name: lower(f.Name.Of(s.head)), Value: string(f.Value.Of(s.head))})
		}
	}
	return h
}

// upgraded passes the answer on, and joins the connections where the protocol has changed.
func (s *session) upgraded(x *exchange, st *h2.Stream, res *h2.Head) outcome {
	if o := x.refusedByPeer(fleet.Reason(res.Get("shoal-reason"))); o.reason != "" {
		st.Release(nil)
		return o
	}
	c := &streamConn{st}
	protocol := res.Get(peerUpgraded)
	head := &h2.Head{Status: res.Status}
	for _, f := range res.Fields {
		if f.Name != peerUpgraded {
			head.Fields = append(head.Fields, f)
		}
	}
	x.obs.Status, s.begun = res.Status, true
	s.keep = false
	end := "Connection: close\r\n\r\n"
	if protocol != "" {
		head.Status, x.obs.Status = 101, 101
		end = "Connection: Upgrade\r\nUpgrade: " + protocol + "\r\n\r\n"
	}
	if s.write(append(appendStatus(nil, head), end...)) != nil {
		discard(c)
		return outcome{reason: fleet.ReasonCallerGone, begun: true}
	}
	if protocol == "" {
		x.obs.BytesOut, _ = carry(s.conn, c, nil)
		discard(c)
		return outcome{}
	}
	return s.joinWith(x, c, nil)
}

// extend opens the protocol by an extended CONNECT to an application that takes it. It answers as one of
// HTTP/1.1 would, which is what the other node's caller may speak. done is false where it does not take it.
func (t *meshTunnel) extend(x *exchange) (o outcome, done bool) {
	h := *t.st.Head()
	h.Fields = t.asked(x)
	st, o := x.extended(&h)
	if st == nil {
		return o, o.reason != ""
	}
	res, o := x.opened(st)
	if res == nil {
		return o, true
	}
	hideInternalFields(res)
	c := &streamConn{st}
	t.begun, x.obs.Status = true, res.Status
	x.headAfter = time.Since(x.obs.Time)
	back := &h2.Head{Status: res.Status, Fields: webSocketFields(res.Fields)}
	if res.Status/100 == 2 {
		back.Fields = append(back.Fields, h2.Field{Name: peerUpgraded, Value: t.protocol})
	}
	if key := t.st.Head().Get("sec-websocket-key"); res.Status/100 == 2 && isWebSocket(t.protocol) {
		back.Fields = append(back.Fields, h2.Field{Name: "sec-websocket-accept", Value: webSocketAccept(key)})
	}
	if t.st.SendHead(nil, back, false) != nil {
		discard(c)
		return outcome{reason: fleet.ReasonCallerGone, begun: true}, true
	}
	if res.Status/100 != 2 {
		x.obs.BytesOut, _ = carry(&streamConn{t.st}, c, nil)
		discard(c)
		return outcome{}, true
	}
	x.obs.BytesIn, x.obs.BytesOut, o = join(&streamConn{t.st}, c, nil, nil)
	return o, true
}

// asked are the request's fields as the application is to see them in HTTP/2.
func (t *meshTunnel) asked(x *exchange) (fields []h2.Field) {
	for _, f := range t.st.Head().Fields {
		switch {
		case strings.HasPrefix(f.Name, internalPrefix), f.Name == "sec-websocket-key", f.Name == "x-request-id", f.Name == "traceparent":
		default:
			fields = append(fields, f)
		}
	}
	fields = append(fields, h2.Field{Name: "x-request-id", Value: x.obs.RequestID},
		h2.Field{Name: "traceparent", Value: view(x.appendTraceparent(x.parent[:0]))})
	if x.route.service != nil {
		fields = append(fields, h2.Field{Name: "shoal-caller", Value: x.source.Service})
	}
	return fields
}

// upgrade asks the application to change the protocol, and joins the connections if it does.
func (t *meshTunnel) upgrade(x *exchange) outcome {
	if o, done := t.extend(x); done {
		return o
	}
	if x.newer() {
		return x.takesNoUpgrade()
	}
	b := getBuffer()
	defer putBuffer(b)
	var res h1.Response
	u, o, newer := x.askUpgrade(t.words(x), b, &res)
	switch {
	case newer:
		return t.upgrade(x)
	case u == nil:
		return o
	}
	t.begun, x.obs.Status = true, res.Status
	x.headAfter = time.Since(x.obs.Time)
	h := &h2.Head{Status: res.Status, Fields: new(http2Names).response(nil, &res, b.bytes())}
	if res.Status != 101 {
		defer u.close()
		return t.declined(x, u, b, &res, h)
	}
	h.Status = 200
	h.Fields = append(h.Fields, h2.Field{Name: peerUpgraded, Value: string(res.Get(b.bytes(), "upgrade"))})
	late := bytes.Clone(b.bytes()[res.Size:])
	_ = u.SetDeadline(time.Time{})
	if t.st.SendHead(nil, h, false) != nil {
		u.close()
		return outcome{reason: fleet.ReasonCallerGone, begun: true}
	}
	x.p.watch.forget(u.watch) // join closes the connection
	return t.join(x, u.Conn, late)
}

// words is the request for the upgrade in HTTP/1.1.
func (t *meshTunnel) words(x *exchange) []byte {
	h := *t.st.Head()
	h.Method = "GET"
	h.Fields = nil
	for _, f := range t.st.Head().Fields {
		if !strings.HasPrefix(f.Name, internalPrefix) && f.Name != "x-request-id" && f.Name != "traceparent" {
			h.Fields = append(h.Fields, f)
		}
	}
	out := appendHTTP1(nil, &h, h.Authority, false)
	out = append(out, "Connection: Upgrade\r\n"...)
	out = appendField(out, "Upgrade: ", t.protocol)
	out = appendField(out, requestIDField, x.obs.RequestID)
	out = append(x.appendTraceparent(append(out, traceField...)), '\r', '\n')
	if x.route.service != nil {
		out = appendField(out, callerField, x.source.Service)
	}
	return append(out, '\r', '\n')
}

// declined passes an ordinary answer on.
func (t *meshTunnel) declined(x *exchange, u *upstream, b *buffer, res *h1.Response, h *h2.Head) outcome {
	body := res.Body(false)
	rest := b.bytes()[res.Size:]
	if t.st.SendHead(nil, h, body.Done()) != nil {
		return outcome{reason: fleet.ReasonCallerGone, begun: true}
	}
	for !body.Done() {
		for len(rest) > 0 && !body.Done() {
			content, n, err := body.Next(rest)
			if err != nil {
				t.st.Reset(nil, h2.InternalError)
				return outcome{reason: fleet.ReasonUpstreamMalformed, begun: true}
			}
			if _, err := t.st.Write(content); err != nil {
				return outcome{reason: fleet.ReasonCallerGone, begun: true}
			}
			x.obs.BytesOut += int64(len(content))
			rest = rest[n:]
		}
		if body.Done() {
			break
		}
		n, err := u.Conn.Read(b.b)
		if n == 0 && err != nil {
			if body.ToEnd() && endOfStream(err) {
				break
			}
			t.st.Reset(nil, h2.InternalError)
			return outcome{reason: fleet.ReasonUpstreamReset, begun: true, detail: "broke off in the middle of its answer"}
		}
		rest = b.b[:n]
	}
	_ = t.st.CloseWrite(nil) // a caller that is gone needs no end
	return outcome{}
}
