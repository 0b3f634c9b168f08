package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
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
	conns   *Conns

	home      atomic.Pointer[engine] // embedded: of desired state
	engine    atomic.Pointer[engine] // of messages: home, or on external servers
	loaded    atomic.Bool            // what the last run left was read
	restored  atomic.Bool            // a restore ended this broker: nothing is saved any more
	switched  chan struct{}          // the messages lie elsewhere now
	policy    atomic.Pointer[policy]
	commits   [len(classes)]commits
	timings   [len(classes)]timings
	flush     flusher
	settler   settler
	bodies    *semaphore.Weighted // bytes of publishes in memory
	schedules *schedules
	ticked    chan struct{} // a cron schedule changed
	epoch     uint64        // names this process in ack ids

	running    atomic.Bool
	delivering context.Context // ends when a stop no longer waits for deliveries
	cutOff     context.CancelFunc
	work       sync.WaitGroup // deliveries and reads

	moving     sync.Mutex      // held through one move
	pace       atomic.Int64    // nanoseconds between two commits of a durability class, while a move catches up
	trimming   sync.Mutex      // held through one trim
	letters    sync.Mutex      // held while one dead letter is changed, dropped or redriven
	writing    sync.RWMutex    // held by whoever writes to a stream; see holdWrites
	installing sync.Mutex      // held through one Install
	pending    *fleet.Snapshot // to be installed once loaded; guarded by installing
	mu         sync.Mutex      // guards what follows
	location   location
	notice     string // what is to be done about where the messages lie
	topics     map[string]*topic
	subs       map[string]*subscription
	catalog    catalog
	renewed    chan struct{}     // closed and replaced when another engine takes over
	saved      map[string]cursor // cursors on disk that no manifest has taken up yet
}

