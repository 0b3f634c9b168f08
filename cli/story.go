package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
)

// messageID reports whether an id is TOPIC:OFFSET, or SUBSCRIPTION:OFFSET as dead letters have it. Ids of requests and traces have no colon.
func messageID(id string) bool {
	at := strings.LastIndexByte(id, ':')
	_, err := strconv.ParseUint(id[at+1:], 10, 64)
	return at > 0 && err == nil
}

// placeOf says where a group lies.
func placeOf(g *fleet.CommitGroup) string {
	if g.Sequence == 0 {
		return "in the write-ahead log"
	}
	return fmt.Sprintf("JetStream's message %d", g.Sequence)
}

// ofMessage reports whether an observation is of a message, whose story the broker can tell.
func ofMessage(o fleet.Observation) bool {
	return o.Kind == fleet.KindPublish && o.Reason == "" || o.Kind == fleet.KindDelivery
}

// whyMessage tells what became of the message that an id names.
func (a *app) whyMessage(ctx context.Context, c *api.Client, id string) error {
	found, err := c.Explain(ctx, id)
	if err != nil {
		return err
	}
	if len(found.Stories) == 0 {
		return notFound(id, &found)
	}
	a.tellAll(&found)
	return nil
}

// whyEither tells of a request or a trace, and of the messages that it published; or of the event of that id.
func (a *app) whyEither(ctx context.Context, c *api.Client, id string, seen []fleet.Observation) error {
	found, err := c.Explain(ctx, id)
	if err != nil && len(seen) == 0 {
		return err
	}
	if len(found.Stories)+len(seen) == 0 {
		return notFound(id, &found)
	}
	a.tellAll(&found)
	rest := slices.DeleteFunc(seen, func(o fleet.Observation) bool { return len(found.Stories) > 0 && ofMessage(o) })
	if len(found.Stories) > 0 && len(rest) > 0 {
		fmt.Fprintln(a.out)
	}
	a.explainAll(rest)
	return nil
}

func notFound(id string, found *fleet.Explained) error {
	log := "the topics' logs have no message of that id"
	if !found.Since.IsZero() {
		log = fmt.Sprintf("the topics' logs, read back to %s, have no message of that id: `shoal why TOPIC:MESSAGE-ID` finds older ones", found.Since.Local().Format(time.DateTime))
	}
	return fmt.Errorf("%s is no request or trace that is remembered, and %s. The data path keeps the latest requests, so ask sooner, or watch with `shoal tap`", id, log)
}

func (a *app) tellAll(found *fleet.Explained) {
	for i := range found.Stories {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		a.tell(&found.Stories[i])
	}
	if found.More > 0 {
		fmt.Fprintf(a.out, "\n%s more were published together with these: `shoal why TOPIC:MESSAGE-ID` tells of one\n", strconv.Itoa(found.More))
	}
}

// tell tells of one message: who published it, how it became durable, and what became of it in each subscription.
func (a *app) tell(story *fleet.MessageStory) {
	s, m := a.styleOf(a.out), &story.Message
	fmt.Fprintf(a.out, "%s  message %s of the topic %s\n", moment(m.Published), s.bold(m.ID), s.bold(m.Topic))
	fmt.Fprintf(a.out, "%s published it: %s of data%s, request %s\n", publisher(m), plural(story.Bytes, "byte"), named(m), m.RequestID)
	if m.Key != "" {
		fmt.Fprintf(a.out, "Its ordering key is %s.\n", printable(m.Key))
	}
	if story.Pending {
		fmt.Fprintf(a.out, "It waits in the schedule until %s, in %s.\n", moment(m.NotBefore), age(max(0, m.NotBefore.Sub(a.now()))))
		return
	}
	if !story.Scheduled.IsZero() {
		fmt.Fprintf(a.out, "It was published at %s, and waited in the schedule until then.\n", moment(story.Scheduled))
	}
	fmt.Fprintln(a.out, grouped(&story.Group))
	if len(story.Subscriptions) == 0 {
		fmt.Fprintln(a.out, "The topic has no subscription.")
	}
	for i := range story.Subscriptions {
		a.tellFate(s, &story.Subscriptions[i], story)
	}
	if story.Partial {
		fmt.Fprintln(a.out, s.faint("The topic's log is long: whether it was redriven was looked for in a part of it."))
	}
	if trace := traceOf(m); trace != "" {
		fmt.Fprintln(a.out, s.faint("`shoal why "+trace+"` tells of the requests of its trace, as far as they are remembered."))
	}
}

