package api

import (
	"context"
	"errors"
	"io"

	"connectrpc.com/connect"

	pb "github.com/shoalrun/shoal/api/gen/shoal/operator/v1"
)

// Exec runs a command inside a service's namespace and returns its exit code. It returns when the
// command has ended, without waiting for Stdin.
func (c *Client) Exec(ctx context.Context, e ExecRequest) (int, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := c.node.rpc.Exec(ctx)
	err := stream.Send(&pb.ExecRequest{
		Service: e.Service, Command: e.Command, Env: e.Env, Tty: e.TTY,
		Rows: uint32(e.Size.Rows), Columns: uint32(e.Size.Columns),
	})
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, c.onlyNode(ctx, "exec", err)
	}
	go feed(ctx, stream, e)
	for {
		m, err := stream.Receive()
		if err != nil {
			return 0, c.onlyNode(ctx, "exec", err)
		}
		if m.Exited {
			return int(m.ExitCode), nil
		}
		if err := show(m, e); err != nil {
			return 0, err
		}
	}
}

func show(m *pb.ExecResponse, e ExecRequest) error {
	if len(m.Stdout) > 0 && e.Stdout != nil {
		if _, err := e.Stdout.Write(m.Stdout); err != nil {
			return err
		}
	}
	if len(m.Stderr) > 0 && e.Stderr != nil {
		_, err := e.Stderr.Write(m.Stderr)
		return err
	}
	return nil
}

// feed sends a command's input until ctx ends. The stream takes one message at a time, so what is
// read from Stdin comes here by a channel; the reading goroutine ends with its next byte.
func feed(ctx context.Context, stream *connect.BidiStreamForClient[pb.ExecRequest, pb.ExecResponse], e ExecRequest) {
	input := make(chan *pb.ExecRequest)
	go readInput(ctx, e.Stdin, input)
	for {
		m := new(pb.ExecRequest)
		select {
		case <-ctx.Done():
			return
		case m = <-input:
		case size := <-e.Resize:
			m.Rows, m.Columns = uint32(size.Rows), uint32(size.Columns)
		case m.Signal = <-e.Signals:
		}
		if stream.Send(m) != nil {
			return // Receive says why
		}
	}
}

func readInput(ctx context.Context, in io.Reader, out chan<- *pb.ExecRequest) {
	put := func(m *pb.ExecRequest) bool {
		select {
		case out <- m:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for in != nil {
		b := make([]byte, 16<<10)
		n, err := in.Read(b)
		if n > 0 && !put(&pb.ExecRequest{Stdin: b[:n]}) {
			return
		}
		if err != nil {
			break
		}
	}
	put(&pb.ExecRequest{StdinClosed: true})
}
