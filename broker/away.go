package broker

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/fleet"
)

// away stands where a stream would, until the external server has been reached for the first time.
type away struct {
	jetstream.Stream // nil: nothing else is asked
	err              error
}

// awayEngine is the engine while there is none.
func awayEngine(c *Config, at fleet.Engine, err error) *engine {
	e := &engine{config: c, external: &at}
	e.ctx, e.fail = context.WithCancelCause(context.Background())
	e.fail(err)
	none := away{err: err}
	e.cursors, e.dead, e.catalog, e.over = none, none, none, none
	return e
}

// unread answers while nothing was read yet: what is asked for may well exist.
func (b *Broker) unread() error {
	return unavailable("the broker has not read yet what there is: %v", b.engine.Load().explain(errNotLoaded))
}

func (a away) Info(context.Context, ...jetstream.StreamInfoOpt) (*jetstream.StreamInfo, error) {
	return nil, a.err
}

func (a away) Purge(context.Context, ...jetstream.StreamPurgeOpt) error { return a.err }

func (a away) GetMsg(context.Context, uint64, ...jetstream.GetMsgOpt) (*jetstream.RawStreamMsg, error) {
	return nil, a.err
}

func (a away) GetLastMsgForSubject(context.Context, string) (*jetstream.RawStreamMsg, error) {
	return nil, a.err
}
