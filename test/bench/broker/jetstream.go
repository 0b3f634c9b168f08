package main

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// raw is JetStream as it comes, in this process, with a stream for the subjects raw.*.
type raw struct {
	jetstream.JetStream
	stop func()
}

func startRaw(ctx context.Context, dir string) (*raw, error) {
	s, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, JetStream: true, StoreDir: filepath.Join(dir, "raw"), SyncAlways: true})
	if err != nil {
		return nil, err
	}
	s.Start()
	r := &raw{stop: func() { s.Shutdown(); s.WaitForShutdown() }}
	if err := r.open(ctx, s); err != nil {
		r.stop()
		return nil, err
	}
	return r, nil
}

func (r *raw) open(ctx context.Context, s *server.Server) error {
	if !s.ReadyForConnections(10 * time.Second) {
		return errors.New("JetStream does not become ready")
	}
	conn, err := nats.Connect("", nats.InProcessServer(s))
	if err != nil {
		return err
	}
	if r.JetStream, err = jetstream.New(conn); err != nil {
		return err
	}
	_, err = r.CreateStream(ctx, jetstream.StreamConfig{Name: "RAW", Subjects: []string{"raw.*"}, Storage: jetstream.FileStorage})
	return err
}
