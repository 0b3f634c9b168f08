package cli

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
)

// nodes lists the machines of the fleet, and lets others join and leave.
func (a *app) nodes() *cobra.Command {
	cmd := &cobra.Command{
		Use: "nodes", Short: "The machines of the fleet: list them, let another join, take one out", Args: within(0, 0),
		RunE: a.asking(func(ctx context.Context, c *api.Client, _ []string) error {
			nodes, err := c.Nodes(ctx)
			if err != nil {
				return err
			}
			a.printNodes(nodes)
			return nil
		}),
	}
	cmd.AddCommand(a.nodesToken(), a.nodesRevoke(), a.nodesRenew(), a.nodesRotate())
	return cmd
}

func (a *app) printNodes(nodes []fleet.NodeInfo) {
	for _, line := range nodeLines(a.styleOf(a.out), nodes) {
		fmt.Fprintln(a.out, line)
	}
}

func nodeLines(s style, nodes []fleet.NodeInfo) []string {
	t := &table{}
	t.add("NODE", "STATE", "INSTANCES", "MODE", "ADDRESS", "CERTIFICATE")
	for _, n := range nodes {
		name, state := n.Name, string(n.State)
		if n.Home {
			name += " (hub)"
		}
		if n.State == fleet.NodeAway {
			state = s.red(state)
		}
		t.add(name, state, strconv.Itoa(n.Instances), string(n.Mode), n.Address, expiry(n))
	}
	lines := t.lines()
	lines[0] = s.faint(lines[0])
	return lines
}

// span writes a time of minutes, hours and days.
func span(d time.Duration) string { return strings.TrimSuffix(d.Round(time.Minute).String(), "0s") }

// expiry says until when a node's certificate, or its token, is good.
func expiry(n fleet.NodeInfo) string {
	left := time.Until(n.Expires)
	switch {
	case n.Expires.IsZero():
		return ""
	case n.State == fleet.NodeRevoked:
		return "revoked"
	case n.State == fleet.NodeInvited:
		return "token good for " + span(left)
	case left <= 0:
		return "expired; it is renewed when the node is back"
	}
	return "good for " + span(left)
}

func (a *app) nodesToken() *cobra.Command {
	var r api.TokenRequest
	cmd := &cobra.Command{
		Use: "token NAME", Short: "Make a one-time token, and print the command by which a machine joins as node NAME", Args: within(1, 1),
		RunE: a.asking(func(ctx context.Context, c *api.Client, args []string) error {
			r.Node = args[0]
			t, err := c.Token(ctx, r)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.out, "shoal node --join %s --token %s\n", t.Address, t.Token)
			if warning := unreachable(t.Address); warning != "" {
				fmt.Fprintln(a.err, warning)
			}
			return nil
		}),
	}
	cmd.Flags().DurationVar(&r.Valid, "valid", time.Hour, "how long the token is good for")
	cmd.Flags().BoolVar(&r.Rejoin, "rejoin", false, "for a machine that takes the place of the node of that name")
	return cmd
}

func (a *app) nodesRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke NAME", Short: "Take a node out of the fleet: its certificate is refused from now on", Args: within(1, 1),
		RunE: a.asking(func(ctx context.Context, c *api.Client, args []string) error {
			if err := c.Revoke(ctx, args[0]); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "node %s is cut off; what it ran is started elsewhere where that is allowed\n", args[0])
			return nil
		}),
	}
}

func (a *app) nodesRenew() *cobra.Command {
	return &cobra.Command{
		Use: "renew", Short: "Renew the certificate of the node on this machine now, one that has expired too", Args: within(0, 0),
		RunE: a.asking(func(ctx context.Context, c *api.Client, _ []string) error {
			expires, err := c.Renew(ctx)
			if err != nil {
				return err
			}
			fmt.Fprintf(a.out, "renewed; good until %s\n", expires.Local().Format(time.DateTime))
			return nil
		}),
	}
}

func (a *app) nodesRotate() *cobra.Command {
	return &cobra.Command{
		Use: "rotate", Short: "Replace the fleet's root certificate, a step at a time", Args: within(0, 0),
		RunE: a.asking(func(ctx context.Context, c *api.Client, _ []string) error {
			text, err := c.Rotate(ctx)
			if err != nil {
				return err
			}
			fmt.Fprintln(a.out, text)
			return nil
		}),
	}
}

// unreachable warns of an address that no other machine can use.
func unreachable(address string) string {
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	switch {
	case err == nil && host == "":
		return "Put an address of this machine before the port: the hub listens on all of them."
	case ip != nil && ip.IsLoopback():
		return "That address is this machine's own. For other machines, write `peers: ADDRESS:7443` into shoal.work and start the fleet again."
	}
	return ""
}