func moment(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05.000") }

// named tells of a CloudEvent's identity.
func named(m *fleet.Message) string {
	if m.Attributes["ce-id"] == "" {
		return ""
	}
	return printable(fmt.Sprintf(", event %s of %s, type %s", m.Attributes["ce-id"], m.Attributes["ce-source"], m.Attributes["ce-type"]))
}

// traceOf is the trace id in a message's traceparent.
func traceOf(m *fleet.Message) string {
	if parts := strings.Split(m.Traceparent, "-"); len(parts) > 3 {
		return parts[1]
	}
	return ""
}

// grouped tells how a message became durable.
func grouped(g *fleet.CommitGroup) string {
	took := ""
	if g.Took > 0 {
		took = ", written in " + latency(g.Took)
	}
	if g.Count == 1 {
		return fmt.Sprintf("It became durable at %s by itself%s (%s).", clock(g.Time), took, placeOf(g))
	}
	return fmt.Sprintf("It became durable at %s in a group of %d messages, from %s on%s (%s).", clock(g.Time), g.Count, g.First, took, placeOf(g))
}

func publisher(m *fleet.Message) string {
	if m.Publisher == fleet.Operator {
		return "The operator"
	}
	return m.Publisher
}

// tellFate tells what became of a message in one subscription: each attempt, and where it was committed again.
func (a *app) tellFate(s style, f *fleet.MessageFate, story *fleet.MessageStory) {
	mine := copiesOf(f, story.Copies)
	verdict := a.verdict(s, f, story, time.Time{})
	if f.State == fleet.FateSettled && len(mine) > 0 {
		verdict = s.red("given up")
	}
	fmt.Fprintf(a.out, "  %s: %s\n", f.Subscription, verdict)
	at := time.Time{}
	for _, c := range mine {
		a.attempts(s, f, story.Seen, at, c.Time)
		at = c.Time
		if c.From != "" {
			fmt.Fprintf(a.out, "    %s  went to the dead-letter topic %s, as message %s\n", clock(c.Time), c.Topic, c.ID)
			continue
		}
		fmt.Fprintf(a.out, "    %s  redriven, as message %s: %s\n", clock(c.Time), c.ID, a.verdict(s, c.Fate, story, c.Time))
		f = c.Fate
	}
	a.attempts(s, f, story.Seen, at, a.now())
}

// verdict says where a subscription stands with a message that it has since a time.
func (a *app) verdict(s style, f *fleet.MessageFate, story *fleet.MessageStory, since time.Time) string {
	acknowledged := func(o fleet.Observation) bool {
		return o.Kind == fleet.KindDelivery && o.Subscription == f.Subscription && !o.Failed() && !o.Time.Before(since)
	}
	if f.State == fleet.FateSettled && slices.ContainsFunc(story.Seen, acknowledged) {
		return s.green("acknowledged")
	}
	text := a.fate(s, f)
	if f.Paused != "" {
		text += "; " + s.red("deliveries pause: "+printable(f.Paused))
	}
	return text
}

// copiesOf are the copies that a message has because of one subscription.
func copiesOf(f *fleet.MessageFate, all []fleet.MessageCopy) (mine []fleet.MessageCopy) {
	for _, c := range all {
		if c.From != "" && apiID(f.Subscription) == c.From || c.Fate != nil && c.Fate.Subscription == f.Subscription {
			mine = append(mine, c)
		}
	}
	return mine
}

// apiID is a subscription's name in the Pub/Sub API.
func apiID(name string) string { return strings.Replace(name, "/", ".", 1) }

func clock(t time.Time) string { return t.Local().Format("15:04:05.000") }

// attempts lists deliveries between two times: those that are remembered, and of others the failures that are kept.
func (a *app) attempts(s style, f *fleet.MessageFate, seen []fleet.Observation, from, to time.Time) {
	type line struct {
		at   time.Time
		text string
	}
	var lines []line
	known := map[fleet.SpanID]bool{}
	for i := range seen {
		if o := &seen[i]; o.Kind == fleet.KindDelivery && o.Subscription == f.Subscription && !o.Time.Before(from) && o.Time.Before(to) {
			lines, known[o.SpanID] = append(lines, line{o.Time, attempt(s, o)}), true
		}
	}
	for _, n := range f.Failures {
		if !known[n.SpanID] {
			lines = append(lines, line{n.Time, fmt.Sprintf("attempt %d failed: %s", n.Attempt, s.red(printable(n.Error)))})
		}
	}
	slices.SortStableFunc(lines, func(x, y line) int { return x.at.Compare(y.at) })
	for _, l := range lines {
		fmt.Fprintf(a.out, "    %s  %s\n", clock(l.at), l.text)
	}
}

// attempt is one delivery in a line.
func attempt(s style, o *fleet.Observation) string {
	how := "pushed to " + o.Callee
	if o.Method == "" {
		how = "pulled by " + o.Callee
	}
	text := fmt.Sprintf("attempt %d, %s%s: ", o.Delivery, how, extensions(o))
	if o.Failed() {
		return text + s.red("failed") + fmt.Sprintf(" after %s: %s", latency(o.Duration), s.red(printable(cmp.Or(outcomeOf(o), meaning(o)))))
	}
	if o.Method == "" && o.Detail != "" {
		return text + s.yellow(o.Detail)
	}
	return text + s.green("acknowledged") + " after " + latency(o.Duration)
}

// outcomeOf is what a delivery's detail says besides which attempt it was.
func outcomeOf(o *fleet.Observation) string {
	_, outcome, _ := strings.Cut(o.Detail, ": ")
	if o.Method == "" {
		return o.Detail
	}
	return outcome
}

// fate says where a subscription stands with a message.
func (a *app) fate(s style, f *fleet.MessageFate) string {
	switch f.State {
	case fleet.FateSettled:
		return s.green("settled") + ": acknowledged, or from before the subscription; its deliveries are no longer remembered"
	case fleet.FateFiltered:
		return s.faint("not for it: its filter keeps it back")
	case fleet.FateDead:
		return s.red("a dead letter") + ", after " + plural(int(f.Attempt), "attempt")
	case fleet.FateFlying:
		return fmt.Sprintf("in flight, attempt %d", f.Attempt)
	case fleet.FateWaiting:
		return fmt.Sprintf("waits for attempt %d, due in %s", f.Attempt, age(max(0, f.Due.Sub(a.now()))))
	}
	return "waits for its turn"
}
