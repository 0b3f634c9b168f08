package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	peerv1 "github.com/shoalrun/shoal/api/gen/shoal/peer/v1"
	"github.com/shoalrun/shoal/api/gen/shoal/peer/v1/peerv1connect"
	"github.com/shoalrun/shoal/fleet"
)

// How long the node waits before it calls a hub again that did not answer, and how often it sends
// the edges' totals.
const (
	linkRetryMin  = 20 * time.Millisecond
	linkRetryMax  = time.Second
	edgesInterval = 100 * time.Millisecond

	// How long the link may be silent until the hub is asked for a sign of life, and how long that may take.
	linkSilence = 2 * time.Second
	linkAnswer  = 3 * time.Second
)

// linkConfig joins a link to the rest of the node.
type linkConfig struct {
	node    string
	dial    func(ctx context.Context) (net.Conn, error)
	learn   func(document []byte) // of what every node must know of the others
	observe func(fleet.Observing) // changed settings
	short   func() []string       // services of whose rate this node had too little since it was asked last
	move    func(fleet.RateMove) (given map[string]float64)
	refused func(ctx context.Context) error // the hub closed the connection for the node's certificate: renews it, or says why not
	install func(p *parts) error
	command func(ctx context.Context, c *peerv1.CommandsResponse) (fleet.InstanceStatus, error)
	quit    func() // called once a shutdown has been answered
	status  func() fleet.NodeStatus
	all     func() []fleet.InstanceStatus
	edges   func() []fleet.EdgeStats
	log     *slog.Logger
}

// link keeps a node joined to its hub: one connection with three streams, opened again whenever it
// breaks. The node works on without it.
type link struct {
	linkConfig

	mu      sync.Mutex
	hangUp  context.CancelFunc              // ends the session
	client  peerv1connect.PeerClient        // of the session; nil: there is none
	told    bool                            // the hub knows the node's status as it is
	paused  chan struct{}                   // open while a successor takes over
	changed map[string]fleet.InstanceStatus // by instance, not yet sent; only the latest counts
	given   []map[string]float64            // parts of rates that were given up and not yet sent
	wake    chan struct{}                   // has a buffer of one
}

func newLink(c linkConfig) *link {
	l := &link{
		linkConfig: c,
		changed:    make(map[string]fleet.InstanceStatus),
		wake:       make(chan struct{}, 1),
		paused:     make(chan struct{}),
	}
	close(l.paused)
	return l
}

// Hub returns what asks the hub while it is connected.
func (l *link) Hub() (peerv1connect.PeerClient, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.client == nil {
		return nil, errors.New("the hub is not connected now")
	}
	return l.client, nil
}

func (l *link) setClient(c peerv1connect.PeerClient) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.client = c
}

// Restate has the hub told the node's status anew.
func (l *link) Restate() {
	l.mu.Lock()
	l.told = false
	l.mu.Unlock()
	l.rouse()
}

// Report notes a change of an instance; it is sent as soon as the hub can be reached.
func (l *link) Report(s fleet.InstanceStatus) {
	l.mu.Lock()
	l.changed[s.Instance] = s
	l.mu.Unlock()
	l.rouse()
}

func (l *link) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *link) takeChanged() map[string]fleet.InstanceStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := l.changed
	l.changed = make(map[string]fleet.InstanceStatus)
	return taken
}

// Pause ends the connection, so that a successor can have one, until resume is called.
func (l *link) Pause() (resume func()) {
	paused := make(chan struct{})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.paused = paused
	if l.hangUp != nil {
		l.hangUp()
	}
	return func() { close(paused) }
}

// connected runs one session, until ctx or Pause ends it; while the link is paused it waits.
func (l *link) connected(ctx context.Context) error {
	ctx, hangUp := context.WithCancel(ctx)
	defer hangUp()
	l.mu.Lock()
	l.hangUp = hangUp
	paused := l.paused
	l.mu.Unlock()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-paused:
		return l.session(ctx)
	}
}

