package cli

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
)

func (a *app) doctor() *cobra.Command {
	return &cobra.Command{
		Use: "doctor", Short: "Say what this machine can do, and the one command that mends what it cannot", Args: within(0, 0),
		Long: "Say what this machine can do, and the one command that mends what it cannot.\nThe exit code is 1 where something that is needed is missing.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			var checks []Check
			if a.config.Probe != nil {
				checks = a.config.Probe(cmd.Context())
			}
			checks = append(checks, a.machine(cmd.Context())...)
			return a.showChecks(checks)
		},
	}
}

// machine looks at what the verbs themselves need.
func (a *app) machine(ctx context.Context) []Check {
	checks := []Check{
		tool(ctx, "git", "to clone and pin repositories", installGit(), "--version"),
		tool(ctx, "go", "only for services that are built with it", "see https://go.dev/dl", "version"),
	}
	checks = append(checks, cgroup()...)
	return append(checks, a.folders()...)
}

// tool looks for a program and asks its version.
func tool(ctx context.Context, name, why, remedy string, version ...string) Check {
	c := Check{Name: name, Remedy: remedy}
	path, err := exec.LookPath(name)
	if err != nil {
		c.Detail = "is not installed; it is needed " + why
		return c
	}
	out, err := exec.CommandContext(ctx, path, version...).Output()
	if err != nil {
		c.Detail = fmt.Sprintf("%s does not run: %v", path, err)
		return c
	}
	return Check{Name: name, OK: true, Detail: strings.TrimSpace(string(out))}
}

func installGit() string {
	if runtime.GOOS == "darwin" {
		return "xcode-select --install"
	}
	if runtime.GOOS == "windows" {
		return "winget install Git.Git"
	}
	for manager, command := range map[string]string{
		"apt-get": "sudo apt-get install git", "dnf": "sudo dnf install git",
		"apk": "sudo apk add git", "pacman": "sudo pacman -S git",
	} {
		if _, err := exec.LookPath(manager); err == nil {
			return command
		}
	}
	return "see https://git-scm.com/downloads"
}

// cgroup says whether limits per service could be set here; nothing needs them yet.
func cgroup() []Check {
	if runtime.GOOS != "linux" {
		return nil
	}
	b, err := os.ReadFile("/sys/fs/cgroup/cgroup.controllers")
	if err != nil {
		return []Check{{Name: "cgroup", OK: true, Detail: "version 1 or none: nothing here needs it"}}
	}
	return []Check{{Name: "cgroup", OK: true, Detail: "version 2 (" + strings.TrimSpace(string(b)) + ")"}}
}

// folders says whether the data and runtime folders can be used.
func (a *app) folders() []Check {
	p, err := a.paths()
	if err != nil {
		return []Check{{Name: "runtime folder", Detail: err.Error(), Remedy: "export XDG_RUNTIME_DIR=$(mktemp -d)"}}
	}
	if err := api.CheckData(p.Data); err != nil {
		return []Check{{Name: "data folder", Detail: err.Error(), Remedy: "shoal --data OTHER-FOLDER up"}}
	}
	return []Check{
		{Name: "data folder", OK: true, Detail: p.Data},
		{Name: "runtime folder", OK: true, Detail: p.Runtime},
	}
}

func (a *app) showChecks(checks []Check) error {
	s := a.styleOf(a.out)
	t := &table{}
	t.add("", "", "")
	failed := 0
	for _, c := range checks {
		mark := s.green("ok")
		if !c.OK {
			mark = s.red("no")
			failed++
		}
		t.add(mark, c.Name, printable(c.Detail))
	}
	for i, line := range t.lines()[1:] {
		fmt.Fprintln(a.out, line)
		if c := checks[i]; !c.OK && c.Remedy != "" {
			fmt.Fprintf(a.out, "    %s\n", s.bold(c.Remedy))
		}
	}
	if failed > 0 {
		return exitError{exitFailed}
	}
	return nil
}
