package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
)

func (a *app) status() *cobra.Command {
	var asJSON, watch bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show services, their instances, and the edges between them", Args: within(0, 0),
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the stable JSON of docs/operator-api.md")
	cmd.Flags().BoolVar(&watch, "watch", false, "print again at every change, until Ctrl-C")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, _ []string) error {
		show := a.showStatus
		if asJSON {
			show = a.printStatusJSON
		}
		if watch {
			return a.watchStatus(ctx, c, show)
		}
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		return show(st)
	})
	return cmd
}

func (a *app) printStatusJSON(st fleet.Status) error {
	// Lists are never null in the documented shape.
	if st.Services == nil {
		st.Services = []fleet.ServiceStatus{}
	}
	if st.Edges == nil {
		st.Edges = []fleet.EdgeStats{}
	}
	return a.printJSON(st)
}

func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func (a *app) printJSONLine(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func (a *app) showStatus(st fleet.Status) error {
	_, err := io.WriteString(a.out, strings.Join(a.statusLines(st), "\n")+"\n")
	return err
}

// watchStatus shows the state at every change. Where the hub is gone, the node is asked every second.
func (a *app) watchStatus(ctx context.Context, c *api.Client, show func(fleet.Status) error) error {
	var failed error
	once := func(st fleet.Status) {
		if isTerminal(a.out) {
			io.WriteString(a.out, "\x1b[H\x1b[2J")
		}
		failed = errors.Join(failed, show(st))
	}
	for failed == nil {
		err := c.Watch(ctx, once)
		var gone *api.GoneError
		if err != nil && !errors.As(err, &gone) {
			return err
		}
		st, err := c.Status(ctx)
		if err != nil {
			return err
		}
		once(st)
		if err := pause(ctx, time.Second); err != nil {
			return err
		}
	}
	return failed
}

// pause waits, or returns the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// statusLines is the whole of `shoal status`.
func (a *app) statusLines(st fleet.Status) []string {
	s := a.styleOf(a.out)
	lines := []string{a.headLine(s, st), ""}
	if st.Failure != "" {
		lines = append(lines, s.red("what is declared now is not in force: "+printable(st.Failure)), "")
	}
	if len(st.Faults) > 0 {
		lines = append(lines, a.faultLine(s, st.Faults), "")
	}
	if about := engineLines(s, st.Broker); len(about) > 0 {
		lines = append(append(lines, about...), "")
	}
	lines = append(lines, serviceLines(s, st.Services)...)
	if len(st.Nodes) > 1 {
		lines = append(lines, "")
		lines = append(lines, nodeLines(s, st.Nodes)...)
	}
	if len(st.Edges) > 0 {
		lines = append(lines, "")
		lines = append(lines, edgeLines(s, st.Edges)...)
	}
	if len(st.Subscriptions) > 0 {
		lines = append(lines, "")
		lines = append(lines, a.subscriptionLines(s, st.Subscriptions)...)
	}
	return lines
}

// headLine names the fleet, how long it is up, its addresses, and what of Shoal itself is down.
func (a *app) headLine(s style, st fleet.Status) string {
	parts := []string{s.bold(st.Fleet)}
	if since := st.Node.Started; !since.IsZero() {
		parts = append(parts, "up "+age(a.now().Sub(since)))
	}
	if st.Gateway != "" {
		parts = append(parts, "gateway http://"+st.Gateway)
	}
	if st.Metrics != "" {
		parts = append(parts, "metrics http://"+st.Metrics+"/metrics")
	}
	if st.Pubsub != "" {
		parts = append(parts, "pubsub "+st.Pubsub)
	}
	if st.NATS != "" {
		parts = append(parts, "nats://"+st.NATS)
	}
	if st.Hub.Down {
		parts = append(parts, s.red("the hub is down: calls go on, changes wait"))
	}
	if st.Node.Down {
		parts = append(parts, s.red("the node is down: nothing is served"))
	}
	return strings.Join(parts, columnGap)
}

// serviceLines is the table of services, each failure on a line beneath its service.
func serviceLines(s style, services []fleet.ServiceStatus) []string {
	if len(services) == 0 {
		return []string{"no service runs; `shoal up` starts them"}
	}
	t := &table{}
	t.add("SERVICE", "STATE", "ORIGIN", "RELEASE", "MODE", "INSTANCES", "RESTARTS", "URL")
	for i := range services {
		v := &services[i]
		t.add(v.Name, s.state(v.State)+suffix(v), string(v.Origin), release(v), string(v.Mode), ready(v), restarts(v), v.URL)
	}
	rows := t.lines()
	lines := []string{s.faint(rows[0])}
	for i := range services {
		lines = append(lines, rows[i+1])
		if failure := failureOf(&services[i]); failure != "" {
			lines = append(lines, "  "+s.red(printable(failure)))
		}
	}
	return lines
}

// suffix says what is unusual about how a service runs.
func suffix(v *fleet.ServiceStatus) string {
	switch {
	case v.Attached != "":
		return " (attached: " + v.Attached + ")"
	case v.Debug:
		return " (debug)"
	}
	return ""
}

func release(v *fleet.ServiceStatus) string {
	if v.Origin == fleet.External {
		return v.Source
	}
	if v.Dirty {
		return v.Release + "+dirty"
	}
	return v.Release
}

// ready counts the instances that are ready: `1/2`.
func ready(v *fleet.ServiceStatus) string {
	if len(v.Instances) == 0 {
		return ""
	}
	n := 0
	for _, i := range v.Instances {
		if i.State == fleet.Ready {
			n++
		}
	}
	return fmt.Sprintf("%d/%d", n, len(v.Instances)) + where(v)
}

// where names the nodes of a service's instances, where one of them is not beside the hub's.
func where(v *fleet.ServiceStatus) string {
	var nodes []string
	for _, i := range v.Instances {
		if node := cmp.Or(i.Node, fleet.Home); !slices.Contains(nodes, node) {
			nodes = append(nodes, node)
		}
	}
	slices.Sort(nodes)
	if slices.Equal(nodes, []string{fleet.Home}) {
		return ""
	}
	return " on " + strings.Join(nodes, ", ")
}

func restarts(v *fleet.ServiceStatus) string {
	n := 0
	for _, i := range v.Instances {
		n += i.Restarts
	}
	if len(v.Instances) == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// failureOf returns the service's failure in a line, else that of one of its instances.
func failureOf(v *fleet.ServiceStatus) string {
	if v.Failure != "" {
		return v.Failure
	}
	for _, i := range v.Instances {
		if i.Failure != "" {
			return i.Instance + ": " + i.Failure
		}
	}
	return ""
}

func edgeLines(s style, edges []fleet.EdgeStats) []string {
	t := &table{}
	t.add("FROM", "TO", "ROUTE", "PROTOCOL", "REQUESTS", "ERRORS", "P50", "P99")
	for _, e := range edges {
		errors := strconv.FormatUint(e.Errors, 10)
		if e.Errors > 0 {
			errors = s.red(errors)
		}
		t.add(e.From, e.To, e.Route, string(e.Protocol), strconv.FormatUint(e.Requests, 10), errors, latency(e.P50), latency(e.P99))
	}
	lines := t.lines()
	lines[0] = s.faint(lines[0])
	return lines
}

// subscriptionLines is the table of deliveries, with what holds one up beneath it.
func (a *app) subscriptionLines(s style, all []fleet.SubscriptionStatus) []string {
	t := &table{}
	t.add("SUBSCRIBER", "TOPIC", "LAG", "DELIVERED", "FAILED", "DEAD LETTERS")
	count := func(n uint64, bad bool) string {
		text := strconv.FormatUint(n, 10)
		if bad && n > 0 {
			return s.red(text)
		}
		return text
	}
	for _, v := range all {
		subscriber := v.Service
		if !strings.Contains(v.Name, "/") { // no manifest's: the service is but where it pushes to, if anywhere
			subscriber = v.Name
		}
		t.add(subscriber, v.Topic, count(v.Lag, false), count(v.Delivered, false), count(v.Failed, true), count(v.DeadLetters, true))
	}
	rows := t.lines()
	lines := []string{s.faint(rows[0])}
	for i, v := range all {
		lines = append(lines, rows[i+1])
		lines = append(lines, a.troubles(s, &v)...)
	}
	return lines
}

// latency writes a duration with two digits that matter: `840µs`, `1.2ms`, `12ms`, `3.1s`.
func latency(d time.Duration) string {
	for _, unit := range []time.Duration{time.Second, time.Millisecond, time.Microsecond} {
		if d < unit {
			continue
		}
		if d < 10*unit {
			return d.Round(unit / 10).String()
		}
		return d.Round(unit).String()
	}
	return d.String()
}

// age writes how long something lasts in its largest unit: `42s`, `3m`, `5h`, `2d`.
func age(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
