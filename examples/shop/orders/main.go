// Orders takes orders, has them reserved and authorized, and tells others about them.
package main

import (
	"cmp"
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	pb "example.com/shop/orders/inventorypb"
)

//go:generate protoc --go_out=inventorypb --go_opt=paths=source_relative,Minventory.proto=example.com/shop/orders/inventorypb --go-grpc_out=inventorypb --go-grpc_opt=paths=source_relative,Minventory.proto=example.com/shop/orders/inventorypb inventory.proto

// retries is how grpc-go is told to try again while inventory restarts.
const retries = `{"methodConfig": [{"name": [{}], "waitForReady": true, "retryPolicy": {
	"maxAttempts": 5, "initialBackoff": "0.1s", "maxBackoff": "1s", "backoffMultiplier": 2,
	"retryableStatusCodes": ["UNAVAILABLE"]}}]}`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	db, err := open(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer db.Close()
	conn, err := grpc.NewClient(cmp.Or(os.Getenv("INVENTORY_ADDR"), "inventory:8080"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(retries))
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	s := &shop{
		store:     db,
		inventory: pb.NewInventoryClient(conn),
		payments:  cmp.Or(os.Getenv("PAYMENTS_URL"), "http://payments"),
		events:    cmp.Or(os.Getenv("EVENTS_URL"), "http://events"),
	}
	serve(ctx, s.routes())
}

func serve(ctx context.Context, h http.Handler) {
	s := &http.Server{Addr: ":" + cmp.Or(os.Getenv("PORT"), "8080"), Handler: h, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		patience, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		s.Shutdown(patience)
	}()
	log.Printf("orders listens on %s", s.Addr)
	if err := s.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	<-done
}
