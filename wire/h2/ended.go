package h2

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// closedBy makes an end of file, a reset or a close an end in good order or a plain error. nil, from a
// read of 0 bytes, is an end of file.
func closedBy(err error) error {
	if err == nil || errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
		return errStopped
	}
	if errors.Is(err, syscall.ECONNRESET) {
		return errors.New("connection reset by the peer")
	}
	return err
}

// rearm takes a poke's deadline away, and looks once more whether the poke meant the end: a poke that
// comes after it will be seen by the next read.
func rearm(c *Conn) error {
	_ = c.nc.SetReadDeadline(time.Time{})
	if c.isStopping() {
		return errStopped
	}
	return nil
}

// deadline tells whether err is a poke.
func deadline(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
