package fleet

import (
	"encoding/json"
	"time"
)

// Home is the name of the node beside the hub.
const Home = "local"

// Mesh is what the processes of a fleet must know to reach each other from machine to machine. The hub
// writes it; each node keeps the last one on disk.
type Mesh struct {
	Observing
	Limits Limits `json:"limits,omitzero"`
	Fleet  string `json:"fleet"`
	Ranges Ranges `json:"ranges"`
	// Hub is the address of the hub's port; without a host, the one by which it was joined.
	Hub string `json:"hub"`
	// Nodes are those that other machines may call, sorted by name.
	Nodes []Peer `json:"nodes,omitempty"`
	// Bundle is whom to trust: identity.Bundle as JSON.
	Bundle json.RawMessage `json:"bundle,omitempty"`
}

// Peer is where a node awaits calls from others.
type Peer struct {
	Name string `json:"name"`
	// Address is HOST:PORT; without a host, the one by which the hub is reached: the node is beside it.
	Address string `json:"address"`
}

// Peer returns the address of a node; empty where it has none.
func (m *Mesh) Peer(name string) string {
	for _, p := range m.Nodes {
		if p.Name == name {
			return p.Address
		}
	}
	return ""
}

// NodeInfo is one node as the operator sees it.
type NodeInfo struct {
	Name      string    `json:"name"`
	State     NodeState `json:"state"`
	Home      bool      `json:"home,omitempty"`    // beside the hub
	Address   string    `json:"address,omitempty"` // where others call it
	Version   string    `json:"version,omitempty"`
	Mode      Mode      `json:"mode,omitempty"`
	Gateway   string    `json:"gateway,omitempty"`
	Instances int       `json:"instances"`
	Since     time.Time `json:"since,omitzero"`   // of the state
	Expires   time.Time `json:"expires,omitzero"` // its certificate
}

// NodeState is whether a node is there.
type NodeState string

// The states of a node.
const (
	NodeConnected NodeState = "connected"
	NodeAway      NodeState = "away"    // joined, and not connected now
	NodeInvited   NodeState = "invited" // a token was made, and not used yet
	NodeRevoked   NodeState = "revoked"
)
