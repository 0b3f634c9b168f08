package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"

	peerv1 "github.com/shoalrun/shoal/api/gen/shoal/peer/v1"
	"github.com/shoalrun/shoal/api/gen/shoal/peer/v1/peerv1connect"
	"github.com/shoalrun/shoal/control"
	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/identity"
)

// partSize is how many services one message of a snapshot carries.
const partSize = 200

// link serves shoal.peer.v1: the hub's end of what joins each node to it. It is also the driver by
// which deploy acts on nodes.
type link struct {
	peerv1connect.UnimplementedPeerHandler
	control *control.Control
	home    string // the node on this machine
	cache   string // folder of releases
	// document returns what every node must know of the others, and what is closed when there is a newer.
	document func() (*fleet.Mesh, <-chan struct{})
	// observing returns the settings of traces and access records, and what is closed when they change.
	observing func() (fleet.Observing, <-chan struct{})
	// certify certifies the node on this machine.
	certify func(ctx context.Context, csr []byte) (identity.Issued, error)
	// declares tells whether a service names a secret; secrets resolves some.
	declares func(service, ref string) bool
	secrets  func(ctx context.Context, refs []string) (map[string]string, error)
	// joined is called with all that a node runs whenever it (re)connects; changed with each
	// instance that changes after that.
	joined  func(node string, all []fleet.InstanceStatus)
	changed func(fleet.InstanceStatus)
	// moved is called whenever a node came, went, or said something new of itself.
	moved func()

	mu      sync.Mutex
	nodes   map[string]*commandStream
	joins   map[string]int // how often each node has connected
	arrived chan struct{}  // closed and replaced whenever a node's command stream appears
	lastID  uint64
	edges   map[string][]fleet.EdgeStats // by node
	told    map[string]fleet.NodeStatus  // what each node said of itself last
	rates   *rates
}

// commandStream is one node's stream of commands and the calls that wait for its answers.
type commandStream struct {
	mu      sync.Mutex // serialises sends
	stream  *connect.BidiStream[peerv1.CommandsRequest, peerv1.CommandsResponse]
	waiting map[uint64]chan *peerv1.CommandsRequest // guarded by link.mu
	last    uint64                                  // id of a shutdown, whose answer ends the stream; guarded by link.mu
	gone    chan struct{}
}

func newLink(c *control.Control) *link {
	return &link{
		control: c, nodes: make(map[string]*commandStream), joins: make(map[string]int), arrived: make(chan struct{}),
		edges: make(map[string][]fleet.EdgeStats), told: make(map[string]fleet.NodeStatus), rates: newRates(), moved: func() {},
	}
}

// Snapshots sends everything once and then what changes, and takes acknowledgements.
func (l *link) Snapshots(ctx context.Context, stream *connect.BidiStream[peerv1.SnapshotsRequest, peerv1.SnapshotsResponse]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	node, err := l.speaker(ctx, first.Node)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer l.join(node)()
	go func() {
		defer cancel()
		for {
			ack, err := stream.Receive()
			if err != nil {
				return
			}
			l.control.Ack(node, ack.Acknowledged)
		}
	}()
	var sending sync.Mutex
	send := func(m *peerv1.SnapshotsResponse) error {
		sending.Lock()
		defer sending.Unlock()
		return stream.Send(m)
	}
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel()
	for _, one := range []func(sender) (<-chan struct{}, error){l.sendDocument, l.sendObserving} {
		next, err := one(send) // the document before the first service whose place it explains
		if err != nil {
			return err
		}
		others.Go(func() {
			defer cancel()
			follow(ctx, next, func() (<-chan struct{}, error) { return one(send) })
		})
	}
	moves, leave := l.rates.join(node)
	defer leave()
	others.Go(func() {
		defer cancel()
		sendMoves(ctx, moves, send)
	})
	return l.sendSnapshots(ctx, send)
}

// sendMoves tells a node what parts of rates come to it, or are asked of it.
func sendMoves(ctx context.Context, moves <-chan fleet.RateMove, send sender) {
	for err := error(nil); err == nil; {
		select {
		case <-ctx.Done():
			return
		case m := <-moves:
			b, _ := json.Marshal(m) // plain data always marshals
			err = send(&peerv1.SnapshotsResponse{RateMove: b})
		}
	}
}

// sender sends a message on a node's stream.
type sender func(*peerv1.SnapshotsResponse) error

// follow calls again each time that next is closed, until ctx ends or it fails.
func follow(ctx context.Context, next <-chan struct{}, again func() (<-chan struct{}, error)) {
	for err := error(nil); err == nil; {
		select {
		case <-ctx.Done():
			return
		case <-next:
			next, err = again()
		}
	}
}

// sendObserving sends the settings of traces and access records.
func (l *link) sendObserving(send sender) (next <-chan struct{}, err error) {
	o, next := l.observing()
	b, err := json.Marshal(o)
	if err != nil {
		return next, err
	}
	return next, send(&peerv1.SnapshotsResponse{Observing: b})
}

