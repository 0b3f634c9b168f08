package proxy_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
	"google.golang.org/grpc/codes"
)

// failing is an instance that fails at once, in the words of every protocol.
var failing = reply{status: 500, code: codes.Internal}

// unavailable is one that says so.
var unavailable = reply{status: 503, code: codes.Unavailable}

// leastRequest has places be chosen without regard to how long they take, which a busy machine disturbs.
func leastRequest(inventory, _ *fleet.Service) {
	inventory.Manifest.Balance.Policy = fleet.LeastRequest
}

// An instance that fails fast gets few of the calls: a failure costs more than a slow success.
func TestFailuresDrawNoCalls(t *testing.T) {
	everywhere(t, func(s *stand) {
		s.behave("a", failing)
		s.behave("b", reply{after: 20 * time.Millisecond})
		for range 100 {
			s.unsafe()
		}
		if s.asked("a") > 20 {
			s.t.Errorf("%d of 100 calls went where they failed", s.asked("a"))
		}
	}, nil, "a", "b")
}

// What fails is ejected, and one real request finds out when it is well again.
func TestOutlierEjection(t *testing.T) {
	everywhere(t, func(s *stand) {
		s.behave("a", failing)
		eventually(s.t, "a is ejected", func() bool { r := s.unsafe(); return !r.ok() && s.decided(r, fleet.Ejecting) })
		before := s.asked("a")
		if r := s.unsafe(); !r.ok() || !s.decided(r, fleet.PassedEjected) || s.asked("a") != before {
			s.t.Errorf("%+v %+v", r, s.observed(r.id))
		}
		s.behave("a", reply{})
		var tried result
		eventually(s.t, "a is tried", func() bool {
			tried = s.unsafe()
			return s.asked("a") > before
		})
		if o := s.observed(tried.id); !tried.ok() || tried.instance != "a" || !o.Decisions.Has(fleet.Reopening) {
			s.t.Errorf("%+v %+v", tried, o)
		}
		eventually(s.t, "a is asked as before", func() bool { s.unsafe(); return s.asked("a") > before+10 })
	}, leastRequest, "a", "b")
}

// The trial that fails ejects again, for longer, and only one request pays for it.
func TestOutlierStaysOut(t *testing.T) {
	s := newStand(t, proxy.Config{}, "HTTP/1.1", leastRequest, "a", "b")
	s.behave("a", failing)
	eventually(t, "a is ejected", func() bool { r := s.unsafe(); return !r.ok() && s.decided(r, fleet.Ejecting) })
	before, ejected := s.asked("a"), time.Now()
	eventually(t, "a is tried", func() bool { s.unsafe(); return s.asked("a") > before })
	first := time.Since(ejected)
	if s.asked("a") != before+1 {
		t.Errorf("asked %d times", s.asked("a")-before)
	}
	before, ejected = s.asked("a"), time.Now()
	eventually(t, "a is tried again", func() bool { s.unsafe(); return s.asked("a") > before })
	if second := time.Since(ejected); second < first*3/2 || s.asked("a") != before+1 {
		t.Errorf("ejected for %v, then for %v; asked %d times", first, second, s.asked("a")-before)
	}
}

// Not everybody is ejected: where all fail, half of them stay.
func TestEjectionLeavesHalf(t *testing.T) {
	everywhere(t, func(s *stand) {
		for _, name := range []string{"a", "b", "c", "d"} {
			s.behave(name, failing)
		}
		for range 300 {
			s.unsafe()
		}
		before := map[string]int{}
		for _, name := range []string{"a", "b", "c", "d"} {
			before[name] = s.asked(name)
		}
		for range 100 {
			s.unsafe()
		}
		still := 0
		for name, n := range before {
			if s.asked(name) > n+1 { // more than a trial
				still++
			}
		}
		if still < 2 {
			s.t.Errorf("%d of 4 are asked", still)
		}
	}, leastRequest, "a", "b", "c", "d")
}

