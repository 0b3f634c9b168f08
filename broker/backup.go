package broker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/fleet"
)

// Backup writes the state of one moment to a new file: messages (but those with durability `memory`), cursors, dead letters, scheduled
// messages, resources, and the values of the store whose keys begin with one of stored. What writes is held only while the moment is fixed and small things are
// read; publishing goes on while the messages are. The file is complete and synced, or not there.
func (b *Broker) Backup(ctx context.Context, path string, stored ...string) (fleet.EngineMove, error) {
	if !b.moving.TryLock() {
		return fleet.EngineMove{}, precondition("the messages are being moved, backed up or restored already")
	}
	defer b.moving.Unlock()
	e := b.engine.Load()
	if err := e.err(); err != nil || !b.loaded.Load() {
		return fleet.EngineMove{}, unavailable("there is no backup: %v", e.explain(errNotLoaded))
	}
	if _, err := os.Stat(path); err == nil {
		return fleet.EngineMove{}, precondition("%s exists: name another file, or a folder", path)
	}
	out := fleet.EngineMove{From: e.name(), To: path}
	err := replaceFile(path, func(f io.Writer) (err error) {
		out.Parts, err = b.backup(ctx, e, f, stored)
		return err
	})
	if err != nil {
		return fleet.EngineMove{}, unavailable("there is no backup: %v", e.explain(err))
	}
	return out, nil
}

// excerpt is a part as it is at the moment of a backup.
type excerpt struct {
	*part
	last uint64
	read [][2]string // subject and data of a small part
}

func (b *Broker) backup(ctx context.Context, e *engine, f io.Writer, stored []string) (out []fleet.EnginePart, err error) {
	b.schedules.kept.Add(1) // what is over by then, and not yet at the moment, must not be removed
	defer b.schedules.kept.Add(-1)
	at, cuts, err := b.cut(ctx, e)
	if err != nil {
		return nil, err
	}
	w := newArchiveWriter(f)
	if err := w.value('h', archiveHead{Format: archiveFormat, Fleet: b.config.Fleet, Time: at}); err != nil {
		return nil, err
	}
	for _, c := range cuts {
		done, err := c.write(ctx, w)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.name, err)
		}
		out = append(out, done)
	}
	values, err := b.values(ctx, stored)
	if err != nil {
		return nil, err
	}
	for _, v := range values {
		if err := w.pair('v', v[0], []byte(v[1])); err != nil {
			return nil, err
		}
	}
	return out, w.end(f)
}

// cut fixes the moment.
func (b *Broker) cut(ctx context.Context, e *engine) (at time.Time, cuts []*excerpt, err error) {
	defer b.holdWrites()()
	for range 2 {
		if err := b.settleAhead(ctx); err != nil {
			return at, nil, err
		}
	}
	if err := errors.Join(b.saveCursorsLocked(), b.saveSchedulesLocked()); err != nil {
		return at, nil, err
	}
	parts, err := e.parts(b.lastingClasses())
	if err != nil {
		return at, nil, err
	}
	for _, p := range parts {
		info, err := p.from.Info(ctx)
		if err != nil {
			return at, nil, err
		}
		c := &excerpt{part: p, last: info.State.LastSeq}
		if p.small {
			err = c.each(ctx, func(subject string, data []byte) error {
				c.read = append(c.read, [2]string{subject, string(data)})
				return nil
			})
		}
		if err != nil {
			return at, nil, err
		}
		cuts = append(cuts, c)
	}
	return time.Now().UTC(), cuts, nil
}

// lastingClasses are the classes in use whose messages outlive the process.
func (b *Broker) lastingClasses() (out []fleet.Durability) {
	for _, class := range append(b.usedClasses(), scheduleClass) {
		if class != fleet.DurabilityMemory {
			out = append(out, class)
		}
	}
	return out
}

// each reads a part up to the moment.
func (c *excerpt) each(ctx context.Context, f func(subject string, data []byte) error) error {
	for seq := uint64(1); seq <= c.last; {
		raw, err := c.from.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(c.prefix+">"))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil || raw.Sequence > c.last {
			return err
		}
		seq = raw.Sequence + 1
		if len(raw.Data) == 0 {
			continue // what was erased
		}
		if err := f(strings.TrimPrefix(raw.Subject, c.prefix), raw.Data); err != nil {
			return err
		}
	}
	return nil
}

// write puts a part into a backup.
func (c *excerpt) write(ctx context.Context, w *archiveWriter) (done fleet.EnginePart, err error) {
	done.Name = c.name
	if err := w.value('p', archivePart{Name: c.name, Last: c.last}); err != nil {
		return done, err
	}
	put := func(subject string, data []byte) error {
		done.Messages++
		done.Bytes += uint64(len(data))
		return w.pair('m', subject, data)
	}
	if !c.small {
		return done, c.each(ctx, put)
	}
	for _, m := range c.read {
		if err := put(m[0], []byte(m[1])); err != nil {
			return done, err
		}
	}
	return done, nil
}

// values reads those of the store whose keys begin with one of prefixes.
func (b *Broker) values(ctx context.Context, prefixes []string) (out [][2]string, err error) {
	all := errors.New("all were told")
	for _, prefix := range prefixes {
		err := b.Store().Watch(ctx, prefix, func(key string, value []byte) error {
			if key == "" {
				return all
			}
			if len(value) > 0 {
				out = append(out, [2]string{key, string(value)})
			}
			return nil
		})
		if !errors.Is(err, all) {
			return nil, err
		}
	}
	return out, nil
}

// replaceFile writes a file by write: it is complete and synced under its name, or what was there stays.
func replaceFile(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	err = write(f)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
