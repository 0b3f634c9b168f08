//go:build !linux

package proxy

import "syscall"

// watcher: only Linux can watch for a hang-up without reading. Elsewhere a caller that leaves is
// noticed when its answer is written, and no connection is parked.
type watcher struct{ done chan struct{} }

func newWatcher() (*watcher, error) { return &watcher{done: make(chan struct{})}, nil }

func (w *watcher) run() error {
	<-w.done
	return nil
}

func (w *watcher) hangup(syscall.RawConn, func()) int32 { return -1 }
func (w *watcher) forget(int32)                         {}
func (w *watcher) close()                               { close(w.done) }
