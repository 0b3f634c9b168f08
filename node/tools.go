package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
)

// serveNATS takes tools of this host to the broker, as the operator: they prove that by a password, too.
func (n *node) serveNATS(ctx context.Context) error {
	return n.serveTools(ctx, n.listeners.nats, fleet.NATS, refuseNATS)
}

// servePubsub takes tools of this host to the broker, as the operator.
func (n *node) servePubsub(ctx context.Context) error {
	refused := newQueue(n.listeners.pubsub)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return n.serveTools(ctx, n.listeners.pubsub, fleet.Pubsub, refused.push) })
	g.Go(func() error { return refusePubsub(ctx, refused) })
	return g.Wait()
}

// serveTools serves a listener of this host that stands for one of the broker's names. It is for the operator's own processes; what
// others connect is refused.
func (n *node) serveTools(ctx context.Context, l net.Listener, name string, refuse func(net.Conn, error)) error {
	if l == nil {
		<-ctx.Done()
		return ctx.Err()
	}
	mine := api.GuardTools(l, func(c net.Conn, why error) {
		n.Log.Warn("refused a tool", "name", name, "why", why)
		refuse(c, why)
	})
	return n.proxy.ServeNamed(ctx, mine, proxy.Source{Service: fleet.Operator}, name, 0)
}

// refusePatience is how long one who is refused may take to ask, and to hear it.
const refusePatience = 2 * time.Second

// refuseNATS tells a NATS client why it may not come in. Clients listen to errors once they were greeted and have said who they are.
func refuseNATS(c net.Conn, why error) {
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(refusePatience))
	fmt.Fprintf(c, "INFO {\"server_id\":\"shoal\",\"version\":\"2.10.0+shoal\",\"proto\":1,\"auth_required\":true,\"max_payload\":1024}\r\n")
	if _, err := c.Read(make([]byte, 4096)); err == nil {
		fmt.Fprintf(c, "-ERR 'Authorization Violation: %s'\r\n", strings.ReplaceAll(why.Error(), "'", ""))
	}
}

// refusePubsub answers every request on the connections of a queue as the Pub/Sub API refuses, over gRPC and as REST.
func refusePubsub(ctx context.Context, q *queue) error {
	srv := &http.Server{
		Handler: http.HandlerFunc(refuseRequest), Protocols: new(http.Protocols),
		ReadTimeout: refusePatience, IdleTimeout: refusePatience, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, refusedKey{}, c.(refusedConn).why)
		},
	}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
	if err := srv.Serve(q); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return ctx.Err()
}

type refusedKey struct{}

func refuseRequest(w http.ResponseWriter, r *http.Request) {
	why, _ := r.Context().Value(refusedKey{}).(error)
	h := w.Header()
	h.Set("Shoal-Reason", string(fleet.ReasonUnknownCaller))
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") { // PERMISSION_DENIED, and nothing but trailers
		h.Set("Content-Type", "application/grpc")
		h.Set("Grpc-Status", "7")
		h.Set("Grpc-Message", strings.ReplaceAll(url.PathEscape(why.Error()), "%20", " "))
		return
	}
	h.Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(http.StatusForbidden)
	_ = json.NewEncoder(w).Encode(map[string]any{"error": map[string]any{"code": http.StatusForbidden, "status": "PERMISSION_DENIED", "message": why.Error()}})
}

// queue is a listener of connections that were accepted elsewhere and are to be refused.
type queue struct {
	from   net.Listener
	conns  chan refusedConn
	closed chan struct{}
}

type refusedConn struct {
	net.Conn
	why error
}

func newQueue(from net.Listener) *queue {
	return &queue{from: from, conns: make(chan refusedConn), closed: make(chan struct{})}
}

func (q *queue) push(c net.Conn, why error) {
	select {
	case q.conns <- refusedConn{c, why}:
	case <-q.closed:
		_ = c.Close()
	}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.closed:
		return nil, net.ErrClosed
	}
}

// Close is called once, by the server.
func (q *queue) Close() error {
	close(q.closed)
	return nil
}

func (q *queue) Addr() net.Addr { return q.from.Addr() }
