package h2

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/shoalrun/shoal/wire/hpack"
)

// Errors of [Conn.Open].
var (
	ErrBusy     = errors.New("as many streams as the server allows are open on this HTTP/2 connection")
	ErrDraining = errors.New("this HTTP/2 connection takes no new stream")
)

// errStopped ends the reading loop of a connection that was closed in good order.
var errStopped = errors.New("HTTP/2 connection closed")

// errStalled ends a connection whose peer takes nothing.
var errStalled = errors.New("the peer took nothing for too long (limits: idle)")

// Conn is one end of an HTTP/2 connection.
type Conn struct {
	cfg      Config
	client   bool
	handle   func(*Stream, *Batch)
	nc       net.Conn
	wire     transport
	combines bool // see FlushSoon
	done     chan struct{}
	agreed   chan struct{} // closed with the peer's first SETTINGS
	timer    *time.Timer
	began    atomic.Int64  // when the header block in progress began, in Unix nanoseconds; 0: there is none
	reads    atomic.Uint32 // grows with every read; tells the timer that the connection is alive

	reader // touched by the reading goroutine alone

	mu      sync.Mutex // guards what follows
	writer  writer
	enc     *hpack.Encoder
	streams map[uint32]*Stream
	turns   turns
	free    []*Stream
	retired []*Stream // closed and released; the reading goroutine moves them to free

	active     uint32 // open streams; those in streams
	earned     int    // control frames that DATA and streams explain
	nextID     uint32 // of the next stream that we open
	acceptedID uint32 // the newest stream that the peer opened
	sendWindow int64
	peer       peerSettings
	closedIDs  [64]closedID
	closedAt   int

	stage    stage
	stopping bool // the reading goroutine is to end
	gone     bool // the peer sent GOAWAY
	quiet    int  // ticks without a stream
	silence  silence
	err      error
}

// peerSettings are what the peer announced, or the initial values.
type peerSettings struct {
	maxStreams uint32
	window     int64
	connect    bool
}

// stage is how far a graceful shutdown got.
type stage int

const (
	open     stage = iota
	warned         // GOAWAY with the greatest id is out, and a PING behind it
	draining       // the final GOAWAY is out: no new streams
)

// closedID remembers how a stream ended, so that a late frame can be told from a wrong one.
type closedID struct {
	id    uint32
	reset bool // by us: late frames are expected, and ignored
}

// NewServer makes the server's end of a connection. handle gets each request, its Head there, on the
// reading goroutine: it must not block; it calls [Stream.SetReceiver], or leaves the stream to a
// goroutine that uses the blocking methods. Someone must call [Conn.Run].
func NewServer(nc net.Conn, cfg Config, handle func(*Stream, *Batch)) *Conn {
	c := newConn(nc, cfg)
	c.handle = handle
	c.writer.out = c.appendSettings(c.writer.out)
	return c
}

// NewClient makes the client's end of a connection. Requests may be opened at once; someone must call
// [Conn.Run].
func NewClient(nc net.Conn, cfg Config) *Conn {
	c := newConn(nc, cfg)
	c.client = true
	c.nextID = 1
	c.prefaced = true
	c.writer.out = c.appendSettings(append(c.writer.out, preface...))
	return c
}

func newConn(nc net.Conn, cfg Config) *Conn {
	c := &Conn{
		cfg: cfg.withDefaults(), nc: nc, wire: newTransport(nc), done: make(chan struct{}), agreed: make(chan struct{}),
		streams: map[uint32]*Stream{}, sendWindow: windowInit,
		peer: peerSettings{maxStreams: 100, window: windowInit},
	}
	c.writer.keep = keepBuffer
	if c.combines = under(nc) != nil; c.combines {
		c.writer.keep = keepCombined
	}
	c.writer.quiet.L = &c.mu
	c.enc = hpack.NewEncoder(c.cfg.HeaderTable)
	c.window = int64(c.cfg.ConnWindow)
	c.batch.owner = c
	c.dec = hpack.NewDecoder(c.cfg.HeaderTable, slack*int(c.cfg.MaxHeaderList))
	return c
}

// appendSettings appends what an end says first (RFC 9113 section 3.4).
func (c *Conn) appendSettings(p []byte) []byte {
	set := [][2]uint32{{settingInitialWindow, c.cfg.StreamWindow}, {settingMaxHeaderList, c.cfg.MaxHeaderList}}
	if c.client {
		set = append(set, [2]uint32{settingEnablePush, 0})
	} else {
		set = append(set, [2]uint32{settingMaxStreams, c.cfg.MaxStreams})
	}
	if c.cfg.ExtendedConnect && !c.client {
		set = append(set, [2]uint32{settingConnect, 1})
	}
	if c.cfg.HeaderTable != tableInit {
		set = append(set, [2]uint32{settingHeaderTable, c.cfg.HeaderTable})
	}
	p = appendFrame(p, 6*len(set), frameSettings, 0, 0)
	for _, s := range set {
		p = binary.BigEndian.AppendUint16(p, uint16(s[0]))
		p = binary.BigEndian.AppendUint32(p, s[1])
	}
	if more := c.cfg.ConnWindow - windowInit; more > 0 {
		p = appendWindowUpdate(p, 0, int(more))
	}
	return p
}

