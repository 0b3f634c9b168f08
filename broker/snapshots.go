package broker

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"
)

// SnapshotConfig is the acknowledgement state of a subscription at one time, as a resource. While it exists, the quota of its topic
// does not remove what was unacknowledged then.
type SnapshotConfig struct {
	Name    string            `json:"name"` // as a subscription's
	Topic   string            `json:"topic"`
	Owner   string            `json:"owner,omitempty"`
	Labels  map[string]string `json:"labels,omitempty"`
	Created time.Time         `json:"created"`
	Expires time.Time         `json:"expires"` // 7 days after the oldest message that it holds was published
}

// snapshot is a snapshot as it is stored.
type snapshot struct {
	SnapshotConfig
	Cursor []byte `json:"cursor"`
	floor  uint64
}

func decodeSnapshot(data []byte) (*snapshot, error) {
	s, err := decoded[snapshot](data)
	if err != nil {
		return nil, err
	}
	c, err := decodeCursor(s.Cursor)
	if err == nil {
		s.floor = c.floor
	}
	return s, err
}

const (
	snapshotLife = 7 * 24 * time.Hour
	snapshotLeft = time.Hour // life that a new snapshot must have before it
)

// CreateSnapshot keeps the present acknowledgement state of a subscription.
func (b *Broker) CreateSnapshot(ctx context.Context, caller, subscription string, c SnapshotConfig) (SnapshotConfig, error) {
	b.installing.Lock()
	defer b.installing.Unlock()
	if err := checkID(c.Name); err != nil {
		return c, err
	}
	if err := checkLabels("labels", c.Labels); err != nil {
		return c, err
	}
	s, err := b.usable(ctx, caller, subscription)
	if err != nil {
		return c, err
	}
	if _, err := b.Snapshot(ctx, c.Name); err == nil {
		return c, alreadyExists("snapshot %s exists already", c.Name)
	}
	now := time.Now().UTC()
	oldest, err := b.oldestUnsettled(s)
	if err != nil {
		return c, err
	}
	c.Topic, c.Owner, c.Created, c.Expires = s.topic.name, caller, now, now.Add(snapshotLife)
	if !oldest.IsZero() {
		c.Expires = oldest.Add(snapshotLife)
	}
	if c.Expires.Sub(now) < snapshotLeft {
		return c, precondition("the oldest unacknowledged message of subscription %s is from %s: a snapshot would live less than %v", subscription, oldest.Format(time.RFC3339), snapshotLeft)
	}
	s.mu.Lock()
	kept := &snapshot{SnapshotConfig: c, Cursor: s.window.saved(), floor: s.window.cursor.floor}
	s.mu.Unlock()
	if err := b.keep(kindSnapshot, c.Name, kept); err != nil {
		return c, err
	}
	b.mu.Lock()
	b.catalog.snapshots[c.Name] = kept
	b.mu.Unlock()
	return c, nil
}

// oldestUnsettled is when the message at a subscription's floor was committed; zero where there is none.
func (b *Broker) oldestUnsettled(s *subscription) (time.Time, error) {
	s.mu.Lock()
	floor, head, seq := s.window.cursor.floor, s.window.head, s.window.cursor.seq
	s.mu.Unlock()
	if floor >= head {
		return time.Time{}, nil
	}
	batch, err := b.read(s.topic, seq, floor)
	if err != nil {
		return time.Time{}, unsaved(b.engine.Load().explain(err), "topic %s cannot be read", s.topic.name)
	}
	if batch == nil || len(batch.records) == 0 { // retention removed all that there was
		return time.Time{}, nil
	}
	return batch.records[max(floor, batch.base)-batch.base].time, nil
}

// Snapshot returns the snapshot of that name.
func (b *Broker) Snapshot(_ context.Context, name string) (SnapshotConfig, error) {
	if !b.loaded.Load() {
		return SnapshotConfig{}, b.unread()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.catalog.snapshots[name]
	if s == nil || time.Now().After(s.Expires) {
		return SnapshotConfig{}, notFound("there is no snapshot %s; snapshots live for %v", name, snapshotLife)
	}
	return s.clone(), nil
}

func (s *snapshot) clone() SnapshotConfig {
	out := s.SnapshotConfig
	out.Labels = maps.Clone(out.Labels)
	return out
}

// ListSnapshots returns all snapshots, sorted by name.
func (b *Broker) ListSnapshots(context.Context) []SnapshotConfig {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []SnapshotConfig
	for _, s := range b.catalog.snapshots {
		if time.Now().Before(s.Expires) {
			out = append(out, s.clone())
		}
	}
	slices.SortFunc(out, func(x, y SnapshotConfig) int { return strings.Compare(x.Name, y.Name) })
	return out
}

// UpdateSnapshot lets change edit the labels, or bring the expiration forward.
func (b *Broker) UpdateSnapshot(ctx context.Context, caller, name string, change func(*SnapshotConfig) error) (SnapshotConfig, error) {
	b.installing.Lock()
	defer b.installing.Unlock()
	was, err := b.Snapshot(ctx, name)
	if err == nil {
		err = mayChange(caller, was.Owner, "snapshot "+name)
	}
	if err != nil {
		return was, err
	}
	c := was
	c.Labels = maps.Clone(was.Labels)
	if err := change(&c); err != nil {
		return was, err
	}
	if err := checkLabels("labels", c.Labels); err != nil {
		return was, err
	}
	if c.Expires.After(was.Expires) {
		return was, invalid("expire_time", "a snapshot's expiration can only be brought forward: it is %s", was.Expires.Format(time.RFC3339))
	}
	if !c.Expires.After(time.Now()) {
		return was, invalid("expire_time", "expire_time is %s, which is past: to remove the snapshot, delete it", c.Expires.Format(time.RFC3339))
	}
	b.mu.Lock()
	kept := *b.catalog.snapshots[name]
	b.mu.Unlock()
	kept.Labels, kept.Expires = c.Labels, c.Expires
	if err := b.keep(kindSnapshot, name, &kept); err != nil {
		return was, err
	}
	b.mu.Lock()
	b.catalog.snapshots[name] = &kept
	b.mu.Unlock()
	return kept.clone(), nil
}

// DeleteSnapshot removes a snapshot.
func (b *Broker) DeleteSnapshot(ctx context.Context, caller, name string) error {
	b.installing.Lock()
	defer b.installing.Unlock()
	c, err := b.Snapshot(ctx, name)
	if err == nil {
		err = mayChange(caller, c.Owner, "snapshot "+name)
	}
	if err != nil {
		return err
	}
	return b.removeSnapshot(name)
}

func (b *Broker) removeSnapshot(name string) error {
	if err := b.erase(kindSnapshot, name); err != nil {
		return err
	}
	b.mu.Lock()
	delete(b.catalog.snapshots, name)
	b.mu.Unlock()
	return nil
}
