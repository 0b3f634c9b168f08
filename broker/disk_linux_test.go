package broker_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

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

// TestResourcesOnAFullDisk changes resources in every way while the disk is full: each is told so, with the status that means that, and what is to be done.
// When there is space again all of it works, without a restart; what was answered before is there, and after a restart, too.
func TestResourcesOnAFullDisk(t *testing.T) {
	dir := smallDisk(t)
	data := filepath.Join(dir, "broker")
	k := newBench(t, data)
	k.topic("orders", broker.SubscriptionConfig{Name: "one", ExactlyOnce: true})
	k.topic("old")
	if _, err := k.CreateSnapshot(t.Context(), op, "one", broker.SnapshotConfig{Name: "before"}); err != nil {
		t.Fatal(err)
	}
	k.say("orders", "", "a", "b")
	got := take(t, k.receiver("one", broker.ReceiverConfig{MaxMessages: 1}), 1)
	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)
	made := k.createUntilFull()
	k.ack("one", broker.ErrAckLater, got...)
	for what, err := range k.resources() {
		if broker.StatusOf(err) != http.StatusInsufficientStorage || !strings.Contains(err.Error(), "ake room") {
			t.Errorf("%s on a full disk: status %d, %v", what, broker.StatusOf(err), err)
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	eventually(t, "resources are created again", func() bool {
		_, err := k.CreateTopic(t.Context(), op, broker.TopicConfig{Name: "afterwards"})
		return err == nil
	})
	k.ack("one", nil, got...) // as clients do that are told to come later
	for what, err := range k.resources() {
		if err != nil {
			t.Errorf("%s once there is room: %v", what, err)
		}
	}
	made = append(made, "afterwards", "new")
	for range 2 {
		for _, name := range made {
			if _, err := k.Topic(t.Context(), name); err != nil {
				t.Errorf("a topic whose creation was answered: %v", err)
			}
		}
		if _, err := k.Topic(t.Context(), "old"); broker.StatusOf(err) != http.StatusNotFound {
			t.Errorf("a topic whose deletion was answered: %v", err)
		}
		k.stop()
		k = newBench(t, data)
	}
}

// fill writes a file until nothing more fits on its disk.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, size := range []int{1 << 20, 4 << 10} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
	}
}

// createUntilFull makes topics until that fails, and returns those that were made: what was begun of a page, files have yet.
func (k *bench) createUntilFull() (made []string) {
	k.t.Helper()
	for i := range 1000 {
		name := fmt.Sprint("more-", i)
		_, err := k.CreateTopic(k.t.Context(), op, broker.TopicConfig{Name: name})
		if err != nil {
			return made
		}
		made = append(made, name)
	}
	k.t.Fatal("the disk is not full")
	return nil
}

// resources changes each kind of them, and returns what was said.
func (k *bench) resources() map[string]error {
	ctx := k.t.Context()
	label := map[string]string{"a": "b"}
	return map[string]error{
		"CreateTopic":        topical(k.CreateTopic(ctx, op, broker.TopicConfig{Name: "new"})),
		"UpdateTopic":        topical(k.UpdateTopic(ctx, op, "orders", func(c *broker.TopicConfig) error { c.Labels = label; return nil })),
		"DeleteTopic":        k.DeleteTopic(ctx, op, "old"),
		"CreateSubscription": subscribed(k.CreateSubscription(ctx, op, broker.SubscriptionConfig{Name: "two", Topic: "orders"})),
		"UpdateSubscription": subscribed(k.UpdateSubscription(ctx, op, "one", func(c *broker.SubscriptionConfig) error { c.Labels = label; return nil })),
		"CreateSnapshot":     kept(k.CreateSnapshot(ctx, op, "one", broker.SnapshotConfig{Name: "now"})),
		"UpdateSnapshot":     kept(k.UpdateSnapshot(ctx, op, "before", func(c *broker.SnapshotConfig) error { c.Labels = label; return nil })),
		"SeekTime":           sought(k.SeekTime(ctx, op, "one", time.Now(), false)),
		"SeekSnapshot":       sought(k.SeekSnapshot(ctx, op, "one", "before", false)),
		"DeleteSnapshot":     k.DeleteSnapshot(ctx, op, "before"),
	}
}

func topical(_ broker.TopicConfig, err error) error           { return err }
func subscribed(_ broker.SubscriptionConfig, err error) error { return err }
func kept(_ broker.SnapshotConfig, err error) error           { return err }
func sought(_ broker.Seeked, err error) error                 { return err }

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
