package observe

import (
	"time"

	dto "github.com/prometheus/client_model/go"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/shoalrun/shoal/fleet"
)

// exemplars finds, for each edge, the latest sampled call of each classic bucket among the records, so that a slow
// bucket leads to a trace. It looks when Prometheus asks; calls pay nothing for it.
func (r *Recorder) exemplars() map[edgeKey][]*dto.Exemplar {
	latest := map[edgeKey]*[len(bounds) + 1]example{}
	take := func(s *slot) {
		o := &s.obs
		if !o.Sampled || o.Kind == fleet.KindPublish || o.Kind == fleet.KindDelivery {
			return
		}
		of := edgeKey{o.Caller, o.Callee, o.Route, o.Protocol}
		all := latest[of]
		if all == nil {
			all = &[len(bounds) + 1]example{}
			latest[of] = all
		}
		if e := &all[boundOf(o.Duration)]; o.Time.After(e.time) {
			*e = example{o.Time, o.Duration, o.TraceID}
		}
	}
	r.all.each(take)
	r.failed.each(take)
	out := make(map[edgeKey][]*dto.Exemplar, len(latest))
	for of, all := range latest {
		for i := range all {
			if !all[i].time.IsZero() {
				out[of] = append(out[of], all[i].exposed())
			}
		}
	}
	return out
}

type example struct {
	time  time.Time
	took  time.Duration
	trace fleet.TraceID
}

// exposed names the trace as OpenMetrics does by custom.
func (e *example) exposed() *dto.Exemplar {
	name, id, value := "trace_id", e.trace.String(), e.took.Seconds()
	return &dto.Exemplar{
		Label: []*dto.LabelPair{{Name: &name, Value: &id}}, Value: &value, Timestamp: timestamppb.New(e.time),
	}
}

func boundOf(d time.Duration) int {
	for i, bound := range bounds {
		if d.Seconds() <= bound {
			return i
		}
	}
	return len(bounds)
}
