package observe_test

import (
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/observe"
)

// What the data path pays for one call.
func BenchmarkDoneAndRecord(b *testing.B) {
	r := observe.New(observe.Config{})
	e := r.Edge("web", "orders", "default", fleet.HTTP)
	b.Run("one", func(b *testing.B) {
		b.ReportAllocs()
		o := observation("01J9ZK4Q3V8Y2M5N7P1R6T0WXA")
		for b.Loop() {
			e.Done(time.Millisecond, false)
			r.Record(o)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			o := observation("01J9ZK4Q3V8Y2M5N7P1R6T0WXA")
			for pb.Next() {
				e.Done(time.Millisecond, false)
				r.Record(o)
			}
		})
	})
}

func BenchmarkDone(b *testing.B) {
	e := observe.New(observe.Config{}).Edge("web", "orders", "default", fleet.HTTP)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			e.Done(time.Millisecond, false)
		}
	})
}

func BenchmarkFind(b *testing.B) {
	r := observe.New(observe.Config{})
	for range 2 * observe.DefaultRing {
		r.Record(observation("01J9ZK4Q3V8Y2M5N7P1R6T0WXA"))
	}
	for b.Loop() {
		r.Find("absent")
	}
}

// Steady state allocates nothing: a fact of the code, not of the machine. The race detector makes
// sync.Pool forget items, so this holds without it.
func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	r := observe.New(observe.Config{Ring: 1024})
	e := r.Edge("web", "orders", "default", fleet.HTTP)
	o := observation("01J9ZK4Q3V8Y2M5N7P1R6T0WXA")
	call := func() {
		e.Done(time.Millisecond, false)
		r.Record(o)
	}
	for range 4096 {
		call()
	}
	if n := testing.AllocsPerRun(1000, call); n != 0 {
		t.Errorf("%v allocations a call", n)
	}
}
