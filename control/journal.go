package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Keys in the store. A change of any size is in force with one Put of `control.meta`, which holds the
// change itself, or the number of parts in which it was put before; then each service is written under its own key. A crash
// in between is made good at the next start, from the meta. So no message grows with the fleet.
const (
	prefix        = "control."
	keyMeta       = prefix + "meta"
	prefixService = prefix + "service."
	prefixHistory = prefix + "history."
	prefixPart    = prefix + "part."

	historyKept = 1000
	partLimit   = 256 << 10 // bytes of one part
)

// meta is the commit record: the last change, whole.
type meta struct {
	Fleet string `json:"fleet"`
	Entry Entry  `json:"entry"`
	// Parts counts the keys that hold the change's records; where it is 0, Records does.
	Parts   int       `json:"parts,omitempty"`
	Records []*record `json:"records,omitempty"`
}

var errTold = errors.New("all current values were told")

// commit makes p durable. Where it fails p may be durable all the same; the next change, or a
// restart, then goes on from there, and nobody has seen p.
func (c *Control) commit(ctx context.Context, p *plan) error {
	if err := c.settle(ctx); err != nil {
		return err
	}
	m := meta{Fleet: c.config.Fleet, Entry: p.Entry, Records: p.Records}
	parts, err := split(p.Records)
	if err != nil {
		return err
	}
	if len(parts) > 1 {
		m.Records, m.Parts = nil, len(parts)
		for i, part := range parts {
			if err := c.config.Store.Put(ctx, partKey(p.Entry.Version, i), part); err != nil {
				return err
			}
		}
	}
	if err := c.put(ctx, keyMeta, m); err != nil {
		return err
	}
	c.owed = p
	return nil
}

// writeOut writes what commit made durable to its places. What fails is owed, and done before the
// next commit: the change is safe in the meta until then.
func (c *Control) writeOut(ctx context.Context) { _ = c.settle(context.WithoutCancel(ctx)) }

func (c *Control) settle(ctx context.Context) error {
	if c.owed == nil {
		return nil
	}
	for _, r := range c.owed.Records {
		if err := c.put(ctx, prefixService+r.Service.Name, r); err != nil {
			return err
		}
	}
	slot := c.owed.Entry.Version % historyKept
	if err := c.put(ctx, prefixHistory+strconv.FormatUint(slot, 10), c.owed.Entry); err != nil {
		return err
	}
	c.owed = nil
	return nil
}

func (c *Control) put(ctx context.Context, key string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", key, err)
	}
	return c.config.Store.Put(ctx, key, data)
}

// split encodes records in parts of at most partLimit, or of one record.
func split(records []*record) ([][]byte, error) {
	var parts [][]byte
	var part []json.RawMessage
	size := 0
	flush := func() error {
		data, err := json.Marshal(part)
		parts, part, size = append(parts, data), nil, 0
		return err
	}
	for _, r := range records {
		data, err := json.Marshal(r)
		if err != nil {
			return nil, fmt.Errorf("encoding service %q: %w", r.Service.Name, err)
		}
		if size > 0 && size+len(data) > partLimit {
			if err := flush(); err != nil {
				return nil, err
			}
		}
		part, size = append(part, data), size+len(data)
	}
	return parts, flush()
}

// restore reads the state of an earlier run.
func (c *Control) restore(ctx context.Context) error {
	c.state = &state{fleet: c.config.Fleet, records: make(map[string]*record)}
	err := c.config.Store.Watch(ctx, prefix, c.restoreKey)
	if err != nil && !errors.Is(err, errTold) {
		return err
	}
	slices.SortFunc(c.history, func(a, b Entry) int { return int(a.Version) - int(b.Version) })
	p, err := c.lastPlan(ctx)
	if err != nil || p == nil {
		return err
	}
	c.state.install(p)
	if n := len(c.history); n > 0 && c.history[n-1].Version == p.Entry.Version {
		return nil // it was written out to its end: the history is last
	}
	c.history = remember(c.history, p.Entry)
	c.owed = p
	return c.settle(ctx)
}

func (c *Control) restoreKey(key string, value []byte) error {
	switch {
	case key == "":
		return errTold
	case len(value) == 0:
		return nil
	case strings.HasPrefix(key, prefixService):
		r := new(record)
		if err := json.Unmarshal(value, r); err != nil || r.Service == nil {
			return fmt.Errorf("%s cannot be read: %w", key, errors.Join(err, errors.New("it holds no service")))
		}
		c.state.install(&plan{Records: []*record{r}, Entry: Entry{Version: r.Service.Version}})
	case strings.HasPrefix(key, prefixHistory):
		var e Entry
		if json.Unmarshal(value, &e) == nil { // the history is for people: a bad line stops nothing
			c.history = append(c.history, e)
		}
	}
	return nil
}

// lastPlan returns the last committed change, or nil in a fresh store.
func (c *Control) lastPlan(ctx context.Context) (*plan, error) {
	data, err := c.config.Store.Get(ctx, keyMeta)
	if err != nil || len(data) == 0 {
		return nil, err
	}
	var m meta
	if err := json.Unmarshal(data, &m); err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", keyMeta, err)
	}
	if m.Fleet != c.config.Fleet {
		return nil, fmt.Errorf("the data folder holds the fleet %q, and this is %q: use another data folder, or the old name", m.Fleet, c.config.Fleet)
	}
	p := &plan{Entry: m.Entry, Records: m.Records}
	for i := range m.Parts {
		records, err := c.part(ctx, partKey(m.Entry.Version, i))
		if err != nil {
			return nil, err
		}
		p.Records = append(p.Records, records...)
	}
	return p, nil
}

// partKey names one part of a change. Odd and even versions have their own, so that a change which
// never reached its commit cannot have overwritten the parts of the one before.
func partKey(version uint64, i int) string {
	return fmt.Sprintf("%s%d.%d", prefixPart, version%2, i)
}

func (c *Control) part(ctx context.Context, key string) ([]*record, error) {
	data, err := c.config.Store.Get(ctx, key)
	if err != nil {
		return nil, err
	}
	var records []*record
	if err := json.Unmarshal(data, &records); err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w", key, err)
	}
	return records, nil
}

func remember(history []Entry, e Entry) []Entry {
	history = append(history, e)
	return history[max(0, len(history)-historyKept):]
}
