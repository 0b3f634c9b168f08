package pubsub

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync"
	"time"

	"cloud.google.com/go/iam/apiv1/iampb"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/shoalrun/shoal/broker"
)

// Config configures a [Server]. All fields but Log are required.
type Config struct {
	Broker  *broker.Broker
	Store   Store        // of schemas, and of the key that signs tokens
	Project string       // of resources that no caller has named: the fleet's name
	Log     *slog.Logger // nil: nothing is logged
}

// Store is a durable key-value store, as [broker.Store] is.
type Store interface {
	Get(ctx context.Context, key string) ([]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Watch(ctx context.Context, prefix string, each func(key string, value []byte) error) error
}

// Server serves the API. Make one with [New], then [Server.Run] it.
type Server struct {
	config  Config
	schemas *schemas
	tokens  *tokens
	rpc     *grpc.Server
	rest    *http.Server
	rpcs    *broker.Conns // connections that speak HTTP/2
	rests   *broker.Conns // and HTTP/1.1
	sniffs  sync.WaitGroup
	stop    context.Context // ends when streams are to end
	cut     context.CancelFunc
}

// Sizes and times that are not worth a knob.
const (
	maxMessage   = 16 << 20         // bytes of one request: 10 MB of data in REST's base64 are a third longer
	maxStreams   = 1000             // at once on one connection
	prefaceWait  = 10 * time.Second // until a connection says what it speaks
	lastWords    = time.Second      // for answers when the server stops
	idleAfter    = 5 * time.Minute  // a connection without requests is closed
	clientsMayBe = 10 * time.Second // between two PINGs of a client
)

// New reads the schemas. The server works once it is run.
func New(ctx context.Context, c Config) (*Server, error) {
	if c.Broker == nil || c.Store == nil || c.Project == "" {
		return nil, errors.New("pubsub: Config needs Broker, Store and Project")
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	s := &Server{config: c, rpcs: broker.NewConns("pubsub"), rests: broker.NewConns("pubsub")}
	s.stop, s.cut = context.WithCancel(context.Background())
	var err error
	if s.schemas, err = openSchemas(ctx, c.Store); err != nil {
		return nil, err
	}
	s.tokens = &tokens{store: c.Store}
	s.rpc = s.newRPC()
	s.rest, err = s.newREST()
	return s, err
}

// newRPC makes the gRPC server, with every service.
func (s *Server) newRPC() *grpc.Server {
	g := grpc.NewServer(
		grpc.Creds(introduced{}), grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: clientsMayBe, PermitWithoutStream: true}),
	)
	pubsubpb.RegisterPublisherServer(g, &publisher{server: s})
	pubsubpb.RegisterSubscriberServer(g, &subscriber{server: s})
	pubsubpb.RegisterSchemaServiceServer(g, &schemaService{server: s})
	iampb.RegisterIAMPolicyServer(g, &iam{server: s})
	return g
}

// Run serves until ctx ends. Streams then end with UNAVAILABLE, so that clients come back. It is called once.
func (s *Server) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return served(ctx, s.rpc.Serve(s.rpcs)) })
	g.Go(func() error { return served(ctx, s.rest.Serve(s.rests)) })
	g.Go(func() error {
		<-ctx.Done()
		s.end()
		return nil
	})
	return g.Wait()
}

func served(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// end lets the last answers out.
func (s *Server) end() {
	s.cut()
	force := time.AfterFunc(lastWords, s.rpc.Stop)
	defer force.Stop()
	s.rpc.GracefulStop()
	ctx, cancel := context.WithTimeout(context.Background(), lastWords)
	defer cancel()
	if s.rest.Shutdown(ctx) != nil {
		_ = s.rest.Close()
	}
	s.sniffs.Wait()
}

// ServeConn serves one connection to the name `pubsub`: HTTP/2 with prior knowledge is gRPC, HTTP/1.1 is REST. Where c has a method
// `Caller() string`, its requests are that caller's, or the one's that the header Shoal-Caller names; from any other
// connection nothing is accepted. It returns at once.
func (s *Server) ServeConn(c net.Conn) { s.sniffs.Go(func() { s.sort(c) }) }

// sort hands a connection to the server of what it speaks.
func (s *Server) sort(c net.Conn) {
	ctx, done := context.WithTimeout(s.stop, prefaceWait)
	defer done()
	defer context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Now()) })()
	first := make([]byte, 1)
	if _, err := c.Read(first); err != nil || ctx.Err() != nil {
		_ = c.Close()
		return
	}
	begun := &begunConn{Conn: c, first: first}
	// The preface of HTTP/2 begins with PRI (RFC 9113, section 3.4); of HTTP/1.1's methods that the API has, POST, PUT and PATCH do
	// so, too.
	second := make([]byte, 1)
	for first[0] == 'P' && len(begun.first) < 2 {
		if _, err := c.Read(second); err != nil || ctx.Err() != nil {
			_ = c.Close()
			return
		}
		begun.first = append(begun.first, second[0])
	}
	if len(begun.first) == 2 && begun.first[1] == 'R' {
		s.rpcs.Push(begun)
		return
	}
	s.rests.Push(begun)
}

// begunConn is a connection of which the first bytes are read.
type begunConn struct {
	net.Conn
	first []byte
}

func (c *begunConn) Read(p []byte) (int, error) {
	if len(c.first) == 0 {
		return c.Conn.Read(p)
	}
	n := copy(p, c.first)
	c.first = c.first[n:]
	return n, nil
}

// Caller returns who calls; empty for nobody.
func (c *begunConn) Caller() string { return connCaller(c.Conn) }
