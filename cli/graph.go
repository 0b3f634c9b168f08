package cli

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
)

func (a *app) graph() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "graph", Short: "Draw who calls whom, from the manifests, with live numbers where a fleet runs", Args: within(0, 0),
		Example: "  shoal graph --format dot | dot -Tsvg > fleet.svg",
	}
	cmd.Flags().StringVar(&format, "format", "text", "text, dot or mermaid")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		draw, ok := map[string]func(graph) string{"text": graph.text, "dot": graph.dot, "mermaid": graph.mermaid}[format]
		if !ok {
			return usagef("shoal graph: there is no format %q; text, dot and mermaid are", format)
		}
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		services, err := a.loadWorkspace(ctx)
		if err != nil {
			return err
		}
		manifests := make([]*fleet.Manifest, 0, len(services))
		for _, s := range services {
			manifests = append(manifests, &s.Manifest.Manifest)
		}
		_, err = fmt.Fprint(a.out, draw(newGraph(manifests, a.liveEdges(ctx))))
		return err
	}
	return cmd
}

// liveEdges returns what a running fleet counted, or nothing.
func (a *app) liveEdges(ctx context.Context) []fleet.EdgeStats {
	p, err := a.paths()
	if err != nil {
		return nil
	}
	c := api.Dial(p)
	defer c.Close()
	st, err := c.Status(ctx)
	if err != nil {
		return nil
	}
	return st.Edges
}

// edge is one arrow: a call, a topic, a need or a way out.
type edge struct {
	from, to string
	label    string // topic, port, or empty
	dashed   bool   // an event: nobody waits for it
	live     string // `120 requests, 1 error, p99 12ms`; empty where nothing was seen
}

// graph is the fleet's topology. Edges are sorted.
type graph struct {
	services []string
	outside  []string // the gateway, needs and hosts of egress
	edges    []edge
}

func newGraph(manifests []*fleet.Manifest, live []fleet.EdgeStats) graph {
	var g graph
	for _, m := range manifests {
		g.services = append(g.services, m.Service)
		g.declared(m, manifests)
	}
	g.mark(live)
	slices.Sort(g.services)
	slices.Sort(g.outside)
	g.outside = slices.Compact(g.outside)
	slices.SortFunc(g.edges, func(a, b edge) int {
		return cmp.Or(strings.Compare(a.from, b.from), strings.Compare(a.to, b.to), strings.Compare(a.label, b.label))
	})
	return g
}

// declared adds the edges of one manifest.
func (g *graph) declared(m *fleet.Manifest, all []*fleet.Manifest) {
	if len(m.Expose) > 0 {
		g.outside = append(g.outside, fleet.Gateway)
		g.edges = append(g.edges, edge{from: fleet.Gateway, to: m.Service, label: m.Expose[0].Host})
	}
	for _, c := range m.Calls {
		g.edges = append(g.edges, edge{from: m.Service, to: c.Service})
	}
	for _, n := range m.Needs {
		name := m.Service + "." + n.Name
		g.outside = append(g.outside, name)
		g.edges = append(g.edges, edge{from: m.Service, to: name, label: cmp.Or(n.Bound, "unbound")})
	}
	for _, e := range m.Egress {
		name := net.JoinHostPort(e.Host, strconv.Itoa(int(e.Port)))
		g.outside = append(g.outside, name)
		g.edges = append(g.edges, edge{from: m.Service, to: name})
	}
	for _, topic := range m.Publishes {
		for _, other := range all {
			if subscribes(other, topic) {
				g.edges = append(g.edges, edge{from: m.Service, to: other.Service, label: topic, dashed: true})
			}
		}
	}
}

func subscribes(m *fleet.Manifest, topic string) bool {
	return slices.ContainsFunc(m.Subscribes, func(s fleet.Subscription) bool { return s.Topic == topic })
}

// mark writes what was counted on the edges. Deliveries come from the broker, so an event's edge
// has no number of its own.
func (g *graph) mark(live []fleet.EdgeStats) {
	for i := range g.edges {
		e := &g.edges[i]
		for _, l := range live {
			if l.From == e.from && l.To == e.to && !e.dashed {
				e.live = counted(l)
			}
		}
	}
}

func counted(l fleet.EdgeStats) string {
	text := plural(int(l.Requests), "request")
	if l.Errors > 0 {
		text += ", " + plural(int(l.Errors), "error")
	}
	return text + ", p99 " + latency(l.P99)
}

// text is a line per edge, grouped by where it begins.
func (g graph) text() string {
	var b strings.Builder
	for _, from := range g.origins() {
		fmt.Fprintln(&b, from)
		for _, e := range g.edges {
			if e.from != from {
				continue
			}
			arrow := "-->"
			if e.dashed {
				arrow = "..>"
			}
			line := "  " + arrow + " " + e.to
			if e.label != "" {
				line += " (" + e.label + ")"
			}
			if e.live != "" {
				line += "  " + e.live
			}
			fmt.Fprintln(&b, line)
		}
	}
	return b.String()
}

// origins are the gateway, where something is exposed, and then every service, also one that
// calls nobody.
func (g graph) origins() []string {
	if slices.Contains(g.outside, fleet.Gateway) {
		return append([]string{fleet.Gateway}, g.services...)
	}
	return g.services
}

// dot is the graph in the language of Graphviz.
func (g graph) dot() string {
	var b strings.Builder
	b.WriteString("digraph fleet {\n  rankdir=LR;\n  node [shape=box, style=rounded];\n")
	for _, s := range g.services {
		fmt.Fprintf(&b, "  %q;\n", s)
	}
	for _, s := range g.outside {
		fmt.Fprintf(&b, "  %q [style=dashed];\n", s)
	}
	for _, e := range g.edges {
		fmt.Fprintf(&b, "  %q -> %q [label=%q%s];\n", e.from, e.to, e.text("\n"), map[bool]string{true: ", style=dashed"}[e.dashed])
	}
	b.WriteString("}\n")
	return b.String()
}

func (e edge) text(between string) string {
	if e.label == "" || e.live == "" {
		return e.label + e.live
	}
	return e.label + between + e.live
}

// mermaid is the graph as Markdown viewers draw it. Names become numbers: Mermaid's own may not hold
// hyphens, dots or words of its language.
func (g graph) mermaid() string {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	id := make(map[string]string)
	for _, s := range g.services {
		id[s] = "n" + strconv.Itoa(len(id))
		fmt.Fprintf(&b, "  %s[\"%s\"]\n", id[s], s)
	}
	for _, s := range g.outside {
		id[s] = "n" + strconv.Itoa(len(id))
		fmt.Fprintf(&b, "  %s([\"%s\"])\n", id[s], s)
	}
	for _, e := range g.edges {
		if id[e.to] == "" {
			continue // `check` says that nobody has this name
		}
		arrow := "-->"
		if e.dashed {
			arrow = "-.->"
		}
		if text := e.text("<br>"); text != "" {
			arrow += "|\"" + text + "\"|"
		}
		fmt.Fprintf(&b, "  %s %s %s\n", id[e.from], arrow, id[e.to])
	}
	return b.String()
}
