package nats

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

const (
	connectPatience = 10 * time.Second // until a client has said who it is
	writePatience   = 10 * time.Second // until a client has read what it is sent
	readPatience    = 60 * time.Second // until an operation that has begun is there
	pingInterval    = 30 * time.Second
	bufferSize      = 32 << 10
	maxInboxes      = 1024 // subscriptions to reply subjects, per connection
)

// conn is one client's connection.
type conn struct {
	server *Server
	net    net.Conn
	caller string // as the mesh knows it
	in     *bufio.Reader
	out    *writer

	ctx      context.Context // ends with the connection
	cancel   context.CancelFunc
	work     sync.WaitGroup
	verbose  bool
	headers  bool
	publish  publisher
	unheard  int      // pings without an answer; the reader's
	starting []func() // what sessions do, once it is known whether an UNSUB follows their SUB; the reader's
	mu       sync.Mutex
	inboxes  map[string]*inbox      // by sid
	sessions map[string]*session    // by topic
	bySID    map[string]*subscriber // of all sessions
}

// inbox is a subscription to subjects on which the client awaits replies.
type inbox struct {
	sid     string
	pattern []string
	left    int // messages until it ends; 0: no end
}

func newConn(s *Server, c net.Conn, caller string) *conn {
	n := &conn{server: s, net: c, caller: caller, in: bufio.NewReaderSize(c, bufferSize), out: newWriter(c),
		inboxes: make(map[string]*inbox), sessions: make(map[string]*session), bySID: make(map[string]*subscriber)}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.publish.init(n)
	return n
}

// close ends the connection; serve returns soon.
func (n *conn) close() {
	n.cancel()
	_ = n.net.Close()
}

// serve is the life of a connection: greet, hear who it is, then do what it asks until it leaves.
func (n *conn) serve() {
	n.work.Go(n.out.run)
	n.greet()
	err := n.admit()
	if err == nil {
		n.work.Go(n.publish.run)
		err = n.obey()
	}
	n.farewell(err)
	n.cancel()
	n.start() // what has not begun ends at once
	n.publish.end()
	n.endSessions()
	n.out.end()
	n.work.Wait()
	_ = n.net.Close()
}

// info is the greeting of a server.
type info struct {
	ID         string `json:"server_id"`
	Name       string `json:"server_name"`
	Version    string `json:"version"`
	Proto      int    `json:"proto"`
	Host       string `json:"host"`
	Port       int    `json:"port"`
	Headers    bool   `json:"headers"`
	Auth       bool   `json:"auth_required"`
	MaxPayload int    `json:"max_payload"`
	ClientID   uint64 `json:"client_id"`
}

func (n *conn) greet() {
	text, _ := json.Marshal(info{ID: "shoal", Name: "shoal", Version: "2.10.0+shoal", Proto: 1, Host: fleet.NATS, Port: 4222,
		Headers: true, Auth: true, MaxPayload: n.server.config.MaxData + maxHeader, ClientID: n.server.last.Add(1)})
	n.out.write("INFO ", string(text), "\r\n")
}

var errUnauthorized = errors.New("Authorization Violation")

// admit hears who the client is: the caller that the mesh knows, with its credential.
func (n *conn) admit() error {
	_ = n.net.SetReadDeadline(time.Now().Add(connectPatience))
	o, err := readOp(n.in, n.server.config.MaxData)
	if err != nil {
		return err
	}
	var says struct {
		User, Pass, Name string
		Verbose, Headers bool
	}
	if o.verb != "CONNECT" {
		return errUnauthorized
	}
	if err := json.Unmarshal(o.data, &says); err != nil {
		return errSyntax
	}
	if says.User != n.caller || n.caller == "" || !n.server.config.Admit(says.User, says.Pass) {
		n.refuse("CONNECT", "", fmt.Sprintf("a client that says it is %q came by the connection of %q, or its password is not that service's. Use the NATS_URL that the service is started with; on the host, what `shoal env` prints", says.User, n.caller))
		return errUnauthorized
	}
	n.verbose, n.headers = says.Verbose, says.Headers
	n.okay()
	return nil
}

