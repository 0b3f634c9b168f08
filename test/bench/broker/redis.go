package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"

	"github.com/shoalrun/shoal/test/bench/harness"
)

// redisProgram is the name of what runs it, and of the package.
const redisProgram = "redis-server"

// redis is a Redis of our own, with a stream that is synced before it answers. It syncs once for all clients whose commands have come meanwhile, as
// we do.
type redis struct {
	conns []redisConn
}

// redisConn speaks RESP (https://redis.io/docs/latest/develop/reference/protocol-spec/), as little as it takes.
type redisConn struct {
	net.Conn
	*bufio.Reader
}

// startRedis starts it, until ctx ends, with connections of so many clients.
func startRedis(ctx context.Context, dir string, clients int) (*redis, error) {
	program, err := harness.Installed(redisProgram)
	if err != nil {
		return nil, err
	}
	r := &redis{}
	err = harness.OnFreeAddresses(1, func(addresses []string) error { return r.start(ctx, program, dir, addresses[0]) })
	for range clients {
		if err == nil {
			err = r.dial(addressOf(r.conns))
		}
	}
	return r, err
}

func addressOf(conns []redisConn) string { return conns[0].RemoteAddr().String() }

func (r *redis) start(ctx context.Context, program, dir, address string) error {
	files, err := os.MkdirTemp(dir, "redis")
	if err != nil {
		return err
	}
	c := exec.CommandContext(ctx, program, "--bind", "127.0.0.1", "--port", portOf(address), "--dir", files, "--save", "",
		"--appendonly", "yes", "--appendfsync", "always")
	harness.EndWithParent(c)
	if err := c.Start(); err != nil {
		return err
	}
	return harness.Serves(ctx, c, func() error {
		r.close()
		return r.dial(address)
	})
}

func (r *redis) dial(address string) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	conn := redisConn{c, bufio.NewReader(c)}
	r.conns = append(r.conns, conn)
	_, err = conn.command("PING")
	return err
}

func (r *redis) close() {
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

// publish adds a message to the one stream.
func (r *redis) publish(_ context.Context, publisher int) error {
	_, err := r.conns[publisher].command("XADD", "stream", "*", "data", string(make([]byte, size)))
	return err
}

// command returns the answer's text.
func (c redisConn) command(words ...string) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	if _, err := io.WriteString(c.Conn, b.String()); err != nil {
		return "", err
	}
	line, err := c.ReadString('\n')
	if err == nil && strings.HasPrefix(line, "$") { // the length of a text
		line, err = c.ReadString('\n')
	}
	if err == nil && strings.HasPrefix(line, "-") {
		err = fmt.Errorf("redis: %s", strings.TrimSpace(line))
	}
	return line, err
}
