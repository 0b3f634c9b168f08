package main

import (
	"context"
	"os"

	"github.com/shoalrun/shoal/test/bench/harness"
)

// osTopic has durability os.
const osTopic = "written"

// startFleet starts the real binary with one service, whose manifest names the topics t0 to t63, and osTopic. What is measured comes from
// this host.
func startFleet(ctx context.Context, dir string) (*harness.Fleet, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	publishes := osTopic + ": {durability: os}"
	for i := range topics {
		publishes += ", " + topicName(i) + ": {}"
	}
	return harness.StartFleet(ctx, dir, map[string]string{"app": "service: app\nrun: " + self + " -role waiter\npublishes: {" + publishes + "}\n"})
}
