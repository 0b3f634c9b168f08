package observe

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/shoalrun/shoal/fleet"
)

// maxLearned bounds what applications can make the process remember; names of egress are theirs.
const maxLearned = 4096

// learnedSet is copied when it grows, which is rare, so that looking into it takes no lock.
type learnedSet struct {
	entries atomic.Pointer[map[fleet.Learned]struct{}]
	mu      sync.Mutex // held to replace entries
}

func (l *learnedSet) load() map[fleet.Learned]struct{} {
	if m := l.entries.Load(); m != nil {
		return *m
	}
	return nil
}

func (l *learnedSet) add(e fleet.Learned) {
	if _, ok := l.load()[e]; ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.load()
	if len(old) >= maxLearned {
		return
	}
	grown := make(map[fleet.Learned]struct{}, len(old)+1)
	maps.Copy(grown, old)
	grown[e] = struct{}{}
	l.entries.Store(&grown)
}

// Learned returns the manifest entries that were found missing since the process started, each
// once, sorted; at most 4096.
func (r *Recorder) Learned() []fleet.Learned {
	return slices.SortedFunc(maps.Keys(r.learned.load()), func(a, b fleet.Learned) int {
		return cmp.Or(
			cmp.Compare(a.Service, b.Service),
			cmp.Compare(a.Section, b.Section),
			cmp.Compare(a.Entry, b.Entry),
		)
	})
}
