package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
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

func benchBulk(ctx context.Context, o options, dir string) error {
	for _, b := range bulks {
		if !strings.Contains(b.name, o.only) {
			continue
		}
		if err := b.measure(ctx, o, dir); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	return nil
}

func (b bulk) measure(ctx context.Context, o options, dir string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	upstream := harness.FreeAddress()
	if _, err := harness.Start(ctx, upstream, os.Args[0], "-role", "upstream", "-listen", upstream, "-protocol", b.mode); err != nil {
		return err
	}
	ours, err := b.shoal(ctx, o, dir, upstream)
	if err != nil {
		return err
	}
	peer, err := b.haproxy(ctx, dir, upstream)
	if err != nil {
		fmt.Println("without HAProxy:", err)
		return nil
	}
	speeds := map[*harness.Side][]float64{}
	for round := range o.rounds + 1 {
		for _, s := range []*harness.Side{ours, peer} {
			v, err := b.speed(ctx, s.Address, o.time)
			if err != nil {
				return fmt.Errorf("%s: %w", s.Name, err)
			}
			if round > 0 {
				speeds[s] = append(speeds[s], v)
			}
		}
	}
	harness.Stop(ours.Processes, o.profile)
	r := rows.Row{Row: b.name, Unit: "MB/s", Ours: harness.Median(speeds[ours]), Peer: harness.Median(speeds[peer])}
	r.Ratio = r.Ours / r.Peer
	if b.goal > 0 {
		r.Sense, r.Goal = ">=", b.goal
	}
	fmt.Printf("\n%s: shoal %.0f MB/s %.0f, haproxy %.0f MB/s %.0f, ratio %.2f\n", b.name, r.Ours, speeds[ours], r.Peer, speeds[peer], r.Ratio)
	return rows.Save(o.rows, r)
}

func (b bulk) shoal(ctx context.Context, o options, dir, upstream string) (*harness.Side, error) {
	protocol := "http"
	if b.mode == "tcp" {
		protocol = "tcp"
	}
	profile := func(role string) string { return harness.ProfileName(o.profile, b.name, role) }
	out, peer := harness.FreeAddress(), harness.FreeAddress()
	if !b.two {
		c, err := harness.Start(ctx, out, os.Args[0], "-role", "both", "-protocol", protocol, "-upstream", upstream, "-listen", out, "-profile", profile("both"))
		return harness.NewSide("shoal", out, c), err
	}
	second, err := harness.Start(ctx, peer, os.Args[0], "-role", "b", "-certs", dir, "-protocol", protocol, "-upstream", upstream, "-listen", "1", "-peer", peer, "-profile", profile("b"))
	if err != nil {
		return nil, err
	}
	first, err := harness.Start(ctx, out, os.Args[0], "-role", "a", "-certs", dir, "-protocol", protocol, "-upstream", upstream, "-listen", out, "-peer", peer, "-profile", profile("a"))
	return harness.NewSide("shoal", out, first, second), err
}

func (b bulk) haproxy(ctx context.Context, dir, upstream string) (*harness.Side, error) {
	mode := "http"
	if b.mode == "tcp" {
		mode = "tcp"
	}
	if b.two {
		return haproxies(ctx, dir, upstream, 1, mode, false, true)
	}
	out := harness.FreeAddress()
	c, err := harness.HAProxy(ctx, dir, out, harness.HAProxyHead(mode, 4000)+harness.HAProxySide("0", out, "", upstream, ""))
	return harness.NewSide("haproxy", out, c), err
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
	for r := bufio.NewReaderSize(c, 64<<10); time.Now().Before(until); {
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
