package cli

import (
	"strings"

	"github.com/shoalrun/shoal/fleet"
)

// decisions says in a line each what the data path decided about an exchange on its way.
func decisions(o *fleet.Observation) string {
	var b strings.Builder
	for _, d := range []struct {
		decision fleet.Decisions
		words    string
	}{
		{fleet.PassedEjected, "an instance was passed over because it is ejected: it failed lately"},
		{fleet.PassedPaused, "an instance was passed over because it asked for a pause (Retry-After)"},
		{fleet.PassedUnhealthy, "an instance was passed over because it does not answer its health checks"},
		{fleet.PassedFull, "an instance was passed over because it works on as much as its limit allows"},
		{fleet.AllEjected, "no instance is well, so that one that is not was asked"},
		{fleet.InLine, "it stood in line for " + latency(o.Queued)},
		{fleet.Reopening, "it was the one request that finds out whether an ejected instance is well again"},
		{fleet.Hedged, "it was sent to a second instance, because the first took long"},
		{fleet.Ejecting, "its failure ejected the instance"},
		{fleet.RetryAfter, "the instance said when to come again, so that its answer went to the caller"},
		{fleet.BudgetSpent, "it was not sent again: the retry budget of " + o.Callee + " is spent"},
	} {
		if o.Decisions.Has(d.decision) {
			b.WriteString("  decision: " + d.words + "\n")
		}
	}
	return b.String()
}
