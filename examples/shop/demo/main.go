// Demo makes the shop's five services into five git repositories, starts them with `shoal up` and
// shows the fleet at work: an order and its events, the edges, a crash under load, a refused call.
// It then stays up until Ctrl-C; with DEMO=check it checks what it showed, and exits; with
// DEMO=measure it measures a start instead.
//
//	go run ./examples/shop/demo
//
// Environment: SHOAL, the binary (bin/shoal); DEMO_DIR, a folder that is kept (else a temporary
// one); DEMO_MODE, the sidecars' mode (else what the machine can do); DEMO_DATABASE=sqlite, even
// where Postgres is installed; DEMO=check.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "\ndemo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	dir, remove, err := folder()
	if err != nil {
		return err
	}
	defer remove()
	d := &demo{dir: dir, check: os.Getenv("DEMO") == "check"}
	if d.shoal, err = binary(); err != nil {
		return err
	}
	database, err := startPostgres(ctx)
	if err != nil {
		return err
	}
	defer database.stop()
	if err := d.repositories(database); err != nil {
		return err
	}
	if err := d.up(ctx); err != nil {
		return err
	}
	if err := d.play(ctx); err != nil {
		d.down()
		return err
	}
	return d.end()
}

// play does what DEMO asks for.
func (d *demo) play(ctx context.Context) error {
	if os.Getenv("DEMO") == "measure" {
		return d.measure(ctx)
	}
	if err := d.show(ctx); err != nil {
		return err
	}
	if !d.check {
		d.stay(ctx)
	}
	return nil
}

// show is the demo: what a person should have seen.
func (d *demo) show(ctx context.Context) error {
	for _, step := range []func(context.Context) error{d.order, d.edges, d.events, d.crash, d.refusal, d.deadLetter} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.say("The shop is open", "")
	fmt.Printf("\n    http://web.localhost:%s/\n", port(d.gateway))
	return nil
}

// stay lets a person look around.
func (d *demo) stay(ctx context.Context) {
	fmt.Printf("\nMore to try, in another terminal:\n\n    cd %s\n    %s status --watch\n    %s tap\n    %s tail orders.placed\n    %s subscriptions\n    %s logs -f orders\n\nCtrl-C ends everything.\n", d.dir, d.shoal, d.shoal, d.shoal, d.shoal, d.shoal)
	select {
	case <-ctx.Done():
	case <-d.ended:
	}
	fmt.Println()
}

// folder returns where the demo lives, and how to be rid of it.
func folder() (dir string, remove func(), err error) {
	if dir = os.Getenv("DEMO_DIR"); dir != "" {
		dir, err = filepath.Abs(dir)
		return dir, func() {}, err
	}
	dir, err = os.MkdirTemp("", "shoal-shop-")
	return dir, func() { os.RemoveAll(dir) }, err
}

func binary() (string, error) {
	path := os.Getenv("SHOAL")
	if path == "" {
		path = filepath.Join("bin", "shoal")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("there is no %s: run `make build`, or say where the binary is with SHOAL=…", path)
	}
	return path, nil
}
