package broker

import (
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// told is what will be told of a delivery to a puller when it ends: that is its span, and its line in `shoal why`. The lease
// keeps it, since the record may be dropped by then.
type told struct {
	start          time.Time
	puller         string
	request, event string
	bytes          int
	attempt        uint64
	extended       int32
	over           bool // it was told
	span           traceSpan
}

// tellLater notes what there will be to tell of a grant.
func (s *subscription) tellLater(g *grant, r *record, puller, id string) *told {
	return &told{
		start: time.Now(), puller: puller, request: r.RequestID, event: r.eventID(id), bytes: len(r.Data),
		attempt: g.attempt, span: r.deliverySpan(s.b.config.Sampler, g.before),
	}
}

// eventID is the id of a record as a CloudEvent.
func (r *record) eventID(id string) string {
	switch {
	case !r.plain:
		return r.ID
	case r.bound():
		return r.Attributes[ceID]
	}
	return id
}

// remember keeps with the leases what there will be to tell of them.
func (s *subscription) remember(grants []grant) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range grants {
		g := &grants[i]
		if l := g.lease; g.told != nil && l.state == flying && l.delivery == g.delivery {
			l.told = g.told
		}
	}
}

// tellAckLocked tells of an acknowledgement that was taken: of a delivery in flight, or late, of one that had failed.
func (s *subscription) tellAckLocked(l *lease, settled bool, now time.Time) {
	if l.told == nil {
		return
	}
	if !l.told.over {
		s.observeLocked(l.told, "", "", now)
		return
	}
	if settled {
		late := *l.told
		late.span.id = fleet.SpanID{} // the delivery had its span when it failed
		s.observeLocked(&late, "acknowledged late, when it had failed already", "", now)
	}
}

// tellLocked tells of a puller's delivery that failed, and links what comes after it to it.
func (s *subscription) tellLocked(l *lease, o *outcome, now time.Time) {
	if l.told == nil || l.told.over {
		return
	}
	o.span, l.span = l.told.span.id, l.told.span.id
	s.observeLocked(l.told, o.text, o.reason, now)
}

// tellVoidedLocked tells of deliveries that a failure before them took back.
func (s *subscription) tellVoidedLocked(now time.Time) {
	for _, t := range s.window.voided {
		if !t.over {
			s.observeLocked(t, "an earlier message of its ordering key failed: it comes again after that one", string(fleet.ReasonTakenBack), now)
		}
	}
	s.window.voided = nil
}

func (s *subscription) observeLocked(t *told, text, reason string, now time.Time) {
	t.over = true
	s.telling = fleet.Observation{
		Kind: fleet.KindDelivery, RequestID: t.request, Time: t.start, Duration: max(now.Sub(t.start), 0),
		Caller: fleet.Events, Callee: t.puller, Topic: s.topic.name, Event: t.event, Subscription: s.name,
		Delivery: int32(t.attempt), Extended: t.extended, BytesOut: int64(t.bytes), Reason: reason,
		Detail: text,
	}
	t.span.note(&s.telling)
	s.b.config.Observe(&s.telling)
}
