package proxy_test

import (
	"context"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func timeout(d time.Duration) func(_, orders *fleet.Service) {
	return func(_, orders *fleet.Service) { orders.Manifest.Calls[0].Timeout = fleet.Duration(d) }
}

// The application is told how long its caller waits, in every protocol.
func TestDeadlinesAreTold(t *testing.T) {
	everywhere(t, func(s *stand) {
		r := s.safe()
		ms, _ := strconv.Atoi(r.timeout)
		if !r.ok() || ms > 30_000 || ms < 29_000 {
			s.t.Errorf("%+v", r)
		}
	}, timeout(30*time.Second), "a")
}

// What the caller waits less, the application is told: by the field that an application passes on, and by
// grpc-timeout, which shrinks on its way.
func TestDeadlinesShrink(t *testing.T) {
	everywhere(t, func(s *stand) {
		if s.protocol == "gRPC" {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			if ms, err := strconv.Atoi(s.call(ctx, "POST", "").timeout); err != nil || ms >= 5000 || ms < 4000 {
				s.t.Errorf("%d ms are left of 5000", ms)
			}
			return
		}
		r := must(http.NewRequest("GET", "http://"+s.addr+"/", nil))
		r.Header.Set("Shoal-Timeout-Ms", "700")
		res := must(s.http.Do(r))
		res.Body.Close()
		if got := res.Header.Get("Timeout"); got != "700" {
			s.t.Errorf("the application was told %q", got)
		}
		s.behave("a", reply{hang: true})
		r.Header.Set("Shoal-Timeout-Ms", "100")
		res = must(s.http.Do(r))
		res.Body.Close()
		if res.StatusCode != 504 || res.Header.Get("Shoal-Reason") != string(fleet.ReasonTimeout) {
			s.t.Errorf("%s %v", res.Status, res.Header)
		}
		r.Header.Set("Shoal-Timeout-Ms", "99999999") // nobody waits longer than declared
		s.behave("a", reply{})
		res = must(s.http.Do(r))
		res.Body.Close()
		if got := res.Header.Get("Timeout"); got != "30000" {
			s.t.Errorf("the application was told %q", got)
		}
	}, timeout(30*time.Second), "a")
}

// A deadline ends the work in the application, and so does a caller that leaves.
func TestDeadlineEndsTheWork(t *testing.T) {
	everywhere(t, func(s *stand) {
		s.behave("a", reply{hang: true})
		r := s.unsafe()
		if r.ok() || s.protocol == "gRPC" && r.code != codes.DeadlineExceeded || s.protocol != "gRPC" && r.status != 504 {
			s.t.Errorf("%+v", r)
		}
		eventually(s.t, "the application's work ends", func() bool { return s.cancelled("a") == 1 })
	}, timeout(150*time.Millisecond), "a")
	everywhere(t, func(s *stand) {
		s.behave("a", reply{hang: true})
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			for s.asked("a") == 0 {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		s.call(ctx, "POST", "")
		eventually(s.t, "the application's work ends", func() bool { return s.cancelled("a") == 1 })
	}, nil, "a")
}

// The callee's own end of a gRPC call reaches the caller as it is.
func TestCancellationFromTheCallee(t *testing.T) {
	s := newStand(t, proxy.Config{}, "gRPC", nil, "a")
	s.behave("a", reply{code: codes.Canceled})
	if r := s.unsafe(); r.code != codes.Canceled || status.Code(r.err) != codes.OK {
		t.Errorf("%+v", r)
	}
	if o := s.observed("r1"); o.Failed() || o.Reason != "" {
		t.Errorf("%+v", o)
	}
}

// An instance that does not answer its health checks gets no call while another can take it.
func TestUnhealthyInstances(t *testing.T) {
	everywhere(t, func(s *stand) {
		for range 30 {
			if r := s.safe(); r.instance != "b" || !s.decided(r, fleet.PassedUnhealthy) {
				s.t.Fatalf("%+v %+v", r, s.observed(r.id))
			}
		}
		s.p.Detach("b")
		if r := s.safe(); r.instance != "a" || !s.decided(r, fleet.AllEjected) {
			s.t.Errorf("%+v %+v", r, s.observed(r.id))
		}
	}, func(inventory, _ *fleet.Service) { inventory.Endpoints[0].Unhealthy = true }, "a", "b")
}
