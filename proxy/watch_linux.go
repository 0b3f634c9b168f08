package proxy

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// watcher is one epoll for what no goroutine waits for: a peer that hangs up while its connection's
// goroutine waits for another, and the first byte on a parked connection. Its own descriptor waits
// in Go's netpoller, so no thread blocks in epoll_wait, which would cost more than all the rest.
type watcher struct {
	fd   int
	file *os.File
	raw  syscall.RawConn

	mu      sync.Mutex // guards entries and next
	entries map[int32]watched
	next    int32
}

// watched is what an entry's events go to. generation tells apart two connections that had the same
// descriptor one after the other.
type watched struct {
	generation int32
	to         func()
}

func newWatcher() (*watcher, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("proxy: cannot create an epoll: %w; raise the limit of open files", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("proxy: epoll: %w", err)
	}
	w := &watcher{fd: fd, file: os.NewFile(uintptr(fd), "epoll"), entries: map[int32]watched{}}
	w.raw, err = w.file.SyscallConn()
	return w, err
}

// run calls what is watched until close. The functions must not wait.
func (w *watcher) run() error {
	var events [128]unix.EpollEvent
	return w.raw.Read(func(fd uintptr) bool {
		for {
			n, _, e := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, fd, uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), 0, 0, 0)
			if e != 0 {
				n = 0
			}
			for _, ev := range events[:n] {
				w.deliver(ev.Fd, ev.Pad)
			}
			if int(n) < len(events) {
				return false
			}
		}
	})
}

func (w *watcher) deliver(fd, generation int32) {
	w.mu.Lock()
	e, ok := w.entries[fd]
	w.mu.Unlock()
	if ok && e.generation == generation {
		e.to()
	}
}

// hangup calls to once the peer has closed its side.
func (w *watcher) hangup(rc syscall.RawConn, to func()) (fd int32) {
	return w.control(rc, unix.EPOLLRDHUP|unix.EPOLLET, to)
}

func (w *watcher) control(rc syscall.RawConn, events uint32, to func()) (fd int32) {
	fd = -1
	err := rc.Control(func(f uintptr) {
		if w.add(int32(f), events, to) == nil {
			fd = int32(f)
		}
	})
	if err != nil {
		return -1
	}
	return fd
}

func (w *watcher) add(fd int32, events uint32, to func()) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next++
	w.entries[fd] = watched{w.next, to}
	ev := unix.EpollEvent{Events: events, Fd: fd, Pad: w.next}
	err := unix.EpollCtl(w.fd, unix.EPOLL_CTL_ADD, int(fd), &ev)
	if err != nil {
		delete(w.entries, fd)
	}
	return err
}

// forget must be called before fd is closed; -1 is ignored.
func (w *watcher) forget(fd int32) {
	if fd < 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.entries, fd)
}

// remove ends the watch over a descriptor whose connection lives on under another one: epoll would go
// on watching it.
func (w *watcher) remove(fd int32) {
	if fd < 0 {
		return
	}
	_ = unix.EpollCtl(w.fd, unix.EPOLL_CTL_DEL, int(fd), nil) // fails only for what is not watched
	w.forget(fd)
}

func (w *watcher) close() { w.file.Close() }
