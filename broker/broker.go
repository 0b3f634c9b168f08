package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/shoalrun/shoal/fleet"
)

// Broker is the message broker and the durable store. Make one with [New], then [Broker.Run] it.
type Broker struct {
	config  Config
	out     http.RoundTripper // deliveries' way, with the identity `events`; set by Run
	handler http.Handler
	conns   *connListener

	engine  atomic.Pointer[engine]
	policy  atomic.Pointer[policy]
	commits commits
	flush   flusher
	bodies  *semaphore.Weighted // bytes of publishes in memory

	running    atomic.Bool
	delivering context.Context // ends when a stop no longer waits for deliveries
	cutOff     context.CancelFunc
	work       sync.WaitGroup // deliveries and reads

	installing sync.Mutex // held through one Install
	mu         sync.Mutex // guards what follows
	topics     map[string]*topic
	subs       map[string]*subscription
	renewed    chan struct{}     // closed and replaced when another engine takes over
	saved      map[string]cursor // cursors on disk that no manifest has taken up yet
}

// New opens the broker's files in Config.Dir, creating them where there are none. The store works from
// now on; publishing and delivery begin with [Broker.Run], which also closes the files. Without Run, call [Broker.Close].
func New(c Config) (*Broker, error) {
	if err := c.setDefaults(); err != nil {
		return nil, err
	}
	e, err := openEngine(&c)
	if err != nil {
		return nil, err
	}
	b := &Broker{
		config: c, conns: newConnListener(),
		commits: commits{wake: make(chan struct{}, 1)}, flush: flusher{wake: make(chan struct{}, 1)},
		bodies: semaphore.NewWeighted(publishMemory), renewed: make(chan struct{}),
		topics: make(map[string]*topic), subs: make(map[string]*subscription),
	}
	b.delivering, b.cutOff = context.WithCancel(context.Background())
	b.handler = http.HandlerFunc(b.servePublish)
	b.engine.Store(e)
	b.policy.Store(newPolicy(&fleet.Snapshot{}))
	if b.saved, err = e.loadCursors(e.ctx); err != nil {
		e.close()
		return nil, fmt.Errorf("reading subscriptions: %w", err)
	}
	return b, nil
}

// Run publishes and delivers until ctx ends. Then it refuses publishes, waits for deliveries in flight (at
// most Config.Drain; one that is cut off is repeated after the next start, under its number), saves cursors and
// closes the files. It is called once.
func (b *Broker) Run(ctx context.Context) error {
	b.out = b.config.Transport(fleet.Events)
	server := b.newServer()
	background, stop := context.WithCancel(context.Background())
	var loops, commits sync.WaitGroup
	commits.Go(b.commitLoop)
	loops.Go(func() { b.flushLoop(background) })
	loops.Go(func() { b.trimLoop(background) })
	loops.Go(func() { b.recoverLoop(background) })
	loops.Go(func() { _ = server.Serve(b.conns) })
	b.running.Store(true)
	b.pumpAll()

	<-ctx.Done()
	b.commits.close()
	b.drain()
	stop()
	commits.Wait()
	b.closeServer(server)
	loops.Wait()
	err := b.saveCursors()
	b.Close()
	if err != nil {
		return fmt.Errorf("saving subscriptions at the stop (what they delivered since the last save comes again): %w", err)
	}
	return nil
}

// closeServer lets the last answers out.
func (b *Broker) closeServer(s *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if s.Shutdown(ctx) != nil {
		_ = s.Close()
	}
}

// drain ends deliveries.
func (b *Broker) drain() {
	b.running.Store(false)
	for _, s := range b.subscriptions() {
		s.stop()
	}
	timer := time.AfterFunc(b.config.Drain, b.cutOff)
	b.work.Wait()
	timer.Stop()
	b.cutOff()
}

// Close closes the files of a broker that is not run.
func (b *Broker) Close() {
	b.cutOff()
	b.engine.Load().close()
}

// Handler returns the HTTP interface: POST /TOPIC, as a CloudEvent or as a plain body. The server
// that serves it needs [Broker.ConnContext], which is how a caller is known.
func (b *Broker) Handler() http.Handler { return b.handler }

// ServeConn serves one connection to the name `events`. Where c has a method `Caller() string`, its
// requests are that caller's, or the one's that the header Shoal-Caller names; from any other connection nothing is accepted. It
// returns at once; the connection is closed when the broker stops.
func (b *Broker) ServeConn(c net.Conn) { b.conns.push(c) }

// Install puts a snapshot in force: who may publish what, and who subscribes. A subscription that is new begins at
// its topic's head and is durable when Install returns. Snapshots are installed in the order of the calls.
func (b *Broker) Install(s *fleet.Snapshot) {
	b.installing.Lock()
	defer b.installing.Unlock()
	p := newPolicy(s)
	for name, to := range p.targets {
		sub := b.subscription(name, p.topicOf[name])
		sub.aim(to)
	}
	for _, name := range b.leftOver() {
		_, topicName, _ := strings.Cut(name, "/")
		b.subscription(name, topicName)
	}
	now := time.Now()
	for _, sub := range b.subscriptions() {
		if _, ok := p.targets[sub.name]; !ok {
			sub.detach(now)
		}
	}
	if err := b.saveCursors(); err != nil {
		b.config.Log.Warn("new subscriptions are not saved yet", "error", err)
		b.flush.poke()
	}
	b.policy.Store(p)
}

