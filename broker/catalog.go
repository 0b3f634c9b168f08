package broker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/fleet"
)

// Kinds of resources in the catalog: parts of subjects, so that they never change.
const (
	kindTopic        = "topic"
	kindSubscription = "subscription"
	kindSnapshot     = "snapshot"
)

// catalog is what was created by the API: durable, one message per resource. What manifests declare is not in it.
// It is guarded by Broker.mu; changes are made one at a time, under Broker.installing.
type catalog struct {
	topics        map[string]*storedTopic
	deleted       map[string]*storedTopic // what they had is still to be removed
	subscriptions map[string]*SubscriptionConfig
	snapshots     map[string]*snapshot
	crons         map[string]*CronConfig
	classes       map[string]fleet.Durability // of topics that are not on `disk`
	ends          uint64                      // no deleted topic came further
	voids         map[string]uint64           // by topic: the end of what was scheduled for one of that name that was deleted
}

func newCatalog() catalog {
	return catalog{topics: make(map[string]*storedTopic), deleted: make(map[string]*storedTopic), subscriptions: make(map[string]*SubscriptionConfig),
		snapshots: make(map[string]*snapshot), crons: make(map[string]*CronConfig), classes: make(map[string]fleet.Durability), voids: make(map[string]uint64)}
}

// loadCatalog reads every resource.
func (e *engine) loadCatalog(ctx context.Context) (catalog, error) {
	c := newCatalog()
	err := e.each(ctx, e.catalog, catalogPrefix+"*.*", func(m *jetstream.RawStreamMsg) error {
		kind, name, _ := strings.Cut(strings.TrimPrefix(m.Subject, catalogPrefix), ".")
		name, err := untoken(name)
		if err != nil {
			return err
		}
		if len(m.Data) == 0 {
			return nil // it was erased
		}
		switch kind {
		case kindTopic:
			err = c.decodeTopic(name, m.Data)
		case kindSubscription:
			c.subscriptions[name], err = decoded[SubscriptionConfig](m.Data)
		case kindCron:
			c.crons[name], err = decoded[CronConfig](m.Data)
		case kindClass:
			c.classes[name], err = value[fleet.Durability](m.Data)
		case kindEnds:
			c.ends, err = value[uint64](m.Data)
		case kindVoid:
			c.voids[name], err = value[uint64](m.Data)
		case kindSnapshot:
			c.snapshots[name], err = decodeSnapshot(m.Data)
		}
		return err
	})
	return c, err
}

func (c *catalog) decodeTopic(name string, data []byte) error {
	t, err := decoded[storedTopic](data)
	if t.Deleted {
		c.deleted[name] = t
		return err
	}
	c.topics[name] = t
	return err
}

func value[T any](data []byte) (T, error) {
	v, err := decoded[T](data)
	return *v, err
}

func decoded[T any](data []byte) (*T, error) {
	v := new(T)
	return v, json.Unmarshal(data, v)
}

// each calls f for every message of a stream that matches a filter, in order.
func (e *engine) each(ctx context.Context, s jetstream.Stream, filter string, f func(*jetstream.RawStreamMsg) error) error {
	for seq := uint64(1); ; {
		m, err := s.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(filter))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			return nil
		}
		if err != nil {
			return e.explain(err)
		}
		if err := f(m); err != nil {
			return fmt.Errorf("message %d of %s: %w", m.Sequence, m.Subject, err)
		}
		seq = m.Sequence + 1
	}
}

// keep makes a resource durable.
func (b *Broker) keep(kind, name string, value any) error {
	data, err := json.Marshal(value)
	if err == nil {
		_, err = b.engine.Load().store([]message{{subject: catalogPrefix + kind + "." + token(name), data: data}})
	}
	if err != nil {
		return unsaved(err, "%s %s is not saved", kind, name)
	}
	return nil
}

// erase removes a resource for good: nothing takes its place in the catalog, since JetStream syncs what it writes, and not what it removes.
func (b *Broker) erase(kind, name string) error {
	if err := b.engine.Load().storeNothing(catalogPrefix + kind + "." + token(name)); err != nil {
		return unsaved(err, "%s %s is not removed", kind, name)
	}
	return nil
}

// CreateTopic makes a topic. Services have the topics that their manifests name without it. Its first message has a higher id than any of a topic that was
// deleted before.
func (b *Broker) CreateTopic(ctx context.Context, caller string, c TopicConfig) (TopicConfig, error) {
	b.installing.Lock()
	defer b.installing.Unlock()
	if err := c.check(); err != nil {
		return c, err
	}
	if at, ok := b.topicConfig(c.Name); ok {
		return c, alreadyExists("topic %s exists already%s", c.Name, declaredAt(at.Declared))
	}
	learned, err := b.policy.Load().mayPublish(caller, c.Name)
	if err != nil {
		return c, err
	}
	b.observeLearned(learned, c.Name)
	c.Owner = caller
	stored := &storedTopic{TopicConfig: c}
	if err := b.establish(ctx, stored); err != nil {
		return c, unsaved(err, "topic %s is not created", c.Name)
	}
	b.mu.Lock()
	b.catalog.topics[c.Name] = stored
	b.mu.Unlock()
	return c, nil
}

