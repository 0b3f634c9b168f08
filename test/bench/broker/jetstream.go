package main

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// raw is JetStream as it comes, with a stream for the subjects raw.*.
type raw struct {
	jetstream.JetStream
	stop func()
}

// startRaw runs it in this process, every write synced.
func startRaw(ctx context.Context, dir string) (*raw, error) {
	s, err := startServer(&server.Options{DontListen: true, StoreDir: filepath.Join(dir, "raw"), SyncAlways: true})
	if err != nil {
		return nil, err
	}
	r, err := openRaw(ctx, "", nats.InProcessServer(s))
	if err != nil {
		s.Shutdown()
		return nil, err
	}
	r.stop = func() { s.Shutdown(); s.WaitForShutdown() }
	return r, nil
}

// runServer is a process of its own that leaves syncing to the operating system.
func runServer(ctx context.Context, o options) error {
	host, text, err := net.SplitHostPort(o.address)
	if err != nil {
		return err
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return err
	}
	s, err := startServer(&server.Options{Host: host, Port: port, StoreDir: filepath.Join(o.dir, "raw")})
	if err != nil {
		return err
	}
	<-ctx.Done()
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}

func startServer(o *server.Options) (*server.Server, error) {
	o.NoSigs, o.JetStream = true, true
	s, err := server.NewServer(o)
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		s.Shutdown()
		return nil, errors.New("JetStream does not become ready")
	}
	return s, nil
}

func openRaw(ctx context.Context, url string, how ...nats.Option) (*raw, error) {
	conn, err := nats.Connect(url, how...)
	if err != nil {
		return nil, err
	}
	r := &raw{stop: conn.Close}
	r.JetStream, err = jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(window))
	if err == nil {
		_, err = r.CreateStream(ctx, jetstream.StreamConfig{Name: "RAW", Subjects: []string{"raw.*"}, Storage: jetstream.FileStorage})
	}
	if err != nil {
		conn.Close()
	}
	return r, err
}
