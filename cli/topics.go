package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
)

func (a *app) topics() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "topics", Short: "Show topics: who publishes, how much, what is kept", Args: within(0, 0)}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a list")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, _ []string) error {
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return a.printJSON(orEmpty(st.Topics))
		}
		for _, line := range a.topicLines(a.styleOf(a.out), st.Topics) {
			fmt.Fprintln(a.out, line)
		}
		return nil
	})
	return cmd
}

// orEmpty makes JSON's `[]` of no list.
func orEmpty[T any](all []T) []T {
	if all == nil {
		return []T{}
	}
	return all
}

func (a *app) topicLines(s style, all []fleet.TopicStatus) []string {
	if len(all) == 0 {
		return []string{"no manifest names a topic, and none was made"}
	}
	t := &table{}
	t.add("TOPIC", "PUBLISHERS", "PUBLISHED", "KEPT", "SIZE", "OLDEST", "LAST")
	for _, one := range all {
		t.add(one.Name, strings.Join(one.Publishers, ","), strconv.FormatUint(one.Published, 10), strconv.FormatUint(one.Retained, 10),
			sizeText(one.Bytes), a.since(one.Oldest), a.since(one.Last))
	}
	rows := t.lines()
	lines := []string{s.faint(rows[0])}
	for i, one := range all {
		lines = append(lines, rows[i+1])
		if one.Stopped != "" {
			lines = append(lines, "  "+s.red(printable(one.Stopped)))
		}
	}
	return lines
}

// since is how long ago something was; empty where it never was.
func (a *app) since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return age(a.now().Sub(t))
}

// sizeText writes bytes in their largest unit.
func sizeText(n uint64) string {
	for _, unit := range []struct {
		of   uint64
		name string
	}{{1 << 30, "GB"}, {1 << 20, "MB"}, {1 << 10, "KB"}} {
		if n >= unit.of {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(unit.of), unit.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

// rateTime is how long deliveries are counted for the rate that is shown.
const rateTime = time.Second

func (a *app) subscriptions() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "subscriptions", Short: "Show subscriptions: lag, age, rate, failures, and why one pauses", Args: within(0, 0)}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a list")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, _ []string) error {
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return a.printJSON(orEmpty(st.Subscriptions))
		}
		select {
		case <-time.After(rateTime):
		case <-ctx.Done():
			return ctx.Err()
		}
		now, err := c.Status(ctx)
		if err != nil {
			return err
		}
		for _, line := range a.subscriptionTable(a.styleOf(a.out), st.Subscriptions, now.Subscriptions) {
			fmt.Fprintln(a.out, line)
		}
		return nil
	})
	return cmd
}

func (a *app) subscriptionTable(s style, before, now []fleet.SubscriptionStatus) []string {
	if len(now) == 0 {
		return []string{"no manifest subscribes to a topic, and no subscription was made"}
	}
	t := &table{}
	t.add("SUBSCRIPTION", "LAG", "OLDEST", "IN FLIGHT", "WAITING", "RATE", "DELIVERED", "FAILED", "DEAD", "LOST")
	count := func(n uint64) string { return strconv.FormatUint(n, 10) }
	for _, v := range now {
		t.add(v.Name, count(v.Lag), a.since(v.Oldest), flight(&v), strconv.Itoa(v.Retrying), rateOf(before, &v),
			count(v.Delivered), count(v.Failed), count(v.DeadLetters), count(v.Lost))
	}
	rows := t.lines()
	lines := []string{s.faint(rows[0])}
	for i, v := range now {
		lines = append(lines, rows[i+1])
		lines = append(lines, a.troubles(s, &v)...)
	}
	return lines
}

// troubles are the lines beneath a subscription that is not well: what holds it up, and what can be done.
func (a *app) troubles(s style, v *fleet.SubscriptionStatus) (lines []string) {
	bad := func(text string) { lines = append(lines, "  "+s.red(printable(text))) }
	if v.Stuck != "" {
		bad(v.Stuck)
	}
	switch {
	case v.Paused != "":
		bad(a.pausedText(v))
	case v.LastError != "" && (v.Lag > 0 || v.DeadLetters > 0):
		bad("the last error: " + v.LastError)
	}
	if v.DeadLetters > 0 {
		lines = append(lines, "  "+s.faint("`shoal dlq list "+v.Name+"` shows its "+plural(int(v.DeadLetters), "dead letter")))
	}
	return lines
}

// pausedText says why nothing is delivered, since when, and until when.
func (a *app) pausedText(v *fleet.SubscriptionStatus) string {
	text := "paused"
	if !v.PausedSince.IsZero() {
		text += " for " + a.since(v.PausedSince)
	}
	if !v.NextTry.IsZero() {
		text += ", the next try " + in(v.NextTry.Sub(a.now()))
	}
	return text + ": " + v.Paused
}

