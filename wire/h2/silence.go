package h2

import "errors"

// silence is what a connection knows of a peer that it does not hear. The connection's mutex guards it.
type silence struct {
	ticks   int // half times of Config.Silence without a sign of life
	suspect bool
	taken   int64 // what the peer had confirmed at the last tick
	asked   int64 // what was written when the PING had left; 0: it waits
}

// The half times of Config.Silence after which a silent peer is asked, suspected and given up.
const (
	silenceAsks     = 2
	silenceSuspects = 3
	silenceEnds     = 5
)

const pingSilence = "silence?"

// deadLocked reports whether the peer must be taken for dead. Anything that is read is a sign of life. On
// a slow link a PING waits behind what was written before it: while the peer's system confirms that, the
// answer is not yet due. In a partition of one direction, the end that hears nothing gives up, and its
// reset reaches the other.
func (c *Conn) deadLocked(heard bool) bool {
	if heard || c.active == 0 {
		c.heardLocked()
		return false
	}
	q := &c.silence
	taken := c.wire.confirmed()
	if q.ticks >= silenceAsks && c.queuedLocked(taken) {
		return false
	}
	q.taken = taken
	switch q.ticks++; q.ticks {
	case silenceAsks:
		q.asked = 0
		c.writer.out = append(appendFrame(c.writer.out, 8, framePing, 0, 0), pingSilence...)
	case silenceSuspects:
		q.suspect = true
		if c.cfg.Suspect != nil {
			c.cfg.Suspect(true)
		}
	}
	return q.ticks >= silenceEnds
}

// queuedLocked reports whether the PING is still behind other bytes that the peer is taking.
func (c *Conn) queuedLocked(taken int64) bool {
	q := &c.silence
	if q.asked == 0 && len(c.writer.out) == 0 && !c.writer.blocked {
		q.asked = c.wire.written()
	}
	moved := taken > q.taken
	q.taken = taken
	return moved && (q.asked == 0 || taken < q.asked)
}

func (c *Conn) heardLocked() {
	if c.silence.suspect && c.cfg.Suspect != nil {
		c.cfg.Suspect(false)
	}
	c.silence = silence{}
}

// lostLocked ends the connection for a reason that no frame and no system call told.
func (c *Conn) lostLocked(why string) {
	c.err = errors.New(why)
	c.stopping = true
	c.writer.broken = true // a peer that is dead need not be told
	c.poke()
}
