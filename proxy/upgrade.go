package proxy

import (
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/wire/h1"
)

// askUpgrade asks an application of HTTP/1.1 in these words to change the protocol, and reads the head of its
// answer into b and res. newer: it is known by now to speak HTTP/2 only, and has not understood a thing.
func (x *exchange) askUpgrade(words []byte, b *buffer, res *h1.Response) (u *upstream, o outcome, newer bool) {
	x.fresh = true
	u, o = x.connect()
	if u == nil {
		x.replayable = true
		return nil, o, false
	}
	_ = u.SetDeadline(time.Now().Add(x.p.cfg.Timeout)) // fails only on a closed connection
	_, err := u.Conn.Write(words)
	if err == nil {
		err = readHead(u.Conn, b, res, x.p.cfg.MaxHead)
	}
	if err == nil {
		return u, outcome{}, false
	}
	abort(u.Conn)
	u.close()
	if x.learnNewer(b) { // it was slow to say so
		return nil, outcome{}, true
	}
	return nil, outcome{reason: fleet.ReasonUpstreamReset, detail: "closed the connection without an answer"}, false
}

// readHead reads the head of a final response from u into b. Interim ones, 101 excepted, are skipped.
func readHead(u interface{ Read([]byte) (int, error) }, b *buffer, res *h1.Response, limit int) error {
	for {
		n, err := h1.End(b.bytes(), 0, h1.Limits{Head: limit})
		if err != nil {
			return err
		}
		if n > 0 {
			err := res.Parse(b.bytes()[:n], h1.Limits{})
			if err != nil || res.Status >= 200 || res.Status == 101 {
				return err
			}
			b.r += n
			continue
		}
		n, err = u.Read(b.room(limit + bufferSize))
		b.w += n
		if err != nil && n == 0 {
			return err
		}
	}
}
