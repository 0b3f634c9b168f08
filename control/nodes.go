package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// nodes are the live nodes and the version that each has installed.
type nodes struct {
	mu      sync.Mutex
	acked   map[string]uint64
	changed chan struct{} // closed and replaced at every change
}

func (n *nodes) init() {
	n.acked = make(map[string]uint64)
	n.changed = make(chan struct{})
}

// Join makes a node live: from now on [Control.Acked] waits for it. A node that joins again starts
// from nothing, since its data path may be a new process.
func (c *Control) Join(node string) {
	c.nodes.update(func(acked map[string]uint64) { acked[node] = 0 })
}

// Ack says that a live node has installed a version. One that is not live, or an older version, is ignored.
func (c *Control) Ack(node string, version uint64) {
	c.nodes.update(func(acked map[string]uint64) {
		if v, live := acked[node]; live {
			acked[node] = max(v, version)
		}
	})
}

// Leave says that a node is gone: nothing waits for it any more.
func (c *Control) Leave(node string) {
	c.nodes.update(func(acked map[string]uint64) { delete(acked, node) })
}

// Nodes returns the live nodes, each with the version that it has acknowledged.
func (c *Control) Nodes() map[string]uint64 {
	c.nodes.mu.Lock()
	defer c.nodes.mu.Unlock()
	out := make(map[string]uint64, len(c.nodes.acked))
	for name, v := range c.nodes.acked {
		out[name] = v
	}
	return out
}

// Acked waits until every live node has installed version or a later one: at once where no node is
// live. When ctx ends first, its error names the nodes that have not.
func (c *Control) Acked(ctx context.Context, version uint64) error {
	for {
		behind, changed := c.nodes.behind(version)
		if len(behind) == 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("control: version %d is not yet acknowledged by %s: %w", version, strings.Join(behind, ", "), ctx.Err())
		}
	}
}

func (n *nodes) update(f func(acked map[string]uint64)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n.acked)
	close(n.changed)
	n.changed = make(chan struct{})
}

func (n *nodes) behind(version uint64) (names []string, changed <-chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for name, v := range n.acked {
		if v < version {
			names = append(names, fmt.Sprintf("%s (at %d)", name, v))
		}
	}
	slices.Sort(names)
	return names, n.changed
}
