package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
)

func (a *app) why() *cobra.Command {
	return &cobra.Command{
		Use: "why [REQUEST-ID|TRACE-ID|TOPIC:MESSAGE-ID|EVENT-ID]", Short: "Explain one request, trace or message, or the latest refusals and failures", Args: within(0, 1),
		Example: "  shoal why 018f3a…\n  shoal why orders.placed:7\n  shoal why /orders/e-7   (the source and id of a CloudEvent, or its id alone)",
		RunE: a.asking(func(ctx context.Context, c *api.Client, args []string) error {
			id := strings.Join(args, "")
			if messageID(id) {
				return a.whyMessage(ctx, c, id)
			}
			seen, err := c.Why(ctx, id)
			if err != nil {
				return err
			}
			if id != "" && (len(seen) == 0 || slices.ContainsFunc(seen, ofMessage)) {
				return a.whyEither(ctx, c, id, seen)
			}
			if len(seen) == 0 {
				fmt.Fprintln(a.out, "nothing was refused and nothing failed, as far as is remembered")
				return nil
			}
			a.explainAll(seen)
			return nil
		}),
	}
}

func (a *app) explainAll(seen []fleet.Observation) {
	for i := range seen {
		if i > 0 {
			fmt.Fprintln(a.out)
		}
		fmt.Fprint(a.out, explain(a.styleOf(a.out), &seen[i]))
	}
}

// explain tells of one exchange in sentences: who called whom, what became of it and by which
// rule, every attempt, and what to do next.
func explain(s style, o *fleet.Observation) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  request %s\n", o.Time.Local().Format("2006-01-02 15:04:05.000"), s.bold(o.RequestID))
	fmt.Fprintf(&b, "%s\n", printable(opening(o)))
	fmt.Fprintf(&b, "%s\n", verdict(s, o))
	if o.Compared != nil && o.Reason == "" {
		fmt.Fprintf(&b, "%s\n", compared(s, o.Compared))
	}
	if o.Fault != "" {
		fmt.Fprintf(&b, "%s\n", s.yellow("An operator's fault met it: "+printable(o.Fault)+"."))
	}
	b.WriteString(circumstances(o))
	for i, try := range o.Attempts {
		fmt.Fprintf(&b, "  attempt %d: %s, after %s, took %s: %s\n", i+1, try.Instance, latency(try.Start), latency(try.Duration), printable(try.Outcome))
	}
	b.WriteString(decisions(o))
	if o.Detail != "" {
		b.WriteString(indent(o.Detail))
	}
	if advice := remedy(o); advice != "" && !strings.Contains(o.Detail, "\nAdd ") { // else who refused it has said so
		b.WriteString(advice)
	}
	return b.String()
}

// compared says how the answer to a copy compares with what the caller got.
func compared(s style, c *fleet.Compared) string {
	if c.Differs() {
		return s.yellow(fmt.Sprintf("Its answer differs from that of %s: %s.", c.With, printable(and(c.Differences))))
	}
	return s.green(fmt.Sprintf("Its answer was the same as that of %s.", c.With))
}

// circumstances are what let it pass, what it met on its way, and the trace that it is part of.
func circumstances(o *fleet.Observation) string {
	var b strings.Builder
	line := func(format string, v ...any) { fmt.Fprintf(&b, "  "+format+"\n", v...) }
	if o.Permission != "" {
		line("passed by %s", printable(o.Permission))
	}
	if o.Limit > 0 {
		line("%s in progress to %s from there, of at most %d", plural(o.InFlight, "exchange"), o.Callee, o.Limit)
	}
	if o.Queued > 0 {
		line("stood in line for %s", latency(o.Queued))
	}
	for _, d := range decided(o.Decisions) {
		line("%s", d)
	}
	if o.TraceID != (fleet.TraceID{}) {
		line("trace %s%s", o.TraceID, unsampled(o))
	}
	return b.String()
}

func unsampled(o *fleet.Observation) string {
	if o.Sampled {
		return ""
	}
	return ", not sampled"
}

// decided says in words what the data path decided.
func decided(d fleet.Decisions) (words []string) {
	for _, one := range []struct {
		d    fleet.Decisions
		text string
	}{
		{fleet.PassedEjected, "an instance was not asked: it failed too often and is ejected for a while"},
		{fleet.PassedPaused, "an instance was not asked: it had said Retry-After"},
		{fleet.PassedFull, "an instance was not asked: it works on as much as its limit allows"},
		{fleet.PassedUnhealthy, "an instance was not asked: it does not answer its health checks"},
		{fleet.AllEjected, "no instance was in good standing, so that one was asked all the same"},
		{fleet.Reopening, "it found out whether an ejected instance is well again"},
		{fleet.Ejecting, "its failure got an instance ejected"},
		{fleet.Hedged, "it was sent to a second instance, too, because the first was slow"},
		{fleet.BudgetSpent, "it was not sent again: the retry budget is spent"},
		{fleet.RetryAfter, "it was not sent again: the answer says Retry-After"},
	} {
		if d.Has(one.d) {
			words = append(words, one.text)
		}
	}
	return words
}

