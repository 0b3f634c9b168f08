package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/charmbracelet/x/ansi"
	"golang.org/x/term"

	"github.com/shoalrun/shoal/fleet"
)

// redrawInterval is how often the live table is drawn while something changes. The size is read each
// time, so a resize needs no signal.
const redrawInterval = 100 * time.Millisecond

// live is the table that `up` shows in a terminal: services below, what is worth keeping above,
// where it scrolls away like any output. It is safe for concurrent use.
type live struct {
	out   io.Writer
	style style
	size  func() (columns, rows int)

	mu     sync.Mutex
	status fleet.Status
	steps  map[string]fleet.Progress // latest per service
	above  []string                  // lines that wait to be printed above the table
	foot   string
	drawn  int // rows that the table takes on the screen now
	width  int // columns of the screen when it was drawn
	dirty  bool

	quit chan struct{}
	done chan struct{}
}

func (a *app) newLive(out *os.File) *live {
	l := &live{
		out: out, style: a.styleOf(out), steps: make(map[string]fleet.Progress),
		size: func() (int, int) { return terminalSize(out) },
		foot: "Ctrl-C stops everything", dirty: true,
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	go l.run()
	return l
}

func terminalSize(f *os.File) (columns, rows int) {
	columns, rows, err := term.GetSize(int(f.Fd()))
	if err != nil || columns <= 0 || rows <= 0 {
		return 80, 24
	}
	return columns, rows
}

func (l *live) run() {
	defer close(l.done)
	tick := time.NewTicker(redrawInterval)
	defer tick.Stop()
	for {
		select {
		case <-l.quit:
			l.draw()
			return
		case <-tick.C:
			l.draw()
		}
	}
}

// close draws a last time and leaves the cursor beneath the table.
func (l *live) close() {
	close(l.quit)
	<-l.done
}

// show takes a new state of the fleet.
func (l *live) show(st fleet.Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status, l.dirty = st, true
}

// say puts a line above the table.
func (l *live) say(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.above, l.dirty = append(l.above, text), true
}

// end changes the line beneath the table.
func (l *live) end(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.foot, l.dirty = text, true
}

// progress takes a step. Failures and warnings are kept above; what passes is seen in the table.
func (l *live) progress(step fleet.Progress) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dirty = true
	if step.Service != "" {
		l.steps[step.Service] = step
	}
	switch step.Phase {
	case fleet.PhaseFailed, fleet.PhaseWarn:
		l.above = append(l.above, progressLines(l.style, step)...)
	case fleet.PhaseResolve:
		if step.Service == "" {
			l.above = append(l.above, progressLines(l.style, step)...)
		}
	}
}

// draw writes one frame in a single write: up to the table's first row, what goes above, the table.
func (l *live) draw() {
	l.mu.Lock()
	defer l.mu.Unlock()
	columns, rows := l.size()
	resized := l.drawn > 0 && columns != l.width
	if !l.dirty && !resized {
		return
	}
	var b strings.Builder
	b.WriteString("\x1b[?25l") // no cursor while it moves
	switch {
	case resized:
		// A terminal that became narrower has wrapped the rows that were there: only the whole
		// screen is known to hold them all.
		b.WriteString("\x1b[H\x1b[2J")
	case l.drawn > 0:
		fmt.Fprintf(&b, "\x1b[%dA\r\x1b[J", l.drawn)
	}
	for _, line := range l.above {
		b.WriteString(line + "\r\n")
	}
	table := l.rowsLocked(columns, rows)
	for _, line := range table {
		b.WriteString(line + "\r\n")
	}
	b.WriteString("\x1b[?25h")
	io.WriteString(l.out, b.String())
	l.above, l.drawn, l.width, l.dirty = nil, len(table), columns, false
}

// rowsLocked is the table, cut to the screen: one row is the cursor's, below.
func (l *live) rowsLocked(columns, rows int) []string {
	all := l.tableLocked()
	foot := []string{"", l.style.faint(l.foot)}
	head := append([]string{l.titleLocked(), ""}, all[0])
	room := max(rows-1-len(head)-len(foot), 0)
	body := all[1:]
	if len(body) > room {
		hidden := len(body) - max(room-1, 0)
		body = append(body[:len(body)-hidden:len(body)-hidden], l.style.faint(fmt.Sprintf("… and %d more; `shoal status` shows all", hidden)))
	}
	lines := append(append(head, body...), foot...)
	lines = lines[:min(len(lines), max(rows-1, 1))]
	for i := range lines {
		lines[i] = ansi.Truncate(lines[i], columns, "…")
	}
	return lines
}

// titleLocked counts what is ready.
func (l *live) titleLocked() string {
	st := &l.status
	if st.Fleet == "" {
		return l.style.bold("shoal") + "  starting"
	}
	up := 0
	for _, s := range st.Services {
		if s.State == fleet.ServiceReady || s.State == fleet.ServiceExternal {
			up++
		}
	}
	title := fmt.Sprintf("%s  %d of %s ready", l.style.bold(st.Fleet), up, plural(len(st.Services), "service"))
	if st.Gateway != "" {
		title += "  gateway http://" + st.Gateway
	}
	return title
}

// tableLocked is a row per service, those first that are not ready: they are what one looks for
// where not all fit. What happens, or the URL, comes last, where a narrow screen cuts.
func (l *live) tableLocked() []string {
	t := &table{}
	t.add("SERVICE", "STATE", "ORIGIN", "RELEASE", "")
	for _, ready := range []bool{false, true} {
		for i := range l.status.Services {
			v := &l.status.Services[i]
			if (v.State == fleet.ServiceReady) == ready {
				t.add(v.Name, l.style.state(v.State)+suffix(v), string(v.Origin), release(v), l.lastLocked(v))
			}
		}
	}
	lines := t.lines()
	lines[0] = l.style.faint(lines[0])
	return lines
}

// lastLocked is the last column: why it failed, else what goes on, else where it answers.
func (l *live) lastLocked(v *fleet.ServiceStatus) string {
	switch v.State {
	case fleet.ServiceFailed, fleet.ServiceDegraded:
		return l.style.red(firstLine(failureOf(v)))
	case fleet.ServiceReady, fleet.ServiceExternal, fleet.ServiceStopped:
		if v.Failure != "" { // it serves on as it was: its new release could not
			return l.style.red(firstLine(v.Failure))
		}
		return v.URL
	}
	step := l.steps[v.Name]
	if step.Text == "" {
		return l.style.faint(string(step.Phase))
	}
	return l.style.faint(string(step.Phase) + ": " + firstLine(step.Text))
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return printable(line)
}
