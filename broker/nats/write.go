package nats

import (
	"bufio"
	"net"
	"strconv"
	"sync"
	"time"
)

// writer writes what a client is sent. Writers never wait for the client but where its buffer is full; one goroutine
// flushes what several wrote.
type writer struct {
	kick chan struct{}
	done chan struct{}

	mu  sync.Mutex
	buf *bufio.Writer
}

func newWriter(c net.Conn) *writer {
	return &writer{kick: make(chan struct{}, 1), done: make(chan struct{}), buf: bufio.NewWriterSize(patient{c}, bufferSize)}
}

// patient gives each write its time, and breaks the connection of a client that does not read: what it was given
// goes to others.
type patient struct{ net.Conn }

func (p patient) Write(b []byte) (int, error) {
	_ = p.SetWriteDeadline(time.Now().Add(writePatience))
	n, err := p.Conn.Write(b)
	if err != nil {
		_ = p.Close()
	}
	return n, err
}

// run flushes until end is called.
func (w *writer) run() {
	for {
		select {
		case <-w.kick:
			w.flush()
		case <-w.done:
			w.flush()
			return
		}
	}
}

func (w *writer) end() { close(w.done) }

func (w *writer) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.buf.Flush() // the reader finds out
}

func (w *writer) write(parts ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range parts {
		_, _ = w.buf.WriteString(p)
	}
	w.poke()
}

func (w *writer) poke() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// message writes MSG, or HMSG where there are headers.
func (w *writer) message(sid, subject, reply string, header, data []byte) {
	line := "MSG " + subject + " " + sid + " "
	if len(header) > 0 {
		line = "H" + line
	}
	if reply != "" {
		line += reply + " "
	}
	if len(header) > 0 {
		line += strconv.Itoa(len(header)) + " "
	}
	line += strconv.Itoa(len(header)+len(data)) + "\r\n"
	w.mu.Lock()
	defer w.mu.Unlock()
	_, _ = w.buf.WriteString(line)
	_, _ = w.buf.Write(header)
	_, _ = w.buf.Write(data)
	_, _ = w.buf.WriteString("\r\n")
	w.poke()
}
