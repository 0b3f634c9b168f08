package pubsub

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"connectrpc.com/vanguard"
	"connectrpc.com/vanguard/vanguardgrpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/shoalrun/shoal/fleet"
)

// newREST makes the server of the REST form: the HTTP rules of the API's protobuf files, in front of the gRPC server's methods.
func (s *Server) newREST() (*http.Server, error) {
	rules, err := vanguardgrpc.NewTranscoder(s.rpc,
		vanguard.WithRules(iamRules()...),
		vanguard.WithCodec(func(types vanguard.TypeResolver) vanguard.Codec {
			return strictJSON{vanguard.JSONCodec{
				MarshalOptions:   protojson.MarshalOptions{Resolver: types},
				UnmarshalOptions: protojson.UnmarshalOptions{Resolver: types},
			}}
		}),
		vanguard.WithDefaultServiceOptions(
			vanguard.WithMaxMessageBufferBytes(maxMessage),
			// Clients add parameters of Google's own, such as $alt, prettyPrint and key.
			vanguard.WithRESTUnmarshalOptions(vanguard.RESTUnmarshalOptions{DiscardUnknownQueryParams: true}),
		),
	)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.Handle("/", readable(googleErrors(escaped(rules))))
	events := http.StripPrefix(eventsPath, s.config.Broker.Handler())
	mux.Handle(eventsPath, events) // without a topic: it says so, and is not redirected
	mux.Handle(eventsPath+"/", events)
	mux.HandleFunc("GET "+keysPath, s.serveKeys)
	mux.HandleFunc("GET /.well-known/openid-configuration", s.serveDiscovery)
	return &http.Server{
		Handler: sameOrigin(mux), ConnContext: s.connContext, ReadHeaderTimeout: prefaceWait, IdleTimeout: idleAfter,
		ErrorLog: slog.NewLogLogger(s.config.Log.Handler(), slog.LevelDebug),
	}, nil
}

// strictJSON reads messages with the fields that they have, and says that it is the caller who sent something else.
type strictJSON struct{ vanguard.JSONCodec }

func (c strictJSON) Unmarshal(data []byte, m proto.Message) error {
	return unreadable(c.JSONCodec.Unmarshal(data, m))
}

func (c strictJSON) UnmarshalField(data []byte, m proto.Message, f protoreflect.FieldDescriptor) error {
	return unreadable(c.JSONCodec.UnmarshalField(data, m, f))
}

func unreadable(err error) error {
	if err == nil {
		return nil
	}
	return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("the request cannot be read: %w", err))
}

// eventsPath is where CloudEvents are posted, as to the name `events`: for tools on the host, which reach one port.
const eventsPath = "/events"

// connContext tells requests, of the API and of events, the caller of their connection.
func (s *Server) connContext(ctx context.Context, c net.Conn) context.Context {
	ctx = withCaller(ctx, c)
	if connCaller(c) == "" {
		return ctx
	}
	return s.config.Broker.ConnContext(ctx, c)
}

// readable takes bodies as people send them: JSON, whatever curl calls it. What the transcoder could not read it refuses, and says why.
func readable(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
		main, _, _ := strings.Cut(kind, "/")
		switch {
		case r.ContentLength == 0:
		case hasNoBody(r):
			writeError(w, codes.InvalidArgument, fmt.Sprintf("%s %s takes no body: leave it out", r.Method, r.URL.Path), nil)
			return
		case kind == "" || kind == "application/x-www-form-urlencoded" || kind == "application/json": // in whatever case
			r.Header.Set("Content-Type", "application/json")
		case main != "application":
			writeError(w, codes.InvalidArgument, fmt.Sprintf("the body is %q: send JSON, as application/json", kind), nil)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// hasNoBody reports whether a request is one of those that have none by the HTTP rules of the API.
func hasNoBody(r *http.Request) bool {
	return r.Method == http.MethodGet || r.Method == http.MethodDelete || strings.HasSuffix(r.URL.Path, ":detach")
}

// escaped shows the transcoder paths as they were sent: it decodes them itself, and decoded twice `%25` is no longer a percent sign.
func escaped(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent, u := *r, *r.URL
		u.Path, u.RawPath = r.URL.EscapedPath(), ""
		sent.URL = &u
		next.ServeHTTP(w, &sent)
	})
}