// tick is how often a connection looks after itself.
const tick = 10 * time.Second

// Run reads the connection until it ends: by its peer, an error, [Conn.Close], a finished
// [Conn.Shutdown], or ctx. initial is what was read from the connection already. Run closes the
// connection, ends every stream that is still open, and returns nil for an end in good order.
func (c *Conn) Run(ctx context.Context, initial []byte) error {
	stop := context.AfterFunc(ctx, c.Close)
	defer stop()
	c.mu.Lock()
	c.timer = time.AfterFunc(c.tickEvery(), c.tick)
	c.mu.Unlock()
	c.flush()
	err := c.feedInitial(initial)
	if err == nil {
		err = c.wire.run(c)
	}
	return c.finish(err)
}

func (c *Conn) tickEvery() time.Duration {
	if c.cfg.Silence > 0 {
		return c.cfg.Silence / 2
	}
	every := min(c.cfg.HeadTime, tick)
	if c.cfg.Idle > 0 {
		every = min(every, c.cfg.Idle)
	}
	if c.cfg.Stall > 0 {
		every = min(every, c.cfg.Stall)
	}
	return every
}

// tick ends an idle connection, and wakes a reading goroutine that was not woken for a while: a FIN
// that came together with the last bytes makes no readiness edge of its own.
func (c *Conn) tick() {
	defer c.flush() // the PING that it may ask for
	c.endStalled(c.tickOnce())
}

func (c *Conn) tickOnce() (stalled []*Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopping {
		return nil
	}
	every := c.tickEvery()
	c.quiet++
	if c.active > 0 {
		c.quiet = 0
	}
	if c.cfg.Idle > 0 && time.Duration(c.quiet-1)*every >= c.cfg.Idle {
		c.stopLocked(NoError, "idle")
		return nil
	}
	if at := c.began.Load(); at != 0 && time.Since(time.Unix(0, at)) > c.cfg.HeadTime {
		c.stopLocked(EnhanceYourCalm, "a header block that took longer than "+c.cfg.HeadTime.String()+" (limits: head-time)")
		return nil
	}
	heard := c.reads.Swap(0) > 0
	if !heard {
		c.poke()
	}
	if c.cfg.Silence > 0 && c.deadLocked(heard) {
		c.lostLocked("the peer did not answer a PING")
		return nil
	}
	c.timer.Reset(every)
	return c.stalledLocked(every)
}

// mayEnd reports whether the reading goroutine should look for an end of file before it waits. A server
// that goes away must be noticed before the next request is sent to it; a client that goes can wait for
// the tick, unless it said GOAWAY.
func (c *Conn) mayEnd() bool { return c.client || c.leaving }

// poke wakes the reading goroutine. It never waits, so it may be called from anywhere.
func (c *Conn) poke() { _ = c.nc.SetReadDeadline(time.Unix(1, 0)) }

// stopLocked says GOAWAY and ends the reading goroutine, which does the rest.
func (c *Conn) stopLocked(code Code, reason string) {
	if c.stopping {
		return
	}
	c.stopping = true
	c.writer.out = appendGoAway(c.writer.out, c.acceptedID, code, reason)
	c.poke()
}

// isStopping reports whether the reading goroutine is to end; a poke may mean that or nothing.
func (c *Conn) isStopping() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stopping
}

// Close ends the connection and its streams now. It does not wait; see [Conn.Done].
func (c *Conn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopLocked(NoError, "closing")
}

// Done is closed when Run has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Settled is closed once the peer's first SETTINGS came: it speaks HTTP/2.
func (c *Conn) Settled() <-chan struct{} { return c.agreed }

// Err returns why the connection ended, once Done is closed; nil for an end in good order.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Streams returns how many streams are open.
func (c *Conn) Streams() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int(c.active)
}

// Available reports whether a client can open a stream now.
func (c *Conn) Available() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.openErrLocked() == nil
}

// ExtendedConnect reports whether the server takes the CONNECT of RFC 8441; known once Settled is closed.
func (c *Conn) ExtendedConnect() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer.connect
}

func (c *Conn) openErrLocked() error {
	if c.stopping || c.gone || c.stage != open || c.nextID > idMax {
		return ErrDraining
	}
	if c.active >= c.peer.maxStreams {
		return ErrBusy
	}
	return nil
}
