package proxy_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
)

// faulty lets calls to a service meet faults for an hour, where they do not say until when.
func faulty(all ...fleet.Fault) func(*fleet.Service) {
	return func(s *fleet.Service) {
		for _, f := range all {
			f.To = s.Name
			if f.From == "" {
				f.From = "orders"
			}
			if f.Percent == 0 {
				f.Percent = 100
			}
			if f.Until.IsZero() {
				f.Until = time.Now().Add(time.Hour)
			}
			s.Faults = append(s.Faults, f)
		}
	}
}

func TestFaultAborts(t *testing.T) {
	abort := fleet.Fault{ID: "f1", Abort: 503, Path: "/bad/*", Method: "GET"}
	w := newWorld(t, proxy.Config{}, inventory(faulty(abort)), orders())
	w.attach("inventory-1", says("inventory"))
	addr := w.named("inventory", 80)
	for name, client := range map[string]*http.Client{"h1": w.client(), "h2": h2c(t)} {
		ask := func(method, path string) (*http.Response, string) {
			r := must(http.NewRequest(method, "http://"+addr+path, nil))
			r.Header.Set("X-Request-Id", name+"-fault")
			res, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, _ := io.ReadAll(res.Body)
			return res, string(body)
		}
		res, body := ask("GET", "/bad/a?b")
		if res.StatusCode != 503 || res.Header.Get("Shoal-Reason") != string(fleet.ReasonFaultInjected) {
			t.Errorf("%s: %s %v", name, res.Status, res.Header)
		}
		contains(t, body, "the fault f1 aborted the call (orders → inventory, abort 503", "nothing is broken", "shoal fault rm f1")
		if o := w.observed(name + "-fault"); o.Reason != string(fleet.ReasonFaultInjected) || !strings.HasPrefix(o.Fault, "f1: abort 503") || len(o.Attempts) != 0 {
			t.Errorf("%s: %+v", name, o)
		}
		for _, q := range [][2]string{{"POST", "/bad/a"}, {"GET", "/bad"}, {"GET", "/"}} {
			if res, body := ask(q[0], q[1]); res.StatusCode != 200 {
				t.Errorf("%s: %v %s %s", name, q, res.Status, body)
			}
		}
	}
}

// Whom a fault does not name it does not meet; it ends by itself; and a part is a part.
func TestFaultsMeetWhomTheyName(t *testing.T) {
	over := time.Now().Add(-time.Second)
	tests := map[string]struct {
		fault    fleet.Fault
		min, max int // of 500 calls
	}{
		"another caller": {fleet.Fault{From: "web"}, 0, 0},
		"anyone":         {fleet.Fault{From: fleet.Anyone}, 500, 500},
		"over":           {fleet.Fault{Until: over}, 0, 0},
		"a part":         {fleet.Fault{Percent: 20}, 50, 160},
	}
	for name, q := range tests {
		t.Run(name, func(t *testing.T) {
			q.fault.ID, q.fault.Abort = "f", 418
			w := newWorld(t, proxy.Config{}, inventory(faulty(q.fault)), orders())
			w.attach("inventory-1", says("inventory"))
			client, addr, n := w.client(), w.named("inventory", 80), 0
			for range 500 {
				res, err := client.Get("http://" + addr)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if res.StatusCode == 418 {
					n++
				}
			}
			if n < q.min || n > q.max {
				t.Errorf("%d of 500", n)
			}
		})
	}
}

func TestFaultDelays(t *testing.T) {
	delay := fleet.Fault{ID: "f1", Delay: fleet.Duration(200 * time.Millisecond)}
	w := newWorld(t, proxy.Config{}, inventory(faulty(delay)), orders())
	w.attach("inventory-1", says("inventory"))
	addr := w.named("inventory", 80)
	for name, client := range map[string]*http.Client{"h1": w.client(), "h2": h2c(t)} {
		r := must(http.NewRequest("POST", "http://"+addr, io.MultiReader(strings.NewReader("x"))))
		r.Header.Set("X-Request-Id", name)
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if o := w.observed(name); res.StatusCode != 200 || o.Fault != "f1: delay 200ms" || o.Reason != "" || o.Duration < 200*time.Millisecond || o.Attempts[0].Start < 200*time.Millisecond {
			t.Errorf("%s %+v", res.Status, o)
		}
	}
	// A delay beyond the deadline ends with it, and says whose fault that is.
	w.install(inventory(faulty(fleet.Fault{ID: "f2", Delay: fleet.Duration(time.Hour)})), orders(func(s *fleet.Service) { s.Manifest.Calls[0].Timeout = fleet.Duration(60 * time.Millisecond) }))
	res, body := w.get("http://" + addr)
	if res.StatusCode != 504 || res.Header.Get("Shoal-Reason") != string(fleet.ReasonFaultInjected) {
		t.Errorf("%s %v", res.Status, res.Header)
	}
	contains(t, body, "f2 delayed the call until its deadline, 60ms")
	// Nobody waits for one whose caller has left.
	w.install(inventory(faulty(fleet.Fault{ID: "f3", Delay: fleet.Duration(time.Hour)})), orders())
	for name, client := range map[string]*http.Client{"gone-1": w.client(), "gone-2": h2c(t)} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		r := must(http.NewRequestWithContext(ctx, "GET", "http://"+addr, nil))
		r.Header.Set("X-Request-Id", name)
		if _, err := client.Do(r); err == nil {
			t.Error("answered within an hour's delay")
		}
		cancel()
		if o := w.observed(name); o.Reason != string(fleet.ReasonCallerGone) {
			t.Errorf("%+v", o)
		}
	}
}

// A call that is handed over meets the faults of both: whom it was for, and who answers.
func TestFaultsOfHandOvers(t *testing.T) {
	over := routed(handOver("v2", fleet.Match{Path: "/v2/*"}, fleet.Share{Service: "inventory-next", Weight: 1}))
	for name, services := range map[string][]*fleet.Service{
		"called":  {inventory(over, faulty(fleet.Fault{ID: "f1", Abort: 418})), next()},
		"answers": {inventory(over), next(faulty(fleet.Fault{ID: "f1", Abort: 418}))},
	} {
		_, addr := routedWorld(t, services[0], services[1])
		res, err := http.Get("http://" + addr + "/v2/a")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 418 {
			t.Errorf("%s: %s", name, res.Status)
		}
	}
}

func TestFaultsOfGRPC(t *testing.T) {
	for fault, want := range map[fleet.Fault]codes.Code{
		{Abort: 503}:                         codes.Unavailable,
		{Abort: 401}:                         codes.Unauthenticated,
		{Abort: 404}:                         codes.Unimplemented,
		{Abort: 500}:                         codes.Unknown,
		{GRPC: int(codes.ResourceExhausted)}: codes.ResourceExhausted,
		{Abort: 503, GRPC: 13}:               codes.Internal,
	} {
		fault.ID = "f1"
		w := newWorld(t, proxy.Config{}, inventory(protocol(fleet.GRPC), faulty(fault)), orders())
		w.p.Attach("inventory-1", to(startInventory(t, "inventory-1").addr))
		_, err := get(t.Context(), w.dialGRPC(w.named("inventory", 8080)), "a")
		if status.Code(err) != want || !strings.Contains(err.Error(), "the fault f1 aborted") {
			t.Errorf("%+v: %v", fault, err)
		}
	}
}