// sendDocument sends what a node must know of the others, if anything, and returns what is closed when
// there is more.
func (l *link) sendDocument(send sender) (next <-chan struct{}, err error) {
	document, next := l.document()
	if document == nil {
		return next, nil
	}
	b, err := json.Marshal(document)
	if err != nil {
		return next, err
	}
	return next, send(&peerv1.SnapshotsResponse{Fleet: document.Fleet, Mesh: b})
}

// join makes a node live until the returned func is called, unless the node has connected again by
// then: a new connection may come before the old one is known to be dead.
func (l *link) join(node string) (leave func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.joins[node]++
	mine := l.joins[node]
	l.control.Join(node)
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.joins[node] == mine {
			l.control.Leave(node)
		}
	}
}

func (l *link) sendSnapshots(ctx context.Context, send func(*peerv1.SnapshotsResponse) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	first := true
	l.control.Watch(ctx, func(s *fleet.Snapshot, changed []*fleet.Service, removed []string) {
		if first {
			changed, removed = s.Services, nil
		}
		if err := sendParts(send, s, changed, removed, first); err != nil {
			cancel(err)
		}
		first = false
	})
	return context.Cause(ctx)
}

func sendParts(send func(*peerv1.SnapshotsResponse) error, s *fleet.Snapshot, changed []*fleet.Service, removed []string, complete bool) error {
	m := &peerv1.SnapshotsResponse{Fleet: s.Fleet}
	for _, service := range changed {
		b, err := json.Marshal(service)
		if err != nil {
			return fmt.Errorf("service %s: %w", service.Name, err)
		}
		if m.Services = append(m.Services, b); len(m.Services) < partSize {
			continue
		}
		if err := send(m); err != nil {
			return err
		}
		m = &peerv1.SnapshotsResponse{Fleet: s.Fleet}
	}
	m.Version, m.Removed, m.Complete = s.Version, removed, complete
	return send(m)
}

// Commands registers the node's stream and hands its answers to who waits for them.
func (l *link) Commands(ctx context.Context, stream *connect.BidiStream[peerv1.CommandsRequest, peerv1.CommandsResponse]) error {
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	node, err := l.speaker(ctx, first.Node)
	if err != nil {
		return err
	}
	c := &commandStream{stream: stream, waiting: make(map[uint64]chan *peerv1.CommandsRequest), gone: make(chan struct{})}
	l.register(node, c)
	defer l.unregister(node, c)
	for {
		answer, err := stream.Receive()
		if err != nil {
			return err
		}
		if l.answer(c, answer) {
			return nil
		}
	}
}

func (l *link) register(node string, c *commandStream) {
	defer l.moved()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nodes[node] = c
	close(l.arrived)
	l.arrived = make(chan struct{})
}

func (l *link) unregister(node string, c *commandStream) {
	defer l.moved()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nodes[node] == c {
		delete(l.nodes, node)
	}
	close(c.gone)
}

// answer hands m to who waits for it, and reports whether it is the stream's last.
func (l *link) answer(c *commandStream, m *peerv1.CommandsRequest) (last bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if waiting := c.waiting[m.Id]; waiting != nil {
		waiting <- m // has a buffer of one
	}
	delete(c.waiting, m.Id)
	return m.Id == c.last
}

// connectPatience bounds how long a command waits for a node that is not connected: one that was
// restarted is back by then, and of one that was not the operator is to hear.
const connectPatience = 5 * time.Second

// command sends one command to a node and waits for its answer. It waits a while for a node that is not
// connected, and sends again to one that went away before it answered: commands are idempotent.
func (l *link) command(ctx context.Context, node string, c *peerv1.CommandsResponse) (*peerv1.CommandsRequest, error) {
	for {
		answer, err := l.tryCommand(ctx, node, c)
		if !errors.Is(err, errNodeGone) {
			return answer, err
		}
	}
}

var errNodeGone = errors.New("the node went away")

func (l *link) tryCommand(ctx context.Context, node string, c *peerv1.CommandsResponse) (*peerv1.CommandsRequest, error) {
	waiting, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	to, err := l.waitFor(waiting, node)
	if err != nil {
		return nil, err
	}
	result := make(chan *peerv1.CommandsRequest, 1)
	l.mu.Lock()
	l.lastID++ // the first is 1: 0 is nobody's
	id := l.lastID
	to.waiting[id] = result
	if c.GetShutdown() {
		to.last = id
	}
	l.mu.Unlock()

	to.mu.Lock()
	err = to.stream.Send(&peerv1.CommandsResponse{Id: id, Command: c.Command})
	to.mu.Unlock()
	if err != nil {
		l.forget(node, to)
		return nil, errNodeGone
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-to.gone:
		select {
		case answer := <-result: // its last words
			return judge(answer)
		default:
			return nil, errNodeGone
		}
	case answer := <-result:
		return judge(answer)
	}
}

func judge(answer *peerv1.CommandsRequest) (*peerv1.CommandsRequest, error) {
	if answer.Error != "" {
		return nil, errors.New(answer.Error)
	}
	return answer, nil
}

// forget drops a stream that cannot be written, so that the next attempt waits for a new one.
func (l *link) forget(node string, c *commandStream) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.nodes[node] == c {
		delete(l.nodes, node)
	}
}