// Run holds the link until ctx ends.
func (l *link) Run(ctx context.Context) error {
	wait, said := linkRetryMin, ""
	for ctx.Err() == nil {
		began := time.Now()
		err := l.connected(ctx)
		if ctx.Err() != nil {
			break
		}
		if isAlert(err) {
			err = cmp.Or(l.refused(ctx), err)
		}
		if time.Since(began) > linkRetryMax {
			wait = linkRetryMin
			l.log.Warn("the link to the hub broke; calls go on with the last snapshot", "error", err)
		} else if text := fmt.Sprint(err); wait == linkRetryMax && text != said {
			said = text
			l.log.Warn("the hub cannot be reached; it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, linkRetryMax)
	}
	return ctx.Err()
}

// isAlert tells a TLS alert from the other side: with TLS 1.3 a client hears of its certificate after its
// handshake, and never why.
func isAlert(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// session is one connection's life; the first stream that fails ends all three.
func (l *link) session(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	transport := &http.Transport{
		Protocols: new(http.Protocols),
		DialContext: func(dialing context.Context, _, _ string) (net.Conn, error) {
			c, err := l.dial(dialing)
			if err == nil {
				// A stream that is open both ways does not notice the end of its context by itself.
				context.AfterFunc(ctx, func() { _ = c.Close() })
			}
			return c, err
		},
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	transport.HTTP2 = &http.HTTP2Config{SendPingTimeout: linkSilence, PingTimeout: linkAnswer}
	defer transport.CloseIdleConnections()
	client := peerv1connect.NewPeerClient(&http.Client{Transport: transport}, "http://hub")
	l.setClient(client)
	defer l.setClient(nil)

	g.Go(func() error { return l.snapshots(ctx, client) })
	g.Go(func() error { return l.commands(ctx, client) })
	g.Go(func() error { return l.reports(ctx, client) })
	return g.Wait()
}

// parts gathers one version of a snapshot.
type parts struct {
	fleet    string
	version  uint64
	services []*fleet.Service
	removed  []string
	complete bool
}

func (p *parts) add(m *peerv1.SnapshotsResponse) error {
	for _, b := range m.Services {
		s := new(fleet.Service)
		if err := json.Unmarshal(b, s); err != nil {
			return fmt.Errorf("a service in snapshot version %d: %w", m.Version, err)
		}
		p.services = append(p.services, s)
	}
	p.fleet, p.version = m.Fleet, m.Version
	p.removed = append(p.removed, m.Removed...)
	p.complete = p.complete || m.Complete
	return nil
}

func (l *link) snapshots(ctx context.Context, client peerv1connect.PeerClient) error {
	stream := client.Snapshots(ctx)
	defer func() { _ = stream.CloseRequest() }()
	if err := stream.Send(&peerv1.SnapshotsRequest{Node: l.node}); err != nil {
		return err
	}
	gathered := new(parts)
	for {
		m, err := stream.Receive()
		if err != nil {
			return err
		}
		if m.Mesh != nil {
			l.learn(m.Mesh)
			continue
		}
		if m.RateMove != nil {
			l.takeMove(m.RateMove)
			continue
		}
		if m.Observing != nil {
			if err := l.takeObserving(m.Observing); err != nil {
				return err
			}
			continue
		}
		if err := gathered.add(m); err != nil {
			return err
		}
		if m.Version == 0 {
			continue
		}
		ack := &peerv1.SnapshotsRequest{Node: l.node, Acknowledged: m.Version}
		if err := l.install(gathered); err != nil {
			ack.Error = err.Error()
		}
		if err := stream.Send(ack); err != nil {
			return err
		}
		gathered = new(parts)
	}
}

// takeMove takes parts of rates, and gives up those that are asked for.
func (l *link) takeMove(b []byte) {
	var m fleet.RateMove
	if json.Unmarshal(b, &m) != nil {
		return // what is lost of a rate is lost
	}
	given := l.move(m)
	if len(given) == 0 {
		return
	}
	l.mu.Lock()
	l.given = append(l.given, given)
	l.mu.Unlock()
	l.rouse()
}

func (l *link) takeObserving(b []byte) error {
	var o fleet.Observing
	if err := json.Unmarshal(b, &o); err != nil {
		return fmt.Errorf("the settings of traces and access records: %w", err)
	}
	l.observe(o)
	return nil
}

// commands runs each command in a goroutine of its own: a stop lasts as long as its drain.
func (l *link) commands(ctx context.Context, client peerv1connect.PeerClient) error {
	stream := client.Commands(ctx)
	if err := stream.Send(&peerv1.CommandsRequest{Node: l.node}); err != nil {
		return err
	}
	var sending sync.Mutex
	var running sync.WaitGroup
	defer running.Wait()
	for {
		c, err := stream.Receive()
		if err != nil {
			return err
		}
		if c.GetShutdown() {
			err := stream.Send(l.result(ctx, c))
			_, last := stream.Receive() // the hub ends the stream when it has the answer
			l.quit()
			return errors.Join(err, last)
		}
		running.Go(func() {
			// A command that has begun is finished even where the hub is gone.
			result := l.result(context.WithoutCancel(ctx), c)
			sending.Lock()
			defer sending.Unlock()
			_ = stream.Send(result) // a broken stream is seen by Receive
		})
	}
}

func (l *link) result(ctx context.Context, c *peerv1.CommandsResponse) *peerv1.CommandsRequest {
	r := &peerv1.CommandsRequest{Node: l.node, Id: c.Id}
	status, err := l.command(ctx, c)
	if err != nil {
		r.Error = err.Error()
		return r
	}
	if status.Instance != "" {
		r.Status, _ = json.Marshal(status) // plain data always marshals
	}
	return r
}

func (l *link) reports(ctx context.Context, client peerv1connect.PeerClient) error {
	stream := client.Report(ctx)
	first := l.statement()
	first.Instances, _ = json.Marshal(l.all())
	if err := stream.Send(first); err != nil {
		return err
	}
	tick := time.NewTicker(edgesInterval)
	defer tick.Stop()
	var last edgesSum
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.wake:
			if err := l.sendChanged(stream.Send); err != nil {
				return err
			}
		case <-tick.C:
			if err := l.sendEdges(&last, stream.Send); err != nil {
				return err
			}
			if err := l.sendMove(fleet.RateMove{Short: l.short()}, stream.Send); err != nil {
				return err
			}
		}
	}
}

// statement is what the node says of itself now.
func (l *link) statement() *peerv1.ReportRequest {
	l.mu.Lock()
	l.told = true
	l.mu.Unlock()
	b, _ := json.Marshal(l.status())
	return &peerv1.ReportRequest{Node: l.node, NodeStatus: b}
}

func (l *link) isTold() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.told
}

func (l *link) sendChanged(send func(*peerv1.ReportRequest) error) error {
	if !l.isTold() {
		if err := send(l.statement()); err != nil {
			return err
		}
	}
	for _, given := range l.takeGiven() {
		if err := l.sendMove(fleet.RateMove{Give: given}, send); err != nil {
			return err
		}
	}
	for _, s := range l.takeChanged() {
		b, _ := json.Marshal(s)
		if err := send(&peerv1.ReportRequest{Node: l.node, Instance: b}); err != nil {
			return err
		}
	}
	return nil
}

func (l *link) takeGiven() []map[string]float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	given := l.given
	l.given = nil
	return given
}

