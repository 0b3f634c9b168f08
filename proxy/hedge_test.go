package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
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
	everywhere(t, testHedging, hedged(20*time.Millisecond), "a", "b")
}

func testHedging(s *stand) {
	s.behave("a", reply{hang: true})
	hedges := 0
	eventually(s.t, "three hedges", func() bool {
		reached := s.asked("a")
		r := s.safe()
		o := s.observed(r.id)
		if !r.ok() || r.instance != "b" {
			s.t.Fatalf("%+v %+v", r, o)
		}
		if o.Attempts[0].Instance == "b" {
			return false // which may be hedged, too, where the machine is slow
		}
		if len(o.Attempts) != 2 || !o.Decisions.Has(fleet.Hedged) || o.Attempts[0].Outcome != "cancelled" || o.Attempts[1].Instance != "b" {
			s.t.Fatalf("%+v", o)
		}
		if s.asked("a") == reached {
			return false // cancelled on its way, where the machine is slow: the application has nothing to notice
		}
		hedges++
		return hedges == 3
	})
	eventually(s.t, "the other attempts are cancelled", func() bool { return s.cancelled("a") >= 3 })
}

// A request whose end comes late is hedged when it is there.
func TestHedgingAfterALateEnd(t *testing.T) {
	s := newHedgedStand(t, "HTTP/2", way{"b", "HTTP/2"}, way{"c", "HTTP/2"})
	s.behave("a", reply{hang: true})
	n := 0
	eventually(t, "a hedge", func() bool {
		n++
		id := fmt.Sprint("late", n)
		body, more := io.Pipe()
		r := must(http.NewRequest("PUT", "http://"+s.addr+"/", body))
		r.Header.Set("X-Request-Id", id)
		go func() {
			io.WriteString(more, "a beginning")
			time.Sleep(30 * time.Millisecond) // the hedge is due
			more.Close()
		}()
		res, err := s.http.Do(r)
		if err != nil || res.Header.Get("Instance") != "b" {
			t.Fatalf("%v %v", res, err)
		}
		res.Body.Close()
		return len(s.observed(id).Attempts) == 2
	})
}

// Hedging holds whatever way each of the two instances is reached by: on this node or another, in the caller's
// protocol or another.
func TestHedgingByEveryWay(t *testing.T) {
	ways := []way{{"a", "HTTP/1.1"}, {"a", "HTTP/2"}, {"b", "HTTP/1.1"}, {"c", "HTTP/2"}}
	for _, caller := range []string{"HTTP/1.1", "HTTP/2"} {
		for _, slow := range ways {
			for _, quick := range ways {
				t.Run(fmt.Sprintf("%s to %s and %s", caller, slow, quick), func(t *testing.T) {
					s := newHedgedStand(t, caller, slow, quick)
					testHedging(s)
					testHedgingUnderLoad(s)
				})
			}
		}
	}
	for _, slow := range []string{"a", "b"} {
		for _, quick := range []string{"a", "b", "c"} {
			t.Run(fmt.Sprintf("gRPC to nodes %s and %s", slow, quick), func(t *testing.T) {
				testHedging(newHedgedStand(t, "gRPC", way{slow, "gRPC"}, way{quick, "gRPC"}))
			})
		}
	}
}

// way is where an instance runs, and what its application speaks.
type way struct{ node, protocol string }

func (w way) String() string { return w.protocol + " on " + w.node }

// newHedgedStand has orders on node a, and instances a and b of inventory.
func newHedgedStand(t *testing.T, caller string, a, b way) *stand {
	stock, orders := inventory(at("a@"+a.node, "b@"+b.node)), orders(at("orders-1@a"))
	hedged(6*time.Millisecond)(stock, orders)
	if caller == "gRPC" {
		stock.Manifest.Ports[0].Protocol = fleet.GRPC
	}
	m := newMesh(t, "a", "b", "c")
	m.install(stock, orders)
	s := newStandIn(m.nodes["a"].world, caller)
	s.startAt(m.nodes[a.node].world, "a", a.protocol)
	s.startAt(m.nodes[b.node].world, "b", b.protocol)
	eventually(t, "both are asked", func() bool { // which finds out what each speaks
		s.safe()
		return s.asked("a") > 0 && s.asked("b") > 0
	})
	return s
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
	everywhere(t, func(s *stand) { testHedgingUnderLoad(s) }, hedged(5*time.Millisecond), "a", "b")
}

func testHedgingUnderLoad(s *stand) {
	s.behave("a", reply{after: 6 * time.Millisecond})
	s.behave("b", reply{after: 6 * time.Millisecond})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 12 {
				if r := s.safe(); !r.ok() {
					s.t.Errorf("%+v %+v", r, s.observed(r.id))
				}
			}
		})
	}
	wg.Wait()
}

// Hedges stay within the callee's budget.
func TestHedgesAreBudgeted(t *testing.T) {
	s := newStand(t, proxy.Config{}, "HTTP/1.1", hedged(time.Millisecond), "a", "b")
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
