package broker_test

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/shoalrun/shoal/broker"
)

// TestFailingSync has a disk that takes every write and fails to sync: what is published then is refused, the topics stop and stay stopped, though the
// disk seems well again, and nothing of it is delivered. After a restart all that was acknowledged is there, and topics go on.
func TestFailingSync(t *testing.T) {
	for _, topics := range []int{1, 3} { // one log, or the write-ahead log
		t.Run(fmt.Sprintf("%d topics", topics), func(t *testing.T) { failingSync(t, topics) })
	}
}

func failingSync(t *testing.T, topics int) {
	dir, broken := brokenDisk(t)
	data := filepath.Join(dir, "broker")
	k := newBench(t, data)
	for i := range topics {
		k.topic(fmt.Sprintf("t%d", i), broker.SubscriptionConfig{Name: fmt.Sprintf("sub%d", i), ExactlyOnce: true})
		k.say(fmt.Sprintf("t%d", i), "", "first", "before")
	}
	first := take(t, k.receiver("sub0", broker.ReceiverConfig{MaxMessages: 1}), 1)
	broken.Store(true)
	k.ends = "input/output error" // the acknowledgement is not saved
	stopped := func(what string) {
		for i, err := range k.sayToEach(topics, what) {
			if broker.StatusOf(err) != http.StatusServiceUnavailable || !strings.Contains(err.Error(), "is stopped") || !strings.Contains(err.Error(), "restart the hub") {
				t.Errorf("%s, t%d: %v", what, i, err)
			}
		}
	}
	stopped("while syncs fail")
	k.ack("sub0", broker.ErrAckLater, first...)
	broken.Store(false)
	stopped("when syncs work again")
	for _, topic := range k.Topics() {
		if topic.Published != 2 || topic.Stopped == "" {
			t.Errorf("%+v", topic)
		}
	}
	k.stop()

	k = newBench(t, data)
	if errs := k.sayToEach(topics, "after"); slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
		t.Fatalf("after a restart: %v", errs)
	}
	for i := range topics {
		var got []string
		for r := k.receiver(fmt.Sprintf("sub%d", i), broker.ReceiverConfig{}); !slices.Contains(got, "after"); {
			got = append(got, string(take(t, r, 1)[0].Data))
		}
		if !slices.Contains(got, "first") || !slices.Contains(got, "before") {
			t.Errorf("sub%d got %q", i, got)
		}
	}
}

// sayToEach publishes to several topics at the same time.
func (k *bench) sayToEach(topics int, what string) []error {
	errs := make([]error, topics)
	var all sync.WaitGroup
	for i := range topics {
		all.Go(func() {
			_, errs[i] = k.PublishMessages(k.t.Context(), op, fmt.Sprintf("t%d", i), []broker.Message{{Data: []byte(what)}})
		})
	}
	all.Wait()
	return errs
}

// brokenDisk is a folder in which syncs fail while broken says so.
func brokenDisk(t *testing.T) (dir string, broken *atomic.Bool) {
	t.Helper()
	root, err := fs.NewLoopbackRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	broken, dir = new(atomic.Bool), t.TempDir()
	server, err := fs.Mount(dir, &unsyncable{root.(*fs.LoopbackNode), broken}, &fs.Options{MountOptions: fuse.MountOptions{DirectMount: true, FsName: "broken"}})
	if err != nil {
		t.Skipf("this machine does not let this user mount a FUSE file system: %v", err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Errorf("unmounting %s: %v", dir, err)
		}
	})
	keepFromChildren(t, "/dev/fuse")
	return dir, broken
}

// unsyncable is a file or a folder of a real file system.
type unsyncable struct {
	*fs.LoopbackNode
	broken *atomic.Bool
}

var (
	_ fs.NodeWrapChilder = (*unsyncable)(nil)
	_ fs.NodeFsyncer     = (*unsyncable)(nil)
)

func (u *unsyncable) WrapChild(_ context.Context, child fs.InodeEmbedder) fs.InodeEmbedder {
	return &unsyncable{child.(*fs.LoopbackNode), u.broken}
}

func (u *unsyncable) Fsync(ctx context.Context, file fs.FileHandle, flags uint32) syscall.Errno {
	if u.broken.Load() {
		return syscall.EIO
	}
	if f, ok := file.(fs.FileFsyncer); ok {
		return f.Fsync(ctx, flags)
	}
	return fs.OK
}
