package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/fleet"
)

// location is where the messages lie. It is one small file beside the embedded server's, and replaced whole: that is the one moment
// in which a move takes effect. It may hold a password, and nobody but the hub's user reads it.
type location struct {
	Engine fleet.Engine `json:"engine,omitzero"` // as it was last reached; zero: embedded
	ID     string       `json:"id,omitempty"`    // of the streams there; see metaID. Each move gives another: what it left elsewhere is never taken for what is in force
	Copies []string     `json:"copies,omitempty"`
	Moving string       `json:"moving,omitempty"` // where a move is bringing the messages; empty: none is on
}

// copiesMost is how many copies that are not in force are remembered, so that a move may remove them: what they are on is refused later.
const copiesMost = 64

// with is l with one more copy that is not in force.
func (l location) with(id string) location {
	if id == "" {
		return l
	}
	l.Copies = append(slices.Clone(l.Copies), id)
	l.Copies = l.Copies[max(0, len(l.Copies)-copiesMost):]
	return l
}

func locationFile(c *Config) string { return filepath.Join(c.Dir, "engine.json") }

func readLocation(c *Config) (l location, err error) {
	data, err := os.ReadFile(locationFile(c))
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil
	}
	if err == nil {
		err = json.Unmarshal(data, &l)
	}
	if err != nil {
		return l, fmt.Errorf("reading where the broker's messages lie, %s: %w", locationFile(c), err)
	}
	return l, nil
}

func writeLocation(c *Config, l location) error {
	data, err := json.Marshal(l)
	if err == nil {
		err = writeSynced(locationFile(c), data)
	}
	if err != nil {
		return fmt.Errorf("writing where the broker's messages lie: %w", err)
	}
	return nil
}

// writeSynced replaces a file: what was there, or all of data, survives a power cut.
func writeSynced(path string, data []byte) error {
	return replaceFile(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// syncDir makes a rename durable; Windows has no such call.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// locate decides at the start where the messages are: where they were, or, of a fleet that has none yet, where it is asked for.
func (b *Broker) locate(home *engine) (fleet.Engine, error) {
	var err error
	if b.location, err = readLocation(&b.config); err != nil {
		return fleet.Engine{}, err
	}
	wish := b.config.External
	defer b.cutOffMove()
	if !b.location.Engine.Embedded() {
		return b.known(wish), nil
	}
	if wish.Embedded() {
		return wish, nil
	}
	empty, err := home.empty()
	if err != nil || !empty {
		b.note("the broker's messages are embedded, and not on %s as asked for: `shoal broker move --to %s` moves them", wish, wish)
		return fleet.Engine{}, err
	}
	return wish, nil
}

// cutOffMove says what is to be done about a move that the last run of the hub did not end.
func (b *Broker) cutOffMove() {
	l := b.location
	if l.Moving == "" {
		return
	}
	b.note("a move of the broker's messages to %s was cut off, and they are where they were: %s. `shoal broker move --to %s` moves them; it begins by removing what was copied. "+
		"To leave them there, `shoal broker move --to %s`", l.Moving, l.Engine, l.Moving, l.Engine)
}

// known returns how the server is reached on which the messages are: as shoal.work says now, where that is the same server.
func (b *Broker) known(wish fleet.Engine) fleet.Engine {
	at := b.location.Engine
	if wish.Embedded() {
		return at
	}
	if wish.String() == at.String() {
		return wish
	}
	e, err := openRemote(&b.config, wish, remote{})
	if err == nil {
		e.close()
		if e.owner == b.location.ID && e.owner != "" {
			return wish
		}
	}
	b.note("the broker's messages are on %s, and not on %s as shoal.work says: change `engine` there, or move them by `shoal broker move --to %s`", at, wish, wish)
	return at
}

func (b *Broker) note(format string, v ...any) {
	text := fmt.Sprintf(format, v...)
	b.config.Log.Warn(text)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.notice = text
}

// openExternal opens an engine on external servers, and notes that the messages are there now.
func (b *Broker) openExternal(at fleet.Engine, before *proof) (*engine, error) {
	b.mu.Lock()
	l := b.location
	b.mu.Unlock()
	if l.ID == "" {
		l.ID = newID()
		if err := b.relocated(l); err != nil {
			return nil, err
		}
	}
	e, err := openRemote(&b.config, at, remote{id: l.ID, fresh: l.Engine.Embedded(), before: before})
	if err != nil {
		return nil, err
	}
	if l.Engine = at; err == nil {
		err = b.relocated(l)
	}
	if err != nil {
		e.close()
		return nil, err
	}
	return e, nil
}

// relocated makes a location durable.
func (b *Broker) relocated(l location) error {
	if err := writeLocation(&b.config, l); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.location = l
	return nil
}

// empty reports whether an embedded engine has nothing of topics and subscriptions.
func (e *engine) empty() (bool, error) {
	ctx, cancel := context.WithTimeout(e.ctx, startTimeout)
	defer cancel()
	l, err := e.lane(fleet.DurabilityDisk)
	if err != nil {
		return false, err
	}
	for _, s := range []jetstream.Stream{e.cursors, e.catalog, e.dead, l.events} {
		info, err := s.Info(ctx)
		if err != nil || info.State.Msgs > 0 {
			return false, err
		}
	}
	return true, nil
}

// Engine says where the messages lie, and how that stands.
func (b *Broker) Engine() fleet.EngineStatus {
	e := b.engine.Load()
	b.mu.Lock()
	out := fleet.EngineStatus{Engine: "embedded", Notice: b.notice}
	b.mu.Unlock()
	if e.external == nil {
		return out
	}
	out.Engine = e.external.String()
	if err := e.err(); err != nil {
		out.Away = err.Error()
	}
	if p := e.proof; p != nil {
		p.mu.Lock()
		out.Servers, out.Unsynced = p.servers, p.missing
		p.mu.Unlock()
	}
	return out
}
