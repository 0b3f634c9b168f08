package sidecar

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
)

// Release leaves the application to another process; both serve for a moment, and no call is lost: with a
// proxy that stops, as a node's does that was replaced.
func TestReleaseHandsOver(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		dir := shortDir(t)
		var served atomic.Int64
		inventory := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			served.Add(1)
			_, _ = io.Copy(w, r.Body)
		}))
		t.Cleanup(inventory.Close)
		url := "http://inventory/"
		if mode == fleet.Explicit {
			url = "$INVENTORY_URL"
		}
		old := newNodeStand(t, dir, inventory.Listener.Addr())
		sc := old.launch(mode, "orders-1", app(t, "calls", url, dir+"/end"))
		for range 5 {
			seen := served.Load()
			eventually(t, "it calls", func() bool { return served.Load() > seen+20 })
			next := newNodeStand(t, dir, inventory.Listener.Addr())
			all, err := next.Adopt(context.Background())
			if err != nil || len(all) != 1 {
				t.Fatalf("adopted %v, %v", all, err)
			}
			t.Cleanup(func() { _ = all[0].Stop(context.Background(), 0) })
			old.leave()
			sc.Release()
			sc, old = all[0], next
		}
		write(t, dir+"/end", "")
		waitDone(t, sc)
		if got := strings.Join(sc.Tail(), "\n"); got != "over" {
			t.Errorf("it wrote %q", got)
		}
	})
}

// nodeStand is a stand with the data path of a node. In its fleet orders calls inventory.
type nodeStand struct {
	*stand
	leave context.CancelFunc // as a node that was replaced
}

func newNodeStand(t *testing.T, dir string, inventory net.Addr) *nodeStand {
	p, err := proxy.New(proxy.Config{Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	snapshot := newAnswering().Snapshot()
	for _, s := range snapshot.Services {
		switch s.Name {
		case "orders":
			s.Manifest.Calls = []fleet.Call{{Service: "inventory"}}
		case "inventory":
			s.Deployed, s.Endpoints = true, []fleet.Endpoint{{Instance: "inventory-1", Node: "n1"}}
		}
	}
	p.Install(snapshot)
	p.Attach("inventory-1", at{inventory})
	ctx, leave := context.WithCancel(context.Background())
	ran := make(chan struct{})
	go func() { defer close(ran); _ = p.Run(ctx) }()
	t.Cleanup(func() { leave(); <-ran })
	return &nodeStand{standIn(t, dir, func(c *Config) { c.Proxy = p }), leave}
}

// at is where an instance of the test's own listens.
type at struct{ net.Addr }

func (a at) Dial(ctx context.Context, _ uint16) (*net.TCPConn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", a.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// callsApp calls url until a file is there, on new connections and on kept ones, and writes what failed.
// It calls by POST, which no client repeats by itself.
func callsApp(url, end string) int {
	var clients sync.WaitGroup
	for _, fresh := range []bool{true, false, true, false} {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: fresh}}
		clients.Go(func() {
			for !exists(end) {
				if err := callOnce(client, url); err != nil {
					fmt.Printf("LOST, on a new connection: %t: %v\n", fresh, err)
				}
			}
		})
	}
	clients.Wait()
	fmt.Println("over")
	return 0
}

func callOnce(client *http.Client, url string) error {
	resp, err := client.Post(url, "text/plain", strings.NewReader("payload"))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != 200 || string(b) != "payload" {
		return fmt.Errorf("%s %q %w", resp.Status, b, err)
	}
	return nil
}
