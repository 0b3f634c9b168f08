package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/shoalrun/shoal/test/bench/harness"
	"github.com/shoalrun/shoal/test/bench/rows"
)

// bulk is one comparison of bytes a second.
type bulk struct {
	name string
	mode string // large: bodies of a megabyte; tcp: a tunnel
	two  bool   // two nodes, by TLS; else one hop
	goal float64
}

var bulks = []bulk{
	{"1 MB bodies, plain", "large", false, 1},
	{"1 MB bodies, two nodes, mTLS", "large", true, 1},
	{"TCP tunnel, plain", "tcp", false, 1},
	{"TCP tunnel, two nodes, mTLS", "tcp", true, 0},
}

func (b bulk) measure(ctx context.Context, o options, dir string) error {
	upstream, err := harness.StartUpstream(ctx, b.mode)
	if err != nil {
		return err
	}
	mode := "http"
	if b.mode == "tcp" {
		mode = "tcp"
	}
	ours, err := startShoal(ctx, o, dir, chain{name: b.name, upstream: upstream, pairs: 1, mode: mode, one: !b.two})
	if err != nil {
		return err
	}
	sides := []*harness.Side{ours}
	if _, err := harness.Installed("haproxy"); err == nil {
		peer, err := b.haproxy(ctx, dir, upstream, mode)
		if err != nil {
			return err
		}
		sides = append(sides, peer)
	}
	speeds := make([][]float64, len(sides))
	for round := range o.Rounds + 1 {
		for i, s := range sides {
			v, err := b.speed(ctx, s.Address, o.Time)
			if err == nil && v == 0 {
				err = errors.New("nothing came through")
			}
			if err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
			if round > 0 {
				speeds[i] = append(speeds[i], v)
			}
		}
	}
	harness.Stop(ours.Processes, o.Profile)
	return rows.Save(o.Rows, b.row(sides, speeds))
}

func (b bulk) row(sides []*harness.Side, speeds [][]float64) rows.Row {
	fmt.Printf("\n%s, MB/s\n", b.name)
	for i, s := range sides {
		fmt.Printf("  %-10s %6.0f, the median of %.0f\n", s.Name, harness.Median(speeds[i]), speeds[i])
	}
	r := rows.Row{Row: b.name, Unit: "MB/s", Ours: harness.Median(speeds[0])}
	if len(sides) == 1 {
		r.Skipped = harness.Without("haproxy")
		return r
	}
	r.Peer = harness.Median(speeds[1])
	r.Ratio = r.Ours / r.Peer
	if b.goal > 0 {
		r.Sense, r.Goal = ">=", b.goal
	}
	return r
}

func (b bulk) haproxy(ctx context.Context, dir, upstream, mode string) (*harness.Side, error) {
	if b.two {
		return haproxies(ctx, dir, upstream, 1, mode, false, true)
	}
	return harness.OneHAProxy(ctx, dir, mode, 4000, upstream, "")
}

// speed is how many megabytes a second come through, on four connections.
func (b bulk) speed(ctx context.Context, address string, length time.Duration) (float64, error) {
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		sum  int64
		errs []error
	)
	began := time.Now()
	for range 4 {
		wg.Go(func() {
			n, err := b.pull(ctx, address, began.Add(length))
			mu.Lock()
			defer mu.Unlock()
			sum += n
			errs = append(errs, err)
		})
	}
	wg.Wait()
	return float64(sum) / harness.Megabyte / time.Since(began).Seconds(), errors.Join(errs...)
}

// pull reads what one connection brings until the time given.
func (b bulk) pull(ctx context.Context, address string, until time.Time) (int64, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(until.Add(10 * time.Second))
	if b.mode == "tcp" {
		return bothWays(c, until)
	}
	total := int64(0)
	for r := bufio.NewReaderSize(c, 64<<10); total == 0 || time.Now().Before(until); {
		if _, err := io.WriteString(c, "GET /large HTTP/1.1\r\nHost: server\r\n\r\n"); err != nil {
			return total, err
		}
		for line := "-"; line != "\r\n"; {
			if line, err = r.ReadString('\n'); err != nil {
				return total, err
			}
		}
		n, err := io.CopyN(io.Discard, r, harness.Megabyte)
		if total += n; err != nil {
			return total, err
		}
	}
	return total, nil
}

// bothWays sends until the time given, and counts what comes meanwhile and until the server has seen that end.
func bothWays(c net.Conn, until time.Time) (int64, error) {
	go func() {
		for block := make([]byte, 64<<10); time.Now().Before(until); {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
		_ = c.(*net.TCPConn).CloseWrite() // the server ends with it
	}()
	return io.Copy(io.Discard, c)
}
