// App is a service that knows Google Cloud Pub/Sub and nothing of Shoal: it publishes, pulls what it published, and tries what its
// manifest does not declare. What became of each it prints.
package main

import (
	"context"
	"fmt"
	"os"

	"cloud.google.com/go/pubsub/v2"
)

func main() {
	ctx := context.Background()
	project := os.Getenv("PUBSUB_PROJECT_ID")
	client, err := pubsub.NewClient(ctx, project)
	if err != nil {
		fmt.Println("no client:", err)
		os.Exit(1)
	}
	id, err := client.Publisher("pings").Publish(ctx, &pubsub.Message{Data: []byte("ping")}).Get(ctx)
	fmt.Printf("published in %s: %q %v\n", project, id, err)
	_, err = client.Publisher("secrets").Publish(ctx, &pubsub.Message{Data: []byte("x")}).Get(ctx)
	fmt.Printf("undeclared: %q\n", fmt.Sprint(err))
	err = client.Subscriber("app.pings").Receive(ctx, func(_ context.Context, m *pubsub.Message) {
		fmt.Printf("pulled %s %s\n", m.ID, m.Data)
		m.Ack()
	})
	fmt.Println("ended:", err)
}
