package main

import (
	"bytes"
	"context"
	"net"
	"strings"
)

// answer has a body of 100 bytes.
var answer = []byte("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 100\r\n\r\n" + strings.Repeat("x", 100))

// runUpstream answers every request with the same bytes, as cheaply as Go's standard library can.
func runUpstream(ctx context.Context, listen string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { l.Close() })
	for {
		c, err := l.Accept()
		if err != nil {
			return nil
		}
		go serve(c)
	}
}

func serve(c net.Conn) {
	defer c.Close()
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
