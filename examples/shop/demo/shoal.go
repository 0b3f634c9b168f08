package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// demo drives the binary as a person would, and remembers what it must check.
type demo struct {
	dir, shoal string
	check      bool
	process    *exec.Cmd     // `shoal up`
	ended      chan struct{} // closed when it has ended
	exit       error         // how; valid once ended is closed
	gateway    string        // HOST:PORT
	pids       map[int]string
}

// status is the part of `shoal status --json` that the demo reads.
type status struct {
	Gateway   string
	Hub, Node struct{ PID int }
	Services  []struct {
		Name, State, Origin, Mode, Failure string
		Instances                          []struct {
			Instance, State string
			PID, Restarts   int
		}
	}
	Edges []struct {
		From, To, Protocol string
		Requests, Errors   uint64
	}
}

func (d *demo) say(title, text string) {
	fmt.Printf("\n── %s %s\n", title, strings.Repeat("─", max(0, 76-len(title))))
	if text != "" {
		fmt.Println(text)
	}
}

// transcribe prints a command and what it printed.
func (d *demo) transcribe(command, output string) {
	fmt.Printf("\n$ %s\n", command)
	for line := range strings.Lines(output) {
		fmt.Print("  ", line)
	}
	if !strings.HasSuffix(output, "\n") {
		fmt.Println()
	}
}

func (d *demo) command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, d.shoal, args...)
	cmd.Dir = d.dir
	// A cache of the demo's own, except for what the compiler keeps.
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+filepath.Join(d.dir, ".cache"), "GOCACHE="+goCache())
	return cmd
}

func goCache() string {
	out, err := exec.Command("go", "env", "GOCACHE").Output()
	if err != nil {
		return os.Getenv("GOCACHE")
	}
	return strings.TrimSpace(string(out))
}

// output runs a verb and returns what it printed, whatever its exit code.
func (d *demo) output(ctx context.Context, args ...string) string {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	out, err := d.command(ctx, args...).CombinedOutput()
	if len(out) == 0 && err != nil {
		return err.Error() + "\n"
	}
	return string(out)
}

// up starts the fleet in the foreground, as a child that Ctrl-C does not reach: the demo ends it.
func (d *demo) up(ctx context.Context) error {
	d.say("One command", "Builds run first; the compiler's cache makes the second time quick.")
	verb := []string{"up"}
	if mode := os.Getenv("DEMO_MODE"); mode != "" {
		verb = append(verb, "--mode", mode)
	}
	fmt.Printf("\n$ shoal %s\n", strings.Join(verb, " "))
	d.process = d.command(context.WithoutCancel(ctx), verb...)
	aside(d.process)
	r, w := io.Pipe()
	d.process.Stdout, d.process.Stderr, d.process.WaitDelay = w, w, 5*time.Second
	if err := d.process.Start(); err != nil {
		return err
	}
	d.ended = make(chan struct{})
	go func() {
		d.exit = d.process.Wait()
		w.Close()
		close(d.ended)
	}()
	go relay(r)
	if err := d.ready(ctx); err != nil {
		d.down()
		return err
	}
	return nil
}

func relay(r io.Reader) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fmt.Println("  " + lines.Text())
	}
	io.Copy(io.Discard, r)
}

// ready waits until all five services are.
func (d *demo) ready(ctx context.Context) error {
	deadline := time.Now().Add(10 * time.Minute) // a first build on a small machine
	var last status
	for time.Now().Before(deadline) {
		if s, err := d.status(ctx); err == nil {
			last = s
			if s.ready() == 5 {
				return d.remember(s)
			}
		}
		select {
		case <-d.ended:
			return fmt.Errorf("`shoal up` ended before the fleet was ready: %v", d.exit)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
	return fmt.Errorf("the fleet did not become ready within 10 minutes; last seen: %+v", last.Services)
}

func (s status) ready() int {
	n := 0
	for _, service := range s.Services {
		if service.State == "ready" {
			n++
		}
	}
	return n
}

func (d *demo) remember(s status) error {
	d.gateway = s.Gateway
	d.pids = map[int]string{s.Hub.PID: "hub", s.Node.PID: "node"}
	for _, service := range s.Services {
		for _, i := range service.Instances {
			d.pids[i.PID] = i.Instance
		}
	}
	delete(d.pids, 0)
	if d.gateway == "" {
		return errors.New("`shoal status --json` names no gateway")
	}
	return nil
}

func (d *demo) status(ctx context.Context) (status, error) {
	var s status
	ctx, stop := context.WithTimeout(ctx, 20*time.Second)
	defer stop()
	out, err := d.command(ctx, "status", "--json").Output()
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(out, &s)
}

// down ends the fleet as Ctrl-C would.
func (d *demo) down() {
	if err := d.process.Process.Signal(os.Interrupt); err != nil {
		d.process.Process.Kill() // where there are no signals, its end is everyone's
	}
	select {
	case <-d.ended:
	case <-time.After(45 * time.Second):
		fmt.Fprintln(os.Stderr, "demo: `shoal up` does not end after Ctrl-C, and is killed")
		d.process.Process.Kill()
		<-d.ended
	}
}

// end takes the fleet down and looks for what was left behind.
func (d *demo) end() error {
	d.down()
	left := d.left()
	for range 50 {
		if len(left) == 0 {
			break
		}
		time.Sleep(100 * time.Millisecond)
		left = d.left()
	}
	if len(left) > 0 {
		return fmt.Errorf("after Ctrl-C there are still %s", strings.Join(left, ", "))
	}
	fmt.Println("\nEverything has ended; nothing was left behind.")
	return nil
}

func (d *demo) left() []string {
	var left []string
	for pid, name := range d.pids {
		if alive(pid) {
			left = append(left, fmt.Sprintf("%s (process %d)", name, pid))
		}
	}
	return left
}

func port(address string) string {
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return p
}

// pause waits, unless ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
