package proxy

import (
	"net"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h2"
)

// streamConn is one end of a tunnel between nodes: a CONNECT stream (RFC 9113 section 8.5). The end of
// either direction is the end of the stream's, and a reset of the connection is one of the stream.
type streamConn struct{ st *h2.Stream }

func (c *streamConn) Read(p []byte) (int, error)  { return c.st.Read(p) }
func (c *streamConn) Write(p []byte) (int, error) { return c.st.Write(p) }
func (c *streamConn) CloseWrite() error           { return c.st.CloseWrite(nil) }

// Close ends both directions and wakes who waits.
func (c *streamConn) Close() error {
	c.st.Reset(nil, h2.Cancel)
	return nil
}

// broken reports whether the other node, or the loss of the connection to it, ended the stream.
func (c *streamConn) broken() bool {
	err := c.st.Err()
	return err != nil && err.Remote
}

func (c *streamConn) reset() { c.st.Reset(nil, h2.ConnectError) }

// release gives the stream back, once nobody reads or writes.
func (c *streamConn) release() { c.st.Release(nil) }

// Addresses and deadlines are those of the connection under the stream, which is not the tunnel's.
func (c *streamConn) LocalAddr() net.Addr              { return nil }
func (c *streamConn) RemoteAddr() net.Addr             { return nil }
func (c *streamConn) SetDeadline(time.Time) error      { return nil }
func (c *streamConn) SetReadDeadline(time.Time) error  { return nil }
func (c *streamConn) SetWriteDeadline(time.Time) error { return nil }

// discard closes a connection that nobody else uses.
func discard(c net.Conn) {
	c.Close()
	if s, ok := c.(*streamConn); ok {
		s.release()
	}
}

// openTunnel opens a stream to x.place whose bytes are the application's.
func (x *exchange) openTunnel() (c net.Conn, late []byte, o outcome) {
	h := &h2.Head{Method: "CONNECT", Authority: x.place.service}
	st, o := x.openStream(h)
	if st == nil {
		return nil, nil, o
	}
	res, o := x.opened(st)
	if res == nil {
		return nil, nil, o
	}
	if res.Status == 200 {
		return &streamConn{st}, nil, outcome{}
	}
	o = x.notOpened(res)
	st.Release(nil)
	return nil, nil, o
}

// notOpened is the outcome of a CONNECT that was refused.
func (x *exchange) notOpened(res *h2.Head) outcome {
	reason := fleet.Reason(strings.Clone(res.Get("shoal-reason")))
	if o := x.refusedByPeer(reason); o.reason != "" {
		return o
	}
	if reason == "" {
		reason = fleet.ReasonConnectFailed
	}
	return outcome{reason: reason, detail: "was not opened by its node"}
}

// openStream sends the head of a request whose stream is waited for, read and written as files are.
func (x *exchange) openStream(h *h2.Head) (*h2.Stream, outcome) {
	h.Fields = append(h.Fields, h2.Field{Name: "x-request-id", Value: x.obs.RequestID},
		h2.Field{Name: "traceparent", Value: view(x.appendTraceparent(x.parent[:0]))})
	h.Fields = x.appendPeerFields(h.Fields, true)
	l := x.bulkLink()
	for range 3 {
		if x.left() {
			return nil, outcome{reason: fleet.ReasonCallerGone}
		}
		if st := l.open(x.source.Service, nil, h, false, nil); st != nil {
			return st, outcome{}
		}
		if o := l.connect(x); o.reason != "" {
			return nil, o
		}
	}
	return nil, outcome{reason: fleet.ReasonConnectFailed, unseen: true, detail: "takes no further HTTP/2 stream"}
}

// opened waits for the answer to openStream.
func (x *exchange) opened(st *h2.Stream) (*h2.Head, outcome) {
	ctx, cancel := x.context(tunnelTime)
	defer cancel()
	res, err := st.ReadHead(ctx)
	if err == nil {
		return res, outcome{}
	}
	st.Release(nil)
	if ctx.Err() != nil {
		return nil, outcome{reason: fleet.ReasonTimeout}
	}
	return nil, meshOutcome(err, false)
}

