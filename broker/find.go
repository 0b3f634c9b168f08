package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/fleet"
)

const (
	findTime    = 3 * time.Second // how long the log is read back for an id
	storiesMost = 10              // that are told of one id
)

// Explain tells the stories of the messages that an id stands for: TOPIC:OFFSET, SUBSCRIPTION:OFFSET, or the handle of a scheduled message;
// else a CloudEvent's id or its SOURCE/ID, the id of the request that published it, or that of its trace. For those the log is read back from
// its end, until a group has such a message, for 3 s at most.
func (b *Broker) Explain(ctx context.Context, id string) (fleet.Explained, error) {
	if topicName, offset, ok := b.placed(id); ok {
		story, err := b.Story(ctx, topicName, offset)
		if err != nil {
			return fleet.Explained{}, err
		}
		return fleet.Explained{Stories: []fleet.MessageStory{story}}, nil
	}
	s := &search{b: b, id: id, until: time.Now().Add(findTime)}
	err := s.logs(ctx)
	return s.out, err
}

// placed reads TOPIC:OFFSET, or SUBSCRIPTION:OFFSET as dead letters have it.
func (b *Broker) placed(id string) (topicName string, offset uint64, ok bool) {
	at := strings.LastIndexByte(id, ':')
	if at < 1 {
		return "", 0, false
	}
	offset, err := strconv.ParseUint(id[at+1:], 10, 64)
	if err != nil {
		return "", 0, false
	}
	name := id[:at]
	if b.has(name) {
		return name, offset, true
	}
	if c, ok := b.subscriptionConfig(apiName(name)); ok && c.Topic != "" {
		return c.Topic, offset, true
	}
	return "", 0, false
}

// search reads logs for the messages of an id.
type search struct {
	b     *Broker
	id    string
	until time.Time
	out   fleet.Explained
}

// logs reads the log of each durability class that some topic has, and the schedule.
func (s *search) logs(ctx context.Context) error {
	e := s.b.engine.Load()
	for _, class := range append(s.b.usedClasses(), scheduleClass) {
		l, err := e.lane(class)
		found := false
		if err == nil && l.wal != nil {
			found, err = s.ahead(ctx, e, l.wal)
		}
		if err == nil && !found {
			err = s.log(ctx, l, class)
		}
		if err != nil {
			return unavailable("the log cannot be read: %v", e.explain(err))
		}
	}
	return nil
}

// ahead reads what is ahead of the topics' logs.
func (s *search) ahead(ctx context.Context, e *engine, w *wal) (found bool, err error) {
	for _, name := range w.names() {
		t := s.b.topic(name)
		t.mu.Lock()
		err := t.loadLocked(ctx, e)
		left := slices.Clone(t.ahead)
		t.mu.Unlock()
		for _, a := range left {
			if err == nil {
				a, err = decodeBatch(name, a.data, true)
			}
			if err != nil {
				return found, err
			}
			one, err := s.group(ctx, a, fleet.DurabilityDisk)
			found = found || one
			if err != nil {
				return found, err
			}
		}
	}
	return found, nil
}

// log reads one log back, group by group.
func (s *search) log(ctx context.Context, l *lane, class fleet.Durability) error {
	info, err := l.events.Info(ctx)
	if err != nil {
		return err
	}
	for seq := info.State.LastSeq; seq >= max(info.State.FirstSeq, 1); seq-- {
		m, err := l.events.GetMsg(ctx, seq)
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			continue // it was trimmed
		}
		if err != nil {
			return err
		}
		in, err := readGroup(l, m)
		if err != nil {
			return err
		}
		found, err := s.group(ctx, in, class)
		if err != nil || found {
			return err
		}
		if time.Now().After(s.until) {
			s.out.Since = laterOf(s.out.Since, m.Time)
			return nil
		}
	}
	return nil
}

func laterOf(x, y time.Time) time.Time {
	if x.After(y) {
		return x
	}
	return y
}

func readGroup(l *lane, m *jetstream.RawStreamMsg) (*batch, error) {
	name, err := untoken(strings.TrimPrefix(m.Subject, l.prefix))
	var in *batch
	if err == nil {
		in, err = decodeBatch(name, m.Data, true)
	}
	if err != nil {
		return nil, fmt.Errorf("message %d: %w", m.Sequence, err)
	}
	in.seq = m.Sequence
	return in, nil
}

// group looks through one commit group. A message that was redriven, or forwarded as a dead letter, is found as what it was first.
func (s *search) group(ctx context.Context, in *batch, class fleet.Durability) (found bool, err error) {
	for i, r := range in.records {
		offset := in.base + uint64(i)
		if r.only != "" || r.Attributes[deadLetterPrefix+"SourceSubscription"] != "" || !s.is(r, offset, class) {
			continue
		}
		found = true
		if len(s.out.Stories) == storiesMost {
			s.out.More++
			continue
		}
		story, err := s.tell(ctx, in, r, offset, class)
		if err != nil {
			return found, err
		}
		s.out.Stories = append(s.out.Stories, story)
	}
	return found, nil
}

// is reports whether the id stands for a record.
func (s *search) is(r *record, offset uint64, class fleet.Durability) bool {
	if class == scheduleClass {
		if s.b.schedules.isOver(offset) {
			return false // its topic's log has it, if it was not taken back
		}
		if s.id == scheduledID(offset) {
			return true
		}
	}
	id, source := r.ID, r.Source
	if r.plain {
		id, source = r.Attributes[ceID], r.Attributes[ceSource]
	}
	return s.id == r.RequestID || id != "" && (s.id == id || s.id == source+"/"+id) || len(s.id) == 32 && strings.Contains(r.Traceparent, "-"+s.id+"-")
}

// tell tells of a record that was found.
func (s *search) tell(ctx context.Context, in *batch, r *record, offset uint64, class fleet.Durability) (fleet.MessageStory, error) {
	if class != scheduleClass {
		return s.b.Story(ctx, r.Topic, offset)
	}
	r.Topic = r.to
	out := s.b.storyOf(in, r, offset)
	out.Message.ID, out.Pending, out.Scheduled = scheduledID(offset), true, in.time
	out.Group.Took = s.b.took(class, in.time)
	return out, nil
}

// isOver reports whether a scheduled message is waiting no longer.
func (s *schedules) isOver(offset uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	blk := s.over[offset/blockSize]
	return s.findLocked(offset) < 0 || blk != nil && blk.has(offset%blockSize)
}
