package broker_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
)

// The seam that control has for it.
var _ interface {
	Get(ctx context.Context, key string) ([]byte, error)
	Put(ctx context.Context, key string, value []byte) error
	Watch(ctx context.Context, prefix string, each func(key string, value []byte) error) error
} = (*broker.Store)(nil)

func TestStore(t *testing.T) {
	dir := t.TempDir()
	k := newBench(t, dir)
	s := k.Store()
	if value, err := s.Get(t.Context(), "none"); value != nil || err != nil {
		t.Errorf("a missing key: %q %v", value, err)
	}
	for _, kv := range []string{"control.service.orders", "control.service.web", "other.x"} {
		if err := s.Put(t.Context(), kv, []byte("v "+kv)); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Put(t.Context(), "control.service.web", nil); err != nil {
		t.Fatal(err)
	}
	k.stop()

	k = newBench(t, dir)
	s = k.Store()
	told := make(chan string, 16)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- s.Watch(ctx, "control.", func(key string, value []byte) error {
			told <- fmt.Sprintf("%s=%s", key, value)
			return nil
		})
	}()
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-told:
			if got != want {
				t.Errorf("told %q, want %q", got, want)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("not told %q", want)
		}
	}
	expect("control.service.orders=v control.service.orders")
	for got := range told { // a deleted key may be told as such
		if got == "=" {
			break
		}
		if got != "control.service.web=" {
			t.Errorf("told %q", got)
		}
	}
	if err := s.Put(t.Context(), "control.x", []byte("1")); err != nil {
		t.Fatal(err)
	}
	expect("control.x=1")
	if err := s.Put(t.Context(), "control.x", nil); err != nil {
		t.Fatal(err)
	}
	expect("control.x=")
	if value, err := s.Get(t.Context(), "control.x"); value != nil || err != nil {
		t.Errorf("a deleted key: %q %v", value, err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Watch ended with %v", err)
	}
	k.stop()
	if err := s.Put(t.Context(), "late", []byte("x")); err == nil {
		t.Error("a stopped broker took a value")
	}
}

func TestStoreWatchEndsWithItsCallback(t *testing.T) {
	k := newBench(t, t.TempDir())
	enough := errors.New("enough")
	if err := k.Store().Watch(t.Context(), "", func(string, []byte) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("Watch: %v", err)
	}
}

func TestDamagedFolderIsAnError(t *testing.T) {
	if _, err := broker.New(broker.Config{Dir: "/dev/null/x"}); err == nil {
		t.Error("a folder that cannot be is no error")
	}
}