// Errors that are about the request say nothing about the instance, nor about the edge.
func TestWhoseFault(t *testing.T) {
	for _, c := range []struct {
		protocol string
		reply    reply
		edge     bool // counts as an error of the edge
		instance bool // and of the instance
	}{
		{"HTTP/1.1", reply{status: 404}, false, false},
		{"HTTP/1.1", reply{status: 429}, false, false},
		{"HTTP/1.1", reply{status: 501}, true, false},
		{"HTTP/2", reply{status: 500}, true, true},
		{"HTTP/2", reply{status: 504}, true, true},
		{"gRPC", reply{code: codes.NotFound}, false, false},
		{"gRPC", reply{code: codes.InvalidArgument}, false, false},
		{"gRPC", reply{code: codes.PermissionDenied}, false, false},
		{"gRPC", reply{code: codes.ResourceExhausted}, false, false},
		{"gRPC", reply{code: codes.Aborted}, false, false},
		{"gRPC", reply{code: codes.Unimplemented}, true, false},
		{"gRPC", reply{code: codes.Unknown}, true, true},
		{"gRPC", reply{code: codes.Internal}, true, true},
		{"gRPC", reply{code: codes.Unavailable}, true, true},
		{"gRPC", reply{code: codes.DataLoss}, true, true},
		{"gRPC", reply{code: codes.DeadlineExceeded}, true, true},
	} {
		t.Run(fmt.Sprint(c.protocol, c.reply.status, c.reply.code), func(t *testing.T) {
			s := newStand(t, proxy.Config{}, c.protocol, leastRequest, "a", "b")
			s.behave("a", c.reply)
			for range 60 {
				s.unsafe()
			}
			if few := s.asked("a") < 15; few != c.instance {
				t.Errorf("asked %d times of 60", s.asked("a"))
			}
			eventually(t, "all are counted", func() bool { return s.recorder.Edges()[0].Requests == 60 })
			if errors := s.recorder.Edges()[0].Errors; (errors > 0) != c.edge {
				t.Errorf("%d errors of the edge", errors)
			}
		})
	}
}

// What says that it is unavailable is asked again elsewhere, where that is safe.
func TestUnavailableElsewhere(t *testing.T) {
	everywhere(t, func(s *stand) {
		s.behave("a", unavailable)
		for range 60 {
			s.renew("a") // as new
			if r := s.safe(); !r.ok() {
				s.t.Fatalf("%+v %+v", r, s.observed(r.id))
			}
		}
		if s.asked("a") == 0 {
			s.t.Error("a was never asked")
		}
		unsafe := 0
		for range 60 {
			s.renew("a")
			if !s.unsafe().ok() {
				unsafe++
			}
		}
		if unsafe == 0 {
			s.t.Error("what is not safe to repeat was repeated")
		}
	}, leastRequest, "a", "b")
}

// `retry: false` sends nothing twice that somebody may have seen.
func TestRetryOff(t *testing.T) {
	everywhere(t, func(s *stand) {
		s.behave("a", unavailable)
		failed := 0
		for range 60 {
			s.renew("a")
			if !s.safe().ok() {
				failed++
			}
		}
		if failed == 0 {
			s.t.Error("none failed")
		}
	}, func(inventory, orders *fleet.Service) {
		leastRequest(inventory, orders)
		orders.Manifest.Calls[0].Attempts = 1
	}, "a", "b")
}

// An instance that says when it will be back is left alone, and its word goes to the caller.
func TestRetryAfter(t *testing.T) {
	everywhere(t, func(s *stand) {
		told := unavailable
		told.retryAfter = "60"
		s.behave("a", told)
		var r result
		eventually(s.t, "a says so", func() bool { r = s.safe(); return !r.ok() })
		if r.retryAfter != "60" || !s.decided(r, fleet.RetryAfter) || len(s.observed(r.id).Attempts) != 1 {
			s.t.Errorf("%+v %+v", r, s.observed(r.id))
		}
		for range 30 {
			if r := s.safe(); r.instance != "b" || !s.decided(r, fleet.PassedPaused) {
				s.t.Fatalf("%+v %+v", r, s.observed(r.id))
			}
		}
	}, nil, "a", "b")
}

// When everything fails, retries stay within their budget, and the record says so.
func TestRetryBudget(t *testing.T) {
	everywhere(t, func(s *stand) {
		spent := 0
		const calls = 400
		for range calls {
			for _, name := range []string{"a", "b", "c", "d"} {
				s.behave(name, unavailable)
			}
			if s.decided(s.safe(), fleet.BudgetSpent) {
				spent++
			}
		}
		all := s.asked("a") + s.asked("b") + s.asked("c") + s.asked("d")
		if most := calls + calls/5 + 100 + 300; all > most { // saved, and thirty seconds' worth at least
			s.t.Errorf("%d calls became %d", calls, all)
		}
		s.t.Logf("%d calls became %d, %d of them wanted more", calls, all, spent)
	}, nil, "a", "b", "c", "d")
}

