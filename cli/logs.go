package cli

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
)

func (a *app) logs() *cobra.Command {
	var r api.LogsRequest
	var times bool
	cmd := &cobra.Command{
		Use: "logs [SERVICE...]", Short: "Print what services wrote, each line with its service",
		ValidArgsFunction: a.completeServices,
	}
	cmd.Flags().BoolVarP(&r.Follow, "follow", "f", false, "go on with lines as they are written, until Ctrl-C")
	cmd.Flags().IntVar(&r.Tail, "tail", 0, "only the last `N` lines of each instance (default: all that are kept)")
	cmd.Flags().BoolVar(&times, "time", false, "begin each line with its time")
	cmd.Flags().BoolVar(&r.Access, "access", false, "access records instead, as JSON: calls and deliveries from or to the services")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, args []string) error {
		if err := ask(ctx, c, args...); err != nil {
			return err
		}
		r.Services = args
		if r.Access {
			return c.Logs(ctx, r, func(l api.LogLine) { fmt.Fprintln(a.out, l.Text) })
		}
		p := a.newLogPrinter(len(args) == 1, times)
		return c.Logs(ctx, r, p.print)
	})
	return cmd
}

// logPrinter writes log lines behind their service's name, each service in a colour of its own.
type logPrinter struct {
	a     *app
	style style
	bare  bool // one service: its name on every line says nothing
	times bool

	mu    sync.Mutex
	width int
	seen  []string // services in the order of their first line; the place gives the colour
}

func (a *app) newLogPrinter(bare, times bool) *logPrinter {
	return &logPrinter{a: a, style: a.styleOf(a.out), bare: bare, times: times, width: 10}
}

// colours tell services apart; red is left for failures.
var colours = [...]string{"36", "33", "35", "34", "32", "96", "93", "95", "94", "92"}

func (p *logPrinter) print(l api.LogLine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b strings.Builder
	if p.times {
		b.WriteString(p.style.faint(l.Time.Local().Format("15:04:05.000")) + " ")
	}
	if !p.bare {
		b.WriteString(p.prefix(l.Service))
	}
	text := l.Text
	if !p.style.colours {
		text = ansi.Strip(text)
	}
	fmt.Fprintln(p.a.out, b.String()+text)
}

// prefix returns `orders     | `, widening for good when a longer name comes.
func (p *logPrinter) prefix(service string) string {
	p.width = max(p.width, len(service))
	at := -1
	for i, s := range p.seen {
		if s == service {
			at = i
		}
	}
	if at < 0 {
		at = len(p.seen)
		p.seen = append(p.seen, service)
	}
	return p.style.paint(colours[at%len(colours)], fmt.Sprintf("%-*s |", p.width, service)) + " "
}
