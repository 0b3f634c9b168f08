package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/fleet"
)

// The streams and their subjects. Names are on disk: they never change.
const (
	eventsStream   = "SHOAL_EVENTS"
	cursorsStream  = "SHOAL_CURSORS"
	deadStream     = "SHOAL_DEAD"
	catalogStream  = "SHOAL_CATALOG"
	controlBucket  = "SHOAL_CONTROL"
	memoryStream   = "SHOAL_MEMORY"
	scheduleStream = "SHOAL_SCHEDULE"
	overStream     = "SHOAL_OVER"

	eventsPrefix   = "shoal.events."
	memoryPrefix   = "shoal.memory."
	schedulePrefix = "shoal.schedule."
	overPrefix     = "shoal.over."
	cursorsPrefix  = "shoal.cursors."
	deadPrefix     = "shoal.dead."
	catalogPrefix  = "shoal.catalog."

	startTimeout = 30 * time.Second
	readyStep    = 100 * time.Millisecond
	smallStore   = 1 << 30 // bytes: cursors and desired state
	batchMost    = 1000    // messages in one atomic batch: JetStream's own limit

	// nothingStays is how long the empty message that ends a resource is kept: until what was before it is gone from the disk, too, which
	// JetStream's sync of everything, every two minutes, sees to.
	nothingStays = time.Hour
)

// engine is one run of the embedded server, or one connection to an external one: it is opened, used and, after a write error or the
// connection's end, closed and replaced by another. JetStream's own state after such an error is not to be trusted: it answers nothing, or stays failed.
type engine struct {
	config   *Config
	server   *server.Server // nil: external
	external *fleet.Engine  // nil: embedded
	id       string         // that its streams carry on an external server; empty: nothing is made or written there
	fresh    bool           // nothing of it needs to be there
	owner    string         // the id that the streams carry which were found
	proof    *proof         // that an external server syncs; nil: embedded
	conn     *nats.Conn
	js       jetstream.JetStream
	lanes    lanes
	cursors  jetstream.Stream
	ring     ring // of cursors
	dead     jetstream.Stream
	catalog  jetstream.Stream
	over     jetstream.Stream // which scheduled messages are over
	control  jetstream.KeyValue

	ctx  context.Context // ends, with the cause, when the engine fails or closes
	fail context.CancelCauseFunc
}

var (
	errNotLoaded = errors.New("the broker has not read yet what is there")
	errClosed    = errors.New("the broker is shutting down")
	errLost      = errors.New("the connection to the embedded server broke")
)

// openEngine starts a server on dir and makes what streams are missing.
func openEngine(c *Config) (*engine, error) {
	e := &engine{config: c}
	e.ctx, e.fail = context.WithCancelCause(context.Background())
	log := &engineLog{log: c.Log, fail: e.fail}
	var err error
	if e.server, err = server.NewServer(serverOptions(c)); err != nil {
		return nil, fmt.Errorf("starting the embedded broker in %s: %w", c.Dir, err)
	}
	e.server.SetLoggerV2(log, false, false, false)
	e.server.Start()
	err = ready(e.server, log)
	if err == nil {
		err = e.connect(c)
	}
	if err != nil {
		e.close()
		return nil, fmt.Errorf("starting the embedded broker in %s: %w", c.Dir, err)
	}
	return e, nil
}

// ready waits until the server serves, or has said why it cannot.
func ready(s *server.Server, log *engineLog) error {
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); {
		if err := log.fatal(); err != nil {
			return err
		}
		if s.ReadyForConnections(readyStep) {
			return nil
		}
	}
	return errors.New("it does not become ready")
}

// serverOptions are those of a server that nobody outside this process can reach, that writes
// through to the disk, and that leaves signals alone.
func serverOptions(c *Config) *server.Options {
	return &server.Options{
		ServerName:             "shoal",
		DontListen:             true,
		NoSigs:                 true,
		MaxPayload:             maxPayload,
		MaxPending:             4 * maxPayload,
		JetStream:              true,
		StoreDir:               c.Dir,
		SyncAlways:             true,
		JetStreamMaxMemory:     c.MaxMemory,
		JetStreamMaxStore:      2*c.MaxStore + c.MaxDead + 6*smallStore,
		DisableJetStreamBanner: true,
	}
}

func (e *engine) connect(c *Config) (err error) {
	if e.conn, err = e.dial(e.server); err != nil {
		return err
	}
	if e.js, err = jetstream.New(e.conn, jetstream.WithDefaultTimeout(startTimeout)); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(e.ctx, startTimeout)
	defer cancel()
	return e.makeStreams(ctx, c)
}

// dial connects to a server of this process; the end of the connection is the engine's.
func (e *engine) dial(s *server.Server) (*nats.Conn, error) {
	return nats.Connect("", nats.InProcessServer(s), nats.NoReconnect(), nats.PingInterval(time.Hour),
		nats.ClosedHandler(func(*nats.Conn) { e.fail(errLost) }))
}

