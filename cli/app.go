package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/workspace"
)

// dataFolder is the data folder's name, beside shoal.work.
const dataFolder = ".shoal"

// app is one run of the command line: what cmd handed over, and the common flags.
type app struct {
	config   Config
	in       io.Reader
	out, err io.Writer
	now      func() time.Time

	workspace string // --workspace; empty: found from here upwards
	data      string // --data; empty: beside shoal.work
}

// usageError is a command line that cannot be understood: one line, exit code 2.
type usageError struct{ text string }

func (e usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return usageError{fmt.Sprintf(format, args...)} }

// exitError ends the program with a code and without a word: what there is to say was said.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// Main runs the command line and returns the exit code: 0, 1 where the verb failed, 2 where the
// command line could not be understood, or that of the command which `exec` or `test` ran.
func Main(c Config) int {
	a := newApp(c)
	root := a.root()
	root.SetArgs(a.config.Args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	return a.code(root.ExecuteContext(context.Background()))
}

func newApp(c Config) *app {
	if c.Args == nil {
		c.Args = os.Args[1:]
	}
	a := &app{config: c, in: c.Stdin, out: c.Stdout, err: c.Stderr, now: time.Now}
	if a.in == nil {
		a.in = os.Stdin
	}
	if a.out == nil {
		a.out = os.Stdout
	}
	if a.err == nil {
		a.err = os.Stderr
	}
	return a
}

// code says what went wrong and returns the exit code for it.
func (a *app) code(err error) int {
	var usage usageError
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.code
	case errors.As(err, &usage):
		fmt.Fprintf(a.err, "shoal: %v\n", err)
		return exitUsage
	}
	fmt.Fprintf(a.err, "%s %v\n", a.styleOf(a.err).red("shoal:"), err)
	return exitFailed
}

// workspaceFile returns the absolute path of the shoal.work in force. ok is false where there is none.
func (a *app) workspaceFile() (file string, ok bool, err error) {
	if a.workspace != "" {
		file, err = filepath.Abs(a.workspace)
		if err == nil {
			_, err = os.Stat(file)
		}
		if err != nil {
			return "", false, fmt.Errorf("the workspace file cannot be read: %w", err)
		}
		return file, true, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", false, err
	}
	file, ok = workspace.Find(dir)
	return file, ok, nil
}

// paths returns the fleet's places: those of --data, else of the folder beside shoal.work, else here.
func (a *app) paths() (api.Paths, error) {
	data := a.data
	if data == "" {
		file, ok, err := a.workspaceFile()
		if err != nil {
			return api.Paths{}, err
		}
		if ok {
			data = filepath.Join(filepath.Dir(file), dataFolder)
		}
	}
	if data == "" {
		data = dataFolder
	}
	return api.Locate(data)
}

// client returns a client of the fleet that the flags name, running or not.
func (a *app) client() (*api.Client, error) {
	p, err := a.paths()
	if err != nil {
		return nil, err
	}
	if err := api.CheckData(p.Data); err != nil {
		return nil, err
	}
	return api.Dial(p), nil
}

// asking makes a verb of a func that asks the fleet.
func (a *app) asking(run func(ctx context.Context, c *api.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := a.client()
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, stop := interruptible(cmd.Context())
		defer stop()
		err = run(ctx, c, args)
		if ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return exitError{exitInterrupted}
		}
		return err
	}
}

// within wraps an argument check so that a violation is a usage error that shows the right form.
func within(low, high int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= low && (high < 0 || len(args) <= high) {
			return nil
		}
		return wrongArgs(cmd, args, low)
	}
}

func wrongArgs(cmd *cobra.Command, args []string, low int) error {
	what := "too many arguments"
	if len(args) < low {
		what = "an argument is missing"
	}
	return usagef("%s: %s; write `%s`", cmd.CommandPath(), what, cmd.UseLine())
}

// plural counts things in words: `1 service`, `2 services`.
func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// and lists words as a sentence does.
func and(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
