//go:build unix

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
)

// beTool is a tool on the host: it asks the Pub/Sub API for the topics, over gRPC and as REST, and connects by NATS. It tells what came of it.
func beTool() {
	address := os.Getenv("PUBSUB_EMULATOR_HOST")
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err == nil {
		// A ListTopicsRequest without its project is as an Empty is.
		err = conn.Invoke(context.Background(), "/google.pubsub.v1.Publisher/ListTopics", &emptypb.Empty{}, &emptypb.Empty{})
	}
	fmt.Println("grpc:", err)
	resp, err := http.Get("http://" + address + "/v1/projects/any/topics")
	if err != nil {
		fmt.Println("rest:", err)
		return
	}
	body, _ := io.ReadAll(resp.Body)
	fmt.Printf("rest: %s %s\n", resp.Status, body)
	_, err = nats.Connect(os.Getenv("NATS_URL"))
	fmt.Println("nats:", err)
}
