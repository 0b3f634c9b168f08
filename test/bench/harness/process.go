package harness

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Listeners are on loopback, each on a port of its own.
type Listeners []net.Listener

// Listen returns n listeners.
func Listen(n int) (Listeners, error) {
	var all Listeners
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			all.close()
			return nil, err
		}
		all = append(all, l)
	}
	return all, nil
}

// String is their addresses, with commas between them.
func (all Listeners) String() string {
	var addresses []string
	for _, l := range all {
		addresses = append(addresses, l.Addr().String())
	}
	return strings.Join(addresses, ",")
}

func (all Listeners) close() {
	for _, l := range all {
		l.Close()
	}
}

// firstInherited is the descriptor of the first listener that a process is given (os/exec.Cmd.ExtraFiles).
const firstInherited = 3

// Inherited returns the n listeners that this process was given by Start.
func Inherited(n int) (Listeners, error) {
	var all Listeners
	for i := range n {
		f := os.NewFile(uintptr(firstInherited+i), "listener")
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("listener %d of %d: %w", i+1, n, err)
		}
		all = append(all, l)
	}
	return all, nil
}

// Start runs a process until ctx ends, and hands it the listeners, which end here. Nobody else can take their ports, and who connects before the
// process accepts waits for it.
func Start(ctx context.Context, listeners Listeners, name string, args ...string) (*exec.Cmd, error) {
	c := exec.CommandContext(ctx, name, args...)
	c.Stderr = os.Stderr
	return c, start(c, listeners)
}

// start is Start for a command that is made.
func start(c *exec.Cmd, listeners Listeners) error {
	defer listeners.close()
	EndWithParent(c)
	for _, l := range listeners {
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			return err
		}
		defer f.Close()
		c.ExtraFiles = append(c.ExtraFiles, f)
	}
	return c.Start()
}

// StartSide runs a proxy with n listeners, as a side that is asked there.
func StartSide(ctx context.Context, side string, n int, name string, args ...string) (*Side, error) {
	listeners, err := Listen(n)
	if err != nil {
		return nil, err
	}
	s := NewSide(side, listeners.String())
	c, err := Start(ctx, listeners, name, args...)
	s.Processes = []*exec.Cmd{c}
	return s, err
}

// Stop ends processes in good order, so that they write their profiles; where there is none, they end with
// this one.
func Stop(processes []*exec.Cmd, profile string) {
	if profile == "" {
		return
	}
	for _, c := range processes {
		_ = c.Process.Signal(os.Interrupt)
		_ = c.Wait() // it was measured; how it ends is of no interest
	}
}

// attempts is how often a program that chooses no port itself is started.
const attempts = 3

// OnFreeAddresses starts what cannot be handed a listener on n addresses of loopback where nobody listens. Another process may take one before it
// does: where start fails, it is called again with others.
func OnFreeAddresses(n int, start func(addresses []string) error) (err error) {
	for range attempts {
		var l Listeners
		if l, err = Listen(n); err != nil {
			return err
		}
		l.close()
		if err = start(strings.Split(l.String(), ",")); err == nil {
			return nil
		}
	}
	return err
}

// Serves asks a process that was started whether it does its work, until it does or ends.
func Serves(ctx context.Context, c *exec.Cmd, ask func() error) error {
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	for {
		err := ask()
		select {
		case <-ended:
			return fmt.Errorf("%s ended before it served: %w", filepath.Base(c.Path), err)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		if err == nil { // and it was not another process that answered, for ours could listen
			return nil
		}
	}
}

// Installed returns where a program is that ours is compared with. Debian has each in a package of its name, and servers where not everybody looks.
func Installed(program string) (string, error) {
	for _, name := range []string{program, "/usr/sbin/" + program} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is not installed (apt-get install %s)", program, program)
}
