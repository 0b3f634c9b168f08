package api

import (
	"context"
	"encoding/json"
	"io"
	"sync"

	"connectrpc.com/connect"
)

// sender returns a send func over a stream. A stream takes one message at a time, and the funcs of a
// Server may send from several goroutines.
func sender[V, M any](out *connect.ServerStream[M], message func(V) (*M, error)) func(V) error {
	var mu sync.Mutex
	return func(v V) error {
		m, err := message(v)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		return out.Send(m)
	}
}

// answer makes a response of what a conversion returned.
func answer[M any](m *M, err error) (*connect.Response[M], error) {
	if err != nil {
		return nil, refuse(err)
	}
	return connect.NewResponse(m), nil
}

func marshalAll[V any](values []V) ([][]byte, error) {
	out := make([][]byte, 0, len(values))
	for _, v := range values {
		b, err := json.Marshal(v)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

func unmarshalAll[V any](messages [][]byte) ([]V, error) {
	out := make([]V, len(messages))
	for i, b := range messages {
		if err := json.Unmarshal(b, &out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// closingKey carries, in a request's context, the context that ends when the server closes.
type closingKey struct{}

// untilClosing bounds a stream that has no end of its own by the server's: `down` must not wait for
// whoever watches. Requests that end by themselves are left to do so.
func untilClosing(ctx context.Context) (context.Context, context.CancelFunc) {
	closing, ok := ctx.Value(closingKey{}).(context.Context)
	if !ok {
		return context.WithCancel(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(closing, cancel)
	return ctx, func() { stop(); cancel() }
}

// contextClose closes connections when ctx ends; the func it returns calls that off.
func contextClose(ctx context.Context, conns ...io.Closer) func() bool {
	return context.AfterFunc(ctx, func() {
		for _, c := range conns {
			c.Close()
		}
	})
}
