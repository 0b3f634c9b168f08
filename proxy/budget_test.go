package proxy

import (
	mrand "math/rand/v2"
	"testing"
	"time"
)

// Whatever comes when, retries stay within a fifth of the requests, ten a second, and what was saved.
func TestBudgetIsARatio(t *testing.T) {
	for seed := range uint64(50) {
		rnd := mrand.New(mrand.NewPCG(seed, 1))
		b, now, begun, taken := newBudget(0), int64(0), uint32(0), 0
		for range 2000 {
			now += rnd.Int64N(int64(50 * time.Millisecond))
			begun += uint32(rnd.IntN(20))
			for range rnd.IntN(10) {
				if b.take(now, begun) {
					taken++
				}
			}
		}
		most := budgetRatio*float64(begun) + budgetMinimum*(time.Duration(now).Seconds()+budgetWindow.Seconds())
		if float64(taken) > most+1 {
			t.Errorf("seed %d: %d retries of %d requests in %v; at most %.0f", seed, taken, begun, time.Duration(now), most)
		}
	}
}

func TestBudgetOfABusyCallee(t *testing.T) {
	b, begun := newBudget(0), uint32(1<<32-500) // it wraps around
	b.begun = begun
	taken := 0
	for second := range int64(60) {
		begun += 1000
		for range 1000 { // everything fails
			if b.take(second*int64(time.Second), begun) {
				taken++
			}
		}
	}
	if taken < 200*60 || taken > 210*60+100 {
		t.Errorf("%d retries of 60,000 requests", taken)
	}
}

// What nobody used for long is forgotten: an hour without failures is no licence for a flood.
func TestBudgetForgets(t *testing.T) {
	b := newBudget(0)
	taken := 0
	for b.take(int64(time.Hour), 3_600_000) {
		taken++
	}
	if most := budgetRatio*10_000 + 100; float64(taken) > most+1 || taken < 2000 {
		t.Errorf("%d retries at once", taken)
	}
}