// establish gives a new topic its place, in the catalog as the last.
func (b *Broker) establish(ctx context.Context, t *storedTopic) error {
	if err := b.finishDeletions(ctx); err != nil { // of one of that name, perhaps
		return err
	}
	if err := b.reclass(ctx, t.Name, t.Durability); err != nil {
		return err
	}
	var err error
	if t.Begins, err = b.begin(t.Name); err != nil {
		return err
	}
	return b.keep(kindTopic, t.Name, t)
}

func declaredAt(place string) string {
	if place == "" {
		return ""
	}
	return ": " + place + " names it"
}

// observeLearned records what learning let pass, where anything.
func (b *Broker) observeLearned(l *fleet.Learned, topic string) {
	if l != nil {
		b.config.Observe(&fleet.Observation{Kind: fleet.KindPublish, Caller: l.Service, Callee: fleet.Events, Topic: topic, Learned: l})
	}
}

// topicConfig returns a topic as it is declared or was created.
func (b *Broker) topicConfig(name string) (TopicConfig, bool) {
	if c, ok := b.policy.Load().declared[name]; ok {
		return c, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.catalog.topics[name] != nil {
		return b.catalog.topic(name), true
	}
	return TopicConfig{}, false
}

// topic returns a topic that was created, with the durability of where it lies.
func (c *catalog) topic(name string) TopicConfig {
	out := c.topics[name].clone()
	if class := cmp.Or(c.classes[name], fleet.DurabilityDisk); class != cmp.Or(out.Durability, fleet.DurabilityDisk) {
		out.Durability = class
	}
	return out
}

func (c *TopicConfig) clone() TopicConfig {
	out := *c
	out.Labels = maps.Clone(c.Labels)
	if c.Schema != nil {
		s := *c.Schema
		out.Schema = &s
	}
	return out
}

// Topic returns a topic that a manifest names or that was created.
func (b *Broker) Topic(_ context.Context, name string) (TopicConfig, error) {
	c, ok := b.topicConfig(name)
	if !ok && !b.loaded.Load() {
		return c, b.unread()
	}
	if !ok {
		return c, notFound("there is no topic %s%s", name, b.policy.Load().unknown(name))
	}
	return c, nil
}

// ListTopics returns all topics that manifests name or that were created, sorted by name.
func (b *Broker) ListTopics(context.Context) []TopicConfig {
	all := maps.Clone(b.policy.Load().declared)
	b.mu.Lock()
	for name := range b.catalog.topics {
		if _, ok := all[name]; !ok {
			all[name] = b.catalog.topic(name)
		}
	}
	b.mu.Unlock()
	return slices.SortedFunc(maps.Values(all), func(x, y TopicConfig) int { return strings.Compare(x.Name, y.Name) })
}

// UpdateTopic lets change edit a copy of a topic, then puts that in force. What change fails with is returned.
func (b *Broker) UpdateTopic(ctx context.Context, caller, name string, change func(*TopicConfig) error) (TopicConfig, error) {
	b.installing.Lock()
	defer b.installing.Unlock()
	c, err := b.ownTopic(ctx, caller, name)
	if err != nil {
		return c, err
	}
	was := c
	if err := change(&c); err != nil {
		return was, err
	}
	c.Name, c.Owner = was.Name, was.Owner
	if err := c.check(); err != nil {
		return was, err
	}
	b.mu.Lock()
	stored := *b.catalog.topics[name]
	b.mu.Unlock()
	stored.TopicConfig = c
	if err := b.keep(kindTopic, name, &stored); err != nil {
		return was, err
	}
	b.mu.Lock()
	b.catalog.topics[name] = &stored
	b.mu.Unlock()
	if err := b.reclass(ctx, name, c.Durability); err != nil {
		return was, unsaved(err, "topic %s is changed, but its messages are not brought to durability %s yet: update it again", name, c.Durability)
	}
	return c.clone(), nil
}

// ownTopic returns a topic that caller may change.
func (b *Broker) ownTopic(ctx context.Context, caller, name string) (TopicConfig, error) {
	c, err := b.Topic(ctx, name)
	if err != nil {
		return c, err
	}
	if c.Declared != "" {
		return c, precondition("topic %s belongs to the manifest that names it: change %s", name, c.Declared)
	}
	return c, mayChange(caller, c.Owner, "topic "+name)
}

// mayChange says why caller may not touch what owner has, or nil.
func mayChange(caller, owner, what string) error {
	if caller == fleet.Operator || caller == owner {
		return nil
	}
	return &Error{Status: 403, Reason: fleet.ReasonNotAllowed, Text: fmt.Sprintf("%s may not use %s: it belongs to %s", quoteCaller(caller), what, owner)}
}
