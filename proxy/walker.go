package proxy

import (
	"runtime"
	"sync"
)

// walker is a goroutine that walks one HTTP/2 exchange after the other. A goroutine made anew for each
// would grow its stack anew for each.
type walker struct{ walks chan walk }

type walk struct {
	s       *http2Stream
	entered bool
	by      *walker
}

// walkers are the idle ones. Those that the garbage collector takes out end.
var walkers sync.Pool

// walkOn has a walker take s from here.
func (s *http2Stream) walkOn(entered bool) {
	w, _ := walkers.Get().(*walker)
	if w == nil {
		w = &walker{make(chan walk, 1)} // room for the walk that comes before the walker is back
		runtime.AddCleanup(w, func(c chan walk) { close(c) }, w.walks)
		go walkAll(w.walks)
	}
	w.walks <- walk{s, entered, w}
}

func walkAll(walks <-chan walk) {
	for w := range walks {
		w.s.walk(w.entered)
		walkers.Put(w.by)
	}
}
