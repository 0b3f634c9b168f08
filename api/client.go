package api

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	"connectrpc.com/connect"

	pb "github.com/shoalrun/shoal/api/gen/shoal/operator/v1"
	"github.com/shoalrun/shoal/api/gen/shoal/operator/v1/operatorv1connect"
	"github.com/shoalrun/shoal/fleet"
)

// Client asks the fleet behind a pair of sockets. Each method goes to the process that answers it;
// status, watch, why, tap and down go to the node where the hub is gone. Where neither runs, methods
// return an error that is [ErrNotRunning].
type Client struct {
	hub, node *remote
}

// remote is one process as the client sees it.
type remote struct {
	process Process
	connect func(ctx context.Context) (net.Conn, error)
	log     string // where it says why it went
	rpc     operatorv1connect.OperatorClient
	plain   *http.Transport
}

// Dial returns a client of the fleet at p. It opens connections as they are needed.
func Dial(p Paths) *Client {
	return &Client{hub: newRemote(Hub, p.HubLog, at(p.Hub)), node: newRemote(Node, p.NodeLog, at(p.Node))}
}

// at connects to a socket.
func at(socket string) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", socket) }
}

func newRemote(process Process, log string, connect func(context.Context) (net.Conn, error)) *remote {
	r := &remote{process: process, connect: connect, log: log}
	var h2 http.Protocols
	h2.SetUnencryptedHTTP2(true)
	// A connection per call costs nothing on a Unix socket; one that is kept would hold up a server
	// that closes.
	rpc := &http.Transport{Protocols: &h2, DialContext: r.dial, DisableKeepAlives: true}
	r.rpc = operatorv1connect.NewOperatorClient(&http.Client{Transport: rpc}, "http://"+string(process))
	r.plain = &http.Transport{DialContext: r.dial, DisableCompression: true}
	return r
}

// dial connects to the process, whatever address the URL has.
func (r *remote) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	conn, err := r.connect(ctx)
	if err != nil && ctx.Err() == nil {
		return nil, &GoneError{Process: r.process, Log: r.log, Err: err}
	}
	return conn, err
}

// Close closes idle connections.
func (c *Client) Close() {
	c.hub.plain.CloseIdleConnections()
	c.node.plain.CloseIdleConnections()
}

// Info returns what a process says of itself.
func (c *Client) Info(ctx context.Context, p Process) (Info, error) {
	r := c.node
	if p == Hub {
		r = c.hub
	}
	res, err := r.rpc.Info(ctx, connect.NewRequest(&pb.InfoRequest{}))
	if err != nil {
		return Info{}, r.failure(ctx, err)
	}
	m := res.Msg
	return Info{
		Process: Process(m.Process), Version: m.Version, PID: int(m.Pid), Fleet: m.Fleet, Workspace: m.Workspace,
		Data: m.Data, Started: timeOf(m.StartedUnixNano), Executable: m.Executable, Owned: m.Owned,
	}, nil
}

// Running returns what hub or node says of itself, whichever answers first in that order, and
// [ErrNotRunning] where neither does.
func (c *Client) Running(ctx context.Context) (Info, error) {
	var info Info
	err := c.hubElseNode(func(r *remote) (err error) {
		info, err = c.Info(ctx, r.process)
		return err
	})
	return info, err
}

// Up asks the hub to run what the request names, and returns once all of it is ready, or with why not.
func (c *Client) Up(ctx context.Context, u UpRequest, each func(fleet.Progress)) error {
	req := &pb.UpRequest{Workspace: u.Workspace, Services: u.Services, Learn: u.Learn, Update: u.Update, Nodes: u.Nodes}
	stream, err := c.hub.rpc.Up(ctx, connect.NewRequest(req))
	return c.onlyHub(ctx, "up", receive(stream, err, ofProgress(each)))
}

// Down stops every service and then hub and node. It returns once they have begun to exit.
func (c *Client) Down(ctx context.Context, each func(fleet.Progress)) error {
	return c.hubElseNode(func(r *remote) error {
		stream, err := r.rpc.Down(ctx, connect.NewRequest(&pb.DownRequest{}))
		return r.failure(ctx, receive(stream, err, ofProgress(each)))
	})
}

// Status returns the state of the fleet.
func (c *Client) Status(ctx context.Context) (fleet.Status, error) {
	var st fleet.Status
	err := c.hubElseNode(func(r *remote) error {
		res, err := r.rpc.Status(ctx, connect.NewRequest(&pb.StatusRequest{}))
		if err != nil {
			return r.failure(ctx, err)
		}
		return json.Unmarshal(res.Msg.StatusJson, &st)
	})
	return st, err
}

// Watch calls each with the state of the fleet and then with every change of it, until ctx ends or
// the hub goes; a [GoneError] says the latter.
func (c *Client) Watch(ctx context.Context, each func(fleet.Status)) error {
	stream, err := c.hub.rpc.Watch(ctx, connect.NewRequest(&pb.StatusRequest{}))
	return c.onlyHub(ctx, "status --watch", receive(stream, err, func(m *pb.StatusResponse) error {
		return decode(m.StatusJson, each)
	}))
}

