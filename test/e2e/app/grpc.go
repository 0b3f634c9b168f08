//go:build unix

package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// serveGRPC serves the health protocol, one unary and one streaming method.
func serveGRPC(port string) {
	l, err := net.Listen("tcp", on(port))
	if err != nil {
		log.Fatal(err)
	}
	srv := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(srv, grpchealth.NewServer())
	srv.RegisterService(&mailer, nil)
	log.Fatal(srv.Serve(l))
}

// checkGRPC calls both methods of target and tells what came of it.
func checkGRPC(w http.ResponseWriter, r *http.Request) {
	conn, err := grpc.NewClient(r.URL.Query().Get("target"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		http.Error(w, err.Error(), 599)
		return
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(r.Context(), rawTimeout)
	defer cancel()
	if parent := r.Header.Get("Traceparent"); parent != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "traceparent", parent)
	}
	client := grpc_health_v1.NewHealthClient(conn)
	answer, err := client.Check(ctx, &grpc_health_v1.HealthCheckRequest{})
	fmt.Fprintf(w, "unary %s %s %s\n", answer.GetStatus(), status.Code(err), status.Convert(err).Message())
	_, err = client.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: "nobody"})
	fmt.Fprintf(w, "unknown %s\n", status.Code(err))
	stream, err := client.Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err == nil {
		answer, err = stream.Recv()
	}
	fmt.Fprintf(w, "stream %s %s\n", answer.GetStatus(), status.Code(err))
}

// mailer takes events: `rpc Placed(google.protobuf.StringValue) returns (google.protobuf.Empty)`.
var mailer = grpc.ServiceDesc{ServiceName: "shop.Mailer", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{MethodName: "Placed", Handler: placed}}}

func placed(_ any, ctx context.Context, read func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var order wrapperspb.StringValue
	if err := read(&order); err != nil {
		return nil, err
	}
	head, _ := metadata.FromIncomingContext(ctx)
	line := fmt.Sprintf("%v %v %s\n", head["shoal-caller"], head["ce-source"], order.Value)
	mu.Lock()
	defer mu.Unlock()
	if refusing.Load() {
		seen = append(seen, "refused "+line)
		return nil, status.Error(codes.ResourceExhausted, "not now")
	}
	seen = append(seen, "taken "+line)
	return &emptypb.Empty{}, nil
}
