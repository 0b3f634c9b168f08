package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
	"github.com/shoalrun/shoal/wire/h1"
)

// write writes to the caller. A caller that does not read has Config.Idle to begin.
func (s *session) write(p []byte) error {
	if s.inside {
		n, err := rawWrite(s.fd, p)
		if err != nil || n == len(p) {
			return err
		}
		p = p[n:]
	}
	return s.wrote(writeAll(s.conn, p, s.p.cfg.Idle))
}

// wrote notes why a write to the caller failed, if it did.
func (s *session) wrote(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.stalled.Store(true)
	}
	return err
}

// writeAll writes p; only what makes no progress for idle fails.
func writeAll(c net.Conn, p []byte, idle time.Duration) error {
	for {
		_ = c.SetWriteDeadline(time.Now().Add(idle)) // fails on a closed connection, as the write does
		n, err := c.Write(p)
		if err == nil {
			return nil
		}
		if n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		p = p[n:]
	}
}

// write writes a part of a request that more is to follow.
func (u *upstream) write(x *exchange, p []byte) error {
	if u.used && u.sent == 0 && !u.quiet() {
		return errUnasked
	}
	until := x.deadline
	if until.IsZero() {
		until = time.Now().Add(x.route.idle)
	}
	_ = u.SetWriteDeadline(until)
	n, err := u.Conn.Write(p)
	u.sent += n
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return errTimeout
	}
	return err
}

// take, halt and resume make an upstream a pump's sink.
func (u *upstream) take(p []byte, idle time.Duration) error {
	if err := writeAll(u.Conn, p, idle); err != nil {
		return err
	}
	u.sent += len(p)
	return nil
}

func (u *upstream) halt() { _ = u.SetWriteDeadline(longAgo) } // fails only on a closed connection

func (u *upstream) resume() { _ = u.SetWriteDeadline(time.Time{}) }

// endOfStream: the orderly end of a connection, as far as the system tells.
func endOfStream(err error) bool { return errors.Is(err, io.EOF) }

// refuse answers with x.refusal.
func (s *session) refuse(x *exchange) {
	f := x.refusal
	if f.reason == fleet.ReasonCallerGone || s.begun {
		s.keep = false
		return
	}
	if !s.body.Done() && s.pump == nil || s.pump != nil && !s.pump.body.Done() {
		s.keep = false // the rest of the body would be taken for a request
	}
	s.begun = true
	body := f.body(x.obs.RequestID)
	out := s.refusalHead(f, x, len(body))
	if x.obs.Method != "HEAD" && !s.grpc() {
		out = append(out, body...)
	}
	x.obs.BytesOut += int64(len(out))
	if s.write(out) != nil {
		s.keep = false
	}
}

func (s *session) grpc() bool {
	return h1.HasPrefixFold(s.req.Get(s.head, "content-type"), "application/grpc")
}

func (s *session) refusalHead(f *refusal, x *exchange, length int) []byte {
	status := f.status
	if s.grpc() {
		status, length = 200, 0
		x.obs.GRPCStatus = f.grpcStatus()
	}
	x.obs.Status = status
	out := append([]byte("HTTP/1.1 "), strconv.Itoa(status)...)
	out = append(out, ' ')
	out = append(out, http.StatusText(status)...)
	out = append(out, "\r\n"...)
	out = appendField(out, "Date: ", time.Now().UTC().Format(http.TimeFormat))
	out = appendField(out, "Content-Length: ", strconv.Itoa(length))
	out = appendField(out, reasonField, string(f.reason))
	out = appendField(out, requestIDField, x.obs.RequestID)
	if f.retry > 0 {
		out = appendField(out, "Retry-After: ", f.retryAfter())
	}
	if s.grpc() {
		out = append(out, "Content-Type: application/grpc\r\n"...)
		out = appendField(out, "Grpc-Status: ", strconv.Itoa(f.grpcStatus()))
		out = appendField(out, "Grpc-Message: ", percent(f.message()))
	} else {
		out = append(out, "Content-Type: text/plain; charset=utf-8\r\n"...)
	}
	switch {
	case !s.keep:
		out = append(out, "Connection: close\r\n"...)
	case s.req.Minor == 0:
		out = append(out, "Connection: keep-alive\r\n"...)
	}
	return append(out, '\r', '\n')
}

// percent encodes a grpc-message (gRPC over HTTP2, "Responses").
func percent(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if c < 0x20 || c > 0x7e || c == '%' {
			b.WriteByte('%')
			b.WriteString(strings.ToUpper(strconv.FormatUint(uint64(c)|0x100, 16)[1:]))
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// rejection is the refusal for what is not HTTP.
func rejection(err error) *refusal {
	var bad *h1.Error
	if !errors.As(err, &bad) {
		return malformedRequest(400, err.Error())
	}
	if bad.TooLarge {
		return overLimit(bad.Status, bad.Text, bad.Limit)
	}
	return malformedRequest(bad.Status, bad.Text)
}

// reject answers what could not be parsed, records it, and ends the connection. TLS gets an alert.
func (s *session) reject(err error) {
	tls := looksTLS(s.in.bytes())
	s.req = h1.Request{Head: h1.Head{Minor: 1, Fields: s.req.Fields[:0]}}
	s.head, s.keep, s.begun, s.body = nil, false, false, h1.Body{}
	x := &s.x
	x.begin(s.p, s.from.source, &s.gone)
	x.requestID(nil)
	x.trace(observe.Trace{}, false)
	x.obs.Protocol, x.obs.Kind, x.obs.Callee, x.obs.Route = fleet.HTTP, fleet.KindCall, s.target.String(), fleet.DefaultRoute
	x.refusal = rejection(err)
	switch {
	case tls:
		x.refusal = tlsToHTTP(s.target)
		_ = s.write(accessDenied) // the connection is closed next
	case x.refusal.status == 0: // another protocol than HTTP: there is nothing that it would understand
	default:
		s.refuse(x)
	}
	x.obs.Reason, x.obs.Detail = string(x.refusal.reason), x.refusal.text()
	x.obs.Duration = time.Since(x.obs.Time)
	s.p.cfg.Recorder.Record(&x.obs)
	if !s.inside {
		s.linger()
	}
}

// Limits of what is read and thrown away after an answer that came before the request's end, so that
// the system does not destroy it with a reset (RFC 9112 section 9.6).
const (
	lingerTime  = time.Second
	lingerBytes = 256 << 10
)

// linger lets the caller read the last answer before the connection is closed.
func (s *session) linger() {
	if cw, ok := s.conn.(interface{ CloseWrite() error }); !ok || cw.CloseWrite() != nil {
		return
	}
	_ = s.conn.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, s.conn, lingerBytes) // whatever ends it, the connection is closed next
}
