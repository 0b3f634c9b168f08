package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

var request = []byte("GET /some/path?with=query HTTP/1.1\r\nHost: server\r\nUser-Agent: hop/1\r\nAccept: */*\r\n\r\n")

// HTTP1 asks at addresses, with commas between them, on kept-alive connections for answers of 100 bytes.
func HTTP1(connections int) Load {
	return func(ctx context.Context, address string, until time.Time, rate int) ([]time.Duration, error) {
		conns, err := dialAll(address, connections)
		if err != nil {
			return nil, err
		}
		defer closeAll(conns)
		return together(len(conns), func(i int) ([]time.Duration, error) {
			b := make([]byte, 4<<10)
			return paced(ctx, until, every(rate, len(conns)), func() error {
				_ = conns[i].SetDeadline(time.Now().Add(10 * time.Second))
				return ask(conns[i], b)
			})
		})
	}
}

// dialAll spreads n connections over the addresses.
func dialAll(addresses string, n int) ([]net.Conn, error) {
	var conns []net.Conn
	all := strings.Split(addresses, ",")
	for i := range n {
		c, err := net.Dial("tcp", all[i%len(all)])
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

// together runs n askers side by side and gathers how long their answers took.
func together(n int, run func(i int) ([]time.Duration, error)) ([]time.Duration, error) {
	var (
		mu   sync.Mutex
		all  []time.Duration
		errs []error
		wg   sync.WaitGroup
	)
	for i := range n {
		wg.Go(func() {
			took, err := run(i)
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

// every is how often each of n askers asks, so that they make rate a second together; 0: at once again.
func every(rate, n int) time.Duration {
	if rate == 0 {
		return 0
	}
	return time.Second * time.Duration(n) / time.Duration(rate)
}

// paced asks again and again: every so often, from a start by chance.
func paced(ctx context.Context, until time.Time, every time.Duration, ask func() error) (took []time.Duration, err error) {
	due := time.Now()
	if every > 0 {
		due = due.Add(rand.N(every))
	}
	for ctx.Err() == nil && due.Before(until) {
		time.Sleep(time.Until(due))
		sent := time.Now()
		if err := ask(); err != nil {
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
