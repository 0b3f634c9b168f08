package broker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/fleet"
)

const (
	movePasses = 20 // at most, while publishing goes on
	paceFirst  = 5 * time.Millisecond
	paceMost   = 160 * time.Millisecond
	moveFew    = 200              // messages of a pass after which the last one begins
	holdMost   = 30 * time.Second // how long publishes may be held for the last pass
)

// Move brings the messages, cursors, dead letters, scheduled messages and resources to another engine: an empty URL means the embedded
// one. It copies while publishing goes on, then holds what writes, copies the rest, compares both, and replaces the note of where the messages are: in that one
// moment the other holds. Whatever ends it before leaves everything as it was, and another attempt begins anew. What was published and waits is committed to the
// new engine. A dry run only counts. tell is told how it goes.
func (b *Broker) Move(ctx context.Context, to fleet.Engine, dry bool, tell func(string)) (fleet.EngineMove, error) {
	if !b.moving.TryLock() {
		return fleet.EngineMove{}, precondition("the messages are being moved, backed up or restored already")
	}
	defer b.moving.Unlock()
	m := &move{b: b, from: b.engine.Load(), tell: tell}
	if err := m.from.err(); err != nil || !b.loaded.Load() {
		return fleet.EngineMove{}, unavailable("the messages cannot be moved from where they are: %v", m.from.explain(errNotLoaded))
	}
	if to.String() == b.Engine().Engine {
		b.forgetMove()
		return fleet.EngineMove{}, precondition("the messages are there already: %s", to)
	}
	if dry {
		return m.count(ctx, to)
	}
	err := m.open(ctx, to)
	if err == nil {
		err = m.run(ctx, to)
	}
	if err != nil {
		m.abandon()
		return fleet.EngineMove{}, moveFailed(err)
	}
	m.clean(context.WithoutCancel(ctx), m.from)
	return m.counted(), nil
}

// forgetMove ends what is said about a move that was cut off.
func (b *Broker) forgetMove() {
	l := b.location
	if l.Moving == "" {
		return
	}
	if l.Moving = ""; b.relocated(l) == nil {
		b.mu.Lock()
		b.notice = ""
		b.mu.Unlock()
	}
}

func moveFailed(err error) error {
	var known *Error
	if errors.As(err, &known) {
		return err
	}
	return unavailable("the messages stay where they were: %v", err)
}

// move is one attempt.
type move struct {
	b        *Broker
	id       string // of the copies that it makes on external servers
	from, to *engine
	parts    []*part
	took     time.Duration // while publishes were held
	tell     func(string)
}

// count says what would be moved, and whether the other side would take it.
func (m *move) count(ctx context.Context, to fleet.Engine) (fleet.EngineMove, error) {
	if err := m.survey(ctx, to); err != nil {
		return fleet.EngineMove{}, moveFailed(err)
	}
	parts, err := m.held(ctx)
	return fleet.EngineMove{From: m.b.Engine().Engine, To: to.String(), Dry: true, Parts: parts}, err
}

// held counts what is to be moved.
func (m *move) held(ctx context.Context) (out []fleet.EnginePart, err error) {
	parts, err := m.from.parts(append(m.b.usedClasses(), scheduleClass))
	for _, p := range parts {
		info, infoErr := p.from.Info(ctx)
		if err = errors.Join(err, infoErr); err == nil && info.State.Msgs > 0 {
			out = append(out, fleet.EnginePart{Name: p.name, Messages: info.State.Msgs, Bytes: info.State.Bytes})
		}
	}
	return out, err
}

// survey looks at the other side without changing it: whether it may take the messages, and has room for them.
func (m *move) survey(ctx context.Context, to fleet.Engine) error {
	if to.Embedded() {
		return nil
	}
	e, err := openRemote(&m.b.config, to, remote{})
	if err != nil {
		return err
	}
	defer e.close()
	if err := m.b.location.mayHave(ctx, e); err != nil {
		return err
	}
	parts, err := m.held(ctx)
	if err != nil {
		return err
	}
	return e.roomFor(ctx, parts)
}

