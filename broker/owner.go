package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"
)

// streamNames are the streams of messages. The catalog, which says whose they are, is the last to be removed.
func streamNames() []string {
	return []string{eventsStream, osStream, memoryStream, scheduleStream, cursorsStream, overStream, deadStream, catalogStream}
}

// mine refuses streams that another hub uses: two that write the same topics would lose messages of each other.
func (e *engine) mine(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	s, err := e.js.Stream(ctx, catalogStream)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return e.missing(catalogStream)
	}
	if err != nil {
		return e.unfit(err)
	}
	e.owner = s.CachedInfo().Config.Metadata[metaID]
	if e.id == "" {
		return nil
	}
	return e.owns(s)
}

// missing refuses servers that have lost what they had, or are others than those on which it is: an empty broker in its place would hide that.
func (e *engine) missing(name string) error {
	if e.fresh || e.id == "" {
		return nil
	}
	return &foreignError{fmt.Sprintf("the NATS server %s has no stream %s any more: the messages of this fleet were there. Bring its files back, or the server, account or URL that it was. "+
		"If they are lost, restart the hub (`shoal down`, `shoal up`) and begin anew by `shoal broker adopt`, then `shoal broker restore FILE --force`", e.external, name)}
}

// owns refuses a stream of one of our names that is not this hub's.
func (e *engine) owns(s jetstream.Stream) error {
	c := s.CachedInfo().Config
	if c.Metadata[metaID] == e.id {
		return nil
	}
	return e.foreign(c)
}

func (e *engine) foreign(c jetstream.StreamConfig) error {
	if c.Metadata[metaID] == "" {
		return &foreignError{fmt.Sprintf("the stream %s on %s is none of Shoal's: give the fleet a NATS account of its own", c.Name, e.external)}
	}
	return &foreignError{fmt.Sprintf("the streams SHOAL_* on %s belong to a hub of fleet %s: give each fleet a NATS account of its own. "+
		"If that hub is gone for good and this one is to take its place, `shoal broker adopt` takes its messages over", e.external, c.Metadata[metaFleet])}
}

// there are the streams of our names that external servers have.
func (e *engine) there(ctx context.Context) (out []jetstream.Stream, err error) {
	for _, name := range streamNames() {
		s, err := e.js.Stream(ctx, name)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// remove deletes the streams of external servers that carry one of ids.
func (e *engine) remove(ctx context.Context, ids ...string) error {
	there, err := e.there(ctx)
	if err != nil {
		return err
	}
	for _, s := range there {
		if c := s.CachedInfo().Config; slices.Contains(ids, c.Metadata[metaID]) {
			err = errors.Join(err, e.js.DeleteStream(ctx, c.Name))
		}
	}
	return err
}

// mayHave refuses external servers to which messages cannot be moved: those on which they are already, by whatever URL, and those that have what is not
// this hub's. Copies of its own that are not in force are in nobody's way.
func (l *location) mayHave(ctx context.Context, e *engine) error {
	there, err := e.there(ctx)
	if err != nil {
		return err
	}
	for _, s := range there {
		c := s.CachedInfo().Config
		id := c.Metadata[metaID]
		if id != "" && id == l.ID && !l.Engine.Embedded() {
			return precondition("the messages are there already: %s leads to the servers of %s", e.external, l.Engine)
		}
		if id == "" || id != l.ID && !slices.Contains(l.Copies, id) {
			return e.foreign(c)
		}
	}
	return nil
}

// Adopt takes over the messages of another hub, which is gone, on the servers that this one is refused by; or servers that have lost theirs. It returns where they
// are. Reading them begins a moment later.
func (b *Broker) Adopt(ctx context.Context) (string, error) {
	e := b.engine.Load()
	var foreign *foreignError
	if b.loaded.Load() || !errors.As(e.err(), &foreign) {
		return "", precondition("there is nothing to adopt: shoal.work names no NATS servers on which another hub has its messages, or this hub has read its own")
	}
	if !b.moving.TryLock() {
		return "", unavailable("the broker is just connecting: try again")
	}
	defer b.moving.Unlock()
	found, err := openRemote(&b.config, *e.external, remote{})
	if err != nil {
		return "", unavailable("nothing is adopted: %v", err)
	}
	defer found.close()
	l := location{ID: newID()} // where they have nothing, the hub begins anew there
	some, err := found.rename(ctx, l.ID, b.config.Fleet)
	if some {
		l.Engine = *e.external
	}
	if err == nil {
		err = b.relocated(l)
	}
	if err != nil {
		return "", unavailable("nothing is adopted: %v", err)
	}
	return e.external.String(), nil
}

// rename gives every stream to another hub. One that is cut off is refused to all hubs, and done again.
func (e *engine) rename(ctx context.Context, id, of string) (some bool, err error) {
	there, err := e.there(ctx)
	if err != nil {
		return false, err
	}
	for _, s := range there {
		if c := s.CachedInfo().Config; c.Metadata[metaID] == "" {
			return false, e.foreign(c)
		}
	}
	for _, s := range there {
		c := s.CachedInfo().Config
		c.Metadata[metaID], c.Metadata[metaFleet] = id, of
		if _, err := e.js.UpdateStream(ctx, c); err != nil {
			return false, err
		}
	}
	return len(there) > 0, nil
}
