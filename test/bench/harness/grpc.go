package harness

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pb "google.golang.org/grpc/interop/grpc_testing"
)

// GRPC makes unary calls by grpc-go, 100 bytes each way, on so many connections, with so many calls on each
// at a time.
func GRPC(connections, calls int) Load {
	return func(ctx context.Context, address string, until time.Time, rate Rate) ([]time.Duration, error) {
		var clients []pb.TestServiceClient
		for range connections {
			c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				return nil, err
			}
			defer c.Close()
			clients = append(clients, pb.NewTestServiceClient(c))
		}
		request := &pb.SimpleRequest{ResponseSize: 100, Payload: &pb.Payload{Body: make([]byte, 100)}}
		n := connections * calls
		return together(n, func(i int) ([]time.Duration, error) {
			return paced(ctx, until, rate, n, func(time.Time) error {
				ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
				defer cancel()
				answer, err := clients[i%connections].UnaryCall(ctx, request)
				if err == nil && len(answer.Payload.Body) != 100 {
					err = fmt.Errorf("answered %d bytes", len(answer.Payload.Body))
				}
				return err
			})
		})
	}
}

// serveGRPC serves unary calls by grpc-go until l is closed.
func serveGRPC(l net.Listener) error {
	s := grpc.NewServer()
	pb.RegisterTestServiceServer(s, unary{})
	return s.Serve(l)
}

type unary struct {
	pb.UnimplementedTestServiceServer
}

func (unary) UnaryCall(_ context.Context, r *pb.SimpleRequest) (*pb.SimpleResponse, error) {
	return &pb.SimpleResponse{Payload: &pb.Payload{Body: make([]byte, min(r.ResponseSize, Megabyte))}}, nil
}
