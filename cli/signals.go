package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// exitInterrupted is the exit code of a verb that Ctrl-C ended, as shells have it: 128 + SIGINT.
const exitInterrupted = 130

// interruptible returns a context that the first Ctrl-C ends; the second kills, as without Shoal.
func interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	return ctx, stop
}

// stopSignals returns a channel of the signals that ask a foreground fleet to stop. A terminal that
// closes (HUP) asks for it, too.
func stopSignals() (asked <-chan os.Signal, stop func()) {
	c := make(chan os.Signal, 4)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	return c, func() { signal.Stop(c) }
}
