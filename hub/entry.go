package hub

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	peerv1 "github.com/shoalrun/shoal/api/gen/shoal/peer/v1"
	"github.com/shoalrun/shoal/api/gen/shoal/peer/v1/peerv1connect"
	"github.com/shoalrun/shoal/identity"
	"github.com/shoalrun/shoal/mesh"
)

// entry serves shoal.peer.v1.Entry: what a machine may ask that has no valid certificate. Each door of
// identity opens to one of its two methods.
type entry struct{ m *machines }

func (e entry) Join(ctx context.Context, req *connect.Request[peerv1.JoinRequest]) (*connect.Response[peerv1.JoinResponse], error) {
	c := connOf(ctx)
	if c == nil || c.State().NegotiatedProtocol != identity.JoinProtocol {
		return nil, connect.NewError(connect.CodePermissionDenied, errors.New("this connection is not for joining"))
	}
	issued, err := e.m.authority.Join(ctx, req.Msg.Token, req.Msg.Csr)
	if err != nil {
		return nil, refused(err)
	}
	document, _ := e.m.current()
	r := &peerv1.JoinResponse{}
	r.Issued, _ = json.Marshal(issued) // plain data always marshals
	r.Mesh, _ = json.Marshal(document)
	return connect.NewResponse(r), nil
}

func (e entry) Renew(ctx context.Context, req *connect.Request[peerv1.RenewRequest]) (*connect.Response[peerv1.CertifyResponse], error) {
	c := connOf(ctx)
	if c == nil {
		return nil, connect.NewError(connect.CodePermissionDenied, errors.New("certificates are renewed over TLS"))
	}
	presented, err := identity.RenewalPeer(c.State())
	if err != nil {
		return nil, connect.NewError(connect.CodePermissionDenied, err)
	}
	return certified(e.m.authority.Renew(ctx, presented, req.Msg.Csr))
}

func certified(issued identity.Issued, err error) (*connect.Response[peerv1.CertifyResponse], error) {
	if err != nil {
		return nil, refused(err)
	}
	b, err := json.Marshal(issued)
	return connect.NewResponse(&peerv1.CertifyResponse{Issued: b}), err
}

// refused tells a refusal that asking again does not change from a failure that may pass.
func refused(err error) error {
	if errors.Is(err, identity.ErrRefused) {
		return connect.NewError(connect.CodePermissionDenied, err)
	}
	return connect.NewError(connect.CodeUnavailable, err)
}

// entryLimit bounds a request of a machine that is not part of the fleet, in bytes.
const entryLimit = 64 << 10

func (m *machines) serveEntry(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle(peerv1connect.NewEntryHandler(entry{m}, connect.WithReadMaxBytes(entryLimit)))
	srv := &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 20 * time.Second, MaxHeaderBytes: 16 << 10,
		ConnContext: withConn, ErrorLog: slog.NewLogLogger(m.hub.Log.Handler(), slog.LevelDebug),
	}
	return serveUntil(ctx, srv, l)
}

// serveUntil serves l until ctx ends.
func serveUntil(ctx context.Context, srv *http.Server, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	err := srv.Serve(l)
	if errors.Is(err, http.ErrServerClosed) || ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

type connKey struct{}

// withConn lets handlers see whose connection a request came by.
func withConn(ctx context.Context, c net.Conn) context.Context {
	proved, _ := c.(*mesh.Conn)
	return context.WithValue(ctx, connKey{}, proved)
}

// connOf returns the connection whose other end has proved who it is; nil for a Unix socket.
func connOf(ctx context.Context) *mesh.Conn {
	c, _ := ctx.Value(connKey{}).(*mesh.Conn)
	return c
}
