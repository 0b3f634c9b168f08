package broker

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// CreateSubscription makes a subscription. It begins at the topic's head: it gets what is published once this has returned.
func (b *Broker) CreateSubscription(ctx context.Context, caller string, c SubscriptionConfig) (SubscriptionConfig, error) {
	b.installing.Lock()
	defer b.installing.Unlock()
	if err := c.check(); err != nil {
		return c, err
	}
	if at, ok := b.subscriptionConfig(c.Name); ok {
		return c, alreadyExists("subscription %s exists already%s", c.Name, declaredAt(at.Declared))
	}
	if err := b.checkReferences(ctx, &c, &SubscriptionConfig{}); err != nil {
		return c, err
	}
	learned, err := b.policy.Load().maySubscribe(caller, c.Topic)
	if err != nil {
		return c, err
	}
	b.observeLearned(learned, c.Topic)
	c.Owner, c.Detached, c.Declared = caller, false, ""
	s, err := b.subscription(c.Name, c.Topic, c.FromStart)
	if err == nil {
		err = b.saveCursors() // first: a cursor without a subscription is dropped at the start
	}
	if err == nil {
		err = b.keep(kindSubscription, c.Name, &c)
	}
	if err != nil {
		b.removeSubscription(ctx, c.Name)
		return c, unsaved(err, "subscription %s is not created", c.Name)
	}
	b.mu.Lock()
	b.catalog.subscriptions[c.Name] = &c
	b.mu.Unlock()
	return c.clone(), s.configure(&c)
}

// MayPublish reports whether caller, a service or an operator, may publish to a topic.
func (b *Broker) MayPublish(caller, topic string) bool {
	_, err := b.mayPublish(caller, topic)
	return err == nil
}

// MaySubscribe reports whether caller, a service or an operator, may subscribe to a topic.
func (b *Broker) MaySubscribe(caller, topic string) bool {
	_, err := b.policy.Load().maySubscribe(caller, topic)
	return err == nil
}

// checkReferences says which topic that c names does not exist, or what its filter lacks. What it was before may name topics that were
// deleted since: that keeps nobody from changing the rest.
func (b *Broker) checkReferences(ctx context.Context, c, was *SubscriptionConfig) error {
	if _, err := b.Topic(ctx, c.Topic); err != nil && was.Name == "" {
		return err
	}
	if dead := c.deadTopic(); dead != "" && dead != was.deadTopic() {
		if _, err := b.Topic(ctx, dead); err != nil {
			return err
		}
	}
	if _, err := parseFilter(c.Filter); err != nil {
		return invalid("filter", "%v", err)
	}
	return nil
}

// deadTopic is where its dead letters go; empty: to the operator, or nowhere.
func (c *SubscriptionConfig) deadTopic() string {
	if c.DeadLetter == nil {
		return ""
	}
	return c.DeadLetter.Topic
}

func (c *SubscriptionConfig) clone() SubscriptionConfig {
	out := *c
	out.Labels = maps.Clone(c.Labels)
	if c.DeadLetter != nil {
		d := *c.DeadLetter
		out.DeadLetter = &d
	}
	if c.Push != nil {
		p := *c.Push
		p.Attributes = maps.Clone(p.Attributes)
		out.Push = &p
	}
	return out
}

