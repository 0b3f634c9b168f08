package process

import "time"

// Restarts wait 100 ms at first and twice as long each time, up to 30 s; what was healthy for 60 s
// begins anew.
const (
	firstWait   = 100 * time.Millisecond
	longestWait = 30 * time.Second
	forgiven    = 60 * time.Second
)

// course decides, purely, what follows when an application ends.
type course struct {
	attempts int           // exits before an instance that was never ready is given up
	timeout  time.Duration // for it to become ready, over all attempts
	begun    time.Time     // when it was first started
	ready    bool          // it was ready once
	exits    int           // in a row
}

// ended takes an end of the application at now, after it was healthy for that long, and says when to
// start it again, or to give it up.
func (c *course) ended(now time.Time, healthy time.Duration) (wait time.Duration, giveUp bool) {
	if healthy >= forgiven {
		c.exits = 0
	}
	c.exits++
	if !c.ready && (c.exits >= c.attempts || now.Sub(c.begun) >= c.timeout) {
		return 0, true
	}
	return min(firstWait<<min(c.exits-1, 20), longestWait), false
}
