package proxy

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"slices"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h1"
	"github.com/shoalrun/shoal/wire/h2"
)

// http2Tunnel is a CONNECT of a caller that speaks HTTP/2: a tunnel (RFC 9113 section 8.5), or, with a
// protocol, a WebSocket (RFC 8441). It has a goroutine of its own, and its stream is read and written as
// files are.
type http2Tunnel struct{ *http2Stream }

// acceptTunnel takes a CONNECT.
func (c *http2Session) acceptTunnel(st *h2.Stream) {
	s := &http2Stream{session: c, down: st}
	s.begin(c.p, c.from.source, &s.away)
	s.describe(st.Head().Clone())                                                                          // what is recorded outlasts the stream
	s.fields = slices.DeleteFunc(s.fields, func(f h2.Field) bool { return f.Name == "sec-websocket-key" }) // of HTTP/1.1's
	if s.request.Protocol != "" {
		s.obs.Method = "GET" // which it is for whoever permits and records it
	}
	c.find(s)
	go func() {
		s.call(http2Tunnel{s})
		st.Release(nil)
	}()
}

func (t http2Tunnel) forward(x *exchange) outcome {
	x.replayable = false // what the application may have seen of a tunnel is unknown
	switch {
	case t.request.Protocol != "":
		return t.upgrade(x)
	case x.source.Service == fleet.Gateway:
		f := notExposed(x.route.service)
		return outcome{reason: f.reason, final: f} // a public listener opens no tunnels
	}
	c, late, o := x.dialTunnel()
	if c == nil {
		x.replayable = true
		return o
	}
	if !t.established(x, 200, nil) {
		discard(c)
		return outcome{reason: fleet.ReasonCallerGone, begun: true}
	}
	x.obs.BytesIn, x.obs.BytesOut, o = join(&streamConn{t.down}, c, nil, late)
	return o
}

func (t http2Tunnel) refuse(x *exchange) {
	if !t.begun {
		t.http2Stream.refuse(nil)
	}
}

// established sends the head that begins the tunnel.
func (t http2Tunnel) established(x *exchange, status int, fields []h2.Field) bool {
	t.begun, x.obs.Status = true, status
	x.obs.Kind = fleet.KindStream
	x.headAfter = time.Since(x.obs.Time)
	return t.down.SendHead(nil, &h2.Head{Status: status, Fields: fields}, false) == nil
}

// upgrade opens the WebSocket in the words of whoever is next: an extended CONNECT to another node and to an
// application that takes it, an upgrade of HTTP/1.1 to any other.
func (t http2Tunnel) upgrade(x *exchange) outcome {
	key := webSocketKey()
	if x.place.peer() {
		h := t.request
		h.Fields = append(t.asked(), h2.Field{Name: "sec-websocket-key", Value: key})
		st, o := x.openStream(&h)
		if st == nil {
			return o
		}
		return t.opened(x, st, key)
	}
	if st, o := x.extended(t.compose()); st != nil || o.reason != "" {
		if st == nil {
			return o
		}
		return t.opened(x, st, "")
	}
	if x.newer() {
		return x.takesNoUpgrade()
	}
	return t.switchProtocol(x, key)
}

// asked are the fields that a node adds its own to.
func (t http2Tunnel) asked() []h2.Field {
	fields := append([]h2.Field(nil), t.fields...)
	if c := t.session; c.from.aim == aimEdge {
		fields = append(fields, h2.Field{Name: "x-forwarded-for", Value: c.remote},
			h2.Field{Name: "x-forwarded-host", Value: t.authority}, h2.Field{Name: "x-forwarded-proto", Value: "http"})
	}
	return fields
}

// extended opens a stream to an application that speaks HTTP/2 and takes extended CONNECT; nil where it
// does not.
func (x *exchange) extended(h *h2.Head) (*h2.Stream, outcome) {
	l := x.link()
	if !l.speaksHTTP1(x.p.now()) && !l.available() {
		if o := l.connect(x); o.reason != "" {
			return nil, o
		}
	}
	for _, c := range *l.conns.Load() {
		if !c.ExtendedConnect() {
			continue
		}
		if st, err := c.Open(nil, h, false, nil); err == nil {
			return st, outcome{}
		}
	}
	if x.route.port.Protocol == fleet.GRPC {
		return nil, outcome{reason: fleet.ReasonUpstreamMalformed, detail: "takes no extended CONNECT on this port, as a WebSocket over HTTP/2 needs"}
	}
	return nil, outcome{}
}