// roomFor refuses an account whose limits cannot hold what is to be moved. Whether the servers' disks can, nobody tells.
func (e *engine) roomFor(ctx context.Context, parts []fleet.EnginePart) error {
	account, err := e.js.AccountInfo(ctx)
	if err != nil {
		return e.unfit(err)
	}
	var need uint64
	for _, p := range parts {
		need += p.Bytes
	}
	limit := account.Limits.MaxStore // negative: none. Accounts with tiers have theirs there, and what does not fit is refused when it is written
	if limit <= 0 || len(account.Tiers) > 0 || account.Store+need <= uint64(limit) {
		return nil
	}
	return precondition("the account on %s may hold %d MB, of which %d are taken, and %d MB are to be moved: raise its JetStream disk limit", e.external, limit>>20, account.Store>>20, need>>20)
}

// open opens the other engine and empties it: what it has is of an attempt that was cut off, or from before the last move. What it will have carries an id
// of its own, which is in force only when the note of where the messages are says so.
func (m *move) open(ctx context.Context, to fleet.Engine) (err error) {
	if err := m.survey(ctx, to); err != nil {
		return err
	}
	m.id = newID()
	l := m.b.location.with(m.id)
	l.Moving = to.String()
	if err := m.b.relocated(l); err != nil {
		return err
	}
	if to.Embedded() {
		m.to = m.b.home.Load()
		return nil
	}
	if m.to, err = m.openRemote(ctx, to); err != nil {
		return err
	}
	return m.mayTake()
}

func (m *move) openRemote(ctx context.Context, to fleet.Engine) (*engine, error) {
	e, err := openRemote(&m.b.config, to, remote{})
	if err != nil {
		return nil, err
	}
	err = e.remove(ctx, m.b.location.Copies...)
	e.close()
	if err != nil {
		return nil, fmt.Errorf("removing what an earlier move left on %s: %w", to, err)
	}
	if e, err = openRemote(&m.b.config, to, remote{id: m.id, fresh: true}); err != nil {
		m.unmake(ctx, to)
	}
	return e, err
}

// unmake removes the streams that could be made before one could not.
func (m *move) unmake(ctx context.Context, to fleet.Engine) {
	e, err := openRemote(&m.b.config, to, remote{})
	if err == nil {
		err = e.remove(ctx, m.id)
		e.close()
	}
	if err != nil {
		m.b.config.Log.Warn("streams that a move made are not removed", "engine", to.String(), "error", err)
	}
}

// mayTake refuses an engine that would not sync what is to be synced.
func (m *move) mayTake() error {
	unsynced := m.to.proof.refusal()
	if unsynced == nil {
		return nil
	}
	for _, t := range m.b.Topics() {
		if m.b.topicOf(t.Name) == fleet.DurabilityDisk {
			return precondition("topic %s has durability `disk`: %v", t.Name, unsynced)
		}
	}
	return nil
}

// topicOf is the durability of a topic.
func (b *Broker) topicOf(name string) fleet.Durability {
	t := b.topic(name)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.class
}

// run copies, holds, copies the rest, compares, and switches.
func (m *move) run(ctx context.Context, to fleet.Engine) error {
	if err := m.prepare(ctx); err != nil {
		return err
	}
	if err := m.catchUp(ctx); err != nil {
		return err
	}
	m.tell("publishes are held")
	start := time.Now()
	release := m.b.holdWrites()
	defer release()
	ctx, cancel := context.WithTimeout(ctx, holdMost)
	defer cancel()
	if err := m.last(ctx); err != nil {
		return err
	}
	m.tell("everything is there, and the counts agree")
	if err := m.relocate(to); err != nil {
		return err
	}
	m.switchLocked()
	m.took = time.Since(start)
	m.tell(fmt.Sprintf("publishes were held for %v", m.took.Round(time.Millisecond)))
	return nil
}

// catchUp copies until little is left. Publishers that are quicker than that are slowed, so that publishes need not be held for long.
func (m *move) catchUp(ctx context.Context) error {
	defer m.b.pace.Store(0)
	before := math.MaxInt
	for n := range movePasses {
		copied, err := m.pass(ctx, false)
		if err != nil {
			return err
		}
		m.tell(fmt.Sprintf("pass %d: %d messages copied and compared", n+1, copied))
		if copied < moveFew {
			return nil
		}
		if copied > before/2 {
			pace := min(max(2*time.Duration(m.b.pace.Load()), paceFirst), paceMost)
			m.b.pace.Store(int64(pace))
			m.tell(fmt.Sprintf("publishers are as quick as copying: a commit every %v, for now", pace))
		}
		before = copied
	}
	return nil
}

