package broker

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/fleet"
)

// part is one stream on its way to another engine. Messages keep their order and get new sequences, all of which are higher than those
// that they had: whatever remembers an old one (cursors, snapshots, windows, leases) looks from there on, and finds the same offset.
type part struct {
	name         string
	from, to     jetstream.Stream
	prefix, into string // of subjects
	write        func([]message) (uint64, error)
	small        bool // it is copied at once, while nothing is written
	unique       bool // it has one message per subject
	scheduled    bool // its messages are removed one by one

	next     uint64 // in from
	copied   []copied
	checked  int               // of copied
	latest   map[string]uint64 // by subject: where the copy lies; of a unique part
	messages uint64            // that the other engine holds in the end
	bytes    uint64
}

// copied is one message of both streams.
type copied struct {
	from, to uint64
	sum      uint32
	subject  string // of a unique part
}

// sequenceStep is added to the sequences of a stream that is moved.
const sequenceStep = 1_000_000_000

// parts lists the streams of an engine, with those of some classes.
func (e *engine) parts(classes []fleet.Durability) (out []*part, err error) {
	for _, class := range classes {
		if find(out, laneName(class)) != nil {
			continue
		}
		l, err := e.lane(class)
		if err != nil {
			return nil, err
		}
		out = append(out, &part{name: laneName(class), from: l.events, prefix: l.prefix, write: l.store, scheduled: class == scheduleClass})
	}
	return append(out,
		&part{name: "dead letters", from: e.dead, prefix: deadPrefix, write: e.store, unique: true},
		&part{name: "cursors", from: e.cursors, prefix: cursorsPrefix, write: e.store, small: true},
		&part{name: "finished schedules", from: e.over, prefix: overPrefix, write: e.store, small: true},
		&part{name: "resources", from: e.catalog, prefix: catalogPrefix, write: e.store, small: true},
	), nil
}

// find returns the part of that name, or nil.
func find(parts []*part, name string) *part {
	if i := slices.IndexFunc(parts, func(p *part) bool { return p.name == name }); i >= 0 {
		return parts[i]
	}
	return nil
}

func laneName(class fleet.Durability) string {
	if class == scheduleClass {
		return "scheduled messages"
	}
	return fmt.Sprintf("messages (%s)", class)
}

// prepare adds the parts that are not there yet, each with an empty stream on the other side.
func (m *move) prepare(ctx context.Context) error {
	classes := append(m.b.usedClasses(), scheduleClass)
	parts, err := m.from.parts(classes)
	if err != nil {
		return err
	}
	there, err := m.to.parts(classes)
	if err != nil {
		return err
	}
	for _, p := range parts {
		if find(m.parts, p.name) != nil {
			continue
		}
		other := find(there, p.name)
		p.to, p.into, p.write, p.latest = other.from, other.prefix, other.write, make(map[string]uint64)
		if err := p.begin(ctx); err != nil {
			return err
		}
		m.parts = append(m.parts, p)
	}
	return nil
}

// begin empties the other side, and lets it count on from far above.
func (p *part) begin(ctx context.Context) error {
	info, err := p.from.Info(ctx)
	if err == nil {
		err = p.to.Purge(ctx)
	}
	if err != nil {
		return err
	}
	return countOn(ctx, p.to, info.State.LastSeq)
}

// countOn lets an empty stream count on from far above a sequence, and above its own.
func countOn(ctx context.Context, s jetstream.Stream, last uint64) error {
	there, err := s.Info(ctx)
	if err != nil {
		return err
	}
	first := max(last, there.State.LastSeq) + sequenceStep
	if err := s.Purge(ctx, jetstream.WithPurgeSequence(first)); err != nil {
		return err
	}
	if there, err = s.Info(ctx); err == nil && there.State.LastSeq+1 < first {
		err = fmt.Errorf("the sequences of %s cannot be moved on to %d: they are at %d", there.Config.Name, first, there.State.LastSeq)
	}
	return err
}

// pass copies what there is, and compares it by reading it back. It returns how many messages that were.
func (m *move) pass(ctx context.Context, all bool) (n int, err error) {
	for _, p := range m.parts {
		if p.small && !all {
			continue
		}
		before := len(p.copied)
		if err = p.copy(ctx); err == nil {
			err = p.compare(ctx)
		}
		if err != nil {
			return n, fmt.Errorf("copying %s: %w", p.name, m.to.explain(m.from.explain(err)))
		}
		n += len(p.copied) - before
	}
	return n, nil
}