// opened waits for the answer on st and joins the streams. key is empty where no upgrade of HTTP/1.1 follows.
func (t http2Tunnel) opened(x *exchange, st *h2.Stream, key string) outcome {
	res, o := x.opened(st)
	if res == nil {
		return o
	}
	c := &streamConn{st}
	if o := x.refusedByPeer(fleet.Reason(res.Get("shoal-reason"))); o.reason != "" && x.place.peer() {
		discard(c)
		return o
	}
	tunnel := res.Status/100 == 2 && (key == "" || res.Get(peerUpgraded) != "")
	if tunnel && key != "" && !t.accepts(res.Get("sec-websocket-accept"), key) || !tunnel && res.Status/100 == 2 {
		discard(c)
		return notUpgraded()
	}
	if !x.place.peer() {
		hideInternalFields(res)
	}
	if !t.established(x, res.Status, webSocketFields(res.Fields)) {
		discard(c)
		return outcome{reason: fleet.ReasonCallerGone, begun: true}
	}
	if !tunnel {
		x.obs.BytesOut, _ = carry(&streamConn{t.down}, c, nil)
		discard(c)
		return outcome{}
	}
	x.obs.BytesIn, x.obs.BytesOut, o = join(&streamConn{t.down}, c, nil, nil)
	return o
}

// switchProtocol asks an application that speaks HTTP/1.1 (RFC 8441 section 5, RFC 6455 section 4).
func (t http2Tunnel) switchProtocol(x *exchange, key string) outcome {
	b := getBuffer()
	defer putBuffer(b)
	var res h1.Response
	u, o, newer := x.askUpgrade(t.words(key), b, &res)
	switch {
	case newer:
		return t.upgrade(x)
	case u == nil:
		return o
	}
	fields := webSocketFields(new(http2Names).response(nil, &res, b.bytes()))
	switch {
	case res.Status == 101 && t.accepts(string(res.Get(b.bytes(), "sec-websocket-accept")), key):
	case res.Status == 101, res.Status/100 == 2:
		abort(u.Conn)
		u.close()
		return notUpgraded()
	default:
		defer u.close()
		t.begun, x.obs.Status = true, res.Status
		return (&meshTunnel{st: t.down}).declined(x, u, b, &res, &h2.Head{Status: res.Status, Fields: fields})
	}
	late := bytes.Clone(b.bytes()[res.Size:])
	_ = u.SetDeadline(time.Time{}) // fails only on a closed connection
	if !t.established(x, 200, fields) {
		u.close()
		return outcome{reason: fleet.ReasonCallerGone, begun: true}
	}
	x.obs.BytesIn, x.obs.BytesOut, o = join(&streamConn{t.down}, u.Conn, nil, late)
	x.p.watch.forget(u.watch)
	return o
}

// words is the request for the upgrade in HTTP/1.1.
func (t http2Tunnel) words(key string) []byte {
	h := *t.compose()
	h.Method = "GET"
	out := appendHTTP1(nil, &h, t.authority, false)
	out = appendField(append(out, "Connection: Upgrade\r\n"...), "Upgrade: ", t.request.Protocol)
	if t.webSocket() {
		out = appendField(out, "Sec-WebSocket-Key: ", key)
	}
	return append(out, '\r', '\n')
}

func (t http2Tunnel) webSocket() bool { return isWebSocket(t.request.Protocol) }

func isWebSocket(protocol string) bool { return strings.EqualFold(protocol, "websocket") }

// accepts reports whether an application has understood the key that it was asked with.
func (t http2Tunnel) accepts(accept, key string) bool {
	return !t.webSocket() || accept == webSocketAccept(key)
}

func webSocketKey() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return base64.StdEncoding.EncodeToString(b[:])
}

// webSocketAccept is what RFC 6455 section 4.2.2 makes of a key.
func webSocketAccept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// webSocketFields leaves out what is between the last proxy and the application.
func webSocketFields(fields []h2.Field) (out []h2.Field) {
	for _, f := range fields {
		if f.Name != "sec-websocket-accept" && f.Name != peerUpgraded {
			out = append(out, f)
		}
	}
	return out
}

func notUpgraded() outcome {
	return outcome{reason: fleet.ReasonUpstreamMalformed, detail: "did not change the protocol as it was asked to"}
}
