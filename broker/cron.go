package broker

import (
	"context"
	"encoding/json"
	"maps"
	"reflect"
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
	// Declared is where a manifest has it, as FILE:LINE; empty: it was created, and can be deleted.
	Declared string `json:"declared,omitempty"`
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
	if err := b.checkMessage(c.message(time.Now())); err != nil {
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
	if c.Declared != "" {
		return precondition("schedule %s belongs to the manifest that declares it: remove it from %s", name, c.Declared)
	}
	if err := mayChange(caller, c.Owner, "schedule "+name); err != nil {
		return err
	}
	return b.dropCron(name)
}

func (b *Broker) dropCron(name string) error {
	if err := b.erase(kindCron, name); err != nil {
		return err
	}
	b.mu.Lock()
	delete(b.catalog.crons, name)
	b.mu.Unlock()
	return nil
}

// message is what c publishes for the time at.
func (c *CronConfig) message(at time.Time) *Message {
	attributes := maps.Clone(c.Attributes)
	if attributes == nil {
		attributes = make(map[string]string)
	}
	attributes["shoal-schedule"], attributes["shoal-scheduled-for"] = c.Name, at.UTC().Format(time.RFC3339)
	return &Message{Data: c.Data, Attributes: attributes, OrderingKey: c.OrderingKey}
}

// declareCrons puts the schedules of manifests in force: one that is new, or says another time, begins now, and one that no manifest has any
// more ends. The caller holds Broker.installing.
func (b *Broker) declareCrons(p *policy) {
	for _, was := range b.ListCrons(b.delivering) {
		if _, ok := p.crons[was.Name]; was.Declared == "" || ok {
			continue
		}
		if err := b.dropCron(was.Name); err != nil {
			b.config.Log.Error("a schedule that no manifest has any more goes on", "schedule", was.Name, "error", err)
		}
	}
	for name, c := range p.crons {
		if err := b.declareCron(c); err != nil {
			b.config.Log.Error("a schedule is not in force: it is tried again with the next change of the fleet", "schedule", name, "at", c.Declared, "error", err)
		}
	}
}

func (b *Broker) declareCron(c CronConfig) error {
	b.mu.Lock()
	was := b.catalog.crons[c.Name]
	b.mu.Unlock()
	c.Last = time.Now().UTC()
	if was != nil && was.Spec == c.Spec {
		c.Last = was.Last
	}
	if was != nil && reflect.DeepEqual(*was, c) {
		return nil
	}
	if _, err := c.next(); err != nil {
		return err
	}
	return b.putCron(c)
}

// declaredCron is a manifest's schedule as a resource.
func declaredCron(s *fleet.Service, d *fleet.Schedule) CronConfig {
	c := CronConfig{Name: s.Name + "/" + d.Name, Topic: d.Topic, Owner: s.Name, Declared: place(s, "schedules", d.Line), Spec: d.Cron,
		Data: []byte(d.Data), Attributes: maps.Clone(d.Attributes), OrderingKey: d.Key}
	if d.Zone != "" {
		c.Spec = "CRON_TZ=" + d.Zone + " " + d.Cron
	}
	if json.Valid(c.Data) && c.Attributes[ceContentType] == "" {
		if c.Attributes == nil {
			c.Attributes = make(map[string]string)
		}
		c.Attributes[ceContentType] = "application/json"
	}
	return c
}

// Shown is a schedule as people see it.
func (c *CronConfig) Shown() fleet.Cron {
	next, _ := c.next()
	return fleet.Cron{Name: c.Name, Topic: c.Topic, Owner: c.Owner, Declared: c.Declared, Spec: c.Spec, Next: next, Last: c.Last,
		Data: c.Data, Attributes: c.Attributes, Key: c.OrderingKey}
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
	owner := c.Owner
	set(&owner, fleet.Operator)
	if _, err := b.commitRecords(ctx, c.Topic, []*record{b.newRecord(owner, c.Topic, c.message(at))}); err != nil {
		return err
	}
	b.installing.Lock()
	defer b.installing.Unlock()
	b.mu.Lock()
	still := b.catalog.crons[c.Name]
	b.mu.Unlock()
	if still == nil || still.Spec != c.Spec { // it was changed meanwhile, and begins anew
		return nil
	}
	c = *still
	c.Last = at
	if next, err := c.next(); err == nil && !next.After(now) {
		c.Last = now
	}
	return b.putCron(c)
}
