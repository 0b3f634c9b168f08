// Inventory knows how many of each thing are left.
package main

import (
	"cmp"
	"context"
	"log"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	pb "example.com/shop/inventory/inventorypb"
)

//go:generate protoc --go_out=inventorypb --go_opt=paths=source_relative --go-grpc_out=inventorypb --go-grpc_opt=paths=source_relative inventory.proto

type server struct {
	pb.UnimplementedInventoryServer

	mu       sync.Mutex
	stock    map[string]int32
	cents    map[string]int32
	reserved map[string]bool // by order
}

func (s *server) Reserve(_ context.Context, r *pb.ReserveRequest) (*pb.ReserveResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left, ok := s.stock[r.Sku]
	switch {
	case !ok:
		return nil, status.Errorf(codes.NotFound, "we do not stock %q", r.Sku)
	case r.Quantity < 1:
		return nil, status.Error(codes.InvalidArgument, "the quantity is less than one")
	case s.reserved[r.OrderId]:
		return &pb.ReserveResponse{Left: left, UnitCents: s.cents[r.Sku]}, nil
	case left < r.Quantity:
		return nil, status.Errorf(codes.FailedPrecondition, "only %d of %s left", left, r.Sku)
	}
	s.stock[r.Sku] = left - r.Quantity
	s.reserved[r.OrderId] = true
	return &pb.ReserveResponse{Left: left - r.Quantity, UnitCents: s.cents[r.Sku]}, nil
}

func (s *server) Stock(_ context.Context, r *pb.StockRequest) (*pb.StockResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	left, ok := s.stock[r.Sku]
	if !ok {
		return nil, status.Errorf(codes.NotFound, "we do not stock %q", r.Sku)
	}
	return &pb.StockResponse{Left: left}, nil
}

func main() {
	l, err := net.Listen("tcp", ":"+cmp.Or(os.Getenv("PORT"), "8080"))
	if err != nil {
		log.Fatal(err)
	}
	g := grpc.NewServer()
	pb.RegisterInventoryServer(g, &server{
		reserved: map[string]bool{},
		stock: map[string]int32{
			"kettle": 1_000_000, "lamp": 1_000_000, "notebook": 1_000_000,
			"plant": 1_000_000, "radio": 1_000_000, "umbrella": 0,
		},
		cents: map[string]int32{
			"kettle": 3900, "lamp": 5450, "notebook": 1290,
			"plant": 2400, "radio": 7900, "umbrella": 3200,
		},
	})
	healthpb.RegisterHealthServer(g, health.NewServer())
	reflection.Register(g)

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		g.GracefulStop()
	}()
	log.Printf("inventory listens on %s", l.Addr())
	if err := g.Serve(l); err != nil {
		log.Fatal(err)
	}
}