// subscription returns the subscription of that name; it makes one, at the saved cursor or at the
// topic's head, where there is none.
func (b *Broker) subscription(name, topicName string) *subscription {
	t := b.topic(topicName)
	b.mu.Lock()
	sub := b.subs[name]
	c, known := b.saved[name]
	b.mu.Unlock()
	if sub != nil {
		return sub
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := b.engine.Load()
	if err := t.loadLocked(e.ctx, e); err != nil {
		b.config.Log.Error("topic not read", "topic", topicName, "error", err)
	}
	if !known {
		c = cursor{name: name, floor: t.head, seq: t.last.seq + 1}
	}
	t.head = max(t.head, c.floor)
	sub = newSubscription(b, t, c)
	sub.dirty = !known
	sub.window.head = t.head
	t.subs = append(t.subs, sub)
	b.mu.Lock()
	b.subs[name] = sub
	delete(b.saved, name)
	b.mu.Unlock()
	return sub
}

// leftOver names the saved cursors that nothing has taken up.
func (b *Broker) leftOver() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Keys(b.saved))
}

// topic returns the topic of that name, not loaded where it is new here.
func (b *Broker) topic(name string) *topic {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.topics[name]
	if t == nil {
		t = &topic{name: name, subject: eventsPrefix + token(name)}
		b.topics[name] = t
	}
	return t
}

// subscriptions returns all subscriptions, sorted by name.
func (b *Broker) subscriptions() []*subscription {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := slices.Collect(maps.Values(b.subs))
	slices.SortFunc(out, func(x, y *subscription) int { return strings.Compare(x.name, y.name) })
	return out
}

func (b *Broker) pumpAll() {
	for _, s := range b.subscriptions() {
		s.pump()
	}
}

// Publish publishes one event for caller, a service or [fleet.Operator], and returns its id once it is
// durable. What it fails with is an [*Error]. Where ctx ends first the event may yet be accepted.
func (b *Broker) Publish(ctx context.Context, caller string, e Event) (id string, err error) {
	ids, err := b.publish(ctx, caller, e.Topic, []Event{e})
	if err != nil {
		return "", err
	}
	return ids[0], nil
}

// publish is an event's walk up to its acknowledgement: complete and check the events, check the permission, commit.
func (b *Broker) publish(ctx context.Context, caller, topicName string, events []Event) (ids []string, err error) {
	start := time.Now()
	learned, err := b.policy.Load().mayPublish(caller, topicName)
	records := make([]*record, 0, len(events))
	for i := range events {
		e := &events[i]
		e.Topic = topicName
		e.complete(caller, start)
		s := e.publishSpan(b.config.Sampler)
		records = append(records, &record{Event: *e, caller: caller, span: s})
		ids = append(ids, e.ID)
		if err == nil {
			err = b.checkEvent(e, i, len(events))
		}
	}
	if err == nil {
		err = b.commitRecords(ctx, topicName, records)
	}
	b.observePublish(start, records, learned, err)
	return ids, err
}

func (b *Broker) checkEvent(e *Event, i, of int) error {
	err := e.check()
	status, reason := http.StatusBadRequest, fleet.ReasonMalformedEvent
	if len(e.Data) > b.config.MaxEvent {
		err = fmt.Errorf("its data has %d bytes; at most %d are allowed: store it elsewhere and publish where it lies", len(e.Data), b.config.MaxEvent)
		status, reason = http.StatusRequestEntityTooLarge, fleet.ReasonTooLarge
	}
	if err == nil {
		return nil
	}
	if of > 1 {
		err = fmt.Errorf("event %d of the batch: %w", i, err)
	}
	return &Error{Status: status, Reason: reason, Text: fmt.Sprintf("not accepted: %v", err)}
}

func (b *Broker) commitRecords(ctx context.Context, topicName string, records []*record) error {
	if len(records) == 0 {
		return nil
	}
	p := newPublish(b.topic(topicName), records)
	if err := b.commits.put(p); err != nil {
		return b.refusal(p.topic, err)
	}
	return p.wait(ctx)
}

func (b *Broker) observePublish(start time.Time, records []*record, learned *fleet.Learned, err error) {
	for _, r := range records {
		o := &fleet.Observation{
			Kind: fleet.KindPublish, RequestID: r.RequestID, Time: start, Duration: time.Since(start),
			Caller: r.caller, Callee: fleet.Events, Protocol: fleet.HTTP, Method: http.MethodPost, Path: "/" + r.Topic,
			Topic: r.Topic, Event: r.ID, Status: http.StatusAccepted, BytesIn: int64(len(r.Data)), Learned: learned, Detail: "event " + r.ID,
		}
		r.span.note(o)
		var refused *Error
		if errors.As(err, &refused) {
			o.Status, o.Reason, o.Detail = refused.Status, string(refused.Reason), refused.Text
		}
		b.config.Observe(o)
	}
}
