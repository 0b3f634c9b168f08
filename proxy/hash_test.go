package proxy

import (
	"fmt"
	"math"
	"testing"

	"github.com/shoalrun/shoal/fleet"
)

// fieldOf makes an exchange that chooses between n idle places.
func fieldOf(n int) (*exchange, []*place) {
	p := &Proxy{}
	var places []*place
	for i := range n {
		name := fmt.Sprintf("inventory-%d", i+1)
		places = append(places, &place{
			endpoint: &endpoint{p: p, instance: name}, seed: hash(hashSeed, name),
			address: "127.0.0.1:1", limit: noLimit,
		})
	}
	x := &exchange{p: p, route: &route{places: places, policy: fleet.Hash, load: &load{}}}
	return x, places
}

func (x *exchange) owner(key int) *place {
	x.key = hash(hashSeed, fmt.Sprint("customer-", key))
	f := x.survey(1)
	return x.keyed(&f, 1)
}

const keys = 20_000

// A place that goes leaves its keys to all others, evenly, and no other key moves; and back again.
func TestHashIsStable(t *testing.T) {
	for _, n := range []int{2, 3, 10, 50} {
		x, places := fieldOf(n)
		before := make([]*place, keys)
		for k := range before {
			before[k] = x.owner(k)
		}
		gone := places[n/2]
		x.route.places = append(append([]*place(nil), places[:n/2]...), places[n/2+1:]...)
		heirs := map[*place]int{}
		for k, owner := range before {
			now := x.owner(k)
			if owner != gone && now != owner {
				t.Fatalf("%d places: key %d moved from %s to %s, though neither went", n, k, owner.instance, now.instance)
			}
			if owner == gone {
				heirs[now]++
			}
		}
		if len(heirs) != n-1 {
			t.Errorf("%d places: the keys of one went to %d others", n, len(heirs))
		}
		x.route.places = places
		for k, owner := range before {
			if x.owner(k) != owner {
				t.Fatalf("%d places: key %d did not come back", n, k)
			}
		}
	}
}

// Without load, keys spread as chance would spread them: within five standard deviations.
func TestHashIsEven(t *testing.T) {
	for _, n := range []int{2, 3, 10, 50} {
		x, places := fieldOf(n)
		count := map[*place]int{}
		for k := range keys {
			count[x.owner(k)]++
		}
		mean := float64(keys) / float64(n)
		for _, pl := range places {
			if d := math.Abs(float64(count[pl]) - mean); d > 5*math.Sqrt(mean) {
				t.Errorf("%d places: %s has %d keys, the mean is %.0f", n, pl.instance, count[pl], mean)
			}
		}
	}
}

// Whatever the keys, no place gets more work than its bound; one hot key spreads.
func TestHashLoadIsBounded(t *testing.T) {
	for _, n := range []int{2, 5, 20} {
		for _, distinct := range []int{1, 3, 1000} {
			x, places := fieldOf(n)
			for i := range 4000 {
				x.owner(i % distinct).busy.enter()
			}
			most := math.Ceil(boundedLoad * 4001 / float64(n))
			for _, pl := range places {
				if float64(pl.busy.working()) > most {
					t.Errorf("%d places, %d keys: %s works on %d, bound %.0f", n, distinct, pl.instance, pl.busy.working(), most)
				}
			}
		}
	}
}

func TestChoosingAllocatesNothing(t *testing.T) {
	for _, policy := range []fleet.BalancePolicy{"", fleet.LeastRequest, fleet.RoundRobin, fleet.Hash} {
		x, _ := fieldOf(5)
		x.route.policy, x.key = policy, 77
		if n := testing.AllocsPerRun(1000, func() { x.choose() }); n != 0 {
			t.Errorf("%s: %v allocations", policy, n)
		}
	}
}

func BenchmarkChoose(b *testing.B) {
	for _, policy := range []fleet.BalancePolicy{fleet.PeakEWMA, fleet.LeastRequest, fleet.RoundRobin, fleet.Hash} {
		for _, n := range []int{1, 3, 20} {
			b.Run(fmt.Sprintf("%s/%d", policy, n), func(b *testing.B) {
				x, _ := fieldOf(n)
				x.route.policy, x.key = policy, 77
				b.ReportAllocs()
				for b.Loop() {
					x.choose()
				}
			})
		}
	}
}
