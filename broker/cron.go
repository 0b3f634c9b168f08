package broker

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/robfig/cron/v3"

	"github.com/shoalrun/shoal/fleet"
)

// CronConfig publishes a message again and again, as a resource.
type CronConfig struct {
	Name  string `json:"name"` // as a subscription's
	Topic string `json:"topic"`
	Owner string `json:"owner,omitempty"`
	// Spec is a crontab line's five fields (minute, hour, day of month, month, day of week; crontab(5)), `@hourly` and
	// its like, or `@every 90s`. It may begin with `CRON_TZ=Europe/Berlin `; otherwise it is in UTC.
	Spec        string            `json:"spec"`
	Data        []byte            `json:"data,omitempty"`
	Attributes  map[string]string `json:"attributes,omitempty"`
	OrderingKey string            `json:"ordering_key,omitempty"`
	Last        time.Time         `json:"last"` // the time of the schedule that was published last; at first, when it was created
}

// kindCron is its kind in the catalog.
const kindCron = "cron"

// next is when c is due after its last time.
func (c *CronConfig) next() (time.Time, error) {
	s, err := cron.ParseStandard(c.Spec)
	if err != nil {
		return time.Time{}, invalid("spec", "the schedule %q: %v", c.Spec, err)
	}
	at := s.Next(c.Last.UTC())
	if at.IsZero() {
		return at, invalid("spec", "the schedule %q never comes", c.Spec)
	}
	return at.UTC(), nil
}

// CreateCron starts a schedule. It is durable; times that pass while the hub is down come once, when it is back.
func (b *Broker) CreateCron(ctx context.Context, caller string, c CronConfig) (CronConfig, error) {
	b.installing.Lock()
	defer b.installing.Unlock()
	if err := checkID(c.Name); err != nil {
		return c, err
	}
	if _, err := b.mayPublish(caller, c.Topic); err != nil {
		return c, err
	}
	if _, err := b.Topic(ctx, c.Topic); err != nil {
		return c, err
	}
	if err := b.checkMessage(&Message{Data: c.Data, Attributes: c.Attributes, OrderingKey: c.OrderingKey}); err != nil {
		return c, err
	}
	b.mu.Lock()
	known := b.catalog.crons[c.Name] != nil
	b.mu.Unlock()
	if known {
		return c, alreadyExists("schedule %s exists already", c.Name)
	}
	c.Owner, c.Last = caller, time.Now().UTC()
	if _, err := c.next(); err != nil {
		return c, err
	}
	return c, b.putCron(c)
}

func (b *Broker) putCron(c CronConfig) error {
	if err := b.keep(kindCron, c.Name, &c); err != nil {
		return err
	}
	b.mu.Lock()
	b.catalog.crons[c.Name] = &c
	b.mu.Unlock()
	select {
	case b.ticked <- struct{}{}:
	default:
	}
	return nil
}

// ListCrons returns all schedules, sorted by name.
func (b *Broker) ListCrons(context.Context) []CronConfig {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []CronConfig
	for _, c := range b.catalog.crons {
		o := *c
		o.Attributes = maps.Clone(c.Attributes)
		out = append(out, o)
	}
	slices.SortFunc(out, func(x, y CronConfig) int { return strings.Compare(x.Name, y.Name) })
	return out
}

// DeleteCron ends a schedule.
func (b *Broker) DeleteCron(ctx context.Context, caller, name string) error {
	b.installing.Lock()
	defer b.installing.Unlock()
	b.mu.Lock()
	c := b.catalog.crons[name]
	b.mu.Unlock()
	if c == nil {
		return notFound("there is no schedule %s", name)
	}
	if err := mayChange(caller, c.Owner, "schedule "+name); err != nil {
		return err
	}
	if err := b.erase(kindCron, name); err != nil {
		return err
	}
	b.mu.Lock()
	delete(b.catalog.crons, name)
	b.mu.Unlock()
	return nil
}

// cronLoop publishes what schedules say.
func (b *Broker) cronLoop(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-b.ticked:
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		timer.Reset(time.Until(b.tick(ctx, time.Now())))
	}
}

// tick publishes what is due, and returns when something is next.
func (b *Broker) tick(ctx context.Context, now time.Time) time.Time {
	soonest := now.Add(time.Hour)
	for _, c := range b.ListCrons(ctx) {
		at, err := c.next()
		if err == nil && !at.After(now) {
			err = b.publishCron(ctx, c, at, now)
			at = now
		}
		if err != nil {
			b.config.Log.Warn("a schedule's message is not published yet", "schedule", c.Name, "error", err)
			at = now.Add(fireAgain)
		}
		if at.Before(soonest) {
			soonest = at
		}
	}
	return soonest
}

// publishCron publishes for the time at; times between it and now, which were missed, are skipped.
func (b *Broker) publishCron(ctx context.Context, c CronConfig, at, now time.Time) error {
	attributes := maps.Clone(c.Attributes)
	if attributes == nil {
		attributes = make(map[string]string)
	}
	attributes["shoal-schedule"], attributes["shoal-scheduled-for"] = c.Name, at.Format(time.RFC3339)
	m := Message{Data: c.Data, Attributes: attributes, OrderingKey: c.OrderingKey}
	owner := c.Owner
	set(&owner, fleet.Operator)
	if _, err := b.commitRecords(ctx, c.Topic, []*record{b.newRecord(owner, c.Topic, &m)}); err != nil {
		return err
	}
	b.installing.Lock()
	defer b.installing.Unlock()
	b.mu.Lock()
	still := b.catalog.crons[c.Name] != nil
	b.mu.Unlock()
	if !still {
		return nil
	}
	c.Last = at
	if next, err := c.next(); err == nil && !next.After(now) {
		c.Last = now
	}
	return b.putCron(c)
}
