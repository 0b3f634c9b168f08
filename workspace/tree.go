package workspace

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// tree is the build tree of a service: a copy of the files of its clone, in which the outputs of earlier
// builds stay. Beside it lies an index of what was put there, so that what a build changed is put back and
// what the clone no longer has is removed.
type tree struct {
	dir    string // the tree
	file   string // the index
	source string // the clone

	root   *os.Root
	index  index
	folder map[string]bool // known to be real folders in this run
}

type index struct {
	Source string                `json:"source"`
	Data   string                `json:"data"`
	At     time.Time             `json:"at"`
	Files  map[string]indexEntry `json:"files"`
}

// indexEntry is one file as it was put into the tree.
type indexEntry struct {
	Sum    string      `json:"sum"` // of content, or of a link's target; hexadecimal SHA-256
	Mode   fs.FileMode `json:"mode"`
	Size   int64       `json:"size"`
	Source time.Time   `json:"source"` // modification time in the clone
	Tree   time.Time   `json:"tree"`   // modification time in the tree
}

// tree opens the build tree of a service. Each workspace has its own, for the cache is shared: two fleets
// may build a service of one name from different clones.
func (w *Workspace) tree(s *Service) (*tree, error) {
	sum := sha256.Sum256([]byte(w.file + "\x00" + w.config.Data + "\x00" + s.Repository))
	base := filepath.Join(w.config.Cache, "build", s.Manifest.Service, hex.EncodeToString(sum[:4]))
	t := &tree{dir: base, file: base + ".json", source: s.Dir, folder: map[string]bool{}}
	if err := os.MkdirAll(t.dir, 0o755); err != nil {
		return nil, w.diskError("make the build tree", err)
	}
	data, err := os.ReadFile(t.file)
	if err == nil {
		err = json.Unmarshal(data, &t.index)
	}
	if err != nil || t.index.Files == nil {
		t.index = index{Files: map[string]indexEntry{}}
	}
	t.index.Source, t.index.Data = s.Dir, w.config.Data
	if t.root, err = os.OpenRoot(t.dir); err != nil {
		return nil, fmt.Errorf("open the build tree: %w", err)
	}
	return t, nil
}

// sync makes the tree hold the files, and removes those that it was given before and that are gone.
func (t *tree) sync(ctx context.Context, files []string) error {
	before := t.index.Files
	t.index.Files = make(map[string]indexEntry, len(files))
	for _, f := range files {
		if err := ctx.Err(); err != nil {
			return err
		}
		entry, err := t.put(f, before[f])
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted in the clone, and git was not told
		}
		if err != nil {
			t.index.Files = before
			return fmt.Errorf("copy %s: %w", f, err)
		}
		t.index.Files[f] = entry
	}
	for f := range before {
		if _, there := t.index.Files[f]; !there {
			if err := t.remove(f); err != nil {
				return fmt.Errorf("remove %s from the build tree: %w", f, err)
			}
		}
	}
	return t.save()
}

func (t *tree) save() error {
	t.index.At = time.Now()
	data, err := json.Marshal(t.index)
	if err != nil {
		return fmt.Errorf("write the index of the build tree: %w", err)
	}
	return writeFile(t.file, data)
}

// put makes one file of the tree equal to the clone's.
func (t *tree) put(name string, known indexEntry) (indexEntry, error) {
	from := filepath.Join(t.source, filepath.FromSlash(name))
	info, err := os.Lstat(from)
	if err != nil {
		return known, err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return t.link(name, from, info)
	case info.IsDir():
		return known, fs.ErrNotExist // git knows a file there, the clone has a folder
	case !info.Mode().IsRegular():
		return known, fmt.Errorf("it is %s, not a file", info.Mode().Type())
	}
	same := t.intact(name, known) && known.Mode == info.Mode().Perm()
	if same && known.Size == info.Size() && known.Source.Equal(info.ModTime()) && known.Source.Before(t.index.At.Add(-2*time.Second)) {
		return known, nil // unchanged since long before the index: as git trusts its own
	}
	if same {
		if sum, err := sumFile(from); err != nil || sum == known.Sum {
			known.Source = info.ModTime()
			return known, err
		}
	}
	return t.copy(name, from, info)
}

