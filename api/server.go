package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"github.com/shoalrun/shoal/api/gen/shoal/operator/v1/operatorv1connect"
	"github.com/shoalrun/shoal/fleet"
)

// Server is what one process answers: a func per verb, called concurrently. A nil field is a verb
// that the other process answers; whoever asks is told so. An error's text reaches the operator as
// it is, so it says what failed, why, and what to do next. A send func may be called from several
// goroutines, and returns an error once nobody listens any more.
type Server struct {
	Process Process // named in refusals

	Up      func(ctx context.Context, r UpRequest, send func(fleet.Progress) error) error
	Down    func(ctx context.Context, send func(fleet.Progress) error) error
	Status  func(ctx context.Context) (fleet.Status, error)
	Watch   func(ctx context.Context, send func(fleet.Status) error) error
	Follow  func(ctx context.Context, send func(fleet.Progress) error) error
	Restart func(ctx context.Context, services []string, send func(fleet.Progress) error) error
	// Upgrade replaces this process by executable, an absolute path; empty: the file it runs from.
	Upgrade func(ctx context.Context, executable string, send func(fleet.Progress) error) error
	Publish func(ctx context.Context, p Publication) (id string, err error)
	Topics
	Messages
	Schedules
	// Attach holds until ctx ends.
	Attach func(ctx context.Context, service, address string, send func(fleet.Progress) error) error
	Debug  func(ctx context.Context, service string, on bool) error
	// AddFault gives the fault its id. RemoveFaults without ids removes all, and names them.
	AddFault     func(ctx context.Context, f fleet.Fault) (fleet.Fault, error)
	RemoveFaults func(ctx context.Context, ids []string, by string) (gone []string, err error)

	Env     func(ctx context.Context, service string) ([]Var, error) // service empty: the host's view
	Logs    func(ctx context.Context, r LogsRequest, send func(LogLine) error) error
	Exec    func(ctx context.Context, r ExecRequest) (exitCode int, err error)
	Why     func(ctx context.Context, requestID string) ([]fleet.Observation, error) // empty: the latest failures
	Tap     func(ctx context.Context, r TapRequest, send func(fleet.Observation) error) error
	Learned func(ctx context.Context) ([]fleet.Learned, error)
	Info    func(ctx context.Context) (Info, error)

	Nodes  func(ctx context.Context) ([]fleet.NodeInfo, error)
	Token  func(ctx context.Context, r TokenRequest) (Token, error)
	Revoke func(ctx context.Context, node string) error
	Rotate func(ctx context.Context) (done string, err error)
	Renew  func(ctx context.Context) (expires time.Time, err error)
	// Via connects to the operator API of another node, for `/node`.
	Via func(ctx context.Context, node string) (net.Conn, error)

	// Transport carries `/call`: requests that leave as the caller, the operator or a service.
	Transport func(caller string) http.RoundTripper
	// Tunnel carries `/forward`: raw bytes to a port of a service; port 0 is its default port.
	Tunnel func(ctx context.Context, caller, service string, port uint16) (net.Conn, error)
}

// Handler returns the operator API as Connect, gRPC and gRPC-Web, with the plain HTTP routes `/call`
// and `/forward`. Serve it with [Serve], whose HTTP/2 without TLS `exec` needs.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle(operatorv1connect.NewOperatorHandler(rpc{s}))
	mux.HandleFunc("/call", s.call)
	mux.HandleFunc("/forward", s.forward)
	mux.HandleFunc("/node", s.via)
	return mux
}

// missing refuses a verb that this process does not answer.
func (s *Server) missing(verb string) error {
	return connect.NewError(connect.CodeUnimplemented, errors.New(s.lacks(verb)))
}

func (s *Server) lacks(verb string) string {
	other := Hub
	if s.Process == Hub {
		other = Node
	}
	return fmt.Sprintf("the %s does not answer `%s`: ask the %s", s.Process, verb, other)
}

// refuse carries a verb's error to the other side: its text, and whether the caller ended it.
func refuse(err error) error {
	var known *connect.Error
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case errors.Is(err, context.Canceled):
		return connect.NewError(connect.CodeCanceled, err)
	case errors.Is(err, context.DeadlineExceeded):
		return connect.NewError(connect.CodeDeadlineExceeded, err)
	}
	return connect.NewError(connect.CodeUnknown, err)
}
