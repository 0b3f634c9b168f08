package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"

	peerv1 "github.com/shoalrun/shoal/api/gen/shoal/peer/v1"
	"github.com/shoalrun/shoal/fleet"
)

// command does what the hub asks. Every command may come twice.
func (n *node) command(ctx context.Context, c *peerv1.CommandsResponse) (fleet.InstanceStatus, error) {
	var none fleet.InstanceStatus
	switch c := c.Command.(type) {
	case *peerv1.CommandsResponse_Start:
		return none, n.start(ctx, c.Start)
	case *peerv1.CommandsResponse_Stop:
		return none, n.supervisor.Stop(ctx, c.Stop)
	case *peerv1.CommandsResponse_Probe:
		return n.supervisor.Probe(ctx, c.Probe)
	case *peerv1.CommandsResponse_Shutdown:
		return none, n.stopAll()
	}
	return none, errors.New("this node does not know the command: upgrade it to the hub's version with `shoal upgrade`")
}

func (n *node) start(ctx context.Context, assignment []byte) error {
	var a fleet.Assignment
	if err := json.Unmarshal(assignment, &a); err != nil {
		return fmt.Errorf("the assignment cannot be read: %w", err)
	}
	if n.machines.elsewhere() {
		dir, err := n.machines.fetch(ctx, a.Service, a.Release.ID)
		if err != nil {
			return err
		}
		a.Release.Dir, a.Dir, a.State = dir, dir, filepath.Join(n.Paths.State, a.Service)
	}
	return n.supervisor.Start(ctx, a)
}
