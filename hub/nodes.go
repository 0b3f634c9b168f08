package hub

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/shoalrun/shoal/fleet"
	"github.com/shoalrun/shoal/identity"
)

// nodes lists the fleet's nodes: the one beside this process, those that joined, those that may.
func (h *hub) nodes(ctx context.Context) ([]fleet.NodeInfo, error) {
	live := h.link.live()
	all := map[string]*fleet.NodeInfo{h.Node: {Name: h.Node, Home: true, State: fleet.NodeAway}}
	h.machines.members(ctx, all)
	for name, status := range live {
		n := all[name]
		if n == nil {
			continue // revoked, and about to be cut off
		}
		n.Version, n.Mode, n.Gateway, n.Since = status.Version, status.Mode, status.Gateway, status.Process.Started
		n.State = fleet.NodeConnected
	}
	for _, s := range h.engine.Status() {
		for _, i := range s.Instances {
			if n := all[i.Node]; n != nil {
				n.Instances++
			}
		}
	}
	list := make([]fleet.NodeInfo, 0, len(all))
	for _, n := range all {
		list = append(list, *n)
	}
	slices.SortFunc(list, func(a, b fleet.NodeInfo) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// otherNodes lists the nodes where there are others than the one beside this process.
func (h *hub) otherNodes(ctx context.Context) ([]fleet.NodeInfo, error) {
	if document, _ := h.machines.current(); document == nil {
		return nil, nil
	}
	return h.nodes(ctx)
}

// members adds what the certificate authority knows.
func (m *machines) members(ctx context.Context, all map[string]*fleet.NodeInfo) {
	document, _ := m.current()
	if document == nil {
		return
	}
	for _, member := range m.authority.Nodes(ctx) {
		n := all[member.Node]
		if n == nil {
			n = &fleet.NodeInfo{Name: member.Node, State: fleet.NodeAway}
			all[member.Node] = n
		}
		n.Address, n.Expires = document.Peer(member.Node), member.Expires
		if member.State == identity.NodeRevoked {
			n.State, n.Since = fleet.NodeRevoked, member.Revoked
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, until := range m.invited {
		n := all[name]
		if time.Now().Before(until) && (n == nil || n.State == fleet.NodeRevoked) {
			all[name] = &fleet.NodeInfo{Name: name, State: fleet.NodeInvited, Expires: until}
		}
	}
}

// rotate takes the next step to a new root certificate.
func (m *machines) rotate(ctx context.Context) (string, error) {
	if document, _ := m.current(); document == nil {
		return "", errors.New("this fleet has no certificates: it is on one machine; `shoal nodes token NAME` lets another join")
	}
	state, err := m.authority.Rotate(ctx, m.authority.RotationState().Step.Next(), m.held)
	if err != nil {
		return "", err
	}
	switch state.Step {
	case identity.Prepared:
		return "a new root certificate is made and told to every node; the old one signs on. Run this again to let the new one sign.", nil
	case identity.Switched:
		return "the new root signs; every node renews its certificate now. Run this again to withdraw the old root.", nil
	}
	return fmt.Sprintf("the old root is withdrawn; the new one is valid until %s", state.Expires.Format(time.DateOnly)), nil
}

// held is what a member has in force, as it said last.
func (m *machines) held(id identity.ID) (identity.Held, bool) {
	if id.Kind == identity.KindHub {
		return m.source.Held(), true
	}
	status, ok := m.hub.link.live()[id.Name]
	if !ok || status.Held == nil {
		return identity.Held{}, false
	}
	var h identity.Held
	return h, json.Unmarshal(status.Held, &h) == nil
}
