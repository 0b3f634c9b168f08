package deploy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

func TestPlan(t *testing.T) {
	tests := []struct{ name, services, groups string }{
		{"callees first", "web calls=orders | orders calls=payments,inventory | payments | inventory",
			"[[inventory] [payments] [orders] [web]]"},
		{"a circle is one group", "a calls=b | b calls=c | c calls=a,d | d | e calls=a", "[[d] [a b c] [e]]"},
		{"itself and strangers do not count", "a calls=a,nobody", "[[a]]"},
		{"nothing", "", "[]"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			plan := NewPlan(manifests(test.services))
			if got := fmt.Sprint(plan.Groups); got != test.groups {
				t.Errorf("groups are %s, want %s", got, test.groups)
			}
		})
	}
}

func TestPlanWaits(t *testing.T) {
	plan := NewPlan(manifests("a calls=b | b calls=a,c | c | d calls=a"))
	if got := fmt.Sprint(plan.Callees("a"), plan.Callees("b"), plan.Callees("d")); got != "[c] [c] [a]" {
		t.Error("all of a group wait for what any of it calls; got", got)
	}
	if got := fmt.Sprint(plan.Callers("a"), plan.Callers("c")); got != "[d] [a b]" {
		t.Error("callers are", got)
	}
}

func manifests(text string) []fleet.Manifest {
	var all []fleet.Manifest
	for _, t := range parseTargets(strings.Fields(text)) {
		all = append(all, t.Manifest)
	}
	return all
}
