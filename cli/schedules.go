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

func (a *app) scheduled() *cobra.Command {
	cmd := &cobra.Command{
		Use: "scheduled", Short: "Look at messages that wait for their time, and take them back", Args: within(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.scheduledList(), a.scheduledCancel())
	return cmd
}

// scheduledShown is how many messages are listed unless more are asked for.
const scheduledShown = 100

func (a *app) scheduledList() *cobra.Command {
	var asJSON bool
	var most int
	cmd := &cobra.Command{Use: "list [TOPIC]", Short: "List messages that wait, soonest first", Args: within(0, 1)}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print messages as JSON, one a line, without their data")
	cmd.Flags().IntVar(&most, "max", scheduledShown, "how many, at most")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, args []string) error {
		t := &table{}
		t.add("MESSAGE", "DUE", "TOPIC", "PUBLISHER", "KEY", "ATTRIBUTES")
		shown, total, err := eachScheduled(ctx, c, strings.Join(args, ""), most, func(m *fleet.Message) {
			if asJSON {
				_ = a.printJSONLine(m)
				return
			}
			t.add(m.ID, m.NotBefore.Local().Format(time.DateTime), m.Topic, m.Publisher, printable(m.Key), attributesText(m))
		})
		if err != nil || asJSON {
			return err
		}
		if shown == 0 {
			fmt.Fprintln(a.out, "no message waits for its time")
			return nil
		}
		fmt.Fprintln(a.out, strings.Join(t.lines(), "\n"))
		if shown == most && total > shown {
			fmt.Fprintf(a.out, "%d wait in all; --max shows more\n", total)
		}
		return nil
	})
	return cmd
}

// eachScheduled calls each with the messages of a topic, or of all, that wait; with at most most of them.
func eachScheduled(ctx context.Context, c *api.Client, topic string, most int, each func(*fleet.Message)) (shown, total int, err error) {
	for after := ""; shown < most; {
		page, err := c.Scheduled(ctx, api.ScheduledRequest{Topic: topic, After: after, Max: min(most-shown, scheduledShown)})
		if err != nil {
			return shown, total, err
		}
		for i := range page.Messages {
			each(&page.Messages[i])
		}
		shown, total, after = shown+len(page.Messages), page.Total, page.Next
		if after == "" {
			break
		}
	}
	return shown, total, nil
}

func attributesText(m *fleet.Message) string {
	var parts []string
	for _, name := range sortedNames(m.Attributes) {
		parts = append(parts, printable(name+"="+m.Attributes[name]))
	}
	return dataText([]byte(strings.Join(parts, " ")))
}

func (a *app) scheduledCancel() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cancel ID...", Short: "Take messages back before they are delivered", Args: within(1, -1),
		Example: "  id=$(shoal publish orders.reminder -d '{\"order\":7}' --delay 24h)\n  shoal scheduled cancel $id",
	}
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, args []string) error {
		for _, id := range args {
			if err := c.CancelScheduled(ctx, id); err != nil {
				return err
			}
			fmt.Fprintf(a.out, "%s is cancelled\n", id)
		}
		return nil
	})
	return cmd
}
