package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/shoalrun/shoal/api"
)

// How long hub and node may take to answer, and to end once everything is stopped.
const (
	answerPatience = 30 * time.Second
	endPatience    = 15 * time.Second
)

// process is hub or node as its parent sees it.
type process struct {
	*exec.Cmd
	which api.Process
	log   string
	from  int64         // where in log its own words begin
	ended chan struct{} // closed once err is set
	err   error         // of Wait; nil for exit code 0
}

// await reaps the process and then tells died.
func (p *process) await(died chan<- *process) {
	p.err = p.Wait()
	close(p.ended)
	died <- p
}

// death says how the process ended, with the last lines of its log.
func (p *process) death() error {
	how := "exit code 0"
	if p.err != nil {
		how = p.err.Error()
	}
	text := fmt.Sprintf("the %s (pid %d) ended by itself: %s", p.which, p.Process.Pid, how)
	if lines := lastLines(p.log, p.from, 5); len(lines) > 0 {
		text += fmt.Sprintf("\nits last words, in %s:\n    %s", p.log, strings.Join(lines, "\n    "))
	}
	return errors.New(text)
}

// lastLines returns the last n lines of a file behind an offset, as far as the last 16 KB hold them.
func lastLines(file string, from int64, n int) []string {
	const tail = 16 << 10
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	size := sizeOfFile(file)
	if size < from {
		from = 0 // the file was begun anew
	}
	from = max(from, size-tail)
	b, err := io.ReadAll(io.NewSectionReader(f, from, size-from))
	if err != nil || len(bytes.TrimSpace(b)) == 0 {
		return nil
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return lines[max(0, len(lines)-n):]
}

func sizeOfFile(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.Size()
}

// owned is a foreground fleet: two processes that end with this one.
type owned struct {
	processes []*process
	owner     *os.File // writing end of the pipe that both hold; its end is theirs
	died      chan *process
	paths     api.Paths
}

// startOwned starts hub and node, or one of them, as children. The caller calls stop on every path.
func startOwned(p api.Paths, f *processFlags, which ...api.Process) (*owned, error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("the path of this binary: %w", err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	o := &owned{owner: write, died: make(chan *process, len(which)), paths: p}
	for _, which := range which {
		child, err := spawn(executable, p, which, f, read)
		if err != nil {
			return nil, errors.Join(err, o.stop())
		}
		o.processes = append(o.processes, child)
		go child.await(o.died)
	}
	return o, nil
}

// answering waits until hub and node both answer.
func answering(ctx context.Context, c *api.Client) error {
	for _, which := range []api.Process{api.Hub, api.Node} {
		for {
			_, err := c.Info(ctx, which)
			var gone *api.GoneError
			if err == nil {
				break
			}
			if !errors.As(err, &gone) {
				return fmt.Errorf("the %s did not begin to answer: %w", which, err)
			}
			if err := pause(ctx, 5*time.Millisecond); err != nil {
				return fmt.Errorf("the %s did not begin to answer: %w", which, gone.Err)
			}
		}
	}
	return nil
}

// stop ends what still runs: first by closing the pipe, which both obey, then by force. Either way
// nothing is left, since the shims obey a pipe of the node's.
func (o *owned) stop() error {
	o.owner.Close()
	reap(o.processes)
	return o.paths.Remove()
}

// reap waits until all have ended, and after a while ends them by force.
func reap(processes []*process) {
	limit := time.After(endPatience)
	for _, p := range processes {
		select {
		case <-p.ended:
		case <-limit:
			p.Process.Kill()
			<-p.ended
		}
	}
}

// end ends processes without an owner: by asking, where the system has a signal for it.
func end(processes []*process) {
	for _, p := range processes {
		if p.Process.Signal(syscall.SIGTERM) != nil {
			p.Process.Kill() // it has ended already, or there is no such signal here
		}
	}
	reap(processes)
}

// kill ends both processes by force.
func (o *owned) kill() {
	for _, p := range o.processes {
		p.Process.Kill()
	}
}