// intact says whether the tree still has what was put there: a build may have changed it.
func (t *tree) intact(name string, known indexEntry) bool {
	if known.Sum == "" || !t.real(path.Dir(name)) {
		return false
	}
	info, err := t.root.Lstat(name)
	return err == nil && info.Mode().IsRegular() && info.Mode().Perm() == known.Mode && info.Size() == known.Size && info.ModTime().Equal(known.Tree)
}

// real says whether a folder of the tree, and every one above it, is a folder and no link.
func (t *tree) real(dir string) bool {
	if dir == "." || t.folder[dir] {
		return true
	}
	info, err := t.root.Lstat(dir)
	if err != nil || !info.IsDir() || !t.real(path.Dir(dir)) {
		return false
	}
	t.folder[dir] = true
	return true
}

// place makes room for a file: its folders are made, and what stands in the way is removed.
func (t *tree) place(name string) error {
	if err := t.makeFolder(path.Dir(name)); err != nil {
		return err
	}
	if _, err := t.root.Lstat(name); err != nil {
		return nil
	}
	for dir := range t.folder {
		if dir == name || strings.HasPrefix(dir, name+"/") {
			delete(t.folder, dir)
		}
	}
	return t.root.RemoveAll(name)
}

func (t *tree) makeFolder(dir string) error {
	if t.real(dir) {
		return nil
	}
	if err := t.makeFolder(path.Dir(dir)); err != nil {
		return err
	}
	if info, err := t.root.Lstat(dir); err == nil && !info.IsDir() {
		if err := t.root.Remove(dir); err != nil {
			return err
		}
	}
	if err := t.root.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	t.folder[dir] = true
	return nil
}

func (t *tree) link(name, from string, info fs.FileInfo) (indexEntry, error) {
	target, err := os.Readlink(from)
	if err != nil {
		return indexEntry{}, err
	}
	sum := sha256.Sum256([]byte(target))
	entry := indexEntry{Sum: hex.EncodeToString(sum[:]), Mode: fs.ModeSymlink, Source: info.ModTime()}
	if t.real(path.Dir(name)) {
		if has, err := t.root.Readlink(name); err == nil && has == target {
			return entry, nil
		}
	}
	if err := t.place(name); err != nil {
		return entry, err
	}
	return entry, t.root.Symlink(target, name)
}

// copy copies a file and sums what it copied: the clone may change meanwhile, and the release's id must
// be that of what is in it.
func (t *tree) copy(name, from string, info fs.FileInfo) (entry indexEntry, err error) {
	if err := t.place(name); err != nil {
		return entry, err
	}
	in, err := os.Open(from)
	if err != nil {
		return entry, err
	}
	defer func() { _ = in.Close() }()
	out, err := t.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return entry, err
	}
	sum := sha256.New()
	size, err := io.Copy(io.MultiWriter(out, sum), in)
	if err = errors.Join(err, out.Close()); err != nil {
		return entry, err
	}
	mode := info.Mode().Perm()
	if err := errors.Join(t.root.Chmod(name, mode), t.root.Chtimes(name, info.ModTime(), info.ModTime())); err != nil {
		return entry, err
	}
	now, err := t.root.Lstat(name)
	if err != nil {
		return entry, err
	}
	return indexEntry{Sum: hex.EncodeToString(sum.Sum(nil)), Mode: now.Mode().Perm(), Size: size, Source: info.ModTime(), Tree: now.ModTime()}, nil
}

// remove removes a file, and the folders that it leaves empty.
func (t *tree) remove(name string) error {
	if !t.real(path.Dir(name)) {
		return nil
	}
	if err := t.root.RemoveAll(name); err != nil {
		return err
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if t.root.Remove(dir) != nil {
			break
		}
		delete(t.folder, dir)
	}
	return nil
}

func sumFile(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	return hex.EncodeToString(sum.Sum(nil)), err
}

// id is the content hash of a release: of every path with its kind, executable bit and content, and of the
// manifest.
func releaseID(files map[string]indexEntry, manifest []byte, more string) string {
	sum := sha256.New()
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		e := files[name]
		fmt.Fprintf(sum, "%s\x00%t %t %s\n", name, e.Mode&fs.ModeSymlink != 0, e.Mode&0o100 != 0, e.Sum)
	}
	fmt.Fprintf(sum, "\x00manifest\x00%d\x00%s%s", len(manifest), manifest, more)
	return hex.EncodeToString(sum.Sum(nil))[:12]
}
