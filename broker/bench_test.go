//go:build unix

package broker_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/shoalrun/shoal/broker"
	"github.com/shoalrun/shoal/fleet"
)

// BenchmarkPublish publishes events of 256 bytes durably, from many publishers at once.
func BenchmarkPublish(b *testing.B) {
	for _, shape := range []struct{ publishers, topics int }{{1, 1}, {64, 1}, {64, 64}, {512, 1}} {
		b.Run(fmt.Sprintf("publishers=%d/topics=%d", shape.publishers, shape.topics), func(b *testing.B) {
			k := newBench(b, b.TempDir(), func(c *broker.Config) { c.Observe = nil })
			data := make([]byte, 256)
			var n atomic.Int64
			b.SetParallelism((shape.publishers + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				topic := fmt.Sprintf("t%d", n.Add(1)%int64(shape.topics))
				for pb.Next() {
					if _, err := k.Publish(context.Background(), fleet.Operator, broker.Event{Topic: topic, Data: data}); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

// BenchmarkFsync is the floor of the machine: one small write and its fsync.
func BenchmarkFsync(b *testing.B) {
	f, err := os.Create(b.TempDir() + "/f")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for b.Loop() {
		if _, err := f.Write(make([]byte, 300)); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkIdle reports what a broker with a thousand subscriptions takes while nothing happens.
func BenchmarkIdle(b *testing.B) {
	k := newBench(b, b.TempDir(), func(c *broker.Config) { c.Observe = nil })
	var names []string
	for i := range 1000 {
		names = append(names, fmt.Sprintf("s%d", i))
	}
	k.Install(shop(names...))
	b.ResetTimer()
	start := cpu()
	for b.Loop() {
		time.Sleep(time.Second)
	}
	b.ReportMetric(100*(cpu()-start).Seconds()/b.Elapsed().Seconds(), "%cpu")
	b.ReportMetric(float64(runtime.NumGoroutine()), "goroutines")
	b.ReportMetric(rss(), "MB-rss")
}

func cpu() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func rss() (mb float64) {
	data, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := strings.Cut(string(data), "VmRSS:")
	_, _ = fmt.Sscan(rest, &mb)
	return mb / 1024
}
