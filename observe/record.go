package observe

import (
	"slices"

	"github.com/shoalrun/shoal/fleet"
)

// Record keeps a copy of o. It takes no lock, and for an ordinary call (a request id of at most 48
// bytes, a path of at most 112, a tracestate of at most 64, two attempts) allocates nothing. RequestID, Path, Method,
// TraceState and the Attempts slice may be views of a buffer that the caller uses again; every other string must be
// immutable, as those of a snapshot are. Paths are cut after 1 KB.
func (r *Recorder) Record(o *fleet.Observation) {
	if o.Learned != nil {
		r.learned.add(*o.Learned)
	}
	if o.Failed() || o.Compared.Differs() {
		r.failed.put(o)
	} else {
		r.all.put(o)
	}
	if taps := r.taps.Load(); taps != nil {
		r.offer(*taps, o)
	}
}

// Find returns what is still kept of one request, or of the trace of that id, in order of time: one
// observation for each hop that this process saw.
func (r *Recorder) Find(id string) []fleet.Observation {
	if id == "" {
		return nil
	}
	var trace fleet.TraceID
	isTrace := trace.UnmarshalText([]byte(id)) == nil && trace != (fleet.TraceID{})
	var found []fleet.Observation
	take := func(s *slot) {
		if s.is(id) || isTrace && s.obs.TraceID == trace {
			found = append(found, s.observation())
		}
	}
	r.all.each(take)
	r.failed.each(take)
	slices.SortStableFunc(found, byTime)
	return found
}

// Failures returns at most n of the last observations that were refused or failed, the latest first.
func (r *Recorder) Failures(n int) []fleet.Observation {
	var found []fleet.Observation
	r.failed.each(func(s *slot) { found = append(found, s.observation()) })
	slices.SortStableFunc(found, func(a, b fleet.Observation) int { return byTime(b, a) })
	return found[:max(0, min(n, len(found)))]
}

func byTime(a, b fleet.Observation) int { return a.Time.Compare(b.Time) }