func (l *link) sendMove(m fleet.RateMove, send func(*peerv1.ReportRequest) error) error {
	if len(m.Short) == 0 && len(m.Give) == 0 {
		return nil
	}
	b, _ := json.Marshal(m) // plain data always marshals
	return send(&peerv1.ReportRequest{Node: l.node, RateMove: b})
}

// edgesSum tells whether any edge moved since it was taken: totals only grow.
type edgesSum struct {
	edges            int
	requests, errors uint64
}

func sumEdges(edges []fleet.EdgeStats) edgesSum {
	s := edgesSum{edges: len(edges)}
	for _, e := range edges {
		s.requests += e.Requests
		s.errors += e.Errors
	}
	return s
}

func (l *link) sendEdges(last *edgesSum, send func(*peerv1.ReportRequest) error) error {
	edges := l.edges()
	now := sumEdges(edges)
	if now == *last {
		return nil
	}
	*last = now
	b, _ := json.Marshal(edges)
	return send(&peerv1.ReportRequest{Node: l.node, Edges: b})
}

// over lays the parts over the snapshot that they change.
func (p *parts) over(current *fleet.Snapshot) *fleet.Snapshot {
	next := &fleet.Snapshot{Fleet: p.fleet, Version: p.version}
	changed := make(map[string]*fleet.Service, len(p.services))
	for _, s := range p.services {
		changed[s.Name] = s
	}
	if current != nil && !p.complete {
		for _, s := range current.Services {
			if changed[s.Name] == nil && !slices.Contains(p.removed, s.Name) {
				next.Services = append(next.Services, s)
			}
		}
	}
	next.Services = append(next.Services, p.services...)
	slices.SortFunc(next.Services, func(a, b *fleet.Service) int { return strings.Compare(a.Name, b.Name) })
	return next
}