// concurrency bounds what an instance works on; the others stand in line, and are refused when the line
// does not move.
func TestDeclaredConcurrency(t *testing.T) {
	everywhere(t, func(s *stand) {
		s.behave("a", reply{hang: true})
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { s.call(ctx, "GET", "") })
		}
		eventually(s.t, "three are at work", func() bool { return s.asked("a") == 3 })
		r := s.safe()
		o := s.observed(r.id)
		if r.ok() || r.reason != string(fleet.ReasonOverloaded) || r.retryAfter == "" || !o.Decisions.Has(fleet.InLine) || !o.Decisions.Has(fleet.PassedFull) || o.Queued == 0 {
			s.t.Errorf("%+v %+v", r, o)
		}
		if s.protocol == "gRPC" && r.code != codes.ResourceExhausted || s.protocol != "gRPC" && r.status != 503 {
			s.t.Errorf("%+v", r)
		}
		contains(s.t, o.Detail, "`concurrency: 3` in inventory/shoal.yaml:9")
		if s.asked("a") != 3 {
			s.t.Errorf("%d were let through", s.asked("a"))
		}
		s.behave("a", reply{})
		answers := make(chan result)
		go func() { answers <- s.safe() }()
		cancel() // the three leave, and the one in line has its turn
		if r := <-answers; !r.ok() {
			s.t.Errorf("%+v %+v", r, s.observed(r.id))
		}
		wg.Wait()
	}, func(inventory, _ *fleet.Service) {
		inventory.Manifest.Concurrency, inventory.Manifest.Lines = 3, map[string]int{"concurrency": 9}
	}, "a")
}

// Who stands in line is refused while there is time left to say so, and to ask elsewhere: after half of its deadline.
func TestLineLeavesTimeToAnswer(t *testing.T) {
	everywhere(t, func(s *stand) {
		s.behave("a", reply{hang: true})
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { s.call(ctx, "GET", "") })
		eventually(s.t, "one is at work", func() bool { return s.asked("a") == 1 })
		if r := s.unsafe(); r.reason != string(fleet.ReasonOverloaded) || s.asked("a") != 1 {
			s.t.Errorf("%+v %+v", r, s.observed(r.id))
		}
		cancel()
		wg.Wait()
	}, func(inventory, orders *fleet.Service) {
		inventory.Manifest.Concurrency = 1
		orders.Manifest.Calls[0].Timeout = fleet.Duration(900 * time.Millisecond) // less than the second for which a line waits
	}, "a")
}

// A burst over the limit is smoothed: all are answered. The line's limit is far from what a busy machine needs for
// that.
func TestLineSmoothsABurst(t *testing.T) {
	everywhereWith(t, proxy.Config{Line: time.Minute}, func(s *stand) {
		s.behave("a", reply{after: 2 * time.Millisecond})
		s.behave("b", reply{after: 2 * time.Millisecond})
		var wg sync.WaitGroup
		var mu sync.Mutex
		var bad []result
		for range 100 {
			wg.Go(func() {
				if r := s.safe(); !r.ok() {
					mu.Lock()
					defer mu.Unlock()
					bad = append(bad, r)
				}
			})
		}
		wg.Wait()
		if len(bad) > 0 {
			s.t.Errorf("%d of 100 failed: %+v", len(bad), s.observed(bad[0].id))
		}
	}, func(inventory, _ *fleet.Service) { inventory.Manifest.Concurrency = 8 }, "a", "b")
}

// The same key goes to the same instance, in every protocol, and all instances get some.
func TestHashByHeader(t *testing.T) {
	everywhere(t, func(s *stand) {
		owner := map[string]string{}
		used := map[string]bool{}
		for range 3 {
			for k := range 20 {
				key := fmt.Sprint("key-", k)
				r := s.call(context.Background(), "POST", key)
				if !r.ok() || owner[key] != "" && owner[key] != r.instance {
					s.t.Fatalf("%s went to %s, before to %s", key, r.instance, owner[key])
				}
				owner[key], used[r.instance] = r.instance, true
			}
		}
		if len(used) != 3 {
			s.t.Errorf("20 keys went to %v", used)
		}
	}, func(inventory, _ *fleet.Service) {
		inventory.Manifest.Balance = fleet.Balance{Policy: fleet.Hash, Header: "idempotency-key"}
	}, "a", "b", "c")
}

func TestRoundRobinAndLeastRequest(t *testing.T) {
	for _, policy := range []fleet.BalancePolicy{fleet.RoundRobin, fleet.LeastRequest} {
		t.Run(string(policy), func(t *testing.T) {
			everywhere(t, func(s *stand) {
				for range 90 {
					s.unsafe()
				}
				for _, name := range []string{"a", "b", "c"} {
					if n := s.asked(name); n < 10 {
						s.t.Errorf("%s got %d of 90", name, n)
					}
				}
			}, func(inventory, _ *fleet.Service) { inventory.Manifest.Balance.Policy = policy }, "a", "b", "c")
		})
	}
}
