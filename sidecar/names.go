package sidecar

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

const (
	nameTouch    = time.Hour                // how exactly the last use of a name is kept
	nameKept     = 24*time.Hour + nameTouch // after its last use, before its address may be another name's
	namesCompact = 1 << 20                  // bytes of the file after which it is rewritten at start
)

var errNamesFull = errors.New("too many names outside the fleet were looked up within a day")

// names gives each name outside the fleet a virtual address of its own, which stays the same over
// restarts of this process. The file is JSON lines, of which the last of a name is true; a line is one
// write, so that a killed process loses none. During an upgrade two processes share the file:
// whoever adds to it locks it and reads first what the other has added.
type names struct {
	ranges fleet.Ranges
	last   uint16 // the highest index
	share  int    // indexes that one service may have

	mu      sync.RWMutex // guards what follows
	file    *os.File
	read    int64 // bytes of the file that have been read
	byName  map[string]*nameEntry
	byIndex map[uint16]*nameEntry
	counts  map[string]int // by service
	next    uint16         // where the search for a free index begins
}

type nameEntry struct {
	Name    string    `json:"name"`
	Index   uint16    `json:"index"`
	Service string    `json:"service"` // that looked it up first
	Used    time.Time `json:"used"`
}

func openNames(path string, r fleet.Ranges) (*names, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("the file of names: %w", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("the file of names: %w", err)
	}
	last := uint16(min(1<<(32-r.Names.Bits())-2, 0xfffe))
	n := &names{
		ranges: r, last: last, share: max(1, int(last)/4), file: f, next: 1,
		byName: map[string]*nameEntry{}, byIndex: map[uint16]*nameEntry{}, counts: map[string]int{},
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return n, n.openLocked()
}

func (n *names) openLocked() error {
	if err := lockFile(n.file); err != nil {
		return fmt.Errorf("the file of names: %w", err)
	}
	defer unlockFile(n.file)
	n.syncLocked()
	if n.read > namesCompact {
		return n.compactLocked()
	}
	return nil
}

// syncLocked reads what was added since the last time, by this process or another, and returns the
// size of the file.
func (n *names) syncLocked() (size int64) {
	size, err := n.file.Seek(0, io.SeekEnd)
	if err != nil || size == n.read {
		return size
	}
	if size < n.read {
		n.read = 0 // another process has rewritten it
	}
	lines := bufio.NewReader(io.NewSectionReader(n.file, n.read, size-n.read))
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return size // of a last line without its end, see appendLocked
		}
		n.read += int64(len(line))
		var e nameEntry
		if json.Unmarshal(line, &e) == nil && e.Name != "" && e.Index > 0 && e.Index <= n.last {
			n.setLocked(&e)
		}
	}
}

func (n *names) setLocked(e *nameEntry) {
	n.dropLocked(n.byName[e.Name])
	n.dropLocked(n.byIndex[e.Index])
	n.byName[e.Name], n.byIndex[e.Index] = e, e
	n.counts[e.Service]++
}

func (n *names) dropLocked(e *nameEntry) {
	if e == nil {
		return
	}
	delete(n.byName, e.Name)
	delete(n.byIndex, e.Index)
	n.counts[e.Service]--
}

// compactLocked rewrites the file without what is too old to matter.
func (n *names) compactLocked() error {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	for _, e := range n.byName {
		if time.Since(e.Used) > nameKept {
			n.dropLocked(e)
			continue
		}
		if err := enc.Encode(e); err != nil {
			return err
		}
	}
	if err := n.file.Truncate(0); err != nil {
		return err
	}
	n.read = int64(b.Len())
	_, err := n.file.Write(b.Bytes())
	return err
}

// lookup returns the addresses of a name outside the fleet.
func (n *names) lookup(service, name string) (v4, v6 netip.Addr, err error) {
	now := time.Now()
	n.mu.RLock()
	e := n.byName[name]
	n.mu.RUnlock()
	if e == nil || now.Sub(e.Used) > nameTouch {
		if e, err = n.use(service, name, now); err != nil {
			return v4, v6, err
		}
	}
	v4, v6 = n.ranges.Virtual(e.Index, true)
	return v4, v6, nil
}

// use notes that a name is in use, and gives it an index where it has none.
func (n *names) use(service, name string, now time.Time) (*nameEntry, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := lockFile(n.file); err != nil {
		return nil, err
	}
	defer unlockFile(n.file)
	size := n.syncLocked()
	e := &nameEntry{Name: name, Service: service, Used: now}
	if old := n.byName[name]; old != nil {
		e.Index, e.Service = old.Index, old.Service
	}
	if e.Index == 0 {
		e.Index = n.freeLocked(service, now)
	}
	if e.Index == 0 {
		return nil, errNamesFull
	}
	if err := n.appendLocked(e, size); err != nil {
		return nil, fmt.Errorf("the file of names: %w", err)
	}
	n.setLocked(e)
	return e, nil
}

// appendLocked writes a line at the end of the file. A full disk may have left half of one there.
func (n *names) appendLocked(e *nameEntry, size int64) error {
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if size > n.read {
		line = append([]byte{'\n'}, line...)
	}
	written, err := n.file.Write(append(line, '\n'))
	if err != nil {
		return err
	}
	n.read = size + int64(written)
	return nil
}

// freeLocked returns an index that no name has used within a day, or 0. One service cannot take all.
func (n *names) freeLocked(service string, now time.Time) uint16 {
	if n.counts[service] >= n.share && !n.expireLocked(service, now) {
		return 0
	}
	for range n.last {
		i := n.next
		n.next = n.next%n.last + 1
		e := n.byIndex[i]
		if e == nil || now.Sub(e.Used) > nameKept {
			n.dropLocked(e)
			return i
		}
	}
	return 0
}

// expireLocked drops the old names of a service and reports whether there were any.
func (n *names) expireLocked(service string, now time.Time) bool {
	before := n.counts[service]
	for _, e := range n.byName {
		if e.Service == service && now.Sub(e.Used) > nameKept {
			n.dropLocked(e)
		}
	}
	return n.counts[service] < before
}

// nameOf is the inverse of lookup.
func (n *names) nameOf(a netip.Addr) (string, bool) {
	i, isName, ok := n.ranges.Index(a)
	if !ok || !isName {
		return "", false
	}
	n.mu.RLock()
	e := n.byIndex[i]
	n.mu.RUnlock()
	if e == nil {
		e = n.late(i)
	}
	if e == nil {
		return "", false
	}
	return e.Name, true
}

// late looks for an index that another process may have given out meanwhile.
func (n *names) late(i uint16) *nameEntry {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.syncLocked()
	return n.byIndex[i]
}