// copy copies what there is when it begins, in groups.
func (p *part) copy(ctx context.Context) error {
	info, err := p.from.Info(ctx)
	if err != nil {
		return err
	}
	var msgs []message
	var those []copied
	size := 0
	flush := func() error {
		if len(msgs) == 0 {
			return nil
		}
		first, err := p.write(msgs)
		if err != nil {
			return err
		}
		for i, c := range those {
			c.to = first + uint64(i)
			p.copied = append(p.copied, c)
			if p.unique {
				p.latest[c.subject] = c.to
			}
		}
		msgs, those, size = msgs[:0], those[:0], 0
		return ctx.Err()
	}
	for p.next <= info.State.LastSeq {
		raw, err := p.from.GetMsg(ctx, max(p.next, 1), jetstream.WithGetMsgSubject(p.prefix+">"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return err
		}
		p.next = raw.Sequence + 1
		if len(raw.Data) == 0 {
			continue // what was erased
		}
		if len(msgs) == batchMost || size+len(raw.Data) > groupBytes {
			if err := flush(); err != nil {
				return err
			}
		}
		subject := p.into + strings.TrimPrefix(raw.Subject, p.prefix)
		msgs, size = append(msgs, message{subject: subject, data: raw.Data}), size+len(raw.Data)
		c := copied{from: raw.Sequence, sum: sum(subject, raw.Data)}
		if p.unique {
			c.subject = subject
		}
		those = append(those, c)
	}
	return flush()
}

func sum(subject string, data []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum([]byte(subject), table), table, data)
}

// compare reads back what was copied since the last time.
func (p *part) compare(ctx context.Context) error {
	for ; p.checked < len(p.copied); p.checked++ {
		c := p.copied[p.checked]
		if p.unique && p.latest[c.subject] != c.to {
			continue // replaced since
		}
		raw, err := p.to.GetMsg(ctx, c.to)
		if err != nil {
			return fmt.Errorf("reading message %d back: %w", c.to, err)
		}
		if sum(raw.Subject, raw.Data) != c.sum {
			return fmt.Errorf("message %d differs from its copy", c.from)
		}
	}
	return nil
}

// reconcile removes from the copy what was removed meanwhile, and compares the counts of every subject. Of a subject, it is always the
// oldest that was removed.
func (p *part) reconcile(ctx context.Context, schedules *schedules) error {
	if p.scheduled {
		if err := p.dropScheduled(ctx, schedules); err != nil {
			return err
		}
	}
	ours, err := subjects(ctx, p.from, p.prefix)
	if err != nil {
		return err
	}
	theirs, err := subjects(ctx, p.to, p.into)
	if err != nil {
		return err
	}
	for name, n := range theirs {
		keep := ours[name]
		if n <= keep {
			continue
		}
		options := []jetstream.StreamPurgeOpt{jetstream.WithPurgeSubject(p.into + name)}
		if keep > 0 {
			options = append(options, jetstream.WithPurgeKeep(keep))
		}
		if err := p.to.Purge(ctx, options...); err != nil {
			return err
		}
	}
	return p.counts(ctx)
}

// counts compares how many messages both sides have of each subject. Empty ones, which say that a resource was erased, are not copied.
func (p *part) counts(ctx context.Context) error {
	ours, err := subjects(ctx, p.from, p.prefix)
	if err != nil {
		return err
	}
	theirs, err := subjects(ctx, p.to, p.into)
	if err != nil {
		return err
	}
	for name, n := range ours {
		if theirs[name] != n && (!p.small || theirs[name] != 0) {
			return fmt.Errorf("%s: subject %s has %d messages, and its copy %d", p.name, name, n, theirs[name])
		}
	}
	info, err := p.to.Info(ctx)
	if err != nil {
		return err
	}
	if p.small && info.State.Msgs != uint64(len(p.copied)) {
		return fmt.Errorf("%s: %d messages were copied, and %d are there", p.name, len(p.copied), info.State.Msgs)
	}
	p.messages, p.bytes = info.State.Msgs, info.State.Bytes
	return nil
}

// subjects counts a stream's messages by subject, without the prefix.
func subjects(ctx context.Context, s jetstream.Stream, prefix string) (map[string]uint64, error) {
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(prefix+">"))
	if err != nil {
		return nil, err
	}
	out := make(map[string]uint64, len(info.State.Subjects))
	for subject, n := range info.State.Subjects {
		out[strings.TrimPrefix(subject, prefix)] = n
	}
	return out, nil
}

// dropScheduled removes copies of scheduled batches that are over and gone.
func (p *part) dropScheduled(ctx context.Context, s *schedules) error {
	s.mu.Lock()
	kept := make(map[uint64]struct{}, len(s.batches))
	for _, b := range s.batches {
		kept[b.seq] = struct{}{}
	}
	s.mu.Unlock()
	for _, c := range p.copied {
		if _, ok := kept[c.from]; ok {
			continue
		}
		if err := p.to.DeleteMsg(ctx, c.to); err != nil {
			return err
		}
	}
	return nil
}

// rebase gives every scheduled batch the sequence of its copy.
func (s *schedules) rebase(p *part) {
	s.mu.Lock()
	defer s.mu.Unlock()
	to := make(map[uint64]uint64, len(p.copied))
	for _, c := range p.copied {
		to[c.from] = c.to
	}
	for i := range s.batches {
		s.batches[i].seq = to[s.batches[i].seq]
	}
	s.topic.mu.Lock()
	s.topic.loaded = nil
	s.topic.mu.Unlock()
}
