package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
)

func (a *app) routes() *cobra.Command {
	return &cobra.Command{
		Use: "routes [SERVICE...]", Short: "Show what happens to calls: routes, splits, mirrors and rates, with what was counted",
		ValidArgsFunction: a.completeServices,
		RunE: a.asking(func(ctx context.Context, c *api.Client, args []string) error {
			st, err := c.Status(ctx)
			if err != nil {
				return err
			}
			lines, err := routeLines(a.styleOf(a.out), st, args)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(a.out, strings.Join(lines, "\n"))
			return err
		}),
	}
}

// routeLines is the table of the services that are named, or of all that take calls.
func routeLines(s style, st fleet.Status, names []string) ([]string, error) {
	t := &table{}
	t.add("SERVICE", "ROUTE", "MATCH", "GOES TO", "TIMEOUT", "REQUESTS", "ERRORS")
	for _, name := range names {
		if !slices.ContainsFunc(st.Services, func(v fleet.ServiceStatus) bool { return v.Name == name }) {
			return nil, fmt.Errorf("no service is called %s; `shoal status` lists them", name)
		}
	}
	for i := range st.Services {
		v := &st.Services[i]
		if len(v.Ports) == 0 || len(names) > 0 && !slices.Contains(names, v.Name) {
			continue
		}
		for _, r := range v.Routes {
			requests, errors := routeCounts(st.Edges, v.Name, r.Name)
			t.add(v.Name, r.Name, printable(r.Match.String()), printable(goesTo(v.Name, &r)), timeoutOf(r.Timeout), requests, errors)
		}
		requests, errors := routeCounts(st.Edges, v.Name, fleet.DefaultRoute)
		t.add(v.Name, fleet.DefaultRoute, otherwise(v.Routes), v.Name+rateText(v.Rate), "", requests, errors)
	}
	lines := t.lines()
	lines[0] = s.faint(lines[0])
	return lines, nil
}

func otherwise(routes []fleet.Route) string {
	if len(routes) == 0 {
		return "every call"
	}
	return "every other call"
}

func timeoutOf(d fleet.Duration) string {
	if d == 0 {
		return ""
	}
	return time.Duration(d).String()
}

func rateText(r *fleet.Rate) string {
	if r == nil {
		return ""
	}
	return fmt.Sprintf(" (all routes together: %s, burst %d)", r, r.Burst)
}

// goesTo says who answers the calls of a route, and who gets copies.
func goesTo(service string, r *fleet.Route) string {
	text := service
	if len(r.Split) > 0 {
		var all []string
		for _, to := range r.Split {
			part := to.Service
			if len(r.Split) > 1 {
				part += fmt.Sprintf(" %g%%", fleet.Part(r.Split, to.Weight))
			}
			all = append(all, part)
		}
		text = strings.Join(all, ", ")
	}
	switch {
	case r.Sticky.Header != "":
		text += " by header " + r.Sticky.Header
	case r.Sticky.Cookie != "":
		text += " by cookie " + r.Sticky.Cookie
	}
	if m := r.Mirror; m != nil {
		text += fmt.Sprintf("; %g%% copied to %s", m.Percent, m.Service)
	}
	return text
}

// routeCounts adds up the edges of one route, wherever it led.
func routeCounts(edges []fleet.EdgeStats, service, route string) (requests, errors string) {
	var n, bad uint64
	for _, e := range edges {
		if e.To == service && e.Route == route || e.Route == service+"/"+route {
			n, bad = n+e.Requests, bad+e.Errors
		}
	}
	return strconv.FormatUint(n, 10), strconv.FormatUint(bad, 10)
}
