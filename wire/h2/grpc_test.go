package h2_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/shoalrun/shoal/wire/h2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type message = wrapperspb.BytesValue

// echoService has a call of each kind; each sends back what it got.
func echoService(released chan<- error) *grpc.ServiceDesc {
	stream := func(_ any, s grpc.ServerStream) error {
		s.SetTrailer(metadata.Pairs("x-end", "bye"))
		for {
			m := new(message)
			if err := s.RecvMsg(m); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				released <- err
				return err
			}
			if err := s.SendMsg(m); err != nil {
				return err
			}
		}
	}
	unary := func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		m := new(message)
		if err := dec(m); err != nil {
			return nil, err
		}
		switch {
		case bytes.Equal(m.Value, []byte("fail")):
			return nil, status.Error(codes.FailedPrecondition, "as asked: 100% ä")
		case bytes.Equal(m.Value, []byte("hang")):
			<-ctx.Done()
			released <- ctx.Err()
			return nil, ctx.Err()
		}
		return m, nil
	}
	return &grpc.ServiceDesc{
		ServiceName: "test.Echo", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: unary}},
		Streams: []grpc.StreamDesc{{StreamName: "Stream", Handler: stream, ServerStreams: true, ClientStreams: true}},
	}
}

func grpcEcho(t testing.TB, cfg h2.Config) (*grpc.ClientConn, chan error) {
	l := listen(t)
	released := make(chan error, 100)
	server := grpc.NewServer()
	server.RegisterService(echoService(released), struct{}{})
	go func() { _ = server.Serve(l) }()
	t.Cleanup(server.Stop)
	cc, err := grpc.NewClient(startRelay(t, l.Addr().String(), cfg), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc, released
}

func TestGRPCThroughRelay(t *testing.T) {
	cc, released := grpcEcho(t, h2.Config{})
	call := func(ctx context.Context, in string) (string, error) {
		out := new(message)
		err := cc.Invoke(ctx, "/test.Echo/Unary", &message{Value: []byte(in)}, out)
		return string(out.Value), err
	}
	t.Run("unary", func(t *testing.T) {
		var wg sync.WaitGroup
		for w := range 16 {
			wg.Go(func() {
				for i := range 200 {
					want := fmt.Sprint(w, i)
					if got, err := call(t.Context(), want); got != want || err != nil {
						t.Errorf("%q %v", got, err)
					}
				}
			})
		}
		wg.Wait()
	})
	t.Run("status", func(t *testing.T) {
		_, err := call(t.Context(), "fail")
		if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != "as asked: 100% ä" {
			t.Fatal(err)
		}
	})
	t.Run("cancel", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if _, err := call(ctx, "hang"); status.Code(err) != codes.DeadlineExceeded {
			t.Fatal(err)
		}
		<-released
	})
	t.Run("stream", func(t *testing.T) { streams(t, cc) })
	t.Run("large", func(t *testing.T) {
		in := &message{Value: bytes.Repeat([]byte("x"), 3<<20)}
		out := new(message)
		if err := cc.Invoke(t.Context(), "/test.Echo/Unary", in, out); err != nil || !bytes.Equal(in.Value, out.Value) {
			t.Fatal(len(out.Value), err)
		}
	})
}

func streams(t *testing.T, cc *grpc.ClientConn) {
	desc := &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}
	s, err := cc.NewStream(t.Context(), desc, "/test.Echo/Stream")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 50 {
		in, out := &message{Value: bytes.Repeat([]byte{byte(i)}, i*997)}, new(message)
		if err := s.SendMsg(in); err != nil {
			t.Fatal(err)
		}
		if err := s.RecvMsg(out); err != nil || !bytes.Equal(in.Value, out.Value) {
			t.Fatal(i, err)
		}
	}
	_ = s.CloseSend()
	if err := s.RecvMsg(new(message)); err != io.EOF || s.Trailer().Get("x-end")[0] != "bye" {
		t.Fatal(err, s.Trailer())
	}
}
