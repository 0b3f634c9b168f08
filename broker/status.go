package broker

import (
	"maps"
	"slices"
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// Status is what the metrics tell.
func (b *Broker) Status() fleet.BrokerStatus {
	out := fleet.BrokerStatus{Topics: b.Topics(), Subscriptions: b.Subscriptions()}
	out.Scheduled, out.NextDue = b.Scheduled()
	return out
}

// Topics returns what is known of every topic that a manifest names, that was created, that has messages, or that was used since
// the start, sorted by name.
func (b *Broker) Topics() []fleet.TopicStatus {
	p := b.policy.Load()
	b.mu.Lock()
	names := slices.AppendSeq(slices.Clone(p.topics), maps.Keys(b.catalog.topics))
	b.mu.Unlock()
	for _, name := range names {
		b.topic(name)
	}
	b.mu.Lock()
	topics := slices.Collect(maps.Values(b.topics))
	b.mu.Unlock()
	slices.SortFunc(topics, func(x, y *topic) int { return strings.Compare(x.name, y.name) })
	out := make([]fleet.TopicStatus, 0, len(topics))
	for _, t := range topics {
		out = append(out, b.topicStatus(t, p))
	}
	return out
}

func (b *Broker) topicStatus(t *topic, p *policy) fleet.TopicStatus {
	e := b.engine.Load()
	t.mu.Lock()
	defer t.mu.Unlock()
	out := fleet.TopicStatus{Name: t.name, Publishers: p.publishers[t.name]}
	if err := t.loadLocked(e.ctx, e); err != nil {
		out.Stopped = err.Error()
	}
	out.Known = t.known
	out.Published, out.Bytes = t.head-min(t.head, t.begins), t.keptBytesLocked()
	oldest := t.oldestLocked()
	out.Retained = t.head - min(t.head, max(oldest.base, t.begins))
	out.Oldest, out.Last = oldest.time, t.newestLocked()
	if t.stopped != "" {
		out.Stopped = t.stopped
	}
	return out
}

// Subscriptions returns every subscription, sorted by name, those that no manifest has any more included.
func (b *Broker) Subscriptions() []fleet.SubscriptionStatus {
	subs := b.subscriptions()
	out := make([]fleet.SubscriptionStatus, 0, len(subs))
	for _, s := range subs {
		out = append(out, s.status())
	}
	return out
}
