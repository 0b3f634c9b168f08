package main

import (
	"context"
	"errors"
	"fmt"
	"net"
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

// rabbitProgram is the name of what runs it, and of the package.
const rabbitProgram = "rabbitmq-server"

// startRabbit builds the program and starts the server, until ctx ends.
func startRabbit(ctx context.Context, dir string) (*rabbit, error) {
	r := &rabbit{program: filepath.Join(dir, "rabbit")}
	build := exec.CommandContext(ctx, "go", "build", "-o", r.program, ".")
	build.Dir = filepath.Join("test", "bench", "broker", "rabbit")
	if text, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building its client: %w\n%s", err, text)
	}
	return r, harness.OnFreeAddresses(3, func(addresses []string) error { return r.start(ctx, dir, addresses[0], addresses[1], addresses[2]) })
}

func portOf(address string) string {
	_, port, _ := strings.Cut(address, ":")
	return port
}

func listens(address string) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	return c.Close()
}

// start runs the server in the foreground: RABBITMQ_ALLOW_INPUT lets the script become the server, so that it ends with its process. The server's
// processes find each other by a daemon, epmd: this one has its own.
func (r *rabbit) start(ctx context.Context, dir, address, daemon, nodes string) error {
	r.address = address
	files, err := os.MkdirTemp(dir, "rabbitmq")
	if err != nil {
		return err
	}
	config := "listeners.tcp.1 = " + r.address + "\n"
	if err := os.WriteFile(filepath.Join(files, "rabbitmq.conf"), []byte(config), 0o600); err != nil {
		return err
	}
	quiet := "exec epmd -address 127.0.0.1 -port " + portOf(daemon) + " 2>/dev/null" // it complains of who only asks whether it is there
	epmd, err := harness.Start(ctx, nil, "sh", "-c", quiet)
	if err != nil {
		return err
	}
	if err := harness.Serves(ctx, epmd, func() error { return listens(daemon) }); err != nil {
		return err
	}
	c := exec.CommandContext(ctx, rabbitServer)
	c.Env = append(os.Environ(), "HOME="+files, "ERL_EPMD_ADDRESS=127.0.0.1", "ERL_EPMD_PORT="+portOf(daemon),
		"RABBITMQ_NODENAME=bench@localhost", "RABBITMQ_DIST_PORT="+portOf(nodes), "RABBITMQ_ALLOW_INPUT=1",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-noinput -kernel inet_dist_use_interface {127,0,0,1}",
		"RABBITMQ_MNESIA_BASE="+files, "RABBITMQ_LOG_BASE="+files, "RABBITMQ_PID_FILE="+filepath.Join(files, "pid"),
		"RABBITMQ_CONFIG_FILE="+filepath.Join(files, "rabbitmq"), "RABBITMQ_CONF_ENV_FILE="+filepath.Join(files, "none"),
		"RABBITMQ_ENABLED_PLUGINS_FILE="+filepath.Join(files, "plugins"))
	harness.EndWithParent(c)
	if err := c.Start(); err != nil {
		return err
	}
	return harness.Serves(ctx, c, func() error {
		_, err := r.publish(ctx, time.Millisecond)
		return err
	})
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
