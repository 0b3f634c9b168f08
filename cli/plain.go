package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/shoalrun/shoal/fleet"
)

// plain writes progress as lines: what `up` shows where it is piped, and what other verbs show. It
// is safe for concurrent use.
type plain struct {
	out   io.Writer
	style style

	mu   sync.Mutex
	last map[string]string // per service: the line written last; the same twice says nothing
}

func (a *app) newPlain(out io.Writer) *plain {
	return &plain{out: out, style: a.styleOf(out), last: make(map[string]string)}
}

// The width of the columns of service and phase.
const (
	serviceWidth = 12
	phaseWidth   = 8
)

func (p *plain) progress(step fleet.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, line := range progressLines(p.style, step) {
		if step.Phase != fleet.PhaseBuild && p.last[step.Service] == line {
			continue
		}
		p.last[step.Service] = line
		fmt.Fprintln(p.out, line)
	}
}

// progressLines is one step as lines: `orders       build    go build ./...`. Further lines of its
// text stand beneath the first.
func progressLines(s style, step fleet.Progress) []string {
	service := step.Service
	if service == "" {
		service = "fleet"
	}
	head := s.bold(fmt.Sprintf("%-*s", serviceWidth, service)) + " " + paintPhase(s, step.Phase)
	var lines []string
	for text := range strings.Lines(strings.TrimRight(step.Text, "\n")) {
		if len(lines) > 0 {
			head = strings.Repeat(" ", serviceWidth+1+phaseWidth)
		}
		lines = append(lines, strings.TrimRight(head+" "+printable(text), " "))
	}
	if len(lines) == 0 {
		return []string{strings.TrimRight(head, " ")}
	}
	return lines
}

func paintPhase(s style, phase fleet.Phase) string {
	text := fmt.Sprintf("%-*s", phaseWidth, phase)
	switch phase {
	case fleet.PhaseFailed:
		return s.red(text)
	case fleet.PhaseWarn:
		return s.yellow(text)
	case fleet.PhaseReady, fleet.PhaseDone:
		return s.green(text)
	}
	return text
}
