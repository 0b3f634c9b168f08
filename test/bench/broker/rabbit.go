package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/shoalrun/shoal/test/bench/harness"
)

// rabbitServer is where Debian's rabbitmq-server keeps the script that does not switch to another user.
const rabbitServer = "/usr/lib/rabbitmq/bin/rabbitmq-server"

// rabbit is a RabbitMQ of our own, with everything of it in one folder, and the program that publishes to it.
type rabbit struct {
	address string
	program string
}

// startRabbit builds the program and starts the server, until ctx ends. The server's processes find each other by a daemon, epmd: this one
// has its own.
func startRabbit(ctx context.Context, dir string) (*rabbit, error) {
	if _, err := os.Stat(rabbitServer); err != nil {
		return nil, errors.New("rabbitmq-server is not installed (apt-get install rabbitmq-server)")
	}
	r := &rabbit{address: harness.FreeAddress(), program: filepath.Join(dir, "rabbit")}
	build := exec.CommandContext(ctx, "go", "build", "-o", r.program, ".")
	build.Dir = filepath.Join("test", "bench", "broker", "rabbit")
	if text, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building its client: %w\n%s", err, text)
	}
	files := filepath.Join(dir, "rabbitmq")
	if err := os.Mkdir(files, 0o700); err != nil {
		return nil, err
	}
	config := "listeners.tcp.1 = " + r.address + "\n"
	if err := os.WriteFile(filepath.Join(files, "rabbitmq.conf"), []byte(config), 0o600); err != nil {
		return nil, err
	}
	daemon := harness.FreeAddress()
	quiet := "exec epmd -address 127.0.0.1 -port " + portOf(daemon) + " 2>/dev/null" // it complains of who only asks whether it is there
	if _, err := harness.Start(ctx, daemon, "sh", "-c", quiet); err != nil {
		return nil, err
	}
	return r, r.start(ctx, files, daemon)
}

func portOf(address string) string {
	_, port, _ := strings.Cut(address, ":")
	return port
}

// start runs the server in the foreground: RABBITMQ_ALLOW_INPUT lets the script become the server, so that it ends with its process.
func (r *rabbit) start(ctx context.Context, files, daemon string) error {
	c := exec.CommandContext(ctx, rabbitServer)
	c.Env = append(os.Environ(), "HOME="+files, "ERL_EPMD_ADDRESS=127.0.0.1", "ERL_EPMD_PORT="+portOf(daemon),
		"RABBITMQ_NODENAME=bench@localhost", "RABBITMQ_DIST_PORT="+portOf(harness.FreeAddress()), "RABBITMQ_ALLOW_INPUT=1",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-noinput -kernel inet_dist_use_interface {127,0,0,1}",
		"RABBITMQ_MNESIA_BASE="+files, "RABBITMQ_LOG_BASE="+files, "RABBITMQ_PID_FILE="+filepath.Join(files, "pid"),
		"RABBITMQ_CONFIG_FILE="+filepath.Join(files, "rabbitmq"), "RABBITMQ_CONF_ENV_FILE="+filepath.Join(files, "none"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(files, "plugins"))
	harness.EndWithParent(c)
	if err := c.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	for {
		_, err := r.publish(ctx, time.Millisecond)
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("rabbitmq-server ended before it served: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// publish keeps as many messages on their way as our side does, and returns how many were confirmed a second.
func (r *rabbit) publish(ctx context.Context, length time.Duration) (float64, error) {
	c := exec.CommandContext(ctx, r.program, "-url", "amqp://guest:guest@"+r.address+"/", "-time", length.String(),
		"-window", strconv.Itoa(window), "-channels", "2", "-size", strconv.Itoa(size))
	harness.EndWithParent(c)
	text, err := c.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return 0, err
	}
	return strconv.ParseFloat(strings.TrimSpace(string(text)), 64)
}
