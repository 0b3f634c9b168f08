package broker

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/encoding/protowire"
)

// ring is how cursors lie in their stream. JetStream syncs each message, so that cursors which are saved together are one message, in one
// of a few places by turns; whatever a place holds that no later message holds goes into the message that takes its place. A cursor that is saved
// alone, or is large, is a message of its own subject. Of several messages that have a subscription's cursor the one with the highest sequence holds.
//
//	message Cursors { repeated Cursor cursors = 1; } // subject: ringPrefix and the place
//
// It is guarded by flusher.saving.
type ring struct {
	loaded bool
	next   int
	places [ringPlaces]map[string][]byte // of subscriptions, encoded: what no later message holds
	of     map[string]int                // by subscription: the place that has its cursor. None: its own subject, or nothing
}

const (
	ringPrefix = cursorsPrefix + "=" // no name begins so: see token

	ringPlaces = 64
	ringBytes  = 1 << 20 // of the cursors that are saved by one message; as many again may have been there
	ringSmall  = 4 << 10 // bytes of a cursor at which it is saved alone
)

// savedCursor is a cursor that is to be saved.
type savedCursor struct {
	name string
	data []byte
}

func (c *savedCursor) message() message {
	return message{subject: cursorsPrefix + token(c.name), data: c.data}
}

// saveCursors writes cursors, durably when it returns.
func (e *engine) saveCursors(ctx context.Context, cursors []savedCursor) error {
	if len(cursors) == 0 {
		return nil
	}
	if err := e.readRing(ctx); err != nil {
		return err
	}
	var alone, together []savedCursor
	for _, c := range cursors {
		if len(cursors) == 1 || len(c.data) > ringSmall {
			alone = append(alone, c)
		} else {
			together = append(together, c)
		}
	}
	if err := e.saveAlone(alone); err != nil {
		return err
	}
	for len(together) > 0 {
		n := fitting(together)
		if err := e.saveTogether(together[:n]); err != nil {
			return err
		}
		together = together[n:]
	}
	return nil
}

// fitting is how many cursors one message takes.
func fitting(cursors []savedCursor) (n int) {
	for size := 0; n < len(cursors) && size < ringBytes; n++ {
		size += len(cursors[n].data)
	}
	return n
}

func (e *engine) saveAlone(cursors []savedCursor) error {
	for len(cursors) > 0 {
		n := min(len(cursors), batchMost)
		msgs := make([]message, 0, n)
		for i := range cursors[:n] {
			msgs = append(msgs, cursors[i].message())
		}
		if _, err := e.store(msgs); err != nil {
			return err
		}
		for _, c := range cursors[:n] {
			e.ring.leave(c.name)
		}
		cursors = cursors[n:]
	}
	return nil
}

func (e *engine) saveTogether(cursors []savedCursor) error {
	r := &e.ring
	content := make(map[string][]byte, len(cursors))
	for _, c := range cursors {
		content[c.name] = c.data
	}
	var much []savedCursor // that the place has, and the message does not take along
	size := 0
	for name, data := range r.places[r.next] {
		if content[name] != nil {
			continue
		}
		if size += len(data); size > ringBytes {
			much = append(much, savedCursor{name, data})
			continue
		}
		content[name] = data
	}
	if err := e.saveAlone(much); err != nil {
		return err
	}
	if err := e.fillPlace(r.next, content); err != nil {
		return err
	}
	r.next = (r.next + 1) % ringPlaces
	return nil
}

// fillPlace writes the message of a place.
func (e *engine) fillPlace(n int, content map[string][]byte) error {
	if _, err := e.store([]message{{subject: placeSubject(n), data: encodePlace(content)}}); err != nil {
		return err
	}
	e.ring.fill(n, content)
	return nil
}

func placeSubject(n int) string { return fmt.Sprint(ringPrefix, n) }

func encodePlace(content map[string][]byte) (out []byte) {
	for _, data := range content {
		out = protowire.AppendBytes(protowire.AppendTag(out, 1, protowire.BytesType), data)
	}
	return out
}

// fill notes what the newest message is.
func (r *ring) fill(n int, content map[string][]byte) {
	for name := range content {
		r.leave(name)
	}
	r.places[n] = content
	for name := range content {
		r.of[name] = n
	}
}

// leave notes that a place no longer has a subscription's cursor.
func (r *ring) leave(name string) {
	if n, ok := r.of[name]; ok {
		delete(r.places[n], name)
		delete(r.of, name)
	}
}

// dropCursor removes a subscription's cursor. The caller holds flusher.saving.
func (e *engine) dropCursor(ctx context.Context, name string) error {
	err := e.readRing(ctx)
	if err == nil {
		err = e.cursors.Purge(ctx, jetstream.WithPurgeSubject(cursorsPrefix+token(name)))
	}
	if n, ok := e.ring.of[name]; ok && err == nil {
		err = e.dropFromPlace(ctx, n, name)
	}
	if err != nil {
		return unsaved(e.explain(err), "the cursor of subscription %s is not removed", name)
	}
	return nil
}

func (e *engine) dropFromPlace(ctx context.Context, n int, name string) error {
	rest := maps.Clone(e.ring.places[n])
	delete(rest, name)
	if len(rest) > 0 {
		if err := e.fillPlace(n, rest); err != nil {
			return err
		}
	} else if err := e.cursors.Purge(ctx, jetstream.WithPurgeSubject(placeSubject(n))); err != nil {
		return err
	}
	e.ring.leave(name)
	return nil
}

// readRing reads where cursors lie, once per engine.
func (e *engine) readRing(ctx context.Context) error {
	if e.ring.loaded {
		return nil
	}
	_, err := e.loadCursors(ctx)
	return err
}

// loadCursors reads every saved cursor. The caller holds flusher.saving.
func (e *engine) loadCursors(ctx context.Context) (map[string]cursor, error) {
	out := make(map[string]cursor)
	e.ring = ring{of: make(map[string]int)}
	err := e.each(ctx, e.cursors, cursorsPrefix+"*", func(m *jetstream.RawStreamMsg) error {
		place, is := strings.CutPrefix(m.Subject, ringPrefix)
		if is {
			return e.loadPlace(place, m.Data, out)
		}
		c, err := decodeCursor(m.Data)
		if err == nil {
			out[c.name] = *c
			e.ring.leave(c.name)
		}
		return err
	})
	e.ring.loaded = err == nil
	return out, err
}

// loadPlace reads one place.
func (e *engine) loadPlace(place string, data []byte, out map[string]cursor) error {
	var n int
	if _, err := fmt.Sscan(place, &n); err != nil || n < 0 || n >= ringPlaces {
		return fmt.Errorf("%w: there is no place %q for cursors", errCorrupt, place)
	}
	content := make(map[string][]byte)
	err := fields(data, func(f field) error {
		if f.number != 1 {
			return nil
		}
		c, err := decodeCursor(f.bytes)
		if err == nil {
			out[c.name] = *c
			content[c.name] = f.bytes
		}
		return err
	})
	if err == nil {
		e.ring.fill(n, content)
		e.ring.next = (n + 1) % ringPlaces
	}
	return err
}
