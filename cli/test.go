package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
)

func (a *app) test() *cobra.Command {
	f := &upFlags{}
	var keep bool
	cmd := &cobra.Command{
		Use: "test [SERVICE...] -- COMMAND...", Short: "Start a fresh fleet, run a command against it, stop it: for CI",
		Long: "Start a fresh fleet, run a command against it with the variables of `shoal env`, and stop it.\n" +
			"The exit code is the command's; 1 where the fleet did not become healthy.\n" +
			"The data folder is a new one, removed at the end, so that a fleet which runs here is not touched.",
		Example: "  shoal test -- npm test",
		Args: func(cmd *cobra.Command, args []string) error {
			if at := cmd.ArgsLenAtDash(); at < 0 || at == len(args) {
				return wrongArgs(cmd, nil, 1)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&f.learn, "learn", false, "let undeclared calls through, recorded")
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the data folder, with the logs, and say where it is")
	f.listeners(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.check(); err != nil {
			return err
		}
		at := cmd.ArgsLenAtDash()
		return a.testFresh(cmd.Context(), f, args[:at], args[at:], keep)
	}
	return cmd
}

// testFresh runs command against a fleet in a data folder of its own.
func (a *app) testFresh(ctx context.Context, f *upFlags, services, command []string, keep bool) error {
	if a.data == "" {
		dir, err := os.MkdirTemp("", "shoal-test-")
		if err != nil {
			return err
		}
		a.data = filepath.Join(dir, dataFolder)
		if keep {
			defer fmt.Fprintf(a.err, "the data is kept in %s\n", a.data)
		} else {
			defer os.RemoveAll(dir)
		}
	}
	p, err := a.plan(ctx, f, services)
	if err != nil {
		return err
	}
	return a.testOwned(ctx, p, command)
}

// testOwned owns the fleet for as long as the command runs. Ctrl-C reaches the command, which shares
// the terminal; its end is the end of all.
func (a *app) testOwned(ctx context.Context, p plan, command []string) error {
	signals, stopSignals := stopSignals()
	defer stopSignals()
	c := api.Dial(p.paths)
	defer c.Close()
	o, err := startNew(ctx, c, p)
	if err != nil {
		return err
	}
	v := plainView{a.newPlain(a.err)}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	result := make(chan error, 1)
	go func() { result <- a.upAndRun(ctx, c, p, v, command) }()
	dead, err := o.await(result, cancel, signals)
	if !dead {
		err = errors.Join(err, o.down(context.WithoutCancel(ctx), c, v, signals))
	}
	return errors.Join(err, o.stop())
}

// await waits for the command, and ends it where the fleet dies or a second signal comes. The first
// signal is the command's to answer, which has it from the terminal.
func (o *owned) await(result <-chan error, cancel func(), signals <-chan os.Signal) (dead bool, err error) {
	asked := 0
	for {
		select {
		case err := <-result:
			if asked > 0 && errors.Is(err, context.Canceled) {
				return false, exitError{exitInterrupted}
			}
			return false, err
		case <-signals:
			if asked++; asked > 1 {
				cancel()
			}
		case dead := <-o.died:
			cancel()
			<-result
			return true, dead.death()
		}
	}
}

func (a *app) upAndRun(ctx context.Context, c *api.Client, p plan, v view, command []string) error {
	wait, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	if err := answering(wait, c); err != nil {
		return err
	}
	if err := c.Up(ctx, p.request, v.progress); err != nil {
		if st, stErr := c.Status(ctx); stErr == nil {
			a.showFailed(st)
		}
		return err
	}
	vars, err := c.Env(ctx, "")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = a.in, a.out, a.err
	cmd.Env = append(os.Environ(), "SHOAL_DATA="+p.paths.Data)
	for _, v := range vars {
		if !v.Secret {
			cmd.Env = append(cmd.Env, v.Name+"="+v.Value)
		}
	}
	return commandError(command[0], cmd.Run())
}

// commandError makes the command's exit code this program's.
func commandError(name string, err error) error {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exitError{exit.ExitCode()}
	case errors.As(err, &exit):
		return fmt.Errorf("%s ended: %w", name, err)
	}
	return fmt.Errorf("the command cannot be run: %w", err)
}