// in says when something is due.
func in(d time.Duration) string {
	if d < time.Second {
		return "now"
	}
	return "in " + age(d)
}

// flight is how many messages are being delivered, and of how many that may be pushed at once.
func flight(v *fleet.SubscriptionStatus) string {
	if v.Concurrency == 0 {
		return strconv.Itoa(v.InFlight)
	}
	return fmt.Sprintf("%d of %d", v.InFlight, v.Concurrency)
}

// rateOf is what a subscription delivered since before was asked, a second ago.
func rateOf(before []fleet.SubscriptionStatus, now *fleet.SubscriptionStatus) string {
	i := slices.IndexFunc(before, func(s fleet.SubscriptionStatus) bool { return s.Name == now.Name })
	if i < 0 || now.Delivered < before[i].Delivered {
		return ""
	}
	return strconv.FormatUint(now.Delivered-before[i].Delivered, 10) + "/s"
}

func (a *app) tail() *cobra.Command {
	var filter string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "tail TOPIC", Short: "Print messages as they are published; no subscription notices", Args: within(1, 1),
		Example: "  shoal tail orders.placed\n  shoal tail orders.placed --filter 'attributes.kind = \"gift\"'",
	}
	cmd.Flags().StringVar(&filter, "filter", "", "only messages that match `EXPRESSION`, in the filter language of Pub/Sub")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print messages as JSON, one a line; data in base64")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, args []string) error {
		s := a.styleOf(a.out)
		return c.Tail(ctx, api.TailRequest{Topic: args[0], Filter: filter}, func(m fleet.Message) {
			if m.Missed > 0 {
				fmt.Fprintf(a.err, "%d more were not shown: they came faster than they could be printed\n", m.Missed)
			}
			if asJSON {
				_ = a.printJSONLine(m)
				return
			}
			fmt.Fprintln(a.out, messageLine(s, &m))
		})
	})
	return cmd
}

// messageLine is a message in a line: time, id, publisher, key, attributes, data.
func messageLine(s style, m *fleet.Message) string {
	parts := []string{s.faint(m.Published.Local().Format("15:04:05.000")), s.bold(m.Topic + ":" + m.ID), m.Publisher}
	if m.Key != "" {
		parts = append(parts, "key="+printable(m.Key))
	}
	for _, name := range sortedNames(m.Attributes) {
		parts = append(parts, s.faint(printable(name+"="+m.Attributes[name])))
	}
	return strings.Join(append(parts, dataText(m.Data)), columnGap)
}

func sortedNames(attributes map[string]string) []string {
	names := make([]string, 0, len(attributes))
	for name := range attributes {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// dataText shows data on one line, as far as it is text and fits.
func dataText(data []byte) string {
	const most = 200
	if !utf8.Valid(data) {
		return plural(len(data), "byte")
	}
	text := []rune(printable(strings.ReplaceAll(string(data), "\n", " ")))
	if len(text) > most {
		return string(text[:most]) + "…"
	}
	return string(text)
}

func (a *app) replay() *cobra.Command {
	var from string
	var yes, asJSON bool
	cmd := &cobra.Command{
		Use: "replay SUBSCRIPTION", Short: "Deliver again what a subscription got since a time", Args: within(1, 1),
		Example: "  shoal replay mailer/orders.placed --from 2h\n  shoal replay mailer/orders.placed --from 2h --yes",
	}
	cmd.Flags().StringVar(&from, "from", "", "the `TIME`: how long ago (2h), or when (2026-01-02T15:04:05Z)")
	cmd.Flags().BoolVar(&yes, "yes", false, "do it; without this only what would be done is told")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the counts")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, args []string) error {
		at, err := a.timeOf(from)
		if err != nil {
			return err
		}
		done, err := c.Replay(ctx, api.ReplayRequest{Subscription: args[0], From: at, Dry: !yes})
		if err != nil {
			return err
		}
		if asJSON {
			return a.printJSON(map[string]any{"subscription": args[0], "from": at.UTC(), "done": yes, "before": done.Before, "after": done.After})
		}
		if yes {
			fmt.Fprintf(a.out, "%s begins again at %s: %s to deliver\n", args[0], at.Local().Format(time.DateTime), plural(int(done.After), "message"))
			return nil
		}
		fmt.Fprintf(a.out, "%s has %s to deliver now, and would have %d from %s on; --yes does it\n",
			args[0], plural(int(done.Before), "message"), done.After, at.Local().Format(time.DateTime))
		return nil
	})
	return cmd
}

// timeOf reads how long ago something was, or when.
func (a *app) timeOf(text string) (time.Time, error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return a.now().Add(-ago), nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	return time.Time{}, usagef("--from takes how long ago, such as 2h, or a time such as 2026-01-02T15:04:05Z, not %q", text)
}
