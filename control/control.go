// Package control holds the desired state of a fleet: it checks each change, compiles it into a
// snapshot, persists it service by service, and hands it to every node.
//
// In the walk of a change it is the one writer: [Control.Apply] is the only thing that ever moves
// traffic, so that rollout, rollback and manual routing share one history. It stands outside the
// walks of a call and of an event, which read the snapshots that it publishes.
//
// What a change does is decided by pure code (plan.go); persisting (journal.go), publishing
// (watch.go) and nodes' acknowledgements (nodes.go) stand around it. A node keeps its copy with
// [SaveSnapshot] and [LoadSnapshot].
//
// Every method is safe for concurrent use. Changes are applied one after another; snapshots are
// immutable and may be shared freely.
package control

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// restoreTimeout bounds reading the store: 10,000 services take a second.
const restoreTimeout = time.Minute

// Store keeps values durably: when Put returns nil, the value survives a power cut.
type Store interface {
	// Get returns the value of key, or nil where there is none.
	Get(ctx context.Context, key string) ([]byte, error)
	// Put sets the value of key; an empty value deletes it.
	Put(ctx context.Context, key string, value []byte) error
	// Watch calls each for every key with that prefix, then once with an empty key, which says that
	// all current values were told, then for every change (an empty value: deleted), until ctx ends
	// or each returns an error, which Watch returns.
	Watch(ctx context.Context, prefix string, each func(key string, value []byte) error) error
}

// Config configures a [Control].
type Config struct {
	Store Store  // required
	Fleet string // the fleet's name, written into each snapshot; required
	// Now tells the time for the history. nil: time.Now.
	Now func() time.Time
}

// Control holds desired state. Make one with [New].
type Control struct {
	config Config

	applying sync.Mutex // held through one Apply; guards state, history and owed
	state    *state
	history  []Entry
	owed     *plan // committed, and not yet written out service by service

	live  atomic.Pointer[publication]
	nodes nodes
}

// Entry is one applied change, as the history tells it.
type Entry struct {
	Version uint64    `json:"version"`
	Time    time.Time `json:"time"`
	Reason  string    `json:"reason"`
	Put     []string  `json:"put,omitempty"`    // services that it changed; at most 20 names
	Remove  []string  `json:"remove,omitempty"` // services that it removed; at most 20 names
}

// New returns a Control with the state that the store holds: none in a fresh one. It reads every
// key of the store's prefix `control.` and finishes a change that a crash cut off after its commit.
func New(c Config) (*Control, error) {
	if c.Store == nil || c.Fleet == "" {
		return nil, errors.New("control: Config needs a Store and the fleet's name")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	k := &Control{config: c}
	k.nodes.init()
	ctx, cancel := context.WithTimeout(context.Background(), restoreTimeout)
	defer cancel()
	if err := k.restore(ctx); err != nil {
		return nil, fmt.Errorf("control: reading desired state: %w", err)
	}
	k.publish()
	return k, nil
}

// Apply applies a change whole, and returns the version of the snapshot that holds it: the current
// one where the change changes nothing. It checks the change, allocates addresses, persists, and
// publishes to watchers, in that order; on an error nothing was published, and the change is not
// in force. Removing a service that is not there is no error.
func (c *Control) Apply(ctx context.Context, change fleet.Change) (version uint64, err error) {
	c.applying.Lock()
	defer c.applying.Unlock()
	p, err := c.state.plan(change, c.config.Now())
	if err != nil {
		return 0, fmt.Errorf("control: change %q refused: %w", change.Reason, err)
	}
	if len(p.Records) == 0 {
		return c.state.version, nil
	}
	if err := c.commit(ctx, p); err != nil {
		return 0, fmt.Errorf("control: change %q not saved, the fleet stays at version %d: %w", change.Reason, c.state.version, err)
	}
	c.state.install(p)
	c.history = remember(c.history, p.Entry)
	c.publish()
	c.writeOut(ctx)
	return p.Entry.Version, nil
}

// Snapshot returns the snapshot in force. It is never nil; version 0 is a fleet without services.
func (c *Control) Snapshot() *fleet.Snapshot { return c.live.Load().snapshot }

// History returns the last changes, at most 1000, oldest first.
func (c *Control) History() []Entry {
	c.applying.Lock()
	defer c.applying.Unlock()
	return append([]Entry(nil), c.history...)
}