// tunnelTime is how long another node may take to open a tunnel: to dial, and a way there and back.
const tunnelTime = dialTimeout + peerDial

// meshTunnel is a tunnel, or a connection that changes its protocol, that came from another node.
type meshTunnel struct {
	session  *http2Session
	st       *h2.Stream
	protocol string // that the connection is to change to; empty: it is a tunnel from the first byte
	begun    bool
	joined   bool // the stream was given back by join
	x        exchange
}

// acceptConnect serves a CONNECT in a goroutine of its own.
func (c *http2Session) acceptConnect(st *h2.Stream) {
	h := st.Head().Clone() // what is recorded outlasts the stream
	t := &meshTunnel{session: c, st: st, protocol: h.Protocol}
	x := &t.x
	x.begin(c.p, c.from.source, nil)
	x.obs.Method, x.obs.Path = h.Method, h.Path
	if t.protocol != "" {
		x.obs.Method = "GET"
	}
	c.introduce(x, h)
	st.SetSource(x.source.Service)
	x.requestID([]byte(h.Get("x-request-id")))
	var trace traceFields
	trace.parent(h.Get("traceparent"))
	x.trace(trace.trace())
	go t.serve()
}

func (t *meshTunnel) serve() {
	x := &t.x
	if r := x.route; t.protocol == "" && r.refusal == nil && r.port.Protocol != fleet.TCP && r.caller != fleet.Operator {
		refused := *r
		refused.refusal = noTunnel(r.callee, r.port.Protocol)
		x.route = &refused
	}
	x.call(t)
	if !t.joined {
		t.st.Release(nil)
	}
}

func (t *meshTunnel) forward(x *exchange) outcome {
	x.replayable = false // what the application may have seen of a tunnel is unknown
	if t.protocol != "" {
		return t.upgrade(x)
	}
	c, late, o := x.dialTunnel()
	if c == nil {
		x.replayable = true
		return o
	}
	t.begun, x.obs.Status = true, 200
	x.headAfter = time.Since(x.obs.Time)
	if t.st.SendHead(nil, &h2.Head{Status: 200}, false) != nil {
		discard(c)
		return outcome{reason: fleet.ReasonCallerGone, begun: true}
	}
	return t.join(x, c, late)
}

func (t *meshTunnel) join(x *exchange, c net.Conn, late []byte) (o outcome) {
	x.rest()
	x.obs.BytesIn, x.obs.BytesOut, o = join(&streamConn{t.st}, c, nil, late)
	t.joined = true
	return o
}

// refuse tells the peer why there is no tunnel.
func (t *meshTunnel) refuse(x *exchange) {
	if t.begun {
		return
	}
	f := x.refusal
	x.obs.Status = f.status
	h := &h2.Head{Status: f.status, Fields: []h2.Field{
		{Name: "shoal-reason", Value: string(f.reason)}, {Name: "x-request-id", Value: x.obs.RequestID},
		{Name: "content-type", Value: "text/plain; charset=utf-8"},
	}}
	if t.st.SendHead(nil, h, false) == nil {
		_, _ = t.st.SendData(nil, []byte(f.body(x.obs.RequestID)), true) // what does not fit is cut
	}
}

// copy: bytes are not copied.
func (t *meshTunnel) copy() *request { return nil }

func (t *meshTunnel) field(name string, nth int) (string, bool) {
	h := t.st.Head()
	if name == "host" {
		return h.Authority, nth == 0 && h.Authority != ""
	}
	for i := range h.Fields {
		if h.Fields[i].Name != name {
			continue
		}
		if nth == 0 {
			return h.Fields[i].Value, true
		}
		nth--
	}
	return "", false
}

// noTunnel: through a tunnel a node could send requests that no rule sees, with names that are not its own.
func noTunnel(callee string, speaks fleet.Protocol) *refusal {
	return &refusal{
		status: 403, reason: fleet.ReasonNotAllowed,
		detail: "a peer asked for a tunnel to " + callee + ", whose port speaks " + string(speaks) + ".",
		remedy: "It is called request by request.",
	}
}
