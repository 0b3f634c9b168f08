package harness

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// clock wakes an asker at a time.
type clock struct{ timer *os.File }

// newClock returns one. An exact one is a timer of the kernel's: those of the Go runtime come up to a
// millisecond late, all that are due by then at once.
func newClock(exact bool) (*clock, error) {
	if !exact {
		return &clock{}, nil
	}
	fd, err := unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	return &clock{os.NewFile(uintptr(fd), "timer")}, nil
}

// wait returns at due, at once where that has passed.
func (c *clock) wait(due time.Time) error {
	left := time.Until(due)
	if left <= 0 || c.timer == nil {
		time.Sleep(left)
		return nil
	}
	raw, err := c.timer.SyscallConn()
	if err != nil {
		return err
	}
	var setErr error
	err = raw.Control(func(fd uintptr) {
		setErr = unix.TimerfdSettime(int(fd), 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(left.Nanoseconds())}, nil)
	})
	if err != nil {
		return err
	}
	if setErr != nil {
		return os.NewSyscallError("timerfd_settime", setErr)
	}
	_, err = c.timer.Read(make([]byte, 8))
	return err
}

func (c *clock) close() {
	if c.timer != nil {
		c.timer.Close()
	}
}
