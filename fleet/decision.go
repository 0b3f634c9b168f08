package fleet

import (
	"encoding/json"
	"fmt"
)

// Decisions are a set of what the data path decided about one exchange. Their JSON form is a list of names.
type Decisions uint16

// The decisions. Their names are stable: tools match on them.
const (
	PassedEjected   Decisions = 1 << iota // an ejected instance was not asked
	PassedPaused                          // an instance was not asked because it said Retry-After
	PassedFull                            // an instance was not asked because it works on as much as its limit allows
	PassedUnhealthy                       // an instance was not asked because it does not answer its health checks
	AllEjected                            // every instance is ejected, paused or unhealthy, so that one was asked all the same
	Reopening                             // this exchange found out whether an ejected instance is well again
	Ejecting                              // its failure got an instance ejected
	InLine                                // it stood in line for an instance
	Hedged                                // it was sent to a second instance, too
	BudgetSpent                           // it was not repeated, or not hedged, because the callee's retry budget was spent
	RetryAfter                            // the callee said Retry-After: the answer went to the caller, unrepeated
)

// decisionNames are in the order of the constants.
func decisionNames() []string {
	return []string{"passed-ejected", "passed-paused", "passed-full", "passed-unhealthy", "all-ejected", "reopening",
		"ejecting", "in-line", "hedged", "retry-budget-spent", "retry-after"}
}

// Has reports whether d is among the decisions.
func (s Decisions) Has(d Decisions) bool { return s&d != 0 }

// Names are the names of the decisions, as in their JSON form.
func (s Decisions) Names() []string {
	var names []string
	for i, name := range decisionNames() {
		if s.Has(1 << i) {
			names = append(names, name)
		}
	}
	return names
}

// MarshalJSON writes the names.
func (s Decisions) MarshalJSON() ([]byte, error) { return json.Marshal(s.Names()) }

// UnmarshalJSON reads names. Those that it does not know, of a newer process, are left out.
func (s *Decisions) UnmarshalJSON(b []byte) error {
	var names []string
	if err := json.Unmarshal(b, &names); err != nil {
		return fmt.Errorf("decisions: %w", err)
	}
	*s = 0
	for _, name := range names {
		for i, known := range decisionNames() {
			if name == known {
				*s |= 1 << i
			}
		}
	}
	return nil
}
