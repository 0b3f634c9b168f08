package daemon

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// How a lock is taken. Outside Linux a probe is in a locker's way for an instant, and a holder has
// not written its id for another: both are waited for.
const (
	lockRetry     = 5 * time.Millisecond
	probePatience = 50 * time.Millisecond // beside a holder that is known: at most a probe is in the way for so long
	lockPatience  = 5 * time.Second       // beside none: a probe may have been put to sleep
)

// Lock takes the lock file at path for this process and writes its id into it. Where another process
// holds it, the error names that one. The lock ends with the process, or with the last one
// that inherited the file.
func Lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := waitLock(f); err != nil {
		defer f.Close()
		return nil, fmt.Errorf("%s is held by process %s; stop that one first with `shoal down`: %w", path, named(holder(f)), err)
	}
	return f, writeHolder(f)
}

// waitLock tries until the lock is taken, or until it is clear that a process holds it.
func waitLock(f *os.File) error {
	for began := time.Now(); ; time.Sleep(lockRetry) {
		err := tryLock(f)
		if err == nil {
			return nil
		}
		waited := time.Since(began)
		if waited > lockPatience || waited > probePatience && holder(f) != 0 {
			return err
		}
	}
}

// Locked reports whether a process holds the lock file at path, and its id: 0 while it is not known,
// which it is for an instant after the lock was taken. To ask takes nothing from who wants the lock.
func Locked(path string) (pid int, locked bool) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return 0, false
	}
	defer f.Close()
	if probe(f) == nil {
		return 0, false
	}
	return holder(f), true
}

// How long a process may take to end once it was asked to, and once it was killed.
const (
	endPatience  = 10 * time.Second
	killPatience = 5 * time.Second
)

// End ends whoever holds the lock file at path, first by asking and in the end by force, and returns
// once nobody holds it.
func End(path string) error {
	asked := 0
	for began := time.Now(); ; time.Sleep(lockRetry) {
		pid, locked := Locked(path)
		if !locked {
			return nil
		}
		waited := time.Since(began)
		if waited > endPatience+killPatience {
			return fmt.Errorf("process %s holds %s and does not end; kill it", named(pid), path)
		}
		if pid == 0 || pid == asked && waited < endPatience {
			continue
		}
		asked = pid
		if err := ask(pid, waited >= endPatience); err != nil {
			return fmt.Errorf("process %d, which holds %s, cannot be ended: %w", pid, path, err)
		}
	}
}

// ask asks a process to end, or kills it. One that has ended meanwhile is no error.
func ask(pid int, force bool) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	if force {
		err = p.Kill()
	} else {
		err = terminate(p)
	}
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// holderSize is the fixed length of what a lock file holds, so that one write replaces all of it.
const holderSize = 32

// writeHolder writes this process into a lock that it holds: its id, and what tells it from another
// process that gets the same id later.
func writeHolder(f *os.File) error {
	pid := os.Getpid()
	_, err := f.WriteAt(fmt.Appendf(nil, "%-*s\n", holderSize-1, fmt.Sprint(pid, " ", birth(pid))), 0)
	return err
}

// holder returns the process that wrote itself into a lock, if that one is alive, else 0: it died, and
// whoever holds the lock now has not written yet.
func holder(f *os.File) int {
	b := make([]byte, holderSize)
	n, _ := f.ReadAt(b, 0)
	id, born, _ := strings.Cut(strings.TrimSpace(string(b[:n])), " ")
	pid, err := strconv.Atoi(id)
	if err != nil || pid <= 0 || birth(pid) == "" || birth(pid) != born {
		return 0
	}
	return pid
}

func named(pid int) string {
	if pid == 0 {
		return "of unknown id"
	}
	return strconv.Itoa(pid)
}
