package proxy_test

import (
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

func hedged(after time.Duration) func(inventory, orders *fleet.Service) {
	return func(inventory, orders *fleet.Service) {
		leastRequest(inventory, orders)
		orders.Manifest.Calls[0].Hedge = fleet.Duration(after)
	}
}

// A request that hangs at one instance is sent to another one; the first answer counts, once, and the other
// attempt is cancelled.
func TestHedging(t *testing.T) {
	everywhere(t, func(s *stand) {
		s.behave("a", reply{hang: true})
		for s.cancelled("a") < 3 {
			r := s.safe()
			o := s.observed(r.id)
			if !r.ok() || r.instance != "b" {
				s.t.Fatalf("%+v %+v", r, o)
			}
			if len(o.Attempts) != 2 {
				continue // b was asked first
			}
			if !o.Decisions.Has(fleet.Hedged) || o.Attempts[0].Outcome != "cancelled" || o.Attempts[0].Instance != "a" || o.Attempts[1].Instance != "b" {
				s.t.Fatalf("%+v", o)
			}
			eventually(s.t, "the other attempt is cancelled", func() bool { return s.cancelled("a") > 0 })
		}
	}, hedged(20*time.Millisecond), "a", "b")
}

// What may not be repeated is not hedged, and neither is what is answered in time.
func TestNotHedged(t *testing.T) {
	everywhere(t, func(s *stand) {
		s.behave("a", reply{after: 60 * time.Millisecond})
		s.behave("b", reply{after: 60 * time.Millisecond})
		for range 10 {
			if r := s.unsafe(); !r.ok() || s.decided(r, fleet.Hedged) {
				s.t.Errorf("%+v %+v", r, s.observed(r.id))
			}
		}
		if n := s.asked("a") + s.asked("b"); n != 10 {
			s.t.Errorf("asked %d times", n)
		}
	}, hedged(20*time.Millisecond), "a", "b")
}

// Whichever answers first counts; one that fails leaves the other.
func TestHedgingUnderLoad(t *testing.T) {
	everywhere(t, func(s *stand) {
		s.behave("a", reply{after: 6 * time.Millisecond})
		s.behave("b", reply{after: 6 * time.Millisecond})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for range 50 {
					if r := s.safe(); !r.ok() {
						s.t.Errorf("%+v %+v", r, s.observed(r.id))
					}
				}
			})
		}
		wg.Wait()
	}, hedged(5*time.Millisecond), "a", "b")
}

// Hedges stay within the callee's budget.
func TestHedgesAreBudgeted(t *testing.T) {
	s := newStand(t, "HTTP/1.1", hedged(time.Millisecond), "a", "b")
	s.behave("a", reply{after: 4 * time.Millisecond})
	s.behave("b", reply{after: 4 * time.Millisecond})
	const calls = 600
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range calls / 8 {
				s.safe()
			}
		})
	}
	began := time.Now()
	wg.Wait()
	most := calls + calls/5 + 100 + int(10*time.Since(began).Seconds()) + 11
	if n := s.asked("a") + s.asked("b"); n > most {
		t.Errorf("%d calls became %d, at most %d", calls, n, most)
	}
}
