package proxy_test

import (
	"context"
	"io"
	"math"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
)

func rated(limit int, per time.Duration, burst int) func(*fleet.Service) {
	return func(s *fleet.Service) {
		s.Manifest.Rate = &fleet.Rate{Limit: limit, Per: fleet.Duration(per), Burst: burst}
		s.Manifest.Lines = map[string]int{"rate": 12}
	}
}

// Each caller gets its max-min fair share, and all together what is declared and no more.
func TestRateIsFair(t *testing.T) {
	const seconds, step = 30, 200 * time.Microsecond
	tests := map[string]struct {
		burst         int
		asks, expects map[string]float64 // calls a second
	}{
		"alone":             {10, map[string]float64{"a": 1000}, map[string]float64{"a": 100}},
		"alone, modest":     {10, map[string]float64{"a": 70}, map[string]float64{"a": 70}},
		"greedy and modest": {10, map[string]float64{"a": 10, "b": 45, "c": 1000}, map[string]float64{"a": 10, "b": 45, "c": 45}},
		"both greedy":       {10, map[string]float64{"a": 200, "b": 5000}, map[string]float64{"a": 50, "b": 50}},
		"enough for all":    {10, map[string]float64{"a": 30, "b": 50}, map[string]float64{"a": 30, "b": 50}},
		"small burst":       {6, map[string]float64{"a": 200, "b": 5000, "c": 10}, map[string]float64{"a": 45, "b": 45, "c": 10}},
		"large burst":       {500, map[string]float64{"a": 1000, "b": 20}, map[string]float64{"a": 80 + 250.0/seconds, "b": 20}},
		"a rare one":        {10, map[string]float64{"a": 1000, "b": 0.05}, map[string]float64{"a": 100, "b": 0.05}},
	}
	for name, q := range tests {
		t.Run(name, func(t *testing.T) {
			flows := proxy.Flows(100, q.burst, "a", "b", "c")
			got, asked, all := map[string]float64{}, map[string]float64{}, 0.0
			for now := time.Duration(0); now < seconds*time.Second; now += step {
				for caller, asks := range q.asks {
					before := math.Floor((now - step).Seconds() * asks)
					for range int(math.Floor(now.Seconds()*asks) - before) {
						asked[caller] += 1.0 / seconds
						if flows[caller](now) {
							got[caller] += 1.0 / seconds
							all += 1.0 / seconds
						}
					}
				}
			}
			for caller, want := range q.expects {
				if want == q.asks[caller] {
					want = asked[caller]
				}
				if math.Abs(got[caller]-want) > 0.03*want {
					t.Errorf("%s gets %.2f a second; its share is %.2f", caller, got[caller], want)
				}
			}
			if most := 100 + (float64(max(q.burst, 3))+1)/seconds; all > most {
				t.Errorf("%.3f a second in all, and %.3f are to be had", all, most)
			}
		})
	}
}

// What is taken concurrently is counted exactly.
func TestRateIsExact(t *testing.T) {
	flows := proxy.Flows(1000, 100, "a", "b", "c", "d")
	var taken atomic.Int64
	var wg sync.WaitGroup
	for _, take := range flows {
		for range 2 {
			wg.Go(func() {
				for now := time.Duration(0); now < time.Second; now += 50 * time.Microsecond {
					if take(now) {
						taken.Add(1)
					}
				}
			})
		}
	}
	wg.Wait()
	if n := taken.Load(); n < 1000 || n > 1101 {
		t.Errorf("%d calls in a second of 1000 and a burst of 100", n)
	}
}

func TestRateLimit(t *testing.T) {
	web := service("web", 20)
	web.Manifest.Calls = []fleet.Call{{Service: "inventory"}}
	w := newWorld(t, proxy.Config{}, inventory(rated(2, time.Minute, 3)), orders(), web)
	w.attach("inventory-1", says("inventory"))
	addr := w.named("inventory", 80)
	for range 3 {
		if res, body := w.get("http://" + addr); res.StatusCode != 200 {
			t.Fatalf("within the burst: %s %s", res.Status, body)
		}
	}
	for name, client := range map[string]*http.Client{"h1": w.client(), "h2": h2c(t)} {
		r := must(http.NewRequest("GET", "http://"+addr, nil))
		r.Header.Set("X-Request-Id", name)
		res, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != 429 || res.Header.Get("Shoal-Reason") != string(fleet.ReasonRateLimited) || res.Header.Get("Retry-After") != "30" {
			t.Errorf("%s: %s %v", name, res.Status, res.Header)
		}
		contains(t, string(body), "inventory takes 2/m (inventory/shoal.yaml:12), and the fair share of orders is used up")
		if o := w.observed(name); o.Reason != string(fleet.ReasonRateLimited) || len(o.Attempts) != 0 {
			t.Errorf("%+v", o)
		}
	}
	// Who is greedy does not keep another from its first call; the operator is not counted.
	for _, caller := range []string{"web", fleet.Operator} {
		res, err := (&http.Client{Transport: w.p.Transport(caller)}).Get("http://inventory/")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 200 {
			t.Errorf("%s: %s", caller, res.Status)
		}
	}
	// A manifest that says more, or nothing, is in force at once.
	w.install(inventory(rated(100_000, time.Second, 100_000)), orders(), web)
	eventually(t, "the new rate brings tokens", func() bool { res, _ := w.get("http://" + addr); return res.StatusCode == 200 })
	w.install(inventory(rated(1, time.Hour, 1)), orders(), web)
	eventually(t, "the new rate holds", func() bool { res, _ := w.get("http://" + addr); return res.StatusCode == 429 })
	w.install(inventory(), orders(), web)
	if res, _ := w.get("http://" + addr); res.StatusCode != 200 {
		t.Errorf("without a rate: %s", res.Status)
	}
}

