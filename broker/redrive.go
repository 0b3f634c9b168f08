package broker

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Redrive says which dead letters are delivered again, where, and how fast.
type Redrive struct {
	Subscription string   // whose dead letters: SERVICE/TOPIC or an API's id; required
	IDs          []string // of dead letters; nil: all that there are now
	// To is the one subscription that gets them: another one of the same topic, say. Empty: Subscription.
	To   string
	Rate float64 // per second; 0: as fast as they can be committed
}

// RedriveDeadLetters puts dead letters back into their topic, for one subscription alone, in the order of their first commit, so that
// the order per key is kept; and removes each once it is committed. It returns how many went when it is done, or when ctx ends.
func (b *Broker) RedriveDeadLetters(ctx context.Context, r Redrive) (n int, err error) {
	to := r.To
	set(&to, r.Subscription)
	c, err := b.Subscription(ctx, to)
	if err != nil {
		return 0, err
	}
	ids := slices.Clone(r.IDs)
	if ids == nil {
		if ids, err = b.lettersOf(ctx, b.storedName(r.Subscription)); err != nil {
			return 0, err
		}
	}
	slices.SortFunc(ids, func(x, y string) int { return offsetOf(x) - offsetOf(y) })
	for i, id := range ids {
		if err := pace(ctx, i, r.Rate); err != nil {
			return n, err
		}
		if err := b.redrive(ctx, id, &c); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}

// pace waits before the ith of a series of that rate.
func pace(ctx context.Context, i int, rate float64) error {
	if i == 0 || rate <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(time.Duration(float64(time.Second) / rate)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// redrive commits one dead letter again, for one subscription.
func (b *Broker) redrive(ctx context.Context, id string, to *SubscriptionConfig) error {
	d, err := b.DeadLetter(ctx, id)
	if err != nil {
		return err
	}
	if d.Topic != to.Topic {
		return precondition("dead letter %s is of topic %s, and subscription %s of topic %s", id, d.Topic, to.Name, to.Topic)
	}
	r, err := d.record()
	if err != nil {
		return err
	}
	r.only, r.notBefore, r.link = b.storedName(to.Name), time.Time{}, d.lastSpan()
	if r.origin == 0 {
		r.origin = d.Offset + 1
	}
	if _, err := b.commitRecords(ctx, d.Topic, []*record{r}); err != nil {
		return err
	}
	return b.dropLetter(ctx, d)
}

// lettersOf returns the ids of a subscription's dead letters.
func (b *Broker) lettersOf(ctx context.Context, name string) (ids []string, err error) {
	e := b.engine.Load()
	prefix := deadPrefix + token(name) + "."
	info, err := e.dead.Info(ctx, jetstream.WithSubjectFilter(prefix+"*"))
	if err != nil {
		return nil, unavailable("dead letters cannot be read: %v", e.explain(err))
	}
	for subject := range info.State.Subjects {
		ids = append(ids, name+":"+strings.TrimPrefix(subject, prefix))
	}
	return ids, nil
}

// offsetOf is the offset in a dead letter's id.
func offsetOf(id string) int {
	n, _ := strconv.Atoi(id[strings.LastIndexByte(id, ':')+1:])
	return n
}