// relocate puts the other side in force. What fails is taken back: the file may have been replaced all the same.
func (m *move) relocate(to fleet.Engine) error {
	before := m.b.location
	l := before.with(before.ID)
	l.Engine, l.ID, l.Moving = to, "", ""
	if !to.Embedded() {
		l.ID = m.id
	}
	l.Copies = slices.DeleteFunc(slices.Clone(l.Copies), func(id string) bool { return id == m.id })
	err := m.b.relocated(l)
	if err != nil {
		err = errors.Join(err, m.b.relocated(before))
	}
	return err
}

// last copies what is left while nothing is written, and compares.
func (m *move) last(ctx context.Context) error {
	if m.b.engine.Load() != m.from || m.from.err() != nil {
		return errors.New("the connection to where they are broke meanwhile: try again")
	}
	for range 2 { // each empties one half of the write-ahead log
		if err := m.b.settleAhead(ctx); err != nil {
			return err
		}
	}
	for _, save := range []func() error{m.b.saveCursorsLocked, m.b.saveSchedulesLocked} {
		if err := save(); err != nil {
			return err
		}
	}
	if err := m.prepare(ctx); err != nil { // of a durability class that is new since
		return err
	}
	if _, err := m.pass(ctx, true); err != nil {
		return err
	}
	for _, p := range m.parts {
		if err := p.reconcile(ctx, m.b.schedules); err != nil {
			return err
		}
	}
	return nil
}

// switchLocked lets everything go on with the other engine. Nothing is written meanwhile.
func (m *move) switchLocked() {
	for _, p := range m.parts {
		if p.scheduled {
			m.b.schedules.rebase(p)
		}
	}
	m.to.ring = ring{} // where cursors lie there is to be read: the embedded engine may have had others
	m.b.engine.Store(m.to)
	m.b.mu.Lock()
	m.b.notice = ""
	topics := slices.Collect(maps.Values(m.b.topics))
	m.b.mu.Unlock()
	for _, t := range topics { // one that was here before knows what it was then
		t.mu.Lock()
		t.loaded = nil
		t.mu.Unlock()
	}
	select {
	case m.b.switched <- struct{}{}:
	default:
	}
	m.b.adopted()
}

// abandon leaves the other engine, and removes what was copied to it.
func (m *move) abandon() {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	if m.to != nil {
		m.clean(ctx, m.to)
	}
	l := m.b.location
	if l.Moving == "" {
		return
	}
	l.Moving = ""
	if err := m.b.relocated(l); err != nil {
		m.b.config.Log.Warn("the end of a move is not noted", "error", err)
	}
}

// clean removes what an engine holds that is not, or no longer, the one. What fails stays, and is removed before the next move to there.
func (m *move) clean(ctx context.Context, e *engine) {
	if err := e.discard(ctx); err != nil {
		m.tell(fmt.Sprintf("what is copied no longer counts, and is not removed from %s: %v", e.name(), err))
		m.b.config.Log.Warn("old copies of messages are not removed", "engine", e.name(), "error", err)
	}
	if e.external != nil {
		e.close()
	}
}

func (e *engine) name() string {
	if e.external == nil {
		return "embedded"
	}
	return e.external.String()
}

// discard removes every message of an engine; on external servers the streams, too.
func (e *engine) discard(ctx context.Context) error {
	if e.external != nil {
		return e.remove(ctx, e.id)
	}
	for _, s := range e.streams() {
		if err := s.Purge(ctx); err != nil {
			return err
		}
	}
	return nil
}

// streams are those of messages that the engine has open; the catalog is the last.
func (e *engine) streams() (out []jetstream.Stream) {
	e.lanes.mu.Lock()
	defer e.lanes.mu.Unlock()
	for _, l := range e.lanes.open {
		if l != nil {
			out = append(out, l.events)
		}
	}
	return append(out, e.cursors, e.over, e.dead, e.catalog)
}

// counted is what was moved.
func (m *move) counted() fleet.EngineMove {
	out := fleet.EngineMove{From: m.from.name(), To: m.to.name(), Held: m.took}
	for _, p := range m.parts {
		if p.messages > 0 {
			out.Parts = append(out.Parts, fleet.EnginePart{Name: p.name, Messages: p.messages, Bytes: p.bytes})
		}
	}
	return out
}