// New opens the broker's files in Config.Dir, creating them where there are none. The store works from
// now on; publishing and delivery begin with [Broker.Run], which also closes the files. Without Run, call [Broker.Close].
func New(c Config) (*Broker, error) {
	if err := c.setDefaults(); err != nil {
		return nil, err
	}
	home, err := openEngine(&c)
	if err != nil {
		return nil, err
	}
	b := &Broker{
		config: c, conns: NewConns(fleet.Events), flush: flusher{wake: make(chan struct{}, 1)},
		bodies: semaphore.NewWeighted(publishMemory), renewed: make(chan struct{}),
		topics: make(map[string]*topic), subs: make(map[string]*subscription),
		switched: make(chan struct{}, 1),
	}
	for i := range b.commits {
		b.commits[i].wake = make(chan struct{}, 1)
	}
	b.settler.wake, b.settler.much = make(chan struct{}, 1), make(chan struct{}, 1)
	b.schedules, b.ticked = newSchedules(), make(chan struct{}, 1)
	b.epoch = uint64(rand.Uint32())
	b.delivering, b.cutOff = context.WithCancel(context.Background())
	b.handler = http.HandlerFunc(b.servePublish)
	b.policy.Store(newPolicy(&fleet.Snapshot{}, &c))
	b.home.Store(home)
	if err := b.open(home); err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// open reads what is there, from where the messages lie. External servers that are away are waited for: the broker opens without them.
func (b *Broker) open(home *engine) error {
	b.engine.Store(home)
	at, err := b.locate(home)
	if err != nil {
		return err
	}
	if at.Embedded() {
		if err := b.dropHalf(home); err != nil {
			return err
		}
		b.loaded.Store(true)
		return b.load(home)
	}
	e, err := b.openExternal(at, nil)
	if err == nil {
		err = b.openAt(home, e)
		if err != nil && !e.passes(err) {
			return err
		}
		err = e.remoteError(err)
	}
	if err != nil {
		b.config.Log.Error("the broker waits for its NATS server", "error", err)
		b.engine.Store(awayEngine(&b.config, at, err))
		b.loaded.Store(false)
	}
	return nil
}

// openAt reads what is there from external servers.
func (b *Broker) openAt(home, e *engine) error {
	b.engine.Store(e)
	if err := b.dropHalf(e); err != nil {
		e.close()
		return err
	}
	ctx, cancel := context.WithTimeout(home.ctx, startTimeout)
	defer cancel()
	if err := home.discard(ctx); err != nil { // what a move that was cut off at its end left
		b.config.Log.Warn("old copies of messages are not removed", "error", err)
	}
	if err := b.load(e); err != nil {
		e.close()
		return err
	}
	b.loaded.Store(true)
	return nil
}

// load reads what the broker knows from its last run: resources, and subscriptions with their cursors.
func (b *Broker) load(e *engine) (err error) {
	b.flush.saving.Lock()
	saved, err := e.loadCursors(e.ctx)
	b.flush.saving.Unlock()
	if err == nil {
		err = e.countLetters(e.ctx, saved)
	}
	if err != nil {
		return fmt.Errorf("reading subscriptions: %w", err)
	}
	catalog, err := e.loadCatalog(e.ctx)
	if err != nil {
		return fmt.Errorf("reading the catalog of topics and subscriptions: %w", err)
	}
	b.mu.Lock()
	b.saved, b.catalog = saved, catalog
	b.mu.Unlock()
	if err := b.loadTopics(e); err != nil {
		return fmt.Errorf("reading the topics: %w", err)
	}
	if err := b.loadSchedules(e); err != nil {
		return fmt.Errorf("reading scheduled messages: %w", err)
	}
	if err := b.finishDeletions(e.ctx); err != nil {
		b.config.Log.Warn("what deleted topics had is not removed yet, to be tried again", "error", err)
	}
	for name, c := range b.catalog.subscriptions {
		if c.Detached || c.Topic == "" {
			continue
		}
		s, err := b.subscription(name, c.Topic, c.FromStart)
		if err == nil {
			err = s.configure(c)
		}
		if err != nil {
			return fmt.Errorf("reading subscription %s: %w", name, err)
		}
	}
	return b.dropOrphans(e)
}

// loadTopics notes the topics that have messages, whatever manifests name now.
func (b *Broker) loadTopics(e *engine) error {
	for _, class := range b.usedClasses() {
		l, err := e.lane(class)
		if err != nil {
			return err
		}
		names, err := l.topicNames(e.ctx)
		if err != nil {
			return err
		}
		for _, name := range names {
			b.topic(name)
		}
	}
	return nil
}

// dropOrphans removes cursors of subscriptions that were deleted by the API: what JetStream removed may be there again after a power cut.
func (b *Broker) dropOrphans(e *engine) error {
	b.flush.saving.Lock()
	defer b.flush.saving.Unlock()
	for _, name := range b.leftOver() {
		if strings.Contains(name, "/") {
			continue // a manifest's: it may come with the next snapshot
		}
		if err := e.dropCursor(e.ctx, name); err != nil {
			return err
		}
		delete(b.saved, name)
	}
	return nil
}

// Run publishes and delivers until ctx ends. Then it refuses publishes, waits for deliveries in flight (at
// most Config.Drain; one that is cut off is repeated after the next start, under its number), saves cursors and
// closes the files. It is called once.
func (b *Broker) Run(ctx context.Context) error {
	b.out = b.config.Transport(fleet.Events)
	server := b.newServer()
	background, stop := context.WithCancel(context.Background())
	var loops, commits sync.WaitGroup
	for _, class := range classes {
		commits.Go(func() { b.commitLoop(class) })
	}
	settling, stopSettling := context.WithCancel(context.Background())
	loops.Go(func() { b.settleLoop(settling) }) // commits may wait for it
	loops.Go(func() { b.flushLoop(background) })
	loops.Go(func() { b.trimLoop(background) })
	loops.Go(func() { b.recoverLoop(background) })
	loops.Go(func() { b.remoteLoop(background) })
	loops.Go(func() { b.scheduleLoop(background) })
	loops.Go(func() { b.cronLoop(background) })
	loops.Go(func() { _ = server.Serve(b.conns) })
	b.running.Store(true)
	b.settler.poke(0)
	b.pumpAll()

	<-ctx.Done()
	for i := range b.commits {
		b.commits[i].close()
	}
	b.drain()
	stop()
	commits.Wait()
	stopSettling()
	b.closeServer(server)
	loops.Wait()
	var err error
	if !b.restored.Load() {
		err = errors.Join(b.saveCursors(), b.saveSchedules())
	}
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
	b.home.Load().close()
}

// Handler returns the HTTP interface: POST /TOPIC, as a CloudEvent or as a plain body. The server
// that serves it needs [Broker.ConnContext], which is how a caller is known.
func (b *Broker) Handler() http.Handler { return b.handler }

// ServeConn serves one connection to the name `events`. Where c has a method `Caller() string`, its
// requests are that caller's, or the one's that the header Shoal-Caller names; from any other connection nothing is accepted. It
// returns at once; the connection is closed when the broker stops.
func (b *Broker) ServeConn(c net.Conn) { b.conns.Push(c) }

// Install puts a snapshot in force: who may publish what, and who subscribes. A subscription that is new begins at
// its topic's head and is durable when Install returns. Snapshots are installed in the order of the calls.
func (b *Broker) Install(s *fleet.Snapshot) {
	b.installing.Lock()
	defer b.installing.Unlock()
	if !b.loaded.Load() { // it takes effect once the broker knows where its subscriptions stand
		b.pending = s
		b.policy.Store(newPolicy(s, &b.config))
		return
	}
	b.installLocked(s)
}

// installLocked is Install. The caller holds b.installing.
func (b *Broker) installLocked(s *fleet.Snapshot) {
	p := newPolicy(s, &b.config)
	if err := b.finishDeletions(b.delivering); err != nil {
		b.config.Log.Warn("what deleted topics had is not removed yet, to be tried again", "error", err)
	}
	for name, c := range p.declared {
		if err := b.reclass(b.delivering, name, c.Durability); err != nil {
			b.config.Log.Error("a topic's durability is not changed: it is tried again with the next change of the fleet", "topic", name, "error", err)
		}
	}
	for name, c := range p.subscribed {
		b.declare(name, c, p.targets[name])
	}
	for _, name := range b.leftOver() {
		_, topicName, _ := strings.Cut(name, "/")
		_, _ = b.subscription(name, topicName, false)
	}
	now := time.Now()
	for _, sub := range b.subscriptions() {
		if _, ok := p.targets[sub.name]; !ok && !b.created(sub.name) {
			sub.detach(now)
		}
	}
	if err := b.saveCursors(); err != nil {
		b.config.Log.Warn("new subscriptions are not saved yet", "error", err)
		b.flush.poke()
	}
	b.policy.Store(p)
	b.declareCrons(p)
	b.finishRedrives(b.delivering)
}

// declare puts a manifest's subscription in force.
func (b *Broker) declare(name string, c SubscriptionConfig, to target) {
	sub, err := b.subscription(name, c.Topic, c.FromStart)
	if err != nil {
		b.config.Log.Error("topic not read", "topic", c.Topic, "error", err)
	}
	if err := sub.configure(&c); err != nil {
		b.config.Log.Error("subscription not changed", "subscription", name, "at", c.Declared, "error", err)
	}
	sub.aim(to)
}

// created reports whether a subscription of that name was created by the API.
func (b *Broker) created(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.catalog.subscriptions[name] != nil
}

// subscription returns the subscription of that name; it makes one where there is none: at the saved cursor, at the topic's
// oldest message, or at its head. Where the topic cannot be read it returns an error as well.
func (b *Broker) subscription(name, topicName string, fromStart bool) (*subscription, error) {
	t := b.topic(topicName)
	b.mu.Lock()
	sub := b.subs[name]
	c, known := b.saved[name]
	b.mu.Unlock()
	if sub != nil {
		return sub, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	e := b.engine.Load()
	err := t.loadLocked(e.ctx, e)
	if !known {
		c = cursor{name: name, floor: t.head, seq: t.last.seq + 1, used: time.Now(),
			turn: uint64(rand.Uint32())} // so that its ack ids are no other subscription's
	}
	if known {
		c.begin(time.Now())
	}
	if oldest := t.oldestLocked(); !known && fromStart && !oldest.time.IsZero() {
		c.floor, c.seq = oldest.base, t.first.seq
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
	return sub, err
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
		t = newTopic(name, classes[laneOf(b.catalog.classes[name])])
		if c := b.catalog.topics[name]; c != nil {
			t.begins, t.head = c.Begins, c.Begins
		}
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
