package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// measure starts the built fleet a second time and prints what that costs, beside the same
// services started bare on the same machine. It asserts nothing.
func (d *demo) measure(ctx context.Context) error {
	d.down()
	bare, err := d.bare(ctx)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := d.up(ctx); err != nil {
		return err
	}
	took := time.Since(begin)
	pause(ctx, 10*time.Second) // what a start needed is given back
	d.say("Measures", "")
	fmt.Printf("  shoal up, built, to all five healthy: %v (the same services bare, to listening: %v)\n",
		took.Round(time.Millisecond), bare.Round(time.Millisecond))
	status, err := d.status(ctx)
	if err != nil {
		return err
	}
	for name, pid := range map[string]int{"node": status.Node.PID, "hub": status.Hub.PID} {
		if memory, ok := resident(pid); ok {
			fmt.Printf("  the idle %s: %.1f MB resident\n", name, float64(memory)/1e6)
		}
	}
	return nil
}

// bare starts the services without Shoal, all at once, and waits until each listens.
func (d *demo) bare(ctx context.Context) (time.Duration, error) {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	state, err := os.MkdirTemp(d.dir, "bare-")
	if err != nil {
		return 0, err
	}
	var ports []string
	begin := time.Now()
	for _, name := range append([]string{"inventory"}, clones...) {
		found, _ := filepath.Glob(filepath.Join(d.dir, ".cache", "shoal", "releases", name, "*", name))
		if len(found) == 0 {
			return 0, fmt.Errorf("the release of %s is not in the cache", name)
		}
		p, err := freePort()
		if err != nil {
			return 0, err
		}
		ports = append(ports, p)
		cmd := exec.CommandContext(ctx, found[0])
		cmd.Env = append(os.Environ(), "PORT="+p, "SHOAL_STATE="+state)
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		defer cmd.Wait()
		defer stop()
	}
	for _, p := range ports {
		if err := listening(ctx, p); err != nil {
			return 0, err
		}
	}
	return time.Since(begin), nil
}

func freePort() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port), nil
}

func listening(ctx context.Context, port string) error {
	for {
		c, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", port))
		if err == nil {
			return c.Close()
		}
		if !pause(ctx, 2*time.Millisecond) {
			return fmt.Errorf("a service that was started bare does not listen: %w", err)
		}
	}
}

// resident is a process's memory in bytes; Linux tells it.
func resident(pid int) (bytes int, ok bool) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if rest, found := strings.CutPrefix(lines.Text(), "VmRSS:"); found {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			return kb * 1024, err == nil
		}
	}
	return 0, false
}
