//go:build unix

package e2e

import (
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// hammer asks a gateway for web without pause, until stop is closed, and counts what was let through.
func hammer(gateway, path string, through *atomic.Int64, stop <-chan struct{}, work *sync.WaitGroup) {
	for range 3 {
		work.Go(func() {
			client := &http.Client{Transport: &http.Transport{}, Timeout: 30 * time.Second}
			for {
				select {
				case <-stop:
					return
				default:
				}
				req, _ := http.NewRequest(http.MethodGet, "http://"+gateway+path, nil)
				req.Host = "web.localhost"
				resp, err := client.Do(req)
				if err != nil {
					continue
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					through.Add(1)
				}
			}
		})
	}
}

// A rate holds for three nodes together: one that asks for more than its part gets what the others leave, all get
// their parts when all ask, and never is more let through than the rate.
func TestRateOfThreeNodes(t *testing.T) {
	once(t, func(t *testing.T, s setting) {
		if s.mode != fleet.Netns {
			t.Skip("each node's web has its own address there")
		}
		files := portable(shop)
		files["orders/shoal.yaml"] += "rate: {limit: 30/s, burst: 6}\n"
		files["web/shoal.yaml"] += "instances: 3\n"
		w := newWorld(t, s, files)
		w.up()
		w.join("b")
		w.join("c")
		w.place("web", "b", "c", "local")
		path := q("/get", "url", w.url("web", "orders", "/"))
		stop := make(chan struct{})
		var work sync.WaitGroup
		defer work.Wait()
		defer sync.OnceFunc(func() { close(stop) })()

		var through [3]atomic.Int64
		began := time.Now()
		hammer(w.status().Gateway, path, &through[0], stop, &work)
		w.eventually("one node gets more than twice its part", func() bool {
			before := through[0].Load()
			time.Sleep(2 * time.Second)
			return through[0].Load()-before > 2*2*10
		})
		hammer(w.node("b").Gateway, path, &through[1], stop, &work)
		hammer(w.node("c").Gateway, path, &through[2], stop, &work)
		w.eventually("the others get their parts at once", func() bool { return through[1].Load() > 40 && through[2].Load() > 40 })
		all := through[0].Load() + through[1].Load() + through[2].Load()
		if most := 30*time.Since(began).Seconds() + 6 + 30.0/4 + 9; float64(all) > most { // the burst, what is kept for others, a token for each newcomer and rounding
			t.Errorf("%d calls were let through, and %.0f were to be had", all, most)
		}
	})
}
