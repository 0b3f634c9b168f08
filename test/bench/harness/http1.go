package harness

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

var request = []byte("GET /some/path?with=query HTTP/1.1\r\nHost: server\r\nUser-Agent: hop/1\r\nAccept: */*\r\n\r\n")

// HTTP1 asks at addresses, with commas between them, on kept-alive connections for answers of 100 bytes.
func HTTP1(connections int) Load {
	return func(ctx context.Context, address string, until time.Time, rate Rate) ([]time.Duration, error) {
		conns, err := dialAll(address, connections)
		if err != nil {
			return nil, err
		}
		defer closeConns(conns)
		return together(len(conns), func(i int) ([]time.Duration, error) {
			b := make([]byte, 4<<10)
			return paced(ctx, until, rate, len(conns), func(time.Time) error {
				_ = conns[i].SetDeadline(time.Now().Add(10 * time.Second))
				return ask(conns[i], b)
			})
		})
	}
}

// HTTP1Each asks on a new connection each time, so many at a time.
func HTTP1Each(askers int) Load {
	return func(ctx context.Context, address string, until time.Time, rate Rate) ([]time.Duration, error) {
		return together(askers, func(int) ([]time.Duration, error) {
			b := make([]byte, 4<<10)
			return paced(ctx, until, rate, askers, func(time.Time) error {
				c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
				if err != nil {
					return err
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				return ask(c, b)
			})
		})
	}
}

// Idle opens n connections, makes one request on each, and leaves them open until closed.
func Idle(address string, n int) (closeAll func(), err error) {
	conns := make([]net.Conn, n)
	_, err = together(askers, func(i int) ([]time.Duration, error) {
		b := make([]byte, 4<<10)
		for j := i; j < n; j += askers {
			c, err := net.Dial("tcp", address)
			if err != nil {
				return nil, fmt.Errorf("connection %d of %d: %w", j+1, n, err)
			}
			conns[j] = c
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			if err := ask(c, b); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
	return func() { closeConns(conns) }, err
}

// askers is how many connections are opened at a time.
const askers = 32

// dialAll spreads n connections over the addresses.
func dialAll(addresses string, n int) ([]net.Conn, error) {
	var conns []net.Conn
	all := strings.Split(addresses, ",")
	for i := range n {
		c, err := net.Dial("tcp", all[i%len(all)])
		if err != nil {
			closeConns(conns)
			return nil, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

func closeConns(conns []net.Conn) {
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
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
