package observe_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
)

func all(*fleet.Observation) bool { return true }

func TestFollowerReadsEachRecordOnce(t *testing.T) {
	r := observe.New(observe.Config{Ring: 4096})
	r.Record(observation("before"))
	f := r.Follow()
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 200 {
				o := observation(fmt.Sprintf("%d-%d", w, i))
				if i%10 == 0 {
					o.Status = 500
				}
				r.Record(o)
			}
		})
	}
	seen := map[string]int{}
	read := func() uint64 { return f.Read(all, func(o fleet.Observation) { seen[o.RequestID]++ }) }
	missed := read()
	writers.Wait()
	missed += read() + read() // the first one settles what the second reads
	if len(seen) != 800 || missed != 0 || seen["before"] != 0 {
		t.Errorf("%d records, %d missed", len(seen), missed)
	}
	for id, n := range seen {
		if n != 1 {
			t.Errorf("%s was read %d times", id, n)
		}
	}
}

func TestFollowerCountsWhatItMisses(t *testing.T) {
	r := observe.New(observe.Config{Ring: 1})
	f := r.Follow()
	const n = 10_000
	for i := range n {
		r.Record(observation(fmt.Sprint(i)))
	}
	seen := 0
	read := func() uint64 { return f.Read(all, func(fleet.Observation) { seen++ }) }
	missed := read() + read()
	if seen == 0 || uint64(seen)+missed != n {
		t.Errorf("%d records and %d missed, of %d", seen, missed, n)
	}
}

func TestFollowerChooses(t *testing.T) {
	r := observe.New(observe.Config{})
	f := r.Follow()
	for _, callee := range []string{"orders", "payments", "orders"} {
		o := observation("1")
		o.Callee = callee
		r.Record(o)
	}
	n := 0
	f.Read(all, func(fleet.Observation) {})
	f.Read(func(o *fleet.Observation) bool { return o.Callee == "orders" }, func(fleet.Observation) { n++ })
	if n != 2 {
		t.Errorf("%d of orders", n)
	}
}

// Readers and writers of the same slots, for the race detector.
func TestFollowerBesideWriters(t *testing.T) {
	r := observe.New(observe.Config{Ring: 1})
	f := r.Follow()
	var writers sync.WaitGroup
	const each = 2_000
	for range 4 {
		writers.Go(func() {
			for range each {
				r.Record(observation("01J9ZK4Q3V8Y2M5N7P1R6T0WXA"))
			}
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	seen, missed := uint64(0), uint64(0)
	read := func() { missed += f.Read(all, func(fleet.Observation) { seen++ }) }
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		read()
	}
	read()
	read()
	if seen == 0 || seen > 4*each {
		t.Errorf("%d records, %d missed", seen, missed)
	}
}

func TestAccessLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := observe.New(observe.Config{})
		var out bytes.Buffer
		ctx, cancel := context.WithCancel(t.Context())
		a := fleet.Access{Services: []string{"orders"}}
		end := observe.Keep(ctx, func(ctx context.Context) error { return r.WriteAccess(ctx, &out, a.Wants) })
		synctest.Wait()
		for _, callee := range []string{"orders", "payments", "orders"} {
			o := observation("req-" + callee)
			o.Callee = callee
			r.Record(o)
		}
		cancel()
		end()
		n := 0
		for d := json.NewDecoder(&out); ; n++ {
			var o fleet.Observation
			if err := d.Decode(&o); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if o.RequestID != "req-orders" || o.Caller == "" || o.Path == "" {
				t.Errorf("%+v", o)
			}
		}
		if n != 2 || r.Access.Written.Load() != 2 || r.Access.Dropped.Load() != 0 {
			t.Errorf("%d lines, %d written, %d dropped", n, r.Access.Written.Load(), r.Access.Dropped.Load())
		}
	})
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestAccessLogCountsWhatItCannotWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := observe.New(observe.Config{})
		end := observe.Keep(t.Context(), func(ctx context.Context) error { return r.WriteAccess(ctx, fullDisk{}, all) })
		synctest.Wait()
		r.Record(observation("1"))
		end()
		if r.Access.Dropped.Load() != 1 {
			t.Errorf("%d dropped", r.Access.Dropped.Load())
		}
	})
}
