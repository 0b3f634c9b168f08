package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"
)

var letterID = regexp.MustCompile(`payments/orders\.placed:\d+`)

// deadLetter publishes an order that payments cannot read, mends it, and lets it be delivered again.
func (d *demo) deadLetter(ctx context.Context) error {
	d.say("A message that nobody can take", "An order without an id: payments answers 400 three times, as often as its manifest allows, and the message is put aside.")
	const broken = `{"cents":1200}`
	d.transcribe("shoal publish orders.placed -d '"+broken+"'", d.output(ctx, "publish", "orders.placed", "-d", broken))
	letter, err := d.letter(ctx)
	if err != nil {
		return err
	}
	d.transcribe("shoal dlq list", d.output(ctx, "dlq", "list"))

	mended := `{"id":"demo-mended","cents":1200}`
	fmt.Printf("\n$ shoal dlq edit %s -d '%s'\n", letter, mended)
	d.output(ctx, "dlq", "edit", letter, "-d", mended)
	d.transcribe("shoal dlq redrive payments/orders.placed --yes", d.output(ctx, "dlq", "redrive", "payments/orders.placed", "--yes"))
	for range 100 {
		why := d.output(ctx, "why", letter)
		if strings.Contains(why, "redriven, as message") && strings.Contains(why, "payments: acknowledged") {
			d.transcribe("shoal why "+letter, why)
			return nil
		}
		if !pause(ctx, 100*time.Millisecond) {
			return ctx.Err()
		}
	}
	return errors.New("payments did not take the mended order within 10 s")
}

// letter waits for the dead letter of payments.
func (d *demo) letter(ctx context.Context) (string, error) {
	for range 100 {
		if id := letterID.FindString(d.output(ctx, "dlq", "list")); id != "" {
			return id, nil
		}
		if !pause(ctx, 100*time.Millisecond) {
			return "", ctx.Err()
		}
	}
	return "", errors.New("no dead letter of payments within 10 s")
}
