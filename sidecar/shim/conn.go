package shim

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	maxMessage  = 4 << 20 // bytes; an environment fits
	maxFiles    = 253     // SCM_MAX_FD of Linux
	sendTimeout = 5 * time.Second
)

// Conn carries messages and files over a Unix socket. A message is a length (4 bytes, big-endian) and
// JSON; its files are attached to the first byte (unix(7), SCM_RIGHTS).
type Conn struct {
	c  *net.UnixConn
	mu sync.Mutex // held while a message is written
}

// NewConn returns a Conn that owns c.
func NewConn(c *net.UnixConn) *Conn { return &Conn{c: c} }

// Close closes the connection; a Receive that waits returns an error.
func (c *Conn) Close() error { return c.c.Close() }

// SyscallConn gives access to the socket, whose peer the kernel can name.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.c.SyscallConn() }

// Send writes m and duplicates of files, which stay the caller's. It gives up after 5 s.
func (c *Conn) Send(m Message, files ...*os.File) error {
	body, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if len(body) > maxMessage || len(files) > maxFiles {
		return fmt.Errorf("a %s message of %d bytes and %d files is too large", m.Verb, len(body), len(files))
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	frame = append(frame, body...)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.c.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
		return err
	}
	n, err := writeFiles(c.c, frame, files)
	if err == nil && n < len(frame) {
		_, err = c.c.Write(frame[n:])
	}
	return err
}

// Receive returns the next message and its files, which are the caller's to close.
func (c *Conn) Receive() (Message, []*os.File, error) {
	var m Message
	var head [4]byte
	n, files, err := readFiles(c.c, head[:])
	if err == nil {
		_, err = io.ReadFull(c.c, head[n:])
	}
	if err != nil {
		closeAll(files)
		return m, nil, err
	}
	if err := c.receiveBody(&m, binary.BigEndian.Uint32(head[:])); err != nil {
		closeAll(files)
		return m, nil, err
	}
	return m, files, nil
}

func (c *Conn) receiveBody(m *Message, size uint32) error {
	if size > maxMessage {
		return fmt.Errorf("a message of %d bytes; the limit is %d", size, maxMessage)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(c.c, body); err != nil {
		return err
	}
	return json.Unmarshal(body, m)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

var errGone = errors.New("the application has ended")