func (l *link) waitFor(ctx context.Context, node string) (*commandStream, error) {
	for {
		l.mu.Lock()
		c, arrived := l.nodes[node], l.arrived
		l.mu.Unlock()
		if c != nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("node %s is not connected: %w", node, ctx.Err())
		case <-arrived:
		}
	}
}

// Report takes what a node says of itself.
func (l *link) Report(ctx context.Context, stream *connect.ClientStream[peerv1.ReportRequest]) (*connect.Response[peerv1.ReportResponse], error) {
	for stream.Receive() {
		node, err := l.speaker(ctx, stream.Msg().Node)
		if err != nil {
			return nil, err
		}
		if err := l.take(node, stream.Msg()); err != nil {
			return nil, connect.NewError(connect.CodeInvalidArgument, err)
		}
	}
	return connect.NewResponse(&peerv1.ReportResponse{}), stream.Err()
}

func (l *link) take(node string, m *peerv1.ReportRequest) error {
	switch {
	case m.Instances != nil:
		return l.takeAll(node, m)
	case m.NodeStatus != nil:
		return l.takeStatus(node, m.NodeStatus)
	case m.RateMove != nil:
		var move fleet.RateMove
		err := json.Unmarshal(m.RateMove, &move)
		l.rates.heard(node, move, time.Now())
		return err
	case m.Edges != nil:
		var edges []fleet.EdgeStats
		err := json.Unmarshal(m.Edges, &edges)
		l.mu.Lock()
		l.edges[node] = edges
		l.mu.Unlock()
		return err
	}
	var s fleet.InstanceStatus
	if err := json.Unmarshal(m.Instance, &s); err != nil {
		return err
	}
	if err := own(node, s); err != nil {
		return err
	}
	l.changed(s)
	return nil
}

func (l *link) takeAll(node string, m *peerv1.ReportRequest) error {
	var all []fleet.InstanceStatus
	if err := json.Unmarshal(m.Instances, &all); err != nil {
		return err
	}
	for _, s := range all {
		if err := own(node, s); err != nil {
			return err
		}
	}
	if err := l.takeStatus(node, m.NodeStatus); err != nil {
		return err
	}
	l.joined(node, all)
	return nil
}

// own refuses what a node says of another's instances.
func own(node string, s fleet.InstanceStatus) error {
	if s.Node != node {
		return fmt.Errorf("node %s reports %s, which is on node %q", node, s.Instance, s.Node)
	}
	return nil
}

// expel forgets a node that left the fleet: its connection is closed elsewhere.
func (l *link) expel(node string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.nodes, node)
	delete(l.told, node)
	delete(l.edges, node)
}

func (l *link) takeStatus(node string, b []byte) error {
	var status fleet.NodeStatus
	if err := json.Unmarshal(b, &status); err != nil {
		return err
	}
	l.mu.Lock()
	l.told[node] = status
	l.mu.Unlock()
	l.moved()
	return nil
}

// Node returns the last that a node said of itself.
func (l *link) Node(name string) fleet.NodeStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.told[name]
}

// Edges returns what every node counted, an edge for each of them that saw it.
func (l *link) Edges() []fleet.EdgeStats {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []fleet.EdgeStats
	for _, node := range slices.Sorted(maps.Keys(l.edges)) {
		all = append(all, l.edges[node]...)
	}
	return all
}

// live returns the nodes that are connected, by name, as each told of itself.
func (l *link) live() map[string]fleet.NodeStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	live := make(map[string]fleet.NodeStatus, len(l.nodes))
	for name := range l.nodes {
		if status, told := l.told[name]; told {
			live[name] = status
		}
	}
	return live
}

// Connected reports whether the node's commands would be heard now.
func (l *link) Connected(node string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nodes[node] != nil
}

// driver acts on nodes; it is deploy.Driver.
type driver struct {
	link     *link
	password func(service string) string
}

func (d driver) Start(ctx context.Context, node string, a fleet.Assignment) error {
	a.Credential = d.password(a.Service)
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = d.link.command(ctx, node, &peerv1.CommandsResponse{Command: &peerv1.CommandsResponse_Start{Start: b}})
	return err
}

func (d driver) Stop(ctx context.Context, node, instance string) error {
	_, err := d.link.command(ctx, node, &peerv1.CommandsResponse{Command: &peerv1.CommandsResponse_Stop{Stop: instance}})
	return err
}

func (d driver) Probe(ctx context.Context, node, instance string) (fleet.InstanceStatus, error) {
	answer, err := d.link.command(ctx, node, &peerv1.CommandsResponse{Command: &peerv1.CommandsResponse_Probe{Probe: instance}})
	if err != nil {
		return fleet.InstanceStatus{}, err
	}
	var s fleet.InstanceStatus
	err = json.Unmarshal(answer.Status, &s)
	return s, err
}

// Shutdown tells a node to stop everything and to exit.
func (d driver) Shutdown(ctx context.Context, node string) error {
	_, err := d.link.command(ctx, node, &peerv1.CommandsResponse{Command: &peerv1.CommandsResponse_Shutdown{Shutdown: true}})
	return err
}
