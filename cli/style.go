package cli

import (
	"io"
	"os"
	"strings"

	"github.com/charmbracelet/x/ansi"
	"golang.org/x/term"

	"github.com/shoalrun/shoal/fleet"
)

// style colours text, or leaves it as it is.
type style struct{ colours bool }

// styleOf returns the style for a writer: colours only on a terminal, and never against NO_COLOR
// (no-color.org: any value that is not empty).
func (a *app) styleOf(w io.Writer) style {
	return style{isTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// isTerminal reports whether what is read or written is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (s style) paint(code, text string) string {
	if !s.colours || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

func (s style) red(text string) string    { return s.paint("31", text) }
func (s style) green(text string) string  { return s.paint("32", text) }
func (s style) yellow(text string) string { return s.paint("33", text) }
func (s style) bold(text string) string   { return s.paint("1", text) }
func (s style) faint(text string) string  { return s.paint("2", text) }

// state colours a service's state by what it asks of whoever looks.
func (s style) state(state fleet.ServiceState) string {
	switch state {
	case fleet.ServiceReady, fleet.ServiceExternal:
		return s.green(string(state))
	case fleet.ServiceFailed:
		return s.red(string(state))
	case fleet.ServiceStopped:
		return s.faint(string(state))
	}
	return s.yellow(string(state))
}

// table lines columns up. The first row is its head. An empty column is left out.
type table struct{ rows [][]string }

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// columnGap stands between two columns.
const columnGap = "  "

// lines returns the table's rows, each without spaces at its end.
func (t *table) lines() []string {
	widths := t.widths()
	lines := make([]string, 0, len(t.rows))
	for _, row := range t.rows {
		var b strings.Builder
		for i, cell := range row {
			if widths[i] == 0 {
				continue
			}
			b.WriteString(cell)
			b.WriteString(strings.Repeat(" ", widths[i]-ansi.StringWidth(cell)))
			b.WriteString(columnGap)
		}
		lines = append(lines, strings.TrimRight(b.String(), " "))
	}
	return lines
}

// widths returns each column's width in cells of a terminal; 0 where only the head has text.
func (t *table) widths() []int {
	if len(t.rows) == 0 {
		return nil
	}
	widths := make([]int, len(t.rows[0]))
	for _, row := range t.rows[1:] {
		for i, cell := range row {
			widths[i] = max(widths[i], ansi.StringWidth(cell))
		}
	}
	for i, head := range t.rows[0] {
		if widths[i] > 0 {
			widths[i] = max(widths[i], ansi.StringWidth(head))
		}
	}
	return widths
}

// printable replaces control characters: a service's output must not move the operator's cursor.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, ansi.Strip(text))
}
