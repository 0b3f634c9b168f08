package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
)

func (a *app) forward() *cobra.Command {
	return &cobra.Command{
		Use: "forward SERVICE[:PORT] [LOCAL]", Short: "Reach a service's port from this host, until Ctrl-C", Args: within(1, 2),
		Long:              "Reach a service's port from this host, until Ctrl-C.\nLOCAL is a port or HOST:PORT; by default any free port on 127.0.0.1.",
		Example:           "  shoal forward orders 8080\n  shoal forward inventory:9000 127.0.0.1:9000",
		ValidArgsFunction: a.completeServices,
		RunE: a.asking(func(ctx context.Context, c *api.Client, args []string) error {
			service, port, err := servicePort(args[0])
			if err != nil {
				return err
			}
			local, err := localAddress(args[1:])
			if err != nil {
				return err
			}
			return a.forwardAll(ctx, c, service, port, local)
		}),
	}
}

// servicePort takes SERVICE or SERVICE:PORT apart; port 0 is the default port.
func servicePort(arg string) (service string, port uint16, err error) {
	service, number, given := strings.Cut(arg, ":")
	if !given {
		return service, 0, nil
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err != nil || n == 0 || service == "" {
		return "", 0, usagef("shoal forward: %q is not SERVICE or SERVICE:PORT", arg)
	}
	return service, uint16(n), nil
}

func localAddress(args []string) (string, error) {
	if len(args) == 0 {
		return "127.0.0.1:0", nil
	}
	if n, err := strconv.ParseUint(args[0], 10, 16); err == nil {
		return net.JoinHostPort("127.0.0.1", strconv.FormatUint(n, 10)), nil
	}
	if _, _, err := net.SplitHostPort(args[0]); err != nil {
		return "", usagef("shoal forward: %q is neither a port nor HOST:PORT", args[0])
	}
	return args[0], nil
}

// forwardAll accepts until ctx ends. The first tunnel is tried at once: a service that is not
// there is better known now than with the first connection.
func (a *app) forwardAll(ctx context.Context, c *api.Client, service string, port uint16, local string) error {
	probe, err := c.Forward(ctx, service, port)
	if err != nil {
		return err
	}
	probe.Close()
	l, err := net.Listen("tcp", local)
	if err != nil {
		return fmt.Errorf("this host's side of the tunnel cannot be opened: %w", err)
	}
	defer context.AfterFunc(ctx, func() { l.Close() })()
	fmt.Fprintf(a.out, "%s is on %s until Ctrl-C\n", service, l.Addr())
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return ctx.Err()
		}
		if err != nil {
			return err
		}
		open.Go(func() { a.forwardOne(ctx, c, service, port, conn) })
	}
}

func (a *app) forwardOne(ctx context.Context, c *api.Client, service string, port uint16, near net.Conn) {
	defer near.Close()
	far, err := c.Forward(ctx, service, port)
	if err != nil {
		fmt.Fprintf(a.err, "shoal: %v\n", err)
		return
	}
	defer far.Close()
	defer context.AfterFunc(ctx, func() { near.Close(); far.Close() })()
	api.Splice(near, near, far)
}
