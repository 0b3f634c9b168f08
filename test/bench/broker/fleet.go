package main

import (
	"context"
	"os"
	"strings"

	"github.com/shoalrun/shoal/test/bench/harness"
)

// startFleet starts the real binary with one service, whose manifest names the topics t0 to t63. What is measured comes from this host.
func startFleet(ctx context.Context, dir string) (*harness.Fleet, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	topics := make([]string, 64)
	for i := range topics {
		topics[i] = topicName(i)
	}
	return harness.StartFleet(ctx, dir, map[string]string{
		"app": "service: app\nrun: " + self + " -role waiter\npublishes: [" + strings.Join(topics, ", ") + "]\n",
	})
}
