package observe

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"sync"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// Keep runs parts in goroutines, beyond the end of ctx, until end is called: so that they see what others record at
// their end. end returns when all have.
func Keep(ctx context.Context, parts ...func(context.Context) error) (end func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	for _, part := range parts {
		running.Go(func() { _ = part(ctx) }) // what they cannot write they count
	}
	return func() {
		cancel()
		running.Wait()
	}
}

// accessInterval is how long a record may wait until it is written.
const accessInterval = 200 * time.Millisecond

// WriteAccess writes every record that wants lets it to w as a line of JSON, the form of [fleet.Observation], until ctx
// ends, and then what is left. It follows the ring: a slow disk costs records, which Recorder.Access counts, and no
// call any time. wants sees a record without RequestID, Path and Attempts.
func (r *Recorder) WriteAccess(ctx context.Context, w io.Writer, wants func(*fleet.Observation) bool) error {
	f := r.Follow()
	tick := time.NewTicker(accessInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			r.writeAccess(f, w, wants)
			r.writeAccess(f, w, wants) // the first one settles what the second reads
			return nil
		case <-tick.C:
			r.writeAccess(f, w, wants)
		}
	}
}

func (r *Recorder) writeAccess(f *Follower, w io.Writer, wants func(*fleet.Observation) bool) {
	var lines bytes.Buffer
	encode := json.NewEncoder(&lines)
	encode.SetEscapeHTML(false)
	n := uint64(0)
	missed := f.Read(wants, func(o fleet.Observation) {
		if encode.Encode(&o) == nil { // plain values: it cannot fail
			n++
		}
	})
	if _, err := w.Write(lines.Bytes()); err != nil {
		missed, n = missed+n, 0
	}
	r.Access.Dropped.Add(missed)
	r.Access.Written.Add(n)
}
