package proxy

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
)

// tunnel is a connection whose bytes are the application's own: a tcp port, a need, egress.
type tunnel struct {
	conn  net.Conn
	early []byte // read already
	alert []byte // what a refused caller understands; nil: a reset
	x     exchange
}

// serveTunnel takes c to its target, as one exchange.
func (l *listener) serveTunnel(c net.Conn, to target) { l.callTunnel(&tunnel{conn: c}, to) }

func (l *listener) callTunnel(t *tunnel, to target) {
	l.keep(t)
	defer l.drop(t)
	defer t.conn.Close()
	x := &t.x
	x.begin(l.p, l.source, nil)
	x.route = x.table.route(l.source.Service, to)
	x.requestID(nil)
	x.trace(observe.Trace{}, false)
	x.call(t)
}

// hurry: a tunnel ends by itself, or now.
func (t *tunnel) hurry(now bool) {
	if now {
		t.conn.Close()
	}
}

func (t *tunnel) forward(x *exchange) outcome {
	c, late, o := x.dialTunnel()
	if c == nil {
		return o
	}
	x.tunneled()
	if x.obs.Learned != nil {
		x.p.cfg.Recorder.Record(&x.obs) // now, too: a tunnel may outlast the learning
	}
	x.obs.BytesIn, x.obs.BytesOut, o = join(t.conn, c, t.early, late)
	return o
}

func (t *tunnel) refuse(*exchange) {
	if t.alert == nil {
		abort(t.conn)
		return
	}
	_, _ = t.conn.Write(t.alert) // the connection is closed next, whatever comes of it
}

// field: bytes have none.
func (t *tunnel) field(string, int) (string, bool) { return "", false }

// dialTunnel opens a connection to x.place whose bytes are the application's. late is what it sent
// already.
func (x *exchange) dialTunnel() (c net.Conn, late []byte, o outcome) {
	if x.place.peer() {
		return x.openTunnel()
	}
	ctx, cancel := x.context(dialTimeout)
	defer cancel()
	c, err := x.place.dial(ctx, x.route.port.Number, x.source.Service)
	if err != nil {
		x.place.dialFailed()
		return nil, nil, outcome{reason: fleet.ReasonConnectFailed, unseen: true, detail: "cannot be reached: " + err.Error()}
	}
	x.place.dialWorked()
	return c, late, outcome{}
}

// join carries bytes both ways until both sides have ended, keeping half-close, and closes both. early
// and late are what was read of either already.
func join(caller, callee net.Conn, early, late []byte) (in, out int64, o outcome) {
	var wg sync.WaitGroup
	var asking, answering net.Conn
	wg.Go(func() { in, asking = carry(callee, caller, early) })
	out, answering = carry(caller, callee, late)
	wg.Wait()
	if asking == callee || answering == callee {
		o = brokenTunnel()
	}
	for _, c := range [...]net.Conn{caller, callee} {
		c.Close()
		if s, ok := c.(*streamConn); ok {
			s.release()
		}
	}
	return in, out, o
}

// brokenTunnel is the outcome of a tunnel whose callee's end broke. It counts against no instance: some
// protocols end their connections so.
func brokenTunnel() outcome {
	return outcome{reason: fleet.ReasonUpstreamReset, begun: true, way: true, detail: "reset the connection, or the way to it broke"}
}

// carry copies from src to dst until src ends, and passes the end on; between sockets the kernel
// copies (splice). A connection that breaks takes the other with it, and is returned.
func carry(dst, src net.Conn, first []byte) (total int64, broken net.Conn) {
	_ = dst.SetWriteDeadline(time.Time{}) // a closed connection fails at the write
	n, err := dst.Write(first)
	total = int64(n)
	for err == nil {
		var m int64
		m, err = io.Copy(dst, src)
		total += m
		if err == nil {
			closeWrite(dst)
			return total, nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) { // set by who saw a hang-up when this was no tunnel yet
			err = src.SetReadDeadline(time.Time{})
		}
	}
	broken = brokenOf(dst, src)
	abort(dst)
	dst.Close()
	src.Close()
	return total, broken
}

// brokenOf tells which end of a copy that failed is the one that broke; nil where the other direction has
// closed both. dst is asked first: src may have ended in order, with bytes left to read.
func brokenOf(dst, src net.Conn) net.Conn {
	switch {
	case isBroken(dst):
		return dst
	case isBroken(src):
		return src
	}
	return nil
}

func closeWrite(c net.Conn) {
	if cw, ok := c.(interface{ CloseWrite() error }); ok {
		_ = cw.CloseWrite() // a connection that is gone already needs none
		return
	}
	c.Close()
}

// relayUpgrade makes a tunnel of both connections: the callee has switched protocols.
func (s *session) relayUpgrade(x *exchange, u *upstream, b *buffer) outcome {
	head := b.bytes()[:s.res.Size]
	out := append([]byte(nil), s.res.Line.Of(head)...)
	out = append(out, '\r', '\n')
	out = s.res.AppendFields(out, head)
	out = append(out, "Connection: Upgrade\r\n\r\n"...)
	late := bytes.Clone(b.bytes()[s.res.Size:])
	b.free()
	s.waiting.Store(nil)
	_ = u.SetReadDeadline(time.Time{})
	defer u.close()
	s.begun = true
	if err := s.write(out); err != nil {
		s.keep = false
		return outcome{reason: fleet.ReasonCallerGone, begun: true}
	}
	return s.joinWith(x, u.Conn, late)
}

// tunneled: from here on the exchange lasts as long as both ends want.
func (x *exchange) tunneled() {
	x.headAfter = time.Since(x.obs.Time) - x.last().Start
	x.rest()
}

// forwardConnect answers a CONNECT with a tunnel.
func (s *session) forwardConnect(x *exchange) outcome {
	c, late, o := x.dialTunnel()
	if c == nil {
		return o
	}
	x.obs.Status, s.begun = 200, true
	if err := s.write([]byte("HTTP/1.1 200 Connection Established\r\n\r\n")); err != nil {
		discard(c)
		s.keep = false
		return outcome{reason: fleet.ReasonCallerGone, begun: true}
	}
	return s.joinWith(x, c, late)
}

func (s *session) joinWith(x *exchange, c net.Conn, late []byte) outcome {
	x.obs.Kind = fleet.KindStream
	x.tunneled()
	return s.tunnel(x, c, late)
}

// tunnel turns the session's connection into one end of a tunnel. Its buffers are given back: a tunnel may
// be quiet for hours.
func (s *session) tunnel(x *exchange, c net.Conn, late []byte) outcome {
	x.obs.Method, x.obs.Path = strings.Clone(x.obs.Method), strings.Clone(x.obs.Path)
	early := bytes.Clone(s.in.bytes()[s.taken:])
	s.releaseBuffer()
	s.keep, s.head = false, nil
	s.disarm()
	in, out, o := join(s.conn, c, early, late)
	x.obs.BytesIn += in
	x.obs.BytesOut += out
	return o
}
