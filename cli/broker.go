package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
)

func (a *app) broker() *cobra.Command {
	cmd := &cobra.Command{
		Use: "broker", Short: "Say where the broker's messages lie; move them, back them up, restore them", Args: within(0, 0),
		RunE: a.asking(func(ctx context.Context, c *api.Client, _ []string) error {
			st, err := c.Status(ctx)
			if err != nil {
				return err
			}
			if st.Broker.Engine == "embedded" {
				fmt.Fprintln(a.out, "messages with the hub (embedded)")
			}
			for _, line := range engineLines(a.styleOf(a.out), st.Broker) {
				fmt.Fprintln(a.out, line)
			}
			return nil
		}),
	}
	cmd.AddCommand(a.brokerMove(), a.brokerBackup(), a.brokerRestore(), a.brokerAdopt())
	return cmd
}

func (a *app) brokerMove() *cobra.Command {
	r := api.MoveRequest{}
	var to string
	cmd := &cobra.Command{
		Use: "move --to URL", Short: "Move all messages to a NATS server or cluster, or back, while the fleet works", Args: within(0, 0),
		Long: "Move all messages, cursors, dead letters, scheduled messages and resources to a NATS server or cluster, or back (--to embedded),\n" +
			"while the fleet works. Publishes are held for the last step. Whatever ends it before leaves everything as it was.",
		Example: "  shoal broker move --to nats://nats-1:4222 --creds shoal.creds --monitor http://nats-1:8222 --dry-run\n  shoal broker move --to embedded",
	}
	flags := cmd.Flags()
	flags.StringVar(&to, "to", "", "`URL` of the servers, or `embedded`; what shoal.work says of the same servers holds, too")
	flags.BoolVar(&r.Dry, "dry-run", false, "say what would be moved, and whether the servers would take it")
	flags.StringVar(&r.Engine.Creds, "creds", "", "a credentials `FILE` of the account")
	flags.StringVar(&r.Engine.CA, "ca", "", "a `FILE` of the authorities that sign the servers' certificates")
	flags.StringVar(&r.Engine.Cert, "cert", "", "a `FILE` with the broker's certificate, with --key")
	flags.StringVar(&r.Engine.Key, "key", "", "a `FILE` with its private key")
	flags.StringSliceVar(&r.Engine.Monitor, "monitor", nil, "the monitoring `URL` of each server: proof that it syncs")
	flags.StringVar(&r.Engine.System, "system", "", "a credentials `FILE` of the system account: another proof")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if to == "" {
			return usagef("shoal broker move: say where: --to URL, or --to embedded")
		}
		if to != "embedded" {
			if err := checkEngine(to); err != nil {
				return err
			}
			if err := checkMonitors(r.Engine.Monitor); err != nil {
				return err
			}
			r.Engine.URL = to
		}
		for _, path := range []*string{&r.Engine.Creds, &r.Engine.CA, &r.Engine.Cert, &r.Engine.Key, &r.Engine.System} {
			if err := absolute(path); err != nil {
				return err
			}
		}
		return a.asking(func(ctx context.Context, c *api.Client, _ []string) error {
			m, err := c.Move(ctx, r, func(line string) { fmt.Fprintln(a.out, line) })
			if err != nil {
				return err
			}
			a.showParts(m)
			if m.Dry {
				_, err = fmt.Fprintf(a.out, "would be moved from %s to %s; without --dry-run they are\n", m.From, m.To)
				return err
			}
			_, err = fmt.Fprintf(a.out, "moved from %s to %s\n", m.From, m.To)
			return err
		})(cmd, args)
	}
	return cmd
}

func absolute(path *string) (err error) {
	if *path != "" {
		*path, err = filepath.Abs(*path)
	}
	return err
}

func (a *app) showParts(m fleet.EngineMove) {
	t := &table{}
	t.add("WHAT", "MESSAGES", "BYTES")
	for _, p := range m.Parts {
		t.add(p.Name, fmt.Sprint(p.Messages), fmt.Sprint(p.Bytes))
	}
	for _, line := range t.lines() {
		fmt.Fprintln(a.out, line)
	}
}

func (a *app) brokerBackup() *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE|FOLDER", Short: "Write the broker's state to a file, while the fleet works", Args: within(1, 1),
		Long: "Write messages (but those with durability memory), cursors, dead letters, scheduled messages, resources and schemas, as of one moment, to a\n" +
			"new file; into a folder under a name of its own. The file holds what was published: keep it as safe as that.",
		RunE: a.asking(func(ctx context.Context, c *api.Client, args []string) error {
			path, err := filepath.Abs(args[0])
			if err != nil {
				return err
			}
			if info, err := os.Stat(path); err == nil && info.IsDir() {
				path = filepath.Join(path, "shoal-"+a.now().UTC().Format("20060102T150405Z")+".backup")
			}
			m, err := c.Backup(ctx, path)
			if err != nil {
				return err
			}
			a.showParts(m)
			_, err = fmt.Fprintf(a.out, "written to %s\n", path)
			return err
		}),
	}
}

func (a *app) brokerRestore() *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Replace the broker's state by that of a backup; the hub starts anew with it", Args: within(1, 1),
	}
	cmd.Flags().BoolVar(&force, "force", false, "also where the broker has messages or resources, which are lost")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, args []string) error {
		path, err := filepath.Abs(args[0])
		if err != nil {
			return err
		}
		before, err := c.Info(ctx, api.Hub)
		if err != nil {
			return err
		}
		m, err := c.Restore(ctx, path, force)
		if err != nil {
			return err
		}
		a.showParts(m)
		if err := hubAnew(ctx, c, before); err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.out, "restored from %s\n", path)
		return err
	})
	return cmd
}

// hubAnew waits until another hub answers.
func hubAnew(ctx context.Context, c *api.Client, before api.Info) error {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	for {
		now, err := c.Info(ctx, api.Hub)
		if err == nil && !now.Started.Equal(before.Started) {
			return nil
		}
		if pause(ctx, 50*time.Millisecond) != nil {
			return errors.New("the backup is restored, and the hub does not answer yet: see hub.log in the data folder")
		}
	}
}

func (a *app) brokerAdopt() *cobra.Command {
	return &cobra.Command{
		Use: "adopt", Short: "Take over the messages of a hub that is gone for good", Args: within(0, 0),
		Long: "Take over the messages that another hub has on the NATS servers that shoal.work names. That hub, if it lives, is refused within\n" +
			"ten seconds. Servers that have lost their messages are begun anew on.",
		RunE: a.asking(func(ctx context.Context, c *api.Client, _ []string) error {
			from, err := c.Adopt(ctx)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "the messages on %s are this hub's now\n", from)
			return err
		}),
	}
}
