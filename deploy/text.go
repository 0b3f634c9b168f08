package deploy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// How many lines of output are told with a failure, and kept for status.
const (
	shownLines = 10
	keptLines  = 20
)

// label names what of the service an instance is, before a failure line.
func (i *instance) label() string {
	switch {
	case i.assignment.Once:
		return "before: "
	case i.worker() != "":
		return "worker " + i.worker() + ": "
	}
	return ""
}

// readyText says what became ready, and how long it took where this engine started it.
func (i *instance) readyText(now time.Time) string {
	switch {
	case i.started.IsZero():
		return i.id + " is ready"
	case i.served:
		return i.id + " is ready again"
	case i.worker() != "":
		return "worker " + i.worker() + " ready in " + span(now.Sub(i.started))
	}
	return "ready in " + span(now.Sub(i.started))
}

// span writes a duration as people read it.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	}
	return fmt.Sprintf("%d s", int(d.Seconds()))
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// short is the part of a release's id that instance ids show.
func short(release string) string { return release[:min(6, len(release))] }

// lines splits output into its lines that say something; there is at least one.
func lines(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		if line = strings.TrimRight(line, "\r\n\t "); line != "" {
			all = append(all, line)
		}
	}
	if len(all) == 0 {
		return []string{"it printed nothing"}
	}
	return all
}

func last(all []string, n int) []string {
	return slices.Clone(all[max(0, len(all)-n):])
}
