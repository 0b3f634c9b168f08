package harness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
)

// HAProxyHead is what every configuration of HAProxy begins with; mode is http or tcp, and maxconn is how many
// connections it takes, for each of which it asks for two descriptors. Connections to
// servers are shared among clients (http-reuse always) and many are kept; TCP is spliced. Two threads, since
// Shoal has no more processors either. TLS is 1.3.
func HAProxyHead(mode string, maxconn int) string {
	more := "  timeout http-keep-alive 300s\n  http-reuse always\n"
	if mode == "tcp" {
		more = "  option splice-auto\n"
	}
	return fmt.Sprintf(`global
  nbthread 2
  maxconn %d
  no strict-limits
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-server-options ssl-min-ver TLSv1.3
  tune.bufsize 32768
defaults
  mode %s
  timeout connect 5s
  timeout client 300s
  timeout server 60s
%s`, maxconn, mode, more)
}

// HAProxyWay is one way through HAProxy: from its nth listener to server, with what follows the words bind and server.
func HAProxyWay(n int, bind, server, options string) string {
	return fmt.Sprintf("frontend f%[1]d\n  bind fd@%[2]d %[3]s\n  default_backend b%[1]d\nbackend b%[1]d\n  server s %[4]s pool-max-conn 1000 %[5]s\n",
		n, firstInherited+n, bind, server, options)
}

// HAProxy runs HAProxy with listeners and a configuration.
func HAProxy(ctx context.Context, dir string, listeners Listeners, config string) (*exec.Cmd, error) {
	path, err := Installed("haproxy")
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(dir, "haproxy-*.cfg")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.WriteFile(f.Name(), []byte(config), 0o600), f.Close()); err != nil {
		return nil, err
	}
	c := exec.CommandContext(ctx, path, "-db", "-f", f.Name())
	c.Stderr = quiet{os.Stderr}
	return c, start(c, listeners)
}

// quiet leaves out what HAProxy says of itself, and that the system allows it fewer descriptors than two for each connection that it would take: those
// that wait have one.
type quiet struct{ io.Writer }

func (q quiet) Write(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		if bytes.HasPrefix(line, []byte("[NOTICE]")) || bytes.Contains(line, []byte("FD limit")) {
			continue
		}
		if _, err := q.Writer.Write(line); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// OneHAProxy is one that stands before a server.
func OneHAProxy(ctx context.Context, dir, mode string, maxconn int, server, options string) (*Side, error) {
	listeners, err := Listen(1)
	if err != nil {
		return nil, err
	}
	s := NewSide("haproxy", listeners.String())
	c, err := HAProxy(ctx, dir, listeners, HAProxyHead(mode, maxconn)+HAProxyWay(0, options, server, options))
	s.Processes = []*exec.Cmd{c}
	return s, err
}