func (e *engine) makeStreams(ctx context.Context, c *Config) (err error) {
	stream := func(name, subjects string, bytes, perSubject int64) jetstream.Stream {
		if err != nil {
			return nil
		}
		var s jetstream.Stream
		s, err = e.stream(ctx, e.js, jetstream.StreamConfig{
			Name: name, Subjects: []string{subjects}, Storage: jetstream.FileStorage,
			MaxBytes: bytes, MaxMsgsPerSubject: perSubject, MaxConsumers: -1,
			Discard: jetstream.DiscardNew, AllowAtomicPublish: true, AllowMsgTTL: name == catalogStream,
		})
		return s
	}
	e.cursors = stream(cursorsStream, cursorsPrefix+"*", smallStore, 1)
	e.catalog = stream(catalogStream, catalogPrefix+"*.*", smallStore, 1)
	e.over = stream(overStream, overPrefix+"*", smallStore, 1)
	e.dead = stream(deadStream, deadPrefix+"*.*", c.MaxDead, 1)
	if err != nil {
		return err
	}
	if _, err = e.lane(fleet.DurabilityDisk); err != nil || e.external != nil {
		return err
	}
	e.control, err = e.js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: controlBucket, History: 1, Storage: jetstream.FileStorage, MaxBytes: smallStore,
	})
	return err
}

// close stops the server and waits until its files are closed.
func (e *engine) close() {
	e.fail(errClosed)
	if e.conn != nil {
		e.conn.Close()
	}
	e.closeLanes()
	if e.server != nil {
		e.server.Shutdown()
		e.server.WaitForShutdown()
	}
}

// err returns why the engine is of no more use, or nil.
func (e *engine) err() error { return context.Cause(e.ctx) }

// message is one JetStream message to be stored.
type message struct {
	subject string
	data    []byte
	after   *uint64 // the sequence that its subject's last message must have; nil: any. Only an external server is asked to check it
}

// store writes messages of one of the synced streams, as lane.store does.
func (e *engine) store(msgs []message) (first uint64, err error) {
	l, err := e.lane(fleet.DurabilityDisk)
	if err != nil {
		return 0, err
	}
	return l.store(msgs)
}

// storeNothing replaces the last message of a subject of the catalog by an empty one, which goes away by itself.
func (e *engine) storeNothing(subject string) error {
	l, err := e.lane(fleet.DurabilityDisk)
	if err != nil {
		return err
	}
	_, err = l.request(&nats.Msg{Subject: subject, Header: nats.Header{jetstream.MsgTTLHeader: {nothingStays.String()}}})
	return err
}

// message is m as it is sent. Others may write to an external server, by mistake or since they were taken for gone: what does not
// follow what this hub wrote last is refused there.
func (l *lane) message(m *message) *nats.Msg {
	out := &nats.Msg{Subject: m.subject, Data: m.data}
	if l.engine.external != nil && m.after != nil {
		out.Header = nats.Header{"Nats-Expected-Last-Subject-Sequence": {strconv.FormatUint(*m.after, 10)}}
	}
	return out
}

func (l *lane) batched(m *message, id string, seq int) *nats.Msg {
	out := l.message(m)
	if out.Header == nil {
		out.Header = nats.Header{}
	}
	out.Header.Set("Nats-Batch-Id", id)
	out.Header.Set("Nats-Batch-Sequence", strconv.Itoa(seq))
	return out
}

// sequence reads JetStream's answer to a publish.
func sequence(answer []byte) (uint64, error) {
	var ack struct {
		Seq   uint64              `json:"seq"`
		Error *jetstream.APIError `json:"error"`
	}
	if err := json.Unmarshal(answer, &ack); err != nil {
		return 0, fmt.Errorf("JetStream answered %q: %w", answer, err)
	}
	if ack.Error != nil {
		return 0, ack.Error
	}
	return ack.Seq, nil
}

func (e *engine) explain(err error) error {
	if cause := e.err(); cause != nil {
		return cause
	}
	return err
}

// quotaExceeded reports whether a write was refused, cleanly, since a stream or the account is full.
func quotaExceeded(err error) bool {
	if err == nil {
		return false
	}
	text := err.Error()
	return strings.Contains(text, "maximum bytes exceeded") || strings.Contains(text, "resources exceeded") ||
		strings.Contains(text, "insufficient resources")
}

// token writes any string as one NATS token: letters, digits, `-` and `_` as they are, every other byte as `=XX`.
func token(s string) string {
	var out strings.Builder
	for _, c := range []byte(s) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' {
			out.WriteByte(c)
			continue
		}
		fmt.Fprintf(&out, "=%02X", c)
	}
	return out.String()
}

// untoken is the inverse of token.
func untoken(s string) (string, error) {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '=' {
			out.WriteByte(s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", fmt.Errorf("%q is no token", s)
		}
		c, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", fmt.Errorf("%q is no token: %w", s, err)
		}
		out.WriteByte(byte(c))
		i += 2
	}
	return out.String(), nil
}
