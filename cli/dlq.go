package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
)

func (a *app) dlq() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dlq", Short: "Look at dead letters, mend them, and let them be delivered again", Args: within(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.dlqList(), a.dlqShow(), a.dlqEdit(), a.dlqRedrive(), a.dlqDrop())
	return cmd
}

// dlqPage is how many dead letters are asked for at once.
const dlqPage = 100

// eachLetter calls each with every dead letter of a subscription, or of all.
func eachLetter(ctx context.Context, c *api.Client, subscription string, each func(*fleet.DeadLetter)) error {
	for after := ""; ; {
		page, next, err := c.DeadLetters(ctx, api.DeadLettersRequest{Subscription: subscription, After: after, Max: dlqPage})
		if err != nil {
			return err
		}
		for i := range page {
			each(&page[i])
		}
		if next == "" {
			return nil
		}
		after = next
	}
}

func (a *app) dlqList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "list [SUBSCRIPTION]", Short: "List dead letters, oldest first", Args: within(0, 1)}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print dead letters as JSON, one a line, without their data")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, args []string) error {
		t := &table{}
		t.add("DEAD LETTER", "AGE", "ATTEMPTS", "KEY", "LAST ERROR")
		err := eachLetter(ctx, c, strings.Join(args, ""), func(d *fleet.DeadLetter) {
			if asJSON {
				_ = a.printJSONLine(d)
				return
			}
			t.add(d.ID, a.since(d.Time), strconv.FormatUint(d.Attempts+d.Earlier, 10), printable(d.Message.Key), lastError(d))
		})
		if err != nil || asJSON {
			return err
		}
		if len(t.rows) == 1 {
			fmt.Fprintln(a.out, "there are no dead letters")
			return nil
		}
		_, err = fmt.Fprintln(a.out, strings.Join(t.lines(), "\n"))
		return err
	})
	return cmd
}

func lastError(d *fleet.DeadLetter) string {
	if len(d.Failures) == 0 {
		return ""
	}
	return dataText([]byte(d.Failures[len(d.Failures)-1].Error))
}

func (a *app) dlqShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "show ID", Short: "Show a dead letter: its data, attributes, and every attempt", Args: within(1, 1)}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print it as JSON; data in base64")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, args []string) error {
		page, _, err := c.DeadLetters(ctx, api.DeadLettersRequest{ID: args[0]})
		if err != nil {
			return err
		}
		if asJSON {
			return a.printJSON(page[0])
		}
		a.showLetter(&page[0])
		return nil
	})
	return cmd
}

func (a *app) showLetter(d *fleet.DeadLetter) {
	s, m := a.styleOf(a.out), &d.Message
	fmt.Fprintf(a.out, "%s  given up by %s at %s, after %s%s\n", s.bold(d.ID), d.Subscription, d.Time.Local().Format(time.DateTime), plural(int(d.Attempts), "attempt"), earlier(d))
	fmt.Fprintf(a.out, "published by %s at %s, request %s\n", m.Publisher, m.Published.Local().Format(time.DateTime), m.RequestID)
	if d.TraceID != "" {
		fmt.Fprintf(a.out, "trace %s: `shoal why %s` tells the rest of it\n", d.TraceID, d.ID)
	}
	if m.Key != "" {
		fmt.Fprintf(a.out, "ordering key %s\n", printable(m.Key))
	}
	for _, name := range sortedNames(m.Attributes) {
		fmt.Fprintf(a.out, "  %s: %s\n", printable(name), printable(m.Attributes[name]))
	}
	a.failures(s, d)
	fmt.Fprintf(a.out, "\n%s\n\n", strings.TrimRight(payload(m.Data), "\n"))
	fmt.Fprintln(a.out, s.faint(fmt.Sprintf("`shoal dlq redrive %s %s` lets it be delivered again, `shoal dlq edit` mends it before, `shoal dlq drop` removes it", d.Subscription, d.ID)))
}

// earlier tells of a dead letter's lives before this one.
func earlier(d *fleet.DeadLetter) string {
	if d.Redriven == 0 {
		return ""
	}
	return fmt.Sprintf("; redriven %s before, after %s more", times(int(d.Redriven)), plural(int(d.Earlier), "attempt"))
}

// payload shows data as text, or says that they are none: what a terminal would obey is never written to it.
func payload(data []byte) string {
	lines := strings.Split(string(data), "\n")
	for i, line := range lines {
		lines[i] = printable(line)
	}
	if !utf8.Valid(data) || strings.IndexByte(string(data), 0) >= 0 {
		return plural(len(data), "byte") + " that are no text: `--json` has them in base64"
	}
	return strings.Join(lines, "\n")
}

// failures lists every attempt that is kept, in the lives between redrives.
func (a *app) failures(s style, d *fleet.DeadLetter) {
	if missing := int(d.Attempts+d.Earlier) - len(d.Failures); missing > 0 {
		fmt.Fprintln(a.out, s.faint(fmt.Sprintf("  of %s only the number is kept: there were too many", plural(missing, "attempt"))))
	}
	life := uint64(0)
	for _, f := range d.Failures {
		if f.Life > life {
			life = f.Life
			fmt.Fprintf(a.out, "  redriven, for the %s time\n", ordinal(life))
		}
		fmt.Fprintf(a.out, "  attempt %d at %s: %s\n", f.Attempt, moment(f.Time), s.red(printable(f.Error)))
	}
}

