package harness

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
)

// Megabyte is the length of a large answer, in bytes.
const Megabyte = 1 << 20

// StartUpstream starts this program again as a server, and returns its address. Its flag -role is "upstream" then, and -protocol says what to
// speak.
func StartUpstream(ctx context.Context, protocol string) (string, error) {
	s, err := StartSide(ctx, "upstream", 1, os.Args[0], "-role", "upstream", "-protocol", protocol)
	if err != nil {
		return "", err
	}
	return s.Address, nil
}

// RunUpstream is that server.
func RunUpstream(ctx context.Context, protocol string) error {
	l, err := Inherited(1)
	if err != nil {
		return err
	}
	return Upstream(ctx, l[0], protocol)
}

// Upstream serves on a listener until ctx ends, as cheaply as it can. protocol is http or http2 (100 bytes
// of body for each request), grpc (100 bytes for each unary call, by grpc-go), large (HTTP/1.1, a megabyte)
// or tcp (bytes both ways, until the client's end).
func Upstream(ctx context.Context, l net.Listener, protocol string) error {
	context.AfterFunc(ctx, func() { l.Close() })
	switch protocol {
	case "http":
		return accept(l, func(c net.Conn) { answerEach(c, oneAnswer(100)) })
	case "large":
		large := oneAnswer(Megabyte)
		return accept(l, func(c net.Conn) { answerEach(c, large) })
	case "tcp":
		return accept(l, bothWays)
	case "http2":
		return accept(l, func(c net.Conn) { serveHTTP2(ctx, c) })
	case "grpc":
		return serveGRPC(l)
	}
	return fmt.Errorf("no upstream speaks %q", protocol)
}

// accept serves each connection in a goroutine, until l is closed.
func accept(l net.Listener, serve func(net.Conn)) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return nil
		}
		go func() {
			defer c.Close()
			serve(c)
		}()
	}
}

// bothWays sends while it takes what comes, and ends when that does. It is no echo, which reads only what it
// can write: of that, and of a kernel that takes no acknowledgement from who overruns its window while there is
// something to read, a connection may stand still for good (decision 40).
func bothWays(c net.Conn) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = io.Copy(io.Discard, c) // a connection that breaks ends, too
	}()
	for block := make([]byte, 64<<10); ; {
		select {
		case <-ended:
			return
		default:
		}
		if _, err := c.Write(block); err != nil {
			return
		}
	}
}

func oneAnswer(length int) []byte {
	return []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: " + strconv.Itoa(length) + "\r\n\r\n" + strings.Repeat("x", length))
}

// answerEach answers every request with the same bytes.
func answerEach(c net.Conn, answer []byte) {
	b := make([]byte, 8<<10)
	for n := 0; ; {
		m, err := c.Read(b[n:])
		if err != nil {
			return
		}
		n += m
		if !bytes.HasSuffix(b[:n], []byte("\r\n\r\n")) {
			continue
		}
		n = 0
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}
