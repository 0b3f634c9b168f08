package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/shoalrun/shoal/api"
	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/workspace"
)

// upFlags are what `up` was asked.
type upFlags struct {
	processFlags
	detach, learn, update bool
	on                    []string
}

func (a *app) up() *cobra.Command {
	f := &upFlags{}
	cmd := &cobra.Command{
		Use: "up [SERVICE|REPOSITORY...]", Short: "Start the fleet: all services, or some with everything that they call",
		Long: "Start the fleet: all services, or some with everything that they call.\n" +
			"Stays in the foreground until Ctrl-C and leaves nothing running; with -d it returns once every service\n" +
			"is healthy. An argument with / or : or a leading . is a repository.",
		Example:           "  shoal up\n  shoal up -d orders\n  shoal up ./orders https://git.example.com/inventory.git@v1.4",
		ValidArgsFunction: a.completeServices,
	}
	flags := cmd.Flags()
	flags.BoolVarP(&f.detach, "detach", "d", false, "run in the background; return when every service is healthy, else fail")
	flags.BoolVar(&f.learn, "learn", false, "let undeclared calls through, recorded for `shoal learn`")
	flags.BoolVar(&f.update, "update", false, "move pins to the newest commit of their ref")
	flags.StringSliceVar(&f.on, "node", nil, "run the services that are named on these `NODES` of the fleet (default: as their manifests say)")
	f.listeners(flags)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := f.check(); err != nil {
			return err
		}
		if len(f.on) > 0 && len(args) == 0 {
			return usagef("shoal up: --node says where the services that you name run: name them, as in `shoal up orders --node %s`", f.on[0])
		}
		plan, err := a.plan(cmd.Context(), f, args)
		if err != nil {
			return err
		}
		if f.detach {
			return a.upDetached(cmd.Context(), plan)
		}
		return a.upForeground(cmd.Context(), plan)
	}
	return cmd
}

// plan is what an `up` has settled before anything runs.
type plan struct {
	paths   api.Paths
	flags   *processFlags
	request api.UpRequest
	written string // the shoal.work that was written for this; empty: it was there
}

// plan finds or writes shoal.work, and finds the folders beside it.
func (a *app) plan(ctx context.Context, f *upFlags, args []string) (plan, error) {
	file, ok, err := a.workspaceFile()
	if err != nil {
		return plan{}, err
	}
	p := plan{flags: &f.processFlags}
	if !ok {
		if file, args, err = a.writeWorkspace(ctx, args); err != nil {
			return plan{}, err
		}
		p.written = file
	}
	if a.data == "" {
		a.data = filepath.Join(filepath.Dir(file), dataFolder)
	}
	if p.paths, err = api.Locate(a.data); err != nil {
		return plan{}, err
	}
	if err := api.CheckData(p.paths.Data); err != nil {
		return plan{}, err
	}
	if args, err = servicesOf(ctx, file, args); err != nil {
		return plan{}, err
	}
	f.data, f.workspace = p.paths.Data, file
	p.request = api.UpRequest{Workspace: file, Services: args, Learn: f.learn, Update: f.update, Nodes: f.on}
	return p, nil
}

// writeWorkspace writes a shoal.work here of the repositories among args, else of those that are
// found; what is left of args are services.
func (a *app) writeWorkspace(_ context.Context, args []string) (file string, services []string, err error) {
	var repos []string
	for _, arg := range args {
		if workspace.IsRepository(arg) {
			repos = append(repos, arg)
			continue
		}
		services = append(services, arg)
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", nil, err
	}
	file, err = workspace.Default(dir, repos)
	if err != nil {
		return "", nil, err
	}
	fmt.Fprintf(a.err, "wrote %s, which lists your repositories; it is yours to edit, and not to be committed\n", file)
	return file, services, nil
}

// servicesOf names the services of the repositories among args.
func servicesOf(ctx context.Context, file string, args []string) ([]string, error) {
	anyRepo := false
	for _, arg := range args {
		anyRepo = anyRepo || workspace.IsRepository(arg)
	}
	if !anyRepo {
		return args, nil
	}
	w, err := workspace.Open(workspace.Config{File: file})
	if err != nil {
		return nil, err
	}
	all, err := w.Load(ctx, false)
	if err != nil {
		return nil, err
	}
	return w.Select(all, args)
}

// upDetached leaves hub and node running and returns once everything is healthy.
func (a *app) upDetached(ctx context.Context, p plan) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	c := api.Dial(p.paths)
	defer c.Close()
	if err := sameFlags(ctx, c, p.flags); err != nil {
		return err
	}
	if err := a.startMissing(ctx, c, p); err != nil {
		return err
	}
	show := &summary{each: a.newPlain(a.out).progress}
	err := c.Up(ctx, p.request, show.progress)
	if ctx.Err() != nil {
		return errors.New("interrupted; the fleet goes on in the background: `shoal status` shows it, `shoal down` ends it")
	}
	st, stErr := c.Status(context.WithoutCancel(ctx))
	if err != nil {
		a.showFailed(st)
		return err
	}
	if stErr != nil {
		return stErr
	}
	fmt.Fprintln(a.out, show.line(st))
	return nil
}

