package api

import (
	"context"
	"errors"
	"io"
	"sync"

	"connectrpc.com/connect"

	pb "github.com/shoalrun/shoal/api/gen/shoal/operator/v1"
)

// Exec runs a command for the stream's length: the first message starts it, the others are its input.
func (r rpc) Exec(ctx context.Context, stream *connect.BidiStream[pb.ExecRequest, pb.ExecResponse]) error {
	if r.s.Exec == nil {
		return r.s.missing("exec")
	}
	ctx, stop := untilClosing(ctx)
	defer stop()
	first, err := stream.Receive()
	if err != nil {
		return err
	}
	out := &execOutput{stream: stream}
	stdin, feed := io.Pipe()
	resize, signals := make(chan Size, 1), make(chan string, 8)
	go pump(ctx, stop, stream, first, execInput{feed, resize, signals})
	defer stdin.Close()
	code, err := r.s.Exec(ctx, ExecRequest{
		Service: first.Service, Command: first.Command, Env: first.Env, TTY: first.Tty,
		Size:  Size{Rows: uint16(first.Rows), Columns: uint16(first.Columns)},
		Stdin: stdin, Stdout: out.to(false), Stderr: out.to(true), Resize: resize, Signals: signals,
	})
	if err != nil {
		return refuse(err)
	}
	return out.send(&pb.ExecResponse{Exited: true, ExitCode: int32(code)})
}

// execInput is where the messages of an exec stream go.
type execInput struct {
	stdin   *io.PipeWriter
	resize  chan Size
	signals chan string
}

// pump feeds the command from the stream until the client has gone, and then ends the command: a
// shell that nobody can type into any more would stay for ever.
func pump(ctx context.Context, stop func(), stream *connect.BidiStream[pb.ExecRequest, pb.ExecResponse], first *pb.ExecRequest, in execInput) {
	for m := first; ; {
		in.take(ctx, m)
		var err error
		if m, err = stream.Receive(); err != nil {
			in.stdin.Close()
			if !errors.Is(err, io.EOF) {
				stop()
			}
			return
		}
	}
}

func (in execInput) take(ctx context.Context, m *pb.ExecRequest) {
	if len(m.Stdin) > 0 {
		in.stdin.Write(m.Stdin) // an error: the command reads no more, which is its right
	}
	if m.StdinClosed {
		in.stdin.Close()
	}
	if m.Rows > 0 && m.Columns > 0 {
		select {
		case <-in.resize: // only the latest size matters
		default:
		}
		in.resize <- Size{Rows: uint16(m.Rows), Columns: uint16(m.Columns)}
	}
	if m.Signal != "" {
		select {
		case in.signals <- m.Signal:
		case <-ctx.Done():
		}
	}
}

// execOutput sends both outputs of a command over one stream.
type execOutput struct {
	mu     sync.Mutex
	stream *connect.BidiStream[pb.ExecRequest, pb.ExecResponse]
}

func (o *execOutput) send(m *pb.ExecResponse) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.stream.Send(m)
}

func (o *execOutput) to(stderr bool) io.Writer {
	return writerFunc(func(b []byte) (int, error) {
		m := &pb.ExecResponse{Stdout: b}
		if stderr {
			m = &pb.ExecResponse{Stderr: b}
		}
		if err := o.send(m); err != nil {
			return 0, err
		}
		return len(b), nil
	})
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
