package proxy_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
)

// A new instance gets a tenth of its share of the calls at first, and more from second to second, until it has all of
// it after ten, whatever the policy and however many instances there are.
func TestSlowStart(t *testing.T) {
	const choices = 40_000
	for _, policy := range []fleet.BalancePolicy{fleet.PeakEWMA, fleet.LeastRequest, fleet.RoundRobin} {
		for _, names := range [][]string{{"old-1", "new"}, {"old-1", "old-2", "old-3", "new"}} {
			t.Run(fmt.Sprintf("%s of %d", policy, len(names)), func(t *testing.T) {
				w := newWorld(t, proxy.Config{}, inventory(instances(names...), func(s *fleet.Service) { s.Manifest.Balance.Policy = policy }), orders())
				for _, name := range names {
					w.p.Attach(name, dialTo("127.0.0.1:1")) // nobody calls it
				}
				choose := proxy.Chooser(w.p, "orders", "inventory", "new")
				for after, part := range map[time.Duration]float64{0: 0.1, time.Second: 0.1, 3 * time.Second: 0.3, 7 * time.Second: 0.7, 10 * time.Second: 1, time.Minute: 1} {
					got := 0
					for range choices {
						if choose(after) == "new" {
							got++
						}
					}
					share := part / float64(len(names))
					if off := float64(got)/choices - share; math.Abs(off) > 6*math.Sqrt(share/choices) { // six standard deviations
						t.Errorf("after %v it gets %.4f of the calls, want %.4f", after, float64(got)/choices, share)
					}
				}
			})
		}
	}
}
