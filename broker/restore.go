package broker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/shoalrun/shoal/fleet"
)

// errRestored ends what the broker does after a restore.
var errRestored = errors.New("a backup was restored, and the hub starts anew with it")

// Restore replaces everything that the broker keeps by what a backup holds. The file is read to its end and its checksum compared before anything is touched; a
// broker that has messages, dead letters or resources is left alone unless force is set. Afterwards this broker answers nothing any more: the process is to start
// anew. One that is cut off leaves the broker empty, and to be restored again.
func (b *Broker) Restore(ctx context.Context, path string, force bool) (fleet.EngineMove, error) {
	if !b.moving.TryLock() {
		return fleet.EngineMove{}, precondition("the messages are being moved, backed up or restored already")
	}
	defer b.moving.Unlock()
	e := b.engine.Load()
	if err := e.err(); err != nil || !b.loaded.Load() {
		return fleet.EngineMove{}, unavailable("nothing is restored: %v", e.explain(errNotLoaded))
	}
	names, err := checkArchive(path)
	if err != nil {
		return fleet.EngineMove{}, precondition("nothing is restored from %s: %v", path, err)
	}
	r := &restore{b: b, e: e, path: path}
	if r.parts, err = e.parts(classesOf(names)); err != nil {
		return fleet.EngineMove{}, unavailable("nothing is restored: %v", err)
	}
	defer b.holdWrites()()
	if err := r.mayOverwrite(ctx, force); err != nil {
		return fleet.EngineMove{}, err
	}
	err = r.run(ctx)
	b.restored.Store(true)
	b.loaded.Store(false)
	ended := awayEngine(&b.config, fleet.Engine{}, errRestored)
	ended.external = nil // nothing is to connect again
	b.engine.Store(ended)
	select {
	case b.switched <- struct{}{}:
	default:
	}
	if e.external != nil {
		e.close()
	}
	if err != nil {
		return fleet.EngineMove{}, unavailable("the restore was cut off, and the broker is empty: restore again: %v", err)
	}
	return fleet.EngineMove{From: path, To: e.name(), Parts: r.done}, nil
}

// Restored reports whether a restore ended this broker.
func (b *Broker) Restored() bool { return b.restored.Load() }

// checkArchive reads a backup whole, and returns the names of its parts.
func checkArchive(path string) (names []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return names, readArchive(f, func(kind byte, data []byte) error {
		if kind != 'p' {
			return nil
		}
		var p archivePart
		if json.Unmarshal(data, &p) != nil {
			return errArchive
		}
		names = append(names, p.Name)
		return nil
	})
}

// classesOf are the durability classes whose messages a backup holds.
func classesOf(names []string) (out []fleet.Durability) {
	for _, class := range classes {
		for _, name := range names {
			if laneName(class) == name {
				out = append(out, class)
			}
		}
	}
	return out
}

// restore is one attempt.
type restore struct {
	b       *Broker
	e       *engine
	path    string
	parts   []*part
	now     *part // what is being read; nil: of none, or of one that this Shoal does not know
	waiting []message
	size    int
	done    []fleet.EnginePart
}

// mayOverwrite refuses a broker that has something to lose. Cursors of what manifests declare are nothing.
func (r *restore) mayOverwrite(ctx context.Context, force bool) error {
	for _, s := range r.e.streams() {
		if s == r.e.cursors || s == r.e.over {
			continue
		}
		info, err := s.Info(ctx)
		if err != nil {
			return unavailable("nothing is restored: %v", r.e.explain(err))
		}
		if info.State.Msgs > 0 && !force {
			return precondition("the broker has messages or resources, which a restore would replace: back them up, then restore with --force")
		}
	}
	return nil
}

// run writes everything. The marker says until the end that what is there is not whole.
func (r *restore) run(ctx context.Context) error {
	if err := writeSynced(restoringFile(&r.b.config), []byte(r.path)); err != nil {
		return err
	}
	for range 2 { // what is ahead of the logs goes with them
		if err := r.b.settleAhead(ctx); err != nil {
			return err
		}
	}
	if err := r.e.empties(ctx); err != nil {
		return err
	}
	f, err := os.Open(r.path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = readArchive(f, func(kind byte, data []byte) error { return r.frame(ctx, kind, data) })
	if err == nil {
		err = r.flush()
	}
	if err != nil {
		return err
	}
	return removeSynced(restoringFile(&r.b.config))
}

func (r *restore) frame(ctx context.Context, kind byte, data []byte) error {
	switch kind {
	case 'p':
		return r.begin(ctx, data)
	case 'm':
		return r.message(data)
	case 'v':
		key, value, err := splitPair(data)
		if err != nil {
			return err
		}
		return r.b.Store().Put(ctx, key, value)
	}
	return nil // of a Shoal that knows more
}

// begin begins a part: its messages get sequences beyond those that cursors remember.
func (r *restore) begin(ctx context.Context, data []byte) error {
	if err := r.flush(); err != nil {
		return err
	}
	var p archivePart
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	r.now = find(r.parts, p.Name)
	if r.now == nil {
		return nil
	}
	r.done = append(r.done, fleet.EnginePart{Name: p.Name})
	return countOn(ctx, r.now.from, p.Last)
}

func (r *restore) message(data []byte) error {
	if r.now == nil {
		return nil
	}
	subject, data, err := splitPair(data)
	if err != nil {
		return err
	}
	if len(r.waiting) == batchMost || r.size+len(data) > groupBytes {
		if err := r.flush(); err != nil {
			return err
		}
	}
	r.waiting, r.size = append(r.waiting, message{subject: r.now.prefix + subject, data: data}), r.size+len(data)
	last := &r.done[len(r.done)-1]
	last.Messages++
	last.Bytes += uint64(len(data))
	return nil
}

func (r *restore) flush() error {
	if len(r.waiting) == 0 {
		return nil
	}
	if _, err := r.now.write(r.waiting); err != nil {
		return fmt.Errorf("writing %s: %w", r.now.name, err)
	}
	r.waiting, r.size = nil, 0
	return nil
}

func restoringFile(c *Config) string { return filepath.Join(c.Dir, "restoring") }

// dropHalf empties an engine in which a restore was cut off.
func (b *Broker) dropHalf(e *engine) error {
	from, err := os.ReadFile(restoringFile(&b.config))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	ctx, cancel := context.WithTimeout(e.ctx, startTimeout)
	defer cancel()
	if err == nil {
		err = e.empties(ctx)
	}
	if err == nil {
		err = removeSynced(restoringFile(&b.config))
	}
	if err != nil {
		return fmt.Errorf("removing what a restore that was cut off left: %w", err)
	}
	b.note("a restore from %s was cut off, and the broker is empty: restore again", from)
	return nil
}

// empties removes every message.
func (e *engine) empties(ctx context.Context) error {
	for _, s := range e.streams() {
		if err := s.Purge(ctx); err != nil {
			return err
		}
	}
	return nil
}

func removeSynced(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