func TestRateLimitOfGRPC(t *testing.T) {
	w := newWorld(t, proxy.Config{}, inventory(protocol(fleet.GRPC), rated(2, time.Minute, 1)), orders())
	w.p.Attach("inventory-1", to(startInventory(t, "inventory-1").addr))
	cc := w.dialGRPC(w.named("inventory", 8080))
	if _, err := get(t.Context(), cc, "a"); err != nil {
		t.Fatal(err)
	}
	var end metadata.MD
	_, err := get(t.Context(), cc, "a", grpc.Trailer(&end))
	if status.Code(err) != codes.ResourceExhausted || len(end["grpc-retry-pushback-ms"]) != 1 {
		t.Fatal(err, end)
	}
	contains(t, err.Error(), "inventory takes 2/m (inventory/shoal.yaml:12)")
}

// A node takes its part of a rate by the callers that it has.
func TestRateOverNodes(t *testing.T) {
	spread := orders(func(s *fleet.Service) {
		s.Endpoints = []fleet.Endpoint{{Instance: "orders-1", Node: "local"}, {Instance: "orders-2", Node: "far"}, {Instance: "orders-3", Node: "far"}}
	})
	passes := func(w *world) (n int) {
		addr := w.named("inventory", 80)
		for range 20 {
			if res, _ := w.get("http://" + addr); res.StatusCode == 200 {
				n++
			}
		}
		return n
	}
	services := []*fleet.Service{inventory(rated(1, time.Hour, 9)), spread}
	local := newWorld(t, proxy.Config{}, services...)
	local.attach("inventory-1", says("inventory"))
	l := local.listen()
	local.background(func(ctx context.Context) error { return local.p.ServePeer(ctx, l) })
	far := newWorld(t, proxy.Config{Node: "far", Peer: peerAt(l)}, services...)
	if here, there := passes(local), passes(far); here != 3 || there != 6 {
		t.Errorf("%d and %d calls of 9 passed; a third of the callers are here", here, there)
	}
}

// Three nodes that each have a third of a rate move what they do not use to where it is wanted, ten times a second:
// callers get their fair shares of the whole, and all together never more than it.
func TestRateMovesBetweenNodes(t *testing.T) {
	const seconds, step = 30, 200 * time.Microsecond
	for name, q := range map[string]struct{ asks, expects [3]float64 }{
		"one greedy, two idle":     {[3]float64{0, 1000, 0}, [3]float64{0, 90, 0}},
		"one greedy, one modest":   {[3]float64{10, 1000, 0}, [3]float64{10, 80, 0}},
		"two greedy":               {[3]float64{500, 1000, 0}, [3]float64{45, 45, 0}},
		"two greedy, one modest":   {[3]float64{500, 1000, 12}, [3]float64{39, 39, 12}},
		"all greedy":               {[3]float64{500, 1000, 700}, [3]float64{30, 30, 30}},
		"enough for all":           {[3]float64{20, 20, 20}, [3]float64{20, 20, 20}},
		"more than a third and ok": {[3]float64{50, 10, 10}, [3]float64{50, 10, 10}},
	} {
		t.Run(name, func(t *testing.T) {
			var nodes [3]proxy.RateNode
			for i := range nodes {
				nodes[i] = proxy.NewRateNode(30, 10)
			}
			got, all := [3]float64{}, 0.0
			for now := time.Duration(0); now < seconds*time.Second; now += step {
				for i, asks := range q.asks {
					for range int(math.Floor(now.Seconds()*asks) - math.Floor((now-step).Seconds()*asks)) {
						if nodes[i].Take("web", now) {
							got[i] += 1.0 / seconds
							all += 1.0 / seconds
						}
					}
				}
				if now%(100*time.Millisecond) == 0 {
					moveRates(nodes[:], now)
				}
			}
			for i, want := range q.expects {
				if math.Abs(got[i]-want) > 0.05*want+0.5 {
					t.Errorf("node %d gets %.2f a second; its share is %.2f", i, got[i], want)
				}
			}
			if most := 90 + (30+3+90.0/4)/seconds; all > most { // bursts, a token for newcomers, what is kept for others
				t.Errorf("%.2f a second in all, and %.2f are to be had", all, most)
			}
		})
	}
}

// moveRates does what the hub does.
func moveRates(nodes []proxy.RateNode, now time.Duration) {
	var short, others []proxy.RateNode
	for _, n := range nodes {
		if n.Short(now) {
			short = append(short, n)
		} else {
			others = append(others, n)
		}
	}
	if len(short) == 0 {
		return
	}
	for _, n := range others {
		given := n.Give(now)
		for _, s := range short {
			s.Receive(given / int64(len(short)))
		}
	}
}