// sameOrigin keeps web pages, which may send to loopback from any browser of this machine, from speaking as an operator: by a request
// across origins, or by a name of theirs that they let resolve to loopback.
func sameOrigin(next http.Handler) http.Handler {
	protection := http.NewCrossOriginProtection()
	protection.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		writeError(w, codes.PermissionDenied, "this request comes from a web page of another origin: pages are no tools of this machine", nil)
	}))
	guarded := protection.Handler(next)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if caller, _ := r.Context().Value(callerKey{}).(string); caller == fleet.Operator && !isOurs(r.Host) {
			writeError(w, codes.PermissionDenied, "this listener is for tools on this machine: call it by an address, or as localhost", nil)
			return
		}
		guarded.ServeHTTP(w, r)
	})
}

// isOurs reports whether a host is an address, or a name that no page can have.
func isOurs(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return net.ParseIP(strings.Trim(host, "[]")) != nil || host == "localhost" || host == fleet.Pubsub
}

// googleErrors gives errors the form that Google's APIs have: {"error": {code, message, status, details}}
// (https://cloud.google.com/apis/design/errors#http_mapping).
func googleErrors(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := &errorWriter{ResponseWriter: w, request: r}
		next.ServeHTTP(e, r)
		e.finish()
	})
}

// errorWriter holds the body of an error back.
type errorWriter struct {
	http.ResponseWriter
	request *http.Request
	status  int // of an error; 0: it is none
	body    bytes.Buffer
}

func (w *errorWriter) WriteHeader(status int) {
	if status < 400 {
		w.ResponseWriter.WriteHeader(status)
		return
	}
	w.status = status
}

func (w *errorWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		return w.ResponseWriter.Write(p)
	}
	return w.body.Write(p)
}

// Flush is what the transcoder asks for.
func (w *errorWriter) Flush() {
	if f, ok := w.ResponseWriter.(http.Flusher); ok && w.status == 0 {
		f.Flush()
	}
}

func (w *errorWriter) finish() {
	if w.status == 0 {
		return
	}
	var s struct {
		Code    codes.Code        `json:"code"`
		Message string            `json:"message"`
		Details []json.RawMessage `json:"details"`
	}
	err := json.Unmarshal(w.body.Bytes(), &s)
	if err != nil {
		s.Code, s.Message = codeOf(w.status), cmp.Or(strings.TrimSpace(w.body.String()), http.StatusText(w.status))
	}
	if err != nil && s.Code == codes.NotFound {
		s.Message = fmt.Sprintf("the API has no method %s %s: see https://cloud.google.com/pubsub/docs/reference/rest", w.request.Method, w.request.URL.Path)
	}
	writeError(w.ResponseWriter, s.Code, s.Message, s.Details)
}

func writeError(w http.ResponseWriter, code codes.Code, message string, details []json.RawMessage) {
	status, name := httpForm(code)
	body, _ := json.Marshal(map[string]any{"error": struct {
		Code    int               `json:"code"`
		Message string            `json:"message"`
		Status  string            `json:"status"`
		Details []json.RawMessage `json:"details,omitempty"`
	}{status, message, name, details}})
	h := w.Header()
	h.Del("Content-Encoding")
	h.Set("Content-Type", "application/json; charset=UTF-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// httpForm is the status and the name of a code (https://github.com/googleapis/googleapis/blob/master/google/rpc/code.proto).
func httpForm(code codes.Code) (status int, name string) {
	switch code {
	case codes.InvalidArgument:
		return http.StatusBadRequest, "INVALID_ARGUMENT"
	case codes.FailedPrecondition:
		return http.StatusBadRequest, "FAILED_PRECONDITION"
	case codes.PermissionDenied:
		return http.StatusForbidden, "PERMISSION_DENIED"
	case codes.NotFound:
		return http.StatusNotFound, "NOT_FOUND"
	case codes.AlreadyExists:
		return http.StatusConflict, "ALREADY_EXISTS"
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests, "RESOURCE_EXHAUSTED"
	case codes.Canceled:
		return 499, "CANCELLED"
	case codes.Unimplemented:
		return http.StatusNotImplemented, "UNIMPLEMENTED"
	case codes.Unavailable:
		return http.StatusServiceUnavailable, "UNAVAILABLE"
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout, "DEADLINE_EXCEEDED"
	}
	return http.StatusInternalServerError, "INTERNAL"
}

// codeOf is the code for an answer that the transcoder gave by itself: it found no method, or could not read the request.
func codeOf(status int) codes.Code {
	switch {
	case status == http.StatusNotFound || status == http.StatusMethodNotAllowed:
		return codes.NotFound
	case status < 500:
		return codes.InvalidArgument
	}
	return codes.Internal
}
