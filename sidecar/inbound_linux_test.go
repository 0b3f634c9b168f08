package sidecar

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/shoalrun/shoal/fleet"
)

// ask sends a request to a port of an application and returns the body of the answer.
func ask(sc *Sidecar, port uint16) string {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := sc.Dial(ctx, port)
	if err != nil {
		return err.Error()
	}
	defer c.Close()
	fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n")
	b, _ := io.ReadAll(c)
	_, body, _ := strings.Cut(string(b), "\r\n\r\n")
	return body
}

func dials(sc *Sidecar, port uint16) bool {
	c, err := sc.Dial(context.Background(), port)
	if err == nil {
		_ = c.Close()
	}
	return err == nil
}

func TestFiveServicesOnOnePort(t *testing.T) {
	needNetns(t)
	s := newStand(t)
	var all []*Sidecar
	for _, host := range []string{"", "127.0.0.1", "[::1]", "192.0.2.1", "0.0.0.0"} {
		id := fmt.Sprintf("orders-%d", len(all)+1)
		all = append(all, s.launch(fleet.Netns, id, app(t, "serve", host+":8080")))
	}
	for _, sc := range all {
		eventually(t, sc.Assignment().Instance+" answers", func() bool {
			return strings.HasPrefix(ask(sc, 8080), sc.Assignment().Instance+" at ")
		})
	}
	if dials(all[0], 8081) {
		t.Error("a port on which nobody listens was dialed")
	}
}

// A port that the application's own calls are captured on, or 53, can be listened on, too.
func TestInboundIsNeverCaptured(t *testing.T) {
	needNetns(t)
	s := newStand(t)
	for _, port := range []uint16{53, 5432} {
		sc := s.launch(fleet.Netns, fmt.Sprintf("orders-%d", port), app(t, "serve", fmt.Sprintf(":%d", port)))
		eventually(t, fmt.Sprintf("port %d answers", port), func() bool {
			return strings.HasPrefix(ask(sc, port), sc.Assignment().Instance+" at ")
		})
	}
}

func TestDialEndsWithItsContext(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		sc := newStand(t).launch(mode, "orders-1", "sleep 60")
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, err := sc.Dial(ctx, 8080); err == nil {
			t.Error("a dial whose context had ended went through")
		}
	})
}

func TestAttachedWhileItRuns(t *testing.T) {
	bothModes(t, func(t *testing.T, mode fleet.Mode) {
		s := newStand(t)
		sc := s.launch(mode, "orders-1", "sleep 60")
		if !s.proxy.isAttached("orders-1") {
			t.Error("a running instance is not attached")
		}
		if err := sc.Stop(context.Background(), time.Second); err != nil {
			t.Fatal(err)
		}
		if s.proxy.isAttached("orders-1") {
			t.Error("a stopped instance is attached")
		}
	})
}
