package sidecar

import (
	"context"
	"fmt"
	"net"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/proxy"
)

// StandIn opens loopback listeners for a process outside Shoal that takes a service's place (in an IDE,
// say), and returns the variables that name them: those that explicit mode gives to the service itself.
// Whoever reaches them acts as the service. They are served until ctx ends.
func (m *Manager) StandIn(ctx context.Context, manifest *fleet.Manifest, credential string) (env []string, err error) {
	src := proxy.Source{Service: manifest.Service}
	var open []net.Listener
	defer func() {
		if err != nil {
			closeListeners(open)
		}
	}()
	listeners := m.listenersFor(manifest, credential)
	env = m.pubsubEnv(manifest)
	for i := range listeners {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, fmt.Errorf("a listener for %s: %w", listeners[i].Name, err)
		}
		open = append(open, ln)
		listeners[i].Address = ln.Addr().String()
		env = append(env, listeners[i].variables()...)
	}
	context.AfterFunc(ctx, func() { closeListeners(open) })
	for i := range listeners {
		go func() { _ = m.serveListener(ctx, open[i], &listeners[i], src) }() // it ends with ctx
	}
	return env, nil
}

func closeListeners(open []net.Listener) {
	for _, l := range open {
		_ = l.Close()
	}
}

// serveListener serves one listener of explicit mode for src.
func (m *Manager) serveListener(ctx context.Context, ln net.Listener, l *listener, src proxy.Source) error {
	if l.Forward {
		return m.cfg.Proxy.ServeForward(ctx, ln, src)
	}
	return m.cfg.Proxy.ServeNamed(ctx, ln, src, l.Host, l.Port)
}
