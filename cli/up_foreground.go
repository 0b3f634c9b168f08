package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
)

// view is where a foreground `up` shows what happens: the live table, or plain lines.
type view interface {
	progress(fleet.Progress)
	show(fleet.Status)
	say(text string)
	end(text string)
	close()
}

func (a *app) newView() view {
	if f, ok := a.out.(*os.File); ok && isTerminal(f) && os.Getenv("TERM") != "dumb" {
		return a.newLive(f)
	}
	return plainView{a.newPlain(a.out)}
}

// plainView is the view of a pipe: progress and sentences, a line each.
type plainView struct{ *plain }

func (plainView) show(fleet.Status) {}
func (plainView) close()            {}

func (p plainView) end(text string) { p.say(text) }

func (p plainView) say(text string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(p.out, text)
}

// upForeground is the fleet's owner: it starts hub and node, shows what they do, and stays until
// Ctrl-C, until somebody runs `down`, or until one of them dies. Nothing is left on any path.
func (a *app) upForeground(ctx context.Context, p plan) error {
	signals, stopSignals := stopSignals()
	defer stopSignals()
	c := api.Dial(p.paths)
	defer c.Close()
	o, err := startNew(ctx, c, p)
	if err != nil {
		return err
	}
	v := a.newView()
	err = o.attend(ctx, c, p, v, signals)
	left := o.stop()
	v.close()
	return errors.Join(err, left)
}

// startNew starts an owned fleet where none runs.
func startNew(ctx context.Context, c *api.Client, p plan) (*owned, error) {
	if err := alreadyUp(ctx, c); err != nil {
		return nil, err
	}
	if err := api.InitData(p.paths.Data); err != nil {
		return nil, err
	}
	return startOwned(p.paths, p.flags, api.Hub, api.Node)
}

// attend goes through the life of a foreground fleet: start, follow, stop.
func (o *owned) attend(ctx context.Context, c *api.Client, p plan, v view, signals <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, 1)
	go func() { failed <- o.start(ctx, c, p, v) }()
	for {
		select {
		case <-signals:
			return o.down(ctx, c, v, signals)
		case dead := <-o.died:
			return o.ended(dead, v)
		case err := <-failed:
			if err != nil {
				return err
			}
		}
	}
}

// start brings the services up and then follows what happens. A service that fails is no reason to
// end: its repository is watched, and the next change may mend it. Where nothing could be started
// at all, there is nothing to stay for.
func (o *owned) start(ctx context.Context, c *api.Client, p plan, v view) error {
	if err := o.answeringOrDead(ctx, c); err != nil {
		return err
	}
	go c.Watch(ctx, v.show) // until ctx ends: the death of the hub is noticed elsewhere
	steps := &summary{each: v.progress}
	err := c.Up(ctx, p.request, steps.progress)
	if ctx.Err() != nil {
		return nil
	}
	st, stErr := c.Status(ctx)
	if stErr != nil {
		return nil // a death, which is told elsewhere
	}
	v.show(st)
	switch {
	case err != nil && len(st.Services) == 0:
		return err
	case err != nil:
		v.say(fmt.Sprintf("%v\nwaiting for a change that mends it; Ctrl-C stops everything", err))
	default:
		v.say(steps.line(st))
	}
	go c.Follow(ctx, v.progress)
	return nil
}

// answeringOrDead leaves a death to the one who waits for deaths.
func (o *owned) answeringOrDead(ctx context.Context, c *api.Client) error {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	err := answering(ctx, c)
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil
	}
	return err
}

// down stops everything in order; a second signal stops it by force.
func (o *owned) down(ctx context.Context, c *api.Client, v view, signals <-chan os.Signal) error {
	v.end("stopping; Ctrl-C again stops by force")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- c.Down(ctx, v.progress) }()
	ending := len(o.processes)
	var limit <-chan time.Time // for the other one, once one has ended
	for {
		select {
		case <-signals:
			o.kill()
			v.end("stopped by force")
			return exitError{exitInterrupted}
		case err := <-done:
			done = nil
			if err != nil {
				v.end("stopped")
				return nil // what does not answer is ended by closing the pipe
			}
		case <-o.died:
			if ending--; ending == 0 {
				v.end("stopped")
				return nil
			}
			limit = time.After(endPatience)
		case <-limit:
			return nil // closing the pipe, and force, end what is left
		}
	}
}

// ended tells a `shoal down` from elsewhere, after which both processes end well, from a death.
func (o *owned) ended(dead *process, v view) error {
	if dead.err != nil {
		v.end("stopping: the " + string(dead.which) + " ended")
		return dead.death()
	}
	v.end("stopping")
	o.owner.Close() // the other one is to end now, whatever it meant to do
	select {
	case other := <-o.died:
		if other.err != nil {
			return other.death()
		}
		v.end("stopped")
		return nil
	case <-time.After(endPatience):
		return dead.death()
	}
}
