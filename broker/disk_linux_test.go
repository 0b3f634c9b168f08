package broker_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// smallDisk mounts a file system of 16 MB.
func smallDisk(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("a small file system needs root to mount it")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=24m"); err != nil {
		t.Skipf("this machine does not let root mount a tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
		}
	})
	return dir
}

// TestFullDisk fills a disk, by what is not the broker's and by the broker itself: publishers are
// told, nothing acknowledged is lost, and publishing goes on when there is space again.
func TestFullDisk(t *testing.T) {
	for name, reserve := range map[string]int64{"noticed in time": 2 << 20, "noticed by a failed write": -1} {
		for _, topics := range []int{1, 3} {
			t.Run(fmt.Sprintf("%s/%d topics", name, topics), func(t *testing.T) { fullDisk(t, reserve, topics) })
		}
	}
}

func fullDisk(t *testing.T, reserve int64, topics int) {
	dir := smallDisk(t)
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 14<<20), 0o600); err != nil { // what is written ahead must have room in the logs, too
		t.Fatal(err)
	}
	k := newBench(t, filepath.Join(dir, "broker"), func(c *broker.Config) { c.Reserve = reserve })
	s := shop("payments")
	for i := range topics {
		s.Services[1].Manifest.Subscribes = append(s.Services[1].Manifest.Subscribes, fleet.Subscription{Topic: fmt.Sprintf("t%d", i), Method: "POST", Path: "/"})
	}
	k.Install(s)
	accepted := k.fillTopics(topics)
	if accepted == 0 {
		t.Fatal("nothing was accepted")
	}
	if err := k.Store().Put(t.Context(), "still", []byte("works")); err != nil && reserve > 0 {
		t.Errorf("control cannot write while events are refused: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, "publishing goes on", func() bool {
		_, err := k.Publish(t.Context(), fleet.Operator, broker.Event{Topic: "t0", Data: []byte("after")})
		return err == nil
	})
	payments := new(inbox)
	k.handle("payments", payments)
	eventually(t, "everything is settled", func() bool {
		for i := range topics {
			if k.subscription(fmt.Sprintf("payments/t%d", i)).Lag > 0 {
				return false
			}
		}
		return true
	})
	if n := len(payments.got()); n < accepted+1 {
		t.Errorf("%d events delivered, %d were acknowledged", n, accepted+1)
	}
}

// TestFullStore fills what all topics may have together, while nobody takes messages: publishers are told, a restart loses nothing, and publishing
// goes on when messages were taken.
func TestFullStore(t *testing.T) {
	const topics = 4
	dir := t.TempDir()
	small := func(c *broker.Config) { c.MaxStore = 8 << 20 }
	k := newBench(t, dir, small)
	s := shop("payments")
	for i := range topics {
		s.Services[1].Manifest.Subscribes = append(s.Services[1].Manifest.Subscribes, fleet.Subscription{Topic: fmt.Sprintf("t%d", i), Method: "POST", Path: "/"})
	}
	k.Install(s)
	accepted := k.fillTopics(topics)
	k.stop()
	k = newBench(t, dir, small)
	payments := new(inbox)
	k.handle("payments", payments)
	k.Install(s)
	eventually(t, "everything is settled", func() bool {
		for i := range topics {
			if k.subscription(fmt.Sprintf("payments/t%d", i)).Lag > 0 {
				return false
			}
		}
		return true
	})
	if n := len(payments.got()); accepted == 0 || n < accepted {
		t.Errorf("%d events delivered, %d were acknowledged", n, accepted)
	}
	for i := range topics {
		eventually(t, "publishing goes on", func() bool {
			_, err := k.Publish(t.Context(), fleet.Operator, broker.Event{Topic: fmt.Sprintf("t%d", i), Data: []byte("after")})
			return err == nil
		})
	}
}

// fillTopics publishes to all topics at once until each has refused an event, and returns how many were accepted.
func (k *bench) fillTopics(topics int) (accepted int) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	for i := range topics {
		wg.Go(func() {
			for {
				_, err := k.Publish(k.t.Context(), fleet.Operator, broker.Event{Topic: fmt.Sprintf("t%d", i), Data: make([]byte, 50<<10)})
				var refused *broker.Error
				if errors.As(err, &refused) && refused.Status == http.StatusInsufficientStorage {
					return
				}
				if err != nil {
					k.t.Errorf("publish on a full disk: %v", err)
					return
				}
				mu.Lock()
				accepted++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return accepted
}