// Follow calls each with the progress of rebuilds and restarts from now on, until ctx ends.
func (c *Client) Follow(ctx context.Context, each func(fleet.Progress)) error {
	stream, err := c.hub.rpc.Follow(ctx, connect.NewRequest(&pb.FollowRequest{}))
	return c.onlyHub(ctx, "follow", receive(stream, err, ofProgress(each)))
}

// Restart restarts services one instance after the other, so that no call fails. None named: all.
func (c *Client) Restart(ctx context.Context, services []string, each func(fleet.Progress)) error {
	stream, err := c.hub.rpc.Restart(ctx, connect.NewRequest(&pb.RestartRequest{Services: services}))
	return c.onlyHub(ctx, "restart", receive(stream, err, ofProgress(each)))
}

// Upgrade replaces one process by executable, an absolute path.
func (c *Client) Upgrade(ctx context.Context, p Process, executable string, each func(fleet.Progress)) error {
	r := c.node
	if p == Hub {
		r = c.hub
	}
	stream, err := r.rpc.Upgrade(ctx, connect.NewRequest(&pb.UpgradeRequest{Executable: executable}))
	return c.only(ctx, r, "upgrade", receive(stream, err, ofProgress(each)))
}

// Publish publishes one event as the operator and returns its id.
func (c *Client) Publish(ctx context.Context, p Publication) (string, error) {
	req := &pb.PublishRequest{Topic: p.Topic, ContentType: p.ContentType, Data: p.Data, Attributes: p.Attributes,
		OrderingKey: p.Key, DelayNano: int64(p.Delay)}
	res, err := c.hub.rpc.Publish(ctx, connect.NewRequest(req))
	if err != nil {
		return "", c.onlyHub(ctx, "publish", err)
	}
	return res.Msg.Id, nil
}

// Attach lets address, HOST:PORT, take the place of a service until ctx ends.
func (c *Client) Attach(ctx context.Context, service, address string, each func(fleet.Progress)) error {
	stream, err := c.hub.rpc.Attach(ctx, connect.NewRequest(&pb.AttachRequest{Service: service, Address: address}))
	return c.onlyHub(ctx, "attach", receive(stream, err, ofProgress(each)))
}

// Debug suspends health, deadlines and restarts of a service, or ends that.
func (c *Client) Debug(ctx context.Context, service string, on bool) error {
	_, err := c.hub.rpc.Debug(ctx, connect.NewRequest(&pb.DebugRequest{Service: service, Off: !on}))
	return c.onlyHub(ctx, "debug", err)
}

// AddFault puts a fault in force, and returns it with its id.
func (c *Client) AddFault(ctx context.Context, f fleet.Fault) (fleet.Fault, error) {
	b, err := json.Marshal(f)
	if err != nil {
		return f, err
	}
	res, err := c.hub.rpc.AddFault(ctx, connect.NewRequest(&pb.AddFaultRequest{FaultJson: b}))
	if err != nil {
		return f, c.onlyHub(ctx, "fault add", err)
	}
	return f, json.Unmarshal(res.Msg.FaultJson, &f)
}

// RemoveFaults ends faults, or all where none is named, and returns the ids of those that are gone.
func (c *Client) RemoveFaults(ctx context.Context, ids []string, by string) ([]string, error) {
	res, err := c.hub.rpc.RemoveFaults(ctx, connect.NewRequest(&pb.RemoveFaultsRequest{Ids: ids, By: by}))
	if err != nil {
		return nil, c.onlyHub(ctx, "fault rm", err)
	}
	return res.Msg.Ids, nil
}

// Env returns the variables of the host's view, or of a service's own.
func (c *Client) Env(ctx context.Context, service string) ([]Var, error) {
	res, err := c.node.rpc.Env(ctx, connect.NewRequest(&pb.EnvRequest{Service: service}))
	if err != nil {
		return nil, c.onlyNode(ctx, "env", err)
	}
	vars := make([]Var, 0, len(res.Msg.Vars))
	for _, v := range res.Msg.Vars {
		vars = append(vars, Var{Name: v.Name, Value: v.Value, Secret: v.Secret})
	}
	return vars, nil
}

// Logs calls each with the lines that instances wrote, on whichever node.
func (c *Client) Logs(ctx context.Context, l LogsRequest, each func(LogLine)) error {
	others := c.others(ctx)
	if len(others) == 0 {
		return c.onlyNode(ctx, "logs", c.node.logs(ctx, l, each))
	}
	var mu sync.Mutex
	var lines []LogLine
	err := together(append(others, c.node), func(r *remote) error {
		return r.failure(ctx, r.logs(ctx, l, func(line LogLine) {
			mu.Lock()
			defer mu.Unlock()
			if l.Follow {
				each(line)
				return
			}
			lines = append(lines, line)
		}))
	})
	slices.SortStableFunc(lines, func(a, b LogLine) int { return a.Time.Compare(b.Time) })
	for _, line := range lines {
		each(line)
	}
	return err
}

