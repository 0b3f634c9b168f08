package h2

import "time"

// Config holds a connection's limits. The zero value of each field means its default.
type Config struct {
	// MaxStreams is how many streams a client may have open at a server: 250. One more is refused
	// with REFUSED_STREAM, so that the client sends it again.
	MaxStreams uint32
	// StreamWindow is how many bytes of a stream's body its peer may send ahead of their being
	// consumed: 65535, which is also the least.
	StreamWindow uint32
	// ConnWindow is how many bytes may be on the way on all streams together: 1 MB.
	ConnWindow uint32
	// MaxHeaderList bounds a header list, counted as RFC 9113 section 6.5.2 does: 64 KB. A request
	// over it goes to TooLarge.
	MaxHeaderList uint32
	// MaxFields bounds the fields of a header list, pseudo-header fields included: 256. More is answered
	// as a header list over MaxHeaderList is.
	MaxFields int
	// TooLarge answers a request whose header list is over its limit ("head" or "fields"), and releases the
	// stream, whose Head has nothing but the fields within it, pseudo-header fields included, unchecked. nil: 431
	// with why as its text.
	TooLarge func(s *Stream, b *Batch, why, limit string)
	// Guard refuses trailer fields whose names begin with it. Empty: none.
	Guard string
	// MaxOutput bounds the bytes that wait to be written, before DATA stops: 256 KB.
	MaxOutput int
	// MaxResets is how many streams a client may reset in a second, lastingly (its burst, too): 1000.
	// It is the answer to rapid resets (CVE-2023-44487).
	MaxResets int
	// MaxControl is the same for SETTINGS, PRIORITY, unknown and empty frames, and for each PING and WINDOW_UPDATE
	// that DATA and new streams do not explain (see flood.go): 1000.
	MaxControl int
	// HeadTime is how long a header block in several frames may take, to within 10 s: 1 min.
	HeadTime time.Duration
	// Idle closes a connection that had no stream for so long: 0 is never.
	Idle time.Duration
	// Stall ends a stream that has something to send, and gets no window for it for so long, to within 10 s; but
	// one without a [Receiver]: 0 is never.
	Stall time.Duration
	// ExtendedConnect has a server take CONNECT with a protocol (RFC 8441).
	ExtendedConnect bool
	// HeaderTable is how many bytes of header fields each side may remember for the other: 4096.
	HeaderTable uint32
	// Silence is how long a connection with open streams may bring nothing before a PING asks for a sign
	// of life. Without one, the connection ends after 2.5 times Silence in all, and its streams with it;
	// a peer that is still taking what was written before the PING is waited for. 0 is never.
	Silence time.Duration
	// Suspect is called with true when half of the time for that sign has passed, and with false once it,
	// or the end, has come. It must not block, nor call the connection. nil: nobody.
	Suspect func(bool)
	// WriteTimeout ends a connection whose peer takes no byte for so long: 1 min.
	WriteTimeout time.Duration
}

func (c Config) withDefaults() Config {
	orElse(&c.MaxStreams, 250)
	orElse(&c.StreamWindow, windowInit)
	orElse(&c.ConnWindow, 1<<20)
	orElse(&c.MaxHeaderList, 64<<10)
	orElse(&c.MaxFields, 256)
	orElse(&c.MaxOutput, 256<<10)
	orElse(&c.MaxResets, 1000)
	orElse(&c.HeaderTable, tableInit)
	orElse(&c.MaxControl, 1000)
	orElse(&c.HeadTime, time.Minute)
	orElse(&c.WriteTimeout, time.Minute)
	c.StreamWindow = min(max(c.StreamWindow, windowInit), windowMax)
	c.ConnWindow = min(max(c.ConnWindow, windowInit), windowMax)
	return c
}

func orElse[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// bucket is a token bucket: burst and rate a second are the same number.
type bucket struct {
	level float64
	last  time.Time
}

// take uses one token and reports whether there was one.
func (b *bucket) take(rate int) bool {
	now := time.Now()
	if b.last.IsZero() {
		b.level = float64(rate)
	} else {
		b.level = min(float64(rate), b.level+now.Sub(b.last).Seconds()*float64(rate))
	}
	b.last = now
	b.level--
	return b.level >= 0
}