func (n *conn) okay() {
	if n.verbose {
		n.out.write("+OK\r\n")
	}
}

// obey does what the client asks until it leaves, or errs.
func (n *conn) obey() error {
	for {
		_ = n.net.SetReadDeadline(time.Now().Add(pingInterval))
		o, err := n.next()
		if err != nil {
			return err
		}
		if o.verb != "SUB" && o.verb != "UNSUB" {
			n.start()
		}
		switch o.verb {
		case "PUB", "HPUB":
			n.okay()
			n.published(o)
		case "SUB":
			n.okay()
			n.subscribe(o)
		case "UNSUB":
			n.okay()
			n.unsubscribe(o)
		case "PING":
			n.out.write("PONG\r\n")
		}
	}
}

// start lets the sessions begin that the client has asked for.
func (n *conn) start() {
	for _, receive := range n.starting {
		n.work.Go(receive)
	}
	n.starting = nil
}

// next reads an operation. It asks a client that is silent whether it is still there.
func (n *conn) next() (op, error) {
	if n.in.Buffered() == 0 {
		n.start()
	}
	for {
		_, err := n.in.Peek(1)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() && n.unheard < 2 {
			n.unheard++
			n.out.write("PING\r\n")
			_ = n.net.SetReadDeadline(time.Now().Add(pingInterval))
			continue
		}
		if err != nil {
			return op{}, err
		}
		n.unheard = 0
		_ = n.net.SetReadDeadline(time.Now().Add(readPatience))
		return readOp(n.in, n.server.config.MaxData)
	}
}

// farewell tells a client why the connection ends, where it can be told.
func (n *conn) farewell(err error) {
	for _, known := range []error{errUnauthorized, errLine, errPayload, errSyntax} {
		if errors.Is(err, known) {
			n.out.write("-ERR '", known.Error(), "'\r\n")
			return
		}
	}
	if err != nil && !errors.Is(err, io.EOF) && n.ctx.Err() == nil {
		n.server.config.Log.Debug("a NATS connection ended", "caller", n.caller, "error", err)
	}
}

// denied tells the client that it may not, in the words of nats-server, which its library knows; what the operator
// is told says which line would let it.
func (n *conn) denied(verb, subject, why string) {
	n.refuse(verb, subject, why)
	n.violation(verb, subject)
}

func (n *conn) violation(verb, subject string) {
	what := "Publish to"
	if verb == "SUB" {
		what = "Subscription to"
	}
	n.out.write("-ERR 'Permissions Violation for ", what, " \"", subject, "\"'\r\n")
}

// refuse records a refusal, for `why`, the metrics and the log.
func (n *conn) refuse(verb, subject, why string) {
	n.server.config.Log.Warn("refused a NATS client", "caller", n.caller, "operation", verb, "subject", subject, "why", why)
	n.server.config.Observe(&fleet.Observation{
		Kind: fleet.KindPublish, RequestID: newID(), Time: time.Now(), Caller: n.caller, Callee: fleet.NATS, Protocol: fleet.TCP,
		Method: verb, Path: subject, Status: 403, Reason: string(fleet.ReasonNotAllowed), Detail: why,
	})
}

// reply sends an answer to a subject on which the client awaits one. Nobody else ever hears it.
func (n *conn) reply(subject string, status string, data []byte) {
	if subject == "" {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, in := range n.inboxes {
		if !matches(in.pattern, subject) {
			continue
		}
		n.out.message(in.sid, subject, "", []byte(status), data)
		if in.left--; in.left == 0 {
			delete(n.inboxes, in.sid)
		}
	}
}

// matches reports whether a pattern of tokens matches a subject.
func matches(pattern []string, subject string) bool {
	tokens := strings.Split(subject, ".")
	for i, p := range pattern {
		if p == ">" {
			return len(tokens) > i
		}
		if i >= len(tokens) || p != "*" && p != tokens[i] {
			return false
		}
	}
	return len(tokens) == len(pattern)
}

// newID makes the request id of what has none.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
