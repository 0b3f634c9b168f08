package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"

	"connectrpc.com/connect"

	pb "github.com/shoalrun/shoal/api/gen/shoal/operator/v1"
	"github.com/shoalrun/shoal/fleet"
)

// ErrNotRunning says that neither hub nor node answers.
var ErrNotRunning = errors.New("no fleet is running here: start one with shoal up")

// GoneError says that one process does not answer, or went away while it did.
type GoneError struct {
	Process Process
	Verb    string // what was asked of it; may be empty
	Log     string // its log file
	Err     error
}

func (e *GoneError) Error() string {
	verb := ""
	if e.Verb != "" {
		verb = fmt.Sprintf(", and only it answers `%s`", e.Verb)
	}
	return fmt.Sprintf("the %s is gone%s: it is restarted if the fleet was started with `up -d`, so try again in a moment, or see %s (%v)", e.Process, verb, e.Log, e.Err)
}

func (e *GoneError) Unwrap() error { return e.Err }

// failure makes a readable error of what a call to r returned: the server's own words, the end of
// ctx, or a [GoneError].
func (r *remote) failure(ctx context.Context, err error) error {
	var gone *GoneError
	var answered *connect.Error
	var told *RemoteError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &told):
		return told
	case errors.As(err, &gone):
		return &GoneError{Process: r.process, Log: r.log, Err: gone.Err}
	case errors.As(err, &answered) && connect.IsWireError(err):
		return &RemoteError{Process: r.process, Code: answered.Code(), Text: answered.Message()}
	}
	return &GoneError{Process: r.process, Log: r.log, Err: err}
}

// RemoteError is what hub or node answered instead of doing what was asked.
type RemoteError struct {
	Process Process
	Code    connect.Code
	Text    string
}

func (e *RemoteError) Error() string { return e.Text }

// isGone reports whether err says that the process does not answer.
func isGone(err error) bool {
	var gone *GoneError
	return errors.As(err, &gone)
}

// hubElseNode asks the hub, and the node where the hub is gone.
func (c *Client) hubElseNode(ask func(*remote) error) error {
	err := ask(c.hub)
	if !isGone(err) {
		return err
	}
	if err := ask(c.node); !isGone(err) {
		return err
	}
	return ErrNotRunning
}

// all asks hub and nodes, one after the other, and is content with those that answer.
func (c *Client) all(ctx context.Context, ask func(*remote) error) error {
	errs := []error{ask(c.node), ask(c.hub)}
	if isGone(errs[0]) && isGone(errs[1]) {
		return ErrNotRunning
	}
	for _, r := range c.others(ctx) {
		errs = append(errs, ask(r))
	}
	return errors.Join(slices.DeleteFunc(errs, isGone)...)
}

// together asks all at the same time, and is content with those that answer.
func together(all []*remote, ask func(*remote) error) error {
	errs := make([]error, len(all))
	var asking sync.WaitGroup
	for i, r := range all {
		asking.Go(func() { errs[i] = ask(r) })
	}
	asking.Wait()
	answered := slices.DeleteFunc(errs, isGone)
	if len(answered) == 0 {
		return ErrNotRunning
	}
	return errors.Join(answered...)
}

func (c *Client) onlyHub(ctx context.Context, verb string, err error) error {
	return c.only(ctx, c.hub, verb, err)
}

func (c *Client) onlyNode(ctx context.Context, verb string, err error) error {
	return c.only(ctx, c.node, verb, err)
}

// only explains an error of a verb that one process alone answers: where that one is gone it
// matters whether the other still runs.
func (c *Client) only(ctx context.Context, r *remote, verb string, err error) error {
	err = r.failure(ctx, err)
	var gone *GoneError
	if !errors.As(err, &gone) {
		return err
	}
	if _, err := c.Running(ctx); err != nil {
		return err
	}
	gone.Verb = verb
	return gone
}

// Tap calls each with what nodes and hub see, as it happens, until ctx ends or all are gone. Calls of
// each do not overlap.
func (c *Client) Tap(ctx context.Context, t TapRequest, each func(fleet.Observation)) error {
	filter, err := json.Marshal(t)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	err = together(append(c.others(ctx), c.hub, c.node), func(r *remote) error {
		ask := &pb.TapRequest{Services: t.Services, Failures: t.Failures, FilterJson: filter}
		stream, err := r.rpc.Tap(ctx, connect.NewRequest(ask))
		return r.failure(ctx, receive(stream, err, func(m *pb.TapResponse) error {
			mu.Lock()
			defer mu.Unlock()
			return decode(m.ObservationJson, each)
		}))
	})
	return errors.Join(ctx.Err(), err)
}

// receive reads a stream to its end.
func receive[M any](stream *connect.ServerStreamForClient[M], err error, each func(*M) error) error {
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		if err := each(stream.Msg()); err != nil {
			return err
		}
	}
	return stream.Err()
}

func ofProgress(each func(fleet.Progress)) func(*pb.Progress) error {
	return func(m *pb.Progress) error { return decode(m.ProgressJson, each) }
}

func decode[V any](b []byte, each func(V)) error {
	var v V
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	each(v)
	return nil
}

func oldestFirst(all []fleet.Observation) []fleet.Observation {
	slices.SortStableFunc(all, func(a, b fleet.Observation) int { return a.Time.Compare(b.Time) })
	return all
}
