package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/shoalrun/shoal/api"
)

func (a *app) exec() *cobra.Command {
	var tty bool
	cmd := &cobra.Command{
		Use: "exec SERVICE -- COMMAND...", Short: "Run a command where a service runs: in its namespace, with its environment",
		Long:              "Run a command where a service runs: in its namespace, with its environment.\nThe exit code is the command's.",
		Args:              execArgs,
		ValidArgsFunction: a.completeServices,
	}
	cmd.Flags().BoolVarP(&tty, "tty", "t", false, "give the command a terminal")
	cmd.Flags().SetInterspersed(false) // what follows SERVICE is the command's
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		if err := ask(cmd.Context(), c, args[0]); err != nil {
			return err
		}
		code, err := a.execute(cmd.Context(), c, api.ExecRequest{Service: args[0], Command: commandOf(args), TTY: tty})
		if err != nil {
			return err
		}
		if code != 0 {
			return exitError{code}
		}
		return nil
	}
	return cmd
}

func execArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 || len(commandOf(args)) == 0 {
		return wrongArgs(cmd, args, 2)
	}
	return nil
}

// commandOf returns what follows SERVICE, and an optional `--`.
func commandOf(args []string) []string {
	args = args[1:]
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	return args
}

// execute joins the command to this terminal, which it leaves as it was.
func (a *app) execute(ctx context.Context, c *api.Client, e api.ExecRequest) (int, error) {
	e.Stdin, e.Stdout, e.Stderr = a.in, a.out, a.err
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if !e.TTY || !isTerminal(a.in) {
		signals, stop := forwardSignals(ctx, cancel)
		defer stop()
		e.Signals = signals
		return c.Exec(ctx, e)
	}
	fd := int(a.in.(*os.File).Fd())
	before, err := term.MakeRaw(fd)
	if err != nil {
		return 0, err
	}
	defer term.Restore(fd, before)
	e.Size = sizeOf(fd)
	e.Env = []string{"TERM=" + os.Getenv("TERM")}
	e.Resize = watchSize(ctx, fd)
	return c.Exec(ctx, e)
}

// forwardSignals hands Ctrl-C and TERM to the command; the third one gives up on it.
func forwardSignals(ctx context.Context, giveUp func()) (<-chan string, func()) {
	in, out := make(chan os.Signal, 4), make(chan string)
	signal.Notify(in, os.Interrupt, syscall.SIGTERM)
	go func() {
		for n := 1; ; n++ {
			select {
			case <-ctx.Done():
				return
			case s := <-in:
				if n > 2 {
					giveUp()
				}
				name := "INT"
				if s != os.Interrupt {
					name = "TERM"
				}
				select {
				case out <- name:
				case <-ctx.Done():
				}
			}
		}
	}()
	return out, func() { signal.Stop(in) }
}

func sizeOf(fd int) api.Size {
	columns, rows, err := term.GetSize(fd)
	if err != nil {
		return api.Size{Rows: 24, Columns: 80}
	}
	return api.Size{Rows: uint16(rows), Columns: uint16(columns)}
}

// watchSize tells of a terminal's new sizes. It looks four times a second: there is no signal for
// it on every system, and no eye is faster.
func watchSize(ctx context.Context, fd int) <-chan api.Size {
	out := make(chan api.Size)
	go func() {
		last := sizeOf(fd)
		for pause(ctx, 250*time.Millisecond) == nil {
			now := sizeOf(fd)
			if now == last {
				continue
			}
			last = now
			select {
			case out <- now:
			case <-ctx.Done():
			}
		}
	}()
	return out
}
