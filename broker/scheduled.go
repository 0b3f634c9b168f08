package broker

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ScheduledQuery asks for messages that wait for their time.
type ScheduledQuery struct {
	Topic string // empty: of all
	After string // where the page before ended
	Max   int    // of one page; 0: 100
}

// ScheduledMessage is a message that waits for its time, NotBefore. Its ID is what [Broker.CancelScheduled] takes.
type ScheduledMessage struct {
	Message
	Topic string
}

// How many messages are looked at for one page, at most, and at a time.
const (
	scheduledReads = 10_000
	scheduledChunk = 500
)

// ListScheduled returns messages that wait for their time, soonest first, and where the next page begins; empty after the last. A page may have
// fewer messages than were asked for, also none, and another one after it.
func (b *Broker) ListScheduled(ctx context.Context, q ScheduledQuery) (page []ScheduledMessage, next string, err error) {
	after, err := parsePlace(q.After)
	if err != nil {
		return nil, "", err
	}
	most := cmp.Or(q.Max, 100)
	waiting := b.schedules.waiting(after)
	all := len(waiting) <= scheduledReads
	for chunk := range slices.Chunk(waiting[:min(len(waiting), scheduledReads)], scheduledChunk) {
		found, err := b.recordsOf(ctx, chunk)
		if err != nil {
			return nil, "", unavailable("scheduled messages cannot be read: %v", err)
		}
		for _, d := range chunk {
			if len(page) == most {
				return page, next, nil
			}
			next = fmt.Sprintf("%d.%d", d.at, d.offset)
			if r := found[d.offset]; r != nil && (q.Topic == "" || r.to == q.Topic) {
				m := r.message(scheduledID(d.offset))
				m.NotBefore = time.Unix(0, d.at).UTC()
				page = append(page, ScheduledMessage{m, r.to})
			}
		}
	}
	if all {
		next = ""
	}
	return page, next, nil
}

// parsePlace reads where a page ended.
func parsePlace(text string) (d due, err error) {
	if text == "" {
		return due{}, nil
	}
	at, offset, _ := strings.Cut(text, ".")
	d.at, err = strconv.ParseInt(at, 10, 64)
	if err == nil {
		d.offset, err = strconv.ParseUint(offset, 10, 64)
	}
	if err != nil {
		return d, invalid("after", "%q is the end of no page", text)
	}
	return d, nil
}

// waiting returns what waits and comes after a place, in order.
func (s *schedules) waiting(after due) (out []due) {
	s.mu.Lock()
	for _, d := range s.heap {
		if blk := s.over[d.offset/blockSize]; blk != nil && blk.has(d.offset%blockSize) {
			continue
		}
		if d.at > after.at || d.at == after.at && d.offset > after.offset || after == (due{}) {
			out = append(out, d)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(out, func(x, y due) int { return cmp.Or(cmp.Compare(x.at, y.at), cmp.Compare(x.offset, y.offset)) })
	return out
}

// CancelScheduled takes back a message that caller, its publisher or an operator, published to be delivered later, by the id that
// its publish returned. topicName is the one that it was published to; empty: any. It returns once that is durable. A message that is due already cannot be
// taken back: status 404.
func (b *Broker) CancelScheduled(ctx context.Context, caller, topicName, id string) error {
	text, ok := strings.CutPrefix(id, scheduledPrefix)
	offset, err := strconv.ParseUint(text, 10, 64)
	if !ok || err != nil {
		return invalid("id", "%q is the id of no scheduled message: such ids look like %s7", id, scheduledPrefix)
	}
	gone := notFound("message %s is not scheduled: it was delivered or cancelled, or never was", id)
	found, err := b.recordsOf(ctx, []due{{offset: offset}})
	r := found[offset]
	switch {
	case err != nil:
		return unavailable("message %s cannot be read: %v", id, err)
	case r == nil || topicName != "" && r.to != topicName:
		return gone
	}
	if err := mayChange(caller, r.caller, "the scheduled message "+id); err != nil {
		return err
	}
	if !b.schedules.cancel(offset) {
		return gone
	}
	if err := b.saveSchedules(); err != nil {
		return unsaved(err, "message %s is cancelled, and that is not saved yet", id)
	}
	return nil
}

// cancel ends a message that is not on its way already. It reports whether there was one.
func (s *schedules) cancel(offset uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.firing[offset] && s.endLocked(offset)
}

// serveCancel takes back what was published to be delivered later: DELETE /TOPIC/scheduled-N.
func (b *Broker) serveCancel(w http.ResponseWriter, r *http.Request, caller, requestID string) {
	topicName, id, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if err := b.CancelScheduled(r.Context(), caller, topicName, id); err != nil {
		refuse(w, requestID, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}
