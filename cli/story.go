package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
)

// messageID reads TOPIC:OFFSET, or SERVICE/TOPIC:OFFSET as dead letters have it. Ids of requests and traces have no colon.
func messageID(id string) (topic string, offset uint64, ok bool) {
	topic, number, ok := strings.Cut(id, ":")
	if _, of, named := strings.Cut(topic, "/"); named {
		topic = of
	}
	offset, err := strconv.ParseUint(number, 10, 64)
	return topic, offset, ok && err == nil && topic != ""
}

// placeOf says where a group lies.
func placeOf(g *fleet.CommitGroup) string {
	if g.Sequence == 0 {
		return "in the write-ahead log"
	}
	return fmt.Sprintf("JetStream's message %d", g.Sequence)
}

// whyMessage tells what became of one message, and of the requests that it made.
func (a *app) whyMessage(ctx context.Context, c *api.Client, topic string, offset uint64) error {
	story, err := c.Explain(ctx, topic, offset)
	if err != nil {
		return err
	}
	s, m, g := a.styleOf(a.out), &story.Message, &story.Group
	fmt.Fprintf(a.out, "%s  message %s of the topic %s\n", m.Published.Local().Format("2006-01-02 15:04:05.000"), s.bold(m.ID), s.bold(m.Topic))
	fmt.Fprintf(a.out, "%s published it: %s of data, request %s.\n", publisher(m), plural(story.Bytes, "byte"), m.RequestID)
	fmt.Fprintf(a.out, "It became durable in a group of %s, the first of which is %s (%s).\n", plural(g.Count, "message"), g.First, placeOf(g))
	if len(story.Subscriptions) == 0 {
		fmt.Fprintln(a.out, "The topic has no subscription.")
	}
	for _, f := range story.Subscriptions {
		fmt.Fprintf(a.out, "  %s: %s\n", f.Subscription, a.fate(s, &f))
		a.failures(s, f.Failures)
	}
	seen, err := c.Why(ctx, m.RequestID)
	if err != nil || len(seen) == 0 {
		return err
	}
	fmt.Fprintln(a.out)
	a.explainAll(seen)
	return nil
}

func publisher(m *fleet.Message) string {
	if m.Publisher == fleet.Operator {
		return "The operator"
	}
	return m.Publisher
}

// fate says where a subscription stands with a message.
func (a *app) fate(s style, f *fleet.MessageFate) string {
	switch f.State {
	case fleet.FateSettled:
		return s.green("settled") + ": acknowledged, or not for this subscription"
	case fleet.FateDead:
		return s.red("a dead letter") + ", after " + plural(int(f.Attempt), "attempt")
	case fleet.FateFlying:
		return fmt.Sprintf("in flight, attempt %d", f.Attempt)
	case fleet.FateWaiting:
		return fmt.Sprintf("waits for attempt %d, due in %s", f.Attempt, age(max(0, f.Due.Sub(a.now()))))
	}
	return "waits for its turn"
}
