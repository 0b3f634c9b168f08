//go:build unix

package broker_test

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// BenchmarkRawJetStream is what BenchmarkPublish is compared with: the same publishers, each of whose messages is a message of
// JetStream, with SyncAlways.
func BenchmarkRawJetStream(b *testing.B) {
	for _, shape := range []struct{ publishers, topics int }{{1, 1}, {64, 1}, {64, 64}, {512, 1}} {
		b.Run(fmt.Sprintf("publishers=%d/topics=%d", shape.publishers, shape.topics), func(b *testing.B) {
			js := rawJetStream(b)
			data := make([]byte, 256)
			var n atomic.Int64
			b.SetParallelism((shape.publishers + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0))
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				subject := fmt.Sprintf("raw.t%d", n.Add(1)%int64(shape.topics))
				for pb.Next() {
					if _, err := js.Publish(b.Context(), subject, data); err != nil {
						b.Fatal(err)
					}
				}
			})
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}

func rawJetStream(b *testing.B) jetstream.JetStream {
	s, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, JetStream: true, StoreDir: b.TempDir(), SyncAlways: true})
	if err != nil {
		b.Fatal(err)
	}
	s.Start()
	b.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(10 * time.Second) {
		b.Fatal("the server does not become ready")
	}
	conn, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err == nil {
		_, err = js.CreateStream(b.Context(), jetstream.StreamConfig{Name: "RAW", Subjects: []string{"raw.*"}, Storage: jetstream.FileStorage})
	}
	if err != nil {
		b.Fatal(err)
	}
	return js
}
