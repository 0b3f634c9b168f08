package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
)

func (a *app) cron() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cron", Short: "Publish messages again and again, as a crontab says", Args: within(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.cronList(), a.cronAdd(), a.cronRemove())
	return cmd
}

func (a *app) cronList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "list", Short: "List schedules: those of manifests, and those that were added", Args: within(0, 0)}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print a list")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, _ []string) error {
		all, err := c.Crons(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return a.printJSON(orEmpty(all))
		}
		if len(all) == 0 {
			fmt.Fprintln(a.out, "there are no schedules: a manifest declares one under `schedules`, or `shoal cron add` does")
			return nil
		}
		t := &table{}
		t.add("SCHEDULE", "WHEN", "NEXT", "TOPIC", "DATA", "DECLARED")
		for _, one := range all {
			t.add(one.Name, one.Spec, one.Next.Local().Format(time.DateTime), one.Topic, dataText(one.Data), one.Declared)
		}
		_, err = fmt.Fprintln(a.out, strings.Join(t.lines(), "\n"))
		return err
	})
	return cmd
}

func (a *app) cronAdd() *cobra.Command {
	var data, contentType, key, zone string
	var attributes []string
	cmd := &cobra.Command{
		Use: "add NAME TOPIC WHEN", Short: "Add a schedule of the operator's", Args: within(3, 3),
		Long: "Add a schedule of the operator's. WHEN is a line of a crontab in quotes (minute, hour, day of month, month, day of week), @hourly,\n" +
			"@daily and their like, or '@every 90s'. Times that pass while the fleet is down come once, when it is up again.",
		Example: "  shoal cron add nightly reports.due '0 3 * * *' --zone Europe/Berlin -d '{\"kind\":\"nightly\"}'",
	}
	cmd.Flags().StringVarP(&data, "body", "d", "", "the `DATA` of each message; @FILE, or - for standard input")
	cmd.Flags().StringVar(&contentType, "type", "", "the data's media `TYPE` (default: application/json where it is JSON)")
	cmd.Flags().StringArrayVarP(&attributes, "header", "H", nil, "an attribute of each message, `NAME: VALUE`")
	cmd.Flags().StringVar(&key, "key", "", "the ordering `KEY` of each message")
	cmd.Flags().StringVar(&zone, "zone", "", "the time `ZONE` that WHEN means, such as Europe/Berlin (default: UTC)")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, args []string) error {
		p, err := a.publication(args[1], data, contentType, nil)
		if err != nil {
			return err
		}
		add := fleet.Cron{Name: args[0], Topic: args[1], Spec: args[2], Data: p.Data, Key: key}
		if add.Attributes, err = parseAttributes(attributes); err != nil {
			return err
		}
		if len(p.Data) > 0 && add.Attributes["Content-Type"] == "" {
			add.Attributes["Content-Type"] = p.ContentType
		}
		if zone != "" {
			add.Spec = "CRON_TZ=" + zone + " " + add.Spec
		}
		made, err := c.AddCron(ctx, add)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s publishes to %s next at %s\n", made.Name, made.Topic, made.Next.Local().Format(time.DateTime))
		return nil
	})
	return cmd
}

func (a *app) cronRemove() *cobra.Command {
	cmd := &cobra.Command{Use: "remove NAME...", Short: "End schedules that no manifest declares", Args: within(1, -1)}
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, args []string) error {
		for _, name := range args {
			if err := c.RemoveCron(ctx, name); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s is removed\n", name)
		}
		return nil
	})
	return cmd
}
