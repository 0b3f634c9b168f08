package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/manifest"
)

func (a *app) publish() *cobra.Command {
	var data, contentType, key string
	var delay time.Duration
	var attributes []string
	cmd := &cobra.Command{
		Use: "publish TOPIC", Short: "Publish one event, as the operator, and print its id", Args: within(1, 1),
		Example: "  shoal publish orders.placed -d '{\"order\":7}'\n  make-event | shoal publish orders.placed -d -",
	}
	cmd.Flags().StringVarP(&data, "body", "d", "", "the event's `DATA`; @FILE, or - for standard input")
	cmd.Flags().StringVar(&contentType, "type", "", "the data's media `TYPE` (default: application/json where it is JSON)")
	cmd.Flags().StringArrayVarP(&attributes, "header", "H", nil, "a CloudEvents attribute, `NAME: VALUE`, such as id or subject")
	cmd.Flags().StringVar(&key, "key", "", "its ordering `KEY`")
	cmd.Flags().DurationVar(&delay, "delay", 0, "deliver it only after `TIME`")
	cmd.RunE = a.asking(func(ctx context.Context, c *api.Client, args []string) error {
		if delay < 0 {
			return usagef("shoal publish: --delay %s lies in the past: write how long from now, such as 5m", delay)
		}
		p, err := a.publication(args[0], data, contentType, attributes)
		if err != nil {
			return err
		}
		p.Key, p.Delay = key, delay
		id, err := c.Publish(ctx, p)
		if err != nil {
			return err
		}
		fmt.Fprintln(a.out, id)
		a.warnOfNobody(ctx, c, args[0])
		return nil
	})
	return cmd
}

// warnOfNobody says that a topic has neither publishers nor subscriptions: its name may be a slip.
func (a *app) warnOfNobody(ctx context.Context, c *api.Client, topic string) {
	st, err := c.Status(ctx)
	if err != nil {
		return // it is published all the same
	}
	var known []string
	for _, t := range st.Topics {
		if len(t.Publishers) > 0 {
			known = append(known, t.Name)
		}
	}
	for _, s := range st.Subscriptions {
		known = append(known, s.Topic)
	}
	if slices.Contains(known, topic) {
		return
	}
	hint := "`shoal topics` shows the topics that there are"
	if near := manifest.Nearest(topic, known); near != "" {
		hint = "did you mean `" + near + "`?"
	}
	fmt.Fprintf(a.err, "nobody subscribes to %s, and no manifest publishes it; %s\n", printable(topic), printable(hint))
}

func (a *app) publication(topic, data, contentType string, attributes []string) (p api.Publication, err error) {
	p = api.Publication{Topic: topic, ContentType: contentType, Attributes: make(map[string]string)}
	if p.Data, err = a.dataOf(stdinToo(data)); err != nil {
		return p, fmt.Errorf("the event's data cannot be read: %w", err)
	}
	if p.ContentType == "" {
		p.ContentType = mediaType(p.Data)
	}
	for _, line := range attributes {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return p, usagef("shoal publish: an attribute is `NAME: VALUE`, not %q", line)
		}
		name, value = strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value)
		if name == "content-type" || name == "datacontenttype" {
			p.ContentType = value
			continue
		}
		p.Attributes[strings.TrimPrefix(name, "ce-")] = value // as a header of HTTP has it, too
	}
	return p, nil
}

// mediaType tells JSON from other text and from bytes.
func mediaType(data []byte) string {
	if json.Valid(data) {
		return "application/json"
	}
	return "application/octet-stream"
}