// subscriptionConfig returns a subscription by its API id.
func (b *Broker) subscriptionConfig(id string) (SubscriptionConfig, bool) {
	p := b.policy.Load()
	if c, ok := p.subscribed[internalName(id)]; ok {
		return c, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.catalog.subscriptions[id]; c != nil {
		return c.clone(), true
	}
	return SubscriptionConfig{}, false
}

// internalName is SERVICE/TOPIC for the API's SERVICE.TOPIC: a service has no dot in its name.
func internalName(id string) string { return strings.Replace(id, ".", "/", 1) }

// apiName is the inverse of internalName.
func apiName(name string) string { return strings.Replace(name, "/", ".", 1) }

// Subscription returns a subscription by its API id, or as SERVICE/TOPIC.
func (b *Broker) Subscription(_ context.Context, id string) (SubscriptionConfig, error) {
	c, ok := b.subscriptionConfig(apiName(id))
	if !ok && !b.loaded.Load() {
		return c, b.unread()
	}
	if !ok {
		return c, notFound("there is no subscription %s", id)
	}
	return c, nil
}

// ListSubscriptions returns all subscriptions that manifests declare or that were created, sorted by name.
func (b *Broker) ListSubscriptions(context.Context) []SubscriptionConfig {
	out := slices.Collect(maps.Values(b.policy.Load().subscribed))
	b.mu.Lock()
	for _, c := range b.catalog.subscriptions {
		out = append(out, c.clone())
	}
	b.mu.Unlock()
	slices.SortFunc(out, func(x, y SubscriptionConfig) int { return strings.Compare(x.Name, y.Name) })
	return out
}

// UpdateSubscription lets change edit a copy of a subscription, then puts that in force. What change fails with is returned.
func (b *Broker) UpdateSubscription(ctx context.Context, caller, id string, change func(*SubscriptionConfig) error) (SubscriptionConfig, error) {
	b.installing.Lock()
	defer b.installing.Unlock()
	was, err := b.ownSubscription(ctx, caller, id)
	if err != nil {
		return was, err
	}
	c := was.clone()
	if err := change(&c); err != nil {
		return was, err
	}
	if err := c.keepsWhat(&was); err != nil {
		return was, err
	}
	if err := c.check(); err != nil {
		return was, err
	}
	if err := b.checkReferences(ctx, &c, &was); err != nil {
		return was, err
	}
	return c.clone(), b.putSubscription(&c)
}

// keepsWhat says which immutable field differs.
func (c *SubscriptionConfig) keepsWhat(was *SubscriptionConfig) error {
	c.Name, c.Owner, c.Detached, c.Declared = was.Name, was.Owner, was.Detached, was.Declared
	switch {
	case c.Topic != was.Topic:
		return invalid("topic", "a subscription's topic cannot be changed: create another subscription")
	case c.Filter != was.Filter:
		return invalid("filter", "a subscription's filter cannot be changed: create another subscription")
	case c.Ordering != was.Ordering:
		return invalid("enable_message_ordering", "a subscription's ordering cannot be changed: create another subscription")
	}
	return nil
}

// putSubscription puts a changed configuration in force. The caller holds b.installing.
func (b *Broker) putSubscription(c *SubscriptionConfig) error {
	if err := b.keep(kindSubscription, c.Name, c); err != nil {
		return err
	}
	b.mu.Lock()
	b.catalog.subscriptions[c.Name] = c
	s := b.subs[c.Name]
	b.mu.Unlock()
	if s == nil {
		return nil
	}
	return s.configure(c)
}

// ownSubscription returns a subscription that caller may change.
func (b *Broker) ownSubscription(ctx context.Context, caller, id string) (SubscriptionConfig, error) {
	c, err := b.Subscription(ctx, id)
	if err != nil {
		return c, err
	}
	if c.Declared != "" {
		return c, precondition("subscription %s belongs to the manifest that declares it: change %s", id, c.Declared)
	}
	return c, mayChange(caller, c.Owner, "subscription "+id)
}

// usable returns the subscription that caller may pull, acknowledge and seek.
func (b *Broker) usable(ctx context.Context, caller, id string) (*subscription, error) {
	c, err := b.Subscription(ctx, id)
	if err != nil {
		return nil, cmp.Or(b.undeclared(caller, id), err)
	}
	if err := mayChange(caller, c.Owner, "subscription "+id); err != nil {
		return nil, err
	}
	if c.Detached || c.Topic == "" {
		return nil, precondition("subscription %s is detached from its topic: delete it, and create another", id)
	}
	name := c.Name
	if c.Declared != "" {
		name = internalName(c.Name)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.subs[name]; s != nil {
		return s, nil
	}
	return nil, &Error{Status: http.StatusServiceUnavailable, Reason: fleet.ReasonStorageFailed, Text: "subscription " + id + " is not ready yet"}
}

// undeclared says which line of its manifest gives caller the subscription that it asks for by that name, and has learning note it; nil for another's name.
func (b *Broker) undeclared(caller, id string) error {
	service, topic, ok := strings.Cut(internalName(id), "/")
	if !ok || service != caller || !b.loaded.Load() {
		return nil
	}
	learned, err := b.policy.Load().maySubscribe(caller, topic)
	if learned == nil {
		return err
	}
	b.observeLearned(learned, topic)
	return notFound("there is no subscription %s yet: that %s pulls %s is learned; `shoal learn --write` puts it into its manifest", id, caller, topic)
}

// DeleteSubscription removes a subscription and what it has not delivered.
func (b *Broker) DeleteSubscription(ctx context.Context, caller, id string) error {
	b.installing.Lock()
	defer b.installing.Unlock()
	c, err := b.ownSubscription(ctx, caller, id)
	if err != nil {
		return err
	}
	if err := b.erase(kindSubscription, c.Name); err != nil {
		return err
	}
	b.mu.Lock()
	delete(b.catalog.subscriptions, c.Name)
	b.mu.Unlock()
	b.removeSubscription(ctx, c.Name)
	return nil
}

// DetachSubscription ends a subscription for good, and drops what it has not delivered. Its name stays taken until it is deleted.
func (b *Broker) DetachSubscription(ctx context.Context, caller, id string) error {
	b.installing.Lock()
	defer b.installing.Unlock()
	c, err := b.ownSubscription(ctx, caller, id)
	if err != nil {
		return err
	}
	c.Detached = true
	if err := b.putSubscription(&c); err != nil {
		return err
	}
	b.removeSubscription(ctx, c.Name)
	return nil
}

// orphan takes a subscription's topic away. The caller holds b.installing.
func (b *Broker) orphan(ctx context.Context, c SubscriptionConfig) error {
	c.Topic = ""
	if err := b.putSubscription(&c); err != nil {
		return err
	}
	b.removeSubscription(ctx, c.Name)
	return nil
}

// removeSubscription ends a subscription and removes its cursor; one that cannot be removed is dropped at the next start, or replaced by that of a new
// subscription of the name. The caller holds b.installing.
func (b *Broker) removeSubscription(ctx context.Context, name string) {
	b.mu.Lock()
	s := b.subs[name]
	b.mu.Unlock()
	b.flush.saving.Lock() // what is being saved would bring the cursor back
	defer b.flush.saving.Unlock()
	if s != nil {
		s.remove()
		s.stop()
	}
	if err := b.engine.Load().dropCursor(context.WithoutCancel(ctx), name); err != nil {
		b.config.Log.Warn("the cursor of a subscription is not removed yet", "subscription", name, "error", err)
	}
	if s == nil {
		return
	}
	s.topic.mu.Lock()
	s.topic.subs = slices.DeleteFunc(s.topic.subs, func(o *subscription) bool { return o == s })
	s.topic.mu.Unlock()
	b.mu.Lock()
	delete(b.subs, name)
	b.mu.Unlock()
}
