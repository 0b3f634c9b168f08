package daemon

import (
	"context"
	"log/slog"
	"time"
)

// How often a guard looks, how long it waits for a process that it never saw, and between starts.
const (
	guardInterval = 250 * time.Millisecond
	guardPatience = 2 * time.Second
	guardRetryMin = time.Second
	guardRetryMax = 30 * time.Second
)

// Guard starts another process again whenever it has died: whenever nobody holds its lock.
type Guard struct {
	Lock  string       // path of the other process's lock file
	Start func() error // starts it, detached
	Hold  func() bool  // true while it is meant to be gone
	Log   *slog.Logger

	wait time.Duration // until the start after the next
	next time.Time     // no start before
}

// Run guards until ctx ends. A process that does not stay is started ever more rarely. One that was
// never there is given time: whoever started this process starts the other, too.
func (g Guard) Run(ctx context.Context) error {
	g.wait, g.next = guardRetryMin, time.Now().Add(guardPatience)
	tick := time.NewTicker(guardInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case now := <-tick.C:
			g.look(now)
		}
	}
}

func (g *Guard) look(now time.Time) {
	if _, locked := Locked(g.Lock); locked {
		g.seen(now)
		return
	}
	if now.Before(g.next) || g.Hold() {
		return
	}
	g.Log.Warn("it died; starting it again")
	if err := g.Start(); err != nil {
		g.Log.Error("it cannot be started", "error", err)
	}
	g.next = now.Add(g.wait)
	g.wait = min(2*g.wait, guardRetryMax)
}

// seen forgets the failures of a process that has stayed.
func (g *Guard) seen(now time.Time) {
	if g.wait == guardRetryMin {
		g.next = now
		return
	}
	if now.Sub(g.next) > guardRetryMax {
		g.wait, g.next = guardRetryMin, now
	}
}
