package hub

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// topics answers the verbs about topics, subscriptions and dead letters.
func (h *hub) topics() api.Topics {
	return api.Topics{
		Tail: h.tail, Explain: h.explain, Replay: h.replay,
		DeadLetters: h.deadLetters, EditDeadLetter: h.editDeadLetter, DropDeadLetters: h.dropDeadLetters, Redrive: h.redrive,
	}
}

// schedules answers the verbs about messages for later, and those that come again and again.
func (h *hub) schedules() api.Schedules {
	return api.Schedules{
		Scheduled: h.scheduled, Crons: h.crons, AddCron: h.addCron,
		CancelScheduled: func(ctx context.Context, id string) error {
			return h.broker.CancelScheduled(ctx, fleet.Operator, "", id)
		},
		RemoveCron: func(ctx context.Context, name string) error { return h.broker.DeleteCron(ctx, fleet.Operator, name) },
	}
}

func (h *hub) scheduled(ctx context.Context, r api.ScheduledRequest) (page api.ScheduledPage, err error) {
	all, next, err := h.broker.ListScheduled(ctx, broker.ScheduledQuery{Topic: r.Topic, After: r.After, Max: r.Max})
	for i := range all {
		m := all[i].Shown(all[i].Topic)
		m.Data = nil // a page of large ones is too much for one answer
		page.Messages = append(page.Messages, m)
	}
	page.Next = next
	page.Total, _ = h.broker.Scheduled()
	return page, err
}

func (h *hub) crons(ctx context.Context) (out []fleet.Cron, err error) {
	for _, c := range h.broker.ListCrons(ctx) {
		out = append(out, c.Shown())
	}
	return out, nil
}

func (h *hub) addCron(ctx context.Context, c fleet.Cron) (fleet.Cron, error) {
	made, err := h.broker.CreateCron(ctx, fleet.Operator, broker.CronConfig{
		Name: c.Name, Topic: c.Topic, Spec: c.Spec, Data: c.Data, Attributes: c.Attributes, OrderingKey: c.Key})
	if err != nil {
		return fleet.Cron{}, err
	}
	return made.Shown(), nil
}

func (h *hub) publish(ctx context.Context, p api.Publication) (string, error) {
	e := eventOf(p)
	if p.Delay > 0 {
		e.NotBefore = time.Now().Add(p.Delay)
	}
	done, err := h.broker.PublishEvents(ctx, fleet.Operator, p.Topic, []broker.Event{e})
	switch {
	case err != nil:
		return "", err
	case len(done.Scheduled) > 0:
		return done.Scheduled[0], nil
	}
	return done.IDs[0], nil
}

// eventOf is what an operator wants published: the attributes that an event has fields for are moved there.
func eventOf(p api.Publication) broker.Event {
	e := broker.Event{Topic: p.Topic, ContentType: p.ContentType, Data: p.Data, Attributes: maps.Clone(p.Attributes), OrderingKey: p.Key}
	for name, to := range map[string]*string{"id": &e.ID, "source": &e.Source, "type": &e.Type} {
		*to = e.Attributes[name]
		delete(e.Attributes, name)
	}
	return e
}

func (h *hub) tail(ctx context.Context, r api.TailRequest, send func(fleet.Message) error) error {
	return h.broker.Tail(ctx, r.Topic, r.Filter, func(t broker.Tailed) error {
		m := t.Shown(r.Topic)
		m.Missed = t.Missed
		return send(m)
	})
}

// explain tells the stories of messages, with what is remembered of their publishes and deliveries.
func (h *hub) explain(ctx context.Context, id string) (fleet.Explained, error) {
	out, err := h.broker.Explain(ctx, id)
	for i := range out.Stories {
		s := &out.Stories[i]
		for _, o := range h.recorder.Find(s.Message.RequestID) {
			if o.Topic == s.Message.Topic && (o.Event == s.Message.ID || o.Event == s.Message.Attributes["ce-id"]) {
				s.Seen = append(s.Seen, o)
			}
		}
	}
	return out, err
}

func (h *hub) replay(ctx context.Context, r api.ReplayRequest) (api.Replayed, error) {
	counted, err := h.broker.SeekTime(ctx, fleet.Operator, r.Subscription, r.From, true)
	if err == nil && !r.Dry {
		_, err = h.broker.SeekTime(ctx, fleet.Operator, r.Subscription, r.From, false)
	}
	return api.Replayed(counted), err
}

func (h *hub) deadLetters(ctx context.Context, r api.DeadLettersRequest) ([]fleet.DeadLetter, string, error) {
	if r.ID != "" {
		one, err := h.broker.DeadLetter(ctx, r.ID)
		if err != nil {
			return nil, "", err
		}
		return []fleet.DeadLetter{one.Shown()}, "", nil
	}
	page, next, err := h.broker.DeadLetters(ctx, broker.DeadLetterQuery{Subscription: r.Subscription, After: r.After, Max: r.Max})
	out := make([]fleet.DeadLetter, 0, len(page))
	for i := range page {
		shown := page[i].Shown()
		shown.Message.Data = nil // a page of large ones is too much for one answer
		out = append(out, shown)
	}
	return out, next, err
}

func (h *hub) editDeadLetter(ctx context.Context, e api.DeadLetterEdit) (fleet.DeadLetter, error) {
	letter, err := h.broker.EditDeadLetter(ctx, e.ID, func(m *broker.Message) error {
		edit(m, &e)
		return nil
	})
	if err != nil {
		return fleet.DeadLetter{}, err
	}
	return letter.Shown(), nil
}

func edit(m *broker.Message, e *api.DeadLetterEdit) {
	if e.Data != nil {
		m.Data = *e.Data
	}
	if e.Key != nil {
		m.OrderingKey = *e.Key
	}
	m.Attributes = maps.Clone(m.Attributes)
	for name, value := range e.Attributes {
		if value == "" {
			delete(m.Attributes, name)
			continue
		}
		if m.Attributes == nil {
			m.Attributes = make(map[string]string)
		}
		m.Attributes[name] = value
	}
}

func (h *hub) dropDeadLetters(ctx context.Context, ids []string) error {
	for i, id := range ids {
		if slices.Contains(ids[:i], id) {
			continue
		}
		if err := h.broker.DropDeadLetter(ctx, id); err != nil {
			return dropped(i, err)
		}
	}
	return nil
}

// dropped says how far a drop came that failed.
func dropped(n int, err error) error {
	if n == 0 {
		return err
	}
	return fmt.Errorf("%w; the %d named before it are dropped", err, n)
}

func (h *hub) redrive(ctx context.Context, r api.Redrive) (int, error) {
	return h.broker.RedriveDeadLetters(ctx, broker.Redrive{Subscription: r.Subscription, IDs: r.IDs, To: r.To, Rate: r.Rate})
}
