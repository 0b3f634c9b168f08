package broker

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/fleet"
)

// classes are the durability classes, in the order of their lanes, and that of the log of scheduled messages.
var classes = [...]fleet.Durability{fleet.DurabilityDisk, fleet.DurabilityOS, fleet.DurabilityMemory, scheduleClass}

// laneOf is the place of a class in classes.
func laneOf(class fleet.Durability) int {
	for i, c := range classes {
		if c == class {
			return i
		}
	}
	return 0
}

// lane is where the topics of one durability class lie: one stream, and the connection to its server. That of `disk` is written
// through (SyncAlways). That of `os` is on a second server, which is not, and which starts with its first topic: every write is in the
// operating system's hands before it is acknowledged. That of `memory` is lost with the process.
type lane struct {
	engine *engine
	prefix string // of subjects
	conn   *nats.Conn
	events jetstream.Stream
	ids    string // begins the ids of its atomic batches, which others on an external server have, too
	batch  atomic.Uint64
	wal    *wal // nil: every topic's batch is written to its own log at once
}

// lanes are an engine's, each opened when it is first asked for.
type lanes struct {
	mu     sync.Mutex
	open   [len(classes)]*lane
	server *server.Server // of `os`
	conn   *nats.Conn
}

// lane returns the lane of a class, opened where it was not yet.
func (e *engine) lane(class fleet.Durability) (*lane, error) {
	e.lanes.mu.Lock()
	defer e.lanes.mu.Unlock()
	i := laneOf(class)
	if e.lanes.open[i] != nil {
		return e.lanes.open[i], nil
	}
	if err := e.err(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(e.ctx, startTimeout)
	defer cancel()
	l, err := e.openLane(ctx, class)
	if err != nil {
		return nil, fmt.Errorf("opening the files of topics with durability %s: %w", class, e.explain(err))
	}
	e.lanes.open[i] = l
	return l, nil
}

func (e *engine) openLane(ctx context.Context, class fleet.Durability) (*lane, error) {
	config := jetstream.StreamConfig{Name: eventsStream, Storage: jetstream.FileStorage, MaxBytes: e.config.MaxStore}
	l := &lane{engine: e, prefix: eventsPrefix, conn: e.conn}
	if e.external != nil {
		l.ids = newID() + "-"
	}
	js := e.js
	switch class {
	case fleet.DurabilityOS:
		if e.external != nil {
			l.prefix, config.Name = osPrefix, osStream
			break
		}
		if err := e.openSecond(); err != nil {
			return nil, err
		}
		var err error
		if l.conn = e.lanes.conn; l.conn != nil {
			js, err = jetstream.New(l.conn, jetstream.WithDefaultTimeout(startTimeout))
		}
		if err != nil {
			return nil, err
		}
	case scheduleClass:
		l.prefix, config.Name = schedulePrefix, scheduleStream
	case fleet.DurabilityMemory:
		l.prefix = memoryPrefix
		config.Name, config.Storage, config.MaxBytes = memoryStream, jetstream.MemoryStorage, e.config.MaxMemory
	}
	config.Subjects = []string{l.prefix + "*"}
	config.MaxMsgsPerSubject, config.MaxConsumers, config.Discard = -1, -1, jetstream.DiscardNew
	config.AllowAtomicPublish = true
	var err error
	if l.events, err = e.stream(ctx, js, config); err != nil {
		return nil, err
	}
	if class == fleet.DurabilityDisk && e.external == nil {
		l.wal, err = e.openWAL(ctx)
	}
	return l, err
}

// openSecond starts the server that leaves syncing to the operating system. The caller holds e.lanes.mu.
func (e *engine) openSecond() (err error) {
	options := serverOptions(e.config)
	options.ServerName, options.StoreDir, options.SyncAlways = "shoal-os", filepath.Join(e.config.Dir, "os"), false
	options.JetStreamMaxStore = e.config.MaxStore
	log := &engineLog{log: e.config.Log, fail: e.fail}
	s, err := server.NewServer(options)
	if err != nil {
		return err
	}
	s.SetLoggerV2(log, false, false, false)
	s.Start()
	if err := ready(s, log); err != nil {
		s.Shutdown()
		return err
	}
	conn, err := e.dial(s)
	if err != nil {
		s.Shutdown()
		return err
	}
	e.lanes.server, e.lanes.conn = s, conn
	return nil
}

// closeLanes stops the second server, where there is one.
func (e *engine) closeLanes() {
	e.lanes.mu.Lock()
	defer e.lanes.mu.Unlock()
	if e.lanes.conn != nil {
		e.lanes.conn.Close()
	}
	if e.lanes.server != nil {
		e.lanes.server.Shutdown()
		e.lanes.server.WaitForShutdown()
	}
}

// store writes messages of one stream, all or none, and returns the sequence of the first; the others
// follow it. It returns when they are as durable as the lane says. There is no timeout: whether a write that hangs happened is
// known only when it ends, or when the engine does.
func (l *lane) store(msgs []message) (first uint64, err error) {
	if len(msgs) == 0 || len(msgs) > batchMost {
		return 0, fmt.Errorf("a group has 1 to %d messages, not %d", batchMost, len(msgs))
	}
	last := len(msgs) - 1
	id := l.ids + strconv.FormatUint(l.batch.Add(1), 10)
	for i := range msgs[:last] {
		if err := l.conn.PublishMsg(l.batched(&msgs[i], id, i+1)); err != nil {
			return 0, err
		}
	}
	m := l.message(&msgs[0])
	if last > 0 {
		m = l.batched(&msgs[last], id, last+1)
		m.Header.Set("Nats-Batch-Commit", "1")
	}
	seq, err := l.request(m)
	return seq - uint64(last), err
}

// request writes one message, and returns its sequence once it is durable. An external server that does not answer in time may have
// written it all the same: the engine ends, and the next reads what is there.
func (l *lane) request(m *nats.Msg) (uint64, error) {
	e := l.engine
	ctx, cancel := e.ctx, context.CancelFunc(func() {})
	if e.external != nil {
		ctx, cancel = context.WithTimeout(e.ctx, answerTimeout)
	}
	defer cancel()
	answer, err := l.conn.RequestMsgWithContext(ctx, m)
	if err != nil && e.external != nil {
		e.fail(&awayError{e.external.String(), err})
	}
	if err != nil {
		return 0, e.explain(err)
	}
	seq, err := sequence(answer.Data)
	if err != nil {
		return 0, e.refused(err)
	}
	return seq, nil
}

// refused is a write that JetStream refused. On external servers that means that somebody else writes there, too, or worse.
func (e *engine) refused(err error) error {
	if e.external == nil || quotaExceeded(err) {
		return err
	}
	e.fail(&awayError{e.external.String(), fmt.Errorf("it refused what was to be written: %w", err)})
	return e.err()
}

// topicNames are the topics that have messages here.
func (l *lane) topicNames(ctx context.Context) (names []string, err error) {
	info, err := l.events.Info(ctx, jetstream.WithSubjectFilter(l.prefix+"*"))
	if err != nil {
		return nil, err
	}
	for subject := range info.State.Subjects {
		name, err := untoken(strings.TrimPrefix(subject, l.prefix))
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}