// sameFlags refuses flags that a fleet which runs already was not started with: what listens, and how
// sidecars are joined, is settled when its processes start.
func sameFlags(ctx context.Context, c *api.Client, f *processFlags) error {
	st, err := c.Status(ctx)
	if err != nil {
		return nil // nobody runs, or nobody who could be asked
	}
	for _, flag := range []struct{ name, asked, is string }{
		{"--gateway", f.gateway, st.Gateway}, {"--metrics", f.metrics, st.Metrics}, {"--nats-listen", f.nats, st.NATS}, {"--pubsub", f.pubsub, st.Pubsub},
	} {
		if flag.asked != "" && flag.is != "" && !sameAddress(flag.asked, flag.is) {
			return runsWith(flag.name, flag.asked, flag.is)
		}
	}
	if f.engine != "" && st.Broker.Engine != "" && st.Broker.Engine != f.engine {
		return fmt.Errorf("--nats %s is not in force: the broker's messages are %s; `shoal broker move --to %s` moves them", f.engine, st.Broker.Engine, f.engine)
	}
	for _, s := range st.Services {
		if f.mode != "" && s.Mode != "" && string(s.Mode) != f.mode {
			return runsWith("--mode", f.mode, string(s.Mode))
		}
	}
	return nil
}

func runsWith(flag, asked, is string) error {
	return fmt.Errorf("%s %s is not in force: the fleet runs already with %s; `shoal down` ends it, then start it with this flag", flag, asked, is)
}

// sameAddress reports whether asked, whose port may be 0 for any, means the address is.
func sameAddress(asked, is string) bool {
	a, err := net.ResolveTCPAddr("tcp", asked)
	b, isErr := net.ResolveTCPAddr("tcp", is)
	if err != nil || isErr != nil {
		return false
	}
	return a.Port == 0 || a.Port == b.Port && (a.IP.Equal(b.IP) || len(a.IP) == 0 && b.IP.IsUnspecified())
}

// startMissing starts hub and node, or whichever of them does not run, and waits until both answer.
func (a *app) startMissing(ctx context.Context, c *api.Client, p plan) error {
	executable, err := os.Executable()
	if err != nil {
		return fmt.Errorf("the path of this binary: %w", err)
	}
	if err := api.InitData(p.paths.Data); err != nil {
		return err
	}
	if err := p.paths.Want(); err != nil {
		return fmt.Errorf("the data folder cannot be written: %w", err)
	}
	died := make(chan *process, 2)
	var started []*process
	for _, which := range []api.Process{api.Hub, api.Node} {
		if _, err := c.Info(ctx, which); err == nil {
			continue
		}
		child, err := spawn(executable, p.paths, which, p.flags, nil)
		if err != nil {
			return err
		}
		started = append(started, child)
		go child.await(died)
	}
	err = bothAnswer(ctx, c, p.paths, died)
	if err == nil {
		return nil
	}
	if len(started) == 2 { // half a fleet is of use to nobody
		err = errors.Join(err, p.paths.Forget())
	}
	end(started)
	return err
}

// bothAnswer waits until hub and node answer, or one of those that were started has ended.
func bothAnswer(ctx context.Context, c *api.Client, p api.Paths, died <-chan *process) error {
	ctx, cancel := context.WithTimeout(ctx, answerPatience)
	defer cancel()
	ready := make(chan error, 1)
	go func() { ready <- answering(ctx, c) }()
	for {
		select {
		case err := <-ready:
			return err
		case dead := <-died:
			// The sibling may have been quicker to start it again: another one answers, or will, and holds the lock.
			if _, err := c.Info(ctx, dead.which); err != nil && !held(p, dead.which) {
				return dead.death()
			}
		}
	}
}

// summary passes progress on and keeps the hub's last word, which becomes the last line of an `up`.
type summary struct {
	each func(fleet.Progress)
	done string
}

func (s *summary) progress(p fleet.Progress) {
	if p.Phase == fleet.PhaseDone && p.Service == "" {
		s.done = p.Text
		return
	}
	s.each(p)
}

// line says that the fleet is up, and where.
func (s *summary) line(st fleet.Status) string {
	line := st.Fleet + " is up: " + cmp.Or(s.done, plural(len(st.Services), "service")+" ready")
	if st.Gateway != "" {
		line += ", gateway http://" + st.Gateway
	}
	return line
}

// alreadyUp says who runs the fleet on this data folder, where one does.
func alreadyUp(ctx context.Context, c *api.Client) error {
	info, err := c.Running(ctx)
	if err != nil {
		return nil // nobody, or nobody who could be asked
	}
	who := "in the background"
	if info.Owned {
		who = "by a `shoal up` in another terminal"
	}
	return fmt.Errorf("%s runs already, %s: its %s is process %d, since %s, with the data in %s\n`shoal status` shows it, `shoal up -d` changes it, `shoal down` ends it; another fleet needs another --data",
		info.Fleet, who, info.Process, info.PID, info.Started.Format("15:04:05 on 2 January"), info.Data)
}
