package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/shoalrun/shoal/test/bench/harness"
)

// raw is JetStream as it comes, with one stream for all subjects shared.*, and one each for own.t0 and so on, where they are asked for.
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
	for i := range topics {
		if err := r.stream(ctx, topicName(i), "own."+topicName(i)); err != nil {
			r.stop()
			return nil, err
		}
	}
	return r, nil
}

// runServer is a process of its own that leaves syncing to the operating system. It prints the address that it found for itself.
func runServer(ctx context.Context, o options) error {
	s, err := startServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, StoreDir: filepath.Join(o.dir, "raw")})
	if err != nil {
		return err
	}
	fmt.Println(s.ClientURL())
	<-ctx.Done()
	s.Shutdown()
	s.WaitForShutdown()
	return nil
}

// startProcess starts it, and returns its address.
func startProcess(ctx context.Context, dir string) (string, error) {
	c := exec.CommandContext(ctx, os.Args[0], "-role", "jetstream", "-dir", dir)
	c.Stderr = os.Stderr
	harness.EndWithParent(c)
	out, err := c.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := c.Start(); err != nil {
		return "", err
	}
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("JetStream tells no address: %w", err)
	}
	return strings.TrimSpace(url), nil
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
		err = r.stream(ctx, sharedStream, "shared.*")
	}
	if err != nil {
		conn.Close()
	}
	return r, err
}

// sharedStream is the name of the one that all subjects share.
const sharedStream = "SHARED"

func (r *raw) stream(ctx context.Context, name, subject string) error {
	_, err := r.CreateStream(ctx, jetstream.StreamConfig{Name: name, Subjects: []string{subject}, Storage: jetstream.FileStorage})
	return err
}