func (r *remote) logs(ctx context.Context, l LogsRequest, each func(LogLine)) error {
	req := &pb.LogsRequest{Services: l.Services, Follow: l.Follow, Tail: int32(l.Tail), Access: l.Access}
	stream, err := r.rpc.Logs(ctx, connect.NewRequest(req))
	return receive(stream, err, func(m *pb.LogsResponse) error {
		each(LogLine{Service: m.Service, Instance: m.Instance, Stream: m.Stream, Time: timeOf(m.TimeUnixNano), Text: m.Text})
		return nil
	})
}

// Why returns what hub and nodes saw of a request, oldest first; of the latest failures where
// requestID is empty.
func (c *Client) Why(ctx context.Context, requestID string) ([]fleet.Observation, error) {
	var all []fleet.Observation
	err := c.all(ctx, func(r *remote) error {
		res, err := r.rpc.Why(ctx, connect.NewRequest(&pb.WhyRequest{RequestId: requestID}))
		if err != nil {
			return r.failure(ctx, err)
		}
		seen, err := unmarshalAll[fleet.Observation](res.Msg.ObservationsJson)
		all = append(all, seen...)
		return err
	})
	return oldestFirst(all), err
}

// Learned returns the undeclared things that learning let pass: calls and egress, which the node saw,
// and publishes, which the hub saw.
func (c *Client) Learned(ctx context.Context) ([]fleet.Learned, error) {
	var all []fleet.Learned
	err := c.all(ctx, func(r *remote) error {
		res, err := r.rpc.Learned(ctx, connect.NewRequest(&pb.LearnedRequest{}))
		if err != nil {
			return r.failure(ctx, err)
		}
		seen, err := unmarshalAll[fleet.Learned](res.Msg.LearnedJson)
		all = append(all, seen...)
		return err
	})
	return all, err
}

// Call sends a request into the fleet as a service, or as the operator where from is empty. The
// request's URL is `http://SERVICE/PATH`; both bodies stream.
func (c *Client) Call(from string, req *http.Request) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.Header.Set(headerTarget, req.URL.String())
	if from != "" {
		out.Header.Set(headerFrom, from)
	}
	if req.Host != "" && req.Host != req.URL.Host {
		out.Header.Set(headerHost, req.Host)
	}
	out.URL, out.Host = &url.URL{Scheme: "http", Host: string(Node), Path: "/call"}, string(Node)
	res, err := c.node.plain.RoundTrip(out)
	if err != nil {
		return nil, c.onlyNode(req.Context(), "call", err)
	}
	res.Request = req
	return res, nil
}

// Forward opens a tunnel to a port of a service, as the operator. Port 0 is its default port.
func (c *Client) Forward(ctx context.Context, service string, port uint16) (net.Conn, error) {
	query := url.Values{"service": {service}, "port": {strconv.Itoa(int(port))}}
	conn, err := c.node.tunnel(ctx, "/forward", query)
	return conn, c.onlyNode(ctx, "forward", err)
}

// tunnel asks r for a connection to what path and query name. An answer that is no tunnel is an error
// with the answer's words.
func (r *remote) tunnel(ctx context.Context, path string, query url.Values) (net.Conn, error) {
	conn, err := r.dial(ctx, "", "")
	if err != nil {
		return nil, err
	}
	defer contextClose(ctx, conn)()
	in := bufio.NewReader(conn)
	res, err := upgrade(conn, in, path, query)
	if err != nil {
		conn.Close()
		return nil, err
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		defer conn.Close()
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
		return nil, &RemoteError{Process: r.process, Code: connect.CodeUnavailable, Text: strings.TrimSpace(string(text))}
	}
	return &tunnel{UnixConn: conn.(*net.UnixConn), in: in}, nil
}

func upgrade(conn net.Conn, in *bufio.Reader, path string, query url.Values) (*http.Response, error) {
	req := &http.Request{
		Method: http.MethodGet, Host: string(Node), URL: &url.URL{Path: path, RawQuery: query.Encode()},
		Header: http.Header{"Connection": {"Upgrade"}, "Upgrade": {tunnelProtocol}},
	}
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	return http.ReadResponse(in, req)
}

// tunnel is a connection some of whose bytes were read with the answer's head.
type tunnel struct {
	*net.UnixConn
	in *bufio.Reader
}

func (t *tunnel) Read(b []byte) (int, error) { return t.in.Read(b) }

// WriteTo keeps the embedded connection's own from going around what was read ahead.
func (t *tunnel) WriteTo(w io.Writer) (int64, error) { return t.in.WriteTo(w) }
