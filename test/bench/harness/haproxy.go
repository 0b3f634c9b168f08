package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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

// HAProxySide is one way through HAProxy: from address to server, with what follows the words bind and
// server. A configuration has each name once.
func HAProxySide(name, address, bind, server, options string) string {
	return fmt.Sprintf("frontend f%[1]s\n  bind %[2]s %[3]s\n  default_backend b%[1]s\nbackend b%[1]s\n  server s %[4]s pool-max-conn 1000 %[5]s\n",
		name, address, bind, server, options)
}

// HAProxy runs HAProxy with a configuration, until it listens on address.
func HAProxy(ctx context.Context, dir, address, config string) (*exec.Cmd, error) {
	path, err := exec.LookPath("haproxy")
	if err != nil {
		return nil, errors.New("haproxy is not installed (apt-get install haproxy)")
	}
	f, err := os.CreateTemp(dir, "haproxy-*.cfg")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.WriteFile(f.Name(), []byte(config), 0o600), f.Close()); err != nil {
		return nil, err
	}
	return Start(ctx, address, path, "-db", "-f", filepath.Clean(f.Name()))
}
