package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

var request = []byte("GET /some/path?with=query HTTP/1.1\r\nHost: server\r\nUser-Agent: hop/1\r\nAccept: */*\r\n\r\n")

// result is one measurement of one proxy.
type result struct {
	requests int
	cpu      time.Duration // of the proxy, in all
	elapsed  time.Duration
	p50, p99 time.Duration
}

// measure loads s for a while, at rate or, where that is 0, as fast as answers come.
func measure(ctx context.Context, o options, s *side, rate int) (result, error) {
	conns, err := dialAll(s.address, o.conns)
	if err != nil {
		return result{}, err
	}
	defer closeAll(conns)
	before, err := s.cpuTime()
	if err != nil {
		return result{}, err
	}
	began := time.Now()
	latencies, err := loadAll(ctx, conns, began.Add(o.time), rate)
	elapsed := time.Since(began)
	after, cpuErr := s.cpuTime()
	if err := errors.Join(err, cpuErr); err != nil {
		return result{}, err
	}
	slices.Sort(latencies)
	n := len(latencies)
	if n == 0 {
		return result{}, errors.New("no request was answered")
	}
	return result{requests: n, cpu: after - before, elapsed: elapsed, p50: latencies[n/2], p99: latencies[n*99/100]}, nil
}

// cpuTime is what the proxy has used so far.
func (s *side) cpuTime() (time.Duration, error) {
	if s.process == nil {
		return 0, nil
	}
	return cpuTime(s.process.Process.Pid)
}

func dialAll(address string, n int) ([]net.Conn, error) {
	var conns []net.Conn
	for range n {
		c, err := net.Dial("tcp", address)
		if err != nil {
			closeAll(conns)
			return nil, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

func closeAll(conns []net.Conn) {
	for _, c := range conns {
		c.Close()
	}
}

func loadAll(ctx context.Context, conns []net.Conn, until time.Time, rate int) ([]time.Duration, error) {
	var (
		mu   sync.Mutex
		all  []time.Duration
		errs []error
		wg   sync.WaitGroup
	)
	every := time.Duration(0)
	if rate > 0 {
		every = time.Second * time.Duration(len(conns)) / time.Duration(rate)
	}
	for _, c := range conns {
		wg.Go(func() {
			took, err := load(ctx, c, until, every)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	return all, errors.Join(errs...)
}

// load asks again and again on one connection: every so often, from a start by chance.
func load(ctx context.Context, c net.Conn, until time.Time, every time.Duration) (took []time.Duration, err error) {
	b := make([]byte, 4<<10)
	due := time.Now()
	if every > 0 {
		due = due.Add(rand.N(every))
	}
	for ctx.Err() == nil && due.Before(until) {
		time.Sleep(time.Until(due))
		sent := time.Now()
		_ = c.SetDeadline(sent.Add(10 * time.Second))
		if err := ask(c, b); err != nil {
			return took, err
		}
		now := time.Now()
		took = append(took, now.Sub(sent))
		if due = due.Add(every); due.Before(now) {
			due = now
		}
	}
	return took, nil
}

func ask(c net.Conn, b []byte) error {
	if _, err := c.Write(request); err != nil {
		return err
	}
	n := 0
	for {
		m, err := c.Read(b[n:])
		if err != nil {
			return err
		}
		n += m
		if whole, err := answered(b[:n]); whole || err != nil {
			return err
		}
	}
}

// answered looks for the end of a 200 with 100 bytes of body.
func answered(b []byte) (bool, error) {
	if len(b) < 12 {
		return false, nil
	}
	if status, _ := strconv.Atoi(string(b[9:12])); status != 200 {
		return false, fmt.Errorf("answered %.200q: %w", b, io.ErrUnexpectedEOF)
	}
	return len(b) > 100 && string(b[len(b)-104:len(b)-100]) == "\r\n\r\n", nil
}