func ordinal(n uint64) string {
	switch {
	case n%100 >= 11 && n%100 <= 13:
	case n%10 == 1:
		return fmt.Sprintf("%dst", n)
	case n%10 == 2:
		return fmt.Sprintf("%dnd", n)
	case n%10 == 3:
		return fmt.Sprintf("%drd", n)
	}
	return fmt.Sprintf("%dth", n)
}

func (a *app) dlqEdit() *cobra.Command {
	var data, key string
	var attributes []string
	cmd := &cobra.Command{
		Use: "edit ID", Short: "Change a dead letter before it is redriven", Args: within(1, 1),
		Example: "  shoal dlq edit mailer/orders.placed:7 -d @mended.json -H 'ce-kind: gift'",
	}
	cmd.Flags().StringVarP(&data, "body", "d", "", "its new `DATA`; @FILE, or - for standard input")
	cmd.Flags().StringArrayVarP(&attributes, "header", "H", nil, "an attribute as `shoal dlq show` has it, `NAME: VALUE`; without a value it is removed")
	cmd.Flags().StringVar(&key, "key", "", "its ordering `KEY`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		changed := cmd.Flags().Changed
		if !changed("body") && !changed("key") && len(attributes) == 0 {
			return usagef("shoal dlq edit: say what to change: --body, --header or --key")
		}
		return a.asking(func(ctx context.Context, c *api.Client, args []string) error {
			e := api.DeadLetterEdit{ID: args[0]}
			if changed("body") {
				d, err := a.dataOf(stdinToo(data))
				if err != nil {
					return err
				}
				e.Data = &d
			}
			if changed("key") {
				e.Key = &key
			}
			var err error
			if e.Attributes, err = parseAttributes(attributes); err != nil {
				return err
			}
			d, err := c.EditDeadLetter(ctx, e)
			if err != nil {
				return err
			}
			a.showLetter(&d)
			return nil
		})(cmd, args)
	}
	return cmd
}

// stdinToo reads `-` as `@-`.
func stdinToo(data string) string {
	if data == "-" {
		return "@-"
	}
	return data
}

// parseAttributes reads `NAME: VALUE`.
func parseAttributes(lines []string) (map[string]string, error) {
	all := make(map[string]string)
	for _, line := range lines {
		name, value, ok := strings.Cut(line, ":")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return nil, usagef("an attribute is `NAME: VALUE`, not %q", line)
		}
		all[name] = strings.TrimSpace(value)
	}
	return all, nil
}

func (a *app) dlqRedrive() *cobra.Command {
	r := api.Redrive{}
	var yes bool
	cmd := &cobra.Command{
		Use: "redrive SUBSCRIPTION [ID...]", Short: "Let dead letters be delivered again, in order, to one subscription", Args: within(1, -1),
		Example: "  shoal dlq redrive mailer/orders.placed --rate 10\n  shoal dlq redrive mailer/orders.placed mailer/orders.placed:7",
	}
	cmd.Flags().StringVar(&r.To, "to", "", "another `SUBSCRIPTION` of the same topic that gets them")
	cmd.Flags().Float64Var(&r.Rate, "rate", 0, "how many a `SECOND` (default: as fast as it goes)")
	cmd.Flags().BoolVar(&yes, "yes", false, "redrive all of them; not asked for where ids are named")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, args []string) error {
		if r.Rate < 0 {
			return usagef("shoal dlq redrive: --rate %g is no rate: write how many a second, or leave it out", r.Rate)
		}
		r.Subscription, r.IDs = args[0], args[1:]
		if len(r.IDs) == 0 && !yes {
			n := 0
			if err := eachLetter(ctx, c, r.Subscription, func(*fleet.DeadLetter) { n++ }); err != nil {
				return err
			}
			if n == 0 {
				fmt.Fprintf(a.out, "%s has no dead letters\n", r.Subscription)
				return nil
			}
			fmt.Fprintf(a.out, "%s has %s; --yes redrives all, or name some: `shoal dlq list %s`\n", r.Subscription, plural(n, "dead letter"), r.Subscription)
			return nil
		}
		n, err := c.Redrive(ctx, r)
		if n > 0 || err == nil {
			fmt.Fprintf(a.out, "%s redriven\n", plural(n, "dead letter"))
		}
		return err
	})
	return cmd
}

func (a *app) dlqDrop() *cobra.Command {
	var all string
	cmd := &cobra.Command{Use: "drop ID...", Short: "Remove dead letters for good", Args: within(0, -1)}
	cmd.Flags().StringVar(&all, "all", "", "all that this `SUBSCRIPTION` has now")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, ids []string) error {
		if (all == "") == (len(ids) == 0) {
			return usagef("shoal dlq drop: name dead letters, or --all SUBSCRIPTION; `shoal dlq list` shows them")
		}
		if all != "" {
			if err := eachLetter(ctx, c, all, func(d *fleet.DeadLetter) { ids = append(ids, d.ID) }); err != nil {
				return err
			}
		}
		if err := c.DropDeadLetters(ctx, ids); err != nil {
			return err
		}
		fmt.Fprintf(a.out, "%s dropped\n", plural(len(ids), "dead letter"))
		return nil
	})
	return cmd
}
