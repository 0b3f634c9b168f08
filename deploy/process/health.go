package process

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/shoalrun/shoal/fleet"
)

// How an instance is probed once it is ready. Before, probes follow each other within 10 to 250 ms.
const (
	probeTimeout  = 3 * time.Second
	probeInterval = 5 * time.Second
	probeFailures = 3 // in a row, until it counts as unhealthy
)

// probe is one way to ask an instance whether it is healthy.
type probe struct {
	what string // `GET /healthz on port 8080`, for failure lines
	ask  func(ctx context.Context) error
}

// probeOf returns how to probe an assignment's instance; ok is false for what can only be watched:
// a worker, or a service without ports.
func (s *Supervisor) probeOf(a fleet.Assignment) (p probe, ok bool) {
	port, ok := healthPort(&a.Manifest)
	if a.Worker != "" || !ok {
		return probe{}, false
	}
	dial := func(ctx context.Context) (net.Conn, error) { return s.config.Dial(ctx, a.Instance, port) }
	h := a.Manifest.Health
	switch {
	case h.GRPC:
		p = probe{"the gRPC health check", func(ctx context.Context) error { return askGRPC(ctx, dial) }}
	case h.Path != "":
		method := h.Method
		orDefault(&method, http.MethodGet)
		declared, _ := a.Manifest.Port(port)
		p = probe{method + " " + h.Path, func(ctx context.Context) error {
			return askHTTP(ctx, dial, declared.Protocol, method, a.Service, h.Path)
		}}
	default:
		p = probe{"a connection", func(ctx context.Context) error { return askTCP(ctx, dial) }}
	}
	p.what += fmt.Sprintf(" on port %d", port)
	return p, true
}

// healthPort is the port to probe: the declared one, else the default, else the first.
func healthPort(m *fleet.Manifest) (uint16, bool) {
	if m.Health.Port != 0 {
		return m.Health.Port, true
	}
	if p, ok := m.DefaultPort(); ok {
		return p.Number, true
	}
	if len(m.Ports) > 0 {
		return m.Ports[0].Number, true
	}
	return 0, false
}

type dialer func(ctx context.Context) (net.Conn, error)

func askTCP(ctx context.Context, dial dialer) error {
	c, err := dial(ctx)
	if err != nil {
		return err
	}
	return c.Close()
}

// askHTTP wants a status of 200 to 399. Redirects are not followed.
func askHTTP(ctx context.Context, dial dialer, protocol fleet.Protocol, method, host, path string) error {
	transport := &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		DisableKeepAlives: true, // an idle connection would keep the application from draining
		Protocols:         new(http.Protocols),
	}
	defer transport.CloseIdleConnections() // HTTP/2 keeps its connection all the same
	transport.Protocols.SetHTTP1(protocol != fleet.GRPC)
	transport.Protocols.SetUnencryptedHTTP2(protocol == fleet.GRPC)
	req, err := http.NewRequestWithContext(ctx, method, "http://"+host+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "shoal-health")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("it answered %d", resp.StatusCode)
	}
	return nil
}

// askGRPC speaks the gRPC health checking protocol (grpc/doc/health-checking.md) for the server as a whole.
func askGRPC(ctx context.Context, dial dialer) error {
	conn, err := grpc.NewClient("passthrough:///instance", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }),
		grpc.WithUserAgent("shoal-health"))
	if err != nil {
		return err
	}
	defer conn.Close()
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return errors.New("it does not serve grpc.health.v1.Health; register it, or leave `health` out of the manifest")
	case err != nil:
		return errors.New(status.Convert(err).Message())
	case resp.Status != healthpb.HealthCheckResponse_SERVING:
		return fmt.Errorf("it answered %s", resp.Status)
	}
	return nil
}

// gate probes until the instance is healthy; it returns why it never was, within its time, and
// nothing where it was, or where alive ended.
func (k *keeper) gate(alive context.Context) (failure string) {
	a := k.assignment()
	p, ok := k.s.probeOf(a)
	if !ok {
		pause(alive, k.s.config.Settle)
		return ""
	}
	begun, timeout := time.Now(), healthTimeout(a)
	deadline := begun.Add(timeout)
	if !k.course.ready {
		deadline = k.course.begun.Add(timeout)
	}
	for {
		err := k.ask(alive, p)
		if err == nil || alive.Err() != nil {
			return ""
		}
		if time.Now().After(deadline) && !k.debug() {
			return fmt.Sprintf("did not answer %s within %s; last: %s", p.what, span(timeout), why(err))
		}
		pause(alive, min(max(time.Since(begun)/20, 10*time.Millisecond), 250*time.Millisecond))
	}
}

// tend probes an instance that was ready until alive ends.
func (k *keeper) tend(alive context.Context) {
	p, ok := k.s.probeOf(k.assignment())
	if !ok {
		<-alive.Done()
	}
	for failures := 0; pause(alive, probeInterval); {
		err := k.ask(alive, p)
		if err == nil || k.debug() {
			failures = 0
			k.recovered()
			continue
		}
		failures++
		if failures >= probeFailures && alive.Err() == nil {
			k.set(func(s *fleet.InstanceStatus) {
				s.State, s.Failure = fleet.Unhealthy, "did not answer "+p.what+": "+why(err)
			})
		}
	}
}

// recovered makes an unhealthy instance ready again.
func (k *keeper) recovered() {
	if k.current().State == fleet.Unhealthy {
		k.set(func(s *fleet.InstanceStatus) { s.State, s.Failure = fleet.Ready, "" })
	}
}

func (k *keeper) ask(ctx context.Context, p probe) error {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	return p.ask(ctx)
}

// why is the core of a probe's error.
func why(err error) string {
	var op *net.OpError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, context.DeadlineExceeded):
		return "no answer within " + span(probeTimeout)
	case errors.As(err, &op):
		return op.Err.Error()
	}
	return strings.TrimPrefix(err.Error(), "connection error: desc = ")
}

// hint says where the application listens instead, if that can be found out, and where it should where
// that is not the port that it declares.
func (k *keeper) hint(p Process) string {
	hint := k.portHint(p)
	if ports := listening(pid(p)); len(ports) > 0 {
		hint += "; it listens on " + strings.Join(ports, ", ")
	}
	return hint
}

// portHint names the port that an application in explicit mode was given in place of its own.
func (k *keeper) portHint(p Process) string {
	moved, ok := p.(interface{ Port(declared uint16) uint16 })
	a := k.assignment()
	declared, any := healthPort(&a.Manifest)
	if !ok || !any || a.Worker != "" || moved.Port(declared) == declared {
		return ""
	}
	return fmt.Sprintf("; without a namespace of its own it must listen on %d, as PORT says, not on %d", moved.Port(declared), declared)
}
