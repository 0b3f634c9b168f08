package workspace

import (
	"slices"
	"sync"
)

const tailLines = 40

// tail keeps the last lines of a command.
type tail struct {
	mu  sync.Mutex
	all []string
}

func (t *tail) add(line string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.all = append(t.all, line)
	if len(t.all) >= 2*tailLines {
		t.all = append([]string(nil), t.all[tailLines:]...)
	}
}

func (t *tail) lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.all[max(0, len(t.all)-tailLines):])
}