// opening is the first sentence: who did what. Where it ends with a path there is no full stop, which
// would look like a part of it.
func opening(o *fleet.Observation) string {
	switch o.Kind {
	case fleet.KindDelivery:
		return deliveryOpening(o)
	case fleet.KindMirror:
		return fmt.Sprintf("A copy of a call of %s went to %s: %s %s", caller(o), o.Callee, o.Method, o.Path)
	case fleet.KindPublish:
		return fmt.Sprintf("%s published to the topic %s.", caller(o), o.Topic)
	case fleet.KindEgress:
		return fmt.Sprintf("%s opened a connection to %s, outside the fleet.", caller(o), o.Callee)
	case fleet.KindStream:
		return fmt.Sprintf("%s opened a stream to %s.", caller(o), o.Callee)
	}
	if o.Callee == "-" { // the gateway found no service for it
		return fmt.Sprintf("%s asked for %s %s", caller(o), o.Method, o.Path)
	}
	return strings.TrimRight(fmt.Sprintf("%s called %s: %s %s", caller(o), o.Callee, o.Method, o.Path), " :")
}

// deliveryOpening tells of a push, or of a pull.
func deliveryOpening(o *fleet.Observation) string {
	if o.Method == "" {
		return fmt.Sprintf("%s pulled a message of %s from its subscription %s, attempt %d%s.", o.Callee, o.Topic, o.Subscription, o.Delivery, extensions(o))
	}
	return fmt.Sprintf("The broker delivered an event of %s to %s (%s %s).", o.Topic, o.Callee, o.Method, o.Path)
}

func extensions(o *fleet.Observation) string {
	if o.Extended == 0 {
		return ""
	}
	return ", and asked for more time " + times(int(o.Extended))
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return plural(n, "time")
}

// caller names the built-in identities as a person would.
func caller(o *fleet.Observation) string {
	switch o.Caller {
	case fleet.Gateway:
		return "A client of the gateway"
	case fleet.Operator:
		return "The operator"
	case fleet.Events:
		return "The broker"
	}
	return o.Caller
}

// verdict says what became of it, by which rule or route, and how long that took.
func verdict(s style, o *fleet.Observation) string {
	took := latency(o.Duration)
	route := ""
	if o.Route != "" {
		route = fmt.Sprintf(" by the route `%s`", o.Route)
	}
	switch {
	case o.Reason != "" && refused(o):
		return s.red("It was refused") + fmt.Sprintf("%s after %s: %s (%s).", answered(o), took, meaning(o), o.Reason)
	case o.Reason != "":
		return s.red("It failed") + fmt.Sprintf("%s%s after %s: %s (%s).", route, answered(o), took, meaning(o), o.Reason)
	case o.Failed():
		return s.red("It failed") + fmt.Sprintf("%s after %s: the service itself answered %s.", route, took, statusOf(o))
	case o.Learned != nil:
		return s.yellow("It passed only because the fleet is learning") + fmt.Sprintf("%s, in %s.", answered(o), took)
	}
	return s.green("It succeeded") + fmt.Sprintf("%s%s in %s.", route, answered(o), took)
}

func answered(o *fleet.Observation) string {
	if statusOf(o) == "" {
		return ""
	}
	return " with " + statusOf(o)
}

// statusOf names the answer's status by the protocol's own numbers.
func statusOf(o *fleet.Observation) string {
	switch {
	case o.Protocol == fleet.GRPC && o.Kind == fleet.KindCall:
		return fmt.Sprintf("gRPC status %d", o.GRPCStatus)
	case o.Status != 0:
		return fmt.Sprintf("status %d", o.Status)
	}
	return ""
}

// refused reports whether a rule ended the exchange, rather than a fault.
func refused(o *fleet.Observation) bool {
	switch fleet.Reason(o.Reason) {
	case fleet.ReasonUndeclaredCall, fleet.ReasonNotAllowed, fleet.ReasonUndeclaredEgress, fleet.ReasonUnboundNeed,
		fleet.ReasonUnknownService, fleet.ReasonNotRunning, fleet.ReasonUnknownPort, fleet.ReasonNotExposed,
		fleet.ReasonUndeclaredTopic, fleet.ReasonMeshTLS, fleet.ReasonUDP, fleet.ReasonTooLarge, fleet.ReasonTooSlow, fleet.ReasonMalformed,
		fleet.ReasonUnknownCaller, fleet.ReasonMalformedEvent, fleet.ReasonRateLimited, fleet.ReasonFaultInjected:
		return true
	}
	return false
}

// indent writes text as lines two spaces in.
func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(strings.TrimRight(text, "\n") + "\n") {
		line = printable(line)
		if line != "" {
			line = "  " + line
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}
