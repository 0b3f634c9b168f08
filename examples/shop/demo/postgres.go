package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// database is where orders keeps its data.
type database struct {
	url, address string // address is empty where orders uses a file of its own
	what         string
	stop         func()
}

// startPostgres starts a cluster of the demo's own, or says that there will be none.
func startPostgres(ctx context.Context) (*database, error) {
	none := &database{url: "sqlite", what: "SQLite: no Postgres is installed in /usr/lib/postgresql", stop: func() {}}
	bin := postgresBin()
	if bin == "" {
		return none, nil
	}
	if os.Getenv("DEMO_DATABASE") == "sqlite" {
		none.what = "SQLite, as asked"
		return none, nil
	}
	c, err := newCluster(bin)
	if err != nil {
		none.what = "SQLite: a Postgres cluster cannot be made here (" + err.Error() + ")"
		return none, nil
	}
	if err := c.start(ctx); err != nil {
		c.stop()
		return nil, err
	}
	return &database{
		url:     "postgres://shop@localhost:5432/postgres?sslmode=disable", // as orders sees it
		address: c.address(),
		what:    "Postgres at " + c.address() + ", which it knows as localhost:5432",
		stop:    c.stop,
	}, nil
}

func postgresBin() string {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(found) == 0 {
		return ""
	}
	return filepath.Dir(found[len(found)-1])
}

type cluster struct {
	bin, dir string
	port     int
	server   *exec.Cmd
	life     io.Closer // closing it ends the server
	log      bytes.Buffer
}

func newCluster(bin string) (*cluster, error) {
	dir, err := os.MkdirTemp("", "shoal-pg-")
	if err != nil {
		return nil, err
	}
	c := &cluster{bin: bin, dir: dir}
	if err := c.init(); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return c, nil
}

func (c *cluster) init() error {
	initdb := exec.Command(filepath.Join(c.bin, "initdb"), "-D", filepath.Join(c.dir, "data"), "-U", "shop", "-A", "trust", "-E", "UTF8", "--no-sync")
	initdb.Dir = c.dir
	if err := asAnother(initdb, c.dir); err != nil {
		return err
	}
	if out, err := initdb.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// untilEOF runs a server until its own standard input ends, which it does when the demo dies.
const untilEOF = `"$@" & server=$!; cat >/dev/null; kill -INT $server; wait $server`

func (c *cluster) start(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c.port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	c.server = exec.Command("/bin/sh", "-c", untilEOF, "sh", filepath.Join(c.bin, "postgres"),
		"-D", filepath.Join(c.dir, "data"), "-p", strconv.Itoa(c.port), "-k", c.dir, "-c", "listen_addresses=127.0.0.1")
	c.server.Dir, c.server.Stderr = c.dir, &c.log
	if err := asAnother(c.server, c.dir); err != nil {
		return err
	}
	if c.life, err = c.server.StdinPipe(); err != nil {
		return err
	}
	if err := c.server.Start(); err != nil {
		return err
	}
	return c.ready(ctx)
}

func (c *cluster) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port)) }

func (c *cluster) ready(ctx context.Context) error {
	for range 300 {
		probe := exec.CommandContext(ctx, filepath.Join(c.bin, "pg_isready"), "-q", "-h", "127.0.0.1", "-p", strconv.Itoa(c.port))
		if probe.Run() == nil {
			return nil
		}
		if !pause(ctx, 100*time.Millisecond) {
			return ctx.Err()
		}
	}
	return fmt.Errorf("postgres did not start within 30 s:\n%s", c.log.String())
}

func (c *cluster) stop() {
	if c.life != nil {
		c.life.Close()
		c.server.Wait()
	}
	os.RemoveAll(c.dir)
}
